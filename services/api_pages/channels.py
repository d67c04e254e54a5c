"""What is said on which NATS subject, by whom, and what is answered: one entry each, its address made by `subjects.py`.

Seen from whoever connects to a gateway: an agent, or a tool of the owner's. Source: design.md section 4.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from pydantic import BaseModel

from edgeagents import permissions, subjects
from edgeagents.adapters.task_pages import OneTask, TaskGiven, TaskList
from edgeagents.adapters.web_pages import ErrorBody
from edgeagents.model import cooperation, message
from edgeagents.model.completion import Completion, CompletionFailure, CompletionRequest
from edgeagents.model.task import TaskWanted
from services.agent.questions import Question
from services.agent.shown import AskAnswer

Raw: TypeAlias = Literal[
    "Empty", "Incarnation", "DeadLetter", "TaskRecord", "TaskId", "TaskFilter", "Trigger", "Copy", "MicroAnswer",
]  # fmt: skip
Said: TypeAlias = type[BaseModel] | Raw
Who: TypeAlias = Literal["agent", "owner", "guard", "coordinator", "services"]
_G, _AGENT, _DEVICE, _PEER = "GATEWAY", "AGENT", "DEVICE", "PEER"
# What `subjects.py` is asked with, and what stands in the page for it.
HOLES: Final = {
    "GATEWAY": ("gateway", "the owning gateway's name"),
    "AGENT": ("agent", "the agent's name; the sender's, where it sends"),
    "DEVICE": ("device", "a device's name"), "PEER": ("peer", "another gateway's name"),
    "WRITER": ("writer", "an agent or service"), "RUN": ("incarnation", "of the run that writes"),
    "TASK": ("task", "a task's id"), "SENDER": ("sender", "who asks"), "SERVICE": ("service", "a service's key"),
    "STREAM": ("stream", "a stream's name"),
}  # fmt: skip


ASKED: Final[Mapping[str, tuple[Said, type[BaseModel], str]]] = {
    "submit": (TaskWanted, TaskGiven, "Gives a task; answered once it is on disk."),
    "get": ("TaskId", OneTask, "Asks where a task stands."),
    "list": ("TaskFilter", TaskList, "Lists tasks, the newest first."),
    "cancel": ("TaskId", OneTask, "Ends a task; only who gave it, and `owner`, may."),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Channel:
    """One subject.

    Args:
        name: in the page.
        address: the subject, with names of `HOLES` in it.
        says: who sends.
        said: what.
        about: in a sentence or two.
        answers: what comes back to the sender's inbox; none: nothing does.
        stored: the stream that keeps it; empty: none does.
        is_json_alone: protobuf is not read here.
    """

    name: str
    address: str
    says: Who
    said: tuple[Said, ...]
    about: str
    answers: tuple[Said, ...] = ()
    stored: str = ""
    is_json_alone: bool = False

    @property
    def holes(self) -> list[str]:
        """The names in its address that stand for others."""
        return [word for word in HOLES if word in self.address]


def shown(address: str) -> str:
    """Return a subject with `{name}` where any name may stand."""
    for word, (name, _) in HOLES.items():
        address = address.replace(word, f"{{{name}}}")
    return address


def channels() -> list[Channel]:
    """Return all channels, those of an agent's life first."""
    return [*_commanding(), *_sharing_work(), *_leading(), *_language(), *_kept(), *_gateways()]


def _commanding() -> Iterator[Channel]:
    yield Channel(
        "sessions", subjects.session(_G, _AGENT), "agent", (message.Heartbeat,),
        "Opens a session, or keeps it alive: every 0.5 s; 2 s of silence end it and its leases. As a request it is "
        "answered with what the agent may command. How its commands ended is told in the encoding of its heartbeats.",
        (message.SessionWelcome,),
    )  # fmt: skip
    yield Channel(
        "called", permissions.called(_AGENT), "guard", ("Empty",),
        "What an agent may do has changed: it asks for its welcome again. Nothing in the message counts.",
    )  # fmt: skip
    yield Channel(
        "leases", subjects.lease(_G, _AGENT), "agent", (message.LeaseRequest,),
        "Asks for, or gives back, the right to command one resource. The coordinator is granted nothing: it is told "
        "who holds it, who may command nothing there, and which `options` interlocks forbid now.",
        (message.LeaseReply,),
    )  # fmt: skip
    yield Channel(
        "commands", subjects.command(_G, _DEVICE, _AGENT), "agent", (message.Command,),
        "Published to JetStream; the broker's acknowledgement means that it is on disk, not that it is carried out. "
        "The same id again changes nothing.", stored=subjects.COMMANDS_STREAM,
    )  # fmt: skip
    yield Channel(
        "leaseRecords", subjects.command(_G, _DEVICE, subjects.GUARD), "guard", (message.LeaseRecord,),
        "A change of holder, in order with the device's commands.", stored=subjects.COMMANDS_STREAM,
    )  # fmt: skip
    yield Channel(
        "outcomes", subjects.outcome(_G, _AGENT, _DEVICE), "guard", (message.Outcome,),
        "How each command ended, once; an agent reads them by its durable consumer `agent-{agent}`.",
        stored=subjects.COMMANDS_STREAM,
    )  # fmt: skip
    yield Channel(
        "guard", subjects.guard(_G), "guard", (message.Heartbeat,),
        "A guard that starts asks whether another one is there; if one answers, it ends.", (message.Heartbeat,),
    )  # fmt: skip


def _sharing_work() -> Iterator[Channel]:
    yield Channel(
        "coordinator", subjects.coordinator(_G), "coordinator", ("Incarnation",),
        "Twice a second; another incarnation is another run, to which agents announce themselves at once.",
    )  # fmt: skip
    yield Channel(
        "roster", subjects.announcement(_G, _AGENT), "agent", (cooperation.Announcement,),
        "Once a second: the agent is there, with these skills. Acts for it are written in the encoding of this.",
    )  # fmt: skip
    yield Channel(
        "actsToAgent", subjects.act(_G, _AGENT, subjects.COORDINATOR), "coordinator", (cooperation.Act,),
        "Calls for proposals, awards, cancels.",
    )  # fmt: skip
    yield Channel(
        "actsToCoordinator", subjects.act(_G, subjects.COORDINATOR, _AGENT), "agent", (cooperation.Act,),
        "Bids, refusals, reports.",
    )  # fmt: skip
    yield Channel(
        "ledger", subjects.task_ledger(_G, _AGENT), "agent", (cooperation.LedgerAsk,),
        "Takes what was awarded, closes what was done; what is answered is on disk.", (cooperation.LedgerTold,),
    )  # fmt: skip
    yield Channel(
        "conflicts", subjects.conflict(_G, _AGENT), "agent", (cooperation.Dispute,),
        "Asks for a conflict over a resource to be settled; how it ends comes as an act.", (cooperation.DisputeTold,),
    )  # fmt: skip
    yield Channel(
        "consentRequests", subjects.consent_request(_G, _AGENT), "guard", (cooperation.Act,),
        "Whether the agent consents to another one's command of class B: `propose`, again until it has answered.",
    )  # fmt: skip
    yield Channel(
        "consents", subjects.consent(_G, _AGENT), "agent", (cooperation.Act,),
        "`accept-proposal` or `reject-proposal` to what the guard asked, in the same conversation; protobuf.",
    )  # fmt: skip
    for verb, (said, told, about) in ASKED.items():
        yield Channel(
            f"task{verb.capitalize()}", subjects.task_request(_G, verb, "SENDER"), "owner", (said,), about,
            (told, ErrorBody), is_json_alone=True,
        )  # fmt: skip
    yield Channel(
        "taskRecords", subjects.task_record(_G, "TASK"), "coordinator", ("TaskRecord",),
        "The newest message says where a task stands. For the coordinator alone: others ask `get`.",
        stored=subjects.TASKS_STREAM, is_json_alone=True,
    )  # fmt: skip


def _leading() -> Iterator[Channel]:
    to_agent = "An agent that may lead (`leads: true` in its file) writes it, and nobody else can."
    yield Channel(
        "peerActs", subjects.peer(_G, "peer-acts", _AGENT, "SENDER"), "agent", (cooperation.Act,),
        f"Calls for proposals, awards, cancels of a task that an agent leads while no coordinator is there. {to_agent}",
    )  # fmt: skip
    yield Channel(
        "peerAnswers", subjects.peer(_G, "peer-answers", _AGENT, "SENDER"), "agent", (cooperation.Act,),
        "Bids, refusals, reports to the agent that leads.",
    )  # fmt: skip
    yield Channel(
        "peerLedger", subjects.peer(_G, "peer-ledger", _AGENT, "SENDER"), "agent", (cooperation.LedgerAsk,),
        "Takes what was awarded, closes what was done; answered on `peer-ledger-told`.",
    )  # fmt: skip
    yield Channel(
        "peerLedgerTold", subjects.peer(_G, "peer-ledger-told", _AGENT, "SENDER"), "agent", (cooperation.LedgerTold,),
        f"What the agent that leads has in its memory: no agent may write on another's inbox. {to_agent}",
    )  # fmt: skip
    for verb, (said, told, about) in ASKED.items():
        text = "Gives a task; refused while a coordinator is there." if verb == "submit" else about
        yield Channel(
            f"peerTask{verb.capitalize()}", subjects.peer_task(_G, _AGENT, verb, "SENDER"), "owner", (said,),
            f"At an agent that may lead. {text} The inbox must lie below `{permissions.MICRO_INBOX}`.",
            (told, ErrorBody), is_json_alone=True,
        )  # fmt: skip


def _language() -> Iterator[Channel]:
    yield Channel(
        "inference", subjects.inference(_G, _AGENT), "agent", (CompletionRequest,),
        "Asks the gateway's language model; answered in the agent's own inbox alone.", (Completion, CompletionFailure),
        is_json_alone=True,
    )  # fmt: skip
    yield Channel(
        "ask", subjects.ask(_G, _AGENT), "owner", (Question,),
        f"What a person says to an agent that answers; the inbox must lie below `{permissions.MICRO_INBOX}`.",
        (AskAnswer, ErrorBody), is_json_alone=True,
    )  # fmt: skip


def _kept() -> Iterator[Channel]:
    yield Channel(
        "audit", subjects.audit(_G, "WRITER", "RUN"), "services", (message.AuditRecord,),
        "Hash-chained: why each decision was made, how each command ended (docs/audit.md).",
        stored=subjects.AUDIT_STREAM,
    )  # fmt: skip
    yield Channel(
        "triggers", subjects.trigger(_G, _AGENT), "agent", ("Trigger",),
        "What reached an agent over HTTP, from people or from a model, before it acts on it.",
        stored=subjects.TRIGGERS_STREAM, is_json_alone=True,
    )  # fmt: skip
    yield Channel(
        "deadLetters", subjects.dead_letter(_G, "SERVICE"), "services", ("DeadLetter",),
        "What could not be decoded, with its cause.", stored=subjects.DEAD_LETTERS_STREAM,
    )  # fmt: skip
    for verb in subjects.MICRO_VERBS:
        yield Channel(
            f"micro{verb.capitalize()}", subjects.asked(verb, "SERVICE"), "owner", ("Empty",),
            "NATS's service API (ADR-32), so `nats micro ls` shows the gateway's services.", ("MicroAnswer",),
            is_json_alone=True,
        )  # fmt: skip


def _gateways() -> Iterator[Channel]:
    for family in ("acts", "tasks"):
        yield Channel(
            f"{family}BetweenGateways", subjects.between(_G, family, _AGENT, _PEER, "SENDER"), "agent",
            (cooperation.Act,),
            "From another gateway, over a leaf link; what does not say when it was sent is not acted on.",
        )  # fmt: skip
    yield Channel(
        "mirrors", subjects.mirror_delivery(_G, _PEER, "STREAM"), "guard", ("Copy",),
        "A stream's messages, on their way to a peer that keeps a copy.",
    )  # fmt: skip
