"""Consents in the guard: who is asked, what counts, what has no effect, and how the command goes on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import pytest

from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.model.cooperation import Act
from edgeagents.protocol.gate import NeedsApproval
from services.guard import consents as consents_module
from services.guard.consents import Consents
from services.guard.jobs import Job
from services.guard.lanes import Lanes
from tests.contract.waiting import until
from tests.unit.services.guard.bus import MemoryBus
from tests.unit.services.guard.rig import SITE, Rig

ENABLED = 3  # its place among the resources of SITE


class Broker(MemoryBus):
    """A broker that takes headers."""

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.published.append((subject, data))


class Polling:
    """A guard whose valve is of class B, with what it asks agents and what comes of it."""

    def __init__(self, folder: Path, **rule: Any) -> None:
        site = deepcopy(SITE)
        site["resources"][ENABLED] |= {"risk_class": "B", "kind": "absolute", **rule}
        self.rig = Rig(folder, site)
        self.bus = Broker()
        self.audit = self.rig.means.audit
        self.consents = Consents(
            cast(Bus, self.bus), self.rig.owner, self.rig.devices, self.audit, self.rig.approvals, self.rig.clocks.now
        )
        self.alone: list[str] = []
        self.consents.alone = lambda job, risk_class: self.alone.append(job.command.id)
        self.lanes: Lanes

    def park(self, job: Job, verdict: NeedsApproval) -> str:
        """Have a command wait, as `app.py` does."""
        problem = self.rig.approvals.park(job, verdict)
        if not problem:
            self.consents.begin(job, verdict)
        return problem

    def job(self, name: str = "c-1", agent: str = "air", **changes: Any) -> Job:
        """Return a command to enable the valve, under a lease."""
        epoch = self.rig.grant(agent, resource="Enabled", sequence=2)
        return self.rig.job(name, "true", agent=agent, resource="Enabled", epoch=epoch, **changes)

    def asked(self) -> list[tuple[str, Act]]:
        """Return who was asked what."""
        return [(subject.split(".")[2], wire.decode(Act, data)) for subject, data in self.bus.published]

    async def question(self, of: str = "heat") -> Act:
        """Return what an agent is asked, once it is."""
        await until(lambda: of in dict(self.asked()), f"{of} is asked")
        return dict(self.asked())[of]

    async def say(self, agent: str, conversation: str, performative: str, reason: str = "") -> None:
        """Have an agent say something on its own subject."""
        act = Act(version=1, performative=performative, conversation=conversation, reason=reason)
        await self.tell(agent, wire.encode(act))

    async def tell(self, agent: str, data: bytes) -> None:
        """Have an agent send bytes."""
        await until(lambda: self.bus.handler(f"gw.consents.{agent}") is not None, "agents are heard")
        handler = self.bus.handler(f"gw.consents.{agent}")
        assert handler is not None
        await handler(BusMessage(f"gw.consents.{agent}", data))

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Return what was audited of a kind."""
        return [record for record in self.rig.records if record["kind"] == kind]


@contextlib.asynccontextmanager
async def polling(folder: Path, **rule: Any) -> AsyncIterator[Polling]:
    """Yield a guard that asks and hears."""
    found = Polling(folder, **rule)
    means = found.rig.means
    object.__setattr__(means, "park", found.park)
    async with asyncio.TaskGroup() as tasks:
        found.lanes = Lanes(means, tasks)
        found.consents.put = found.lanes.put
        running = tasks.create_task(found.consents.run())
        yield found
        running.cancel()
        await found.lanes.stop(10)
    found.rig.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the guard look often."""
    monkeypatch.setattr(consents_module, "LOOK_S", 0.005)


async def test_the_consent_of_all_it_concerns_lets_it_pass_and_the_audit_says_whose(tmp_path: Path) -> None:
    async with polling(tmp_path) as found:
        await found.lanes.put(found.job())
        question = await found.question()
        call = question.call
        assert call is not None
        assert (question.performative, call.device, call.resource, call.value) == (
            "propose", "valve", "Enabled", "true",
        )  # fmt: skip
        assert {item.name: item.value for item in call.params} == {"agent": "air", "priority": "comfort"}
        assert 0 < call.left_s <= 10
        assert {name for name, _ in found.asked()} == {"heat"}, "eye only observes, air is who wants it"
        await found.say("heat", question.conversation, "accept-proposal")
        await until(lambda: bool(found.rig.outcomes), "it is carried out")
        assert found.rig.told() == {"c-1": ("proven", "Enabled reads True")}
        (record,) = found.records("consent")
        assert (record["decision"], record["members"], record["consented"], record["quorum"]) == (
            "carried", ["heat"], ["heat"], 1,
        )  # fmt: skip
        assert found.rig.outcomes[0][1].approver == "", "no person let it pass"


async def test_a_refusal_leaves_it_to_a_person_or_to_its_deadline(tmp_path: Path) -> None:
    async with polling(tmp_path) as found:
        job = found.job()
        await found.lanes.put(job)
        question = await found.question()
        await found.say("heat", question.conversation, "reject-proposal", "it is cold")
        await until(lambda: found.consents.counts["refused"] == 1, "it is heard")
        assert found.rig.outcomes == []
        assert found.consents.words(job) == "0 of 1 consents: heat refused: it is cold"
        await found.say("heat", question.conversation, "accept-proposal")  # its first word counts
        await until(lambda: found.consents.counts["refused_repeated"] == 1, "it is heard")
        assert found.rig.commands.sets == []
        assert [item["commandId"] for item in found.rig.approvals.listed()] == ["c-1"]
        found.rig.clocks.now_s = 111.0
        assert [job.command.id for job in found.rig.approvals.overdue()] == ["c-1"]
        await until(lambda: bool(found.records("consent")), "it is closed")
        assert found.records("consent")[0]["refused"] == {"heat": "it is cold"}


@pytest.mark.parametrize("who", ["air", "eye", "nobody"])
async def test_who_is_not_concerned_cannot_consent(tmp_path: Path, who: str) -> None:
    async with polling(tmp_path) as found:
        await found.lanes.put(found.job())
        question = await found.question()
        await found.say(who, question.conversation, "accept-proposal")
        await until(lambda: found.consents.counts["refused_stranger"] == 1, "it is counted")
        assert found.rig.commands.sets == []
        assert found.records("consent-refused")[0]["cause"] == "stranger"


async def test_a_consent_for_another_command_or_an_ended_one_has_no_effect(tmp_path: Path) -> None:
    async with polling(tmp_path) as found:
        first, second = found.job("c-1"), found.job("c-2", sequence=11)
        await found.lanes.put(first)
        one = await found.question()
        await found.lanes.put(second)
        await until(lambda: len({act.conversation for _, act in found.asked()}) == 2, "both are asked for")
        (other,) = {act.conversation for _, act in found.asked()} - {one.conversation}
        found.rig.approvals.take("c-1")  # a person denies the first
        await found.say("heat", one.conversation, "accept-proposal")
        await found.say("heat", "c-2", "accept-proposal")  # a command's id is no question
        await until(lambda: found.consents.counts["refused_late"] == 1, "it is counted")
        assert found.consents.counts["late"] == 1
        assert found.rig.commands.sets == []
        await found.say("heat", other, "accept-proposal")
        await until(lambda: bool(found.rig.outcomes), "the second is carried out")
        assert found.rig.commands.sets == ["c-2"]


async def test_a_consent_after_the_deadline_has_no_effect(tmp_path: Path) -> None:
    async with polling(tmp_path) as found:
        await found.lanes.put(found.job())
        question = await found.question()
        found.rig.clocks.now_s = 110.5
        await found.say("heat", question.conversation, "accept-proposal")
        await until(lambda: found.consents.counts["late"] == 1, "it is counted")
        assert found.rig.commands.sets == []


async def test_the_same_word_come_twice_is_nothing_to_tell_before_and_after_it_is_carried(tmp_path: Path) -> None:
    async with polling(tmp_path, affected=["heat", "eye"]) as found:
        await found.lanes.put(found.job())
        question = await found.question()
        for name in ("heat", "heat", "eye", "eye", "heat"):
            await found.say(name, question.conversation, "accept-proposal")
        await until(lambda: bool(found.rig.outcomes), "it is carried out")
        assert found.rig.commands.sets == ["c-1"]
        await until(lambda: found.consents.counts["again"] == 3, "they are counted")
        assert found.records("consent-refused") == []
        await found.say("heat", question.conversation, "reject-proposal", "I think not")
        await found.say("air", question.conversation, "accept-proposal")
        await until(lambda: len(found.records("consent-refused")) == 2, "another word, and a stranger's, are told")
        assert {record["agent"] for record in found.records("consent-refused")} == {"heat", "air"}


async def test_words_grow_old_and_all_are_asked_anew(tmp_path: Path) -> None:
    async with polling(tmp_path, affected=["heat", "eye"], approval_wait=600) as found:
        await found.lanes.put(found.job(deadline_s=900.0))
        question = await found.question()
        await found.say("heat", question.conversation, "accept-proposal")
        await until(lambda: found.consents.counts["consented"] == 1, "heat is heard")
        found.rig.clocks.now_s += consents_module.CONSENT_S
        await until(lambda: dict(found.asked())["heat"].conversation != question.conversation, "it is asked anew")
        anew = dict(found.asked())["eye"].conversation
        await found.say("eye", anew, "accept-proposal")
        await until(lambda: found.consents.counts["consented"] == 2, "eye is heard")
        assert found.rig.commands.sets == [], "heat's old word counts no more"
        await found.say("heat", anew, "accept-proposal")
        await until(lambda: bool(found.rig.outcomes), "it is carried out")


async def test_a_name_that_is_no_agents_is_told_with_the_file_and_asked_in_vain(tmp_path: Path) -> None:
    async with polling(tmp_path, affected=["haet"]) as found:
        (problem,) = found.rig.owner.site_problems(found.rig.devices)
        assert problem == "resources[3]: affected: no agent file declares haet: it never consents"
        await found.lanes.put(found.job())
        await found.question("haet")
        assert [item["commandId"] for item in found.rig.approvals.listed()] == ["c-1"]


async def test_what_is_no_act_is_counted_and_harms_nobody(tmp_path: Path) -> None:
    async with polling(tmp_path) as found:
        await found.lanes.put(found.job())
        question = await found.question()
        await found.tell("heat", b"\xff\xff\xff")
        await found.say("heat", question.conversation, "inform")
        await until(lambda: found.consents.counts["refused_unknown"] == 1, "they are counted")
        assert found.consents.counts["refused_malformed"] == 1
        await found.say("heat", question.conversation, "accept-proposal")
        await until(lambda: bool(found.rig.outcomes), "it is carried out")


async def test_a_quorum_needs_no_more_than_it_says_and_the_named_count_whether_they_are_there_or_not(
    tmp_path: Path,
) -> None:
    async with polling(tmp_path, affected=["heat", "gone", "eye"], quorum=2) as found:
        await found.lanes.put(found.job())
        question = await found.question()
        assert {name for name, _ in found.asked()} == {"eye", "gone", "heat"}
        await found.say("heat", question.conversation, "accept-proposal")
        await until(lambda: found.consents.counts["consented"] == 1, "one is heard")
        assert found.rig.commands.sets == []
        await found.say("eye", question.conversation, "accept-proposal")
        await until(lambda: bool(found.rig.outcomes), "it is carried out")
        assert found.records("consent")[0]["silent"] == ["gone"]


async def test_an_agent_that_comes_while_it_waits_has_a_say(tmp_path: Path) -> None:
    async with polling(tmp_path) as found:
        await found.lanes.put(found.job())
        question = await found.question()
        eye = found.rig.owner.agents["eye"]
        found.rig.owner.agents["eye"] = eye.model_copy(update={"mode": "act"})
        await found.say("heat", question.conversation, "accept-proposal")
        await until(lambda: "eye" in dict(found.asked()), "it is asked anew, of both")
        assert found.rig.commands.sets == []
        again = dict(found.asked())["eye"].conversation
        assert again != question.conversation
        for name in ("heat", "eye"):
            await found.say(name, again, "accept-proposal")
        await until(lambda: bool(found.rig.outcomes), "it is carried out")


async def test_where_nobody_is_concerned_it_is_a_persons(tmp_path: Path) -> None:
    async with polling(tmp_path, affected=["air"]) as found:
        job = found.job()
        await found.lanes.put(job)
        await until(lambda: bool(found.rig.approvals.listed()), "it waits for a person")
        assert found.consents.words(job) == ""
        assert found.asked() == []


async def test_class_c_is_put_before_no_agent(tmp_path: Path) -> None:
    async with polling(tmp_path, risk_class="C") as found:
        await found.lanes.put(found.job())
        await until(lambda: bool(found.rig.approvals.listed()), "it waits for a person")
        assert not found.consents.is_wanted
        assert found.asked() == []


async def test_who_is_silent_is_asked_again_and_a_person_is_told(tmp_path: Path) -> None:
    async with polling(tmp_path) as found:
        await found.lanes.put(found.job())
        await found.question()
        for _ in range(2):
            before = len(found.asked())
            found.rig.clocks.now_s += 1.1
            await until(lambda: len(found.asked()) > before, "it is asked again")  # noqa: B023
        await until(lambda: found.alone == ["c-1"], "a person is told, once")
        assert len({act.conversation for _, act in found.asked()}) == 1
