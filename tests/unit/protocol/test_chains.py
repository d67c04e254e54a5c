"""Hash chains: whatever is done to a log of many chains is named, by chain and number."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.model.message import AuditRecord
from edgeagents.protocol.chains import Entry, Problem, Verifier, against_heads, compare, digest, link, verify

FIELDS = ["writer", "incarnation", "number", "kind", "body", "time_unix_ns", "previous", "digest"]


def chain(length: int, incarnation: str = "i1", previous: AuditRecord | None = None) -> list[AuditRecord]:
    """Return the records of one incarnation."""
    records: list[AuditRecord] = []
    for number in range(length):
        previous = link(previous, "guard", incarnation, "command", {"n": number}, 1000 + number)
        records.append(previous)
    return records


def entries_of(records: Iterable[AuditRecord]) -> list[Entry]:
    """Return records as they lie in a stream."""
    return [Entry(place, record.writer, record.incarnation, record) for place, record in enumerate(records, 1)]


def taken(entries: Iterable[Entry]) -> Verifier:
    """Return a verifier that has seen a log."""
    verifier = Verifier()
    for entry in entries:
        verifier.take(entry)
    return verifier


def texts(problems: Iterable[Problem]) -> list[str]:
    """Return problems as people read them."""
    return [str(problem) for problem in problems]


def same_places(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries as if the stream had been written anew: without holes."""
    return [replace(entry, place=place) for place, entry in enumerate(entries, 1)]


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Draw a log of several writers, restarted and running in copies now and then."""
    records: list[AuditRecord] = []
    newest: dict[str, AuditRecord] = {}
    ends: dict[tuple[str, str], AuditRecord] = {}
    steps = draw(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
    for index, (writer, restarts, pick) in enumerate(steps):
        running = [name for name in ends if name[0] == writer]
        if running and not restarts:
            name = running[-1 - pick % min(2, len(running))]  # the newest copy, or the one before it
            record = link(ends[name], *name, "decision", {"n": index}, 1000 + index)
        else:
            name = (writer, f"i{index}")
            record = link(newest.get(writer), *name, "started", {"n": index}, 1000 + index)
        newest[writer] = ends[name] = record
        records.append(record)
    return entries_of(records)


def names(problems: Iterable[Problem], entry: Entry, *numbers: int) -> bool:
    """Say whether some problem names one of these numbers in the chain of an entry."""
    about = {(problem.writer, problem.incarnation, problem.number) for problem in problems}
    return any((entry.writer, entry.incarnation, number) in about for number in numbers)


def edited(record: AuditRecord, field: str) -> AuditRecord:
    """Return a record with one field changed."""
    value = getattr(record, field)
    return record.model_copy(update={field: value + 7 if isinstance(value, int) else f"{value}x"})


def record_of(entry: Entry) -> AuditRecord:
    """Return the record at a place."""
    assert entry.record is not None
    return entry.record


def test_a_chain_and_the_chains_after_it_are_whole() -> None:
    first = chain(4)
    second = chain(3, "i2", first[-1])
    assert verify([*first, *second]) == []
    assert [record.number for record in second] == [0, 1, 2]
    assert second[0].previous == first[-1].digest
    assert verify([]) == []


def test_chains_of_two_copies_may_interleave() -> None:
    before = chain(2)
    left, right = chain(3, "left", before[-1]), chain(3, "right", before[-1])
    assert verify([*before, left[0], right[0], left[1], left[2], right[1], right[2]]) == []


def test_the_body_has_one_spelling() -> None:
    record = link(None, "guard", "i", "decision", {"b": 1, "a": {"ü": None}}, 5)
    assert record.body == '{"a":{"ü":null},"b":1}'
    assert (record.previous, record.number, record.digest) == ("", 0, digest(record))


def test_half_a_character_in_a_body_is_escaped_and_stops_no_writer() -> None:
    record = link(None, "guard", "i", "rejected", {"text": "\ud800", "b": "ü"}, 5)
    assert record.body == '{"b":"\\u00fc","text":"\\ud800"}'
    assert verify([record]) == []


@given(logs())
def test_a_log_nobody_touched_is_whole(log: list[Entry]) -> None:
    verifier = taken(log)
    assert verifier.end(len(log)) == []
    assert against_heads(verifier.heads, verifier) == []
    assert compare(verifier, taken(log)) == []
    assert sum(len(chain.records) for chain in verifier.chains.values()) == len(log)


@given(logs(), st.data())
def test_an_edit_of_any_field_of_any_record_is_named(log: list[Entry], data: st.DataObject) -> None:
    index, field = data.draw(st.integers(0, len(log) - 1)), data.draw(st.sampled_from(FIELDS))
    target = log[index]
    forged = edited(record_of(target), field)
    problems = taken([*log[:index], replace(target, record=forged), *log[index + 1 :]]).end(len(log))
    assert names(problems, target, forged.number)


@given(logs(), st.data())
def test_a_record_that_was_hashed_again_after_an_edit_is_named(log: list[Entry], data: st.DataObject) -> None:
    index, field = data.draw(st.integers(0, len(log) - 1)), data.draw(st.sampled_from(["kind", "body", "previous"]))
    target = log[index]
    forged = edited(record_of(target), field)
    forged = forged.model_copy(update={"digest": digest(forged)})
    now = taken([*log[:index], replace(target, record=forged), *log[index + 1 :]])
    problems = [*now.end(len(log)), *against_heads(taken(log).heads, now)]
    assert names(problems, target, forged.number, forged.number + 1)
    assert names(compare(taken(log), now), target, forged.number)


@given(logs(), st.data())
def test_any_record_that_is_dropped_is_named(log: list[Entry], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(log) - 1))
    target, left = log[index], [*log[:index], *log[index + 1 :]]
    number = record_of(target).number
    # The hole in the stream tells, at its very end too …
    assert f"place {target.place}: dropped" in " ".join(texts(taken(left).end(len(log))))
    # … and where the stream was written anew, the heads that were written down.
    now = taken(same_places(left))
    problems = [*now.end(len(left)), *against_heads(taken(log).heads, now)]
    assert names(problems, target, number)
    assert names(compare(taken(log), now), target, number)


@given(logs(), st.data())
def test_any_two_records_that_change_places_are_named(log: list[Entry], data: st.DataObject) -> None:
    one = data.draw(st.integers(0, len(log) - 2))
    other = data.draw(st.integers(one + 1, len(log) - 1))
    moved = list(log)
    moved[one], moved[other] = log[other], log[one]
    assert names(taken(moved).end(len(log)), log[one], record_of(log[one]).number)
    same_chain = (log[one].writer, log[one].incarnation) == (log[other].writer, log[other].incarnation)
    if same_chain:
        problems = taken(same_places(moved)).end(len(log))
        assert names(problems, log[one], record_of(log[one]).number)


@given(logs(), st.data())
def test_a_record_that_stands_there_twice_is_named(log: list[Entry], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(log) - 1))
    again = same_places([*log, log[index]])
    assert names(taken(again).end(len(again)), log[index], record_of(log[index]).number)


@given(logs(), st.data())
def test_a_whole_chain_that_is_gone_is_named(log: list[Entry], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(log))
    left = [item for item in log if (item.writer, item.incarnation) != (gone.writer, gone.incarnation)]
    now, before = taken(same_places(left)), taken(log)
    last = before.chains[gone.writer, gone.incarnation].highest
    assert names(against_heads(before.heads, now), gone, last)
    assert names(compare(before, now), gone, 0)


@given(logs(), st.data())
def test_a_log_cut_off_anywhere_is_named_with_all_that_is_gone(log: list[Entry], data: st.DataObject) -> None:
    end = data.draw(st.integers(1, len(log) - 1))
    before, now = taken(log), taken(log[:end])
    problems = [*against_heads(before.heads, now), *compare(before, now)]
    for entry in log[end:]:
        kept = now.chains.get((entry.writer, entry.incarnation))
        assert names(problems, entry, 0 if kept is None else kept.highest + 1)


def test_a_chain_without_its_beginning_is_named() -> None:
    assert texts(verify(chain(4)[2:])) == ["guard i1 #0: dropped: #0 to #1 are not there"]


def test_the_first_chain_cannot_be_taken_away_without_a_trace() -> None:
    first = chain(2)
    assert texts(verify(chain(2, "i2", first[-1]))) == [
        "guard i2 #0: dropped or edited: the end of the chain before it is not there"
    ]


def test_a_whole_chain_that_went_missing_is_named_by_the_next_one() -> None:
    first = chain(2)
    second = chain(2, "i2", first[-1])
    third = chain(2, "i3", second[-1])
    assert texts(verify([*first, *third])) == [
        "guard i3 #0: dropped or edited: the end of the chain before it is not there"
    ]
    assert texts(verify([*second, *first])) == ["guard i2 #0: reordered: stands before the chain it continues"]


def test_two_copies_that_start_at_one_time_on_an_empty_log_are_noted_and_no_problem() -> None:
    verifier = taken(entries_of([*chain(2), *chain(1, "i2")]))
    assert verifier.end(3) == []
    assert texts(verifier.notes) == ["guard i2 #0: names no chain before it, though there is one"]


def test_a_record_under_somebody_elses_name_is_named_as_who_wrote_it() -> None:
    (record,) = chain(1)
    problems = taken([Entry(1, "comfort", "i9", record)]).end(1)
    assert texts(problems) == ["comfort i9 #0: place 1: claims to be a record of guard i1"]


def test_bytes_that_are_no_record_are_named_by_their_place() -> None:
    problems = taken([Entry(1, "comfort", "i9", None, raw=b"x")]).end(1)
    assert texts(problems) == ["comfort i9: place 1: what lies there is no audit record"]


def test_what_a_streams_limits_have_dropped_is_no_problem_and_a_hole_behind_it_is() -> None:
    records = chain(6)
    later = [Entry(place, "guard", "i1", records[place - 1]) for place in (4, 5, 6)]
    assert taken(later).end(6, oldest_may_be_gone=True) == []
    assert texts(taken(later).end(6)) == [
        "stream audit: places 1 to 3: dropped",
        "guard i1 #0: dropped: #0 to #2 are not there",
    ]
    holed = taken([later[0], later[2]]).end(6, oldest_may_be_gone=True)
    assert texts(holed) == ["stream audit: place 5: dropped", "guard i1 #4: dropped: it is not there"]
    continued = [replace(entry, place=entry.place + 6) for entry in entries_of(chain(2, "i2", records[-1]))]
    assert taken(continued).end(8, oldest_may_be_gone=True) == []


def test_what_an_earlier_copy_held_and_the_limits_have_dropped_since_is_no_problem() -> None:
    log = entries_of(chain(6))
    now = taken(log[3:])
    assert compare(taken(log), now, oldest_may_be_gone=True) == []
    assert texts(compare(taken(log), now)) == ["guard i1 #0: dropped since the earlier export: #0 to #2 are not there"]


def test_a_log_written_anew_from_some_point_on_is_whole_in_itself_and_named_by_an_earlier_copy() -> None:
    true = chain(5)
    forged = true[:2]
    for number in range(2, 5):
        forged.append(link(forged[-1], "guard", "i1", "command", {"n": number, "status": "proven"}, 1000 + number))
    now = taken(entries_of(forged))
    assert now.end(5) == []
    assert texts(compare(taken(entries_of(true)), now)) == [
        f"guard i1 #{number}: changed since the earlier export" for number in (2, 3, 4)
    ]


def test_a_record_added_behind_the_heads_is_named() -> None:
    log = chain(3)
    heads = taken(entries_of(log[:2])).heads
    more = entries_of([*log, *chain(1, "i2", log[-1])])
    assert texts(against_heads(heads, taken(more))) == [
        "guard i1 #2: added: the chain ended with #1", "guard i2: added: no head tells of this chain",
    ]  # fmt: skip


def test_what_a_writer_could_not_store_is_noted_and_no_problem() -> None:
    first = link(None, "air", "i1", "started", {}, 1)
    verifier = taken(entries_of([first, link(first, "air", "i1", "dropped", {"records": 3}, 2)]))
    assert verifier.end(2) == []
    assert texts(verifier.notes) == ["air i1 #1: the writer could not store records in time and left some out"]


@pytest.mark.parametrize("field", ["body", "kind", "writer"])
def test_half_a_character_in_a_record_is_an_edit_and_no_crash(field: str) -> None:
    changed: dict[str, Any] = {field: "\ud800"}
    record = chain(1)[0].model_copy(update=changed)
    assert "edited" in texts(verify([record]))[0]
