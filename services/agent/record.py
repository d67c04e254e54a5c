"""An agent's audit records: what it started with, and each decision with all it rests on, so that it replays.

Bodies stay below the audit's bound: an agent file that is too long is deflated, a view that is too large is left out
and said to be.

Source: design.md section 3.9.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from pydantic import ValidationError

from edgeagents import __version__
from edgeagents.audit import MAX_BODY_BYTES
from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import AgentDefinition, Asked, Decision, Intent, Observation, Stage
from edgeagents.model.message import Cause, Mode
from services.agent.commands import Given
from services.agent.decision import described
from services.agent.view import FrozenView, SeenView, described_samples, plain_values, samples_of, values_of

MAX_FILE_CHARS: Final = MAX_BODY_BYTES // 4
MAX_VIEW_BYTES: Final = MAX_BODY_BYTES * 3 // 4
MAX_INFLATED_BYTES: Final = 16 << 20
MAX_SAID_CHARS: Final = 2_000


def started_body(agent: AgentDefinition) -> dict[str, Any]:
    """Return the body of the record an agent begins with: its file and the version that reads it.

    The file is kept as JSON text: bodies have their names in order, but in a file the order of names has a meaning.
    """
    text = json.dumps(agent.model_dump(mode="json"), separators=(",", ":"))
    file = {"file": text}
    if len(text) > MAX_FILE_CHARS:
        file = {"file_deflated": base64.b64encode(zlib.compress(text.encode(), 9)).decode()}
    return {"agent": agent.name, "version": __version__, "mode": agent.mode, "rules": len(agent.rules), **file}


def decision_body(
    agent: str,
    mode: Mode,
    observation: Observation,
    decision: Decision,
    given: Sequence[Given],
    stages: Sequence[str],
    seen: SeenView,
) -> dict[str, Any]:
    """Return the body of a decision's record.

    Args:
        agent: who decided.
        mode: whether it may act on it.
        observation: on what.
        decision: the answer.
        given: what became of its intents.
        stages: which stages were asked, by name, in order.
        seen: all they looked at.
    """
    return {
        "agent": agent,
        "mode": mode,
        "cause": observation.cause.model_dump(),
        "device": observation.device,
        "changed": _bounded(described_samples(observation.changed)),
        "site_s": observation.site_s,
        "stages": list(stages),
        "view": _bounded(seen.described()),
        "given": [
            {
                "device": item.intent.device,
                "resource": item.intent.resource,
                "command": item.command_id,
                "held_back": item.held_back,
                **_instead(item, decision),
            }
            for item in given
        ],
        **described(decision),
        **({"asked": described_asked(observation.asked)} if observation.asked is not None else {}),
    }


def _instead(given: Given, decision: Decision) -> dict[str, Any]:
    """Return what was given instead of a wish, as settled with others, and why; nothing where it is the wish."""
    return {} if given.intent in decision.intents else {"value": given.intent.value, "because": given.intent.because}


def described_asked(asked: Asked) -> dict[str, Any]:
    """Return what was understood as the audit keeps it: with it a decision replays without templates or a model."""
    return {
        "id": asked.id, "text": asked.text[:MAX_SAID_CHARS], "stage": asked.stage, "confidence": asked.confidence,
        "inputs": plain_values(asked.inputs), "model": asked.model_hash,
        "intents": [[item.device, item.resource, item.value, item.because, item.rule] for item in asked.intents],
    }  # fmt: skip


def asked_of(body: Mapping[str, Any]) -> Asked:
    """Return what `described_asked` wrote.

    Raises:
        InvalidInputError: it is something else.
    """
    try:
        intents = tuple(
            Intent(str(device), str(resource), value, str(because), str(rule))
            for device, resource, value, because, rule in body["intents"]
        )
        stage = body["stage"]
        if stage not in get_args(Stage):
            raise ValueError(f"stage {stage!r}")
        return Asked(
            str(body["id"]), str(body["text"]), stage, intents, float(body["confidence"]),
            values_of(body["inputs"]), str(body["model"]),
        )  # fmt: skip
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(f"what was asked cannot be read: {error}") from error


def _bounded(view: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(view, separators=(",", ":")).encode()
    if len(data) <= MAX_VIEW_BYTES:
        return view
    return {"left_out_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def definition_of(body: Mapping[str, Any]) -> AgentDefinition:
    """Return the agent file that a `started` record carries.

    Raises:
        InvalidInputError: it carries none that can be read.
    """
    try:
        text = body["file"] if "file" in body else _inflated(body["file_deflated"])
        return AgentDefinition.model_validate(json.loads(text))
    except (KeyError, TypeError, ValueError, zlib.error, ValidationError, RecursionError) as error:
        raise InvalidInputError(f"the agent file in its `started` record cannot be read: {error}") from error


def _inflated(text: str) -> bytes:
    inflate = zlib.decompressobj()
    data = inflate.decompress(base64.b64decode(text), MAX_INFLATED_BYTES)
    if inflate.unconsumed_tail:
        raise ValueError(f"it inflates to more than {MAX_INFLATED_BYTES} bytes")
    return data


def observation_of(body: Mapping[str, Any]) -> tuple[Observation, FrozenView]:
    """Return what a decision's record says it was decided on.

    Raises:
        InvalidInputError: the record does not carry it, or it cannot be read.
    """
    view, changed = body.get("view"), body.get("changed")
    if not isinstance(view, dict) or not isinstance(changed, dict):
        raise InvalidInputError("the record carries no view: it was written before views were kept")
    if "left_out_bytes" in view or "left_out_bytes" in changed:
        raise InvalidInputError("the record carries no view: it was too large to be kept")
    try:
        cause, site_s = Cause.model_validate(body["cause"]), float(body["site_s"])
        asked = asked_of(body["asked"]) if "asked" in body else None
        return Observation(cause, str(body["device"]), samples_of(changed), site_s, asked), FrozenView(view)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(f"the record cannot be read: {error}") from error
