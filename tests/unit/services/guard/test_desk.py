"""Sessions and leases: answered one after the other, everybody in their own queue; written before they are granted."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest

from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, BusMessage
from edgeagents.audit import Audit
from edgeagents.errors import StoreError
from edgeagents.model.agent import AgentDefinition, Negotiates
from edgeagents.model.device import Device, Profile
from edgeagents.model.message import (
    Barred,
    Epoch,
    Heartbeat,
    LeaseRecord,
    LeaseReply,
    LeaseRequest,
    Message,
    Paused,
    SessionWelcome,
)
from edgeagents.protocol.lease import HEARTBEAT_S, SESSION_S, Session
from services.guard.desk import CALL_AFTER_S, MOST_TOLD_CHARS, LeaseDesk
from services.guard.orders import Pause
from tests.contract.waiting import until
from tests.unit.services.guard.bus import MemoryBus
from tests.unit.services.guard.rig import AGENTS, PROFILE, Rig, ends_at

WALL_MS = 1_000_000
INBOX = "_INBOX.agent-air.x"
M = TypeVar("M", bound=Message)


class Desk:
    """A desk that serves, and what it was sent."""

    def __init__(self, rig: Rig, bus: MemoryBus | None = None) -> None:
        self.rig = rig
        self.bus = bus or MemoryBus()
        self.bus.handlers.clear()
        self.bus.subscribed.clear()
        self.records: list[dict[str, Any]] = []
        audit = cast(Audit, SimpleNamespace(append=lambda kind, **body: self.records.append({"kind": kind, **body})))
        self.desk = LeaseDesk(
            cast(Bus, self.bus), rig.owner, rig.devices, audit, rig.clocks.site, rig.clocks.now, rig.orders
        )

    async def send(
        self, agent: str, message: Message | bytes, *, reply: str = INBOX, content_type: str = wire.PROTOBUF
    ) -> None:
        """Let a message arrive."""
        kind = "leases" if isinstance(message, (LeaseRequest, bytes)) else "sessions"
        data = message if isinstance(message, bytes) else wire.encode(message, content_type)
        handler = self.bus.handler(f"gw.{kind}.{agent}")
        assert handler is not None
        await handler(BusMessage(f"gw.{kind}.{agent}", data, {CONTENT_TYPE: content_type}, reply))

    async def ask(self, agent: str, resource: str = "Setpoint", **changes: Any) -> LeaseReply:
        """Return the answer to a lease request."""
        fields = {"incarnation": "i1", "device": "valve", "resource": resource} | changes
        return await self.answer(agent, LeaseRequest(**fields), LeaseReply)

    async def answer(self, agent: str, message: Message | bytes, kind: type[M]) -> M:
        """Return the answer to a message."""
        before = len(self.bus.answers)
        await self.send(agent, message)
        await until(lambda: len(self.bus.answers) > before, "an answer")
        return wire.decode(kind, self.bus.answers[before].data)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Desk"]:
        """Serve inside the block."""
        task = asyncio.create_task(self.desk.serve())
        await self.bus.subscribed.wait()
        yield self
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def desk(rig: Rig) -> AsyncIterator[Desk]:
    """A serving desk of generation 1."""
    found = Desk(rig)
    found.bus.has_stream = False
    await found.desk.read_back(1, 0, WALL_MS)
    found.bus.has_stream = True
    async with found.serving():
        yield found


async def test_a_session_is_welcomed_with_what_concerns_it(desk: Desk) -> None:
    welcome = await desk.answer("air", Heartbeat(incarnation="i1"), SessionWelcome)
    assert (welcome.generation, welcome.mode, welcome.refused) == (1, "act", "")
    assert ("valve", "Enabled", "C", 60.0) in [
        (item.device, item.resource, item.risk_class, item.approval_wait_s) for item in welcome.site
    ]
    assert set(desk.desk.table.heard) == {Session("air", "i1")}


async def test_who_no_file_declares_is_told_and_gets_no_session(desk: Desk) -> None:
    welcome = await desk.answer("evil", Heartbeat(incarnation="i1"), SessionWelcome)
    assert "no agent file declares 'evil'" in welcome.refused
    assert "no agent file declares 'evil'" in (await desk.ask("evil")).reason
    assert (desk.desk.table.heard, desk.bus.held) == ({}, [])


@pytest.mark.parametrize("is_told", [True, False])
async def test_who_is_removed_while_others_are_asked_of_is_refused_at_once(desk: Desk, is_told: bool) -> None:
    assert not (await desk.answer("air", Heartbeat(incarnation="i1"), SessionWelcome)).refused
    desk.rig.owner.take_over({}, {}, {})
    if is_told:
        desk.desk.judge_anew()
    welcome = await desk.answer("air", Heartbeat(incarnation="i1"), SessionWelcome)
    assert "no agent file declares 'air'" in welcome.refused
    assert not (await desk.ask("air")).granted


async def test_the_coordinator_is_told_who_holds_a_lease_and_is_granted_none(desk: Desk) -> None:
    assert await desk.ask("coordinator") == LeaseReply(granted=False)
    await desk.answer("air", Heartbeat(incarnation="i1"), SessionWelcome)
    assert (await desk.ask("air")).granted
    told = await desk.ask("coordinator")
    assert (told.granted, told.holder, told.epoch, told.reason) == (False, "air", None, "")
    assert (await desk.ask("coordinator", release=True)).holder == "air"
    assert (await desk.ask("air")).granted
    assert (await desk.ask("coordinator", resource="None")).holder == ""


async def test_a_request_that_there_is_no_room_for_is_refused_for_now(desk: Desk) -> None:
    await desk.desk._on_too_many("air", BusMessage("gw.leases.air", b"", reply=INBOX))
    reply = wire.decode(LeaseReply, desk.bus.answers[-1].data)
    assert (reply.granted, reply.retry_after_s > 0) == (False, True)
    assert "too many lease requests of air" in reply.reason


async def test_a_file_that_does_not_fit_gets_neither_session_nor_lease(desk: Desk) -> None:
    body = AGENTS[0] | {"may": [{"profile": "Valve", "resource": "Setpoint", "maximum": 99}]}
    desk.rig.owner.agents["air"] = AgentDefinition.model_validate(body)
    welcome = await desk.answer("air", Heartbeat(incarnation="i1"), SessionWelcome)
    assert "outside the profile's range" in welcome.refused
    assert "outside the profile's range" in (await desk.ask("air")).reason


async def test_a_file_that_a_changed_profile_does_not_fit_loses_its_session(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []
    problem = desk.rig.owner.problem
    monkeypatch.setattr(
        type(desk.rig.owner), "problem", lambda _, agent, devices: judged.append(agent) or problem(agent, devices)
    )
    for _ in range(3):
        assert (await desk.answer("air", Heartbeat(incarnation="i1"), SessionWelcome)).refused == ""
    assert judged == ["air"], "judged at every heartbeat, over all devices"

    desk.rig.change_profile(Profile(name="Valve"))

    refused = (await desk.answer("air", Heartbeat(incarnation="i1"), SessionWelcome)).refused
    assert "profile 'Valve' of 'valve' has no 'Setpoint'" in refused


async def test_an_agent_whose_file_was_added_or_mended_is_judged_anew(desk: Desk) -> None:
    assert "no agent file declares 'late'" in (await desk.ask("late")).reason
    desk.rig.owner.agents["late"] = AgentDefinition.model_validate(AGENTS[0] | {"name": "late"})
    await desk.desk.end_unpermitted()
    assert (await desk.answer("late", Heartbeat(incarnation="i1"), SessionWelcome)).refused == ""


async def test_a_lease_is_written_down_before_it_is_granted(desk: Desk) -> None:
    reply = await desk.ask("air")
    assert (reply.granted, reply.epoch) == (True, Epoch(generation=1, revision=1))
    (subject, data, _), record = desk.bus.held[0], desk.records[0]
    assert subject == "gw.commands.valve.guard"
    assert wire.decode(LeaseRecord, data).agent == "air"
    assert (record["kind"], record["agent"], record["revision"]) == ("lease", "air", 1)
    assert await desk.ask("air") == reply
    assert len(desk.bus.held) == 1


async def test_a_higher_class_takes_it_and_a_copy_does_not(desk: Desk) -> None:
    await desk.ask("air")
    assert "another copy" in (await desk.ask("air", incarnation="i2")).reason
    taken = await desk.ask("heat")
    assert (taken.granted, taken.epoch) == (True, Epoch(generation=1, revision=2))
    refused = await desk.ask("air")
    assert (refused.granted, refused.holder, refused.retry_after_s) == (False, "heat", SESSION_S)


@pytest.mark.parametrize(
    ("agent", "changes", "reason"),
    [
        ("eye", {}, "agent 'eye' is in mode observe"),
        ("air", {"device": "gone"}, "core-metadata knows no device 'gone'"),
        ("air", {"resource": "Gone"}, "no permission for valve/Gone"),
    ],
)
async def test_what_an_agent_may_not_command_it_cannot_hold(
    desk: Desk, agent: str, changes: dict[str, Any], reason: str
) -> None:
    assert reason in (await desk.ask(agent, **changes)).reason
    assert desk.bus.held == []
    assert desk.desk.table.leases == {}


async def test_a_lease_can_be_given_back(desk: Desk) -> None:
    await desk.ask("air")
    assert not (await desk.ask("air", release=True)).granted
    assert (await desk.ask("heat")).granted
    assert [wire.decode(LeaseRecord, data).agent for _, data, _ in desk.bus.held] == ["air", "", "heat"]


async def silent(desk: Desk) -> None:
    """Let time pass in which the guard runs and no session is heard."""
    for _ in range(6):
        desk.rig.clocks.now_s += HEARTBEAT_S
        await asyncio.sleep(HEARTBEAT_S / 2 * 1.2)


async def test_the_leases_of_a_silent_session_end(desk: Desk) -> None:
    await desk.ask("air")
    await silent(desk)
    await until(lambda: len(desk.bus.held) == 2, "its lease ended")
    assert wire.decode(LeaseRecord, desk.bus.held[1][1]).reason == "session of air ended"


async def test_without_the_broker_nothing_is_granted_and_a_stored_record_is_learned_of_later(desk: Desk) -> None:
    desk.bus.plan = ["lost", "unheard"]
    for _ in range(2):
        reply = await desk.ask("air")
        assert (reply.granted, reply.retry_after_s) == (False, 1.0)
    assert desk.desk.table.current(("valve", "Setpoint")) is None
    desk.desk.seen(wire.decode(LeaseRecord, desk.bus.held[0][1]), 1)
    assert (await desk.ask("air")).epoch == Epoch(generation=1, revision=1)
    assert len(desk.bus.held) == 1


async def test_garbage_is_answered_and_counted(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        assert (await desk.answer("air", b"\xff\xff", LeaseReply)).reason == "not a lease request"
    assert desk.desk.counts["rejected"] == 3
    assert caplog.text.count("set aside") == 1


async def test_who_speaks_json_is_answered_in_json(desk: Desk) -> None:
    await desk.send("air", Heartbeat(incarnation="i1"), content_type="application/json")
    await until(lambda: desk.bus.answers, "an answer")
    assert json.loads(desk.bus.answers[0].data)["mode"] == "act"
    assert desk.bus.answers[0].headers == {CONTENT_TYPE: "application/json"}
    assert desk.desk.reads("air") == wire.JSON
    await desk.send("air", Heartbeat(incarnation="i1"))
    await until(lambda: desk.desk.reads("air") == wire.PROTOBUF, "what it wrote last counts")


async def test_a_strangers_encoding_is_not_remembered(desk: Desk) -> None:
    await desk.send("evil", Heartbeat(incarnation="i1"), content_type="application/json; charset=utf-8")
    await until(lambda: desk.bus.answers, "an answer")
    assert "no agent file" in json.loads(desk.bus.answers[0].data)["refused"]
    assert desk.desk.reads("evil") == ""


@pytest.mark.parametrize(
    "reply", ["edgex.core.command.request.valve.Setpoint.set", "gw.commands.valve.guard", "_INBOX"]
)
async def test_nobody_borrows_the_guards_right_to_publish(desk: Desk, reply: str) -> None:
    await desk.send("air", Heartbeat(incarnation="i1"), reply=reply)
    await desk.send("air", LeaseRequest(incarnation="i1", device="valve", resource="Setpoint"), reply=reply)
    await desk.ask("air")
    assert [answer.subject for answer in desk.bus.answers] == [INBOX]


async def test_a_subject_that_is_none_of_ours_is_set_aside(desk: Desk) -> None:
    await desk.bus.handlers["gw.sessions.*"](BusMessage("gw.triggers.air", b"x", {}, INBOX))
    await desk.bus.handlers["gw.leases.*"](BusMessage(r"gw.leases.\xff", b"x", {}, INBOX))
    assert (await desk.ask("air")).granted


async def test_one_agents_flood_makes_no_other_wait_and_no_memory_grow(desk: Desk) -> None:
    gate = asyncio.Event()
    store = desk.bus.store

    async def slow(subject: str, data: bytes, *rest: Any, **more: Any) -> int:
        if b"air" in data:
            await gate.wait()
        return await store(subject, data, *rest, **more)

    desk.bus.store = slow  # type: ignore[method-assign]
    for number in range(1000):
        await desk.send("air", LeaseRequest(incarnation=f"i{number}", device="valve", resource="Setpoint"), reply="")
        await desk.send("air", Heartbeat(incarnation=f"i{number}"), reply="")
        await desk.send("made-up", Heartbeat(incarnation="x"), reply="")
    welcome = await desk.answer("heat", Heartbeat(incarnation="i1"), SessionWelcome)
    assert welcome.refused == ""
    assert desk.desk.counts["dropped"] > 2000
    assert len(desk.desk.table.heard) < 20
    gate.set()
    assert (await desk.ask("heat")).granted


async def test_more_copies_than_there_is_room_for_are_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeagents.protocol.lease.MOST_SESSIONS", 2)
    for name in ("i1", "i2"):
        assert (await desk.answer("air", Heartbeat(incarnation=name), SessionWelcome)).refused == ""
    refused = (await desk.answer("air", Heartbeat(incarnation="i3"), SessionWelcome)).refused
    assert "copies of agent 'air' are alive: end some" in refused


class TestReadBack:
    """At start all records are read; lost state raises the generation."""

    async def filled(self, rig: Rig) -> Desk:
        found = Desk(rig)
        found.bus.has_stream = False
        await found.desk.read_back(3, 0, WALL_MS)
        found.bus.has_stream = True
        async with found.serving():
            await found.ask("air")
            await found.ask("heat", resource="Open")
        return found

    async def test_leases_and_their_holders_survive_a_restart_of_the_guard(self, rig: Rig) -> None:
        before = await self.filled(rig)
        after = Desk(rig, before.bus)
        assert await after.desk.read_back(3, 1, WALL_MS) == 3
        assert after.desk.table.leases == before.desk.table.leases
        assert set(after.desk.table.heard) == {Session("air", "i1"), Session("heat", "i1")}, "one session time of grace"

    @pytest.mark.parametrize(
        ("known", "last", "floor", "generation"),
        [(3, 2, 2, 3), (0, 0, 2, 4), (3, 99, 2, WALL_MS), (2, 0, 0, 4), (3, 1, 2, 4), (7, 99, 0, WALL_MS)],
        ids=["whole", "volume lost", "stream restored", "volume restored", "same generation", "stream restored, too"],
    )
    async def test_lost_state_raises_the_generation(
        self, rig: Rig, known: int, last: int, floor: int, generation: int
    ) -> None:
        desk = Desk(rig, (await self.filled(rig)).bus).desk
        assert await desk.read_back(known, last, WALL_MS, floor) == generation
        assert desk.is_lost == (generation != 3)

    async def test_without_a_stream_a_new_one_begins(self, rig: Rig) -> None:
        desk = Desk(rig)
        desk.bus.has_stream = False
        assert await desk.desk.read_back(0, 0, WALL_MS) == WALL_MS
        assert await desk.desk.read_back(WALL_MS + 5, 10, WALL_MS) == WALL_MS + 6, "also when the clock runs behind"

    async def test_a_start_record_tells_a_generation_and_is_nobodys_lease(self, rig: Rig) -> None:
        before = await self.filled(rig)
        start = LeaseRecord(device="gw", resource="", incarnation="other", generation=9)
        before.bus.held.append(("gw.commands.gw.guard", wire.encode(start), {}))
        after = Desk(rig, before.bus).desk
        assert await after.read_back(3, 1, WALL_MS) == 10
        after.seen(start, 3)
        assert set(after.table.leases) == {("valve", "Setpoint"), ("valve", "Open")}

    async def test_a_record_that_cannot_be_read_stops_nothing(self, rig: Rig) -> None:
        before = await self.filled(rig)
        before.bus.held.insert(1, ("gw.commands.valve.guard", b"\xff", {}))
        assert await Desk(rig, before.bus).desk.read_back(3, 1, WALL_MS) == 3

    async def test_the_holder_from_before_gets_an_epoch_of_the_new_generation(self, rig: Rig) -> None:
        before = await self.filled(rig)
        after = Desk(rig, before.bus)
        await after.desk.read_back(0, 0, WALL_MS)
        async with after.serving():
            assert (await after.ask("air")).epoch == Epoch(generation=4, revision=3)

    async def test_a_slow_start_of_the_guard_is_held_against_nobody(self, rig: Rig) -> None:
        before = await self.filled(rig)
        after = Desk(rig, before.bus)
        await after.desk.read_back(3, 1, WALL_MS)
        rig.clocks.now_s += 10 * SESSION_S  # the ledger, devices and the picture are read; nobody is heard meanwhile
        async with after.serving():
            await asyncio.sleep(2 * HEARTBEAT_S)
            assert after.desk.table.leases == before.desk.table.leases

            def is_gone() -> bool:
                rig.clocks.now_s += 0.02  # as time passes: a leap is the guard's own pause
                return not after.desk.table.heard

            await until(is_gone, "who says nothing from then on is gone", timeout_s=30)

    async def test_a_broker_emptied_under_its_feet_ends_the_guard(self, rig: Rig) -> None:
        """Sequences begin anew, below what was granted: only a higher generation can follow."""
        before = await self.filled(rig)
        desk = Desk(rig, before.bus)
        await desk.desk.read_back(3, 1, WALL_MS)
        desk.bus.held.clear()
        task = asyncio.create_task(desk.desk.serve())
        await desk.bus.subscribed.wait()
        await desk.send("heat", LeaseRequest(incarnation="i1", device="valve", resource="Setpoint"))
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(task, 5)
        assert isinstance(caught.value.exceptions[0], StoreError)
        assert not [answer for answer in desk.bus.answers if wire.decode(LeaseReply, answer.data).granted][2:]


async def test_what_is_paused_gets_no_lease_and_loses_the_one_it_has(desk: Desk) -> None:
    await desk.ask("air")
    await desk.rig.orders.pause(Pause("agent", "air", "ann", "window cleaning", 1))
    assert (await desk.ask("air")).reason == "paused by ann: window cleaning"

    def is_free() -> bool:
        held = desk.desk.table.current(("valve", "Setpoint"))
        return held is not None and held.session is None

    await until(is_free, "its lease has ended")
    assert wire.decode(LeaseRecord, desk.bus.held[-1][1]).reason == "released"
    assert (await desk.ask("heat")).granted, "others can take over"
    await desk.rig.orders.resume(desk.rig.orders.paused_at(("agent", "air")), ends_at(0))
    assert "held by heat" in (await desk.ask("air")).reason


async def test_the_welcome_says_the_mode_by_order_and_the_agent_is_called(desk: Desk) -> None:
    await desk.rig.orders.order_mode("air", "observe", "ann", "", 1)
    await desk.desk.call("air")
    assert desk.bus.published == [("_INBOX.agent-air.called", b"")]
    assert (await desk.answer("air", Heartbeat(incarnation="i1"), SessionWelcome)).mode == "observe"
    assert "mode observe" in (await desk.ask("air")).reason
    await desk.rig.orders.order_mode("air", "act", "ann", "", 2)
    assert (await desk.ask("air")).granted


def negotiating(desk: Desk) -> None:
    """Have all agents negotiate about the valve's set-point."""
    over = {"device": "valve", "resource": "Setpoint", "values": ["1", "2"], "brings": {"warmth": "value"}}
    for name, definition in list(desk.rig.owner.agents.items()):
        negotiates = Negotiates.model_validate({"preferences": "p.yaml", "over": [over]})
        desk.rig.owner.agents[name] = definition.model_copy(update={"negotiates": negotiates})


async def test_the_coordinator_is_told_who_may_command_nothing_by_the_owners_order(desk: Desk) -> None:
    assert (await desk.ask("coordinator")).barred == (), "nobody negotiates about it"
    negotiating(desk)
    eye = Barred(agent="eye", reason="it observes: it commands nothing")
    assert (await desk.ask("coordinator")).barred == (eye,)
    await desk.rig.orders.pause(Pause("agent", "air", "ann", "x" * 500, 1))
    told = (await desk.ask("coordinator")).barred
    assert [item.agent for item in told] == ["air", "eye"]
    assert told[0].reason.startswith("paused by ann: xxx")
    assert len(told[0].reason) == MOST_TOLD_CHARS
    assert (await desk.ask("coordinator", resource="Enabled")).barred == ()
    assert (await desk.ask("heat")).barred == (), "the coordinator alone is told"
    await desk.rig.orders.pause(Pause("device", "valve", "bob", "", 1))
    assert {item.agent: item.reason for item in (await desk.ask("coordinator")).barred}["heat"] == "paused by bob"


async def test_the_welcome_says_what_the_owner_paused_of_what_an_agent_may_command(desk: Desk) -> None:
    assert (await desk.answer("air", Heartbeat(incarnation="i1"), SessionWelcome)).paused == ()
    for pause in (
        Pause("device", "valve", "ann", "painting", 1), Pause("device", "nowhere", "ann", "", 1),
        Pause("agent", "heat", "ann", "", 1), Pause("all", "", "bob", "", 1),
    ):  # fmt: skip
        await desk.rig.orders.pause(pause)
    told = (await desk.answer("air", Heartbeat(incarnation="i1"), SessionWelcome)).paused
    assert told == (
        Paused(device="valve", reason="paused by ann: painting"), Paused(device="", reason="paused by bob"),
    )  # fmt: skip


async def test_of_many_pauses_all_are_named_and_as_many_reasons_told_as_fit_a_message(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.guard.desk.MOST_REASONS_BYTES", 30)
    for pause in (Pause("device", "valve", "ann", "painting", 1), Pause("all", "", "bob", "ä" * 10, 1)):
        await desk.rig.orders.pause(pause)
    told = (await desk.answer("air", Heartbeat(incarnation="i1"), SessionWelcome)).paused
    assert told == (Paused(device="valve", reason="paused by ann: painting"), Paused(device="", reason="paused"))


async def test_the_coordinator_alone_is_told_what_interlocks_forbid_of_what_it_asks_about(rig: Rig) -> None:
    found = Desk(rig)
    found.desk._locked = lambda key, options: {name: f"{key[1]} " + "x" * 500 for name in options if name == "21"}
    async with found.serving():
        told = await found.ask("coordinator", options=("20", "21"))
        assert (told.judged, [item.option for item in told.locked]) == (True, ["21"])
        assert (told.locked[0].reason[:9], len(told.locked[0].reason)) == ("Setpoint ", MOST_TOLD_CHARS)
        assert await found.ask("coordinator") == LeaseReply(granted=False), "who asks about nothing is told nothing"
        answer = await found.ask("air", options=("20", "21"))
        assert (answer.judged, answer.locked) == (False, ())


async def test_an_agent_that_may_command_something_else_since_devices_changed_is_called_once(desk: Desk) -> None:
    for name in ("air", "heat"):
        await desk.send(name, Heartbeat(incarnation="i1"))
    await until(lambda: len(desk.bus.answers) == 2, "both are welcome")
    desk.rig.change_profile(PROFILE)
    desk.rig.add_device(Device(name="lamp", profile_name="Lamp"))  # nothing that is to be told
    await asyncio.sleep(CALL_AFTER_S * 1.5)
    assert desk.bus.published == []
    del desk.rig.owner.agents["heat"]  # whom the owner took away
    for number in range(3):
        desk.rig.add_device(Device(name=f"valve-{number}", profile_name="Valve"))
    await until(lambda: desk.bus.published, "somebody is called")
    await asyncio.sleep(CALL_AFTER_S * 1.5)
    assert desk.bus.published == [("_INBOX.agent-air.called", b"")]
    welcome = await desk.answer("air", Heartbeat(incarnation="i1"), SessionWelcome)
    assert {item.device for item in welcome.site} == {"valve", "pump", "fan", "valve-0", "valve-1", "valve-2"}
    desk.rig.remove_device("valve-1")
    await until(lambda: len(desk.bus.published) == 2, "it is called again")


async def test_a_time_in_which_the_guard_did_not_run_ends_no_session(desk: Desk) -> None:
    await desk.ask("air")
    desk.rig.clocks.now_s += SESSION_S + 1.0  # stopped: heartbeats wait in the socket
    await asyncio.sleep(HEARTBEAT_S)
    held = desk.desk.table.current(("valve", "Setpoint"))
    assert held is not None
    assert held.session == Session("air", "i1")
    await silent(desk)

    def is_free() -> bool:
        found = desk.desk.table.current(("valve", "Setpoint"))
        return found is not None and found.session is None

    await until(is_free, "its lease has ended")
