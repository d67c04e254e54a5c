"""The desk of an agent that leads: bad bytes, strangers and askers without an inbox do nothing; routes say why not."""

import json
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import CONTENT_TYPE, Bus, BusMessage
from edgeagents.adapters.task_pages import OneTask, TaskGiven, TaskList
from edgeagents.adapters.web import WebContext, make_app
from edgeagents.errors import UnavailableError
from edgeagents.model.cooperation import Announcement, LedgerAsk, LedgerTold
from edgeagents.protocol.conversation import Tell, act
from services.agent.leading_desk import LeadingDesk, add_leading_routes
from services.agent.shown import LeadingState
from tests.unit.services.agent.test_leading import WANTED, Rig

TASK = json.loads(WANTED.model_dump_json(by_alias=True, exclude_defaults=True))
JSON = {CONTENT_TYPE: wire.JSON}


class FakeBus:
    """Keeps what is published; `is_down` refuses all of it."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(gateway="gw")
        self.published: list[tuple[str, bytes, Mapping[str, str] | None]] = []
        self.is_down = False

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        if self.is_down:
            raise UnavailableError("the link is down")
        self.published.append((subject, data, headers))

    async def respond(self, message: BusMessage, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        await self.publish(message.reply, data, headers)


@pytest.fixture
def rig() -> Rig:
    """Ada, who may lead, and bob."""
    return Rig()


def desk_of(rig: Rig) -> tuple[LeadingDesk, FakeBus]:
    """Return a desk in front of what ada leads, and its bus."""
    bus = FakeBus()
    return LeadingDesk(cast(Bus, bus), "ada", rig.leading), bus


async def test_bad_bytes_and_bad_names_are_counted_by_cause(rig: Rig) -> None:
    desk, bus = desk_of(rig)
    await rig.leading.submit(WANTED, "http")
    await desk._on_answer(BusMessage("gw.peer-answers.ada.bob", b"\xff\xff"))
    await desk._on_answer(BusMessage("gw.peer-answers.ada.=YQ", b""))
    await desk._on_ledger(BusMessage("gw.peer-ledger.ada.bob", b"\xff\xff"))
    await desk._on_announcement(BusMessage("gw.roster.bob", b"\xff\xff"))
    counts = rig.leading.counts
    assert (counts["refused_not-decodable"], counts["refused_unknown-name"]) == (2, 1)
    assert counts["refused_announcement"] == 1
    assert bus.published == []


async def test_while_nothing_is_led_what_agents_say_is_not_read(rig: Rig) -> None:
    desk, _ = desk_of(rig)
    await desk._on_answer(BusMessage("gw.peer-answers.ada.bob", b"\xff\xff"))
    assert rig.leading.counts == {"refused_other-conversation": 1}


async def test_a_ledger_answers_where_only_the_asker_hears_it_in_the_askers_encoding(rig: Rig) -> None:
    desk, bus = desk_of(rig)
    asked = LedgerAsk(verb="take", task="t", epoch=1, incarnation="r")
    await desk._on_ledger(BusMessage("gw.peer-ledger.ada.bob", wire.encode(asked, wire.JSON), JSON, "_INBOX.trap"))
    await rig.leading.submit(WANTED, "http")
    await desk._on_ledger(BusMessage("gw.peer-ledger.ada.bob", wire.encode(asked)))
    unknown = LedgerAsk(verb="burn", task="t")
    await desk._on_ledger(BusMessage("gw.peer-ledger.ada.bob", wire.encode(unknown)))
    assert {subject for subject, _, _ in bus.published} == {subjects.peer("gw", "peer-ledger-told", "bob", "ada")}
    (_, first, headers), (_, second, _), (_, third, _) = bus.published
    assert "no task 't' is known here" in wire.decode(LedgerTold, first, wire.JSON).problem
    assert headers == JSON
    assert wire.decode(LedgerTold, second).problem == "epoch 1 of task 't' is over, now it is 0"
    assert "read, take, or close" in wire.decode(LedgerTold, third).problem


async def test_who_asks_without_an_inbox_of_the_right_kind_gets_no_word_written_anywhere(rig: Rig) -> None:
    desk, bus = desk_of(rig)
    subject = subjects.peer_task("gw", "ada", "submit", "owner")
    for reply in ("", "_INBOX.agent-bob.x", "gw.commands.valve.ada", "_INBOX.micro"):
        await desk._on_request(BusMessage(subject, json.dumps(TASK).encode(), {}, reply))
    assert (bus.published, rig.leading.book.open) == ([], {})
    await desk._on_request(BusMessage(subject, json.dumps(TASK).encode(), {}, "_INBOX.micro.x"))
    ((where, data, _),) = bus.published
    assert (where, json.loads(data)["statusCode"], list(rig.leading.book.open)) == ("_INBOX.micro.x", 202, ["t"])


async def test_over_nats_only_who_gave_it_or_the_owner_cancels_it(rig: Rig) -> None:
    desk, bus = desk_of(rig)
    await rig.leading.submit(WANTED, "rule-engine")

    async def asked(verb: str, sender: str, body: bytes) -> int:
        await desk._on_request(
            BusMessage(subjects.peer_task("gw", "ada", verb, sender), body, {}, "_INBOX.micro.x")
        )  # fmt: skip
        return int(json.loads(bus.published[-1][1])["statusCode"])

    assert await asked("cancel", "somebody", b'{"id": "t"}') == 403
    assert await asked("get", "somebody", b'{"id": "t"}') == 200
    assert await asked("get", "somebody", b'{"id": "u"}') == 404
    assert await asked("list", "somebody", b"{}") == 200
    assert await asked("submit", "owner", b"{" * 10) == 400
    assert await asked("submit", "owner", b" " * 20_000) == 413
    assert await asked("burn", "owner", b"{}") == 400
    assert await asked("cancel", "owner", b'{"id": "t"}') == 200
    assert rig.leading.record("t").state == "cancelled"


async def test_what_cannot_be_said_is_counted_and_the_desk_goes_on(rig: Rig) -> None:
    desk, bus = desk_of(rig)
    rig.leading.announced("bob", Announcement(incarnation="r", skills=("set",), hears_peers=True), wire.JSON)
    rig.leading.send(Tell("bob", act("cancel", "t")))
    bus.is_down = True
    await desk._publish("peer-acts", "bob", act("cancel", "t"), wire.PROTOBUF)
    assert rig.leading.counts["acts_lost"] == 1
    assert len(desk._to_send) == 1


async def test_routes_give_list_and_cancel_tasks_as_their_pages_say(rig: Rig) -> None:
    app = make_app(WebContext("app-agent-ada", "4.0.0", dict, None))
    add_leading_routes(app, rig.leading)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ada") as http:
        given = await http.post("/api/v3/task", json={"apiVersion": "v3", "requestId": "r", "task": TASK})
        assert (given.status_code, TaskGiven.model_validate(given.json()).request_id) == (202, "r")
        assert (await http.post("/api/v3/task", json=TASK)).status_code == 200
        many = await http.post("/api/v3/task", json=[TASK, TASK | {"id": "u"}, TASK | {"id": "v", "value": "hot"}])
        assert (many.status_code, [item["statusCode"] for item in many.json()]) == (207, [200, 202, 400])
        assert (await http.post("/api/v3/task", content=b"{")).status_code == 400
        listed = TaskList.model_validate((await http.get("/api/v3/task/all?limit=1")).json())
        assert listed.total_count == 1
        assert OneTask.model_validate((await http.delete("/api/v3/task/id/t")).json()).task.state == "cancelled"
        rig.watch.presence, rig.watch.problem = "there", "app-coordinator is there: give it to it"
        refused = await http.post("/api/v3/task", json=TASK | {"id": "w"})
        assert (refused.status_code, refused.json()["message"]) == (409, rig.watch.problem)
        state = LeadingState.model_validate((await http.get("/api/v3/leading")).json())
    assert (state.coordinator, state.open, state.ended, state.agents) == ("there", 1, 1, 2)


def test_the_page_of_an_agents_state_allows_what_is_shown(rig: Rig) -> None:
    shown: dict[str, Any] = {"apiVersion": "v3", "statusCode": 200, **rig.leading.state()}
    assert set(shown) == {field.alias or name for name, field in LeadingState.model_fields.items()}
