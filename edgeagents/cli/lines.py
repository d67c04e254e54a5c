"""Audit records in words: one line a record, for `audit tail` and `why`.

What records hold was written by devices and agents: control characters in it never reach the terminal.

Source: design.md section 3.9; docs/audit.md lists the kinds.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from rich.text import Text

from edgeagents.model.message import AuditRecord

LONGEST: Final = 400
LONGEST_ERROR: Final = 4000  # one names every wrong field of a file
STATUS_STYLES: Final = {
    "proven": "green", "unproven": "yellow", "refused": "red", "failed": "red", "expired": "red", "uncertain": "red",
}  # fmt: skip
KIND_STYLES: Final = {
    "decision": "cyan", "lease": "blue", "approval": "magenta", "rejected": "red", "blocked": "red", "dropped": "red",
    "quarantine": "red", "late-effect": "red", "correction": "yellow", "set-again": "yellow", "clock-step": "yellow",
    "override": "yellow", "paused": "yellow", "mode": "yellow", "conflict": "magenta", "conflict-refused": "red",
    "settlement-refused": "red",
}  # fmt: skip
_EXPONENT: Final = re.compile(r"[+-]?[0-9](\.[0-9]{1,20})?e[+-][0-9]{1,3}")
Body = Mapping[str, Any]


def body_of(record: AuditRecord) -> dict[str, Any]:
    """Return a record's body as an object; one that is none reads as `{"text": …}`."""
    try:
        body = json.loads(record.body)
    except (ValueError, RecursionError):
        return {"text": record.body}
    return body if isinstance(body, dict) else {"text": record.body}


def line_of(record: AuditRecord, body: Body | None = None) -> Text:
    """Return a record as one line: when, who, what kind, what; `body` instead of its own where only a part matters."""
    body = body_of(record) if body is None else body
    line = Text(f"{when(record.time_unix_ns)}  ", style="dim")
    line.append(f"{clean(record.writer):<10} ", style="bold")
    style = STATUS_STYLES.get(str(body.get("status")), "") if record.kind == "command" else ""
    line.append(f"{clean(record.kind):<13} ", style=style or KIND_STYLES.get(record.kind, ""))
    return line.append(in_words(record.kind, body))


def in_words(kind: str, body: Body) -> str:
    """Return what a record says, without when and who; a kind not known here shows its fields."""
    try:
        words = WORDS[kind](body) if kind in WORDS else _fields(body)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):  # somebody else's idea of such a record
        words = _fields(body)
    return clean(words)


def when(time_ns: int) -> str:
    """Return wall nanoseconds as UTC text."""
    try:
        return f"{datetime.fromtimestamp(time_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
    except (ValueError, OverflowError, OSError):
        return "at no time  "


def shown(value: object) -> str:
    """Return a value for people: 21.5 for 21.5 and for EdgeX's 2.15e+01."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) or (isinstance(value, str) and _EXPONENT.fullmatch(value)):
        return f"{float(value):.6g}"
    return str(value)


def clean(text: str, longest: int = LONGEST) -> str:
    """Return a text that moves no cursor and ends some day."""
    text = text if len(text) <= longest else f"{text[: longest - 1]}…"
    return "".join(letter if letter.isprintable() else "·" for letter in text)


def json_of(body: object) -> str:
    """Return a body as one line of JSON that can be read in any language, and moves no cursor either."""
    text = json.dumps(body, ensure_ascii=False)
    # What cannot be printed stands within strings alone, where JSON has a word for it.
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)


def place_of(body: Body) -> str:
    """Return `device/resource` of a body, as far as it names them."""
    return "/".join(str(body[name]) for name in ("device", "resource") if body.get(name))


def _started(body: Body) -> str:
    if "generation" in body:
        return f"the guard started, generation {body['generation']}"
    rules = f", mode {body['mode']}, {body['rules']} rules" if "rules" in body else ""
    return f"agent {body['agent']} started{rules}"


def _decision(body: Body) -> str:
    became = {(item["device"], item["resource"]): item for item in body["given"]}
    parts = []
    for intent in body["intents"]:
        given = became.get((intent["device"], intent["resource"]))
        if given is None:
            end = "a command for it is under way"
        elif given["held_back"]:
            end = f"held back: {str(given['held_back']).removeprefix('held back ')}"
        else:
            end = f"command {given['command']}"
        because = f" ({intent['because']})" if intent["because"] else ""
        parts.append(f"{place_of(intent)} → {shown(intent['value'])}{because}, {end}")
    name = f"{body['decision']}: " if body.get("decision") else ""
    return name + "; ".join(parts)


def _lease(body: Body) -> str:
    epoch = f"epoch {body['generation']}.{body['revision']}"
    return f"{place_of(body)} {'to ' + body['agent'] if body.get('agent') else 'to nobody'}, {epoch}{_reason(body)}"


def _command(body: Body) -> str:
    words = [f"{body['status']}: {place_of(body)} = {shown(body['value'])} for {body['agent']}"]
    words += [f"read back {shown(body['read_back'])}"] if body.get("read_back") is not None else []
    words += [f"approved by {body['approver']}"] if body.get("approver") else []
    words += [str(body["reason"])] if body.get("reason") else []
    return f"{', '.join(words)} (command {body['command_id']})"


def _approval(body: Body) -> str:
    if "refused" in body:
        return f"command {body['command']}: somebody tried to decide with {body['refused']}"
    verb = {"approve": "approved", "deny": "denied"}.get(body["decision"], str(body["decision"]))
    return f"{body['approver']} {verb} command {body['command']}{_reason(body)}"


def _consent(body: Body) -> str:
    parts = [f"{name} consented" for name in body["consented"]]
    parts += [f"{name} refused: {reason}" for name, reason in body["refused"].items()]
    parts += [f"{name} was silent" for name in body["silent"]]
    end = {"carried": "enough to let it pass", "open": "not enough"}.get(body["decision"], str(body["decision"]))
    return f"{'; '.join(parts)}: {end}, {body['quorum']} of {len(body['members'])} needed (command {body['command']})"


def _consent_said(body: Body) -> str:
    verb = "consents to" if body["consents"] else "does not consent to"
    return (
        f"{verb} {place_of(body)} = {shown(body['value'])} for {body['of']}{_reason(body)} (command {body['command']})"
    )


def _rejected(body: Body) -> str:
    return f"message {body['sequence']} on {body['subject']} set aside, {body['cause']}: {body['text']}"


def _blocked(body: Body) -> str:
    return f"{body['device']} takes no command: {body['reason']}"


def _dropped(body: Body) -> str:
    return f"{body['records']} records could not be stored in time and are missing"


def _quarantine(body: Body) -> str:
    return f"{body['device']} takes no command until its state is certain again: {body['reason']}"


def _released(body: Body) -> str:
    return f"{body['device']} takes commands again, its state is certain"


def _set_again(body: Body) -> str:
    return f"command {body['command']} for {body['agent']} is set again, as {body['correlation']}"


def _correction(body: Body) -> str:
    return (
        f"{place_of(body)} was set to {shown(body['value'])} again, a straggler had made it {shown(body['straggler'])}"
    )


def _late_effect(body: Body) -> str:
    return f"{place_of(body)} became {shown(body['value'])}: a command took effect late"


def _override(body: Body) -> str:
    until = when(int(float(body["until_site_s"]) * 1e9))
    return f"{place_of(body)} = {shown(body['value'])} by somebody else: agents leave it alone until {until}, site time"


def _override_over(body: Body) -> str:
    return f"{place_of(body)} is the agents' again"


def _clock_step(body: Body) -> str:
    return f"the wall clock was set by {float(body['by_s']):+.3f} s"


def _paused(body: Body) -> str:
    return f"{body['approver']} paused {_scope(body)}{_reason(body)}"


def _resumed(body: Body) -> str:
    return f"{body['approver']} resumed {_scope(body)}{_reason(body)}"


def _mode(body: Body) -> str:
    return f"{body['approver']} put {body['agent']} into mode {body['mode']}{_reason(body)}"


def _conflict(body: Body) -> str:
    parties = " and ".join(str(party["agent"]) for party in body["parties"])
    end = f"{shown(body['value'])} by {body['winner']}" if body["winner"] else "nothing, all goes on as it was"
    reason = f": {body['reasons'][-1]}" if body["reasons"] else ""
    return f"{place_of(body)} between {parties}: {end}{reason} ({body['conflict']})"


def _settlement(body: Body) -> str:
    end = f"{shown(body['value'])} by {body['winner'] or 'nobody'}"
    return f"{place_of(body)} = {end}: {body['part']} ({body['conflict']})"


def _given(body: Body) -> str:
    return f"{place_of(body)} = {shown(body['value'])}, command {body['command']} ({body['conflict']})"


def _scope(body: Body) -> str:
    return " ".join(str(body[name]) for name in ("scope", "name") if body.get(name))


def _reason(body: Body) -> str:
    return f": {body['reason']}" if body.get("reason") else ""


def _fields(body: Body) -> str:
    others = [f"{name}={shown(value)}" for name, value in body.items() if name not in ("device", "resource")]
    return " ".join([*filter(None, [place_of(body)]), *others])


WORDS: Final[Mapping[str, Callable[[Body], str]]] = {
    "started": _started, "decision": _decision, "lease": _lease, "command": _command, "approval": _approval,
    "rejected": _rejected, "blocked": _blocked, "dropped": _dropped, "quarantine": _quarantine, "released": _released,
    "set-again": _set_again, "correction": _correction, "late-effect": _late_effect, "override": _override,
    "conflict": _conflict, "settlement": _settlement,
    "settlement-given": _given,
    "override-over": _override_over, "clock-step": _clock_step, "paused": _paused, "resumed": _resumed, "mode": _mode,
    "consent": _consent, "consent-said": _consent_said,
}  # fmt: skip
