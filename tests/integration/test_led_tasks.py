"""Agents that lead tasks without a coordinator, over a real broker with each one's own rights; devices are played."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.audit import Audit
from edgeagents.cli import led
from edgeagents.errors import ConflictError, EdgeAgentsError, ForbiddenError
from edgeagents.model.agent import AgentDefinition, Decision
from edgeagents.model.cooperation import Act, Award, Bid, CallForProposals, LedgerAsk
from edgeagents.model.device import Device
from edgeagents.model.message import Cause, Message, SessionWelcome, SiteEntry
from edgeagents.model.task import LedRef, led_of
from edgeagents.permissions import Permissions, agent_user, for_agent, for_coordinator, for_everything
from edgeagents.protocol.conversation import act
from services.agent import presence
from services.agent.commands import Commander, Errand, Given
from services.agent.leading import Leading
from services.agent.leading_desk import LeadingDesk
from services.agent.tasks import Tasks
from tests.contract.waiting import until
from tests.integration.test_permissions import Users
from tests.integration.test_task_shells import PlayedCommander, nothing_sought
from tests.valves import PROFILE

SILENT_S = 2.0
WELCOME = SessionWelcome(generation=1, mode="act", site=(
    SiteEntry(device="valve-1", resource="Setpoint", risk_class="A", kind="absolute"),
    SiteEntry(device="valve-1", resource="Enabled", risk_class="C", kind="absolute"),
))  # fmt: skip
TASK = {"skill": "set", "deviceName": "valve-1", "resourceName": "Setpoint", "value": "21", "deadlineS": 60}


class Server(Users):
    """A broker with the users of a gateway: ada may lead, bob and mallory may not."""

    def rights(self) -> dict[str, Permissions]:
        """Return what each user may do."""
        return {
            "owner": for_everything(), subjects.COORDINATOR: for_coordinator("gw"),
            **{agent_user(name): for_agent("gw", name, leads=name == "ada") for name in ("ada", "bob", "mallory")},
        }  # fmt: skip


class Hand(PlayedCommander):
    """Stands for the way to the guard; what is given waits for `may_store`."""

    def __init__(self) -> None:
        super().__init__()
        self.welcome = WELCOME
        self.causes: list[Cause] = []
        self.may_store = asyncio.Event()
        self.may_store.set()

    def give(self, decision: Decision, cause: Cause, site_s: float, errand: Errand) -> Awaitable[list[Given]]:
        """Take a command, and let it end once it may."""
        self.causes.append(cause)
        return self._later(decision, cause, errand)

    async def _later(self, decision: Decision, cause: Cause, errand: Errand) -> list[Given]:
        await self.may_store.wait()
        if not errand.is_wanted():
            return [Given(decision.intents[0], held_back="left undone")]
        return await self._give(decision, cause)


class Member:
    """One agent with a connection of its own; `stop` is its end, as by kill -9."""

    def __init__(self, server: Server, name: str, cost_s: float) -> None:
        self.server, self.name = server, name
        self.definition = AgentDefinition.model_validate({
            "name": name, "watches": [{"profile": "Valve"}], "leads": name == "ada",
            "skills": [{"name": "set", "cost_s": cost_s}],
        })  # fmt: skip
        self.hand = Hand()
        self.notes: list[dict[str, Any]] = []
        self.running: asyncio.Task[None] | None = None

    async def start(self) -> "Member":
        """Connect, take part, and lead if it may."""
        self.bus = await self.server.connect(agent_user(self.name))
        entered: asyncio.Future[asyncio.TaskGroup] = asyncio.get_running_loop().create_future()

        async def host() -> None:
            async with asyncio.TaskGroup() as group:
                entered.set_result(group)
                await asyncio.Event().wait()

        self.running = asyncio.ensure_future(host())
        group = await entered
        audit = cast(Audit, SimpleNamespace(append=lambda kind, **body: self.notes.append({"kind": kind, **body})))
        commander = cast(Commander, self.hand)
        self.tasks = Tasks(self.bus, self.definition, commander, audit, f"run-of-{self.name}", lambda: 0.0, group)
        group.create_task(self.tasks.run())
        if self.definition.leads:
            devices = SimpleNamespace(
                is_ready=True, seek=nothing_sought, profiles_by_name={"Valve": PROFILE},
                devices_by_name={"valve-1": Device(name="valve-1", profile_name="Valve")},
            )  # fmt: skip
            self.leading = Leading(
                self.name, self.tasks.watch, commander, cast(DeviceCache, devices), audit,
                lambda: self.bus.is_connected,
            )  # fmt: skip
            group.create_task(self.leading.run())
            group.create_task(LeadingDesk(self.bus, self.name, self.leading).run())
        return self

    async def stop(self) -> None:
        """Be gone."""
        if self.running is not None:
            self.running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.running
            self.running = None
            await self.bus.close()


class Gateway:
    """Ada, who may lead, and bob; no coordinator unless the test says `beat`."""

    def __init__(self, server: Server, owner: Bus) -> None:
        self.server, self.owner = server, owner
        self.ada, self.bob = Member(server, "ada", 2.0), Member(server, "bob", 0.1)

    async def start(self) -> None:
        """Start both, and wait until they know that they are alone."""
        for member in (self.ada, self.bob):
            await member.start()

        def know() -> bool:
            members = (self.ada, self.bob)
            return (
                all(item.tasks.watch.presence == "away" for item in members) and self.ada.leading.state()["agents"] == 2
            )

        await until(know, "both know that no coordinator is there", timeout_s=60)

    async def ask(self, verb: str, **body: Any) -> dict[str, Any]:
        """Ask ada over NATS as the owner's tool does, without a loop of its own."""
        subject = subjects.peer_task("gw", "ada", verb, led.GIVER)
        answers = await self.owner.gather(subject, json.dumps(body).encode(), inbox="_INBOX.micro", wait_s=20, most=1)
        return led.answer_of(answers, "ada")

    async def given(self, task: str, **changes: Any) -> None:
        """Give ada a task."""
        await self.ask("submit", **(TASK | changes), id=task)

    async def ended(self, task: str) -> dict[str, Any]:
        """Return a task once it has ended."""

        def has_ended() -> bool:
            return task in self.ada.leading.book.ended

        await until(has_ended, f"{task} ends", timeout_s=60)
        found: dict[str, Any] = (await self.ask("get", id=task))["task"]
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One broker for all tests here."""
    found = Server(tmp_path_factory.mktemp("led"))
    yield found
    found.process.kill()
    found.process.wait()


@pytest.fixture
async def gateway(server: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    """Ada and bob, who know each other."""
    monkeypatch.setattr(presence, "SILENT_S", SILENT_S)
    owner = await server.connect("owner")
    found = Gateway(server, owner)
    server.errors.clear()
    try:
        await found.start()
        yield found
    finally:
        for member in (found.ada, found.bob):
            await member.stop()
        await owner.close()


async def beats(bus: Bus) -> None:
    """Speak as a coordinator that serves, for ever."""
    while True:
        await bus.publish(subjects.coordinator("gw"), b"run-of-coordinator")
        await asyncio.sleep(0.1)


async def test_the_cheaper_one_does_it_once_and_no_right_was_missing(gateway: Gateway) -> None:
    await gateway.given("t")
    found = await gateway.ended("t")
    assert (found["state"], found["winner"], found["reason"]) == ("done", "bob", "proven")
    assert set(found["awards"][0]["bids"]) == {"ada", "bob"}
    assert gateway.bob.hand.given == {("t", 1): 1}
    assert not gateway.ada.hand.given
    ref = led_of(gateway.bob.hand.causes[0])
    assert ref is not None
    assert (ref.leader, ref.task, ref.epoch) == ("ada", "t", 1)
    assert [item["kind"] for item in gateway.ada.notes if item["kind"] in ("award", "task")] == ["award", "task"]
    assert gateway.server.errors == []
    assert (await gateway.ask("submit", **TASK, id="t"))["statusCode"] == 200
    assert gateway.bob.hand.given == {("t", 1): 1}


async def test_one_that_leads_may_win_its_own_task(gateway: Gateway) -> None:
    gateway.bob.hand.trouble = "set 3 s ago: wait 297 s more (minimum interval)"
    await gateway.given("own")
    found = await gateway.ended("own")
    assert (found["state"], found["winner"]) == ("done", "ada")
    assert gateway.ada.hand.given == {("own", 1): 1}


async def test_many_at_once_end_once_each(gateway: Gateway) -> None:
    await asyncio.gather(*(gateway.given(f"t-{number}") for number in range(20)))
    for number in range(20):
        assert (await gateway.ended(f"t-{number}"))["state"] == "done"
    given = gateway.ada.hand.given + gateway.bob.hand.given
    assert sorted(task for task, _ in given) == sorted(f"t-{number}" for number in range(20))
    assert set(given.values()) == {1}


async def test_what_is_not_for_agents_is_refused(gateway: Gateway) -> None:
    with pytest.raises(ForbiddenError, match="class C"):
        await gateway.given("c", resourceName="Enabled", value="true")
    assert gateway.bob.tasks.counts["calls"] == 0


# --- forged words ------------------------------------------------------------------------------------


async def test_an_agent_without_the_right_leads_nobody_and_speaks_for_nobody(gateway: Gateway) -> None:
    mallory = await gateway.server.connect("agent-mallory")
    gateway.server.errors.clear()
    call = CallForProposals(task="x", skill="set", device="valve-1", resource="Setpoint", value="30", left_s=60.0)
    forged: list[tuple[str, Message]] = [
        (subjects.peer("gw", family, "bob", sender), said)
        for sender in ("mallory", "ada")
        for family, said in (
            ("peer-acts", act("cfp", "x", call=call, reply_by_s=5.0)),
            ("peer-acts", act("accept-proposal", "x", award=Award(task="x", epoch=1))),
        )
    ]  # type: ignore[misc]
    forged += [
        (subjects.peer("gw", "peer-answers", "ada", "bob"), act("propose", "x", bid=Bid(cost=0.0))),
        (subjects.peer("gw", "peer-ledger", "ada", "bob"), LedgerAsk(verb="take", task="x", epoch=1)),
        (subjects.coordinator("gw"), act("inform", "x")),
        (subjects.peer_task("gw", "ada", "submit", "mallory"), act("inform", "x")),
    ]
    try:
        for subject, said in forged:
            await mallory.publish(subject, wire.encode(said), wire.AS_PROTOBUF)
            await mallory.flush(30)
        await until(
            lambda: len([text for text in gateway.server.errors if "ermission" in text]) >= len(forged),
            "the broker refuses all of it", timeout_s=40,
        )  # fmt: skip
    finally:
        await mallory.close()
    assert gateway.bob.tasks.counts["calls"] == 0
    assert gateway.ada.tasks.watch.presence == "away"


async def test_a_bid_of_one_who_was_not_asked_and_an_award_nobody_won_do_nothing(gateway: Gateway) -> None:
    gateway.bob.hand.may_store.clear()
    await gateway.given("t")
    mallory = await gateway.server.connect("agent-mallory")
    try:
        said: Act = act("propose", "t", bid=Bid(cost=0.0))
        await mallory.publish(subjects.peer("gw", "peer-answers", "ada", "mallory"), wire.encode(said))
        take = LedgerAsk(verb="take", task="t", epoch=1, incarnation="m")
        await mallory.publish(subjects.peer("gw", "peer-ledger", "ada", "mallory"), wire.encode(take))
        counts = gateway.ada.leading.counts
        await until(
            lambda: counts["refused_not-invited"] and counts["refused_ledger"], "both are refused", timeout_s=20
        )
    finally:
        await mallory.close()
    gateway.bob.hand.may_store.set()
    assert (await gateway.ended("t"))["winner"] == "bob"
    assert gateway.bob.hand.given == {("t", 1): 1}


# --- who comes back, who dies ------------------------------------------------------------------------


async def test_a_coordinator_that_comes_back_in_the_middle_leaves_one_winner_and_gets_what_is_new(
    gateway: Gateway,
) -> None:
    gateway.bob.hand.may_store.clear()
    await gateway.given("t")
    await until(lambda: gateway.bob.hand.causes, "bob is at work", timeout_s=40)
    coordinator = await gateway.server.connect(subjects.COORDINATOR)
    beating = asyncio.ensure_future(beats(coordinator))
    try:
        await until(lambda: gateway.ada.tasks.watch.presence == "there", "ada hears it", timeout_s=40)
        with pytest.raises(ConflictError, match="give it to it"):
            await gateway.given("new")
        gateway.bob.hand.may_store.set()
        found = await gateway.ended("t")
        assert (found["state"], found["winner"]) == ("done", "bob")
        assert gateway.bob.hand.given == {("t", 1): 1}
        assert [ref.task for ref in _refs(gateway)] == ["t"]
    finally:
        beating.cancel()
        await coordinator.close()


def _refs(gateway: Gateway) -> list[LedRef]:
    found = [led_of(cause) for member in (gateway.ada, gateway.bob) for cause in member.hand.causes]
    return [ref for ref in found if ref is not None]


async def test_a_leader_that_is_killed_leaves_what_was_taken_done_once(gateway: Gateway) -> None:
    gateway.bob.hand.may_store.clear()
    await gateway.given("t", deadlineS=8)
    await until(lambda: gateway.bob.hand.causes, "bob is at work", timeout_s=40)
    await gateway.ada.stop()
    gateway.bob.hand.may_store.set()
    await until(lambda: not gateway.bob.tasks._known, "bob's own time is over", timeout_s=40)
    assert gateway.bob.hand.given == {("t", 1): 1}
    assert [item["leader"] for item in gateway.bob.notes if item["kind"] == "task-work"] == ["ada"]
    with pytest.raises(EdgeAgentsError, match="leads: true"):
        await gateway.ask("get", id="t")


async def test_a_leader_that_is_killed_before_the_award_and_gives_the_name_again_gets_the_new_value_set(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.ada.leading, "heard", lambda sender, said: None)  # bids are on their way when it dies
    await gateway.given("t", value="21", deadlineS=60)
    await until(lambda: gateway.bob.tasks.counts["bids"], "bob has bid", timeout_s=40)
    await gateway.ada.stop()
    gateway.ada = await Member(gateway.server, "ada", 2.0).start()
    await until(lambda: gateway.ada.tasks.watch.presence == "away", "ada may lead again", timeout_s=40)
    await until(lambda: gateway.ada.leading.state()["agents"] == 2, "ada knows who is there", timeout_s=40)
    await gateway.given("t", value="25", deadlineS=60)
    found = await gateway.ended("t")
    assert (found["state"], found["winner"], found["task"]["value"]) == ("done", "bob", "25")
    assert [intent.value for intent in gateway.bob.hand.intents] == [25.0]


async def test_a_winner_that_is_killed_is_said_to_be_gone(gateway: Gateway) -> None:
    gateway.bob.hand.may_store.clear()
    await gateway.given("t")
    await until(lambda: gateway.bob.hand.causes, "bob is at work", timeout_s=40)
    await gateway.bob.stop()
    found = await gateway.ended("t")
    assert (found["state"], found["winner"]) == ("failed", "bob")
    assert "bob went away after it had taken it" in found["reason"]
    assert len(found["awards"]) == 1
    assert not gateway.ada.hand.given
