"""Hypothesis's moves on a society: whatever can happen to acts and parties, in any order."""

import os
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from edgeagents.protocol.conversation import act
from tests.society import Society

# The number of cases that the issue asks for; `make test-long` looks at many times as many.
CASES = int(os.environ.get("PROTOCOL_CASES", "1000"))
MACHINE_SETTINGS = settings(max_examples=CASES, stateful_step_count=5, deadline=None)
# On a machine that others use, too: 3,000 cases of the longest take four minutes where nobody does.
PATIENT = [pytest.mark.society, pytest.mark.timeout(1200 + 2 * CASES)]
DELAYS_S = (0.1, 0.6, 1.1, 5.0)
SHOUTS = ("propose", "cancel", "inform", "accept-proposal", "shout", "refuse", "cfp", "failure")


class SocietyMachine(RuleBasedStateMachine):
    """Loss, duplication, reordering, delay, crash and restart; `people` and `society` are a subclass's.

    A byte is a move: its upper bits say what happens, the lower three to whom. So a long history costs hypothesis one
    draw, and shrinks as well as its own rules do.
    """

    society: Society | None = None
    people: tuple[str, ...] = ()
    conversation = "t-1"
    # Kinds of moves, those of an ordinary day more often.
    kinds: ClassVar[tuple[str, ...]] = (
        *("deliver",) * 9, *("deliver_first",) * 5, "deliver_and_keep", "deliver_and_keep", "lose", "lose",
        "wait", "wait", "wait", "crash", "crash_within", "restart", "restart", "stranger",
    )  # fmt: skip
    own: ClassVar[tuple[str, ...]] = ()  # methods of a subclass: name(place)

    @precondition(lambda self: self.society is not None)
    @rule(moves=st.binary(min_size=1, max_size=12))
    def live(self, moves: bytes) -> None:
        assert self.society is not None
        for move in moves:
            kinds = (*self.kinds, *self.own * 3)
            getattr(self, kinds[(move >> 3) % len(kinds)])(move & 7)
            self.must_hold(self.society)

    def must_hold(self, society: Society) -> None:
        """Assert what holds at any time."""
        raise NotImplementedError

    def at_the_end(self, society: Society) -> None:
        """Assert what holds when all has run its course."""
        raise NotImplementedError

    def teardown(self) -> None:
        if self.society is not None:
            self.at_the_end(self.society)
            self.must_hold(self.society)

    @property
    def world(self) -> Society:
        assert self.society is not None
        return self.society

    def who(self, place: int) -> str:
        return self.people[place % len(self.people)]

    def deliver(self, place: int) -> None:
        self.world.deliver(place)

    def deliver_first(self, place: int) -> None:
        for _ in range(place + 1):
            self.world.deliver(0)

    def deliver_and_keep(self, place: int) -> None:
        self.world.deliver(place, keep=True)

    def lose(self, place: int) -> None:
        self.world.drop(place)

    def wait(self, place: int) -> None:
        self.world.advance(DELAYS_S[place % len(DELAYS_S)])

    def crash(self, place: int) -> None:
        self.world.crash(self.who(place))

    def crash_within(self, place: int) -> None:
        """Crash in the midst of the next step."""
        self.world.parties[self.who(place)].crash_after = place // len(self.people) % 3

    def restart(self, place: int) -> None:
        self.world.restart(self.who(place))

    def stranger(self, place: int) -> None:
        """Somebody who takes no part speaks."""
        said: Any = act("cfp", self.conversation).model_copy(update={"performative": SHOUTS[place]})
        self.world.inject("mallory", self.who(place), said)
