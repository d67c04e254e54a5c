"""One conflict from the question to its end: who gets what and why, and what comes of silence, lies and repetition."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.audit import MAX_BODY_BYTES
from edgeagents.model.cooperation import Act, Appraisal, Ballot, Dispute, Worth
from edgeagents.protocol.conversation import Begin, Heard, Refuse, Tell, Tick, act
from services.coordinator import negotiator
from services.coordinator.case import Case, Verdict
from services.coordinator.negotiator import Ended
from services.coordinator.settlements import settled_body

OPTIONS = ("22", "19", "20", "21")
WARM = {"19": 0.3, "20": 0.6, "21": 0.8, "22": 0.9}
THRIFTY = {"19": 0.9, "20": 0.8, "21": 0.5, "22": 0.1}
NAME = "conflict-1"


def case(parties: tuple[str, ...] = ("energy", "comfort"), **changes: Any) -> Case:
    """Return a conflict that energy asks about, over a valve that comfort holds."""
    dispute = Dispute(device="valve", resource="Setpoint", wanted="19", options=OPTIONS, others=("comfort",))
    plain = Case(
        conversation=NAME, dispute=dispute, claimant="energy", parties=parties,
        priorities=dict.fromkeys(parties, "comfort"), able=dict.fromkeys(parties, frozenset(OPTIONS)),
        holder="comfort", quiet_s=1_000.0,
    )  # fmt: skip
    return replace(plain, **changes)


def says(way: str, worth: dict[str, float], **changes: Any) -> Act:
    """Return what a party says options are worth to it."""
    worths = tuple(Worth(option=option, utility=value) for option, value in worth.items())
    return act("inform", NAME, appraisal=Appraisal(**{"way": way, "worths": worths, "disagreement": 0.2, **changes}))


HOLDS = {"holds": True, "quiet_s": 1_000.0, "present": "22"}


class Played:
    """A conflict that is played by hand; `told` and `refused` are what came of it."""

    def __init__(self, about: Case) -> None:
        self.state, effects = negotiator.step(negotiator.Planned(about), Begin(0.0))
        self.told: list[Tell] = []
        self.refused: list[Refuse] = []
        self._take(effects)

    def _take(self, effects: list[negotiator.Effect]) -> None:
        self.told += [effect for effect in effects if isinstance(effect, Tell)]
        self.refused += [effect for effect in effects if isinstance(effect, Refuse)]

    def hear(self, sender: str, said: Act, now_s: float = 0.1) -> None:
        """Bring an act to the mediator."""
        self.state, effects = negotiator.step(self.state, Heard(sender, said, now_s))
        self._take(effects)

    def tick(self, now_s: float) -> None:
        """Let time pass."""
        self.state, effects = negotiator.step(self.state, Tick(now_s))
        self._take(effects)

    @property
    def verdict(self) -> Verdict:
        """How it ended."""
        assert isinstance(self.state, Ended), self.state
        return self.state.verdict


def test_equals_get_the_nash_point_and_whoever_holds_the_resource_gives_it() -> None:
    played = Played(case())
    played.hear("energy", says("19", THRIFTY))
    played.hear("comfort", says("22", WARM, **HOLDS))
    verdict = played.verdict
    assert (verdict.value, verdict.winner, verdict.rung, verdict.runner_up) == ("20", "comfort", "nash", "21")
    settlements = [tell for tell in played.told if tell.act.settlement is not None]
    assert {tell.to for tell in settlements} == {"energy", "comfort"}
    assert {(tell.act.settlement.value, tell.act.settlement.winner) for tell in settlements} == {("20", "comfort")}


def test_all_parties_are_asked_and_told_who_they_are() -> None:
    played = Played(case())
    assert [(tell.to, tell.act.performative) for tell in played.told] == [("energy", "cfp"), ("comfort", "cfp")]
    assert {tell.act.dispute.others for tell in played.told} == {("energy", "comfort")}


def test_a_higher_class_has_its_way() -> None:
    played = Played(case(priorities={"energy": "economy", "comfort": "comfort"}))
    played.hear("energy", says("19", THRIFTY))
    played.hear("comfort", says("22", WARM, **HOLDS))
    assert (played.verdict.value, played.verdict.winner, played.verdict.rung) == ("22", "comfort", "priority")


def test_who_used_its_lease_a_moment_ago_keeps_it() -> None:
    played = Played(case(quiet_s=10.0))
    played.hear("energy", says("19", THRIFTY))
    played.hear("comfort", says("22", WARM, **HOLDS))
    assert (played.verdict.value, played.verdict.winner, played.verdict.rung) == ("22", "comfort", "lease")


def test_who_wants_nothing_gives_way_and_binds_nobody() -> None:
    played = Played(case())
    played.hear("comfort", act("refuse", NAME, reason="wants nothing there now"))
    played.hear("energy", says("19", THRIFTY))
    assert (played.verdict.value, played.verdict.winner, played.verdict.rung) == ("19", "energy", "lease")
    settlements = [tell.act.settlement for tell in played.told if tell.act.settlement is not None]
    assert {item.stands_s for item in settlements} == {0.0}


def test_a_silent_holder_leaves_all_as_it_was() -> None:
    played = Played(case())
    played.hear("energy", says("19", THRIFTY))
    played.tick(0.4)
    assert isinstance(played.state, negotiator.Asking)
    played.tick(0.5)
    assert (played.verdict.value, played.verdict.winner, played.verdict.rung) == ("", "", "fallback")
    assert any("comfort gave no answer in 0.5 s" in reason for reason in played.verdict.reasons)
    assert {tell.act.performative for tell in played.told if tell.act.settlement is not None} == {"cancel"}


def test_one_beside_that_is_silent_or_cannot_say_holds_nobody_up() -> None:
    played = Played(case(("energy", "comfort", "air", "dust")))
    played.hear("energy", says("19", THRIFTY))
    played.hear("comfort", says("22", WARM, **HOLDS))
    played.hear("air", act("failure", NAME, reason="no reading"))
    played.tick(0.5)
    assert (played.verdict.value, played.verdict.rung) == ("20", "nash")
    assert {"air cannot say: no reading", "dust gave no answer in 0.5 s"} <= set(played.verdict.reasons)


def test_utilities_that_leave_options_out_cost_their_party_the_veto_and_it_is_voted() -> None:
    played = Played(case())
    played.hear("energy", says("19", {"19": 1.0}))
    played.hear("comfort", says("22", WARM, **HOLDS))
    asked = [tell for tell in played.told if tell.act.performative == "cfp" and tell.act.dispute is None]
    played.hear(asked[0].to, act("refuse", NAME, reason="tells its utilities"))
    played.hear("energy", act("inform", NAME, ballot=Ballot(ranking=("19", "20", "21"), vetoed=("22",))))
    played.hear("comfort", act("inform", NAME, ballot=Ballot(ranking=("22", "21", "20"))))
    assert played.verdict.rung == "vote"
    assert any("vetoes of energy do not count" in reason for reason in played.verdict.reasons)


def test_who_leaves_the_vote_out_ends_it_by_the_deadline() -> None:
    played = Played(case())
    played.hear("energy", says("19", {"19": 1.0}))
    played.hear("comfort", says("22", WARM, **HOLDS))
    for now_s in (0.8, 1.2, 2.0, 3.0):
        played.tick(now_s)
    assert (played.verdict.value, played.verdict.winner, played.verdict.rung) == ("22", "comfort", "fallback")


def test_what_nobody_may_give_is_no_option() -> None:
    able = {"energy": frozenset({"19", "21"}), "comfort": frozenset({"21", "22"})}
    played = Played(case(able=able, problems={"20": "outside what energy may set"}))
    played.hear("energy", says("19", THRIFTY))
    played.hear("comfort", says("22", WARM, **HOLDS))
    assert (played.verdict.value, played.verdict.winner) == ("21", "comfort")
    assert any(reason.startswith("lock: 20 is forbidden") for reason in played.verdict.reasons)


def test_the_one_that_may_give_the_outcome_is_the_winner_though_another_holds_it() -> None:
    able = {"energy": frozenset({"19", "20"}), "comfort": frozenset({"21", "22"})}
    played = Played(case(able=able))
    played.hear("energy", says("19", THRIFTY))
    played.hear("comfort", says("22", WARM, **HOLDS))
    assert (played.verdict.value, played.verdict.winner) == ("20", "energy")


def test_what_nobody_gains_by_leaves_the_last_safe_state_with_its_holder() -> None:
    played = Played(case())
    played.hear("energy", says("19", {"19": 0.9, "20": 0.1, "21": 0.1, "22": 0.1}))
    played.hear("comfort", says("22", {"19": 0.1, "20": 0.1, "21": 0.1, "22": 0.9}, **HOLDS))
    assert (played.verdict.value, played.verdict.winner, played.verdict.rung) == ("22", "comfort", "fallback")


@pytest.mark.parametrize(
    ("sender", "said", "cause"),
    [
        ("mallory", says("19", THRIFTY), "not-invited"),
        ("energy", says("19", THRIFTY), "repeated"),
        ("comfort", act("inform", NAME), "no-content"),
        ("comfort", act("propose", NAME), "out-of-turn"),
        ("comfort", says("17", WARM), "unknown-name"),
        ("comfort", says("22", {**WARM, "17": 0.5}), "unknown-name"),
        ("comfort", says("22", WARM, present="17"), "unknown-name"),
        ("comfort", act("inform", "conflict-2"), "other-conversation"),
        ("comfort", act("inform", NAME, needs=99), "newer-version"),
    ],
)
def test_what_is_no_answer_of_a_party_is_refused_by_name(sender: str, said: Act, cause: str) -> None:
    played = Played(case())
    played.hear("energy", says("19", THRIFTY))
    played.hear(sender, said)
    assert [(item.sender, item.cause) for item in played.refused] == [(sender, cause)]
    assert isinstance(played.state, negotiator.Asking)


def test_an_option_told_twice_is_refused() -> None:
    twice = (Worth(option="19", utility=0.1), Worth(option="19", utility=0.9))
    played = Played(case())
    played.hear("comfort", act("inform", NAME, appraisal=Appraisal(way="22", worths=twice)))
    assert [item.cause for item in played.refused] == ["repeated"]


def test_an_answer_after_the_end_is_late() -> None:
    played = Played(case())
    played.tick(0.5)
    played.hear("comfort", says("22", WARM), now_s=0.6)
    assert [item.cause for item in played.refused] == ["late"]


LIES = {"holds": True, "quiet_s": 0.0, "present": "19"}


@pytest.mark.parametrize("liar", ["economy", "comfort"])
def test_who_says_that_it_holds_the_resource_and_does_not_gains_nothing_by_it(liar: Any) -> None:
    told = []
    for said in ({}, LIES):
        played = Played(case(priorities={"energy": liar, "comfort": "comfort"}))
        played.hear("energy", says("19", THRIFTY, **said))
        played.hear("comfort", says("22", WARM, **HOLDS))
        told.append(played.verdict)
    assert told[0] == told[1]
    assert (told[1].value, told[1].rung) == (("22", "priority") if liar == "economy" else ("20", "nash"))


def test_nobody_has_its_way_by_a_lease_that_nobody_holds() -> None:
    played = Played(case(holder=""))
    played.hear("energy", says("19", {**THRIFTY, "20": 0.1, "21": 0.1}, **LIES))
    played.hear("comfort", says("22", {**WARM, "19": 0.1, "20": 0.1, "21": 0.1}, **HOLDS))
    assert (played.verdict.value, played.verdict.winner, played.verdict.rung) == ("", "", "fallback")


def test_one_that_may_not_give_its_way_has_no_other_give_it_by_class_or_lease() -> None:
    able = {"energy": frozenset[str](), "comfort": frozenset(OPTIONS)}
    for quiet_s, priority in ((0.0, "comfort"), (1_000.0, "health")):
        about = case(able=able, holder="energy", quiet_s=quiet_s, priorities={"energy": priority, "comfort": "comfort"})
        played = Played(about)
        played.hear("energy", says("19", THRIFTY, **LIES))
        played.hear("comfort", says("22", WARM))
        assert (played.verdict.value, played.verdict.winner, played.verdict.rung) == ("20", "comfort", "nash")


def test_a_holder_below_others_does_not_say_what_is_left_when_nothing_is_agreed_on() -> None:
    """All of the higher class want different things, and none of them gains by what another wants."""
    classes = {"energy": "economy", "comfort": "comfort", "air": "comfort"}
    played = Played(case(("energy", "comfort", "air"), holder="energy", priorities=classes))
    played.hear("energy", says("19", THRIFTY, **LIES))
    played.hear("comfort", says("22", {"19": 0.1, "20": 0.1, "21": 0.1, "22": 0.9}))
    played.hear("air", says("20", {"19": 0.1, "20": 0.9, "21": 0.1, "22": 0.1}))
    assert (played.verdict.value, played.verdict.winner, played.verdict.rung) == ("", "", "fallback")


def test_who_is_above_all_at_the_guard_gives_what_equals_in_the_bargain_agreed_on() -> None:
    """Its lease keeps the others back; else it would take the resource from the winner at once."""
    played = Played(case(holder="", classes={"energy": "economy", "comfort": "comfort"}))
    played.hear("energy", says("20", THRIFTY))
    played.hear("comfort", says("22", WARM))
    assert (played.verdict.value, played.verdict.winner, played.verdict.rung) == ("20", "comfort", "nash")


def test_a_class_in_the_bargain_has_no_other_give_its_way() -> None:
    classes = {"energy": "economy", "comfort": "comfort"}
    played = Played(case(holder="", classes=classes, priorities={"energy": "health", "comfort": "comfort"}))
    played.hear("energy", says("19", THRIFTY))
    played.hear("comfort", says("22", WARM))
    assert (played.verdict.value, played.verdict.winner, played.verdict.rung) == ("19", "energy", "priority")


def test_what_only_a_silent_or_yielding_party_may_give_is_no_option() -> None:
    able = {"energy": frozenset({"19", "21"}), "comfort": frozenset({"21", "22"}), "air": frozenset({"20"})}
    played = Played(case(("energy", "comfort", "air"), able=able))
    played.hear("energy", says("19", THRIFTY))
    played.hear("comfort", says("22", WARM, **HOLDS))
    played.hear("air", act("refuse", NAME, reason="wants nothing there now"))
    assert (played.verdict.value, played.verdict.winner, played.verdict.rung) == ("21", "comfort", "nash")
    assert any(reason.startswith("lock: 20 is forbidden: nobody who bargains") for reason in played.verdict.reasons)


def test_the_only_option_that_is_left_is_not_settled_where_it_is_worth_less_than_none_to_somebody() -> None:
    able = dict.fromkeys(("energy", "comfort"), frozenset({"19"}))
    for worth, value in (({**WARM, "19": 0.1}, ""), (WARM, "19")):
        played = Played(case(able=able))
        played.hear("energy", says("19", THRIFTY))
        played.hear("comfort", says("22", worth, **HOLDS))
        assert (played.verdict.value, played.verdict.rung) == (value, "lock")


UTILITY = st.floats(0, 1)
TOLD = st.fixed_dictionaries(dict.fromkeys(OPTIONS, UTILITY))


@given(TOLD, TOLD, TOLD, UTILITY, st.floats(0, 2_000))
def test_it_always_ends_with_a_settlement_that_is_worth_no_less_than_none_to_anybody_by_nash(
    energy: dict[str, float], comfort: dict[str, float], air: dict[str, float], disagreement: float, quiet_s: float
) -> None:
    played = Played(case(("energy", "comfort", "air"), quiet_s=quiet_s))
    for name, worth in (("energy", energy), ("comfort", comfort), ("air", air)):
        holds = HOLDS if name == "comfort" else {}
        played.hear(name, says("21", worth, disagreement=disagreement, **holds))
    verdict = played.verdict
    if verdict.rung == "nash":
        assert all(worth[verdict.value] >= disagreement for worth in (energy, comfort, air))
    assert verdict.reasons


PAUSED = "paused by ann: window cleaning"


def test_one_that_the_guard_bars_is_no_party_whatever_it_says_and_the_one_that_is_left_has_its_way() -> None:
    played = Played(case(barred={"comfort": PAUSED}))
    played.hear("comfort", says("22", WARM, **HOLDS))
    assert not played.refused
    assert isinstance(played.state, negotiator.Asking)
    played.hear("energy", says("19", THRIFTY))
    assert (played.verdict.value, played.verdict.winner, played.verdict.rung) == ("19", "energy", "lease")
    assert not played.verdict.stands
    assert f"comfort takes no part: {PAUSED}" in played.verdict.reasons


def test_one_that_leaves_before_it_is_judged_is_no_party_and_the_others_go_on() -> None:
    played = Played(case(("energy", "comfort", "air")))
    played.hear("comfort", says("22", WARM, **HOLDS))
    played.hear("comfort", act("cancel", NAME, reason=PAUSED))
    played.hear("comfort", act("cancel", NAME, reason="again"))
    played.hear("air", says("21", WARM))
    played.hear("energy", says("19", THRIFTY))
    assert (played.verdict.value, played.verdict.rung) == ("20", "nash")
    assert played.verdict.winner in ("energy", "air")
    assert f"comfort takes no part: {PAUSED}" in played.verdict.reasons
    assert not [reason for reason in played.verdict.reasons if "again" in reason]


@pytest.mark.parametrize(("leaving", "left", "value"), [("comfort", "energy", "19"), ("energy", "comfort", "22")])
def test_where_one_is_left_it_ends_at_once_in_its_favour(leaving: str, left: str, value: str) -> None:
    played = Played(case())
    played.hear("energy", says("19", THRIFTY))
    if leaving == "energy":
        played.hear("energy", act("cancel", NAME, reason=PAUSED))
    played.hear("comfort", says("22", WARM, **HOLDS) if leaving == "energy" else act("cancel", NAME, reason=PAUSED))
    assert (played.verdict.value, played.verdict.winner, played.verdict.stands) == (value, left, False)


def test_one_that_leaves_a_vote_is_not_waited_for() -> None:
    played = Played(case())
    played.hear("energy", says("19", {"19": 1.0}))
    played.hear("comfort", says("22", WARM, **HOLDS))
    assert isinstance(played.state, negotiator.Settling)
    played.hear("comfort", act("cancel", NAME, reason=PAUSED))
    assert (played.verdict.value, played.verdict.winner, played.verdict.rung) == ("19", "energy", "lease")


def test_one_that_leaves_a_vote_when_its_time_is_over_has_nothing_settled() -> None:
    """Parties wait no longer: what is settled then would bind nobody but the coordinator's book."""
    parties = ("energy", "comfort", "air", "heat")
    played = Played(case(parties))
    for name in parties:
        played.hear(name, says("19", {"19": 1.0}))
    played.hear("heat", act("cancel", NAME, reason=PAUSED), 2.4)
    assert isinstance(played.state, negotiator.Settling), "in time the others go on"
    played.hear("air", act("cancel", NAME, reason=PAUSED), 2.5)
    assert (played.verdict.winner, played.verdict.rung) == ("", "fallback")
    assert "air left when its time was over" in played.verdict.reasons[-1]


@pytest.mark.parametrize("causes", [1, 63])
def test_the_record_of_many_forbidden_options_fits_the_audit(causes: int) -> None:
    """Each one's reason in short, and a line for each cause, not for each option."""
    locked = {f"{number:060}.5": f"{number % causes} " + "я" * 298 for number in range(63)}
    played = Played(case(locked=locked))
    played.hear("energy", says("19", THRIFTY))
    played.hear("comfort", says("22", WARM, **HOLDS))
    assert isinstance(played.state, Ended)
    body = settled_body(played.state, 0.1)
    assert set(body["forbidden"]) == set(locked)
    assert sum(reason.startswith("lock: ") for reason in body["reasons"]) == min(causes, 9)
    assert len(json.dumps(body, ensure_ascii=False).encode()) < MAX_BODY_BYTES / 2
    assert body["value"] == "20"


def test_where_all_but_who_asked_are_left_nothing_is_settled_for_them() -> None:
    played = Played(case(("energy", "comfort", "air")))
    played.hear("energy", act("cancel", NAME, reason=PAUSED))
    played.hear("comfort", says("22", WARM, **HOLDS))
    played.hear("air", says("21", WARM))
    assert (played.verdict.winner, played.verdict.rung) == ("", "fallback")
    assert "energy, which asked, is out of it" in played.verdict.reasons[-1]


def test_what_the_last_one_may_not_give_is_not_settled() -> None:
    played = Played(case(barred={"comfort": PAUSED}, able={"energy": frozenset({"20"}), "comfort": frozenset(OPTIONS)}))
    played.hear("energy", says("19", THRIFTY))
    assert (played.verdict.value, played.verdict.rung) == ("", "lock")


def test_a_stranger_cannot_have_a_party_leave() -> None:
    played = Played(case())
    played.hear("mallory", act("cancel", NAME, reason=PAUSED))
    assert [(item.sender, item.cause) for item in played.refused] == [("mallory", "not-invited")]
    assert isinstance(played.state, negotiator.Asking)
    assert not played.state.answers.out
