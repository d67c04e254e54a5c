"""What each NATS user may publish and subscribe: the fence that makes the sender of a message certain.

Lists of what is allowed; all else is denied by the server. Agents have no way to EdgeX's commands, to other agents'
subjects or to streams as a whole. Neither may they get messages directly (`$JS.API.DIRECT.GET`): the server sends
the answer, whose bytes an agent has chosen, to whatever reply subject it is given, `edgex.core.command.…` included,
and asks no permission for that. A consumer, too, may have its messages delivered to any subject. They keep the one they
were stored under, and so does a stream that takes them in; whoever subscribes has to look at it, as `Bus.subscribe`
does for all of ours.

Who asks an agent what it is (`$SRV`) has the answer sent below `MICRO_INBOX`, where every agent may publish and nobody
hears but who asked. The server's `allow_responses` would let it answer anywhere, but also publish wherever a reply
subject points that somebody else put into a message, whatever is denied: an EdgeX service and an agent of one mind
could then write in the guard's name.

Source: design.md section 2; NATS authorization; JetStream wire API (ADR-8).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edgeagents.subjects import (
    AUDIT_STREAM,
    COMMANDS_STREAM,
    COORDINATOR,
    EVENTS_STREAM,
    PREFIXES_BUCKET,
    TASKS_STREAM,
    TRIGGERS_STREAM,
    agent_durable,
    announcements,
    asked_on,
    between,
    coordinator_hears,
    peer,
    peer_task,
    token,
)

INFERENCE_USER: Final = "inference"
# Services that reach EdgeX by the guard's door, as agents do, and are none: NATS user -> EdgeX service key.
BEHIND_DOOR: Final = {COORDINATOR: f"app-{COORDINATOR}", INFERENCE_USER: f"app-{INFERENCE_USER}"}
STANDBY_KEY: Final = f"app-{COORDINATOR}-standby"  # the service key of a second coordinator: EDGEX_SERVICE_KEY
MICRO_INBOX: Final = "_INBOX.micro"  # where questions to micro services have their answers sent
NEVER_FOR_AGENTS: Final = ("edgex.core.command.>", "edgex.device.command.>", "edgex.core.commandquery.>")

# Changes of the common configuration are for all; what it holds of passwords is not.
COMMON_SECRETS: Final = (
    "edgex.configs.edgex.v4.core-common-config-bootstrapper.*.Writable.InsecureSecrets",
    "edgex.configs.edgex.v4.core-common-config-bootstrapper.*.Writable.InsecureSecrets.>",
)


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects one user may publish on and subscribe to; what is denied wins over what is allowed."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    deny_publish: tuple[str, ...] = ()
    deny_subscribe: tuple[str, ...] = ()


def inbox(user: str) -> str:
    """Return the prefix of a user's reply subjects, which no other user can subscribe to."""
    return f"_INBOX.{user}"


def agent_user(agent: str) -> str:
    """Return the NATS user name of an agent."""
    return f"agent-{agent}"


def called(agent: str) -> str:
    """Return the subject on which the guard has an agent ask for its welcome again; nothing sent there counts."""
    return f"{inbox(agent_user(agent))}.called"


def for_everything() -> Permissions:
    """Return the permissions of the guard and of the owner's own tools."""
    return Permissions((">",), (">",))


def for_edgex(gateway: str, base: str = "edgex", services: Iterable[str] = ()) -> Permissions:
    """Return the permissions of EdgeX's own services: everything below their base, and their dead letters.

    Args:
        gateway: its name.
        base: `MessageBus.BaseTopicPrefix`.
        services: keys of those that answer as NATS micro services.
    """
    name = token(gateway)
    publish = (f"{base}.>", "edgex.configs.>", f"{name}.dead-letters.*", "_INBOX.>")
    asked = {subject: None for key in services for subject in asked_on(key)}
    # The base itself, too: MQTT's `edgex/#` means it, and nats-server refuses a filter of which it refuses a part.
    hears = (base, f"{base}.>", "edgex.configs", "edgex.configs.>", f"{inbox('edgex')}.>", *asked)
    return Permissions(publish, hears)


def for_agent(
    gateway: str, agent: str, base: str = "edgex", peers: Iterable[str] = (), *, leads: bool = False
) -> Permissions:
    """Return the permissions of one agent: its own tokens only.

    Args:
        gateway: its name.
        agent: the agent's.
        base: `MessageBus.BaseTopicPrefix`.
        peers: names of the gateways that it may speak with.
        leads: whether its owner lets it lead tasks while no coordinator is there.
    """
    linked = list(peers)
    g, name, durable = token(gateway), token(agent), agent_durable(agent)
    key = f"app-agent-{agent}"
    publish = [
        f"{g}.sessions.{name}",
        f"{g}.leases.{name}",
        f"{g}.consents.{name}",
        f"{g}.inference.{name}",
        f"{g}.commands.*.{name}",
        f"{g}.audit.{name}.*",
        f"{g}.triggers.{name}",
        f"{g}.acts.{COORDINATOR}.{name}",
        f"{g}.roster.{name}",
        f"{g}.ledger.{name}",
        f"{g}.task-requests.*.{name}",
        f"{g}.conflicts.{name}",
        peer(gateway, "peer-answers", None, agent),
        peer(gateway, "peer-ledger", None, agent),
        f"{g}.dead-letters.{key}",
        f"{base}.telemetry.{key}.>",
        f"{MICRO_INBOX}.>",
        *_consumer(EVENTS_STREAM, durable),
        *_consumer(EVENTS_STREAM, f"{durable}_replay"),
        *_consumer(TRIGGERS_STREAM, durable, f"{g}.triggers.{name}"),
        *_consumer(COMMANDS_STREAM, durable, f"{g}.outcomes.{name}.*"),
        *_consumer(COMMANDS_STREAM, f"{durable}_last", f"{g}.commands.*.{name}"),
        *_consumer(AUDIT_STREAM, f"audit-{name}", f"{g}.audit.{name}.*"),
        *(between(linked_one, family, None, gateway, agent) for linked_one in linked for family in ("acts", "tasks")),
    ]
    subscribe = [
        f"{inbox(agent_user(agent))}.>",
        f"{g}.ask.{name}",
        f"edgex.configs.edgex.v4.{key}",
        f"edgex.configs.edgex.v4.{key}.>",
        "edgex.configs.edgex.v4.core-common-config-bootstrapper.>",
        f"{base}.system-events.>",
        f"{g}.consent-requests.{name}",
        f"{g}.acts.{name}.{COORDINATOR}",
        f"{g}.coordinator",
        peer(gateway, "peer-acts", agent, None),
        peer(gateway, "peer-ledger-told", agent, None),
        *asked_on(key),
        *(between(gateway, family, agent, linked_one, None) for linked_one in linked for family in ("acts", "tasks")),
    ]
    says, hears = _leading(gateway, agent) if leads else ([], [])
    return Permissions((*publish, *says), (*subscribe, *hears), NEVER_FOR_AGENTS, COMMON_SECRETS)


def _leading(gateway: str, agent: str) -> tuple[list[str], list[str]]:
    """Return what an agent that may lead publishes and hears beyond all others: a leader's words, in its own name."""
    says = [peer(gateway, "peer-acts", None, agent), peer(gateway, "peer-ledger-told", None, agent)]
    hears = [
        peer(gateway, "peer-answers", agent, None),
        peer(gateway, "peer-ledger", agent, None),
        peer_task(gateway, agent, None, None),
        announcements(gateway),  # who is there, with which skills
    ]
    return says, hears


def for_coordinator(gateway: str, base: str = "edgex") -> Permissions:
    """Return the permissions of a coordinator: it leads and keeps the ledger of tasks, and commands nothing."""
    g, keys = token(gateway), (f"app-{COORDINATOR}", STANDBY_KEY)
    publish = [
        f"{g}.acts.*.{COORDINATOR}",
        f"{g}.{COORDINATOR}",
        f"{g}.tasks.*",
        f"{g}.leases.{COORDINATOR}",  # who holds what: the guard grants this name nothing
        f"{g}.audit.{COORDINATOR}.*",
        *(f"{g}.dead-letters.{key}" for key in keys),
        *(f"{base}.telemetry.{key}.>" for key in keys),
        "_INBOX.>",
        # Never to create or update it: `republish` and `sources` of a stream reach subjects that no permission guards.
        f"$JS.API.STREAM.INFO.{TASKS_STREAM}",
        f"$JS.API.STREAM.PURGE.{TASKS_STREAM}",
        *_consumer(TASKS_STREAM, "coordinator"),
        *_consumer(AUDIT_STREAM, f"audit-{COORDINATOR}", f"{g}.audit.{COORDINATOR}.*"),
    ]
    subscribe = [
        f"{inbox(COORDINATOR)}.>",
        *(f"edgex.configs.edgex.v4.{key}{rest}" for key in keys for rest in ("", ".>")),
        "edgex.configs.edgex.v4.core-common-config-bootstrapper.>",
        f"{base}.system-events.>",
        f"{g}.{COORDINATOR}",  # whether another one is there
        *coordinator_hears(gateway),
        *(subject for key in keys for subject in asked_on(key)),
    ]
    return Permissions(tuple(publish), tuple(subscribe), NEVER_FOR_AGENTS, COMMON_SECRETS)


def for_inference(gateway: str, base: str = "edgex") -> Permissions:
    """Return the permissions of the language model's service: it answers to inboxes alone, and keeps beginnings."""
    g, key = token(gateway), "app-inference"
    publish = (
        f"{g}.dead-letters.{key}", f"{base}.telemetry.{key}.>", "_INBOX.>", *_bucket(PREFIXES_BUCKET),
    )  # fmt: skip
    subscribe = (
        f"{g}.inference.*",
        f"{inbox(INFERENCE_USER)}.>",
        f"edgex.configs.edgex.v4.{key}",
        f"edgex.configs.edgex.v4.{key}.>",
        "edgex.configs.edgex.v4.core-common-config-bootstrapper.>",
        f"{base}.system-events.>",
        *asked_on(key),
    )
    return Permissions(publish, subscribe, NEVER_FOR_AGENTS, COMMON_SECRETS)


def _bucket(name: str) -> list[str]:
    """Return what it takes to read and write one bucket of the object store, made by somebody else; no consumer."""
    stream = f"OBJ_{name}"
    return [
        f"$O.{name}.C.*",
        f"$O.{name}.M.*",
        *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("INFO", "MSG.GET", "PURGE")),
    ]


def _consumer(stream: str, name: str, only: str = "") -> list[str]:
    """Return what one consumer needs; `only` ties it to one filter subject."""
    create = f"$JS.API.CONSUMER.CREATE.{stream}.{name}"
    return [
        *([f"{create}.{only}"] if only else [create, f"{create}.>"]),
        f"$JS.API.CONSUMER.INFO.{stream}.{name}",
        f"$JS.API.CONSUMER.DELETE.{stream}.{name}",
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}",
        f"$JS.ACK.{stream}.{name}.>",
    ]
