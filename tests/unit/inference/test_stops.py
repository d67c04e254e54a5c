"""Stop words: their reader never sees a part of one."""

from hypothesis import given
from hypothesis import strategies as st

from edgeagents.inference.stops import StopWords


@given(st.lists(st.text("ab<", max_size=4), max_size=12), st.lists(st.text("ab<", min_size=1, max_size=3), max_size=3))
def test_what_is_handed_on_is_the_text_up_to_the_first_stop_word(parts: list[str], words: list[str]) -> None:
    stops = StopWords(words)
    found, whole = "", ""
    for part in parts:
        found += stops.push(part)
        whole += part
        ends = [(at + len(word), at) for word in words if (at := whole.find(word)) >= 0]
        assert stops.is_met == bool(ends)
        if ends:
            assert found == whole[: min(ends)[1]]
            break
        assert whole.startswith(found)
    if not stops.is_met:
        assert found + stops.end() == whole


@given(st.text("abc<", max_size=20), st.lists(st.text("abc<", min_size=1, max_size=4), max_size=3))
def test_where_a_text_ends_does_not_hang_on_how_it_comes(whole: str, words: list[str]) -> None:
    at_once, by_letters = StopWords(words), StopWords(words)
    assert at_once.push(whole) + at_once.end() == "".join(map(by_letters.push, whole)) + by_letters.end()
    assert at_once.is_met == by_letters.is_met


def test_what_only_begins_like_a_stop_word_is_held_back_until_it_is_known() -> None:
    stops = StopWords(["<end>", ""])
    assert [stops.push(part) for part in ("on <", "en", "ough> <en", "d> more", "again")] == [
        "on ",
        "",
        "<enough> ",
        "",
        "",
    ]
    assert stops.is_met
