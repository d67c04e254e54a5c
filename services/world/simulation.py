"""The house in site time: advanced as the clock goes, commanded, and stored so that it survives a crash.

The state is stored every second and with each command before that is answered. After a stall or a restart the
house catches up in small portions, so that the event loop is never held up. A state from a time yet to come
(another run's clock) is taken over as it is, at the present time.

Source: design.md section 4, site time.
"""

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from edgeagents.errors import ConfigurationError, StoreError
from edgeagents.settings import SiteTime
from services.world.home import STEP_S, Controls, Home, Score, advance, change
from services.world.outside import Scene, scene

log = logging.getLogger(__name__)

TICK_S: Final = 0.1
SAVE_EVERY_S: Final = 0.9
PORTION: Final = 50  # sub-steps between two looks at the clock, about 2 ms
BUDGET_S: Final = 0.02  # of each tick
BACK_S: Final = 60.0  # site seconds; a house further ahead of the clock would stand still for as long
LONGEST_CATCH_UP_S: Final = 7 * 86_400.0
VERSION: Final = 1

Change = tuple[str, float | bool, str]


class Simulation:
    """One house, one file of state."""

    def __init__(self, seed: int, clock: SiteTime, path: Path | None, *, now: Callable[[], float] = time.time) -> None:
        """Go on with the state in `path`, or begin a new house; nothing is stored when `path` is None.

        Raises:
            ConfigurationError: the file holds the state of another house.
        """
        self.seed = seed
        self.clock = clock
        self._now = now
        self._path = path
        self._saving = asyncio.Lock()
        self._commanding = asyncio.Lock()
        self._writing = threading.Lock()  # a cancelled save goes on in its thread
        self._told = False
        self._saved: Home | None = None
        self.home = self._restored()
        self.around: Scene = scene(seed, self.home.site_s)

    @property
    def lag_s(self) -> float:
        """How far, in site time, the house is behind the clock."""
        return max(0.0, self.clock.at(self._now()) - self.home.site_s)

    def tick(self, budget_s: float = BUDGET_S) -> None:
        """Advance towards the clock for at most about `budget_s` of computing."""
        until_s = self.clock.at(self._now())
        ahead_s = self.home.site_s - until_s
        if ahead_s > BACK_S + STEP_S:
            log.warning("the clock was set back: the house goes on from now, %.0f s of site time earlier", ahead_s)
            self.home = replace(self.home, site_s=until_s - until_s % STEP_S)
        stop = time.perf_counter() + budget_s
        while self.home.site_s + STEP_S <= until_s:
            self.home = advance(self.home, self.seed, until_s, PORTION)
            if time.perf_counter() >= stop:
                break
        self.around = scene(self.seed, self.home.site_s)

    async def run(self) -> None:
        """Advance and store, for ever; a disk that is full is told once and tried again."""
        last_saved = 0.0
        while True:
            self.tick()
            if time.monotonic() - last_saved >= SAVE_EVERY_S:
                last_saved = time.monotonic()
                await self._try_save()
            await asyncio.sleep(TICK_S)

    async def _try_save(self) -> None:
        try:
            await self.save()
            self._told = False
        except StoreError as error:
            if not self._told:
                log.error("the house goes on, but would not survive a crash: %s", error)
                self._told = True

    async def command(self, changes: Iterable[Change]) -> None:
        """Change controls; they are stored when this returns.

        Args:
            changes: (field of `Controls`, value, room or empty).

        Raises:
            StoreError: they could not be stored, and hold no longer.
        """
        async with self._commanding:
            before = self.home.controls
            self.home = replace(self.home, controls=_changed(before, changes))
            try:
                await self.save()
            except StoreError:
                self.home = replace(self.home, controls=before)
                raise

    async def save(self) -> None:
        """Store the state as it is now.

        Raises:
            StoreError: it cannot be written.
        """
        path = self._path
        if path is None:
            return
        async with self._saving:
            home = self.home
            if home is self._saved:
                return
            body = encode(home, self.seed)
            await asyncio.to_thread(self._write, path, body)
            self._saved = home

    def _write(self, path: Path, body: bytes) -> None:
        with self._writing:
            write_file(path, body)

    def _restored(self) -> Home:
        now_s = self.clock.at(self._now())
        home = None if self._path is None else read_file(self._path, self.seed)
        if home is None:
            return Home(site_s=now_s - now_s % STEP_S)
        if home.site_s > now_s + STEP_S or now_s - home.site_s > LONGEST_CATCH_UP_S:
            log.warning("stored house is of another time (%.0f s off): it goes on from now", now_s - home.site_s)
            return replace(home, site_s=now_s - now_s % STEP_S)
        log.info("house goes on from its stored state, %.0f s of site time behind", now_s - home.site_s)
        return home


def _changed(controls: Controls, changes: Iterable[Change]) -> Controls:
    for point, value, room in changes:
        controls = change(controls, point, value, room)
    return controls


# --- the file ------------------------------------------------------------------------------------


def encode(home: Home, seed: int) -> bytes:
    """Return a house as the bytes of its file."""
    return json.dumps({"version": VERSION, "seed": seed, "home": asdict(home)}, separators=(",", ":")).encode()


def decode(data: bytes, seed: int) -> Home:
    """Return the house that a file's bytes hold.

    Raises:
        ConfigurationError: no house, one of another seed, or of a version this one does not know.
    """
    try:
        body = json.loads(data)
        if body["version"] != VERSION:
            raise ConfigurationError(f"version {body['version']} instead of {VERSION}")
        if body["seed"] != seed:
            raise ConfigurationError(f"a house of seed {body['seed']} instead of {seed}")
        fields = _tuples(body["home"])
        controls, score = Controls(**fields.pop("controls")), Score(**fields.pop("score"))
        return Home(**fields, controls=controls, score=score)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"no house: {error}") from error


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(value) if isinstance(value, list) else value


def read_file(path: Path, seed: int) -> Home | None:
    """Return the house in a file, None when there is no file.

    Raises:
        ConfigurationError: the file cannot be read or holds something else; names it and the remedy.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(f"state file {path}: {error.strerror}: may we read it?") from error
    try:
        return decode(data, seed)
    except ConfigurationError as error:
        raise ConfigurationError(f"state file {path}: {error}: remove it to begin a new house") from error


def write_file(path: Path, data: bytes) -> None:
    """Replace a file in one step: after a crash it holds the old or the new state.

    Raises:
        StoreError: it cannot be written.
    """
    beside = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise StoreError(f"state file {path}: {error.strerror}: is the disk full?") from error
