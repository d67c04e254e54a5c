"""Whether a coordinator is there: heard lately, or not heard though it could have been."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeagents.adapters.bus import Bus, BusMessage
from services.agent import presence as module
from services.agent.presence import LOOK_S, SILENT_S, CoordinatorWatch

BEAT = BusMessage("gw.coordinator", b"run-1")


class Rig:
    """A watch on a clock that tests set; `look` lets time pass as the loop does."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.bus = SimpleNamespace(is_connected=True, settings=SimpleNamespace(gateway="gw"), subscribe=self._subscribe)
        self.subscribed: list[str] = []
        self.watch = CoordinatorWatch(cast(Bus, self.bus), lambda: self.now_s)

    async def _subscribe(self, subject: str, handler: Any) -> None:
        self.subscribed.append(subject)

    async def listen(self) -> None:
        """Run the watch until it would wait for the first time."""
        running = self.watch.run()
        running.send(None)
        running.close()

    def look(self, for_s: float) -> str:
        """Let time pass in the loop's steps; return what is said then."""
        until_s = self.now_s + for_s
        while self.now_s < until_s - 1e-9:
            self.now_s += min(LOOK_S, until_s - self.now_s)
            found = self.watch.presence
        return found


@pytest.fixture
async def rig() -> Rig:
    """A watch that has just begun to listen."""
    found = Rig()
    await found.listen()
    assert found.subscribed == ["gw.coordinator"]
    return found


async def test_silence_counts_once_we_have_listened_long_enough(rig: Rig) -> None:
    assert rig.look(SILENT_S - 0.1) == "unknown"
    assert "ask again" in rig.watch.problem
    assert rig.look(0.1) == "away"
    assert rig.watch.problem == ""


async def test_one_that_is_heard_is_there_until_it_has_been_silent_for_long(rig: Rig) -> None:
    rig.look(SILENT_S)
    await rig.watch.heard(BEAT)
    assert rig.watch.problem == "app-coordinator is there: give it to it"
    assert rig.look(SILENT_S - 0.1) == "there"
    assert rig.look(0.1) == "away"


async def test_a_link_that_was_down_makes_it_unknown_again(rig: Rig) -> None:
    assert rig.look(SILENT_S) == "away"
    rig.bus.is_connected = False
    assert rig.look(10.0) == "unknown"
    rig.bus.is_connected = True
    assert rig.look(SILENT_S - LOOK_S) == "unknown"
    assert rig.look(LOOK_S) == "away"


async def test_who_was_held_up_has_heard_nothing_meanwhile_and_so_knows_nothing(rig: Rig) -> None:
    assert rig.look(SILENT_S) == "away"
    rig.now_s += LOOK_S + module.HELD_UP_S + 0.01
    assert rig.watch.presence == "unknown"


def test_before_it_listens_nobody_can_say_however_often_it_is_asked() -> None:
    assert Rig().look(10 * SILENT_S) == "unknown"


async def test_each_new_run_is_told_of_once(rig: Rig) -> None:
    told: list[int] = []
    rig.watch.on_new = lambda: told.append(1)
    for data in (b"run-1", b"run-1", b"run-2", b"run-2"):
        await rig.watch.heard(BusMessage("gw.coordinator", data))
    assert len(told) == 2
