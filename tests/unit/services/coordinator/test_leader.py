"""The leader: nothing is told, counted or shown before it is on disk; a pause is held against nobody. No broker."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus
from edgeagents.audit import Audit
from edgeagents.errors import InvalidInputError, NotFoundError, TooManyAttemptsError, UnavailableError
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.cooperation import Act, Announcement, Bid
from edgeagents.model.device import Device
from edgeagents.model.task import TaskWanted
from edgeagents.protocol.conversation import act
from edgeagents.protocol.eligibility import Site
from edgeagents.protocol.roster import GONE_S
from edgeagents.protocol.task_book import Book, Times
from edgeagents.protocol.task_ledger import CloseTask, TakeTask
from edgeagents.protocol.task_record import Record
from edgeagents.settings import BusSettings
from edgeagents.task_engine import STALL_S
from services.coordinator import leader as module
from services.coordinator.journal import Journal
from services.coordinator.leader import Leader
from tests.valves import PROFILE

WANTED = TaskWanted(skill="set", device_name="valve", resource_name="Setpoint", value="21", deadline_s=60.0)


class Clock:
    """A clock that tests set."""

    now_s = 1_000.0

    def now(self) -> float:
        return self.now_s

    def after(self, s: float) -> None:
        self.now_s = max(self.now_s, s)


class Paper:
    """A journal whose disk is as slow as a test wants."""

    def __init__(self) -> None:
        self.then: list[Callable[[], None]] = []
        self.forgotten: list[str] = []
        self.has_room = True
        self.is_quick = True
        self.found: list[Record] = []

    async def open(self) -> list[Record]:
        return self.found

    def put(self, record: Record | None, then: Callable[[], None] | None = None) -> None:
        self.then += [then] if then is not None else []
        if self.is_quick:
            self.sync()

    def sync(self) -> None:
        waiting, self.then = self.then, []
        for call in waiting:
            call()

    async def stored_then(self, record: Record | None) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.put(record, lambda: done.set_result(None))
        await done

    def forget(self, task: str) -> None:
        self.forgotten.append(task)


class Link:
    """A bus that is there and says nothing."""

    settings = BusSettings(gateway="gw")
    is_connected = True


class Trail:
    """The audit's records, kept in a list."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    def append(self, kind: str, **body: Any) -> None:
        self.kinds.append(kind)


class Led:
    """A leader with all that is played around it."""

    def __init__(self, most_ended: int = 10) -> None:
        self.paper, self.trail, self.clock = Paper(), Trail(), Clock()
        self.leader = Leader(
            cast(Bus, Link()), Book(Times(), most_ended=most_ended), cast(Journal, self.paper),
            cast(Audit, self.trail), lambda: self.site, self._seek, 32, "run",
        )  # fmt: skip
        self.site = Site({}, {}, {})
        self.lost: dict[str, Device] = {}  # devices that core-metadata has and we were not told of
        self.sought: list[str] = []
        self.leader.clock = cast(module.LedgerClock, self.clock)
        self.leader.engine.begin_anew()
        self.leader.is_serving.set()

    async def _seek(self, name: str) -> None:
        self.sought.append(name)
        self.site = replace(self.site, devices={**self.site.devices, **self.lost})

    async def taken(self, task: str) -> None:
        """Have ada take a task."""
        leader = self.leader
        leader.announced("ada", Announcement(incarnation="run", skills=("set",)))
        await leader.submit(WANTED.model_copy(update={"id": task}), "dan")
        leader.heard("ada", act("propose", task, bid=Bid(cost=1.0)))
        turn = await leader.asked("ada", task, TakeTask(task, 1, "run"), "")
        assert turn.record.state == "taken"

    def passes(self, s: float) -> None:
        """Let time pass in which the leader runs."""
        for _ in range(round(s / 0.25)):
            self.clock.now_s += 0.25
            self.leader.engine.now()


@pytest.fixture
def led(monkeypatch: pytest.MonkeyPatch) -> Led:
    """A leader that finds ada able to do everything."""

    def able(_: TaskWanted, __: Site) -> list[str]:
        return ["ada"]

    monkeypatch.setattr(module, "able", able)
    return Led()


async def test_an_end_is_shown_counted_and_audited_once_it_is_on_disk_and_not_before(led: Led) -> None:
    await led.taken("t")
    leader = led.leader
    led.paper.is_quick = False
    queue = leader.watch("t")
    cancelling = asyncio.ensure_future(leader.cancel("t", "dan"))
    await asyncio.sleep(0)
    assert (leader.record("t").state, leader.listed()[0]["state"]) == ("taken", "taken")
    assert (leader.counts["cancelled"], led.trail.kinds.count("task"), queue.empty()) == (0, 0, True)
    assert not cancelling.done()
    led.paper.sync()
    assert (await cancelling).state == "cancelled"
    assert (leader.record("t").state, leader.counts["cancelled"], led.trail.kinds.count("task")) == ("cancelled", 1, 1)
    assert queue.get_nowait().state == "cancelled"


async def test_a_task_is_unknown_until_it_is_on_disk(led: Led) -> None:
    led.paper.is_quick = False
    giving = asyncio.ensure_future(led.leader.submit(WANTED.model_copy(update={"id": "t"}), "dan"))
    await asyncio.sleep(0)
    with pytest.raises(NotFoundError):
        led.leader.record("t")
    led.paper.sync()
    assert (await giving)[1]
    assert led.leader.record("t").state == "open"


async def test_nothing_is_said_of_tasks_before_they_were_read_back(led: Led) -> None:
    led.leader.is_serving.clear()
    with pytest.raises(UnavailableError):
        led.leader.record("t")
    with pytest.raises(UnavailableError):
        led.leader.listed()
    with pytest.raises(UnavailableError):
        await led.leader.cancel("t", "dan")


async def test_who_had_taken_a_task_is_not_gone_because_we_were_paused(led: Led) -> None:
    await led.taken("t")
    led.clock.now_s += 8.0  # no code ran: announcements wait in the socket
    led.leader.engine.end_gone()
    assert led.leader.book.record("t").state == "taken"
    assert led.leader.counts["stalls"] == 1
    led.passes(GONE_S + 0.5)  # now we listen, and nothing comes
    led.leader.engine.end_gone()
    assert led.leader.book.record("t").state == "failed"


async def test_who_announces_in_json_is_spoken_to_in_json_and_in_protobuf_once_it_does_so(led: Led) -> None:
    leader, said = led.leader, Announcement(incarnation="run", skills=("set",))
    for number, content_type in enumerate((wire.JSON, wire.PROTOBUF, wire.JSON)):
        leader.announced("ada", said, content_type)
        await leader.submit(WANTED.model_copy(update={"id": f"t-{number}"}), "dan")
        _, data, told_in = leader._sending[-1]
        assert told_in == content_type
        assert wire.decode(Act, data, told_in).performative == "cfp"


async def test_one_call_is_written_once_for_each_encoding(led: Led, monkeypatch: pytest.MonkeyPatch) -> None:
    leader, names, written = led.leader, [f"agent-{number}" for number in range(10)], list[str]()
    encode = wire.encode

    def counted(said: Act, content_type: str) -> bytes:
        written.append(content_type)
        return encode(said, content_type)

    monkeypatch.setattr(module, "able", lambda wanted, site: names)
    monkeypatch.setattr(module.wire, "encode", counted)
    for number, name in enumerate(names):  # one after the other in the other encoding
        leader.announced(name, Announcement(incarnation="r"), wire.JSON if number % 2 else wire.PROTOBUF)
    await leader.submit(WANTED.model_copy(update={"id": "t"}), "eve")
    assert len(leader._sending) == 10
    assert sorted(written) == [wire.JSON, wire.PROTOBUF]


async def test_a_moment_is_no_pause(led: Led) -> None:
    led.clock.now_s += STALL_S
    led.leader.engine.now()
    assert led.leader.counts["stalls"] == 0


async def test_a_watcher_of_one_task_gets_its_end_whatever_happens_to_others(led: Led) -> None:
    await led.taken("t")
    queue = led.leader.watch("t")
    for number in range(module.MOST_UNREAD + 5):
        led.leader._stored(replace(led.leader.book.record("t"), task=f"other-{number}"))
    await led.leader.asked("ada", "t", CloseTask("t", 1, "ada", "done"), "proven")
    assert queue.get_nowait().state == "done"
    assert queue.empty()


async def test_what_is_remembered_no_more_is_forgotten_on_disk(monkeypatch: pytest.MonkeyPatch, led: Led) -> None:
    led = Led(most_ended=1)
    for task in ("a", "b"):
        await led.taken(task)
        await led.leader.cancel(task, "dan")
    assert led.paper.forgotten == ["a"]
    with pytest.raises(NotFoundError):
        led.leader.record("a")


async def test_a_device_whose_notice_was_lost_is_asked_for_before_its_task_is_refused() -> None:
    ada = AgentDefinition.model_validate({
        "name": "ada", "watches": [{"profile": "Valve"}], "may": [{"profile": "Valve", "resource": "Setpoint"}],
        "skills": [{"name": "set"}],
    })  # fmt: skip
    led = Led()
    led.site = Site({"ada": ada}, {}, {"Valve": PROFILE})
    with pytest.raises(InvalidInputError, match="knows no device 'valve'"):
        await led.leader.submit(WANTED, "dan")
    led.lost = {"valve": Device(name="valve", profile_name="Valve")}
    await led.taken("t")
    assert (await led.leader.submit(WANTED.model_copy(update={"id": "t"}), "dan"))[1] is False
    assert led.sought == ["valve", "valve"]


async def test_a_nearly_full_stream_takes_no_new_task_and_brings_the_others_to_their_end(led: Led) -> None:
    await led.taken("t")
    led.paper.has_room = False
    with pytest.raises(TooManyAttemptsError, match="80% full"):
        await led.leader.submit(WANTED, "dan")
    assert (await led.leader.submit(WANTED.model_copy(update={"id": "t"}), "dan"))[1] is False
    assert (await led.leader.cancel("t", "dan")).state == "cancelled"


async def test_a_clock_that_was_set_back_does_not_lengthen_what_was_stored(led: Led) -> None:
    await led.taken("t")
    led.paper.found = [led.leader.book.record("t")]
    after = Led()
    after.clock.now_s = 1_000.0 - 3_600.0  # the wall clock was set back by an hour while the first one ran
    after.paper.found = led.paper.found
    await after.leader.restore()
    assert after.clock.now_s >= led.clock.now_s
