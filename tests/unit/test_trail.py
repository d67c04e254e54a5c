"""An export reads back as what was written, and whatever is done to the file is named."""

import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, StoredMessage
from edgeagents.adapters.streams import Held
from edgeagents.errors import InvalidInputError, StoreError
from edgeagents.model.message import AuditRecord
from edgeagents.protocol.chains import Verifier, compare, link
from edgeagents.trail import FileTrail, StreamTrail, entry_of, export

NOW_NS = time.time_ns()


class FakeBus:
    """A broker that holds an audit stream."""

    def __init__(self, messages: list[StoredMessage], **limits: Any) -> None:
        self.messages = messages
        last = messages[-1].sequence if messages else 0
        self.state = Held(**{
            "messages": len(messages), "first_sequence": messages[0].sequence if messages else 0,
            "last_sequence": last, "size_bytes": 1, "max_bytes": -1, "max_age_s": 0.0,
            **limits,
        })  # fmt: skip

    async def held(self, stream: str) -> Held:
        assert stream == "audit"
        return self.state

    async def read(
        self, stream: str, patterns: list[str], *, name: str, start_sequence: int | None
    ) -> AsyncIterator[StoredMessage]:
        for message in self.messages:
            if message.sequence >= (start_sequence or 0):
                yield message


def stored(place: int, record: AuditRecord, *, writer: str = "", data: bytes | None = None) -> StoredMessage:
    """Return a record as the stream holds it; `writer` is whose subject it lies on."""
    subject = f"gw.audit.{writer or record.writer}.{record.incarnation}"
    return StoredMessage(subject, wire.encode(record) if data is None else data, {}, "audit", place, NOW_NS)


def messages(count: int = 6) -> list[StoredMessage]:
    """Return two writers' chains, turn about."""
    newest: dict[str, AuditRecord] = {}
    found = []
    for place in range(1, count + 1):
        writer = ("guard", "air")[place % 2]
        newest[writer] = link(newest.get(writer), writer, f"{writer}-1", "decision", {"n": place, "t": "ü\n"}, place)
        found.append(stored(place, newest[writer]))
    return found


async def verified(trail: StreamTrail | FileTrail) -> list[str]:
    """Return what is wrong with a trail."""
    verifier = await seen(trail)
    return [str(problem) for problem in trail.problems(verifier)]


async def seen(trail: StreamTrail | FileTrail) -> Verifier:
    """Return a verifier that has seen a trail."""
    verifier = Verifier()
    async for entry in trail.entries():
        verifier.take(entry)
    return verifier


async def opened(bus: FakeBus) -> StreamTrail:
    """Return the trail of a broker."""
    return await StreamTrail.open(cast(Bus, bus))


async def exported(folder: Path, held: list[StoredMessage], **limits: Any) -> Path:
    """Return an export of a stream."""
    path = folder / "audit.jsonl"
    await export(await opened(FakeBus(held, **limits)), "gw", path)
    return path


async def test_an_export_reads_back_as_the_stream_it_was_made_of(tmp_path: Path) -> None:
    held = messages()
    steps: list[int] = []
    trail = await opened(FakeBus(held))
    count, problems = await export(trail, "gw", tmp_path / "a.jsonl", lambda: steps.append(1))
    assert (count, problems, len(steps), trail.count) == (6, [], 6, 6)
    file = FileTrail(tmp_path / "a.jsonl")
    assert [entry async for entry in file.entries()] == [entry_of(message) for message in held]
    assert await verified(file) == []
    assert file.heads is not None
    assert (file.heads.gateway, file.heads.records, file.heads.last_place) == ("gw", 6, 6)
    assert {(head.writer, head.number) for head in file.heads.heads} == {("guard", 2), ("air", 2)}
    assert not (tmp_path / "a.jsonl.partial").exists()


async def test_an_empty_audit_is_exported_and_whole(tmp_path: Path) -> None:
    assert await verified(FileTrail(await exported(tmp_path, []))) == []


async def test_what_is_no_record_is_exported_as_it_is_and_named(tmp_path: Path) -> None:
    held = messages(2)
    held.append(stored(3, wire.decode(AuditRecord, held[0].data), data=b"\xff garbage"))
    path = await exported(tmp_path, held)
    problem = "air air-1: place 3: what lies there is no audit record"
    assert await verified(await opened(FakeBus(held))) == [problem]
    assert await verified(FileTrail(path)) == [problem]
    assert [entry.raw async for entry in FileTrail(path).entries()] == [b"", b"", b"\xff garbage"]


async def test_a_record_on_somebody_elses_subject_is_named() -> None:
    held = messages(2)
    held.append(stored(3, link(None, "guard", "guard-1", "command", {}, 1), writer="air"))
    (problem,) = await verified(await opened(FakeBus(held)))
    assert problem == "air guard-1 #0: place 3: claims to be a record of guard guard-1"


FILE = "file audit.jsonl: "
Lines = list[bytes]


def first(old: bytes, new: bytes) -> Callable[[Lines], Lines]:
    """Return what changes the first line."""
    return lambda lines: [lines[0].replace(old, new), *lines[1:]]


def without_air(lines: Lines) -> Lines:
    """Return an export without one of its chains."""
    return [line for line in lines if b'"subject":["air"' not in line]


ATTACKS: dict[str, tuple[Callable[[Lines], Lines], str]] = {
    "the heads cut off": (lambda lines: lines[:-1], f"{FILE}its last line, with the heads, is gone"),
    "the newest dropped": (lambda lines: [*lines[:-2], lines[-1]], "guard guard-1 #2: dropped at the chain's end"),
    "the oldest dropped": (lambda lines: lines[1:], "air air-1 #0: dropped: it is not there"),
    "a chain dropped": (without_air, "air air-1 #2: dropped: nothing is left"),
    "no JSON": (lambda lines: [lines[0], b"{\n", *lines[2:]], f"{FILE}line 2: is no audit record"),
    "another shape": (lambda lines: [b"[1]\n", *lines[1:]], f"{FILE}line 1: is no audit record"),
    "a number beyond any": (first(b'"place":1', b'"place":1e999'), f"{FILE}line 1: is no audit record"),
    "half a character": (first(b'"decision"', b'"\\ud800"'), f"{FILE}line 1: is no audit record"),
    "text for a number": (first(b'"number":0', b'"number":"0"'), "air air-1: place 1: what lies there is no"),
    "an extra line": (lambda lines: [*lines, lines[0]], f"{FILE}line 8: stands behind the heads"),
    "a time of storage": (first(b'"stored_ns":', b'"stored_ns":1'), f"{FILE}was changed after the export"),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_what_was_done_to_an_export_is_named(tmp_path: Path, attack: str) -> None:
    path = await exported(tmp_path, messages())
    change, says = ATTACKS[attack]
    lines = path.read_bytes().splitlines(keepends=True)
    changed = change(lines)
    assert changed != lines
    path.write_bytes(b"".join(changed))
    problems = await verified(FileTrail(path))
    assert any(problem.startswith(says) for problem in problems), problems


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_any_byte_that_is_changed_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    path = await exported(tmp_path, messages(3))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, content.rindex(b'{"gateway"') - 1))] ^= 1 << data.draw(st.integers(0, 6))
    path.write_bytes(content)
    assert await verified(FileTrail(path)) != []


@pytest.mark.parametrize("content", [b"", b"hello\n", b"[]\n{}\n", b"\xff" * 100])
async def test_a_file_that_is_no_export_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match="holds no audit record: was it made by"):
        await verified(FileTrail(path))


async def test_a_file_that_is_not_there_and_a_folder_that_takes_none_are_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does the file exist"):
        await verified(FileTrail(tmp_path / "none"))
    with pytest.raises(StoreError, match="may we write there"):
        await export(await opened(FakeBus([])), "gw", tmp_path / "no folder" / "a.jsonl")


async def test_a_message_deleted_from_the_stream_is_named_wherever_it_lay() -> None:
    held = messages()
    assert "stream audit: place 4: dropped" in await verified(await opened(FakeBus([*held[:3], *held[4:]])))
    assert "stream audit: place 6: dropped" in await verified(await opened(FakeBus(held[:5], last_sequence=6)))
    assert "stream audit: places 1 to 2: dropped" in await verified(await opened(FakeBus(held[2:])))
    assert "stream audit: places 1 to 6: dropped" in await verified(await opened(FakeBus([], last_sequence=6)))


@pytest.mark.parametrize(
    "limits",
    [{"max_bytes": 100, "size_bytes": 95}, {"max_age_s": 86_400.0}, {"max_age_s": 86_400.0, "max_bytes": 1 << 30}],
)
async def test_what_the_streams_limits_have_dropped_is_no_problem(tmp_path: Path, limits: dict[str, Any]) -> None:
    yesterday_ns = NOW_NS - int(86_400e9)
    held = [StoredMessage(m.subject, m.data, {}, "audit", m.sequence, yesterday_ns) for m in messages()]
    earlier = await seen(await opened(FakeBus(held)))
    trail = await opened(FakeBus(held[2:], **limits))
    assert await verified(trail) == []
    assert await verified(FileTrail(await exported(tmp_path, held[2:], **limits))) == []
    assert compare(earlier, await seen(trail), oldest_may_be_gone=trail.oldest_may_be_gone()) == []


async def test_a_young_stream_that_is_not_full_has_dropped_nothing_by_itself() -> None:
    trail = await opened(FakeBus(messages()[2:], max_age_s=86_400.0, max_bytes=1 << 30))
    assert "air air-1 #0: dropped: it is not there" in await verified(trail)


async def test_a_trail_is_read_from_a_place_on() -> None:
    trail = await opened(FakeBus(messages()))
    assert [entry.place async for entry in trail.entries(5)] == [5, 6]


async def test_a_subject_of_another_shape_is_no_writer() -> None:
    message = StoredMessage("elsewhere", json.dumps({}).encode(), {}, "audit", 1, 0)
    entry = entry_of(message)
    assert (entry.writer, entry.incarnation) == ("elsewhere", "")
