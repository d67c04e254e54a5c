"""An agent that leads: what it takes in, how a task ends whoever goes away, and what is written down. No broker."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeagents.adapters import wire
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.audit import Audit
from edgeagents.errors import (
    ConflictError,
    EdgeAgentsError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    TooManyAttemptsError,
    UnavailableError,
)
from edgeagents.model.cooperation import Act, Announcement, Bid
from edgeagents.model.device import Device
from edgeagents.model.message import Paused, SessionWelcome, SiteEntry
from edgeagents.model.task import TaskWanted
from edgeagents.protocol.conversation import Tell, act
from edgeagents.protocol.roster import GONE_S, TTL_S
from edgeagents.protocol.task_ledger import CloseTask, ReadTask, TakeTask
from edgeagents.task_engine import MOST_TIMERS, STALL_S
from services.agent.commands import Commander
from services.agent.leading import BACK, MOST_OPEN, Leading
from services.agent.presence import CoordinatorWatch
from tests.valves import PROFILE

WANTED = TaskWanted(id="t", skill="set", device_name="valve", resource_name="Setpoint", value="21", deadline_s=60.0)
SITE = (
    SiteEntry(device="valve", resource="Setpoint", risk_class="A", kind="absolute"),
    SiteEntry(device="valve", resource="Enabled", risk_class="C", kind="absolute"),
    SiteEntry(device="valve", resource="Open", risk_class="A", kind="step"),
)


class Rig:
    """Ada, who may lead; ada and bob are there and bid when the test says so."""

    def __init__(self) -> None:
        self.now_s, self.is_connected = 1_000.0, True
        self.watch = SimpleNamespace(presence="away", problem="")
        self.commander = SimpleNamespace(
            session=SimpleNamespace(welcome=SessionWelcome(generation=1, mode="act", site=SITE))
        )
        self.devices = SimpleNamespace(
            is_ready=True, seek=self._seek, devices_by_name={"valve": Device(name="valve", profile_name="Valve")},
            profiles_by_name={"Valve": PROFILE},
        )  # fmt: skip
        self.lost: dict[str, Device] = {}  # devices that core-metadata has and we were not told of
        self.sought: list[str] = []
        self.notes: list[dict[str, Any]] = []
        self.told: list[Tell] = []
        self.leading = Leading(
            "ada", cast(CoordinatorWatch, self.watch), cast(Commander, self.commander),
            cast(DeviceCache, self.devices), cast(Audit, SimpleNamespace(append=self._append)),
            lambda: self.is_connected, lambda: self.now_s,
        )  # fmt: skip
        self.leading.send = self.told.append
        self.announce("ada", "bob")

    async def _seek(self, name: str) -> None:
        self.sought.append(name)
        self.devices.devices_by_name.update(self.lost)

    def _append(self, kind: str, **body: Any) -> None:
        self.notes.append({"kind": kind, **body})

    def announce(self, *agents: str, **changes: Any) -> None:
        """Have agents say that they are there."""
        for name in agents:
            said = Announcement(**{"incarnation": f"run-{name}", "skills": ("set",), "hears_peers": True, **changes})
            self.leading.announced(name, said, wire.PROTOBUF)

    def after(self, s: float, *alive: str) -> None:
        """Let time pass in the loop's steps; who is alive goes on saying so."""
        until_s = self.now_s + s
        while self.now_s < until_s:
            self.now_s = min(until_s, self.now_s + 0.25)
            self.announce(*alive)
            self.leading.look()

    def bid(self, agent: str, cost: float, task: str = "t") -> None:
        """Have an agent bid for the newest call of a task."""
        calls = [tell.act.call for tell in self.told if tell.to == agent and tell.act.call is not None]
        epoch = calls[-1].epoch
        self.leading.heard(agent, act("propose", task, bid=Bid(cost=cost, epoch=epoch)))

    def said(self, performative: str) -> list[tuple[str, Act]]:
        """Return to whom something was said."""
        return [(tell.to, tell.act) for tell in self.told if tell.act.performative == performative]

    @property
    def award(self) -> tuple[str, int]:
        """Who has the newest award, and its epoch."""
        to, said = self.said("accept-proposal")[-1]
        assert said.award is not None
        return to, said.award.epoch

    def note(self, kind: str) -> dict[str, Any]:
        """Return the only record of a kind."""
        (found,) = [item for item in self.notes if item["kind"] == kind]
        return found


@pytest.fixture
def rig() -> Rig:
    """Ada and bob are there."""
    return Rig()


async def taken(rig: Rig) -> None:
    """Have bob win and take the task."""
    await rig.leading.submit(WANTED, "http")
    rig.bid("ada", 3.0)
    rig.bid("bob", 1.0)
    assert rig.award == ("bob", 1)
    assert rig.leading.asked("bob", "t", TakeTask("t", 1, "run-bob"), "").problem == ""


async def test_the_best_bid_wins_takes_it_and_ends_it_and_the_audit_says_all_of_it(rig: Rig) -> None:
    await taken(rig)
    assert rig.leading.asked("bob", "t", CloseTask("t", 1, "bob", "done"), "proven: 21").problem == ""
    record = rig.leading.record("t")
    assert (record.state, record.entry.winner, record.reason) == ("done", "bob", "proven: 21")
    award = rig.note("award")
    assert (award["leader"], award["bids"], award["runner_up"], award["price"]) == (
        "ada", {"bob": 1.0, "ada": 3.0}, "ada", 3.0,
    )  # fmt: skip
    assert "the lowest bid wins" in award["rule"]
    assert (rig.note("task")["state"], rig.note("task")["leader"]) == ("done", "ada")
    assert [to for to, _ in rig.said("reject-proposal")] == ["ada"]


async def test_the_same_task_given_twice_is_one_while_it_is_remembered_even_when_a_coordinator_is_there(
    rig: Rig,
) -> None:
    _, is_new = await rig.leading.submit(WANTED, "http")
    assert is_new
    rig.watch.presence = "there"
    record, is_new = await rig.leading.submit(WANTED, "http")
    assert (record.task, is_new, rig.leading.counts["accepted"]) == ("t", False, 1)
    with pytest.raises(ConflictError, match="is taken by another task"):
        await rig.leading.submit(WANTED.model_copy(update={"value": "22"}), "http")
    with pytest.raises(ConflictError, match="is taken by another task"):
        await rig.leading.submit(WANTED, "owner")


# --- what is not taken in ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"resource_name": "Enabled", "value": "true"}, ForbiddenError, "class C"),
        ({"resource_name": "Open", "value": "true"}, ForbiddenError, "a step"),
        ({"device_name": "nowhere"}, InvalidInputError, "knows no device"),
        ({"resource_name": "Nothing"}, InvalidInputError, "no resource"),
        ({"value": "hot"}, InvalidInputError, "valve/Setpoint"),
        ({"value": "1000000"}, InvalidInputError, "outside the profile's range"),
        ({"deadline_s": 3_601.0}, InvalidInputError, "agents lead for 3600 s at most"),
        ({"skill": "cook"}, UnavailableError, "no agent with skill 'cook'"),
    ],
)
async def test_what_nobody_may_do_is_refused_before_anybody_is_asked(
    rig: Rig, change: dict[str, Any], error: type[EdgeAgentsError], words: str
) -> None:
    with pytest.raises(error, match=words):
        await rig.leading.submit(WANTED.model_copy(update=change), "http")
    assert (rig.told, rig.leading.book.open) == ([], {})


async def test_while_a_coordinator_is_there_or_may_be_nothing_is_taken_in(rig: Rig) -> None:
    rig.watch.presence, rig.watch.problem = "there", "app-coordinator is there: give it to it"
    with pytest.raises(ConflictError, match="give it to it"):
        await rig.leading.submit(WANTED, "http")
    rig.watch.presence, rig.watch.problem = "unknown", "nobody has listened yet"
    with pytest.raises(UnavailableError, match="nobody has listened"):
        await rig.leading.submit(WANTED, "http")
    assert rig.told == []


@pytest.mark.parametrize(
    ("welcome", "error", "words"),
    [
        (None, UnavailableError, "no session"),
        (SessionWelcome(generation=1, mode="observe"), ForbiddenError, "only observes"),
        (SessionWelcome(generation=1, mode="act", paused=(Paused(reason="paused by ann"),)), ForbiddenError, "by ann"),
    ],
)
async def test_who_may_not_command_itself_leads_nobody(
    rig: Rig, welcome: SessionWelcome | None, error: type[EdgeAgentsError], words: str
) -> None:
    rig.commander.session.welcome = welcome
    with pytest.raises(error, match=words):
        await rig.leading.submit(WANTED, "http")


async def test_before_core_metadata_is_known_the_giver_is_told_to_come_back(rig: Rig) -> None:
    rig.devices.is_ready = False
    with pytest.raises(UnavailableError, match="core-metadata"):
        await rig.leading.submit(WANTED, "http")


async def test_a_device_whose_notice_was_lost_is_asked_for_before_its_task_is_refused(rig: Rig) -> None:
    wanted = WANTED.model_copy(update={"device_name": "valve-2"})
    with pytest.raises(InvalidInputError, match="knows no device 'valve-2'"):
        await rig.leading.submit(wanted, "http")
    rig.lost = {"valve-2": Device(name="valve-2", profile_name="Valve")}
    assert (await rig.leading.submit(wanted, "http"))[1] is True
    assert rig.sought == ["valve-2", "valve-2"]


async def test_agents_that_do_not_hear_peers_are_not_asked(rig: Rig) -> None:
    rig.announce("foreign", hears_peers=False)
    await rig.leading.submit(WANTED, "http")
    assert [to for to, _ in rig.said("cfp")] == ["ada", "bob"]
    rig.announce("ada", "bob", hears_peers=False)
    with pytest.raises(UnavailableError, match="no agent with skill 'set'"):
        await rig.leading.submit(WANTED.model_copy(update={"id": "u"}), "http")


async def test_so_many_at_once_and_half_of_them_of_one_giver(rig: Rig) -> None:
    for number in range(MOST_OPEN // 2):
        await rig.leading.submit(WANTED.model_copy(update={"id": f"t-{number}"}), "http")
    with pytest.raises(TooManyAttemptsError, match="of 'http' are under way"):
        await rig.leading.submit(WANTED, "http")
    for number in range(MOST_OPEN // 2):
        await rig.leading.submit(WANTED.model_copy(update={"id": f"u-{number}"}), "owner")
    with pytest.raises(TooManyAttemptsError, match=f"{MOST_OPEN} tasks are under way"):
        await rig.leading.submit(WANTED, "person")


async def test_refusals_are_counted_and_the_audit_knows_of_the_first_ones_of_a_minute(rig: Rig) -> None:
    for _ in range(60):
        rig.leading.refused("http", "task", "no such skill")
    assert rig.leading.counts["refused_task"] == 60
    assert len([item for item in rig.notes if item["kind"] == "task-refused"]) == 50


# --- who goes away ----------------------------------------------------------------------------------


async def test_a_winner_that_is_gone_after_it_took_it_has_failed_and_nobody_else_gets_it(rig: Rig) -> None:
    await taken(rig)
    rig.after(GONE_S + 1.0, "ada")
    record = rig.leading.record("t")
    assert (record.state, record.entry.winner) == ("failed", "bob")
    assert "bob went away after it had taken it" in record.reason
    assert len(rig.said("accept-proposal")) == 1
    assert rig.leading.asked("ada", "t", TakeTask("t", 1, "run-ada"), "").problem


async def test_a_winner_that_does_not_take_it_is_passed_over(rig: Rig) -> None:
    await rig.leading.submit(WANTED, "http")
    rig.bid("ada", 3.0)
    rig.bid("bob", 1.0)
    rig.after(6.0, "ada", "bob")
    rig.bid("ada", 3.0)
    to, epoch = rig.award
    assert (to, epoch > 1) == ("ada", True)
    assert rig.leading.asked("bob", "t", TakeTask("t", 1, "run-bob"), "").problem


async def test_a_task_that_nobody_answers_fails_at_its_deadline_with_the_reason(rig: Rig) -> None:
    await rig.leading.submit(WANTED.model_copy(update={"deadline_s": 5.0}), "http")
    rig.after(6.0, "ada", "bob")
    record = rig.leading.record("t")
    assert record.state == "failed"
    assert "gave no answer" in record.reason or "deadline" in record.reason


async def test_once_a_coordinator_is_back_what_nobody_does_ends_and_what_is_called_for_goes_on(rig: Rig) -> None:
    await rig.leading.submit(WANTED, "http")
    waiting = WANTED.model_copy(update={"id": "waits"})
    await rig.leading.submit(waiting, "http")
    for name in ("ada", "bob"):
        rig.leading.heard(name, act("refuse", "waits", reason="busy"))
    rig.watch.presence = "there"
    rig.after(0.5, "ada", "bob")
    assert (rig.leading.record("waits").state, rig.leading.record("waits").reason) == ("failed", BACK)
    rig.bid("ada", 3.0)
    rig.bid("bob", 1.0)
    rig.leading.asked("bob", "t", TakeTask("t", 1, "run-bob"), "")
    rig.leading.asked("bob", "t", CloseTask("t", 1, "bob", "done"), "proven")
    assert rig.leading.record("t").state == "done"


@pytest.mark.parametrize(
    "order", [{"mode": "observe"}, {"paused": (Paused(reason="paused by ann"),)}], ids=["observe", "pause"]
)
async def test_whom_the_owner_has_observe_or_pauses_ends_what_it_only_plans_and_calls_nobody(
    rig: Rig, order: dict[str, Any]
) -> None:
    await rig.leading.submit(WANTED, "http")
    for name in ("ada", "bob"):
        rig.leading.heard(name, act("refuse", "t", reason="busy"))
    rig.told.clear()
    rig.commander.session.welcome = SessionWelcome(generation=1, site=SITE, **{"mode": "act", **order})
    rig.after(5.0, "ada", "bob")
    assert rig.leading.record("t").state == "failed"
    assert "is in mode observe" in rig.leading.record("t").reason or "paused by ann" in rig.leading.record("t").reason
    assert rig.said("cfp") == []


async def test_a_pause_of_one_device_alone_stops_no_leader(rig: Rig) -> None:
    paused = (Paused(device="lamp", reason="paused by ann"),)
    rig.commander.session.welcome = SessionWelcome(generation=1, mode="act", site=SITE, paused=paused)
    assert (await rig.leading.submit(WANTED, "http"))[1]


async def test_two_copies_take_nothing_new_in_while_they_hear_one_another(rig: Rig) -> None:
    rig.leading.incarnation = "ours"
    rig.announce("ada", incarnation="ours")
    await rig.leading.submit(WANTED, "http")
    rig.announce("ada", incarnation="another")
    with pytest.raises(UnavailableError, match="another copy of agent 'ada' is up"):
        await rig.leading.submit(WANTED.model_copy(update={"id": "u"}), "http")
    assert (await rig.leading.submit(WANTED, "http"))[1] is False
    rig.after(TTL_S + 0.5, "bob")
    assert (await rig.leading.submit(WANTED.model_copy(update={"id": "u"}), "http"))[1]


async def test_a_link_that_is_down_or_a_pause_makes_nobody_gone(rig: Rig) -> None:
    await taken(rig)
    rig.is_connected = False
    rig.after(GONE_S + 2.0)
    rig.is_connected = True
    rig.after(1.0, "ada", "bob")
    assert rig.leading.record("t").state == "taken"
    rig.now_s += STALL_S + GONE_S
    rig.leading.look()
    assert (rig.leading.record("t").state, rig.leading.counts["stalls"]) == ("taken", 1)
    rig.after(GONE_S + 1.0, "ada")
    assert rig.leading.record("t").state == "failed"


async def test_a_cancel_ends_it_once_and_all_that_were_asked_hear_of_it(rig: Rig) -> None:
    await rig.leading.submit(WANTED, "http")
    assert (await rig.leading.cancel("t", "http")).state == "cancelled"
    assert [to for to, _ in rig.said("cancel")] == ["ada", "bob"]
    with pytest.raises(ConflictError, match="cancelled already"):
        await rig.leading.cancel("t", "http")
    with pytest.raises(NotFoundError, match="before its last start is in the audit alone"):
        await rig.leading.cancel("nothing", "http")


# --- who says what is not so -----------------------------------------------------------------------


async def test_only_who_was_asked_is_heard_and_only_the_winner_takes_it(rig: Rig) -> None:
    await rig.leading.submit(WANTED, "http")
    rig.leading.heard("mallory", act("propose", "t", bid=Bid(cost=0.0, epoch=0)))
    rig.bid("ada", 3.0)
    rig.bid("bob", 1.0)
    assert rig.leading.counts["refused_not-invited"] == 1
    for agent in ("mallory", "ada"):
        assert "was not awarded" in rig.leading.asked(agent, "t", TakeTask("t", 1, "x"), "").problem
    assert (
        "not 'mallory''s to end" in rig.leading.asked("mallory", "t", CloseTask("t", 1, "mallory", "done"), "").problem
    )
    assert rig.leading.record("t").state == "awarded"
    assert rig.leading.counts["refused_ledger"] == 3


async def test_a_task_that_was_never_led_here_has_no_ledger(rig: Rig) -> None:
    with pytest.raises(NotFoundError):
        rig.leading.asked("bob", "elsewhere", ReadTask("elsewhere"), "")
    rig.leading.heard("bob", act("inform", "elsewhere"))
    assert rig.leading.counts["refused_other-conversation"] == 1


async def test_what_is_kept_for_timers_is_bounded_however_many_tasks_end(rig: Rig) -> None:
    for number in range(1_500):
        task = f"t-{number}"
        await rig.leading.submit(WANTED.model_copy(update={"id": task, "deadline_s": 3_600.0}), "http")
        await rig.leading.cancel(task, "http")
    assert len(rig.leading.engine._timers) <= MOST_TIMERS + 16
    assert len(rig.leading.book.ended) == 1_000
    assert rig.leading.state()["ended"] == 1_000


async def test_agents_that_announce_in_json_are_written_to_in_json(rig: Rig) -> None:
    rig.leading.announced("bob", Announcement(incarnation="r", skills=("set",), hears_peers=True), wire.JSON)
    assert (rig.leading.reads("bob"), rig.leading.reads("ada")) == (wire.JSON, wire.PROTOBUF)
    rig.announce("bob")
    assert rig.leading.reads("bob") == wire.PROTOBUF
