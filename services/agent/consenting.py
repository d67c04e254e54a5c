"""What an agent says when the guard asks whether it consents to another one's class B command.

It consents unless there is a reason not to: the value is none that its own owner lets it set there; it has a command
for another value under way; or its rules want another value now. What is not known counts in the unsafe direction: an
agent that knows no such device, that has neither a permission nor a rule for the resource, whose rules for it fail, or
have not read yet what they look at, does not consent. No model is asked. What it said, and why, is in its audit.

Source: design.md section 3.6; docs/owner.md.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, BusMessage
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.audit import Audit
from edgeagents.errors import InvalidInputError, MalformedMessageError, UnavailableError
from edgeagents.model.agent import AgentDefinition, Permission, Recent
from edgeagents.model.cooperation import VERSION, Act, CallForProposals
from edgeagents.model.device import Device
from edgeagents.model.values import Value, parse_value, same_value
from edgeagents.protocol.fitting import within
from edgeagents.protocol.gate import Key
from services.agent.commands import Commander
from services.agent.rules import CompiledRule, Fired, RuleBook, key_of
from services.agent.view import View

log = logging.getLogger(__name__)

MOST_PENDING_BYTES: Final = 1 << 20


class Consenting:
    """Answers the guard on behalf of one agent."""

    def __init__(
        self, bus: Bus, agent: AgentDefinition, devices: DeviceCache, commander: Commander, rules: RuleBook, view: View,
        audit: Audit, site_now: Callable[[], float],
    ) -> None:  # fmt: skip
        """Prepare; `open` begins to answer. `view` is the agent's picture of its devices, `site_now` site seconds."""
        self._bus = bus
        self._agent = agent
        self._devices = devices
        self._commander = commander
        self._rules = rules
        self._view = view
        self._audit = audit
        self._site_now = site_now
        self._gateway = bus.settings.gateway
        self._said: dict[str, str] = {}  # what was asked lately, and what we said: asked again, it is said again
        self.counts: Counter[str] = Counter()

    async def open(self) -> None:
        """Answer from now on."""
        subject = subjects.consent_request(self._gateway, self._agent.name)
        await self._bus.subscribe(subject, self._on_request, pending_bytes=MOST_PENDING_BYTES)

    async def _on_request(self, message: BusMessage) -> None:
        try:
            act = wire.decode(Act, message.data, message.headers.get(CONTENT_TYPE, wire.PROTOBUF))
        except MalformedMessageError as error:
            self.counts["rejected"] += 1
            if self.counts["rejected"] == 1:
                log.warning("%s: %s (further ones are only counted)", message.subject, error)
            return
        if act.performative != "propose" or act.call is None:
            self.counts["rejected"] += 1
            return
        if act.conversation not in self._said:
            self._remember(act.conversation, act.call)
        objection = self._said[act.conversation]
        said = Act(
            version=VERSION, performative="reject-proposal" if objection else "accept-proposal",
            conversation=act.conversation, reason=objection[:2_000],
        )  # fmt: skip
        try:
            await self._bus.publish(
                subjects.consent(self._gateway, self._agent.name), wire.encode(said), wire.AS_PROTOBUF
            )
        except UnavailableError as error:
            log.warning("consent to %s not told: %s: the guard asks again", act.conversation, error)

    def _remember(self, conversation: str, call: CallForProposals) -> None:
        """Make up our mind, once for each question; the last 256 are remembered."""
        objection = self.objection(call)
        while len(self._said) >= 256:
            del self._said[next(iter(self._said))]
        self._said[conversation] = objection
        self.counts["refused" if objection else "consented"] += 1
        wants = {item.name: item.value for item in call.params}
        self._audit.append(
            "consent-said", command=call.task, device=call.device, resource=call.resource, value=call.value,
            of=wants.get("agent", ""), consents=not objection, reason=objection,
        )  # fmt: skip

    def objection(self, call: CallForProposals) -> str:
        """Return why the agent does not consent; empty when it does."""
        key = (call.device, call.resource)
        device, profile = self._devices.device(call.device), self._devices.profile_of(call.device)
        resource = profile.resource(call.resource) if profile is not None else None
        if device is None or resource is None:
            return f"{self._agent.name} knows no {call.device}/{call.resource}"
        kind = resource.properties.value_type
        try:
            value = parse_value(kind, call.value)
        except InvalidInputError as error:
            return str(error)
        if not self._is_concerned(device, call.resource):
            return f"nothing in the file of {self._agent.name} says whether it minds"
        return (
            beyond_own(self._agent.may, device, call.resource, kind, value)
            or self._under_way(key, kind, value)
            or against(self._wanted(key), value)
        )

    def _is_concerned(self, device: Device, resource: str) -> bool:
        """Say whether the agent's file has anything that its answer could rest on."""
        may_set = any(entry.resource == resource and entry.fits(device) for entry in self._agent.may)
        return may_set or any(rule.key == (device.name, resource) for rule in self._rules.compiled)

    def _under_way(self, key: Key, kind: str, value: Value) -> str:
        for pending in self._commander.pending.values():
            command = pending.command
            if (command.device, command.resource) == key and not _is(kind, command.value, value):
                return f"a command of {self._agent.name} for {command.value[:40]} is under way"
        return ""

    def _wanted(self, key: Key) -> Fired | str | None:
        """Return what the rules want of a resource now, None when nothing; why not known, where one fails."""
        site_s = self._site_now()
        for rule in self._rules.compiled:
            if rule.key != key:
                continue
            unread = self._unread(rule, site_s)
            if unread:
                return f"{self._agent.name} has not read {unread} yet, on which rule {rule.name!r} rests"
            fired, has_failed = self._rules.tried(rule, self._view, site_s)
            if has_failed:
                return f"rule {rule.name!r} of {self._agent.name} fails, so it cannot say what it wants"
            if fired is not None:
                return fired
        return None

    def _unread(self, rule: CompiledRule, site_s: float) -> str:
        """Return the first reading of a rule that is not there, so that it is silent for that alone."""
        for source in rule.given.values():
            found = self._view.recent(source, site_s) if isinstance(source, Recent) else self._view.latest(source)
            if found is None or found.value is None:
                return _place(source)
        return ""


def _place(source: Key | Recent) -> str:
    device, resource = key_of(source)
    return f"{device}/{resource}"


def beyond_own(may: Iterable[Permission], device: Device, resource: str, kind: str, value: Value) -> str:
    """Return why a value is none that an agent's owner lets it set; empty when it is, or it may set none there.

    Args:
        may: the agent's permissions.
        device: whose resource it is.
        resource: its name.
        kind: its value type, as EdgeX names it.
        value: what another one wants.
    """
    own = [entry for entry in may if entry.resource == resource and entry.fits(device)]
    if not own or any(_allows(entry, kind, value) for entry in own):
        return ""
    return f"{_shown(value)} is outside what it may set itself"


def against(wanted: Fired | str | None, value: Value) -> str:
    """Return why a value goes against what an agent's rules want now; empty when it does not.

    Args:
        wanted: what they want; a text: why nobody knows; None: nothing.
        value: what another one wants.
    """
    if wanted is None or isinstance(wanted, str):
        return wanted or ""
    if same_value(wanted.intent.value, value, max(1e-6, wanted.dead_band)):
        return ""
    because = f": {wanted.intent.because}" if wanted.intent.because else ""
    return f"rule {wanted.intent.rule!r} wants {_shown(wanted.intent.value)}{because}"


def _allows(entry: Permission, kind: str, value: Value) -> bool:
    is_listed = not entry.values or any(_is(kind, text, value) for text in entry.values)
    return is_listed and within(value, entry.minimum, entry.maximum)


def _is(kind: str, text: str, value: Value) -> bool:
    try:
        return same_value(parse_value(kind, text), value)
    except InvalidInputError:
        return False


def _shown(value: Value) -> str:
    return f"{value:g}"[:40] if isinstance(value, float) else str(value)[:40]
