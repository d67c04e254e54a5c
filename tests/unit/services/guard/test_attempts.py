"""Wrong tokens make whoever sent them wait, longer each time, and nobody else."""

import pytest

from edgeagents.errors import TooManyAttemptsError
from services.guard.attempts import FREE, FREE_TOGETHER, LONGEST_WAIT_S, MOST_ADDRESSES, Attempts


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def attempts(clock: Clock) -> Attempts:
    return Attempts(clock)


def guess(attempts: Attempts, address: str, times: int = 1) -> None:
    """Send wrong tokens that are compared."""
    for _ in range(times):
        attempts.check(address)
        attempts.failed(address)


def wait_s(attempts: Attempts, address: str) -> float:
    """Return how long an address has to wait, 0 when it need not."""
    try:
        attempts.check(address)
    except TooManyAttemptsError as error:
        return error.retry_after_s
    return 0.0


def test_the_wait_doubles_up_to_a_limit_and_ends(attempts: Attempts, clock: Clock) -> None:
    guess(attempts, "10.0.0.9", FREE)
    assert wait_s(attempts, "10.0.0.9") == 0
    waits = []
    for _ in range(12):
        guess(attempts, "10.0.0.9")
        waits.append(wait_s(attempts, "10.0.0.9"))
        clock.now_s += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, LONGEST_WAIT_S]
    assert wait_s(attempts, "10.0.0.9") == 0
    clock.now_s += 3601
    guess(attempts, "10.0.0.9", FREE)
    assert wait_s(attempts, "10.0.0.9") == 0, "an hour later it is forgotten"


def test_others_need_not_wait_and_a_right_token_clears_the_slate(attempts: Attempts) -> None:
    guess(attempts, "10.0.0.9", FREE + 1)
    assert wait_s(attempts, "10.0.0.8") == 0
    guess(attempts, "10.0.0.8", FREE)
    attempts.succeeded("10.0.0.8")
    guess(attempts, "10.0.0.8", FREE)
    assert wait_s(attempts, "10.0.0.8") == 0


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.9", "10.0.0.9", True),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        ("no address", "another", False),
    ],
)
def test_what_counts_as_one_address(attempts: Attempts, one: str, other: str, is_same: bool) -> None:
    guess(attempts, one, FREE + 1)
    assert (wait_s(attempts, other) > 0) is is_same


def test_many_addresses_together_wait_after_one_wrong_token_each_and_a_new_one_does_not(
    attempts: Attempts, clock: Clock
) -> None:
    for number in range(FREE_TOGETHER + 3):
        guess(attempts, f"10.1.0.{number}")
    assert [wait_s(attempts, f"10.1.0.{number}") for number in (0, 52)] == [4, 4]
    assert wait_s(attempts, "10.2.0.1") == 0
    clock.now_s += 4
    assert wait_s(attempts, "10.1.0.0") == 0


def test_memory_is_bounded(attempts: Attempts) -> None:
    for number in range(5 * MOST_ADDRESSES):
        attempts.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(attempts._by_address) == MOST_ADDRESSES
    burst = attempts.ended_burst(at_once=True)
    assert burst is not None
    assert (burst.tried, len(burst.addresses)) == (5 * MOST_ADDRESSES, 8)


def test_a_burst_is_told_of_once_it_is_quiet_or_after_a_minute(attempts: Attempts, clock: Clock) -> None:
    assert attempts.ended_burst() is None
    assert attempts.failed("10.0.0.9") is True
    assert attempts.failed("10.0.0.9") is False
    clock.now_s += 4.9
    assert attempts.ended_burst() is None
    clock.now_s += 0.1
    burst = attempts.ended_burst()
    assert burst is not None
    assert (burst.tried, burst.compared, burst.addresses) == (2, 2, ["10.0.0.9"])
    assert attempts.ended_burst(at_once=True) is None
    for _ in range(13):
        clock.now_s += 4.9
        attempts.failed("10.0.0.9")
    assert attempts.ended_burst() is None
    clock.now_s += 1.3
    assert attempts.ended_burst() is not None, "it goes on and on"
