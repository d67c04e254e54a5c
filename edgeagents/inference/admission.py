"""Whose request comes next, and which is refused at once: bounded queues, fair shares, deadlines.

Each client has a queue of its own; the next request is the oldest one of the client that was served least, in seconds
of the model. Who comes back after a rest starts level with the others: rest saves up nothing, and a flood of one client
delays that client alone. A request whose answer cannot be ready by its deadline, by the speeds measured so far, is
refused when it comes; nobody waits for what will not be. While nothing runs and nothing waits none is refused: its
deadline ends it, and speeds that were measured in a bad moment are measured again.

Pure: told the time and the speeds. Not for several threads at once.

Source: Demers, Keshav, Shenker 1989 (fair queueing, with service in seconds); Sheng et al. 2024 (fairness in serving
language models, arXiv:2401.00588).
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from edgeagents.errors import TooManyAttemptsError

MOST_WAITING: Final = 256
MOST_OF_CLIENT: Final = 64
MOST_REMEMBERED: Final = 1024
_WEIGHT: Final = 0.2  # of a new measurement
_WHOLE_TOKENS: Final = 64  # of a prompt: a shorter piece says less
_MOST_TIMES: Final = 4.0  # slower than known: one hiccup must not look like another machine


@dataclass(slots=True)
class Speed:
    """How quick the model is on this machine, measured as it goes.

    Args:
        prefill_s: seconds a token of a prompt.
        step_s: seconds a token of an answer, whatever is written beside it.
        answer_tokens: how long answers are, on average.
    """

    prefill_s: float = 0.002
    step_s: float = 0.01
    answer_tokens: float = 32.0

    def saw_prefill(self, tokens: int, took_s: float) -> None:
        """Take in that so many tokens of a prompt, all of them computed, took so long."""
        if tokens > 0:
            # A short piece costs more a token than a long one: less is true of both, more is not.
            part = min(1.0, tokens / _WHOLE_TOKENS) if took_s > tokens * self.prefill_s else 1.0
            self.prefill_s = _nearer(self.prefill_s, took_s / tokens, _WEIGHT * part)

    def saw_step(self, took_s: float) -> None:
        """Take in how long one step took."""
        self.step_s = _nearer(self.step_s, took_s, _WEIGHT)

    def saw_answer(self, tokens: int) -> None:
        """Take in how long an answer was."""
        self.answer_tokens += _WEIGHT * (max(1, tokens) - self.answer_tokens)

    def work_s(self, prompt_tokens: int, most_tokens: int) -> float:
        """Return how long a request will take once it has a row, seconds."""
        return prompt_tokens * self.prefill_s + min(most_tokens, self.answer_tokens) * self.step_s


def _nearer(known_s: float, seen_s: float, weight: float) -> float:
    return max(1e-6, known_s + weight * (min(max(0.0, seen_s), _MOST_TIMES * known_s) - known_s))


@dataclass(frozen=True, slots=True)
class Job:
    """A request that waits.

    Args:
        name: unique.
        client: whose it is.
        work_s: how long it will take once it has a row.
        end_s: when its answer is of no use any more.
    """

    name: str
    client: str
    work_s: float
    end_s: float = math.inf


@dataclass(slots=True)
class _Client:
    served_s: float = 0.0
    jobs: deque[Job] = field(default_factory=deque)
    running: int = 0


class Admission:
    """Queues of all clients."""

    def __init__(self, rows: int, most_waiting: int = MOST_WAITING, most_of_client: int = MOST_OF_CLIENT) -> None:
        """Nobody waits yet.

        Args:
            rows: texts that are written at once.
            most_waiting: requests of all clients.
            most_of_client: requests of one.
        """
        self._rows, self.most_waiting, self.most_of_client = rows, most_waiting, most_of_client
        self._clients: dict[str, _Client] = {}
        self._running: dict[str, Job] = {}
        self._level_s = 0.0  # what the client served last had been served before
        self.waiting = 0
        self.refused = {"full": 0, "client-full": 0, "too-late": 0}

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self._running and not self.waiting

    def submit(self, job: Job, now_s: float, *, is_estimated: bool = True) -> None:
        """Have a request wait.

        Args:
            job: which.
            now_s: of the clock of its deadline.
            is_estimated: refuse it if it would come too late; False for all texts of a request that finds the model
                idle, and whatever this says, for one that finds nothing before it.

        Raises:
            TooManyAttemptsError: too many wait already, or it would come too late; says when to try again.
        """
        client = self._clients.get(job.client)
        own = len(client.jobs) if client is not None else 0
        wait_s = self.wait_s(job.client)
        if self.waiting >= self.most_waiting:
            self._refuse("full", f"{self.waiting} requests wait for the model already", wait_s)
        if own >= self.most_of_client:
            self._refuse("client-full", f"{own} requests of {job.client} wait for the model already", wait_s)
        if is_estimated and not self.is_idle and now_s + wait_s + job.work_s > job.end_s:
            self._refuse(
                "too-late",
                f"the answer would take {wait_s + job.work_s:.2f} s, of which {wait_s:.2f} s waiting: "
                f"{max(0.0, job.end_s - now_s):.2f} s are given",
                wait_s,
            )
        client = self._known(job.client)
        if not client.jobs and not client.running:
            client.served_s = max(client.served_s, self._level_s)
        client.jobs.append(job)
        self.waiting += 1

    def wait_s(self, client: str) -> float:
        """Return how long a new request of a client would wait for a row, about, seconds."""
        if len(self._running) < self._rows and not self.waiting:
            return 0.0
        own = self._clients.get(client)
        turn = (len(own.jobs) if own is not None else 0) + 1
        # Before its turn comes, every other client has as many turns at most.
        ahead_s = sum(job.work_s for other in self._clients.values() for job in list(other.jobs)[:turn])
        ahead_s += sum(job.work_s for job in self._running.values()) / 2
        return ahead_s / self._rows

    def next(self) -> Job | None:
        """Return the request that comes next, if one waits; it runs from now on, until `done`."""
        waiting = [(client.served_s, name) for name, client in self._clients.items() if client.jobs]
        if not waiting:
            return None
        level_s, name = min(waiting)
        client = self._clients[name]
        job = client.jobs.popleft()
        self.waiting -= 1
        self._level_s = max(self._level_s, level_s)
        client.running += 1
        client.served_s += job.work_s  # corrected by `done`
        self._running[job.name] = job
        return job

    def done(self, name: str, took_s: float) -> None:
        """Take in that a request that ran has ended, and how many seconds it had a row."""
        job = self._running.pop(name, None)
        if job is not None:
            client = self._clients[job.client]
            client.running -= 1
            client.served_s += took_s - job.work_s

    def withdraw(self, name: str) -> bool:
        """Take a waiting request out; return whether it waited."""
        for client in self._clients.values():
            for job in client.jobs:
                if job.name == name:
                    client.jobs.remove(job)
                    self.waiting -= 1
                    return True
        return False

    def overdue(self, now_s: float) -> list[Job]:
        """Take out and return all requests whose deadline passed while they waited."""
        found = [job for client in self._clients.values() for job in client.jobs if now_s >= job.end_s]
        for job in found:
            self._clients[job.client].jobs.remove(job)
        self.waiting -= len(found)
        return found

    def _known(self, name: str) -> _Client:
        if name not in self._clients and len(self._clients) >= MOST_REMEMBERED:
            for other in [key for key, client in self._clients.items() if not client.jobs and not client.running]:
                del self._clients[other]
        return self._clients.setdefault(name, _Client())

    def _refuse(self, cause: str, text: str, wait_s: float) -> None:
        self.refused[cause] += 1
        raise TooManyAttemptsError(f"{text}: try again later", max(1.0, wait_s))
