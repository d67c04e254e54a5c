"""Who gives tasks while a gateway is under fire, and who watches its ledger: each client gives again until it is heard.

Three kinds at once: HTTP, a rule's `rest` sink as eKuiper sends its results, and NATS. The watcher takes nobody's word:
it hears each record that is stored, and what should never be is a problem in words.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import httpx

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.errors import MalformedMessageError, UnavailableError
from edgeagents.model.message import AuditRecord, Command, Outcome
from edgeagents.model.task import ENDED_STATES, task_of
from edgeagents.protocol.task_award import Standing, standing_of

AGAIN_S: Final = 0.3
HEARD_S: Final = 120.0  # a client that is not heard for so long gives up, and says so
ENDED: Final = ("done", "failed")
LAMPS: Final = ("light-living", "light-bedroom", "light-kitchen")
Give: TypeAlias = Callable[[dict[str, Any]], Awaitable[int]]


def worker(name: str, cost_s: float, *lamps: str) -> dict[str, Any]:
    """Return an agent that does tasks with lamps; both may set the one in the bedroom."""
    return {
        "name": name, "mode": "act", "priority": "comfort", "watches": [{"profile": "Light"}], "ttl": 10,
        "may": [{"device": lamp, "resource": "Brightness"} for lamp in lamps],
        "skills": [{"name": "set", "cost_s": cost_s}],
    }  # fmt: skip


WORKERS = (worker("swift", 0.1, *LAMPS[:2]), worker("steady", 0.3, *LAMPS[1:]))


class Clients:
    """Gives tasks to one coordinator in three ways."""

    def __init__(
        self, url: str, bus: Bus, http: httpx.AsyncClient, device_of: Callable[[int], str], deadline_s: float = 60.0
    ) -> None:
        """Give to the coordinator at `url` and on `bus`; `device_of` says which lamp the task of a number is for."""
        self._url, self._bus, self._http, self._device_of = url, bus, http, device_of
        self.deadline_s = deadline_s
        self.accepted: set[str] = set()
        self.problems: list[str] = []
        self.ways: Counter[str] = Counter()

    def task(self, number: int) -> dict[str, Any]:
        """Return the task of a number; its value is nobody else's nearby."""
        return {
            "id": f"t-{number}", "skill": "set", "deviceName": self._device_of(number), "resourceName": "Brightness",
            "value": 1 + number % 100, "deadlineS": self.deadline_s,
        }  # fmt: skip

    async def give(self, number: int) -> None:
        """Give the task of a number, again and again until it is said to be on disk."""
        task = self.task(number)
        way, give = (("http", self._by_http), ("rule", self._by_rule), ("nats", self._by_nats))[number % 3]
        until_s = time.monotonic() + HEARD_S
        status = 0
        while time.monotonic() < until_s:
            with contextlib.suppress(httpx.HTTPError, UnavailableError, ValueError, KeyError):
                status = await give(task)
                if status in (200, 202):
                    self.accepted.add(task["id"])
                    self.ways[way] += 1
                    return
                if status not in (429, 500, 503):
                    break
            await asyncio.sleep(AGAIN_S)
        self.problems.append(f"task {task['id']} was not taken in by {way}: {status}")

    async def give_all(self, numbers: Sequence[int], at_once: int = 12) -> None:
        """Give the tasks of these numbers, so many at a time; each tenth is cancelled right after."""
        queue = iter(numbers)

        async def client() -> None:
            for number in queue:
                await self.give(number)
                if number % 10 == 9:
                    with contextlib.suppress(httpx.HTTPError):  # it may have ended, or be another start's
                        await self._http.delete(f"{self._url}/api/v3/task/id/t-{number}")

        await asyncio.gather(*(client() for _ in range(at_once)))

    async def _by_http(self, task: dict[str, Any]) -> int:
        body = {"apiVersion": "v3", "requestId": task["id"], "task": task}
        return (await self._http.post(f"{self._url}/api/v3/task", json=body)).status_code

    async def _by_rule(self, task: dict[str, Any]) -> int:
        """Give it as eKuiper's `rest` sink does: what the rule's `dataTemplate` wrote, in an array of results."""
        answer = await self._http.post(f"{self._url}/api/v3/task", json=[task])
        return int(answer.json()[0]["statusCode"]) if answer.status_code == 207 else answer.status_code

    async def _by_nats(self, task: dict[str, Any]) -> int:
        subject = subjects.task_request(self._bus.settings.gateway, "submit", "owner")
        answer = await self._bus.request(subject, json.dumps(task).encode(), timeout_s=5.0)
        return int(json.loads(answer.data)["statusCode"])

    async def ended(self, timeout_s: float) -> dict[str, dict[str, Any]]:
        """Return every task that was taken in, once all have ended or the time is over."""
        until_s, found = time.monotonic() + timeout_s, dict[str, dict[str, Any]]()
        while time.monotonic() < until_s:
            with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
                for name in sorted(self.accepted - {name for name, task in found.items() if is_over(task)}):
                    found[name] = (await self._http.get(f"{self._url}/api/v3/task/id/{name}")).json()["task"]
                if all(map(is_over, found.values())) and set(found) == self.accepted:
                    break
            await asyncio.sleep(AGAIN_S)
        return found


def is_over(task: dict[str, Any]) -> bool:
    """Say whether a task has ended."""
    return task["state"] in ENDED_STATES


@dataclass
class Watcher:
    """Hears each record of a task that is stored; what it misses while the broker is down it does not judge."""

    problems: list[str] = field(default_factory=list)
    ends: dict[str, str] = field(default_factory=dict)
    takers: dict[str, tuple[str, str]] = field(default_factory=dict)
    heard: int = 0

    async def hear(self, message: BusMessage) -> None:
        """Take a record in."""
        if not message.data:
            return
        try:
            standing = standing_of(message.data)
        except MalformedMessageError as error:
            self.problems.append(f"{message.subject}: {error}")
            return
        self.heard += 1
        self._taken(standing)
        before = self.ends.get(standing.task)
        if before is not None and standing.status != before:
            self.problems.append(f"task {standing.task} had ended {before} and is {standing.status}")
        if standing.status in ENDED:
            self.ends[standing.task] = standing.status

    def _taken(self, standing: Standing) -> None:
        if standing.status != "taken":
            return
        taker = (standing.winner, standing.incarnation)
        if self.takers.setdefault(standing.task, taker) != taker:
            self.problems.append(f"task {standing.task} was taken by {self.takers[standing.task]} and by {taker}")


async def effects_of(bus: Bus) -> dict[str, list[str]]:
    """Return, by task, the commands that were carried out for it, as the command stream has their outcomes."""
    gateway, of, proven = bus.settings.gateway, dict[str, str](), set[str]()
    async for stored in bus.read(subjects.COMMANDS_STREAM, [], name="tasks-effects"):
        with contextlib.suppress(MalformedMessageError):
            if stored.subject.startswith(f"{subjects.token(gateway)}.outcomes."):
                outcome = wire.decode(Outcome, stored.data)
                proven |= {str(outcome.command_id)} if outcome.status in ("proven", "unproven") else set()
            elif not stored.subject.endswith(f".{subjects.GUARD}"):
                command = wire.decode(Command, stored.data)
                ref = task_of(command.cause)
                of |= {str(command.id): ref.task} if ref is not None else {}
    found: dict[str, list[str]] = {}
    for command_id, task in of.items():
        if command_id in proven:
            found.setdefault(task, []).append(command_id)
    return found


async def ends_of(bus: Bus) -> Counter[str]:
    """Return how often each task's end stands in the coordinator's audit."""
    found: Counter[str] = Counter()
    pattern = f"{subjects.token(bus.settings.gateway)}.audit.{subjects.COORDINATOR}.*"
    async for stored in bus.read(subjects.AUDIT_STREAM, [pattern], name="tasks-ends"):
        record = wire.decode(AuditRecord, stored.data)
        if record.kind == "task":
            found[str(json.loads(record.body)["task"])] += 1
    return found


async def verdict(
    clients: Clients, watcher: Watcher, bus: Bus, tasks: dict[str, dict[str, Any]], *, is_whole: bool
) -> list[str]:
    """Return what is wrong with how tasks ended: each once, with a reason, with one effect at most.

    Args:
        clients: who gave them.
        watcher: who heard what was stored of them.
        bus: connected as the owner.
        tasks: as the coordinator shows them.
        is_whole: the coordinator was not killed, so each end has to be in its audit. It writes that after the ledger,
            in batches: what a kill -9 finds in its memory is missing there, and is never written twice.
    """
    problems = [*clients.problems, *watcher.problems]
    effects, ends = await effects_of(bus), await ends_of(bus)
    until_s = time.monotonic() + 20.0
    while is_whole and len(ends) < len(clients.accepted) and time.monotonic() < until_s:
        await asyncio.sleep(AGAIN_S)
        ends = await ends_of(bus)
    for name in sorted(clients.accepted):
        task, done = tasks.get(name), effects.get(name, [])
        if task is None:
            problems.append(f"task {name} was taken in and is not known any more")
        elif not is_over(task):
            problems.append(f"task {name} has no end: {task['state']}")
        elif not task["reason"]:
            problems.append(f"task {name} is {task['state']} without a reason")
        elif task["state"] == "done" and len(done) != 1:
            problems.append(f"task {name} is done by {len(done)} commands")
        if len(done) > 1:
            problems.append(f"task {name} was done {len(done)} times: {', '.join(done)}")
        if ends[name] > 1 or (is_whole and not ends[name]):
            problems.append(f"the end of task {name} is audited {ends[name]} times")
    return problems
