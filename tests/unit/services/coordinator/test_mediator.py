"""The mediator's shell: what it writes down, before whom it tells, and what an error in one conflict does to others."""

import asyncio
import contextlib
import random
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
import uvloop

from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus
from edgeagents.audit import Audit
from edgeagents.errors import NotFoundError, UnavailableError
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.cooperation import Act, Announcement, Dispute
from edgeagents.model.device import Device, Profile
from edgeagents.protocol.conversation import act
from edgeagents.protocol.eligibility import Site
from edgeagents.protocol.roster import Roster
from edgeagents.settings import BusSettings
from services.coordinator import mediator as module
from services.coordinator import negotiator, releases
from services.coordinator.holders import Held
from services.coordinator.mediator import MOST_OPEN, Mediator, Terms
from tests.contract.waiting import busy, until
from tests.unit.services.coordinator.test_negotiator import HOLDS, THRIFTY, WARM, says

PROFILE = Profile.model_validate({
    "name": "Valve", "deviceResources": [
        {"name": "Setpoint", "properties": {"valueType": "Float64", "readWrite": "RW", "minimum": 5, "maximum": 30}},
    ],
})  # fmt: skip
DEVICES = {
    name: Device(name=name, service_name="s", profile_name="Valve", protocols={"v": {"n": name}})
    for name in ("valve", *(f"valve-{number}" for number in range(MOST_OPEN + 1)))
}  # fmt: skip
OPTIONS = ("22", "19", "20", "21")


def agent(name: str, maximum: float = 25.0, **changes: Any) -> AgentDefinition:
    """Return an agent that negotiates about every valve."""
    names = [device.removeprefix("valve") for device in DEVICES]
    over = {"for_each": {"n": names}, "device": "valve{n}", "resource": "Setpoint", "minimum": 19, "maximum": 22,
            "step": 1, "brings": {"warmth": "value"}}  # fmt: skip
    negotiates = {"preferences": "p.yaml", "over": [over], **changes.pop("negotiates", {})}
    return AgentDefinition.model_validate({
        "name": name, "mode": "act", "watches": [{"device": "*"}],
        "may": [{"device": "*", "resource": "Setpoint", "maximum": maximum}], "negotiates": negotiates, **changes,
    })  # fmt: skip


class Link:
    """A bus that keeps what is published, until it is cut."""

    def __init__(self, order: list[str]) -> None:
        self.settings = BusSettings(gateway="gw")
        self.told: list[tuple[str, Act]] = []
        self.is_cut = False
        self._order = order

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        if self.is_cut:
            raise UnavailableError("the link is down")
        said = wire.decode(Act, data)
        self._order.append("told" if said.settlement is not None else "asked")
        self.told.append((subject, said))


class Rig:
    """A mediator with all that is played around it."""

    def __init__(self, tasks: asyncio.TaskGroup, maximum: float = 25.0, answer_s: float = 600.0) -> None:
        self.order: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.bus = Link(self.order)
        self.roster = Roster(0.0)
        self.site = Site(
            {name: agent(name, maximum) for name in ("energy", "comfort", "air")}, DEVICES, {"Valve": PROFILE}
        )
        self.held = Held("comfort", 1_000.0)
        self.serves = True
        self.asks = self.at_once = self.most_at_once = 0
        self.mediator = Mediator(
            cast(Bus, self.bus), cast(Audit, self), lambda: self.site, lambda: self.roster.alive(1.0),
            Terms(answer_s=answer_s), tasks, self.holder, self.check_serving,
        )  # fmt: skip

    async def holder(self, device: str, resource: str, options: Sequence[str]) -> Held:
        """Say who holds a resource, as the guard would; who asks lets others have their turn."""
        self.asks += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.judged = tuple(options)
        if self.held.agent == "?":
            raise UnavailableError(f"who holds {device}/{resource} is not known: no answer in 0.3 s")
        return self.held

    def check_serving(self) -> None:
        """Raise while the coordinator does not serve."""
        if not self.serves:
            raise UnavailableError("the tasks are not read back yet")

    def change(self, name: str, **changes: Any) -> None:
        """Change an agent's file."""
        self.site = Site({**self.site.agents, name: agent(name, **changes)}, DEVICES, {"Valve": PROFILE})

    async def refused(self, claimant: str = "energy", **changes: Any) -> str:
        """Return why a question is refused, with energy and comfort as parties."""
        asked = {"wanted": "19", "options": OPTIONS, "others": tuple({"energy", "comfort"} - {claimant}), **changes}
        told = await self.mediator.file(claimant, Dispute(device="valve", resource="Setpoint", **asked))
        assert told.problem
        assert not told.conversation
        return told.problem

    def append(self, kind: str, **body: Any) -> None:
        """Write an audit record down."""
        self.order.append(kind)
        self.bodies.append(body)

    async def file(self, device: str = "valve", **changes: Any) -> str:
        """Have energy ask for a settlement with comfort; return the conflict's name."""
        asked = {"wanted": "19", "options": OPTIONS, "others": ("comfort",), **changes}
        told = await self.mediator.file("energy", Dispute(device=device, resource="Setpoint", **asked))
        assert not told.problem, told.problem
        return told.conversation

    async def say(self, name: str, sender: str, said: Act) -> None:
        """Bring an act to the mediator."""
        assert await self.mediator.heard(sender, said.model_copy(update={"conversation": name}))

    async def settle(self) -> str:
        """Have a conflict settled; return its name."""
        name = await self.file()
        await self.say(name, "energy", says("19", THRIFTY))
        await self.say(name, "comfort", says("22", WARM, **HOLDS))
        return name


async def test_what_was_settled_goes_to_the_audit_before_anybody_is_told() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        name = await rig.settle()
    assert rig.order == ["asked", "asked", "conflict", "told", "told"]
    body = rig.bodies[0]
    assert (body["value"], body["winner"], body["rung"], body["runner_up"]) == ("20", "comfort", "nash", "21")
    assert {party["agent"]: party["worth"] for party in body["parties"]} == {"energy": THRIFTY, "comfort": WARM}
    assert rig.mediator.record(name)["value"] == "20"
    assert [item["id"] for item in rig.mediator.listed(5)] == [name]


async def test_who_asks_about_what_is_under_way_as_a_party_joins_and_others_are_told_to_wait() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        name = await rig.file()
        again = Dispute(device="valve", resource="Setpoint", wanted="22", options=OPTIONS, others=("energy",))
        assert (await rig.mediator.file("comfort", again)).conversation == name
        assert "is under way" in (await rig.mediator.file("air", again)).problem
        await rig.say(name, "energy", act("failure", name))
        await rig.say(name, "comfort", act("failure", name))
    assert rig.mediator.counts["joined"] == 1


async def test_one_beside_that_is_there_is_a_party_too() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        rig.roster = rig.roster.heard("air", Announcement(incarnation="run"), 1.0)
        name = await rig.file()
        for party in ("energy", "comfort", "air"):
            await rig.say(name, party, act("refuse", name))
    assert [subject for subject, said in rig.bus.told if said.dispute is not None] == [
        "gw.acts.energy.coordinator", "gw.acts.comfort.coordinator", "gw.acts.air.coordinator",
    ]  # fmt: skip


async def test_a_value_that_no_party_may_give_by_its_file_is_no_option() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks, maximum=19.5)
        await rig.settle()
    assert (rig.bodies[0]["value"], rig.bodies[0]["rung"], set(rig.bodies[0]["forbidden"])) == (
        "19", "lock", {"20", "21", "22"},
    )  # fmt: skip


async def test_an_error_in_one_conflict_ends_that_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(state: object, event: object) -> None:
        raise ZeroDivisionError

    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        name = await rig.file()
        monkeypatch.setattr(negotiator, "step", fail)
        await rig.say(name, "energy", says("19", THRIFTY))
        monkeypatch.undo()
        await rig.settle()
    assert rig.mediator.counts["unexpected"] == 1
    assert rig.mediator.counts["settled_nash"] == 1


async def test_a_link_that_is_down_is_counted_and_ends_nothing() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        rig.bus.is_cut = True
        await rig.settle()
    assert rig.mediator.counts["acts_lost"] == 4
    assert rig.mediator.counts["settled_nash"] == 1


async def test_no_more_are_under_way_than_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_OF_ONE", MOST_OPEN + 2)
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        names = [await rig.file(f"valve-{number}") for number in range(MOST_OPEN)]
        told = await rig.mediator.file(
            "energy",
            Dispute(device="valve", resource="Setpoint", wanted="19", options=OPTIONS, others=("comfort",)),
        )
        assert f"{MOST_OPEN} conflicts are under way" in told.problem
        for name in names:
            await rig.say(name, "energy", act("failure", name))
            await rig.say(name, "comfort", act("failure", name))


async def test_what_is_not_known_is_said_to_be_in_the_audit() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        with pytest.raises(NotFoundError, match="`edgeagents why` asks the audit"):
            rig.mediator.record("conflict-0")
        assert not await rig.mediator.heard("energy", act("inform", "conflict-0"))


async def test_who_names_nobody_has_all_asked_that_are_there_and_may_command_it_and_needs_no_permission() -> None:
    """It wants a resource let be that is coupled with its own."""
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        rig.held = Held()
        energy = rig.site.agents["energy"].model_copy(update={"may": ()})
        rig.site = Site({**rig.site.agents, "energy": energy}, DEVICES, {"Valve": PROFILE})
        nobody = Dispute(device="valve", resource="Setpoint", wanted="19", options=OPTIONS)
        assert "nobody who is there negotiates about" in (await rig.mediator.file("energy", nobody)).problem
        rig.roster = rig.roster.heard("air", Announcement(incarnation="run"), 1.0)
        rig.held = Held("air", 1_000.0)
        name = await rig.file(others=())
        await rig.say(name, "energy", says("19", THRIFTY))
        await rig.say(name, "air", says("22", WARM, **HOLDS))
    assert (rig.bodies[-1]["value"], rig.bodies[-1]["winner"], rig.bodies[-1]["rung"]) == ("20", "air", "nash")


async def test_without_the_guards_word_on_who_holds_it_nothing_is_settled() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        rig.held = Held("?")
        assert "who holds valve/Setpoint is not known" in await rig.refused()
    assert (rig.bus.told, rig.mediator.counts["refused_conflict"]) == ([], 1)


async def test_the_holder_is_a_party_though_nobody_names_it_and_nothing_is_settled_without_it() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        rig.held = Held("air", 1_000.0)
        name = await rig.file()
        await rig.say(name, "energy", says("19", THRIFTY))
        await rig.say(name, "comfort", says("22", WARM))
        await rig.say(name, "air", act("failure", name))
    assert (rig.bodies[-1]["holder"], rig.bodies[-1]["winner"], rig.bodies[-1]["rung"]) == ("air", "", "fallback")
    assert [party["agent"] for party in rig.bodies[-1]["parties"]] == ["energy", "air", "comfort"]


async def test_a_holder_that_does_not_bargain_or_may_not_command_keeps_what_it_holds() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        rig.held = Held("person", 1_000.0)
        assert "no agent 'person' has a file here, and holds it now" in await rig.refused()
        rig.held = Held("air", 1_000.0)
        rig.change("air", may=[])
        assert "'air' has no permission for valve/Setpoint, and holds it now" in await rig.refused()


async def test_a_lie_about_who_holds_it_is_counted_and_the_audit_has_the_guards_word() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        name = await rig.file()
        await rig.say(name, "energy", says("19", THRIFTY, holds=True, present="19"))
        await rig.say(name, "comfort", says("22", WARM, **HOLDS))
    assert {party["agent"]: party["holds"] for party in rig.bodies[-1]["parties"]} == {"energy": False, "comfort": True}
    assert (rig.bodies[-1]["value"], rig.mediator.counts["claims_ignored"]) == ("20", 1)


async def test_two_that_ask_while_the_guard_is_asked_are_one_conflict() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        again = Dispute(device="valve", resource="Setpoint", wanted="22", options=OPTIONS, others=("energy",))
        name, told = await asyncio.gather(rig.file(), rig.mediator.file("comfort", again))
        assert told.conversation == name
        await rig.say(name, "energy", act("failure", name))
        await rig.say(name, "comfort", act("failure", name))
    assert (rig.mediator.counts["filed"], rig.mediator.counts["joined"]) == (1, 1)


async def test_classes_are_those_in_which_agents_bargain_by_their_files() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        rig.change("energy", priority="economy", negotiates={"priority": "comfort"})
        rig.held = Held()
        name = await rig.file()
        await rig.say(name, "energy", says("20", THRIFTY))
        await rig.say(name, "comfort", says("22", WARM))
        # The winner is of the higher class at the guard: its lease lasts.
        assert (rig.bodies[-1]["value"], rig.bodies[-1]["winner"], rig.bodies[-1]["rung"]) == ("20", "comfort", "nash")
        assert {party["priority"] for party in rig.bodies[-1]["parties"]} == {"comfort"}


async def test_an_agent_that_observes_is_no_party() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        rig.change("energy", mode="observe")
        assert "'energy' is in mode 'observe' and commands nothing" in await rig.refused()
        assert "'energy' is in mode 'observe' and commands nothing" in await rig.refused("comfort")


async def test_what_stands_is_not_settled_again_but_for_its_winner(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        monkeypatch.setattr(module.time, "monotonic", lambda: now_s)
        name = await rig.settle()
        assert f"{name} stands for 10 s more: ask again then" in await rig.refused()
        rig.held = Held("comfort", 0.0)  # it used the lease by giving what was agreed: that alone keeps it nothing
        told = await rig.mediator.file(
            "comfort", Dispute(device="valve", resource="Setpoint", wanted="22", options=OPTIONS, others=("energy",))
        )
        await rig.say(told.conversation, "energy", says("19", THRIFTY))
        await rig.say(told.conversation, "comfort", says("22", WARM, **HOLDS))
        assert (rig.bodies[-1]["value"], rig.bodies[-1]["rung"]) == ("20", "nash")
        now_s = 110.0
        rig.held = Held("comfort", 1_000.0)
        assert await rig.settle()
    assert rig.mediator.counts["refused_conflict"] == 1


async def test_what_came_to_nothing_stands_for_nobody() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        for _ in range(2):
            name = await rig.file()
            await rig.say(name, "energy", act("failure", name))
            await rig.say(name, "comfort", act("failure", name))
    assert rig.mediator.counts["settled_fallback"] == 2


async def test_a_question_that_is_old_or_comes_before_we_serve_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.time, "time_ns", lambda: 100 * 10**9)
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        assert "it was asked 3 s ago, 2 s at most" in await rig.refused(sent_unix_ns=97 * 10**9)
        rig.serves = False
        assert "not read back yet" in await rig.refused()
        rig.serves = True
        name = await rig.file(sent_unix_ns=99 * 10**9)
        await rig.say(name, "energy", act("failure", name))
        await rig.say(name, "comfort", act("failure", name))


async def test_what_all_parties_could_live_with_is_looked_at_though_the_asker_leaves_it_out() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        name = await rig.file(options=("19",))
        await rig.say(name, "energy", says("19", THRIFTY))
        await rig.say(name, "comfort", says("22", WARM, **HOLDS))
    assert (rig.bodies[-1]["options"], rig.bodies[-1]["value"]) == (["19", "20", "21", "22"], "20")


async def test_who_is_asked_and_has_not_answered_is_known() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        name = await rig.file()
        await rig.say(name, "energy", says("19", THRIFTY))
        assert [rig.mediator.is_asked(party) for party in ("energy", "comfort", "air")] == [False, True, False]
        await rig.say(name, "comfort", act("failure", name))
        assert not rig.mediator.is_asked("comfort")


async def test_a_coordinator_that_ends_leaves_what_is_under_way_to_its_parties() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        name = await rig.file()
        rig.mediator.close()
        assert not await rig.mediator.heard("energy", act("inform", name))
    assert [said.settlement for _, said in rig.bus.told] == [None, None]


PAUSED = {"comfort": "paused by ann: window cleaning"}


async def test_who_is_paused_is_refused_and_another_that_is_binds_nobody() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        rig.held = Held("energy", 1_000.0, PAUSED)
        assert "comfort takes no part: paused by ann: window cleaning" in await rig.refused("comfort")
        name = await rig.file()
        await rig.say(name, "energy", says("19", THRIFTY))
        assert (rig.bodies[-1]["value"], rig.bodies[-1]["winner"], rig.bodies[-1]["stands_s"]) == ("19", "energy", 0.0)
        assert {party["agent"]: party["said"] for party in rig.bodies[-1]["parties"]} == {
            "energy": "bargains", "comfort": "takes no part",
        }  # fmt: skip
        rig.held = Held("energy", 1_000.0)
        assert await rig.settle(), "nothing stands that would keep it from asking"


@pytest.mark.parametrize("who", ["comfort", "energy"])
async def test_what_one_of_two_leaves_binds_the_other_no_more(who: str) -> None:
    other = "energy" if who == "comfort" else "comfort"
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        name = await rig.settle()
        assert "stands for" in await rig.refused()
        assert rig.mediator.record(name)["released"] == ""
        told = len(rig.bus.told)
        rig.held = Held("", 0.0, {who: "paused by ann"})
        await rig.say(name, who, act("cancel", name, reason="of its own"))
        await rig.say(name, who, act("cancel", name, reason="said twice"))
        await until(lambda: len(rig.bus.told) > told + 1, "both are told")
        assert {subject for subject, _ in rig.bus.told[told:]} == {
            f"gw.acts.{name}.coordinator" for name in (who, other)
        }, "who left keeps what was agreed until it hears that it is over"
        assert {(said.performative, said.settlement) for _, said in rig.bus.told[told:]} == {("cancel", None)}
        assert rig.order[-3:] == ["conflict-released", "asked", "asked"], "it is written down before it is told"
        assert rig.mediator.record(name)["released"] == f"{who} takes no part any more: paused by ann"
        rig.held = Held("comfort", 1_000.0)
        assert await rig.settle(), "it may be asked about at once"
    assert rig.mediator.counts["released"] == 1


async def test_whom_the_guard_bars_has_left_what_stands_though_it_says_nothing() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        name = await rig.settle()
        rig.held = Held("", 0.0, PAUSED)
        again = await rig.file()
        await rig.say(again, "energy", says("19", THRIFTY))
    assert (rig.bodies[-2]["conflict"], rig.bodies[-2]["released"]) == (name, ["energy", "comfort"])
    assert (rig.bodies[-1]["value"], rig.bodies[-1]["winner"]) == ("19", "energy")


async def test_a_loser_does_not_end_what_stands_by_its_own_word() -> None:
    """It would ask anew until it wins."""
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        name = await rig.settle()
        told = len(rig.bus.told)
        await rig.say(name, "energy", act("cancel", name, reason="paused by ann"))
        await until(lambda: rig.mediator.counts["refused_not-allowed"] == 1, "the guard was asked")
        assert "stands for" in await rig.refused()
    assert (len(rig.bus.told), rig.mediator.counts["released"]) == (told, 0)


async def test_the_guard_is_asked_about_who_left_once_for_a_flood_and_never_for_a_stranger() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        name = await rig.settle()
        asked = rig.asks
        for _ in range(50):
            await rig.say(name, "air", act("cancel", name, reason="no party of it"))
            await rig.say(name, "energy", act("cancel", name, reason="paused by ann"))
        await until(lambda: rig.mediator.counts["refused_not-allowed"] == 1, "the guard was asked")
        for _ in range(50):
            await rig.say(name, "energy", act("cancel", name, reason="paused by ann"))
        await asyncio.sleep(0.15)
        assert rig.asks == asked + 1
        assert rig.mediator.counts["refused_late"] == 50 + 49 + 49
        rig.mediator.close()


async def test_the_guard_is_asked_about_who_left_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "RETRY_S", 0.01)
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        name = await rig.settle()
        rig.held = Held("?")
        await rig.say(name, "comfort", act("cancel", name, reason="paused by ann"))
        await until(lambda: rig.mediator.counts["leaving_unknown"] > 2, "it was asked again")
        rig.held = Held("", 0.0, PAUSED)
        await until(lambda: rig.mediator.counts["released"] == 1, "the parties are free")


async def test_the_guard_is_asked_about_one_after_the_other_and_once_where_all_parties_left() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        names = []
        for number in range(5):
            names.append(await rig.file(f"valve-{number}"))
            await rig.say(names[-1], "energy", says("19", THRIFTY))
            await rig.say(names[-1], "comfort", says("22", WARM, **HOLDS))
        rig.held = Held("", 0.0, {"energy": "paused by ann", "comfort": "paused by ann"})
        asked, rig.most_at_once = rig.asks, 0
        for name in names:
            for who in ("energy", "comfort"):
                await rig.say(name, who, act("cancel", name, reason="paused by ann"))
        await until(lambda: rig.mediator.counts["released"] == 5, "all are free")
    assert (rig.asks - asked, rig.most_at_once) == (5, 1)


async def test_a_loser_that_leaves_while_others_stay_bound_is_free_alone() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        rig.roster = rig.roster.heard("air", Announcement(incarnation="run"), 1.0)
        name = await rig.file()
        await rig.say(name, "energy", says("19", THRIFTY))
        await rig.say(name, "comfort", says("22", WARM, **HOLDS))
        await rig.say(name, "air", says("22", WARM))
        rig.held = Held("comfort", 0.0, {"air": "paused by ann"})
        await rig.say(name, "air", act("cancel", name, reason="paused by ann"))
        await until(lambda: rig.mediator.counts["released"] == 1, "it is free")
        assert (rig.bus.told[-1][0], rig.bus.told[-2][1].performative) == ("gw.acts.air.coordinator", "inform")
        assert rig.mediator.record(name)["released"] == "", "the others stay bound"
        assert "stands for" in await rig.refused()


async def test_whom_the_guard_bars_takes_no_place_of_one_that_could_want_something_there() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        for name in ("air", "bath", "cellar", "door", "zed"):
            rig.change(name)
            rig.roster = rig.roster.heard(name, Announcement(incarnation="run"), 1.0)
        rig.held = Held("", 0.0, dict.fromkeys(("comfort", "air", "bath", "cellar", "door"), "paused by ann"))
        name = await rig.file()  # it names comfort, which is paused
        await rig.say(name, "energy", says("19", THRIFTY))
        await rig.say(name, "zed", says("22", WARM))
    assert {party["agent"]: party["said"] for party in rig.bodies[-1]["parties"]} == {
        "energy": "bargains", "zed": "bargains", "comfort": "takes no part", "air": "takes no part",
        "bath": "takes no part",
    }  # fmt: skip
    assert rig.bodies[-1]["value"] == "20"


async def test_what_a_winner_won_that_observes_by_its_file_by_now_stands_no_more() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        former = await rig.settle()
        assert "stands for" in await rig.refused()
        rig.change("comfort", mode="observe")
        rig.held = Held()
        rig.roster = rig.roster.heard("air", Announcement(incarnation="run"), 1.0)
        name = await rig.file(others=())
        await rig.say(name, "energy", says("19", THRIFTY))
        await rig.say(name, "air", says("22", WARM))
        assert "comfort takes no part any more: agent 'comfort' is in mode" in rig.mediator.record(former)["released"]
    assert rig.bodies[-1]["value"] == "20"
    assert "conflict-released" in rig.order


OPEN = "interlock 'window': valve/Setpoint above 20 while valve/Open is true"


def held(locked: Sequence[str], *, judged: Sequence[str] = OPTIONS) -> Held:
    """Return what a guard says that knows of interlocks."""
    return Held("comfort", 1_000.0, {}, dict.fromkeys(locked, OPEN), frozenset(judged))


async def test_what_interlocks_forbid_is_struck_out_before_anybody_is_asked() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        rig.held = held(["20", "21", "30"])
        name = await rig.file()
        await rig.say(name, "energy", says("19", {"19": 0.9, "22": 0.3}))
        await rig.say(name, "comfort", says("22", {"19": 0.3, "22": 0.9}, **HOLDS))
    asked = {said.dispute.options for _, said in rig.bus.told if said.dispute is not None}
    assert (set(rig.judged), asked) == (set(OPTIONS), {("22", "19")})
    assert rig.bodies[-1]["forbidden"] == {"20": OPEN, "21": OPEN}
    reasons = rig.mediator.record(name)["reasons"]
    assert f"lock: 20, 21 are forbidden: {OPEN}" in reasons
    assert not [reason for reason in reasons if "did not say" in reason]


async def test_where_interlocks_leave_what_one_wants_to_nobody_the_rest_is_settled() -> None:
    """The asker wants what is locked; what it could live with is bargained about."""
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        rig.held = held(["22"])
        name = await rig.file(wanted="22", options=("19", "20", "21", "22"))
        await rig.say(name, "energy", says("21", {"19": 0.3, "20": 0.6, "21": 0.8}))
        await rig.say(name, "comfort", says("19", {"19": 0.9, "20": 0.8, "21": 0.5}))
        assert (rig.bodies[-1]["value"], rig.bodies[-1]["rung"]) == ("20", "nash")
        name = await rig.file("valve-1", wanted="22", options=("19", "20", "21", "22"))
        await rig.say(name, "energy", says("21", {"19": 0.3, "20": 0.6, "21": 0.8}))
        await rig.say(name, "comfort", act("refuse", name, reason="wants nothing there now"))
    assert (rig.bodies[-1]["value"], rig.bodies[-1]["rung"]) == ("", "lock")
    assert rig.bodies[-1]["reasons"][-1] == f"lock: 22 is forbidden: {OPEN}"


async def test_where_interlocks_leave_nothing_nobody_is_asked() -> None:
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks)
        rig.held = held(OPTIONS)
        assert await rig.refused() == f"the owner's interlocks leave no option: {OPEN}"
    assert rig.bus.told == []


async def test_a_guard_that_does_not_say_what_interlocks_forbid_is_told_of_in_the_record() -> None:
    for known, is_said in ((Held("comfort", 1_000.0), True), (held([]), False), (held([], judged=["19"]), True)):
        async with asyncio.TaskGroup() as tasks:
            rig = Rig(tasks)
            rig.held = known
            name = await rig.settle()
        assert (negotiator.UNJUDGED in rig.mediator.record(name)["reasons"]) == is_said


async def _silent_ones_end(count: int) -> int:
    """Have conflicts filed in which nobody answers, on a busy loop, a few at a time; return how many ended."""
    chosen = random.Random(11)
    async with asyncio.TaskGroup() as tasks:
        rig = Rig(tasks, answer_s=0.02)
        work = tasks.create_task(busy())
        for number in range(count):
            for name in ("energy", "comfort", "air"):  # three ask in turn: one alone would be told to wait
                asked = Dispute(device=f"valve-{number}", resource="Setpoint", wanted="19", options=OPTIONS)
                others = ("comfort",) if name != "comfort" else ("energy",)
                told = await rig.mediator.file(name, asked.model_copy(update={"others": others}))
                if told.conversation:
                    break
            await asyncio.sleep(chosen.uniform(0.005, 0.007))
        with contextlib.suppress(AssertionError):
            await until(lambda: len(rig.mediator.ended) == count, "all have ended")
        work.cancel()
    return len(rig.mediator.ended)


def test_a_conflict_in_which_nobody_answers_ends_by_its_time_however_the_loop_counts() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(_silent_ones_end(50)) == 50
