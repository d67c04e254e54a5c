"""What stands by settlements, and how the winner gives it: by its own lease and commands, which the guard judges.

What the guard refuses binds nobody any more. Once a question came to nothing, or an outcome is over, the agent looks
again at what it wants.

Source: design.md section 5; docs/conflicts.md.
"""

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from edgeagents.adapters.timers import call_after
from edgeagents.audit import Audit
from edgeagents.errors import InvalidInputError, TheirError
from edgeagents.model.agent import Decision, Intent
from edgeagents.model.message import Cause, Outcome
from edgeagents.protocol.gate import Key
from services.agent.agreements import Agreement
from services.agent.bargaining import word_of
from services.agent.commands import Commander
from services.agent.perception import Twin

log = logging.getLogger(__name__)

AGREED: Final = "conflict"  # stands where a rule's name would, in a wish to give what was agreed
CARRY_OUT_S: Final = 0.1  # between two tries to give what was agreed: the other's lease ends a moment later
UNBOUND_S: Final = 5.0  # so long it is tried for one that is not bound: then its rules may want something else
REFUSED_S: Final = 60.0  # so long what the guard refused is no option
LOOK_S: Final = 1.0  # between two looks again
# Refusals that say something of the value, as the guard names them.
OF_VALUE: Final = ("gate", "interlock", "approval", "device", "proof")


class Giving:
    """The agreements of an agent, and how it does its part of them."""

    def __init__(
        self, commander: Commander, twin: Twin, audit: Audit, site_now: Callable[[], float],
        counts: Counter[str],
    ) -> None:  # fmt: skip
        """Prepare; `counts` are the agent's of conflicts."""
        self._commander = commander
        self._twin = twin
        self._audit = audit
        self._site_now = site_now
        self._counts = counts
        self._refused: dict[tuple[Key, str], float] = {}  # agreed values that the guard refused, until when they count
        self.agreements: dict[Key, Agreement] = {}
        self.is_deciding = True  # while its agent does not decide, nothing is commanded for what was agreed either
        self.has_news = asyncio.Event()

    def present(self, key: Key) -> str:
        """Return how things are, in words; empty: not known."""
        sample = self._twin.latest(key)
        return "" if sample is None else word_of(sample.value)

    def take(self, key: Key, agreement: Agreement) -> None:
        """Take an agreement in; when it is over, what we want is looked at again."""
        self.agreements[key] = agreement
        if agreement.others:
            left_s = agreement.until_s - time.monotonic()
            call_after(left_s, self.has_news.set)

    async def give(self, key: Key, agreement: Agreement) -> None:
        """Command the agreed value until it is so, or stands no longer: the other's lease may end a moment later."""
        wait_s, until_s = CARRY_OUT_S, agreement.until_s if agreement.others else time.monotonic() + UNBOUND_S
        while self.agreements.get(key) is agreement and time.monotonic() < until_s:
            if self.present(key) == agreement.word and await self._commander.leases.hold(key):
                return  # so already, and ours: nobody takes it meanwhile
            if self.present(key) != agreement.word and await self._gave(key, agreement):
                return
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, 1.0)
        self.count("not_given", f"{key[0]}/{key[1]} = {agreement.word}: its time is over")

    async def _gave(self, key: Key, agreement: Agreement) -> bool:
        """Command the agreed value once; say whether that is on its way."""
        if not self.is_deciding:
            return False
        try:
            value = self._commander.value_of(*key, agreement.word)
        except InvalidInputError as error:
            self.count("not_given", str(error))
            return True
        cause = Cause(stream=f"conflicts/{agreement.conflict}", sequence=1, event_id=agreement.conflict)
        intent = Intent(*key, value, f"agreed in {agreement.conflict}", AGREED)
        decision = Decision(agreement.conflict, (intent,), "rule", 1.0, {}, time.time_ns())
        given = await self._commander.give(decision, cause, self._site_now())
        if not given or not given[0].command_id:
            return False
        self._counts["given"] += 1
        self._audit.append(
            "settlement-given", conflict=agreement.conflict, device=key[0], resource=key[1], value=agreement.word,
            command=given[0].command_id,
        )  # fmt: skip
        return True

    def ended(self, outcome: Outcome) -> None:
        """Take in how a command of ours ended: what the guard refuses to have agreed on binds us no longer."""
        key = (outcome.device, outcome.resource)
        agreement = self.agreements.get(key)
        if agreement is None or not agreement.is_ours or outcome.status not in ("refused", "failed"):
            return
        try:
            word = word_of(self._commander.value_of(*key, outcome.value))
        except InvalidInputError:
            return
        if word == agreement.word:
            if _is_of_value(outcome):
                self._refused[key, word] = time.monotonic() + REFUSED_S
            del self.agreements[key]
            self.count("agreed_and_refused", f"{agreement.conflict}: {outcome.reason}")
            self.has_news.set()

    def count(self, word: str, text: str) -> None:
        """Count what went otherwise than wished, and say it the first time."""
        self._counts[word] += 1
        if self._counts[word] == 1:
            log.warning("%s: %s (further ones are only counted)", word, text)

    def is_refused(self, key: Key, option: str) -> bool:
        """Say whether the guard refused a value a moment ago: then nobody can give it."""
        return time.monotonic() < self._refused.get((key, option), 0.0)

    async def keep_looking(self, store: Callable[[], Awaitable[object]]) -> None:
        """Have the agent look again once a question came to nothing or an outcome is over, for ever.

        Args:
            store: stores an empty rule result for this agent, an input as any other.
        """
        while True:
            await self.has_news.wait()
            self.has_news.clear()
            try:
                await store()
            except TheirError as error:
                log.debug("not looked at again: %s", error)
            await asyncio.sleep(LOOK_S)


def _is_of_value(outcome: Outcome) -> bool:
    """Say whether a refusal is one of the value; a guard of a former version names no cause: then by its words."""
    is_of_lease = "lease" in re.findall(r"\w+", outcome.reason)
    return outcome.cause_kind in OF_VALUE or not (outcome.cause_kind or is_of_lease)
