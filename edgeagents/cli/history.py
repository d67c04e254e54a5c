"""An index over audit records: what caused what, by command, decision, device and agent.

Pure: records in, answers out. Kept in memory whole, without the views that only a replay needs.

Source: design.md section 3.9.
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from edgeagents.cli.lines import Body, body_of
from edgeagents.errors import InvalidInputError
from edgeagents.model.message import AuditRecord, Cause
from edgeagents.model.task import LedRef, led_of
from edgeagents.subjects import COORDINATOR, GUARD

Resource: TypeAlias = tuple[str, str]
"""Device and resource."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One record, its body read."""

    record: AuditRecord
    body: Body


@dataclass(frozen=True, slots=True)
class Wish:
    """One intent of a decision, and what became of it: `given` is None when such a command was under way already."""

    decision: Fact
    intent: Body
    given: Body | None


@dataclass(slots=True)
class History:
    """What happened, oldest first."""

    facts: list[Fact] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    decisions: dict[str, Fact] = field(default_factory=dict)
    outcomes: dict[str, Fact] = field(default_factory=dict)
    wishes: dict[str, Wish] = field(default_factory=dict)
    on_the_way: defaultdict[str, list[Fact]] = field(default_factory=lambda: defaultdict(list))
    leases: defaultdict[Resource, list[Fact]] = field(default_factory=lambda: defaultdict(list))
    started: dict[tuple[str, str], Fact] = field(default_factory=dict)
    tasks: defaultdict[str, list[Fact]] = field(default_factory=lambda: defaultdict(list))
    conflicts: defaultdict[str, list[Fact]] = field(default_factory=lambda: defaultdict(list))
    led: defaultdict[str, list[Fact]] = field(default_factory=lambda: defaultdict(list))  # the guard's, by leader/task

    def take(self, record: AuditRecord) -> None:
        """Take the next record in; one with fields of another shape is kept, and connected to nothing."""
        body = body_of(record)
        body.pop("view", None)
        fact = Fact(record, body)
        self.facts.append(fact)
        self.agents.add(record.writer)
        match record.kind:
            case "decision":
                self.decisions.setdefault(str(body.get("decision")), fact)
                for wish in wishes_of(fact):
                    if wish.given is not None and wish.given.get("command"):
                        self.wishes.setdefault(str(wish.given["command"]), wish)
            case "command":
                self.outcomes.setdefault(str(body.get("command_id")), fact)
                self._take_led(fact)
            case "lease":
                self.leases[str(body.get("device")), str(body.get("resource"))].append(fact)
            case "started":
                self.started[record.writer, record.incarnation] = fact
            case (
                "conflict" | "conflict-released" | "settlement" | "settlement-left" | "settlement-released"
                | "settlement-given"
            ) if body.get("conflict"):  # fmt: skip
                self.conflicts[str(body["conflict"])].append(fact)
                if body.get("command"):
                    self.on_the_way[str(body["command"])].append(fact)
            case "award" | "task" if "task" in body and record.writer not in (COORDINATOR, body.get("leader")):
                pass  # anybody may write one; who leads a task alone says whose it is: `leaders_of`
            case "award" | "task" | "task-work" if "task" in body:
                self.tasks[str(body["task"])].append(fact)
            case _ if "command" in body:  # approvals, quarantines, …: what happened to a command on its way
                self.on_the_way[str(body["command"])].append(fact)

    def _take_led(self, command: Fact) -> None:
        """Note for which task that an agent led the guard let a command pass: by whose word else would it be known?"""
        if command.record.writer != GUARD or command.body.get("status") in ("refused", "expired"):
            return  # what a command says of itself counts only once the guard has looked at it
        ref = led_ref(command.body.get("cause"))
        if ref is not None:
            self.led[f"{ref.leader}/{ref.task}"].append(command)

    def leaders_of(self, task: str) -> set[str]:
        """Return who led a task for certain: the coordinator by its chain, agents by commands the guard let pass."""
        leaders = {key.partition("/")[0] for key in self.led if key.partition("/")[2] == task}
        writers = {fact.record.writer for fact in self.tasks[task] if fact.record.kind != "task-work"}
        return leaders | (writers & {COORDINATOR})

    def told_of(self, task: str) -> list[Fact]:
        """Return what counts of a task: awards and ends of who led it for certain; if nobody did, each one's word."""
        leaders = self.leaders_of(task)
        return [
            fact for fact in self.tasks[task]
            if fact.record.kind == "task-work" or not leaders or fact.record.writer in leaders
        ]  # fmt: skip

    @property
    def commands(self) -> set[str]:
        """Return every command's id."""
        return {*self.outcomes, *self.wishes}

    def about(self, device: str, resource: str = "") -> list[Fact]:
        """Return what happened to a device, or to one resource of it, oldest first; of a decision what concerns it."""
        return [
            _narrowed(fact, device, resource)
            for fact in self.facts
            if any(_fits(place, device, resource) for place in places_of(fact))
        ]

    def by(self, agent: str) -> list[Fact]:
        """Return an agent's decisions, oldest first."""
        return [fact for fact in self.facts if fact.record.kind == "decision" and fact.record.writer == agent]

    def conflicts_of(self, agent: str) -> list[Fact]:
        """Return how conflicts were settled in which an agent was a party, oldest first: the mediator's words alone."""
        return [
            fact for facts in self.conflicts.values() for fact in facts
            if is_verdict(fact) and any(party.get("agent") == agent for party in _objects(fact.body.get("parties")))
        ]  # fmt: skip

    def lease_of(self, outcome: Fact) -> tuple[Fact | None, str]:
        """Return the lease a command went out under, and who held it before (empty: nobody)."""
        epoch = outcome.body.get("epoch")
        key = (str(outcome.body.get("device")), str(outcome.body.get("resource")))
        if not isinstance(epoch, Mapping):
            return None, ""
        before = ""
        for fact in self.leases[key]:
            body = fact.body
            if (body.get("generation"), body.get("revision")) == (epoch.get("generation"), epoch.get("revision")):
                return fact, before
            before = str(body.get("agent") or before)
        return None, ""

    def rule_of(self, wish: Wish) -> Body | None:
        """Return the owner's rule behind an intent, as the agent's file had it, its `for_each` words filled in."""
        record = wish.decision.record
        started = self.started.get((record.writer, record.incarnation))
        file = _file(started.body) if started is not None else {}
        return next((rule for rule in _filled(file.get("rules")) if rule.get("name") == wish.intent.get("rule")), None)


def led_ref(cause: object) -> LedRef | None:
    """Return the task that an agent led and for which a command was; None: it was for none, or says so oddly."""
    stream = cause.get("stream") if isinstance(cause, Mapping) else ""
    try:
        return led_of(Cause(stream=str(stream)[:256], sequence=0))
    except InvalidInputError:  # somebody else's idea of one
        return None


def is_verdict(fact: Fact) -> bool:
    """Say whether a record is how a conflict was settled: anybody may write one, the coordinator alone settles."""
    return fact.record.kind == "conflict" and fact.record.writer == COORDINATOR


def _file(started: Body) -> dict[str, Any]:
    """Return the agent file in a `started` record; empty where it was too long to be kept as it is."""
    try:
        file = json.loads(started["file"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return file if isinstance(file, dict) else {}


def wishes_of(decision: Fact) -> list[Wish]:
    """Return a decision's intents with what became of them."""
    given = {_key(item): item for item in _objects(decision.body.get("given"))}
    return [Wish(decision, intent, given.get(_key(intent))) for intent in _objects(decision.body.get("intents"))]


def places_of(fact: Fact) -> list[Resource]:
    """Return the device resources a record is about."""
    if fact.record.kind == "decision":
        return [_key(item) for item in _objects(fact.body.get("intents"))]
    return [_key(fact.body)] if fact.body.get("device") else []


def _narrowed(fact: Fact, device: str, resource: str) -> Fact:
    if fact.record.kind != "decision":
        return fact
    wanted = [item for item in _objects(fact.body.get("intents")) if _fits(_key(item), device, resource)]
    return Fact(fact.record, {**fact.body, "intents": wanted})


def _fits(place: Resource, device: str, resource: str) -> bool:
    # A record about a whole device (blocked) concerns each of its resources.
    return place[0] == device and (not resource or place[1] in (resource, ""))


def _key(body: Body) -> Resource:
    return str(body.get("device", "")), str(body.get("resource", ""))


def _objects(items: object) -> list[Body]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _filled(rules: object) -> Iterator[Body]:
    for rule in _objects(rules):
        said = rule.get("for_each")
        words = {name: item for name, item in said.items() if isinstance(item, list)} if isinstance(said, dict) else {}
        for combination in itertools.product(*words.values()):
            yield {name: _with(value, dict(zip(words, combination, strict=True))) for name, value in rule.items()}


def _with(value: Any, words: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for name, word in words.items():
            value = value.replace("{" + name + "}", str(word))
        return value
    return {name: _with(item, words) for name, item in value.items()} if isinstance(value, dict) else value
