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
        ends = [at for at in map(whole.find, words) if at >= 0]
        assert stops.is_met == bool(ends)
        if ends:
            assert found == whole[: min(ends)]
            break
        assert whole.startswith(found)
    if not stops.is_met:
        assert found + stops.end() == whole


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
