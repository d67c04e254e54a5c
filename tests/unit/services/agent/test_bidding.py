"""A bid is computed by code; what cannot be done is refused with its cause."""

import pytest

from edgeagents.model.agent import AgentDefinition
from edgeagents.model.cooperation import CallForProposals, Param
from edgeagents.model.skill import Aim
from services.agent.bidding import MOST_TASKS, Declined, Load, Offer, bid

ADA = AgentDefinition.model_validate({
    "name": "ada", "watches": [{"device": "valve"}],
    "skills": [{"name": "set", "cost_s": 2},
               {"name": "warm", "set": {"device": "valve-{n}", "resource": "Setpoint", "value": "{degrees}"}}],
})  # fmt: skip
CALL = CallForProposals(task="t", skill="set", device="valve", resource="Setpoint", value="21", left_s=10.0)


def test_a_bid_counts_what_it_takes_what_waits_and_the_link() -> None:
    assert bid(ADA, CALL, Load(), None) == Offer(2.0, Aim("valve", "Setpoint", "21"))
    offer = bid(ADA, CALL, Load(tasks_s=3.0, tasks=2, pending=5, link_s=0.25), None)
    assert isinstance(offer, Offer)
    assert offer.cost == pytest.approx(2.0 + 3.0 + 1.0 + 0.25)


def test_a_named_skill_is_the_command_its_owner_wrote() -> None:
    params = (Param(name="n", value="3"), Param(name="degrees", value="21"))
    call = CallForProposals(task="t", skill="warm", params=params)
    offer = bid(ADA, call, Load(), None)
    assert isinstance(offer, Offer)
    assert offer.aim == Aim("valve-3", "Setpoint", "21")


@pytest.mark.parametrize(
    ("call", "load", "problem", "cause"),
    [
        (CALL.model_copy(update={"skill": "dance"}), Load(), None, "no-skill"),
        (CALL.model_copy(update={"skill": "warm"}), Load(), None, "not-possible"),
        (CALL, Load(), Declined("no-session", "no session with the guard"), "no-session"),
        (CALL, Load(), Declined("observe", "mode observe"), "observe"),
        (CALL, Load(), Declined("paused", "paused by ann: no session today"), "paused"),
        (CALL, Load(tasks=MOST_TASKS), None, "busy"),
        (CALL, Load(tasks_s=9.0), None, "too-late"),
    ],
)
def test_a_refusal_has_its_cause(call: CallForProposals, load: Load, problem: Declined | None, cause: str) -> None:
    found = bid(ADA, call, load, problem)
    assert isinstance(found, Declined)
    assert (found.cause, bool(found.text)) == (cause, True)
