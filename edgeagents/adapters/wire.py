"""Bytes <-> messages: protobuf, or JSON when the content type says so. The only module that imports `pb`.

Leaves out signatures and encryption on purpose: NATS users and TLS fence the transport.

Source: proto/edgeagents/v1, proto3 JSON mapping.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as PbMessage
from pydantic import ValidationError

from edgeagents.adapters.bus import CONTENT_TYPE
from edgeagents.errors import MalformedMessageError
from edgeagents.model import cooperation
from edgeagents.model import message as model
from edgeagents.pb import audit_pb2, cooperation_pb2, guard_pb2

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
AS_PROTOBUF: Final[Mapping[str, str]] = {CONTENT_TYPE: PROTOBUF}  # headers
MAX_MESSAGE_BYTES: Final = 262_144

PB_CLASSES: Final[dict[type[model.Message], Callable[..., PbMessage]]] = {
    model.Epoch: guard_pb2.Epoch,
    model.Cause: guard_pb2.Cause,
    model.Heartbeat: guard_pb2.Heartbeat,
    model.SiteEntry: guard_pb2.SiteEntry,
    model.Paused: guard_pb2.Paused,
    model.SessionWelcome: guard_pb2.SessionWelcome,
    model.LeaseRequest: guard_pb2.LeaseRequest,
    model.Barred: guard_pb2.Barred,
    model.Locked: guard_pb2.Locked,
    model.LeaseReply: guard_pb2.LeaseReply,
    model.LeaseRecord: guard_pb2.LeaseRecord,
    model.Command: guard_pb2.Command,
    model.Outcome: guard_pb2.Outcome,
    model.AuditRecord: audit_pb2.AuditRecord,
    cooperation.Act: cooperation_pb2.Act,
    cooperation.CallForProposals: cooperation_pb2.CallForProposals,
    cooperation.Bid: cooperation_pb2.Bid,
    cooperation.Award: cooperation_pb2.Award,
    cooperation.Report: cooperation_pb2.Report,
    cooperation.Bundle: cooperation_pb2.Bundle,
    cooperation.Inquiry: cooperation_pb2.Inquiry,
    cooperation.BundleCost: cooperation_pb2.BundleCost,
    cooperation.Quote: cooperation_pb2.Quote,
    cooperation.Offer: cooperation_pb2.Offer,
    cooperation.Ballot: cooperation_pb2.Ballot,
    cooperation.Claim: cooperation_pb2.Claim,
    cooperation.PeerVote: cooperation_pb2.PeerVote,
    cooperation.Claims: cooperation_pb2.Claims,
    cooperation.Param: cooperation_pb2.Param,
    cooperation.Announcement: cooperation_pb2.Announcement,
    cooperation.LedgerAsk: cooperation_pb2.LedgerAsk,
    cooperation.LedgerTold: cooperation_pb2.LedgerTold,
    cooperation.Dispute: cooperation_pb2.Dispute,
    cooperation.DisputeTold: cooperation_pb2.DisputeTold,
    cooperation.Worth: cooperation_pb2.Worth,
    cooperation.Appraisal: cooperation_pb2.Appraisal,
    cooperation.Settlement: cooperation_pb2.Settlement,
}
M = TypeVar("M", bound=model.Message)


def answers_in(content_type: str) -> str:
    """Return what whoever writes in a content type is answered in: JSON to JSON, protobuf to all else."""
    return JSON if content_type.partition(";")[0].strip().lower() == JSON else PROTOBUF


class Encodings:
    """In which encoding each agent is written to: in that of what it said last, protobuf until then."""

    def __init__(self, most: int) -> None:
        """Remember so many that read JSON."""
        self._most = most
        self._json: set[str] = set()

    def heard(self, agent: str, content_type: str) -> None:
        """Note in which encoding an agent has spoken."""
        if content_type != JSON:
            self._json.discard(agent)
        elif len(self._json) < self._most:
            self._json.add(agent)

    def of(self, agent: str) -> str:
        """Return the content type in which an agent is written to."""
        return JSON if agent in self._json else PROTOBUF


def encode(message: model.Message, content_type: str = PROTOBUF) -> bytes:
    """Return a message as protobuf, or as JSON for `application/json`."""
    pb = PB_CLASSES[type(message)](**message.model_dump(exclude_none=True))
    if answers_in(content_type) == JSON:
        return json_format.MessageToJson(pb, preserving_proto_field_name=True, indent=None).encode()
    return pb.SerializeToString()


def decode(kind: type[M], data: bytes, content_type: str = PROTOBUF) -> M:
    """Return the message that bytes stand for.

    Raises:
        MalformedMessageError: too large, not of that encoding, or outside the contract's bounds. An act that says it
            needs a newer reader may be outside them: it comes without its content.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise MalformedMessageError(f"{kind.__name__} of {len(data)} bytes: at most {MAX_MESSAGE_BYTES}", "too-large")
    pb = PB_CLASSES[kind]()
    try:
        if answers_in(content_type) == JSON:
            json_format.Parse(data, pb, ignore_unknown_fields=True, max_recursion_depth=32)
        else:
            pb.ParseFromString(data)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedMessageError(f"not a {kind.__name__} in {content_type}: {error}", "not-decodable") from error
    try:
        return kind.model_validate(_plain(pb))
    except ValidationError as error:
        newer = _newer_act(pb)
        if isinstance(newer, kind):
            return newer
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MalformedMessageError(f"{kind.__name__}.{where}: {first['msg']}", "out-of-contract") from error


def _newer_act(pb: PbMessage) -> cooperation.Act | None:
    """Return an act that needs a newer reader without what it is about: enough to be answered that it does."""
    if not isinstance(pb, cooperation_pb2.Act) or pb.needs <= cooperation.VERSION:
        return None
    performative = pb.performative if pb.performative in cooperation.PERFORMATIVES else "newer"
    try:
        return cooperation.Act(
            version=pb.version, needs=pb.needs, performative=performative, conversation=pb.conversation
        )
    except ValidationError:
        return None


def _plain(pb: PbMessage) -> dict[str, Any]:
    """Return set fields by name; proto3's defaults for plain scalars, absence for messages and optionals."""
    result: dict[str, Any] = {}
    for field in pb.DESCRIPTOR.fields:
        value = getattr(pb, field.name)
        if field.is_repeated:
            result[field.name] = [_plain(item) if field.message_type else item for item in value]
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            if pb.HasField(field.name):
                result[field.name] = _plain(value)
        elif not field.has_presence or pb.HasField(field.name):
            result[field.name] = value
    return result
