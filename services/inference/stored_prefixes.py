"""Beginnings of prompts that are used again and again outlive the service: they lie in the broker's object store.

A role's constant part is computed once, whoever starts again: the service, or an agent that goes elsewhere on the
gateway and asks from there. What was never found again is not written: one-time prompts neither wear the disk nor
lie on it. What leaves memory leaves the store, and so does what another model computed.

Source: issue "A language model on the gateway: imported exactly, run as fast as anything else".
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from edgeagents.adapters.model_shelf import Shelf
from edgeagents.adapters.objects import Objects
from edgeagents.errors import EdgeAgentsError, InvalidInputError, NotFoundError, TooLargeError, UnavailableError
from edgeagents.inference import kept_bytes
from edgeagents.inference.engine import Engine
from edgeagents.inference.prefix import KeptPiece

log = logging.getLogger(__name__)

EVERY_S: Final = 30.0
LAST_S: Final = 3.0  # for what is new at the end
ROOM_BYTES: Final = 1 << 20  # of a piece, for what tells of it


class StoredPrefixes:
    """Keeps the store like the memory of whichever engine is on the shelf."""

    def __init__(self, objects: Objects, shelf: Shelf, every_s: float = EVERY_S) -> None:
        """Do nothing yet; `keep` runs.

        Args:
            objects: the bucket; the guard makes it.
            shelf: where the model is.
            every_s: how often new pieces are written.
        """
        self._objects, self._shelf, self._every_s = objects, shelf, every_s
        self._engine: Engine | None = None
        self._stored: set[str] = set()
        self._problem = ""
        self.restored = 0  # pieces, since the model was loaded

    @property
    def stored(self) -> int:
        """Pieces of this model that lie in the store."""
        return len(self._stored)

    async def keep(self) -> None:
        """Read what is stored as soon as a model is there, then write what is new; runs until it is cancelled."""
        try:
            while True:
                await self._turn()
                await asyncio.sleep(self._every_s if self._engine is not None else min(1.0, self._every_s))
        finally:
            if self._engine is not None and not self._problem:
                try:
                    async with asyncio.timeout(LAST_S):
                        await self._write(self._engine)
                except (TimeoutError, EdgeAgentsError) as error:
                    log.info("kept beginnings of prompts: the last of them are computed again: %s", error)

    async def _turn(self) -> None:
        try:
            engine = self._shelf.engine()
        except UnavailableError:
            self._engine = None
            return
        try:
            if engine is not self._engine:
                await self._read(engine)
                self._engine = engine
            await self._write(engine)
            self._problem = ""
        except EdgeAgentsError as error:
            self._tell(str(error))
        except Exception as error:  # the model answers without it
            log.exception("kept beginnings of prompts")
            self._tell(f"{type(error).__name__}: {error}"[:300])

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("kept beginnings of prompts stay in memory only: %s", problem)
        self._problem = problem

    async def forget(self) -> None:
        """Take out all that is stored, for an owner who wants no prompt on the disk."""
        try:
            for name in sorted(await self._objects.names()):
                await self._objects.delete(name)
            await self._objects.tidy()
        except EdgeAgentsError as error:
            log.info("kept beginnings of prompts: nothing taken out: %s", error)

    async def _read(self, engine: Engine) -> None:
        """Take over what is stored of this model, the shortest paths first, and take out all else."""
        await self._objects.tidy()
        names, self._stored = await self._objects.names(), set()
        for name in sorted(names):
            if name.startswith(f"{kept_bytes.model_name(engine.digest)}."):
                piece = await self._piece(name, engine)
                # Stored is only what was found again: it must not be pushed out by prompts that come once.
                if piece is not None and engine.prefixes.keep(piece.path, piece.block, hits=1):
                    self._stored.add(name)
        self.restored = len(self._stored)
        for name in sorted(names - self._stored):
            await self._objects.delete(name)
        if names:
            log.info("kept beginnings of prompts: %d of %d taken over", self.restored, len(names))

    async def _piece(self, name: str, engine: Engine) -> KeptPiece | None:
        config = engine.model.config
        shape = (config.layers, 2, config.kv_heads, config.head_dim)
        try:
            data = await self._objects.get(name, engine.prefixes.budget_bytes + ROOM_BYTES)
            return await asyncio.to_thread(kept_bytes.from_bytes, data, engine.digest, shape)
        except (InvalidInputError, NotFoundError, TooLargeError) as error:
            log.warning("%s", error)
            return None

    async def _write(self, engine: Engine) -> None:
        """Bring the store to what memory holds and was found again."""
        here = await asyncio.to_thread(_named, engine.prefixes.kept(), engine.digest)
        for name in sorted(self._stored - here.keys()):
            await self._objects.delete(name)
            self._stored.discard(name)
        new = [name for name, piece in here.items() if piece.hits and name not in self._stored]
        room_bytes = await self._objects.room_bytes() if new else 0
        for name in new:
            room_bytes -= here[name].block.nbytes + ROOM_BYTES
            if room_bytes < 0:  # what does not fit is not written in vain again and again
                break
            await self._objects.put(name, await asyncio.to_thread(kept_bytes.to_bytes, here[name], engine.digest))
            self._stored.add(name)


def _named(pieces: Sequence[KeptPiece], model: str) -> dict[str, KeptPiece]:
    return {kept_bytes.name_of(piece.path, model): piece for piece in pieces}
