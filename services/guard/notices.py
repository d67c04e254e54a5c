"""What people should hear of at once, sent to EdgeX's support-notifications where it runs: approvals, interlocks,
effects that nobody knows, changes by hand.

Off the path of commands: a bounded queue, a task that empties it, and failures that are counted and told once. A
notice goes out again until it is acknowledged or too old to be of use. The same wish, or the same refusal by the
same interlock, is told at most once a minute of the machine's clock (wall time, not site time: people read it).

Source: EdgeX 4.0 support-notifications, `POST /api/v3/notification` (AddNotificationRequest of core-contracts).
"""

import asyncio
import logging
import uuid
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from edgeagents.adapters.live_config import LiveConfig
from edgeagents.adapters.ports import host_in_url
from edgeagents.adapters.rest import Address, Rest, check_items
from edgeagents.errors import ConflictError, TheirError, UnavailableError
from edgeagents.model.message import Command, Outcome
from edgeagents.model.site import Site

log = logging.getLogger(__name__)

SERVICE: Final = "support-notifications"
MOST_QUEUED: Final = 64
REPEATED_S: Final = 60.0
KEPT_S: Final = 300.0
LONGEST_PAUSE_S: Final = 30.0
MOST_KNOWN: Final = 256
MAX_CHARS: Final = 200  # of each text that an agent chose

Severity: TypeAlias = Literal["MINOR", "NORMAL", "CRITICAL"]


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell; `id` lets support-notifications know it again."""

    id: str
    category: str  # of letters, digits, - and _, as EdgeX wants it
    severity: Severity
    content: str
    since_s: float  # monotonic

    def body(self, sender: str) -> list[dict[str, Any]]:
        """Return EdgeX's request."""
        return [
            {
                "apiVersion": "v3",
                "requestId": str(uuid.uuid4()),
                "notification": {
                    "id": self.id,
                    "category": self.category,
                    "labels": ["edgeagents", self.category],
                    "content": self.content,
                    "contentType": "text/plain",
                    "sender": sender,
                    "severity": self.severity,
                },
            }
        ]


class NotificationsAddress:
    """Where support-notifications answers: the guard's own `Clients` entry if there is one, else keeper's registry."""

    def __init__(self, config: LiveConfig, registry: Address | None) -> None:
        """Look in the configuration as it is then, and in the registry, where one is used."""
        self._config = config
        self._registry = registry

    async def base_url(self) -> str:
        """Return its address.

        Raises:
            UnavailableError: nobody knows one.
        """
        client = self._config.get(f"Clients/{SERVICE}")
        if isinstance(client, Mapping) and client.get("Host") and client.get("Port"):
            return f"{client.get('Protocol') or 'http'}://{host_in_url(str(client['Host']))}:{client['Port']}"
        if self._registry is None:
            raise UnavailableError(f"no address of {SERVICE}: set Clients/{SERVICE}, or start with --registry")
        return await self._registry.base_url()

    def forget(self) -> None:
        """Look it up again next time."""
        if self._registry is not None:
            self._registry.forget()


class Notices:
    """Queues notices and sends them; nobody ever waits for it."""

    def __init__(
        self,
        rest: Rest,
        sender: str,
        now: Callable[[], float],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Prepare; `run` sends. `now` is monotonic seconds, `sender` our service key."""
        self._rest = rest
        self._sender = sender
        self._now = now
        self._pause = pause
        self._queue: asyncio.Queue[Notice] = asyncio.Queue(MOST_QUEUED)
        self._known: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._is_away = False
        self.counts: Counter[str] = Counter()

    def wanted(self, agent: str, command: Command, risk_class: str) -> None:
        """Tell that a command waits for a human."""
        wish = f"{command.device}/{command.resource} = {_short(command.value)}"
        self._offer(
            ("approval", agent, command.device, command.resource, command.value[:MAX_CHARS]),
            "NORMAL",
            f"{agent} wants {wish} (class {risk_class}): {_short(command.because)}\n"
            f"`edgeagents approvals approve {command.id}` lets it pass",
        )

    def ended(self, agent: str, outcome: Outcome, site: Site) -> None:
        """Tell that an interlock stopped a command, or that nobody knows its effect, if that is how it ended."""
        if outcome.status == "uncertain":
            wish = f"{outcome.device}/{outcome.resource} = {_short(outcome.value)}"
            about = ("uncertain", agent, outcome.device, outcome.resource, outcome.value[:MAX_CHARS])
            self._offer(about, "CRITICAL", f"nobody knows whether {wish} of {agent} was done: {_short(outcome.reason)}")
        for name in interlocks_of(outcome, site):
            wish = f"{outcome.device}/{outcome.resource} = {_short(outcome.value)}"
            self._offer(
                ("interlock", agent, outcome.device, outcome.resource, name),
                "CRITICAL",
                f"interlock {name!r} stopped {agent}: {wish}: {_short(outcome.reason)}",
            )

    def by_hand(self, device: str, resource: str, text: str) -> None:
        """Tell that somebody set a resource by hand, and that agents stand back."""
        self._offer(("override", device, resource, text[:MAX_CHARS]), "MINOR", _short(text))

    def _offer(self, about: tuple[str, ...], severity: Severity, content: str) -> None:
        now_s = self._now()
        if now_s - self._known.get(about, -REPEATED_S) < REPEATED_S:
            self.counts["repeated"] += 1
            return
        try:
            self._queue.put_nowait(Notice(str(uuid.uuid4()), about[0], severity, content, now_s))
        except asyncio.QueueFull:
            self.counts["dropped"] += 1
            return
        self._known[about] = now_s
        self._known.move_to_end(about)
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    async def run(self) -> None:
        """Send for ever, one after the other."""
        while True:
            await self._deliver(await self._queue.get())
            self._queue.task_done()

    async def _deliver(self, notice: Notice) -> None:
        pause_s = 1.0
        while self._now() - notice.since_s <= KEPT_S:
            try:
                answer = await self._rest.call("POST", "/api/v3/notification", body=notice.body(self._sender))
                check_items(answer, SERVICE)
            except ConflictError:
                pass  # it has it: the answer to an earlier try got lost
            except UnavailableError as error:
                self._told(error)
                await self._pause(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
                continue
            except TheirError as error:
                self._told(error)
                break
            self._back()
            self.counts["sent"] += 1
            return
        self.counts["failed"] += 1

    def _told(self, error: TheirError) -> None:
        if not self._is_away:
            log.warning("people are not notified (approvals wait all the same): %s", error)
        self._is_away = True

    def _back(self) -> None:
        if self._is_away:
            log.info("people are notified again")
        self._is_away = False


def interlocks_of(outcome: Outcome, site: Site) -> list[str]:
    """Return the names of the interlocks that an outcome was refused by."""
    key = (outcome.device, outcome.resource)
    if outcome.status != "refused":
        return []
    return [
        lock.name
        for lock in site.interlocks
        if key in ((lock.forbid.device, lock.forbid.resource), (lock.during.device, lock.during.resource))
        and f"interlock {lock.name!r}: " in outcome.reason
    ]


def _short(text: str) -> str:
    """Return the beginning of a text that an agent chose, without what would mean something to a terminal."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text[: MAX_CHARS + 1])
    return clean if len(text) <= MAX_CHARS else f"{clean[:MAX_CHARS]}…"
