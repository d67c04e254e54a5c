"""A writer that floods is cut, longer each time; one that holds too much loses its own oldest; nobody else anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.protocol.ration import (
    FIRST_CUT_S,
    FORGIVEN_S,
    LONGEST_CUT_S,
    UNIT_BYTES,
    Book,
    Cut,
    Effect,
    Ration,
    Restored,
    Sample,
    Trim,
    charge,
    over_share,
)

BOOK = Book(Ration(per_s=10.0, burst=100.0))


def run(book: Book, *steps: tuple[dict[str, int], float], size: int = 100) -> tuple[Book, list[Effect]]:
    """Return the book after some looks, each with what every writer stored and when, and what the last led to."""
    effects: list[Effect] = []
    for stored, now_s in steps:
        samples = [Sample(name, size) for name, count in stored.items() for _ in range(count)]
        book, effects = charge(book, samples, len(samples), now_s)
    return book, effects


def test_a_burst_and_the_rate_are_free() -> None:
    book, effects = run(BOOK, ({"air": 100}, 0.0), ({"air": 10}, 1.0), ({"air": 20}, 3.0))
    assert (effects, book.cut) == ([], frozenset())


def test_who_stores_more_is_cut_and_nobody_else() -> None:
    book, effects = run(BOOK, ({"air": 101, "heat": 100}, 0.0))
    assert effects == [Cut("air", FIRST_CUT_S)]
    assert book.cut == {"air"}


def test_a_long_message_counts_as_several() -> None:
    assert run(BOOK, ({"air": 30}, 0.0), size=UNIT_BYTES)[1] == []
    assert run(BOOK, ({"air": 30}, 0.0), size=4 * UNIT_BYTES)[1] == [Cut("air", FIRST_CUT_S)]


def test_samples_stand_for_all_that_came_between_them() -> None:
    assert charge(BOOK, [Sample("air", 10)] * 10, 100, 0.0)[1] == []
    assert charge(BOOK, [Sample("air", 10)] * 10, 101, 0.0)[1] == [Cut("air", FIRST_CUT_S)]


def test_it_is_restored_after_its_time_and_cut_for_longer_when_it_goes_on() -> None:
    book, _ = run(BOOK, ({"air": 101}, 0.0))
    book, effects = run(book, ({}, FIRST_CUT_S - 1))
    assert effects == []
    book, effects = run(book, ({}, FIRST_CUT_S))
    assert (effects, book.cut) == ([Restored("air")], frozenset())
    assert run(book, ({"air": 101}, FIRST_CUT_S + 1))[1] == [Cut("air", 2 * FIRST_CUT_S)]
    now_s, length_s = FIRST_CUT_S, 0.0
    for _ in range(20):
        book, (cut, *_) = run(book, ({"air": 1000}, now_s))
        assert isinstance(cut, Cut)
        length_s = cut.for_s
        now_s += length_s
        book, _ = run(book, ({}, now_s))
    assert length_s == LONGEST_CUT_S


def test_what_arrives_while_it_is_cut_makes_it_no_longer() -> None:
    book, _ = run(BOOK, ({"air": 101}, 0.0))
    assert run(book, ({"air": 500}, 1.0), ({}, FIRST_CUT_S))[1] == [Restored("air")]


@pytest.mark.parametrize(("pause_s", "for_s"), [(FORGIVEN_S - 2, 2 * FIRST_CUT_S), (FORGIVEN_S + 1, FIRST_CUT_S)])
def test_after_a_day_without_a_cut_the_next_is_a_first_one(pause_s: float, for_s: float) -> None:
    book, _ = run(BOOK, ({"air": 101}, 0.0), ({}, FIRST_CUT_S), ({"air": 5}, FIRST_CUT_S + 1))
    book, effects = run(book, ({"air": 101}, FIRST_CUT_S + pause_s))
    assert effects == [Cut("air", for_s)]
    book, _ = run(BOOK, ({"air": 101}, 0.0), ({}, FIRST_CUT_S), ({}, FIRST_CUT_S + FORGIVEN_S))
    assert not book.accounts


def test_who_is_quiet_is_forgotten() -> None:
    book, _ = run(BOOK, *(({f"a{number}": 5}, float(number)) for number in range(1000)))
    assert len(book.accounts) < 10


@given(st.lists(st.tuples(st.dictionaries(st.sampled_from("abc"), st.integers(0, 200)), st.floats(0, 30)), max_size=20))
def test_who_keeps_to_its_ration_is_never_cut_whatever_others_do(looks: list[tuple[dict[str, int], float]]) -> None:
    book, now_s = BOOK, 0.0
    for stored, pause_s in looks:
        now_s += pause_s
        good = int(min(pause_s, 1.0) * BOOK.ration.per_s)
        book, effects = run(book, ({**stored, "good": good}, now_s))
        assert "good" not in book.cut
        assert all(effect.writer != "good" for effect in effects)


def test_who_holds_more_than_its_share_keeps_its_newest() -> None:
    samples = [Sample("air", 1000)] * 80 + [Sample("heat", 100)] * 20
    (trim,) = over_share(samples, size_bytes=820_000, share_bytes=400_000)
    assert trim == Trim("air", 400)


def test_what_is_kept_does_not_hang_on_how_even_the_samples_are() -> None:
    """Where much is gone from the middle of a stream, the samples show its newest part several times over."""
    samples = [Sample("air", 1000)] * 8 + [Sample("heat", 100)] * 2
    (trim,) = over_share(samples, size_bytes=4_000_000, share_bytes=400_000)
    assert trim == Trim("air", 400)


@pytest.mark.parametrize("share_bytes", [820_000, 700_000])
def test_who_holds_its_share_or_hardly_more_loses_nothing(share_bytes: float) -> None:
    samples = [Sample("air", 1000)] * 80 + [Sample("heat", 100)] * 20
    assert over_share(samples, size_bytes=820_000, share_bytes=share_bytes) == []


def test_an_empty_stream_has_nobody_to_trim() -> None:
    assert over_share([], 0, 1.0) == []
