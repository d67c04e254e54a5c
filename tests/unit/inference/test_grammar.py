"""A grammar holds exactly the answers that its options hold; number patterns are held against plain counting."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.errors import InvalidInputError
from edgeagents.inference import grammar
from edgeagents.inference.grammar import grammar_of, number_pattern
from edgeagents.model.options import Options, Slot


def spelled(steps: int, decimals: int) -> str:
    sign, digits = "-" if steps < 0 else "", str(abs(steps)).zfill(decimals + 1)
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}" if decimals else sign + digits


@given(st.integers(-300, 300), st.integers(0, 400), st.integers(0, 3))
def test_a_pattern_holds_exactly_the_numbers_of_its_range(lowest: int, size: int, decimals: int) -> None:
    pattern = re.compile(number_pattern(lowest, lowest + size, decimals))
    for steps in range(lowest - 30, lowest + size + 30):
        assert bool(pattern.fullmatch(spelled(steps, decimals))) == (lowest <= steps <= lowest + size)


@given(st.integers(-(2**63), 2**64), st.integers(0, 2**64), st.integers(0, 6), st.data())
def test_large_ranges_are_exact_at_their_ends(lowest: int, size: int, decimals: int, data: st.DataObject) -> None:
    pattern, highest = re.compile(number_pattern(lowest, lowest + size, decimals)), lowest + size
    inside = data.draw(st.integers(lowest, highest))
    for steps in (lowest, highest, inside):
        assert pattern.fullmatch(spelled(steps, decimals))
    for steps in (lowest - 1, highest + 1):
        assert not pattern.fullmatch(spelled(steps, decimals))


@pytest.mark.parametrize("text", ["007", "+7", "-0", "7.0", "7e0", "", "-", " 7"])
def test_a_number_has_one_spelling(text: str) -> None:
    assert not re.fullmatch(number_pattern(-10, 10), text)


def test_devices_with_the_same_menu_share_a_rule() -> None:
    slots = tuple(
        Slot(device=f"lamp-{number}", resource=name, kind="Bool") for number in range(200) for name in ("On", "Night")
    )
    text = grammar_of(Options(slots=slots))
    assert text.count("\n") < 12
    assert all(text.count(f'\\"lamp-{number}\\"') == 1 for number in range(200))


def test_a_grammar_that_would_be_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "MOST_GRAMMAR_CHARS", 100)
    with pytest.raises(InvalidInputError, match="narrow"):
        grammar_of(Options())
