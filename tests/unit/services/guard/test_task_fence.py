"""The fence of tasks in the guard: what the ledger is asked, when, and what its silence means."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from edgeagents.adapters.bus import Bus, StoredMessage
from edgeagents.errors import UnavailableError
from edgeagents.model.message import Cause
from edgeagents.model.task import TaskRef, cause_of
from edgeagents.settings import BusSettings
from services.guard import task_fence
from services.guard.jobs import Job, Means
from services.guard.lanes import Lanes
from services.guard.task_fence import TaskFence
from tests.unit.services.guard.rig import Rig

OF_TASK = cause_of(TaskRef("warm", 77, 2))


def record(**changes: Any) -> bytes:
    """Return a task's record as the coordinator stores it, as far as the fence looks."""
    entry = {"task": "warm", "epoch": 2, "status": "taken", "winner": "air", "incarnation": "i1"}
    return json.dumps({"version": 1, "state": {"accepted_unix_ns": 77, "entry": entry | changes}}).encode()


class Ledger:
    """A broker with one record, or none; `fails` times it does not answer; `asked` counts."""

    def __init__(self, data: bytes | None) -> None:
        self.settings = BusSettings(gateway="gw")
        self.data, self.fails, self.asked = data, 0, 0
        self.then: Callable[[], None] = lambda: None

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        assert (stream, subject) == ("tasks", "gw.tasks.warm")
        self.asked += 1
        if self.asked <= self.fails:
            raise UnavailableError("no answer")
        self.then()
        return None if self.data is None else StoredMessage(subject, self.data, {}, stream, 5, 0)


async def run(rig: Rig, ledger: Ledger, job: Job) -> tuple[str, str]:
    """Carry a command out behind a fence, and return how it ended."""
    fence = TaskFence(cast(Bus, ledger), rig.clocks.now)
    means: Means = replace(rig.means, task_problem=fence.problem)
    async with asyncio.TaskGroup() as tasks:
        lanes = Lanes(means, tasks)
        await lanes.put(job)
        await lanes.stop(10)
    return rig.told()[str(job.command.id)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the fence ask again at once, and not for long."""
    monkeypatch.setattr(task_fence, "AGAIN_S", 0.001)
    monkeypatch.setattr(task_fence, "LEDGER_S", 0.2)


async def test_the_award_that_stands_is_set_and_was_read_once(rig: Rig) -> None:
    ledger = Ledger(record())
    assert (await run(rig, ledger, rig.job(cause=OF_TASK)))[0] == "proven"
    assert ledger.asked == 1
    assert rig.commands.sets == ["c-1"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "knows no task"),
        (record(epoch=3), "award 2 of task 'warm' is over"),
        (record(status="failed"), "has ended"),
        (record(winner="heat"), "is 'heat''s"),
        (record(incarnation="i2"), "another run"),
        (b"{}", "cannot be read"),
    ],
)
async def test_what_is_not_the_current_award_is_refused_and_nothing_is_set(
    rig: Rig, data: bytes | None, words: str
) -> None:
    status, reason = await run(rig, Ledger(data), rig.job(cause=OF_TASK))
    assert (status, rig.commands.sets) == ("refused", [])
    assert words in reason
    assert [entry["reason"] for entry in rig.records if entry["kind"] == "command"] == [reason]


async def test_a_cause_that_names_a_task_in_no_known_way_is_refused(rig: Rig) -> None:
    ledger = Ledger(record())
    for at, stream in enumerate(("tasks/", "tasks/warm", "tasks/warm/", "tasks/warm/x", "tasks//77")):
        job = rig.job(f"c-{at}", cause=Cause(stream=stream, sequence=2))
        status, reason = await run(rig, ledger, job)
        assert status == "refused", stream
        assert "names no task" in reason
    assert ledger.asked == 0


async def test_commands_of_no_task_cost_no_reading(rig: Rig) -> None:
    ledger = Ledger(None)
    assert (await run(rig, ledger, rig.job()))[0] == "proven"
    assert ledger.asked == 0


async def test_a_ledger_that_is_away_for_a_moment_is_waited_for(rig: Rig) -> None:
    ledger = Ledger(record())
    ledger.fails = 3
    assert (await run(rig, ledger, rig.job(cause=OF_TASK)))[0] == "proven"


async def test_a_ledger_that_stays_silent_refuses(rig: Rig) -> None:
    ledger = Ledger(record())
    ledger.fails = 10_000
    status, reason = await run(rig, ledger, rig.job(cause=OF_TASK))
    assert (status, rig.commands.sets) == ("refused", [])
    assert "does not answer" in reason


async def test_an_answer_that_came_late_is_asked_for_again_and_does_not_end_the_task(rig: Rig) -> None:
    ledger = Ledger(record())

    def late() -> None:
        rig.clocks.now_s += 4.0 * (ledger.asked == 1)

    ledger.then = late
    assert (await run(rig, ledger, rig.job(cause=OF_TASK)))[0] == "proven"
    assert ledger.asked == 2


@pytest.mark.parametrize("answers_s", [1.6, 2.4, 2.7])
async def test_a_ledger_that_is_steadily_slow_holds_a_lane_for_two_answers_at_most(rig: Rig, answers_s: float) -> None:
    ledger = Ledger(record())

    def slow() -> None:
        rig.clocks.now_s += answers_s

    ledger.then = slow
    assert (await run(rig, ledger, rig.job(cause=OF_TASK)))[0] == "proven"
    assert ledger.asked == (1 if answers_s < 2.5 else 2)


async def test_a_ledger_is_waited_for_no_longer_than_the_command_may_wait(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_fence, "LEDGER_S", 60.0)
    ledger = Ledger(record())
    ledger.fails = 10_000_000
    job = replace(rig.job(cause=OF_TASK), deadline_s=rig.clocks.now() + 0.2)
    async with asyncio.timeout(20):
        assert (await run(rig, ledger, job))[0] == "refused"


async def test_what_happened_while_the_ledger_was_read_still_counts(rig: Rig) -> None:
    ledger = Ledger(record())

    def overtaken() -> None:
        rig.clocks.now_s = 111.0  # its deadline passes

    ledger.then = overtaken
    assert (await run(rig, ledger, rig.job(cause=OF_TASK)))[0] == "expired"
    assert rig.commands.sets == []


@pytest.mark.parametrize(("later_s", "ended"), [(2.5, "proven"), (3.5, "refused")])
async def test_what_the_ledger_said_counts_for_a_moment_alone(rig: Rig, later_s: float, ended: str) -> None:
    def held_up() -> None:
        rig.clocks.now_s += later_s  # the process was stopped between the ledger's word and the SET

    rig.commands.on_its_way = held_up
    status, reason = await run(rig, Ledger(record()), rig.job(cause=OF_TASK))
    assert status == ended
    assert ("looked up 3.5 s ago" in reason) is (ended == "refused")


async def test_commands_of_no_task_do_not_grow_old_that_way(rig: Rig) -> None:
    def held_up() -> None:
        rig.clocks.now_s += 5.0

    rig.commands.on_its_way = held_up
    assert (await run(rig, Ledger(None), rig.job()))[0] == "proven"


async def test_nobody_is_asked_to_approve_what_is_nobodys_task(rig: Rig) -> None:
    job = rig.job(resource="Enabled", value="true", cause=OF_TASK, epoch=rig.grant(resource="Enabled", sequence=2))
    status, reason = await run(rig, Ledger(record(epoch=9)), job)
    assert status == "refused"
    assert "is over" in reason
    assert rig.approvals.listed() == []


async def test_without_a_ledger_a_tasks_command_goes_nowhere(rig: Rig) -> None:
    (ended,) = (await rig.run(rig.job(cause=OF_TASK))).values()
    assert ended == ("refused", "no ledger of tasks is read here, so nobody knows whose it is")
