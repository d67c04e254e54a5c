"""A real coordinator on a real broker: tasks given by HTTP and NATS, agents that bid well, badly, or not at all."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.model.cooperation import Bid, LedgerAsk
from edgeagents.model.message import AuditRecord
from edgeagents.protocol.conversation import act
from tests.bidders import Bidder
from tests.contract.waiting import until
from tests.coordinated import Coordinated, Owner, owner_of
from tests.guarded import patiently
from tests.nats import free_port

AGENTS = ("ada", "bob", "cyd", "dan")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinated]:
    """One gateway for all tests of this file."""
    found = Coordinated(tmp_path_factory.mktemp("coordinated"), AGENTS)
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
async def owner(gateway: Coordinated) -> AsyncIterator[Owner]:
    """Whoever gives tasks; the coordinator runs."""
    async with owner_of(gateway) as found:
        await found.up()
        yield found


@pytest.fixture
async def bidders(owner: Owner) -> AsyncIterator[dict[str, Bidder]]:
    """Three agents: ada is the cheapest, cyd never answers."""
    async with AsyncExitStack() as stack:
        found = {}
        for name, cost, is_silent in (("ada", 1.0, False), ("bob", 2.0, False), ("cyd", 0.5, True)):
            bidder = found[name] = await Bidder(owner.bus, name, cost, is_silent=is_silent).start()
            stack.push_async_callback(bidder.die)
        await owner.up(agents=3)
        yield found


async def audited(owner: Owner, kind: str, task: str) -> list[dict[str, object]]:
    """Return the bodies of the coordinator's audit records of a kind about a task, once there is one."""

    async def read() -> list[dict[str, object]]:
        found = owner.bus.read(subjects.AUDIT_STREAM, [subjects.audits("gw")], name="look")
        records = [wire.decode(AuditRecord, message.data) async for message in found]
        bodies = [json.loads(record.body) for record in records if record.kind == kind]
        return [body for body in bodies if body.get("task") == task]

    found: list[dict[str, object]] = await until(lambda: patiently(read), f"{kind} of {task}", timeout_s=60)
    return found


async def award_of(owner: Owner, task: str) -> dict[str, Any]:
    """Return the first award of a task, once there is one: its winner and the bids."""

    async def first() -> dict[str, Any] | None:
        awards = (await owner.task(task))["awards"]
        return awards[0] if awards else None

    found: dict[str, Any] = await until(first, f"{task} is awarded", timeout_s=60)
    return found


async def bid_for(owner: Owner, name: str, *bidders: str, **task: Any) -> str:
    """Give tasks until these have bid for one; return its name: a bid has half a second, a machine may need longer."""
    for number in range(10):
        given = f"{name}-{number}"
        answer = await owner.give(id=given, **task)
        assert (answer.status_code, answer.json().get("id")) == (202, given), answer.text
        if set((await award_of(owner, given))["bids"]) >= set(bidders):
            return given
        await owner.ended(given)
    raise AssertionError(f"{bidders} never bid in time")


async def test_the_best_bid_wins_and_the_audit_says_why(owner: Owner, bidders: dict[str, Bidder]) -> None:
    """The cheapest does it, is credited the second best; the silent one holds nobody up for longer than bids may."""
    first = await bid_for(owner, "first", "ada", "bob")
    task = await owner.ended(first)
    assert (task["state"], task["winner"]) == ("done", "ada")
    performed = {
        name: [done for done in bidder.performed.items() if done[0][0] == first] for name, bidder in bidders.items()
    }
    assert performed == {"ada": [((first, 1), 1)], "bob": [], "cyd": []}
    (award,) = await audited(owner, "award", first)
    assert (award["winner"], award["runner_up"], award["bids"], award["price"]) == (
        "ada", "bob", {"ada": 1.0, "bob": 2.0}, 2.0,
    )  # fmt: skip
    (end,) = await audited(owner, "task", first)
    assert (end["state"], end["reason"]) == ("done", "played")


async def test_a_task_given_twice_is_one_and_its_id_is_nobody_elses(owner: Owner, bidders: dict[str, Bidder]) -> None:
    first, second = await asyncio.gather(owner.give(id="twice"), owner.give(id="twice"))
    assert sorted((first.status_code, second.status_code)) == [200, 202]
    assert (await owner.give(id="twice", value=19.0)).status_code == 409
    await owner.ended("twice")
    assert (await owner.give(id="twice")).status_code == 200
    assert (
        sum(count for item in bidders.values() for (task, _), count in item.performed.items() if task == "twice") == 1
    )


@pytest.mark.parametrize(
    ("change", "status", "text"),
    [
        ({"skill": "dance"}, 400, "no agent has skill 'dance'"),
        ({"deviceName": "valve-77"}, 400, "no device 'valve-77'"),
        ({"resourceName": "Colour"}, 400, "no resource 'Colour'"),
        ({"value": 99}, 400, "outside the profile's range"),
        ({"value": "warm"}, 400, "Setpoint"),
        ({"deadlineS": -5}, 400, "in the past"),
        ({"deadlineS": 1e300}, 400, "deadlineS"),
        ({"id": "a b"}, 400, "id"),
        ({"colour": "red"}, 400, "colour"),
        ({"params": {"x": "y" * 2_000_000}}, 413, "size"),
    ],
)
async def test_what_cannot_be_done_is_refused_with_its_reason(
    owner: Owner, change: dict[str, object], status: int, text: str
) -> None:
    before = (await owner.counts()).get("accepted", 0)
    answer = await owner.give(**change)
    assert answer.status_code == status
    assert text in answer.json()["message"]
    assert (await owner.counts()).get("accepted", 0) == before


async def test_bodies_that_are_no_tasks_are_refused(owner: Owner) -> None:
    url = f"{owner.gateway.url}/api/v3/task"
    for body in (b"", b"[]", b"7", b"[" * 60_000, b'{"skill": "set", "deadlineS": NaN}', b"\xff"):
        answer = await owner.http.post(url, content=body)
        assert answer.status_code == 400, body[:20]


async def test_an_array_as_a_rule_engine_sends_it_gets_an_answer_each(owner: Owner, bidders: dict[str, Bidder]) -> None:
    good = {"skill": "warm", "deviceName": "valve-2", "params": {"degrees": 20.5}}
    answer = await owner.http.post(f"{owner.gateway.url}/api/v3/task", json=[good, {"skill": "dance"}])
    assert answer.status_code == 207
    assert [item["statusCode"] for item in answer.json()] == [202, 400]
    assert (await owner.ended(answer.json()[0]["id"]))["state"] == "done"


async def test_over_nats_the_giver_is_a_token_of_the_subject(owner: Owner, bidders: dict[str, Bidder]) -> None:
    async def ask(verb: str, who: str, **body: object) -> dict[str, object]:
        answer = await owner.bus.request(
            subjects.task_request("gw", verb, who), json.dumps(body).encode(), timeout_s=10.0
        )
        found: dict[str, object] = json.loads(answer.data)
        return found

    bidders["ada"].work_s = bidders["bob"].work_s = 60.0
    wanted = {"skill": "set", "deviceName": "valve-3", "resourceName": "Setpoint", "value": "20", "id": "by-dan"}
    assert (await ask("submit", "dan", **wanted, giver="owner"))["statusCode"] == 400  # no field says who gives it
    assert (await ask("submit", "dan", **wanted))["statusCode"] == 202
    assert (await ask("cancel", "bob", id="by-dan"))["statusCode"] == 403
    assert (await ask("get", "bob", id="by-dan"))["task"]["giver"] == "dan"  # type: ignore[index]
    assert (await ask("cancel", "dan", id="by-dan"))["statusCode"] == 200
    assert (await owner.task("by-dan"))["state"] == "cancelled"
    assert (await ask("cancel", "dan", id="by-dan"))["statusCode"] == 409


async def test_a_bid_in_anothers_name_or_for_another_epoch_is_none(owner: Owner, bidders: dict[str, Bidder]) -> None:
    """Stale, uninvited and repeated bids are counted; the ledger lets nobody take or end what is another's."""
    bidders["ada"].work_s = 1.0
    mallory = Bidder(owner.bus, "mallory")
    for number in range(10):  # until ada has bid within its half a second
        forged = f"forged-{number}"
        await owner.give(id=forged)
        await mallory.say(act("propose", forged, bid=Bid(cost=0.0)))
        await bidders["bob"].say(act("propose", forged, bid=Bid(cost=0.0, epoch=7)))
        told = await mallory.ask(LedgerAsk(verb="take", task=forged, epoch=1, incarnation="m"))
        assert told.problem
        award = await award_of(owner, forged)
        assert award["winner"] == min(award["bids"], key=award["bids"].__getitem__)
        if "ada" in award["bids"]:
            break
        await owner.ended(forged)
    assert (await bidders["bob"].ask(LedgerAsk(verb="close", task=forged, epoch=1, status="done"))).problem
    task = await owner.ended(forged)
    assert (task["state"], task["winner"]) == ("done", "ada")
    await bidders["bob"].say(act("propose", forged, bid=Bid(cost=0.0)))  # replayed after the end
    assert (await owner.task(forged))["winner"] == "ada"

    async def are_counted() -> bool:
        counts = await owner.counts()
        return counts.get("refused_not-invited", 0) >= 1 and counts.get("refused_ledger", 0) >= 2

    await until(are_counted, "all of it is counted", timeout_s=30)
    assert (await owner.task(forged))["winner"] == "ada"


async def test_who_wins_and_does_not_take_it_loses_it_to_the_next(owner: Owner, bidders: dict[str, Bidder]) -> None:
    bidders["ada"].takes = False
    task = await owner.ended(await bid_for(owner, "let-go", "ada", deadlineS=40))
    assert (task["state"], task["winner"]) == ("done", "bob")
    assert [item["winner"] for item in task["awards"]] == ["ada", "bob"]


async def test_what_a_dead_agent_had_taken_fails_with_its_reason(owner: Owner, bidders: dict[str, Bidder]) -> None:
    bidders["ada"].work_s = 60.0
    orphan = await bid_for(owner, "orphan", "ada", deadlineS=60)
    await owner.stands(orphan, "taken")
    await bidders["ada"].die()
    task = await owner.ended(orphan)
    assert task["state"] == "failed"
    assert "ada went away" in task["reason"]


async def test_nobody_there_in_time_fails_with_its_reason(owner: Owner) -> None:
    await asyncio.sleep(3.2)  # longer than anybody is remembered
    assert (await owner.give(id="alone", deadlineS=1)).status_code == 202
    task = await owner.ended("alone")
    assert task["state"] == "failed"
    assert "is an agent with skill 'set' up" in task["reason"] or "deadline" in task["reason"]


async def test_a_watcher_sees_a_task_to_its_end(owner: Owner, bidders: dict[str, Bidder]) -> None:
    bidders["ada"].work_s = 0.3
    await owner.give(id="seen")
    states: list[str] = []
    async with owner.http.stream("GET", f"{owner.gateway.url}/api/v3/task/id/seen/watch") as answer:
        async for line in answer.aiter_lines():
            states += [json.loads(line[6:])["state"]] if line.startswith("data: ") else []
    assert states[-1] == "done"
    assert set(states) <= {"open", "awarded", "taken", "done"}


async def test_killed_in_the_middle_it_goes_on_and_every_task_ends_once(
    owner: Owner, bidders: dict[str, Bidder]
) -> None:
    """60 tasks, kill -9 after some: none is lost, none has two ends or two winners, all are done."""
    bidders["ada"].work_s = bidders["bob"].work_s = 0.05
    accepted: set[str] = set()

    async def give(number: int) -> None:
        for _ in range(60):  # a client that asks again until it has its answer
            try:
                answer = await owner.give(id=f"t-{number}", deadlineS=60)
            except httpx.HTTPError:
                await asyncio.sleep(0.5)
                continue
            if answer.status_code in (200, 202):
                accepted.add(f"t-{number}")
                return
            await asyncio.sleep(0.5)

    giving = asyncio.gather(*(give(number) for number in range(60)))
    await until(lambda: len(accepted) >= 20, "some tasks are taken in", timeout_s=30)
    owner.gateway.kill()
    await owner.up()
    await giving
    assert len(accepted) == 60
    ends = [await owner.ended(task, 60) for task in sorted(accepted)]
    assert [(task["id"], task["reason"], task["reasons"]) for task in ends if task["state"] != "done"] == []
    performed = bidders["ada"].performed + bidders["bob"].performed
    tasks_done = [task for task, _ in performed]
    assert all(count == 1 for count in performed.values())
    assert len(tasks_done) == len(set(tasks_done))


async def test_a_second_coordinator_that_slept_cannot_write(owner: Owner, bidders: dict[str, Bidder]) -> None:
    """Paused, replaced and woken: its first write is refused, and it ends."""
    paused = owner.gateway.coordinator
    assert paused is not None
    paused.process.send_signal(signal.SIGSTOP)
    key, url = owner.gateway.port, owner.gateway.url
    try:
        owner.gateway.port = free_port()
        owner.gateway.url = f"http://127.0.0.1:{owner.gateway.port}"
        owner.gateway.coordinator = None
        owner.gateway.spawn(EDGEX_SERVICE_KEY="app-coordinator-2")
        await owner.up(agents=2)
        assert (await owner.give(id="after-sleep")).status_code == 202
        assert (await owner.ended("after-sleep"))["state"] == "done"
        paused.process.send_signal(signal.SIGCONT)
        body = {"skill": "set", "deviceName": "valve-4", "resourceName": "Setpoint", "value": 20, "id": "too-late"}
        with pytest.raises(httpx.HTTPError):
            (await owner.http.post(f"{url}/api/v3/task", json=body)).raise_for_status()
        await until(lambda: paused.process.poll() is not None, "it has ended", timeout_s=60)
        assert paused.process.returncode == 1
        assert "second coordinator" in paused.log_path.read_text()
        assert (await owner.give(id="still-here")).status_code == 202
        assert (await owner.ended("still-here"))["state"] == "done"
    finally:
        paused.kill()
        owner.gateway.kill()
        owner.gateway.port, owner.gateway.url = key, url


async def test_half_a_character_in_a_task_is_refused_and_ends_nobody(owner: Owner) -> None:
    body = b'{"skill": "warm", "deviceName": "valve-2", "params": {"degrees": "20.5", "note": "\\ud800"}}'
    answer = await owner.bus.request(subjects.task_request("gw", "submit", "bob"), body, timeout_s=10.0)
    assert json.loads(answer.data)["statusCode"] == 400
    assert (await owner.http.post(f"{owner.gateway.url}/api/v3/task", content=body)).status_code == 400
    assert (await owner.http.get(f"{owner.gateway.url}/api/v3/coordinator")).json()["isServing"]


async def test_a_coordinator_that_was_paused_takes_nothing_from_who_is_there(
    owner: Owner, bidders: dict[str, Bidder]
) -> None:
    bidders["ada"].work_s = 8.0
    name = await bid_for(owner, "paused", "ada", deadlineS=60)
    await owner.stands(name, "taken")
    coordinator = owner.gateway.coordinator
    assert coordinator is not None
    coordinator.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(6.5)  # longer than a run may be silent
    coordinator.process.send_signal(signal.SIGCONT)
    task = await owner.ended(name)
    assert (task["state"], task["winner"]) == ("done", "ada")
    assert (await owner.counts())["stalls"] >= 1
