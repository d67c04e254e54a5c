"""How old is a message? By the broker's clock, asked again when it makes a difference."""

from typing import cast

import pytest

from edgeagents.adapters.bus import Bus
from edgeagents.adapters.streams import _unix_ns
from edgeagents.errors import UnavailableError
from services.guard.age import BrokerClock


class Broker:
    """Tells what its clock says, or nothing."""

    def __init__(self) -> None:
        self.now_s, self.ahead_ns, self.asked, self.is_away = 50.0, 10**18, 0, False

    async def server_time_ns(self, stream: str) -> int:
        self.asked += 1
        if self.is_away:
            raise UnavailableError("away")
        return self.ahead_ns + int(self.now_s * 1e9)

    def stored(self, ago_s: float) -> int:
        return self.ahead_ns + int((self.now_s - ago_s) * 1e9)


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def clock(broker: Broker) -> BrokerClock:
    return BrokerClock(cast(Bus, broker), lambda: broker.now_s)


async def test_the_age_is_the_brokers_whatever_time_it_keeps(broker: Broker, clock: BrokerClock) -> None:
    for ago_s in (0.0, 3.0, 9.0):
        assert await clock.age_s(broker.stored(ago_s), 10.0) == pytest.approx(ago_s, abs=1e-6)
    assert broker.asked == 1
    broker.now_s += 1.5
    assert await clock.age_s(broker.stored(3.0), 10.0) == pytest.approx(3.0, abs=1e-6)
    assert broker.asked == 2, "an answer is relied on for a second"


@pytest.mark.parametrize("step_s", [3600, -3600])
async def test_a_clock_of_the_broker_that_was_set_is_found_out(broker: Broker, clock: BrokerClock, step_s: int) -> None:
    await clock.age_s(broker.stored(0.0), 10.0)
    broker.ahead_ns += step_s * 10**9
    assert await clock.age_s(broker.stored(2.0), 10.0) == pytest.approx(2.0, abs=1e-6), "stored after the step"
    assert broker.asked == 2


async def test_what_was_stored_before_the_clock_was_set_back_is_of_unknown_age(
    broker: Broker, clock: BrokerClock
) -> None:
    stored = broker.stored(0.0)
    broker.ahead_ns -= 3600 * 10**9
    assert await clock.age_s(stored, 10.0) is None


async def test_a_broker_that_is_away_is_asked_again(broker: Broker, clock: BrokerClock) -> None:
    broker.is_away = True
    assert await clock.age_s(broker.stored(0.0), 10.0) is None
    broker.is_away = False
    assert await clock.age_s(broker.stored(1.0), 10.0) == pytest.approx(1.0, abs=1e-6)


def test_its_time_is_read_to_the_nanosecond() -> None:
    assert _unix_ns("2026-11-25T18:24:50.123456789Z") == 1795631090123456789
    assert _unix_ns("1970-01-01T00:00:01Z") == 10**9
    assert _unix_ns("1970-01-01T00:00:01.5Z") == 1_500_000_000
