"""`edgeagents why`: from the audit alone, in plain words, why something happened.

Source: design.md section 3.9.
"""

import asyncio
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from edgeagents.cli.conflict import party_line
from edgeagents.cli.history import Fact, History, Wish, is_verdict, led_ref, wishes_of
from edgeagents.cli.lines import STATUS_STYLES, clean, in_words, line_of, place_of, shown, when
from edgeagents.cli.source import DEFAULT, Broker, File, trail_of
from edgeagents.errors import NotFoundError
from edgeagents.protocol.chains import Verifier
from edgeagents.subjects import COORDINATOR

Line: TypeAlias = tuple[str, str]
"""A word for what it is, and the words."""
Last = Annotated[int, Parameter(name="--last", help="of a device or an agent: so many of the newest")]
SHORTEST_PREFIX = 6


def why(subject: str, /, *, broker: Broker = DEFAULT, file: File = None, last: Last = 8) -> None:
    """Say why something happened, from the audit alone.

    Args:
        subject: a task's, conflict's, command's or decision's id (the first characters of the last two do), a device,
            device/resource, or an agent.
    """
    history, problems = asyncio.run(_read(broker, file))
    console = Console(soft_wrap=True)
    for part in answer(history, subject, last):
        console.print(part)
    if problems:
        text = f"the audit is not whole ({problems} problems): `edgeagents audit verify` names them"
        Console(stderr=True, soft_wrap=True).print(Text(text, style="red"))
        sys.exit(1)


async def _read(broker: Broker, file: Path | None) -> tuple[History, int]:
    history, verifier = History(), Verifier()
    with Console(stderr=True).status("reading the audit …"):
        async with trail_of(broker, file) as trail:
            async for entry in trail.entries():
                verifier.take(entry)
                if entry.record is not None and entry.record.writer == entry.writer:
                    history.take(entry.record)
    return history, len(trail.problems(verifier))


def answer(history: History, subject: str, last: int) -> Iterator[Text]:
    """Yield what the audit knows of a subject.

    Raises:
        NotFoundError: it knows nothing of it.
    """
    device, _, resource = subject.partition("/")
    commands, decisions = _matching(history.commands, subject), _matching(history.decisions, subject)
    if len(commands) + len(decisions) > 1:
        raise NotFoundError(f"{subject!r} may be {', '.join(sorted(commands + decisions)[:5])}: write more of it")
    facts, own = history.about(device, resource), history.by(subject)
    if subject in history.conflicts:
        yield from _told(conflict_lines(history, subject))
        return
    if subject in history.tasks:
        yield from _told(task_lines(history, subject))
        return
    if commands:
        yield from _told(command_lines(history, commands[0]))
    elif decisions:
        decision = history.decisions[decisions[0]]
        yield line_of(decision.record)
        for wish in wishes_of(decision):
            yield from _told(wish_lines(history, wish))
    elif not facts and subject not in history.agents:
        raise NotFoundError(f"the audit knows no command, decision, device or agent {subject!r}")
    if facts:
        yield from _newest(facts, last, f"what happened to {subject}")
    if subject in history.agents:
        own = own or [fact for fact in history.facts if fact.record.writer == subject]
        yield from _newest(own, last, f"what {subject} {'decided' if history.by(subject) else 'wrote down'}")
        if history.conflicts_of(subject):
            yield from _newest(history.conflicts_of(subject), last, f"conflicts of {subject}")


def task_lines(history: History, task: str) -> list[Line]:
    """Return who got a task and why, what it did about it, and how it ended: bids, rule, runner-up, reasons.

    Any agent may write an award or an end into its own chain, and call itself the leader. So those count of whom the
    guard's own record of a command names; where it names nobody, each one's word is shown as its word.
    """
    lines: list[Line] = [("task", task)]
    is_sure = bool(history.leaders_of(task))
    said_by = ""
    for fact in history.told_of(task):
        body, at = fact.body, when(fact.record.time_unix_ns)
        leader = str(body.get("leader") or "")  # in that agent's memory: no coordinator was there
        if leader and leader != said_by and fact.record.kind != "task-work":
            lines.append(
                ("led by", leader if is_sure else f"{leader}, as it says: the guard let no command of it pass")
            )
            said_by = leader
        match fact.record.kind:
            case "award":
                lines += [("given by", str(body.get("giver"))), ("wanted", _wanted(body.get("wanted")))]
                lines += [("award", f"{at} to {body.get('winner')} (epoch {body.get('epoch')})")]
                lines += [("bids", _bids(body.get("bids"))), ("rule", str(body.get("rule")))]
                price = "no price: there was no second bid" if body.get("price") is None else shown(body["price"])
                lines += [("runner-up", str(body.get("runner_up") or "none")), ("price", price)]
            case "task-work":
                command = str(body.get("command") or "")
                lines.append(("work", f"{at} {body.get('agent')}: {place_of(body)} = {shown(body.get('value'))}"))
                if body.get("held_back"):
                    lines.append(("held back", str(body["held_back"])))
                elif command in history.outcomes:
                    lines += [("command", command), *_outcome(history.outcomes[command], None)]
            case _:
                reasons = body.get("reasons")
                lines += [("because", str(item)) for item in reasons] if isinstance(reasons, list) else []
                lines.append(("end", f"{at} {body.get('state')}: {body.get('reason')}"))
                if leader and body.get("state") == "done" and f"{leader}/{task}" not in history.led:
                    lines.append(("no command", f"of it is in the guard's audit: {body.get('winner')} says it is done"))
    return lines


def conflict_lines(history: History, conflict: str) -> list[Line]:
    """Return who disagreed on what, what options were worth to whom, which rung settled it, why, and what was done."""
    lines: list[Line] = [("conflict", conflict)]
    for fact in history.conflicts[conflict]:
        body, at = fact.body, when(fact.record.time_unix_ns)
        if is_verdict(fact):
            lines += [("about", place_of(body)), ("asked by", f"{body.get('by')}: wanted {shown(body.get('wanted'))}")]
            lines += [("because", str(body["because"]))] if body.get("because") else []
            parties = body.get("parties")
            lines += [("party", _party(party)) for party in parties] if isinstance(parties, list) else []
            end = f"{shown(body.get('value'))} by {body.get('winner')}" if body.get("winner") else "nothing"
            lines += [("settled", f"{at} {end}"), ("rung", str(body.get("rung")))]
            lines += [("runner-up", shown(body.get("runner_up") or "none"))]
            reasons = body.get("reasons")
            lines += [("reason", str(item)) for item in reasons] if isinstance(reasons, list) else []
        elif fact.record.kind == "settlement":
            lines.append(("obeyed", f"{at} {fact.record.writer}: {body.get('part')}"))
        elif fact.record.kind == "conflict-released" and fact.record.writer == COORDINATOR:
            lines.append(("released", f"{at} {body.get('reason')}"))
        elif fact.record.kind == "settlement-left":
            lines.append(("left", f"{at} {fact.record.writer}: {body.get('reason')}"))
        elif fact.record.kind == "settlement-released":
            lines.append(("freed", f"{at} {fact.record.writer}: {body.get('reason')}"))
        elif fact.record.kind == "settlement-given":
            lines.append(
                ("given", f"{at} {fact.record.writer}: {shown(body.get('value'))}, command {body.get('command')}")
            )
    return lines


def _party(party: object) -> str:
    try:
        return party_line(party) if isinstance(party, Mapping) else str(party)
    except (KeyError, TypeError, ValueError, AttributeError):  # somebody else's idea of a party
        return str(party)


def _wanted(wanted: object) -> str:
    if not isinstance(wanted, Mapping):
        return "unknown"
    return ", ".join(f"{name} {shown(item)}" for name, item in wanted.items() if item not in (None, "", {}))


def _bids(bids: object) -> str:
    if not isinstance(bids, Mapping):
        return "unknown"
    numbers = {name: cost for name, cost in bids.items() if isinstance(cost, (int, float))}
    return ", ".join(f"{name} {shown(cost)}" for name, cost in sorted(numbers.items(), key=lambda pair: pair[1]))


def _matching(ids: Iterable[str], subject: str) -> list[str]:
    known = list(ids)
    if subject in known:
        return [subject]
    return [name for name in known if name.startswith(subject)] if len(subject) >= SHORTEST_PREFIX else []


def _told(lines: Sequence[Line]) -> Iterator[Text]:
    for word, text in lines:
        style = STATUS_STYLES.get(text.partition(":")[0], "") if word == "outcome" else ""
        yield Text.assemble((f"{clean(word):<10} ", "bold"), (clean(text), style))


def _newest(facts: Sequence[Fact], last: int, title: str) -> Iterator[Text]:
    left = len(facts) - max(0, last)
    yield Text(clean(title) + (f" ({left} older ones left out)" if left > 0 else ""), style="bold")
    for fact in facts[max(0, left) :]:
        yield line_of(fact.record, fact.body)


def command_lines(history: History, command_id: str) -> list[Line]:
    """Return why there was a command and how it ended: event, rule, gate, lease, approval, outcome."""
    outcome, wish = history.outcomes.get(command_id), history.wishes.get(command_id)
    lines = [("command", command_id)]
    if wish is not None:
        lines += wish_lines(history, wish)
    elif outcome is not None:
        body = outcome.body
        lines.append(
            ("wanted", f"{body.get('agent')}: {place_of(body)} = {shown(body.get('value'))}: {body.get('because')}")
        )
        lines += _led(body.get("cause"))
        decision = str(body.get("decision") or "not named")
        if decision in history.conflicts:  # commanded because it was settled so
            lines += conflict_lines(history, decision)
        else:
            lines.append(("decision", f"{decision}: the audit has no record of it"))
    if outcome is None:
        return [*lines, ("outcome", "the guard has not written down any")]
    lines += _gate(outcome)
    lines += [
        (fact.record.kind, f"{when(fact.record.time_unix_ns)} {in_words(fact.record.kind, fact.body)}")
        for fact in history.on_the_way[command_id]
    ]
    return [*lines, *_lease(history, outcome), *_outcome(outcome, wish)]


def _led(cause: object) -> list[Line]:
    """Return which task a command was for that an agent led, if any: `edgeagents why TASK` tells its bids."""
    ref = led_ref(cause)
    return [("task", f"{ref.task}, led by {ref.leader}: no coordinator was there")] if ref is not None else []


def wish_lines(history: History, wish: Wish) -> list[Line]:
    """Return why an agent wanted something, and what became of that on its side."""
    body, intent = wish.decision.body, wish.intent
    lines = [
        ("wanted", f"{body.get('agent')}: {place_of(intent)} = {shown(intent.get('value'))}"),
        ("decision", str(body.get("decision"))),
        _event(wish),
    ]
    if intent.get("because"):
        lines.append(("because", str(intent["because"])))
    lines += _stage(history, wish)
    if wish.given is None:
        lines.append(("became", "nothing: a command for the same was under way"))
    elif wish.given.get("held_back"):
        lines.append(("held back", f"by {body.get('agent')} itself: {wish.given['held_back']}"))
    elif "value" in wish.given:
        lines.append(("instead", f"{shown(wish.given['value'])}: {wish.given.get('because')}"))
    return lines


def _event(wish: Wish) -> Line:
    body = wish.decision.body
    cause = body.get("cause")
    cause = cause if isinstance(cause, Mapping) else {}
    changed = body.get("changed")
    values = ", ".join(
        f"{name} = {shown(sample[0])}" for name, sample in changed.items() if isinstance(sample, list) and sample
    ) if isinstance(changed, Mapping) else ""  # fmt: skip
    what = f"{body.get('device')} reported {values}" if values else "an event"
    origin_ns = cause.get("origin_ns")
    measured = f", measured {when(origin_ns)}" if isinstance(origin_ns, int) and origin_ns else ""
    event = f", event {cause['event_id']}" if cause.get("event_id") else ""
    return "event", f"{what}{measured} (message {cause.get('sequence')} of {cause.get('stream')}{event})"


def _stage(history: History, wish: Wish) -> list[Line]:
    body, name = wish.decision.body, str(wish.intent.get("rule"))
    sure = f"confidence {shown(body.get('confidence'))}"
    if body.get("stage") != "rule":
        return [("decided by", f"{body.get('stage')} {body.get('model') or ''}, {sure}"), ("inputs", _inputs(body, ""))]
    rule = history.rule_of(wish)
    words = f": when {' '.join(str(rule['when']).split())}" if rule is not None and "when" in rule else ""
    return [("rule", f"{name}{words} ({sure})"), ("inputs", _inputs(body, f"{name}.", rule))]


def _inputs(body: Mapping[str, object], prefix: str, rule: Mapping[str, object] | None = None) -> str:
    inputs = body.get("inputs")
    given = rule.get("given") if rule is not None else None
    parts = []
    for name, value in inputs.items() if isinstance(inputs, Mapping) else ():
        if str(name).startswith(prefix):
            short = str(name).removeprefix(prefix)
            source = given.get(short) if isinstance(given, Mapping) else None
            parts.append(f"{short} = {shown(value)}{_source(source)}")
    return ", ".join(parts) or "none: it looks at the time alone"


def _source(source: object) -> str:
    if isinstance(source, str):
        return f" ({source})"
    if isinstance(source, Mapping):
        span = shown(float(source["over"])) if isinstance(source.get("over"), (int, float)) else "?"
        return f" ({source.get('take')} of {source.get('of')} over {span} s)"
    return ""


def _gate(outcome: Fact) -> list[Line]:
    if outcome.body.get("status") == "refused":
        return [("gate", f"the guard refused it: {outcome.body.get('reason')}")]
    if outcome.body.get("status") == "expired":
        return [("gate", f"it came too late: {outcome.body.get('reason')}")]
    return [("gate", "the guard let it pass")]


def _lease(history: History, outcome: Fact) -> list[Line]:
    lease, before = history.lease_of(outcome)
    epoch = outcome.body.get("epoch")
    if lease is None:
        number = f"{epoch.get('generation')}.{epoch.get('revision')}" if isinstance(epoch, Mapping) else "unknown"
        return [("lease", f"epoch {number}: the audit has no record of it")]
    agent = str(lease.body.get("agent"))
    source = (
        "held by nobody before" if not before else "its own before" if before == agent else f"taken over from {before}"
    )
    return [("lease", f"{when(lease.record.time_unix_ns)} {in_words('lease', lease.body)}; {source}")]


def _outcome(outcome: Fact, wish: Wish | None) -> list[Line]:
    body = outcome.body
    words = [str(body.get("status"))]
    if body.get("read_back") is not None:
        words.append(f"{place_of(body)} read back as {shown(body['read_back'])}")
    if body.get("reason"):
        words.append(str(body["reason"]))
    if wish is not None:
        after_s = (outcome.record.time_unix_ns - wish.decision.record.time_unix_ns) / 1e9
        words.append(f"{after_s:.3f} s after the decision")
    approver = [("approver", str(body["approver"]))] if body.get("approver") else []
    return [*approver, ("outcome", f"{words[0]}: {'; '.join(words[1:])}" if words[1:] else words[0])]
