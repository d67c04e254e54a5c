"""What people are told, over a support-notifications that checks EdgeX's contract; and that nobody waits for it."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from edgeagents.adapters.live_config import LiveConfig
from edgeagents.adapters.rest import Address, FixedAddress, Rest
from edgeagents.errors import UnavailableError
from edgeagents.model.message import CommandId, Outcome
from services.guard import notices as notices_module
from services.guard.notices import KEPT_S, MOST_QUEUED, Notices, NotificationsAddress
from tests.unit.services.guard.rig import Rig

WORD = re.compile(r"^[a-zA-Z0-9\-_~:;=]+$")  # EdgeX: edgex-dto-rfc3986-unreserved-chars
UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")


def contract_problem(item: Any) -> str:
    """Return what of core-contracts' AddNotificationRequest a request breaks; empty when nothing."""
    if item.get("apiVersion") != "v3" or not UUID.match(item.get("requestId", "")):
        return "apiVersion or requestId"
    notification = item.get("notification")
    if not isinstance(notification, dict) or not UUID.match(notification.get("id", "")):
        return "notification.id"
    words = [notification.get("sender", ""), notification.get("category", ""), *notification.get("labels", [])]
    if not all(WORD.match(word) for word in words):
        return "sender, category or labels"
    if notification.get("severity") not in ("MINOR", "NORMAL", "CRITICAL") or not notification.get("content"):
        return "severity or content"
    return ""


class FakeSupport:
    """A support-notifications: 207 with 201 for each new one, 409 for an id it has, 400 for a broken contract."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self.problems: list[str] = []
        self.calls = 0
        self.plan: list[str] = []  # of each call: ok, away, refused, lost (held, but the answer is not heard)
        self.app = FastAPI()
        self.app.post("/api/v3/notification")(self._add)
        self.asgi = httpx.ASGITransport(app=self.app)

    async def _add(self, request: Request) -> JSONResponse:
        results = []
        for item in await request.json():
            problem = contract_problem(item)
            if problem:
                self.problems.append(problem)
                return JSONResponse({"apiVersion": "v3", "message": problem, "statusCode": 400}, 400)
            body = item["notification"]
            status = 409 if body["id"] in self.held else 201
            self.held.setdefault(body["id"], body)
            results.append({"apiVersion": "v3", "requestId": item["requestId"], "statusCode": status, "id": body["id"]})
        return JSONResponse(results, 207)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        what = self.plan.pop(0) if self.plan else "ok"
        if what == "away":
            raise httpx.ConnectError("refused", request=request)
        if what == "refused":
            return httpx.Response(500, json={"message": "database is full"})
        response = await self.asgi.handle_async_request(request)
        await response.aread()
        if what == "lost":
            raise httpx.ReadTimeout("no answer", request=request)
        return response

    @property
    def contents(self) -> list[str]:
        """What people read."""
        return [item["content"] for item in self.held.values()]


class Desk:
    """Notices of a rig, sent to a fake; pauses move the clock."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.support = rig, FakeSupport()
        self.pauses: list[float] = []
        http = httpx.AsyncClient(transport=httpx.MockTransport(self.support.answer))
        rest = Rest("support-notifications", FixedAddress("http://support:59860"), http)
        self.notices = Notices(rest, "app-guard", rig.clocks.now, self._pause)

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.rig.clocks.now_s += seconds
        await asyncio.sleep(0)

    def wanted(self, name: str = "c-1", value: str = "false", **changes: Any) -> None:
        """Tell of a command that waits."""
        self.notices.wanted("air", self.rig.job(name, value, resource="Enabled", **changes).command, "C")

    def refused(self, reason: str, *, agent: str = "air", resource: str = "Open", status: str = "refused") -> None:
        """Tell of an outcome."""
        outcome = Outcome(
            command_id=CommandId("c-1"), device="valve", resource=resource, status=cast(Any, status), reason=reason,
            value="true",
        )  # fmt: skip
        self.notices.ended(agent, outcome, self.rig.owner.site)

    @contextlib.asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Send inside the block, and all that is queued before its end."""
        task = asyncio.create_task(self.notices.run())
        yield
        await asyncio.wait_for(self.notices._queue.join(), 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def desk(rig: Rig) -> Desk:
    return Desk(rig)


INTERLOCK = "interlock 'one-open': valve/Open is True while pump/Open is True"


async def test_a_command_that_waits_is_told_with_what_to_type(desk: Desk) -> None:
    async with desk.sending():
        desk.wanted(because="it is\x1b[31m hot\n")
    (notice,) = desk.support.held.values()
    assert (notice["category"], notice["severity"], notice["sender"]) == ("approval", "NORMAL", "app-guard")
    assert notice["labels"] == ["edgeagents", "approval"]
    assert notice["content"] == (
        "air wants valve/Enabled = false (class C): it is [31m hot \n`edgeagents approvals approve c-1` lets it pass"
    )
    assert (desk.support.problems, desk.notices.counts) == ([], {"sent": 1})


async def test_an_interlock_that_stops_a_command_is_told_as_critical(desk: Desk) -> None:
    async with desk.sending():
        desk.refused(f"set 3 s ago: wait 57 s more; {INTERLOCK}")
    (notice,) = desk.support.held.values()
    assert (notice["category"], notice["severity"]) == ("interlock", "CRITICAL")
    assert notice["content"].startswith("interlock 'one-open' stopped air: valve/Open = true: set 3 s ago")


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("outside the owner's range", {}),
        (INTERLOCK, {"status": "failed"}),
        (INTERLOCK, {"resource": "Setpoint"}),  # an agent's own text may say anything
        ("interlock 'made-up': x", {}),
    ],
)
async def test_other_refusals_are_not_told(desk: Desk, reason: str, changes: dict[str, Any]) -> None:
    async with desk.sending():
        desk.refused(reason, **changes)
    assert desk.support.calls == 0


async def test_the_same_again_is_told_once_a_minute_of_wall_time(desk: Desk) -> None:
    async with desk.sending():
        for _ in range(100):
            desk.refused(INTERLOCK)
            desk.wanted()
        desk.refused(INTERLOCK, agent="heat")
        desk.wanted(value="true")
        desk.rig.clocks.site_s += 3600
        desk.refused(INTERLOCK)
        desk.rig.clocks.now_s += 60
        desk.refused(INTERLOCK)
    assert desk.notices.counts == {"sent": 5, "repeated": 199}


async def test_long_texts_of_agents_are_cut(desk: Desk) -> None:
    async with desk.sending():
        desk.wanted(value="9" * 16_000, because="x" * 2000)
        desk.refused(INTERLOCK + "y" * 1900)
    assert [len(text) < 600 for text in desk.support.contents] == [True, True]


async def test_while_it_is_away_notices_wait_are_told_once_and_go_out_afterwards(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.support.plan = ["away", "away", "away", "ok"]
    async with desk.sending():
        desk.wanted()
        desk.refused(INTERLOCK)
    assert (len(desk.support.held), desk.pauses, desk.notices.counts["sent"]) == (2, [1, 2, 4], 2)
    assert caplog.text.count("people are not notified") == 1


async def test_what_is_too_old_is_counted_and_dropped(desk: Desk) -> None:
    desk.support.plan = ["away"] * 50
    async with desk.sending():
        desk.wanted()
    assert (desk.notices.counts, desk.support.held) == ({"failed": 1}, {})
    assert sum(desk.pauses) < KEPT_S + 30
    assert max(desk.pauses) == 30


async def test_an_answer_that_got_lost_gives_no_second_notice(desk: Desk) -> None:
    desk.support.plan = ["lost"]
    async with desk.sending():
        desk.wanted()
    assert (len(desk.support.held), desk.support.calls, desk.notices.counts) == (1, 2, {"sent": 1})


async def test_a_refused_notice_is_counted_and_the_next_one_goes_out(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.support.plan = ["refused"]
    async with desk.sending():
        desk.wanted()
        desk.refused(INTERLOCK)
    assert desk.notices.counts == {"failed": 1, "sent": 1}
    assert "database is full" in caplog.text


def test_a_full_queue_holds_nobody_up(desk: Desk) -> None:
    for number in range(3 * MOST_QUEUED):
        desk.wanted("c-1", str(number))
    assert desk.notices.counts == {"dropped": 2 * MOST_QUEUED}


def test_what_is_remembered_is_bounded(desk: Desk) -> None:
    for number in range(2000):
        desk.notices._queue = asyncio.Queue(MOST_QUEUED)
        desk.wanted("c-1", str(number))
    assert len(desk.notices._known) == notices_module.MOST_KNOWN


@pytest.mark.parametrize(
    ("client", "registered", "found"),
    [
        ({"Host": "own", "Port": 1}, "http://registered:2", "http://own:1"),
        ({"Host": "own", "Port": 1, "Protocol": "https"}, None, "https://own:1"),
        (None, "http://registered:2", "http://registered:2"),
        ({"Host": ""}, "http://registered:2", "http://registered:2"),
    ],
)
async def test_it_is_found_by_the_guards_own_entry_or_the_registry(
    client: Any, registered: str | None, found: str
) -> None:
    config = cast(LiveConfig, SimpleNamespace(get=lambda path: client))
    registry: Address | None = FixedAddress(registered) if registered else None
    assert await NotificationsAddress(config, registry).base_url() == found


async def test_without_entry_and_registry_it_is_said_what_to_set() -> None:
    config = cast(LiveConfig, SimpleNamespace(get=lambda path: None))
    with pytest.raises(UnavailableError, match="set Clients/support-notifications, or start with --registry"):
        await NotificationsAddress(config, None).base_url()
