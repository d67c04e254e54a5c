"""Each agent is heard by itself, and no more of it than a little."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import cast

import pytest

from edgeagents.adapters.bus import Bus, BusMessage
from services.guard import reception as reception_module
from services.guard.reception import MOST_BYTES, MOST_HEARD, MOST_WAITING, Reception
from tests.contract.waiting import until
from tests.unit.services.guard.bus import Ended, MemoryBus


class Heard:
    """A reception that serves two agents, and what it brought to the handlers."""

    def __init__(self) -> None:
        self.bus, self.names, self.counts = MemoryBus(), ["air", "heat"], Counter[str]()
        self.seen: list[tuple[str, str]] = []
        self.data: list[bytes] = []
        self.refused: list[str] = []
        self.goes_on = asyncio.Event()  # handlers wait for it
        self.goes_on.set()
        self.reception = Reception(
            cast(Bus, self.bus), lambda: self.names,
            {"sessions": self.taker("sessions"), "leases": self.taker("leases")}, self.counts,
            {"leases": self.refuse},
        )  # fmt: skip

    def taker(self, kind: str) -> reception_module.Handle:
        async def take(agent: str, message: BusMessage) -> None:
            await self.goes_on.wait()
            self.seen.append((kind, agent))
            self.data.append(message.data)

        return take

    async def refuse(self, agent: str, message: BusMessage) -> None:
        self.refused.append(agent)

    async def send(self, subject: str, data: bytes = b"x") -> None:
        handler = self.bus.handler(subject)
        assert handler is not None
        await handler(BusMessage(subject, data))


@pytest.fixture
async def heard(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Heard]:
    monkeypatch.setattr(reception_module, "RENEW_S", 0.01)
    found = Heard()
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(found.reception.serve(tasks))
        await found.bus.subscribed.wait()
        await until(lambda: "gw.leases.heat" in found.bus.handlers, "all are heard")
        yield found
        found.names.clear()
        await until(lambda: "gw.leases.heat" not in found.bus.handlers, "none is heard any more")
        serving.cancel()
        for task in tasks._tasks:  # type: ignore[attr-defined]
            task.cancel()


async def test_each_agent_has_a_subscription_that_the_broker_ends(heard: Heard) -> None:
    for subject in ("gw.sessions.air", "gw.leases.air", "gw.sessions.heat", "gw.sessions.*", "gw.leases.*"):
        assert heard.bus.budgets[subject] == MOST_HEARD["leases" if "leases" in subject else "sessions"]


async def test_it_is_renewed_before_what_is_usual_meets_its_end(heard: Heard) -> None:
    first = heard.bus.handlers["gw.sessions.air"]
    for _ in range(MOST_HEARD["sessions"] // 2):
        await heard.send("gw.sessions.air")
    await until(lambda: heard.bus.handlers["gw.sessions.air"] is not first, "a new one")
    quiet = heard.bus.handlers["gw.sessions.heat"]
    await asyncio.sleep(0.05)
    assert heard.bus.handlers["gw.sessions.heat"] is quiet, "one that is hardly used is left alone"


async def test_what_is_on_its_way_to_the_former_one_is_heard_and_what_both_bring_is_heard_once(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception_module, "RENEW_S", 0.3)
    await asyncio.sleep(0.05)
    former = heard.bus.handlers["gw.leases.air"]
    for tell in heard.bus.watchers:
        tell()
    await until(lambda: heard.bus.handlers["gw.leases.air"] is not former, "a new one")
    newest = heard.bus.handlers["gw.leases.air"]
    for handler, data in (
        (newest, b"both"), (former, b"late"), (former, b"both"), (newest, b"later"), (former, b"later"),
    ):  # fmt: skip
        await handler(BusMessage("gw.leases.air", data, reply=f"_INBOX.{data.decode()}"))
    await newest(BusMessage("gw.leases.air", b"both", reply="_INBOX.again"))  # another request that says the same
    await until(lambda: len(heard.data) == 4, "all are heard")
    await asyncio.sleep(0.05)
    assert heard.data == [b"both", b"late", b"later", b"both"]


async def test_signs_of_life_that_nobody_answers_are_each_heard(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    former = heard.bus.handlers["gw.sessions.air"]
    monkeypatch.setattr(reception_module, "RENEW_S", 0.3)
    await asyncio.sleep(0.05)
    for tell in heard.bus.watchers:
        tell()
    await until(lambda: heard.bus.handlers["gw.sessions.air"] is not former, "a new one")
    for _ in range(3):
        await heard.send("gw.sessions.air", b"alive")
    await until(lambda: heard.data == [b"alive"] * 3, "all are heard")


async def test_a_copy_that_comes_after_the_former_one_was_let_go_is_not_heard_again(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker writes both copies, and may answer our flush between them."""
    former = heard.bus.handlers["gw.leases.air"]
    monkeypatch.setattr(reception_module, "RENEW_S", 0.1)
    await asyncio.sleep(0.05)
    for tell in heard.bus.watchers:
        tell()
    await until(lambda: heard.bus.handlers["gw.leases.air"] is not former, "a new one")
    newest, retired = heard.bus.handlers["gw.leases.air"], len(heard.bus.retired)
    message = BusMessage("gw.leases.air", b"one", reply="_INBOX.one")
    await former(message)
    await until(lambda: len(heard.bus.retired) > retired, "the former one is let go")
    await asyncio.sleep(0.02)
    await newest(message)
    await newest(BusMessage("gw.leases.air", b"two", reply="_INBOX.two"))
    await until(lambda: b"two" in heard.data, "the other is heard")
    assert heard.data == [b"one", b"two"]


async def test_the_former_one_is_ended_by_the_broker_first_and_dropped_at_the_next_look(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[object] = []
    monkeypatch.setattr(Ended, "unsubscribe", lambda ended: asyncio.sleep(0, dropped.append(ended)))
    for tell in heard.bus.watchers:
        tell()
    await until(lambda: len(heard.bus.retired) >= 6, "the former ones end")
    await until(lambda: len(dropped) >= 6, "and are forgotten later")
    monkeypatch.undo()
    assert {id(item) for item in heard.bus.retired} == {id(item) for item in dropped}


async def test_all_that_may_be_heard_may_wait_and_what_has_no_room_is_refused(heard: Heard) -> None:
    assert max(MOST_HEARD.values()) * 2 <= MOST_WAITING
    heard.goes_on.clear()
    for kind in ("leases", "sessions"):
        for number in range(MOST_WAITING + 1):
            await heard.send(f"gw.{kind}.air", b"%d" % number)
            await asyncio.sleep(0)  # the first is handled meanwhile
        await heard.send(f"gw.{kind}.air", b"one too many")
    assert (heard.refused, heard.counts["dropped"]) == (["air"], 2), "nobody waits for an answer to a sign of life"
    heard.goes_on.set()
    await until(lambda: len(heard.seen) == 2 * (MOST_WAITING + 1), "all others are heard")


async def test_who_is_heard_by_itself_is_no_stranger_that_sends_too_much(
    heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    first = heard.bus.handlers["gw.sessions.*"]
    for _ in range(MOST_HEARD["sessions"]):
        await first(BusMessage("gw.sessions.air", b"x"))
    await until(lambda: heard.bus.handlers["gw.sessions.*"] is not first, "it is used up all the same")
    assert "far more" not in caplog.text
    first = heard.bus.handlers["gw.sessions.*"]
    for _ in range(MOST_HEARD["sessions"]):
        await first(BusMessage("gw.sessions.evil", b"x"))
    await until(lambda: "a stranger sends far more sessions" in caplog.text, "a stranger's are told")


async def test_a_link_that_comes_back_has_them_end_again(heard: Heard) -> None:
    first = dict(heard.bus.handlers)
    for tell in heard.bus.watchers:
        tell()
    await until(lambda: all(heard.bus.handlers[name] is not first[name] for name in first), "all are new")


async def test_strangers_share_one_and_who_is_known_is_not_heard_twice(heard: Heard) -> None:
    await heard.send("gw.sessions.evil")
    await heard.bus.handlers["gw.sessions.*"](BusMessage("gw.sessions.air", b"x"))
    await heard.send("gw.leases.air")
    await until(lambda: len(heard.seen) == 2, "two")
    assert sorted(heard.seen) == [("leases", "air"), ("sessions", "evil")]


@pytest.mark.parametrize(("size", "is_heard"), [(MOST_BYTES, True), (MOST_BYTES + 1, False), (8 << 20, False)])
async def test_what_is_too_long_is_counted_and_not_kept(heard: Heard, size: int, is_heard: bool) -> None:
    await heard.send("gw.sessions.air", b"x" * size)
    await heard.send("gw.sessions.heat")
    await until(lambda: ("sessions", "heat") in heard.seen, "the one after it")
    assert (("sessions", "air") in heard.seen) is is_heard
    assert heard.counts["rejected"] == (not is_heard)


async def test_who_is_new_is_heard_and_who_is_gone_is_a_stranger(heard: Heard) -> None:
    heard.names[:] = ["heat", "night"]
    await until(lambda: "gw.sessions.night" in heard.bus.handlers, "the new one is heard")
    await until(lambda: "gw.sessions.air" not in heard.bus.handlers, "the old one is heard by itself no more")
    await heard.send("gw.sessions.air")
    await until(lambda: ("sessions", "air") in heard.seen, "but as a stranger")
