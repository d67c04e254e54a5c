"""Every NATS subject, stream, bucket and durable name, built by functions.

Device and agent names may hold anything EdgeX allows; NATS tokens and KV keys may not. Names with only
letters, digits, `-` and `_` stand as they are, all others become `=` + base64url, here alone. (No plain name
starts with `=`, and KV keys may hold it; the mapping is one to one, and `name_of` refuses any other spelling.)

EdgeX topics become subjects in two ways, by what carries them: nats-server's MQTT listener writes a dot
inside a level as `//`; EdgeX services built with NATS replace characters over the whole string.

Source: design.md section 4; edgex-wire.md sections 1.3 and 1.6; nats-server MQTT mapping.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal
from urllib.parse import quote

from edgeagents.errors import InvalidInputError
from edgeagents.settings import EdgexBusType

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_UNCARRIED = re.compile(r"[ \t\n\v\f\r\x00\x7f]")
_WILDCARDS = {"+": "*", "#": ">"}
_TOPIC_WILDCARDS = {"*": "+", ">": "#"}
# The server takes a subject, a reply subject and a size in one line of at most 4096 bytes, else it hangs up.
MAX_TOPIC_BYTES = 3_500

EVENTS_STREAM = "edgex-events"
COMMANDS_STREAM = "commands"
AUDIT_STREAM = "audit"
TRIGGERS_STREAM = "triggers"
DEAD_LETTERS_STREAM = "dead-letters"
PREFIXES_BUCKET = "prefixes"  # of the object store; the guard makes it, the language model's service alone uses it
TASKS_STREAM = "tasks"  # the guard makes it, the coordinator alone writes it
LEASES_BUCKET = "leases"

COORDINATOR = "coordinator"  # the name under which it speaks among agents; none of them may take it
GUARD = "guard"  # the name that agents may not take: the guard's own records among a device's commands
EVERYTHING = ">"
MICRO = "$SRV"  # NATS ADR-32
MicroVerb = Literal["PING", "INFO", "STATS"]
MICRO_VERBS: tuple[MicroVerb, ...] = ("PING", "INFO", "STATS")


def token(name: str) -> str:
    """Return a name as one NATS token (and KV key part).

    Raises:
        InvalidInputError: the name is empty, or no text.
    """
    if not name:
        raise InvalidInputError("an empty name cannot be part of a subject")
    if _PLAIN.fullmatch(name):
        return name
    try:
        return "=" + base64.urlsafe_b64encode(name.encode()).decode().rstrip("=")
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"name {name!r} holds a lone surrogate") from error


def name_of(part: str) -> str:
    """Return the name a token stands for; the inverse of `token`.

    Raises:
        InvalidInputError: not a token that `token` makes.
    """
    if _PLAIN.fullmatch(part):
        return part
    try:
        name = base64.urlsafe_b64decode(part[1:] + "=" * (-(len(part) - 1) % 4)).decode()
    except (ValueError, binascii.Error) as error:
        raise InvalidInputError(f"subject token {part!r} is not a base64url name") from error
    if not name or token(name) != part:
        raise InvalidInputError(f"subject token {part!r} is not how a name is written")
    return name


# --- ours: the owning gateway's name comes first -------------------------------------------------


def command(gateway: str, device: str, agent: str) -> str:
    """Return the subject on which `agent` publishes its commands for `device`."""
    return f"{token(gateway)}.commands.{token(device)}.{token(agent)}"


def commands(gateway: str) -> str:
    """Return the filter for every command and lease record of a gateway."""
    return f"{token(gateway)}.commands.*.*"


def own_commands(gateway: str, agent: str) -> str:
    """Return the filter for every command of one agent."""
    return f"{token(gateway)}.commands.*.{token(agent)}"


def lease_records(gateway: str) -> str:
    """Return the filter for the guard's lease records of a gateway."""
    return f"{token(gateway)}.commands.*.{GUARD}"


def parse_command(subject: str) -> tuple[str, str]:
    """Return (device, agent) of a command subject.

    Raises:
        InvalidInputError: it is not one.
    """
    parts = subject.split(".")
    if len(parts) != 4 or parts[1] != "commands":
        raise InvalidInputError(f"{subject!r} is no command subject")
    return name_of(parts[2]), name_of(parts[3])


def outcome(gateway: str, agent: str, device: str) -> str:
    """Return the subject on which the guard tells `agent` how its commands on `device` ended."""
    return f"{token(gateway)}.outcomes.{token(agent)}.{token(device)}"


def agent_of_outcome(subject: str) -> str:
    """Return whom an outcome's subject tells; raises like `parse_command`."""
    parts = subject.split(".")
    if len(parts) != 4 or parts[1] != "outcomes":
        raise InvalidInputError(f"{subject!r} is no subject of outcomes")
    return name_of(parts[2])


def outcomes(gateway: str, agent: str | None = None) -> str:
    """Return the filter for the outcomes of one agent, or of all."""
    return f"{token(gateway)}.outcomes.{'*' if agent is None else token(agent)}.*"


def session(gateway: str, agent: str) -> str:
    """Return the subject of an agent's heartbeats and session requests."""
    return f"{token(gateway)}.sessions.{token(agent)}"


def sessions(gateway: str) -> str:
    """Return the filter for all sessions of a gateway."""
    return f"{token(gateway)}.sessions.*"


def lease(gateway: str, agent: str) -> str:
    """Return the subject on which an agent asks for leases."""
    return f"{token(gateway)}.leases.{token(agent)}"


def leases(gateway: str) -> str:
    """Return the filter for all lease requests of a gateway."""
    return f"{token(gateway)}.leases.*"


def inference(gateway: str, agent: str) -> str:
    """Return the subject on which an agent asks the gateway's language model."""
    return f"{token(gateway)}.inference.{token(agent)}"


def inferences(gateway: str) -> str:
    """Return the filter for all questions to the language model of a gateway."""
    return f"{token(gateway)}.inference.*"


def guard(gateway: str) -> str:
    """Return the subject on which a gateway's guard says that it is there."""
    return f"{token(gateway)}.guard"


def guard_starts(gateway: str) -> str:
    """Return the subject of the records by which guards begin, and restores are noted: lease records of no device's."""
    return command(gateway, gateway, GUARD)


def act(gateway: str, to: str, sender: str) -> str:
    """Return the subject on which `sender` says something to `to`: an act of a protocol."""
    return f"{token(gateway)}.acts.{token(to)}.{token(sender)}"


def coordinator(gateway: str) -> str:
    """Return the subject on which a gateway's coordinator says that it is there."""
    return f"{token(gateway)}.coordinator"


def announcement(gateway: str, agent: str) -> str:
    """Return the subject on which an agent says that it is there, and what it can do."""
    return f"{token(gateway)}.roster.{token(agent)}"


def announcements(gateway: str) -> str:
    """Return the filter for what all agents of a gateway say of themselves."""
    return f"{token(gateway)}.roster.*"


def task_ledger(gateway: str, agent: str) -> str:
    """Return the subject on which an agent asks the ledger of tasks."""
    return f"{token(gateway)}.ledger.{token(agent)}"


def task_request(gateway: str, verb: str, sender: str) -> str:
    """Return the subject on which a task is asked for: `submit`, `get`, `list` or `cancel`."""
    return f"{token(gateway)}.task-requests.{verb}.{token(sender)}"


def conflict(gateway: str, agent: str) -> str:
    """Return the subject on which an agent asks the coordinator to settle a conflict."""
    return f"{token(gateway)}.conflicts.{token(agent)}"


def task_record(gateway: str, task: str) -> str:
    """Return the subject in the stream `tasks` whose newest message says where a task stands."""
    return f"{token(gateway)}.tasks.{token(task)}"


def task_records(gateway: str) -> str:
    """Return the filter for the records of all tasks: what the stream `tasks` captures."""
    return f"{token(gateway)}.tasks.*"


def coordinator_hears(gateway: str) -> tuple[str, ...]:
    """Return the filters for all that agents and others say to a coordinator."""
    g = token(gateway)
    words = (f"acts.{COORDINATOR}.*", "roster.*", "ledger.*", "task-requests.*.*", "conflicts.*")
    return tuple(f"{g}.{word}" for word in words)


def speaker(subject: str) -> str:
    """Return who said something to the coordinator: the last token of the subject, never a word in the body.

    Raises:
        InvalidInputError: it is no such subject.
    """
    parts = subject.split(".")
    if len(parts) < 3 or parts[1] not in ("acts", "roster", "ledger", "task-requests", "conflicts"):
        raise InvalidInputError(f"{subject!r} is nothing that is said to a coordinator")
    return name_of(parts[-1])


# --- agents that lead tasks while no coordinator is there ----------------------------------------

PeerFamily = Literal["peer-acts", "peer-answers", "peer-ledger", "peer-ledger-told"]


def peer(gateway: str, family: PeerFamily, to: str | None, sender: str | None) -> str:
    """Return the subject on which one agent of a gateway speaks to another about a task that one of them leads.

    Args:
        gateway: theirs.
        family: `peer-acts` and `peer-ledger-told` are the leader's words, `peer-answers` and `peer-ledger` those of
            whom it asks. Only agents whose owner lets them lead may write the leader's.
        to: who is spoken to; None: any.
        sender: who speaks; None: any.
    """
    return ".".join((token(gateway), family, *("*" if part is None else token(part) for part in (to, sender))))


def peer_task(gateway: str, leader: str, verb: str | None, sender: str | None) -> str:
    """Return the subject on which an agent is asked to lead a task: `submit`, `get`, `list`, `cancel`; None: any."""
    parts = ("*" if verb is None else verb, "*" if sender is None else token(sender))
    return ".".join((token(gateway), "peer-tasks", token(leader), *parts))


def parse_peer(subject: str) -> tuple[str, str]:
    """Return (to, sender) of a subject between agents, or on which an agent is asked to lead.

    Raises:
        InvalidInputError: it is no such subject.
    """
    parts = subject.split(".")
    if len(parts) != {"peer-tasks": 5}.get(parts[1] if len(parts) > 1 else "", 4) or not parts[1].startswith("peer-"):
        raise InvalidInputError(f"{subject!r} is nothing that agents of one gateway say to each other")
    return name_of(parts[2]), name_of(parts[-1])


def consent_request(gateway: str, agent: str) -> str:
    """Return the subject on which the guard asks an agent whether it consents to another one's command."""
    return f"{token(gateway)}.consent-requests.{token(agent)}"


def consent(gateway: str, agent: str) -> str:
    """Return the subject on which an agent, and nobody else, says whether it consents."""
    return f"{token(gateway)}.consents.{token(agent)}"


def consents(gateway: str) -> str:
    """Return the filter for what all agents of a gateway say on others' commands."""
    return f"{token(gateway)}.consents.*"


def sender(subject: str) -> str:
    """Return whose a session, lease, consent or inference subject is: a token of it, never a word in the body.

    Raises:
        InvalidInputError: it is not one.
    """
    parts = subject.split(".")
    if len(parts) != 3 or parts[1] not in ("sessions", "leases", "consents", "inference"):
        raise InvalidInputError(f"{subject!r} is no session, lease, consent or inference subject")
    return name_of(parts[2])


def audit(gateway: str, writer: str, incarnation: str) -> str:
    """Return the subject of one audit chain: one writer, one incarnation."""
    return f"{token(gateway)}.audit.{token(writer)}.{token(incarnation)}"


def audits(gateway: str) -> str:
    """Return the filter for every audit chain of a gateway."""
    return f"{token(gateway)}.audit.*.*"


def writer(subject: str) -> str:
    """Return whose a message of the streams `commands` and `audit` is; an outcome counts as its agent's.

    Raises:
        InvalidInputError: a subject of neither.
    """
    parts = subject.split(".")
    place = {"commands": 3, "outcomes": 2, "audit": 2}.get(parts[1] if len(parts) == 4 else "")
    if place is None:
        raise InvalidInputError(f"{subject!r} is no command, outcome or audit record")
    return name_of(parts[place])


def filters_of_writer(gateway: str, stream: str, name: str) -> list[str]:
    """Return the filters for all that one writer has in the stream `commands`, outcomes included, or `audit`."""
    if stream == COMMANDS_STREAM:
        return [own_commands(gateway, name), outcomes(gateway, name)]
    return [f"{token(gateway)}.audit.{token(name)}.*"]


def of_writers(gateway: str, stream: str, names: Iterable[str]) -> list[str]:
    """Return what the stream `commands` or `audit` captures when it takes messages of these writers alone."""
    if stream == COMMANDS_STREAM:
        return [*(own_commands(gateway, name) for name in sorted(names)), outcomes(gateway)]
    return [filters_of_writer(gateway, stream, name)[0] for name in sorted(names)]


def trigger(gateway: str, agent: str) -> str:
    """Return the subject that stores what reached an agent by HTTP before it acts on it."""
    return f"{token(gateway)}.triggers.{token(agent)}"


def ask(gateway: str, agent: str) -> str:
    """Return the subject on which an agent takes what people say, and answers."""
    return f"{token(gateway)}.ask.{token(agent)}"


def dead_letter(gateway: str, service: str) -> str:
    """Return the subject on which `service` sets aside what it could not decode."""
    return f"{token(gateway)}.dead-letters.{token(service)}"


def agent_durable(agent: str) -> str:
    """Return the durable consumer name of an agent on the events stream."""
    return f"agent-{token(agent)}"


def lease_key(device: str, resource: str) -> str:
    """Return the KV key of one device resource's lease."""
    return f"{token(device)}.{token(resource)}"


def asked(verb: MicroVerb, service: str = "", instance: str = "") -> str:
    """Return the subject on which a NATS micro service is asked: all of them, those of one name, or one instance."""
    rest = [part if part == "*" else token(part) for part in (service, instance) if part]
    return ".".join((MICRO, verb, *rest))


def asked_on(service: str) -> tuple[str, ...]:
    """Return the filters on which a NATS micro service hears questions: to all, to its name, to one of its instances.

    Args:
        service: its key in EdgeX, which is its name here.
    """
    return tuple(asked(verb, *rest) for verb in MICRO_VERBS for rest in ((), (service,), (service, "*")))


# --- between gateways: the receiving gateway's name first, then who speaks, its gateway first -----


def between(gateway: str, family: str, to: str | None, peer: str, sender: str | None) -> str:
    """Return the subject on which `sender` of the gateway `peer` speaks to `to` of `gateway`; None stands for any.

    Args:
        gateway: the one spoken to.
        family: `acts` or `tasks`.
        to: an agent or service there.
        peer: the speaker's gateway: its link carries no other name in this place.
        sender: who speaks.
    """
    return ".".join("*" if part is None else token(part) for part in (gateway, family, to, peer, sender))


def parse_between(subject: str) -> tuple[str, str, str, str, str]:
    """Return (gateway, family, to, peer, sender) of a subject between gateways.

    Raises:
        InvalidInputError: it is not one.
    """
    parts = subject.split(".")
    if len(parts) != 5 or parts[1] not in ("acts", "tasks"):
        raise InvalidInputError(f"{subject!r} is no subject between gateways")
    gateway, family, to, peer, sender = (name_of(part) for part in parts)
    return gateway, family, to, peer, sender


def presence(gateway: str, name: str | None = None) -> str:
    """Return the subject on which one of a gateway's own says to its peers that it is there; None: all of them."""
    return f"{token(gateway)}.roster.{'*' if name is None else token(name)}"


def said_to(gateway: str, peer: str, families: Iterable[str]) -> list[str]:
    """Return the filters of all that the gateway `peer` may say to `gateway`, and of what it says of itself."""
    return [presence(peer) if family == "roster" else between(gateway, family, None, peer, None) for family in families]


def mirror_delivery(gateway: str, peer: str, stream: str) -> str:
    """Return the subject on which the messages of a gateway's stream go to the peer that keeps a copy."""
    return f"{token(gateway)}.mirrors.{token(peer)}.{token(stream)}"


def mirror_consumer(gateway: str, peer: str) -> str:
    """Return the name of the durable consumer that feeds a peer's copy of a gateway's stream."""
    return f"mirror-{token(gateway)}-{token(peer)}"


def mirror_stream(stream: str, gateway: str) -> str:
    """Return the name of the stream in which a peer keeps the copy of a gateway's stream."""
    return f"{token(stream)}-{token(gateway)}"


def stream_subjects(gateway: str, base: str = "edgex", bus: EdgexBusType = "mqtt") -> dict[str, list[str]]:
    """Return which subjects each stream of a gateway captures; no two overlap.

    Where EdgeX itself runs on JetStream its own stream captures them already: see `stream_sources`.
    """
    g = token(gateway)
    return {
        EVENTS_STREAM: [] if bus == "nats-jetstream" else _event_subjects(base, bus),
        COMMANDS_STREAM: [f"{g}.commands.*.*", f"{g}.outcomes.*.*"],
        AUDIT_STREAM: [f"{g}.audit.*.*"],
        TRIGGERS_STREAM: [f"{g}.triggers.*"],
        DEAD_LETTERS_STREAM: [f"{g}.dead-letters.*"],
    }


def stream_sources(base: str = "edgex", bus: EdgexBusType = "mqtt") -> dict[str, dict[str, list[str]]]:
    """Return which streams are fed from which others, by what subjects: ours from EdgeX's, where it has one."""
    return {EVENTS_STREAM: {edgex_stream(base): _event_subjects(base, bus)}} if bus == "nats-jetstream" else {}


def edgex_stream(base: str = "edgex") -> str:
    """Return the name of the stream in which an EdgeX on JetStream keeps everything below its base."""
    return topic_to_subject(base, "nats-jetstream").replace(".", "_")


def _event_subjects(base: str, bus: EdgexBusType) -> list[str]:
    return [topic_to_subject(f"{base}/{topic}", bus) for topic in ("events/device/#", "rules/agents")]


# --- EdgeX's: topics and the subjects that carry them --------------------------------------------


def topic_to_subject(topic: str, bus: EdgexBusType = "mqtt") -> str:
    """Return the NATS subject that carries an EdgeX topic or topic filter.

    Args:
        topic: levels parted by `/`; a level `+` and a last level `#` are wildcards.
        bus: what EdgeX itself speaks (`mqtt`: nats-server's MQTT listener maps).

    Raises:
        InvalidInputError: the topic holds what no subject can: a blank, an empty level, a misplaced wildcard; or it
            is too long.
    """
    if len(topic) * 4 > MAX_TOPIC_BYTES and len(topic.replace(".", "//").encode()) > MAX_TOPIC_BYTES:
        raise InvalidInputError(f"topic {topic[:80]!r}… is longer than the {MAX_TOPIC_BYTES} bytes a subject may have")
    levels = topic.split("/")
    if _UNCARRIED.search(topic) or not all(levels) or any(level in ("*", ">") for level in levels):
        raise InvalidInputError(f"topic {topic!r} cannot be carried by NATS: no blanks, '*', '>' or empty levels")
    if any(("+" in level or "#" in level) and len(level) > 1 for level in levels) or "#" in levels[:-1]:
        raise InvalidInputError(f"topic {topic!r}: '+' must be a whole level and '#' the last one")
    if bus == "mqtt":
        return ".".join(_WILDCARDS.get(level, level.replace(".", "//")) for level in levels)
    if "*" in topic or ">" in topic or not all(topic.replace("/", ".").split(".")):
        raise InvalidInputError(f"topic {topic!r} cannot be carried by {bus}: no '*', '>', or dots beside a '/'")
    return topic.replace("/", ".").replace("+", "*").replace("#", ">")


def topic_level(name: str, bus: EdgexBusType = "mqtt") -> str:
    """Return a name as one level of a topic; what a level cannot hold is percent-encoded.

    Receivers decode names, so only blanks and the characters that part levels or stand for many are encoded; on an
    EdgeX that speaks NATS a dot parts levels too.
    """
    level = "".join(quote(letter, safe="") if letter in "/+#*>%" or letter.isspace() else letter for letter in name)
    return level if bus == "mqtt" else level.replace(".", "%2E")


@lru_cache(maxsize=4096)  # asked for each event, and a gateway has few topics
def subject_to_topic(subject: str, bus: EdgexBusType = "mqtt") -> str:
    """Return the EdgeX topic that a subject carries; the inverse of `topic_to_subject`.

    With EdgeX on NATS a dot within a level comes back as `/`, as it does for EdgeX itself.
    """
    if bus == "mqtt":
        # The listener writes an empty level as "/".
        parts = ("" if part == "/" else _TOPIC_WILDCARDS.get(part, part) for part in subject.split("."))
        return "/".join(part.replace("//", ".") for part in parts)
    return subject.replace(".", "/").replace("*", "+").replace(">", "#")
