"""What people say over HTTP: who they are, what is done in their name, and what guessing a token leads to."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from edgeagents.adapters.web import WebContext, make_app
from edgeagents.errors import UnavailableError
from edgeagents.protocol.gate import NeedsApproval
from services.guard.jobs import Job
from services.guard.people import People, add_people_routes
from tests.unit.services.guard.rig import Rig

ANN = "a-token-of-ann-000"


class Door:
    """The routes of a guard, and callers at any address."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.put: list[Job] = []
        self.last = 50
        self.is_broker_away = False
        self.people = People(rig.means, rig.approvals, self._take, self._last_sequence)
        self.app: FastAPI = make_app(WebContext("app-guard", "1", dict, None))
        add_people_routes(self.app, self.people, rig.approvals)

    async def _take(self, job: Job) -> None:
        self.put.append(job)

    async def _last_sequence(self) -> int:
        if self.is_broker_away:
            raise UnavailableError("nats is away")
        return self.last

    def caller(self, address: str = "10.0.0.1") -> httpx.AsyncClient:
        """Return a client that calls from an address."""
        transport = httpx.ASGITransport(app=self.app, client=(address, 5000))
        return httpx.AsyncClient(transport=transport, base_url="http://guard")

    async def post(self, path: str, token: str = ANN, *, address: str = "10.0.0.1", **body: Any) -> httpx.Response:
        """Return the answer to one call."""
        async with self.caller(address) as http:
            return await http.post(f"/api/v3/{path}", json=body, headers={"Authorization": f"Bearer {token}"})

    def park(self, name: str, agent: str = "air", *, wait_s: float = 60.0) -> None:
        """Let a command wait for a human."""
        rule = self.rig.owner.site.resources[3].model_copy(update={"approval_wait": wait_s})
        job = self.rig.job(name, "false", resource="Enabled", deadline_s=100.0 + wait_s, agent=agent)
        assert self.rig.approvals.park(job, NeedsApproval(rule, False, "false", "C")) == ""

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Return what was audited."""
        return [{key: value for key, value in item.items() if key != "kind"} for item in self.rig.records
                if item["kind"] == kind]  # fmt: skip


@pytest.fixture
async def door(rig: Rig) -> Door:
    return Door(rig)


async def test_a_pause_is_on_disk_audited_and_shown_when_it_is_answered(door: Door) -> None:
    answer = await door.post("pause", scope="device", name="valve", reason="painting")
    assert answer.status_code == 200
    assert answer.json()["paused"] == [
        {"scope": "device", "name": "valve", "by": "ann", "reason": "painting", "sinceUnixNs": door.rig.clocks.wall}
    ]
    assert door.records("paused") == [{"scope": "device", "name": "valve", "approver": "ann", "reason": "painting"}]
    assert door.rig.ledger.pauses() == [("device", "valve", "ann", "painting", door.rig.clocks.wall)]
    answer = await door.post("resume", scope="device", name="valve", reason="dry")
    assert (answer.status_code, answer.json()["paused"], door.rig.ledger.pauses()) == (200, [], [])
    assert door.records("resumed") == [{"scope": "device", "name": "valve", "approver": "ann", "reason": "dry"}]
    assert door.rig.orders.problem("air", "valve", 50).startswith("paused by ann: painting (resumed since")
    assert door.rig.orders.problem("air", "valve", 51) == ""


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("pause", {"scope": "device", "name": "nobody"}, 404, "core-metadata knows no device 'nobody'"),
        ("pause", {"scope": "agent", "name": "nobody"}, 404, "no agent file declares 'nobody': there are air, eye"),
        ("pause", {"scope": "agent"}, 400, "scope 'agent' needs the agent's name, not ''"),
        ("pause", {"scope": "all", "name": "air"}, 400, "scope 'all' needs no name, not 'air'"),
        ("pause", {"scope": "house", "name": "air"}, 400, "scope"),
        ("pause", {"scope": "all", "reason": "x" * 501}, 400, "reason"),
        ("resume", {"scope": "device", "name": "valve"}, 404, "device 'valve' is not paused: paused is nothing"),
        ("mode", {"name": "nobody", "mode": "act"}, 404, "no agent file declares 'nobody'"),
        ("mode", {"name": "air", "mode": "dance"}, 400, "mode"),
    ],
)
async def test_what_cannot_be_ordered_is_refused_clearly(
    door: Door, path: str, body: dict[str, Any], status: int, text: str
) -> None:
    answer = await door.post(path, **body)
    assert answer.status_code == status
    assert text in answer.json()["message"]
    assert (door.rig.orders.paused, door.rig.records) == ((), [])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("pause", {"scope": "all"}), ("resume", {"scope": "all"}), ("mode", {"name": "air", "mode": "observe"}),
        ("approval/c-1", {"decision": "approve"}),
    ],
)  # fmt: skip
async def test_without_an_approvers_token_nothing_is_ordered(door: Door, path: str, body: dict[str, Any]) -> None:
    door.park("c-1")
    answer = await door.post(path, "token-of-nobody-00", **body)
    assert answer.status_code == 401
    assert (door.rig.orders.paused, door.rig.orders.modes["air"], door.put) == ((), "act", [])


async def test_while_nobody_knows_the_devices_all_can_be_paused(rig: Rig) -> None:
    rig.known.clear()
    rig.is_ready = False
    door = Door(rig)
    answer = await door.post("pause", scope="device", name="valve")
    assert (answer.status_code, "pause all" in answer.json()["message"]) == (503, True)
    assert (await door.post("pause", scope="all")).status_code == 200


async def test_a_pause_refuses_what_waits_for_a_human_and_the_resume_does_not_bring_it_back(door: Door) -> None:
    door.park("c-1")
    door.park("c-2", agent="heat")
    await door.post("pause", scope="agent", name="air", reason="window cleaning")
    assert door.rig.told() == {"c-1": ("refused", "paused by ann: window cleaning")}
    assert door.rig.causes() == {"c-1": "order"}
    await door.post("resume", scope="agent", name="air")
    assert (await door.post("approval/c-1", decision="approve")).status_code == 404
    assert (await door.post("approval/c-2", decision="approve")).status_code == 200
    assert [job.command.id for job in door.put] == ["c-2"]


async def test_a_resume_that_does_not_know_what_was_given_meanwhile_does_not_happen(door: Door) -> None:
    await door.post("pause", scope="all")
    door.is_broker_away = True
    assert (await door.post("resume", scope="all")).status_code == 503
    assert [pause.place for pause in door.rig.orders.paused] == [("all", "")]


async def test_a_mode_is_audited_on_disk_and_the_agent_is_called(door: Door) -> None:
    answer = await door.post("mode", name="eye", mode="act", reason="it looked long enough")
    assert (answer.status_code, answer.json()["modes"]["eye"]) == (200, "act")
    assert door.records("mode") == [
        {"agent": "eye", "mode": "act", "approver": "ann", "reason": "it looked long enough"}
    ]
    assert door.rig.called == ["eye"]
    assert [row[:2] for row in door.rig.ledger.modes()] == [("eye", "act")]


async def test_an_approval_after_expiry_is_refused_and_marked_as_expired(door: Door) -> None:
    door.park("c-1")
    door.rig.clocks.now_s += 60.1
    answer = await door.post("approval/c-1", decision="approve")
    assert answer.status_code == 404
    assert "'c-1' has expired: it was to be approved earlier" in answer.json()["message"]
    assert door.put == []
    assert [job.command.id for job in door.rig.approvals.overdue()] == ["c-1"], "left to be marked"
    (record,) = door.records("approval")
    assert (record["approver"], record["decision"]) == ("ann", "approve")
    assert "has expired" in record["refused"]


class TestGuessing:
    """Somebody guesses an approver's token."""

    async def test_a_wrong_token_is_401_and_soon_429_with_a_growing_retry_after(self, door: Door) -> None:
        async with door.caller() as http:
            answers = [await http.get("/api/v3/approval") for _ in range(8)]
            assert [answer.status_code for answer in answers] == [401] * 6 + [429] * 2
            assert answers[-1].headers["Retry-After"] == "1"
            door.rig.clocks.now_s += 1
            assert (await http.get("/api/v3/approval")).status_code == 401
            again = await http.get("/api/v3/approval")
        assert (again.status_code, again.headers["Retry-After"]) == (429, "2")
        assert again.json()["statusCode"] == 429

    async def test_a_forwarded_address_is_nobodys_word(self, door: Door) -> None:
        async with door.caller() as http:
            codes = [
                (await http.get("/api/v3/approval", headers={"X-Forwarded-For": f"10.9.0.{number}"})).status_code
                for number in range(8)
            ]
        assert codes[-1] == 429

    @pytest.mark.timeout(300)
    async def test_of_10000_guesses_none_passes_and_the_right_token_still_approves(self, door: Door) -> None:
        """From ten addresses, over a quarter of an hour of the guard's clock."""
        door.park("c-1", wait_s=3600)
        codes: dict[int, int] = {}
        clients = [door.caller(f"10.0.1.{number}") for number in range(10)]
        for number in range(10_000):
            headers = {"Authorization": f"Bearer guess-{number:011}"}
            answer = await clients[number % 10].post(
                "/api/v3/approval/c-1", json={"decision": "approve"}, headers=headers
            )
            codes[answer.status_code] = codes.get(answer.status_code, 0) + 1
            door.rig.clocks.now_s += 0.09
        for client in clients:
            headers = {"Authorization": f"Bearer {ANN}"}
            answer = await client.post("/api/v3/approval/c-1", json={"decision": "approve"}, headers=headers)
            assert answer.status_code == 429, "who waits learns nothing of a right token either"
            await client.aclose()
        assert set(codes) == {401, 429}
        assert sum(codes.values()) == 10_000
        assert codes[401] < 300, codes
        assert door.put == [], "nothing was approved"
        answer = await door.post("approval/c-1", address="10.0.2.1", decision="approve")
        assert answer.status_code == 200
        assert [job.approver for job in door.put] == ["ann"]
        door.people.tell_of_guesses(at_once=True)
        (record,) = door.records("wrong-tokens")
        assert (record["tried"], record["compared"], len(record["addresses"])) == (10_010, codes[401], 8)
        assert len(door.rig.records) == 2, "one of the burst, one of the approval"

    async def test_a_burst_is_one_record_when_it_is_over(self, door: Door, caplog: pytest.LogCaptureFixture) -> None:
        async with door.caller() as http:
            await asyncio.gather(*(http.get("/api/v3/approval") for _ in range(50)))
        door.people.tell_of_guesses()
        assert door.records("wrong-tokens") == []
        door.rig.clocks.now_s += 5
        door.people.tell_of_guesses()
        assert door.records("wrong-tokens") == [{"tried": 50, "compared": 6, "addresses": ["10.0.0.1"], "seconds": 0.0}]
        assert caplog.text.count("a wrong approver's token from 10.0.0.1") == 1


async def test_agents_that_a_pause_may_concern_are_called_when_it_begins_and_ends(door: Door) -> None:
    for order in ({"scope": "agent", "name": "air"}, {"scope": "device", "name": "valve"}, {"scope": "all"}):
        for path in ("pause", "resume"):
            door.rig.called.clear()
            assert (await door.post(path, **order)).status_code == 200
            assert door.rig.called == (["air"] if order["scope"] == "agent" else ["air", "eye", "heat"])
