"""Changes that nobody asked for: the guard looks itself, and sets the newest wanted value again after a straggler.

The decisions are `protocol/overrides.py` and `protocol/looks.py`; here they get clock, ledger and core-command.

Source: design.md sections 3.7 and 3.8.
"""

import asyncio
import logging
import uuid
from collections import Counter
from typing import Final

from edgeagents.adapters import telemetry
from edgeagents.errors import DeviceSilentError, EdgeAgentsError, InvalidInputError, UpstreamError, WithdrawnError
from edgeagents.model.values import Value, format_value
from edgeagents.protocol import actuation, gate, looks
from edgeagents.protocol.overrides import Correct
from edgeagents.subjects import GUARD
from services.guard.jobs import Means, printable

log = logging.getLogger(__name__)

CONFIRM_READS: Final = 3
CONFIRM_AGAIN_S: Final = 0.2
MOST_IN_VAIN: Final = 3  # corrections in a row that a device says "yes" to and does not carry out
AFTER_FAILURE_S: Final = 30.0  # so long a resource that could not be read is left alone


class Surprises:
    """Looks into readings that do not fit, one at a time in the device's lane, while no SET of ours is under way."""

    def __init__(self, means: Means) -> None:
        """Work with the guard's means."""
        self._means = means
        self._unreadable_until_s: dict[gate.Key, float] = {}
        self._in_vain: Counter[gate.Key] = Counter()

    async def check(self, key: gate.Key) -> bool:
        """Read a resource whose last reading did not fit: was it changed by hand, or did a SET of ours come late?

        Returns whether it is just being changed.
        """
        means = self._means
        if not means.overrides.is_doubted(key):
            return False
        # A device that reports but cannot be read would hold its lane up at each report.
        if means.clocks.now() < self._unreadable_until_s.get(key, 0.0):
            means.overrides.unconfirmed(key)
            return False
        found = await self._settle(key)
        if found is None:
            self._unreadable_until_s[key] = means.clocks.now() + AFTER_FAILURE_S
            means.overrides.unconfirmed(key)
            return False
        self._unreadable_until_s.pop(key, None)
        if isinstance(found, looks.Moving):
            await means.overrides.moving(key)
            return True
        is_in_vain = self._in_vain[key] >= MOST_IN_VAIN
        may_set = not is_in_vain and not self._problem(key, means.overrides.expected(key))
        correction = await means.overrides.confirmed(key, found.value, may_set=may_set)
        if correction is not None:
            await self._correct(correction)
        else:
            self._in_vain.pop(key, None)
        return False

    async def look(self, key: gate.Key) -> bool:
        """Read a resource, as if its device had reported it; return whether it could be read."""
        return isinstance(await read_back(self._means, *key), actuation.ReadDone)

    def _problem(self, key: gate.Key, wanted: Value) -> str:
        """Return why the guard may not set a value again of itself; empty when it may."""
        means, rule = self._means, self._means.overrides.rule_of(key)
        text = text_of(means, key, wanted)
        if rule is None or rule.kind != "absolute" or text is None:
            return "setting it twice is not harmless"
        # A pause of the device, or of everything, also stops this; and so does what nothing can outvote.
        rules = means.owner.rules(means.devices)
        locks = gate.interlock_problems(rules, key, text, means.picture.view, means.clocks.site())
        return means.orders.problem(GUARD, key[0]) or "; ".join(locks)

    async def _settle(self, key: gate.Key) -> looks.Settled | looks.Moving | None:
        """Read a doubted resource until it is clear whether it keeps a value; None: it cannot be read."""
        state: looks.State = self._means.overrides.looking(key)
        failed = 0
        while isinstance(state, looks.Looking):
            event = await read_back(self._means, *key)
            if isinstance(event, actuation.ReadDone):
                state = looks.take(state, event.value, event.now_s)
                await asyncio.sleep(state.pause_s if isinstance(state, looks.Looking) else 0.0)
                continue
            failed += 1
            if failed == CONFIRM_READS:
                return None
            await asyncio.sleep(CONFIRM_AGAIN_S * failed)
        return state

    async def _is_shown(self, key: gate.Key, wanted: Value) -> bool:
        """Read a resource that was just set, a few times; return whether it shows what it was set to."""
        for number in range(CONFIRM_READS):
            await asyncio.sleep(CONFIRM_AGAIN_S * number)
            event = await read_back(self._means, *key)
            if isinstance(event, actuation.ReadDone) and self._means.overrides.shows(key, event.value, wanted):
                self._in_vain.pop(key, None)
                return True
        self._in_vain[key] += 1
        log.warning("%s/%s: corrected to %s, and does not show it", *key, wanted)
        return False

    async def _correct(self, correction: Correct) -> None:
        """Set the newest wanted value again: a SET without an answer took effect after it."""
        means, key = self._means, correction.key
        text = text_of(means, key, correction.value)
        if text is None:
            return
        correlation_id, straggler = str(uuid.uuid4()), text_of(means, key, correction.straggler)
        means.audit.append(
            "correction", device=key[0], resource=key[1], value=text, straggler=straggler, correlation=correlation_id
        )  # fmt: skip
        log.warning("%s/%s: a SET came late (%s): setting %s again", *key, correction.straggler, text)
        means.overrides.counts["stragglers"] += 1
        await means.overrides.correcting(key, correction.value)
        # Whoever judges meanwhile, for another device, sees that it may be so.
        past = gate.PastSet(GUARD, correction.value, means.clocks.site())
        means.picture.went_out(key, past)
        means.picture.doubt(key, means.overrides.late_values().get(key, []))

        def last_look() -> None:
            if problem := self._problem(key, correction.value):
                raise WithdrawnError(problem)

        try:
            await means.command.set(
                key[0], key[1], {key[1]: text}, correlation_id=correlation_id, last_look=last_look
            )  # fmt: skip
        except EdgeAgentsError as error:
            log.error("%s/%s: not corrected: %s", *key, error)
            # The next reading that does not fit tries again.
            if isinstance(error, (DeviceSilentError, UpstreamError)):
                means.overrides.void(key)
            else:
                means.picture.took_back(key, past)
                await means.overrides.withdrawn(key, correction.value)
                means.picture.doubt(key, means.overrides.late_values().get(key, []))
            return
        # A device that said "yes" and did nothing still shows the straggler: it is to be found again, as no hand's.
        is_proven = await self._is_shown(key, correction.value)
        settled = (correction.value, correction.straggler) if is_proven else (correction.value,)
        await means.overrides.done(key, correction.value, is_certain=True, settled=settled)
        means.picture.doubt(key, means.overrides.late_values().get(key, []))


async def read_back(means: Means, device: str, resource: str) -> actuation.ReadDone | actuation.ReadFailed:
    """Return what a device resource shows, read through core-command; the guard's picture learns of it."""
    try:
        with telemetry.span("read back"):
            event = await means.command.get(device, resource)
        reading = event.reading(resource) if event is not None else None
        if event is None or reading is None:
            return actuation.ReadFailed(f"the answer holds no {resource}", means.clocks.now())
        means.picture.see(event)
        value: Value = reading.decoded()
        text = printable(reading.value if isinstance(reading.value, str) else str(value))
        return actuation.ReadDone(value, text, means.clocks.now())
    except EdgeAgentsError as error:
        return actuation.ReadFailed(str(error), means.clocks.now())


def text_of(means: Means, key: gate.Key, value: Value) -> str | None:
    """Return a value as EdgeX writes it, None when there is none or it is not of the profile's type."""
    profile = means.devices.profile_of(key[0])
    resource = profile.resource(key[1]) if profile else None
    try:
        return None if resource is None or value is None else format_value(resource.properties.value_type, value)
    except InvalidInputError:
        return None
