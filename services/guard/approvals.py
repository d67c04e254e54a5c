"""What waits for a human, and for how long. Approvers are known by tokens from a file; their names are audited.

Source: design.md section 3.6; class B waits here while `consents.py` asks the agents it concerns.
"""

import hmac
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgeagents.errors import ConfigurationError, NotFoundError, UnauthorisedError
from edgeagents.protocol.gate import NeedsApproval
from services.guard.jobs import Job

log = logging.getLogger(__name__)

MOST_WAITING: Final = 32  # of one agent: people read this list


@dataclass(frozen=True, slots=True)
class Waiting:
    """A command that waits for a human until `until_s` on the monotonic clock."""

    job: Job
    risk_class: str
    until_s: float
    since_unix_ns: int


class Approvals:
    """Commands that wait, by command id."""

    def __init__(self, tokens: Mapping[str, str], now: Callable[[], float], wall_ns: Callable[[], int]) -> None:
        """Start empty; `tokens` maps approver names to tokens."""
        self._tokens = tokens
        self._now = now
        self._wall_ns = wall_ns
        self._waiting: dict[str, Waiting] = {}

    def park(self, job: Job, verdict: NeedsApproval) -> str:
        """Keep a command until somebody decides, at most until its own deadline; return why not, empty when kept."""
        if job.command.id in self._waiting:
            # Whoever approves an id must get what was listed under it.
            return "another agent's command waits under this id"
        if sum(waiting.job.agent == job.agent for waiting in self._waiting.values()) >= MOST_WAITING:
            return f"{MOST_WAITING} commands of agent {job.agent!r} wait for a human already"
        until_s = min(self._now() + verdict.rule.approval_wait, job.deadline_s)
        self._waiting[job.command.id] = Waiting(job, verdict.risk_class, until_s, self._wall_ns())
        log.warning(
            "%s wants %s/%s = %s (class %s): `edgeagents approvals approve %s` lets it pass",
            job.agent, *job.key, verdict.text[:80], verdict.risk_class, job.command.id,
        )  # fmt: skip
        return ""

    def approver(self, token: str) -> str:
        """Return the name a token belongs to.

        Raises:
            UnauthorisedError: nobody's.
        """
        # Every token is compared, each in constant time: the answer's timing tells nothing.
        names = [name for name, known in self._tokens.items() if hmac.compare_digest(known.encode(), token.encode())]
        if not token or not names:
            raise UnauthorisedError("not an approver's token: the guard's approvers file names them")
        return names[0]

    def take(self, command_id: str) -> Waiting:
        """Return a waiting command and stop keeping it.

        Raises:
            NotFoundError: it does not wait (any more); one whose time is over is left for `overdue` to find.
        """
        waiting = self._waiting.get(command_id)
        if waiting is None:
            raise NotFoundError(f"command {command_id!r} does not wait for approval: decided already, or expired")
        if self._now() > waiting.until_s:
            raise NotFoundError(f"command {command_id!r} has expired: it was to be approved earlier")
        return self._waiting.pop(command_id)

    def waits(self, job: Job) -> bool:
        """Say whether this very command still waits: another agent's may have the same id."""
        waiting = self._waiting.get(job.command.id)
        return waiting is not None and waiting.job is job

    def dropped(self, is_over: Callable[[Job], bool]) -> list[Job]:
        """Return, and stop keeping, the commands for which waiting is over."""
        over = [name for name, waiting in self._waiting.items() if is_over(waiting.job)]
        return [self._waiting.pop(name).job for name in over]

    def keep(self, waiting: Waiting) -> None:
        """Keep a command again that was taken, and could not be ended."""
        self._waiting[waiting.job.command.id] = waiting

    def overdue(self) -> list[Job]:
        """Return, and stop keeping, commands nobody decided on in time."""
        late = [name for name, waiting in self._waiting.items() if self._now() > waiting.until_s]
        return [self._waiting.pop(name).job for name in late]

    def listed(self) -> list[dict[str, Any]]:
        """Return what waits, oldest first, in words for people."""
        return [
            {
                "commandId": waiting.job.command.id,
                "agent": waiting.job.agent,
                "deviceName": waiting.job.command.device,
                "resourceName": waiting.job.command.resource,
                "value": waiting.job.command.value,
                "riskClass": waiting.risk_class,
                "because": waiting.job.command.because,
                "secondsLeft": round(waiting.until_s - self._now(), 1),
            }
            for waiting in sorted(self._waiting.values(), key=lambda item: item.since_unix_ns)
        ]


def read_approvers(path: Path | None) -> dict[str, str]:
    """Return name -> token of a file with one `name: token` a line; empty without a file: then nobody can approve.

    Raises:
        ConfigurationError: it cannot be read, or a line is wrong.
    """
    if path is None:
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigurationError(f"approvers file {path}: {error.strerror}: does it exist, may we read it?") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, _, token = (part.strip() for part in text.partition(":"))
        if not name or len(token) < 16:
            raise ConfigurationError(f"{path}, line {number}: write `name: token`, the token of 16 characters or more")
        found[name] = token
    return found
