"""What the audit keeps of a decision: what was given instead of a wish, and why, when others had settled it."""

from edgeagents.model.agent import Decision, Intent, Observation
from edgeagents.model.message import Cause
from services.agent.commands import Given
from services.agent.record import decision_body
from services.agent.view import FrozenView, SeenView

WISH = Intent("valve", "Setpoint", 22.0, "somebody is in", "in-use")


def given(item: Given) -> dict[str, object]:
    """Return what the record says became of the wish."""
    observation = Observation(Cause(stream="s", sequence=1), "sensor", {}, 5.0)
    decision = Decision("d", (WISH,), "rule", 1.0, {}, 1)
    seen = SeenView(FrozenView({"latest": [], "recent": []}))
    body = decision_body("comfort", "act", observation, decision, [item], ["rule"], seen)
    found: dict[str, object] = body["given"][0]
    return found


def test_a_wish_that_was_commanded_needs_no_further_words() -> None:
    assert given(Given(WISH, command_id="c")) == {
        "device": "valve", "resource": "Setpoint", "command": "c", "held_back": "",
    }  # fmt: skip


def test_what_was_commanded_instead_is_told_with_its_reason() -> None:
    instead = Intent("valve", "Setpoint", 20.0, "agreed in conflict-1", "in-use")
    found = given(Given(instead, command_id="c"))
    assert (found["value"], found["because"]) == (20.0, "agreed in conflict-1")
