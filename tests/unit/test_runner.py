"""The loop that carries out effects: in order, each answer fed into the next step."""

import pytest

from edgeagents.runner import drive


def step(state: int, event: str) -> tuple[int, list[str]]:
    """Count events; the first leads to two effects, the others to none."""
    return state + 1, ["first", "second"] if event == "begin" else []


async def test_effects_are_carried_out_in_order_and_what_follows_is_stepped_through() -> None:
    done: list[str] = []

    async def carry_out(effect: str) -> str | None:
        done.append(effect)
        return f"{effect} done" if effect == "first" else None

    assert await drive(0, "begin", step, carry_out) == 2
    assert done == ["first", "second"]


async def test_an_event_without_effects_ends_at_once() -> None:
    async def carry_out(effect: str) -> str | None:
        raise AssertionError(effect)

    assert await drive(5, "late", step, carry_out) == 6


async def test_a_failing_effect_is_the_callers_to_handle() -> None:
    async def carry_out(effect: str) -> str | None:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        await drive(0, "begin", step, carry_out)


async def test_answers_are_stepped_through_in_the_order_they_came() -> None:
    seen: list[str] = []

    def remember(state: int, event: str) -> tuple[int, list[str]]:
        seen.append(event)
        return step(state, event)

    async def carry_out(effect: str) -> str | None:
        return f"{effect} done"

    assert await drive(0, "begin", remember, carry_out) == 3
    assert seen == ["begin", "first done", "second done"]
