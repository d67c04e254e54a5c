"""Where the model is, once it is there: it is loaded beside everything else, and looked for again while it is not.

The service answers from its first second on; until the model is there, with why it is not.

Source: issue "Language that can only say what the devices can do".
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgeagents.errors import EdgeAgentsError, UnavailableError
from edgeagents.inference.engine import Engine
from edgeagents.inference.vocabulary import panics_told
from edgeagents.memory import give_back

log = logging.getLogger(__name__)

LOOK_AGAIN_S: Final = 10.0


class Shelf:
    """Holds the engine of one model folder."""

    def __init__(self, folder: Path, load: Callable[[Path], Engine], look_again_s: float = LOOK_AGAIN_S) -> None:
        """Hold nothing yet.

        Args:
            folder: of the model; it may come later.
            load: makes an engine of it; takes seconds.
            look_again_s: after a load that failed.
        """
        self.folder, self._load, self._look_again_s = folder, load, look_again_s
        self._engine: Engine | None = None
        self._why = f"the language model {folder.name} is being loaded: try again in some seconds"

    @property
    def name(self) -> str:
        """Name by which the model is asked for: that of its folder."""
        return self.folder.name

    @property
    def why_not(self) -> str:
        """Why there is no model; empty when there is one."""
        if self._engine is not None and self._engine.failure:
            return f"the language model has stopped: {self._engine.failure}"
        return "" if self._engine is not None else self._why

    def engine(self) -> Engine:
        """Return the engine.

        Raises:
            UnavailableError: there is none (yet); says why.
        """
        if self._engine is None or self._engine.failure:
            raise UnavailableError(self.why_not)
        return self._engine

    async def keep(self) -> None:
        """Load the model, again after a failure, and close it at the end; runs until it is cancelled."""
        try:
            while True:
                if self._engine is None or self._engine.failure:
                    await self._try()
                await asyncio.sleep(self._look_again_s)
        finally:
            if self._engine is not None:
                self._engine.close()

    async def _let_go(self) -> None:
        """Close an engine that has stopped, and forget it: with it in memory there may be no room for another."""
        engine = self._engine
        self._why, self._engine = self.why_not, None
        if engine is not None:
            await asyncio.to_thread(engine.close)

    def _tell(self, text: str) -> None:
        why = f"no language model: {text}"
        if why != self._why:
            log.warning("%s; looking again every %g s", why, self._look_again_s)
        self._why = why

    def _loaded(self) -> Engine:
        with panics_told():
            return self._load(self.folder)

    async def _try(self) -> None:
        if self._engine is not None:
            await self._let_go()
            give_back()
        try:
            engine = await asyncio.to_thread(self._loaded)
        except EdgeAgentsError as error:
            self._tell(str(error))
            return
        except Exception as error:  # whatever this machine or that folder lacks, its owner answers on
            log.debug("loading %s", self.folder, exc_info=True)
            self._tell(f"{type(error).__name__}: {error}".removesuffix(": "))
            return
        give_back()  # a load leaves much behind
        engine.start()
        self._engine = engine
        log.info("language model %s (%s) is ready", self.name, engine.digest[:12])
