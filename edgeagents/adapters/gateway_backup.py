"""A gateway's whole state into one archive, and back: streams, the guard's ledger, the core's and the world's files.

Order matters while a gateway runs. The command stream comes first and the guard's ledger after it, so that the
ledger knows how each command in the archive ended; the streams that agents consume come last, so that what was acted
on before counts as seen. The guard copes with any order; this one loses least.

Source: docs/backup.md; docs/decisions/0008-generations-never-come-again.md.
"""

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

from edgeagents import __version__, subjects
from edgeagents.adapters import stream_snapshots as streams
from edgeagents.adapters import wire
from edgeagents.adapters.backup_archive import Manifest, extract, write_archive
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.nats_server import lent_store
from edgeagents.adapters.objects import object_stream
from edgeagents.adapters.state_files import (
    copy_file,
    files_of,
    held,
    is_locked,
    ledger_generation,
    move_contents,
)
from edgeagents.errors import ConfigurationError, StoreError, UnavailableError
from edgeagents.model.message import Heartbeat, LeaseRecord
from edgeagents.settings import BusSettings

GUARD: Final = "guard"
SECRET_PARTS: Final = ("secrets", "passwords")
LATE_PARTS: Final = ("world", "journal")  # what happened up to the end
LATE_STREAMS: Final = (subjects.TRIGGERS_STREAM, subjects.EVENTS_STREAM)
Told: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a gateway keeps its state.

    Args:
        root: where work is done and the old state is kept aside.
        parts: folders by their name in the archive; `guard` is the guard's volume.
        broker: how to reach the broker while it runs; None: nobody knows.
        store: the broker's JetStream folder, where it is ours to serve while the gateway is stopped.
    """

    root: Path
    parts: dict[str, Path]
    broker: BusSettings | None = None
    store: Path | None = None
    locks: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def of_folder(cls, folder: Path) -> "Place":
        """Return the places in the folder of `make demo ARGS="--keep FOLDER"`.

        Raises:
            ConfigurationError: the broker's configuration in it cannot be read.
        """
        parts = {name: folder / name for name in (GUARD, "core", "world", "journal", "secrets")}
        parts["passwords"] = folder / "nats"
        locks = {"a guard": folder / GUARD / "guard.lock", "an EdgeX core": folder / "core" / "lock"}
        return cls(folder, parts, _embedded_broker(folder / "nats"), folder / "nats" / "jetstream", locks)

    @classmethod
    def of_volume(cls, guard: Path, broker: BusSettings) -> "Place":
        """Return the guard's volume and a broker that runs on its own."""
        return cls(guard.parent, {GUARD: guard}, broker, None, {"a guard": guard / "guard.lock"})

    def files(self, name: str) -> list[Path]:
        """Return the state files of a part."""
        folder = self.parts[name]
        return sorted(folder.glob("*.password")) if name == "passwords" else files_of(folder)


def _embedded_broker(folder: Path) -> BusSettings | None:
    path, password = folder / "nats-server.conf", folder / "owner.password"
    if not path.exists() or not password.exists():
        return None
    try:
        listen = json.loads(path.read_text())["listen"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"{path}: cannot be read ({error}): is it what the demo wrote?") from error
    return BusSettings(
        nats_url=f"nats://{listen}", nats_user="owner", nats_password_file=password, connect_timeout_s=2.0
    )


# --- out ---------------------------------------------------------------------------------------------


async def back_up(place: Place, target: Path, told: Told, *, with_secrets: bool = False) -> Manifest:
    """Write a gateway's state into an archive, running or not; return what it says of itself.

    Args:
        place: where the state is.
        target: the archive.
        told: called with each thing that is done next.
        with_secrets: take tokens and passwords, too.

    Raises:
        ConfigurationError: there is no state, or it is in use by something that does not answer.
        UnavailableError: the broker does not answer.
        StoreError: something cannot be read or written.
    """
    created = datetime.now(UTC).isoformat(timespec="milliseconds")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=target.parent) as name:
        staging = Path(name)
        async with _broker(place, staging) as bus:
            # Beginnings of prompts are computed again sooner than an archive is carried.
            left_out = object_stream(subjects.PREFIXES_BUCKET)
            names = [name for name in await streams.stream_names(bus) if name != left_out]
            if subjects.COMMANDS_STREAM not in names:
                raise ConfigurationError(f"{place.root}: no command stream: has a guard ever run here?")
            early = [item for item in names if item not in (subjects.COMMANDS_STREAM, *LATE_STREAMS)]
            abouts = await _take_streams(bus, [subjects.COMMANDS_STREAM], staging, told)
            await _take_files(place, [GUARD], staging, told)
            await _take_files(place, [part for part in place.parts if _is_early(part, with_secrets)], staging, told)
            late = [item for item in LATE_STREAMS if item in names]
            abouts |= await _take_streams(bus, [*early, *late], staging, told)
            await _take_files(place, [part for part in LATE_PARTS if part in place.parts], staging, told)
        (staging / "nats-server.conf").unlink(missing_ok=True)
        manifest = Manifest(
            written_by=f"edgeagents {__version__}", gateway=streams.gateway_of(abouts[subjects.COMMANDS_STREAM]),
            created=created, generation=await asyncio.to_thread(ledger_generation, staging / GUARD),
            last_sequences={stream: int(about["state"]["last_seq"]) for stream, about in abouts.items()},
            has_secrets=with_secrets,
        )  # fmt: skip
        told("archive")
        return await asyncio.to_thread(write_archive, target, staging, _names(staging), manifest, lambda size: None)


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _is_early(part: str, with_secrets: bool) -> bool:
    return part != GUARD and part not in LATE_PARTS and (with_secrets or part not in SECRET_PARTS)


@contextlib.asynccontextmanager
async def _broker(place: Place, staging: Path) -> AsyncIterator[Bus]:
    """Yield a connection to the gateway's broker; to one of our own on its store when the gateway is stopped."""
    bus = await _running_broker(place)
    if bus is not None:
        try:
            yield bus
        finally:
            await bus.close()
        return
    if place.store is None:
        raise UnavailableError("the broker does not answer: is it up, are address and password right?")
    for whose, path in place.locks.items():
        if is_locked(path):
            raise ConfigurationError(f"{place.root}: {whose} runs, but its broker does not answer: try again")
    if not place.store.exists():
        raise ConfigurationError(f"{place.root}: no state of a gateway: is it the folder given to --keep?")
    async with lent_store(place.store, staging / "nats-server.conf") as lent:
        yield lent


async def _running_broker(place: Place) -> Bus | None:
    if place.broker is None:
        return None
    try:
        return await Bus.connect(place.broker, "edgeagents-backup")
    except UnavailableError:
        if place.store is None:
            raise
        return None


async def _take_streams(bus: Bus, names: list[str], staging: Path, told: Told) -> dict[str, dict[str, Any]]:
    folder, found = staging / "streams", {}
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        told(f"stream {name}")
        found[name] = await streams.snapshot(bus, name, folder / f"{name}.tar.s2", lambda size: None)
        (folder / f"{name}.json").write_text(json.dumps(found[name]))
    return found


async def _take_files(place: Place, parts: list[str], staging: Path, told: Told) -> None:
    for part in parts:
        told(part)
        for path in place.files(part):
            target = staging / part / path.relative_to(place.parts[part])
            await asyncio.to_thread(copy_file, path, target)


# --- back --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of a restore: what was restored, the least generation of what follows, where the old state lies."""

    manifest: Manifest
    generation: int
    aside: Path | None


async def restore(place: Place, archive: Path, told: Told, *, force: bool = False) -> Restored:
    """Put the state of an archive in the place of what is there; what is there is kept aside.

    Args:
        place: of a gateway that is stopped; only a broker of its own may run.
        archive: what `back_up` wrote.
        told: called with each thing that is done next.
        force: replace state that is there.

    Raises:
        ConfigurationError: the gateway runs, there is state and no `force`, or the archive is none of ours.
        StoreError: the archive is damaged, or something cannot be written.
        UnavailableError: the broker does not answer.
    """
    with contextlib.ExitStack() as stack:
        for whose, path in place.locks.items():
            stack.enter_context(held(path, whose))
        place.root.mkdir(parents=True, exist_ok=True)
        staging = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".restore-", dir=place.root)))
        told("archive")
        manifest = await asyncio.to_thread(extract, archive, staging, lambda size: None)
        if not (staging / "streams" / f"{subjects.COMMANDS_STREAM}.json").exists():
            raise StoreError(f"{archive}: holds no command stream: take another backup")
        aside = place.root / f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
        known = ledger_generation(place.parts[GUARD])
        generation = max(manifest.generation, known, time.time_ns() // 1_000_000)
        note = LeaseRecord(
            device=manifest.gateway, resource="", incarnation=f"restore-{time.time_ns():x}", generation=generation,
            reason=f"restored from the backup of {manifest.created}",
        )  # fmt: skip
        if place.store is None:
            is_replaced = await _into_broker(place, staging, aside, note, told, force=force)
        else:
            is_replaced = await _into_store(place, place.store, staging, aside, note, told, force=force)
        return Restored(manifest, generation, aside if is_replaced else None)


async def _into_store(
    place: Place, store: Path, staging: Path, aside: Path, note: LeaseRecord, told: Told, *, force: bool
) -> bool:
    """Restore where the broker's store is ours; nothing is replaced before all of it is ready."""
    bus = await _running_broker(place)
    if bus is not None:
        await bus.close()
        raise ConfigurationError(f"{place.root}: its broker runs: stop the gateway first")
    is_there = _has_state(place) or bool(files_of(store))
    if is_there and not force:
        raise ConfigurationError(f"{place.root}: there is state already: --force keeps it aside and replaces it")
    ready = staging / "jetstream"
    async with lent_store(ready, staging / "nats-server.conf") as lent:
        await _put_streams(lent, staging, note, told)
    told("files")
    if files_of(store):
        move_contents(store, aside / "jetstream")
    _put_files(place, staging, aside)
    move_contents(ready, store)
    return is_there


async def _into_broker(place: Place, staging: Path, aside: Path, note: LeaseRecord, told: Told, *, force: bool) -> bool:
    """Restore into a broker that runs; its streams of the same names are written aside before they are replaced."""
    async with _broker(place, staging) as bus:
        with contextlib.suppress(UnavailableError):  # nobody answers: none is there
            question = wire.encode(Heartbeat(incarnation=note.incarnation))
            answer = await bus.request(subjects.guard(note.device), question, timeout_s=1)
            other = wire.decode(Heartbeat, answer.data).incarnation
            raise ConfigurationError(f"gateway {note.device!r}: guard {other} runs: stop it, and the agents, first")
        wanted = {path.stem for path in (staging / "streams").glob("*.json")}
        there = sorted(wanted.intersection(await streams.stream_names(bus)))
        is_there = bool(there) or _has_state(place)
        if is_there and not force:
            raise ConfigurationError("there is state already: --force keeps it aside and replaces it")
        if there:
            await _take_streams(bus, there, aside, told)
        for name in there:
            await streams.delete(bus, name)
        await _put_streams(bus, staging, note, told)
    told("files")
    _put_files(place, staging, aside)
    return is_there


def _has_state(place: Place) -> bool:
    return any(place.files(part) for part in place.parts if part not in SECRET_PARTS)


async def _put_streams(bus: Bus, staging: Path, note: LeaseRecord, told: Told) -> None:
    folder = staging / "streams"
    for path in sorted(folder.glob("*.json")):
        told(f"stream {path.stem}")
        about = json.loads(path.read_text())
        await streams.restore(bus, path.stem, about, folder / f"{path.stem}.tar.s2", lambda size: None)
    # The guard reads it at its next start: what follows has a generation of its own.
    data, headers = wire.encode(note), wire.AS_PROTOBUF
    await bus.store(subjects.guard_starts(note.device), data, headers)


def _put_files(place: Place, staging: Path, aside: Path) -> None:
    for part, folder in place.parts.items():
        if part in SECRET_PARTS:
            for path in files_of(staging / part):
                copy_file(path, folder / path.name)
                (folder / path.name).chmod(0o600)
            continue
        if files_of(folder):
            move_contents(folder, aside / part)
        move_contents(staging / part, folder)
