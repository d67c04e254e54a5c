"""The shells of agent and coordinator against each other over the real broker, in one process; devices are played."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import Any

import pytest

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.audit import Audit
from edgeagents.model.agent import AgentDefinition, Decision, Intent
from edgeagents.model.device import Device
from edgeagents.model.message import Cause, CommandId, Outcome, OutcomeStatus
from edgeagents.model.task import TaskWanted
from edgeagents.model.values import Value, parse_value
from edgeagents.protocol.eligibility import Site
from edgeagents.protocol.task_book import Book, Times
from services.agent.bidding import Declined
from services.agent.commands import Errand, Given
from services.agent.tasks import Tasks
from services.coordinator.desk import Desk
from services.coordinator.holders import Holders
from services.coordinator.journal import Journal
from services.coordinator.leader import Leader
from services.coordinator.mediator import Mediator, Terms
from services.guard.streams import ensure_tasks
from tests.contract.waiting import until
from tests.valves import PROFILE


async def nothing_sought(name: str) -> None:
    """Stand for a core-metadata that knows no more devices than we do."""


class PlayedCommander:
    """Stands for the way to the guard: each command is given once and ends as told."""

    def __init__(self, status: OutcomeStatus = "proven", problem: str = "", held_back: str = "") -> None:
        self.status, self.trouble, self.held_back = status, problem, held_back
        self.given: Counter[tuple[str, int]] = Counter()
        self.intents: list[Intent] = []
        self.pending: Mapping[CommandId, Any] = {}
        self.session = self  # it plays its session as well
        self.link_s = 0.0
        self.mode = "act"
        self._ended: dict[CommandId, Outcome] = {}

    def problem(self, intent: Intent, site_s: float) -> Declined | None:
        """Say why it would not go out."""
        return Declined("not-possible", self.trouble) if self.trouble else None

    def value_of(self, device: str, resource: str, text: str) -> Value:
        """Return a text as a number."""
        return parse_value("Float64", text)

    async def awaited(self, name: CommandId) -> Outcome:
        """Return how a command ended."""
        return self._ended.pop(name)

    def give(self, decision: Decision, cause: Cause, site_s: float, errand: Errand) -> Awaitable[list[Given]]:
        """Take a command, and let it end."""
        return self._give(decision, cause)

    async def _give(self, decision: Decision, cause: Cause) -> list[Given]:
        intent = decision.intents[0]
        if self.held_back:
            return [Given(intent, held_back=self.held_back)]
        self.given[cause.event_id, cause.sequence] += 1
        self.intents.append(intent)
        name = CommandId(f"{cause.stream}/{cause.sequence}")
        self._ended[name] = Outcome(
            command_id=name, device=intent.device, resource=intent.resource, status=self.status,
            reason="played" if self.status != "proven" else "",
        )  # fmt: skip
        return [Given(intent, command_id=name)]


def agent(name: str, cost_s: float) -> AgentDefinition:
    """Return an agent that may set valves."""
    return AgentDefinition.model_validate({
        "name": name, "watches": [{"profile": "Valve"}], "may": [{"profile": "Valve", "resource": "Setpoint"}],
        "skills": [{"name": "set", "cost_s": cost_s}],
    })  # fmt: skip


class Society:
    """A leader and the agents beside it."""

    def __init__(self, bus: Bus, group: asyncio.TaskGroup) -> None:
        self.bus, self.group = bus, group
        self.agents = {name: agent(name, cost_s) for name, cost_s in (("ada", 0.1), ("bob", 2.0))}
        self.commanders = {name: PlayedCommander() for name in self.agents}
        self.tasks: dict[str, Tasks] = {}
        self.leader = self._leader()

    def _leader(self) -> Leader:
        # Bidding is over once all have answered: the time is for a machine that stands still.
        site = Site(self.agents, {"valve-1": Device(name="valve-1", profile_name="Valve")}, {"Valve": PROFILE})
        audit = Audit(self.bus, subjects.COORDINATOR, "i")
        return Leader(self.bus, Book(Times(6.0, 6.0)), Journal(self.bus), audit, lambda: site, nothing_sought, 8, "run")

    async def start(self) -> None:
        """Start all, and wait until all know each other."""
        await ensure_tasks(self.bus)  # as the guard does
        await self.leader.restore()
        leader = self.leader
        for work in (leader.journal.run(), leader.run_sending(), leader.run_timers(), leader.run_beats()):
            self.group.create_task(work)
        mediator = Mediator(
            self.bus, Audit(self.bus, subjects.COORDINATOR, "m"), leader.site,
            leader.engine.alive, Terms(), self.group, Holders(self.bus, "run").of,
            leader.check_serving,
        )  # fmt: skip
        await Desk(self.bus, leader, mediator, self.group).serve()
        leader.is_serving.set()
        for name, definition in self.agents.items():
            audit = Audit(self.bus, name, "i")
            self.tasks[name] = Tasks(self.bus, definition, self.commanders[name], audit, f"run-{name}", lambda: 0.0,
                                     self.group)  # type: ignore[arg-type]  # fmt: skip
            self.group.create_task(self.tasks[name].run())
        await until(lambda: len(leader.engine.alive()) == 2, "both are there", timeout_s=20)

    async def done(self, task: str) -> tuple[str, str, str]:
        """Give a task; return its state, winner and reason once it has ended."""
        wanted = TaskWanted(id=task, skill="set", device_name="valve-1", resource_name="Setpoint", value="21",
                            deadline_s=20.0)  # fmt: skip
        await self.leader.submit(wanted, "test")
        await until(lambda: task in self.leader.book.ended, f"{task} ends", timeout_s=30)
        record = self.leader.book.record(task)
        return record.state, record.entry.winner, record.reason


@pytest.fixture
async def society(bus: Bus) -> AsyncIterator[Society]:
    """A leader and two agents that run."""
    entered: asyncio.Future[asyncio.TaskGroup] = asyncio.get_running_loop().create_future()

    async def host() -> None:
        async with asyncio.TaskGroup() as group:
            entered.set_result(group)
            await asyncio.Event().wait()

    hosting = asyncio.ensure_future(host())
    found = Society(bus, await entered)
    await found.start()
    yield found
    hosting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await hosting


async def test_the_cheaper_agent_commands_once_and_the_outcome_is_the_report(society: Society) -> None:
    assert await society.done("t") == ("done", "ada", "proven")
    assert society.commanders["ada"].given == {("t", 1): 1}
    assert society.commanders["ada"].intents[0].value == 21.0
    assert not society.commanders["bob"].given
    await until(lambda: not society.tasks["ada"]._known, "the agent has forgotten it", timeout_s=10)


async def test_who_could_not_command_it_now_refuses_and_the_other_does_it(society: Society) -> None:
    society.commanders["ada"].trouble = "set 3 s ago: wait 297 s more (minimum interval)"
    state, winner, _ = await society.done("t")
    assert (state, winner) == ("done", "bob")
    assert society.tasks["ada"].counts["declined_not-possible"] == 1


async def test_an_outcome_that_is_no_proof_and_a_wish_held_back_fail_with_their_reasons(society: Society) -> None:
    society.commanders["ada"].status = "refused"
    assert await society.done("t") == ("failed", "ada", "refused: played")
    society.commanders["ada"].held_back = "held by heat (health), quiet for 3 of 900 s site time"
    assert await society.done("u") == ("failed", "ada", "held by heat (health), quiet for 3 of 900 s site time")


async def test_many_at_once_end_once_each(society: Society) -> None:
    ends = await asyncio.gather(*(society.done(f"t-{number}") for number in range(20)))
    assert {state for state, _, _ in ends} == {"done"}
    given = society.commanders["ada"].given + society.commanders["bob"].given
    assert sorted({task for task, _ in given}) == sorted(f"t-{number}" for number in range(20))
    assert set(given.values()) == {1}
