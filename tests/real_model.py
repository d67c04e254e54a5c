"""The default language model as tests use it: where it lies, and many requests of every kind put to it."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgeagents.errors import TooManyAttemptsError
from edgeagents.inference.engine import Engine
from edgeagents.inference.generate import Finished, Written
from edgeagents.model.completion import ChatMessage, CompletionRequest
from edgeagents.model.options import Options, Slot

MODEL = Path(__file__).resolve().parents[1] / "models" / "smollm2-135m-instruct"
needs_model = pytest.mark.skipif(not (MODEL / "manifest.json").is_file(), reason=f"no model in {MODEL}: make model")
OPTIONS = Options(slots=(Slot(device="lamp", resource="On", kind="Bool"),), most_text=8)
WORDS = ("warm", "cold", "window", "lamp", "room", "air", "tired", "灯", "打开", "热", "🔥", "quiet", "42", "stuffy")
HURRIED = 15
AT_ONCE = 6  # requests that are not finished; the model writes four at a time


def own_memory_bytes() -> int:
    """Return how much memory this process has for itself alone: what a leak makes larger."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon")


@dataclass
class Load:
    """Requests of every kind: short and long answers, grammars, stop words, cancelled ones, too little time."""

    engine: Engine
    seed: int = 1
    ends: Counter[str] = field(default_factory=Counter)
    told: Counter[int] = field(default_factory=Counter)  # ends, by request
    refused: int = 0
    asked: int = 0

    def __post_init__(self) -> None:
        """Prepare."""
        self._chance = random.Random(self.seed)
        self._free = threading.Semaphore(AT_ONCE)

    def run(self, count: int, progress: Callable[[int], None] = lambda done: None) -> None:
        """Put so many requests, and wait until each has ended."""
        for number in range(count):
            is_hurried = number % HURRIED == 0  # alone, so it is begun; it is out of time before it ends
            for _ in range(AT_ONCE if is_hurried else 1):
                assert self._free.acquire(timeout=120), "a request has no end"
            if is_hurried:
                self._free.release(AT_ONCE - 1)
            self._put(self._wanted(is_hurried=is_hurried))
            progress(number + 1)
        for _ in range(AT_ONCE):
            assert self._free.acquire(timeout=120), "a request has no end"
        self._free.release(AT_ONCE)

    def _wanted(self, *, is_hurried: bool) -> CompletionRequest:
        chance = self._chance
        role = f"You look after room {chance.randrange(12)}. " + " ".join(chance.choices(WORDS, k=4))
        said = " ".join(chance.choices(WORDS, k=chance.randint(1, 6)))
        kind = chance.random()
        return CompletionRequest(
            messages=(ChatMessage(role="system", content=role), ChatMessage(role="user", content=said)), constant=1,
            options=OPTIONS if kind < 0.1 else None, most_tokens=24 if kind < 0.1 else chance.randint(1, 8),
            budget_s=0.02 if is_hurried else chance.choice((0.05, 30.0, 30.0, 30.0, 30.0)),
            temperature=chance.choice((0.0, 1.0, 2.0)), seed=chance.randrange(1 << 30),
            stop=(("the", " a") if kind > 0.9 else ()),
        )  # fmt: skip

    def _put(self, wanted: CompletionRequest) -> None:
        number, ends_after = self.asked, self._chance.choice((None, None, None, 0, 1, 3))
        self.asked += 1
        names, pieces = list[str](), [0]

        def tell(item: Written | Finished) -> None:
            if isinstance(item, Finished):
                self.told[number] += 1
                self.ends[item.reason] += 1
                self._free.release()
                return
            pieces[0] += 1
            if ends_after and pieces[0] == ends_after:
                threading.Thread(target=lambda: self.engine.cancel(names)).start()

        try:
            names += self.engine.submit(f"client {number % 5}", self.engine.prepare(wanted), [tell])
        except TooManyAttemptsError:  # no time for it: an answer, too
            self.refused += 1
            self._free.release()
            return
        if ends_after == 0:
            self.engine.cancel(names)

    def check(self) -> None:
        """Fail unless each request that was taken in ended once."""
        assert set(self.told.values()) == {1}
        assert len(self.told) + self.refused == self.asked
        assert self.engine.counts.requests == len(self.told)


def engine_of(*, rows: int = 4, prefix_bytes: int = 2 << 20) -> Engine:
    """Return a started engine of the default model, one thread; `prefix_bytes` holds few beginnings."""
    found = Engine.load(MODEL, time.monotonic, rows=rows, length=512, threads=1, prefix_bytes=prefix_bytes)
    found.start()
    return found
