"""A real coordinator on a real broker settles conflicts of 2 to 5 agents; one silent, one lying, one uninvited."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.cli.history import History
from edgeagents.cli.why import conflict_lines
from edgeagents.errors import UnavailableError
from edgeagents.model.cooperation import Announcement, Appraisal, DisputeTold
from edgeagents.model.message import AuditRecord
from edgeagents.protocol.conversation import act
from tests.contract.waiting import until
from tests.coordinated import Coordinated, Owner, owner_of
from tests.disputants import Disputant, PlayedGuard, write_negotiators
from tests.guarded import history_of, patiently

THRIFTY = {"19": 0.9, "20": 0.8, "21": 0.5, "22": 0.1}
WARM = {"19": 0.3, "20": 0.6, "21": 0.8, "22": 0.9}
ANSWER_S = 5
CLASSES = dict.fromkeys(("ada", "bob", "cyd", "dan", "eve"), "comfort") | {"ill": "health", "low": "economy"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinated]:
    """One gateway for all tests of this file."""
    # The tests ask again and again about one valve: no outcome stands there. The wait for answers ends early once all
    # have come: it is long for a machine that stands still.
    found = Coordinated(
        tmp_path_factory.mktemp("conflicts"), (), EDGEAGENTS_COORDINATOR_CONFLICT_STANDS_S="0.001",
        EDGEAGENTS_COORDINATOR_CONFLICT_ANSWER_S=str(ANSWER_S),
    )  # fmt: skip
    write_negotiators(found.folder / "agents", CLASSES)
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
async def owner(gateway: Coordinated) -> AsyncIterator[Owner]:
    """Whoever looks on; the coordinator runs."""
    async with owner_of(gateway) as found:
        await found.up()
        yield found


@pytest.fixture
async def guard(owner: Owner) -> AsyncIterator[PlayedGuard]:
    """Return who says which of the played agents holds the valve."""
    found = await PlayedGuard(owner.bus).start()
    yield found
    await found.die()


@pytest.fixture
async def play(owner: Owner, guard: PlayedGuard) -> AsyncIterator[Any]:
    """Return what begins to play an agent, until the test is over."""
    async with AsyncExitStack() as stack:

        async def begin(name: str, worth: dict[str, float], way: str, **how: Any) -> Disputant:
            found = await Disputant(owner.bus, name, worth, way, **how).start()
            stack.push_async_callback(found.die)
            guard.agents.append(found)
            return found

        yield begin


async def shown(owner: Owner, conflict: str) -> dict[str, Any]:
    """Return a settled conflict as the coordinator shows it."""
    answer = await owner.http.get(f"{owner.gateway.url}/api/v3/conflict/id/{conflict}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["conflict"]
    return found


async def counts(owner: Owner) -> dict[str, int]:
    """Return what the mediator counts."""
    found: dict[str, int] = (await owner.http.get(f"{owner.gateway.url}/api/v3/conflict/all")).json()["counts"]
    return found


async def filed(claimant: Disputant, *others: str, **changes: Any) -> DisputeTold:
    """File a conflict, again while the guard, played here, did not answer the coordinator in the 0.3 s it has."""
    found: list[DisputeTold] = []

    async def is_answered() -> bool:
        try:
            found.append(await claimant.file(*others, **changes))
        except UnavailableError:
            return False
        return "is not known" not in found[-1].problem

    await until(is_answered, "who holds it is known", timeout_s=60)
    return found[-1]


async def settled(claimant: Disputant, *others: str, **changes: Any) -> str:
    """Have a conflict settled; return its name."""
    told = await filed(claimant, *others, **changes)
    assert not told.problem, told.problem
    await claimant.end_of(told.conversation)
    return told.conversation


@pytest.mark.parametrize("count", [2, 3, 5])
async def test_two_to_five_agents_get_one_outcome_and_the_audit_says_why(owner: Owner, play: Any, count: int) -> None:
    names = list(CLASSES)[:count]
    agents = [await play(names[0], THRIFTY, "19"), await play(names[1], WARM, "22", holds=True)]
    agents += [await play(name, WARM, "22") for name in names[2:]]
    name = await settled(agents[0], *names[1:])
    told = {(await agent.end_of(name)).model_copy(update={"stands_s": 0}).model_dump_json() for agent in agents}
    assert len(told) == 1
    item = await shown(owner, name)
    assert (item["value"], item["winner"], item["rung"]) == ("20" if count == 2 else "21", names[1], "nash")
    assert [party["agent"] for party in item["parties"]] == names

    async def written() -> History | None:
        history = await history_of(owner.bus)
        return history if name in history.conflicts else None

    lines = conflict_lines(await until(written, "it is in the audit", timeout_s=60), name)
    assert ("rung", "nash") in lines
    assert any(word == "party" and text.startswith("ada (comfort) bargains, would have 19") for word, text in lines)


async def test_a_silent_holder_is_not_overruled_and_holds_nobody_up(owner: Owner, play: Any) -> None:
    ada, _ = await play("ada", THRIFTY, "19"), await play("bob", WARM, "22", holds=True, answers="silent")
    name = await settled(ada, "bob")
    item = await shown(owner, name)
    assert (item["winner"], item["rung"]) == ("", "fallback")
    assert ANSWER_S * 1_000 - 100 < item["tookMs"] < 30_000
    assert "without bob nothing is settled" in item["reasons"][-1]


async def test_a_liar_whose_utilities_are_none_is_as_one_that_is_silent(owner: Owner, play: Any) -> None:
    ada, _ = await play("ada", THRIFTY, "19"), await play("bob", WARM, "22", holds=True)
    await play("cyd", WARM, "22", answers="nan")
    before = (await counts(owner)).get("refused_out-of-contract", 0)
    name = await settled(ada, "bob", "cyd")
    item = await shown(owner, name)
    assert item["winner"] == ""
    assert (await counts(owner))["refused_out-of-contract"] == before + 1
    assert "refused_out-of-contract" not in await owner.counts()  # those are tasks'
    await audited(
        owner, "conflict-refused",
        lambda bodies: any(body["sender"] == "cyd" and "utility" in body["text"] for body in bodies),
    )  # fmt: skip


async def test_one_of_a_lower_class_that_says_it_holds_the_valve_gets_nothing_by_it(owner: Owner, play: Any) -> None:
    low = await play("low", THRIFTY, "19", says_holds=True)
    await play("ill", WARM, "22", holds=True)
    item = await shown(owner, await settled(low, "ill"))
    assert (item["value"], item["winner"], item["rung"], item["holder"]) == ("22", "ill", "priority", "ill")
    assert (await counts(owner))["claims_ignored"] >= 1


async def test_without_the_guards_word_nothing_is_settled(owner: Owner, play: Any, guard: PlayedGuard) -> None:
    ada, _ = await play("ada", THRIFTY, "19"), await play("bob", WARM, "22", holds=True)
    guard.word = "no agent file declares 'coordinator'"  # as one of a former version says
    assert "who holds valve-1/Setpoint is not known" in (await ada.file("bob")).problem
    await guard.die()
    assert "who holds valve-1/Setpoint is not known" in (await ada.file("bob")).problem
    await guard.start()


async def test_one_that_tells_half_of_it_is_outvoted_without_a_veto(owner: Owner, play: Any) -> None:
    ada = await play("ada", THRIFTY, "19", answers="partly")
    await play("bob", WARM, "22", holds=True)
    await play("cyd", WARM, "22")

    async def voted() -> dict[str, Any] | None:
        item = await shown(owner, await settled(ada, "bob", "cyd"))
        return item if item["rung"] == "vote" else None  # each has one second for its ballot

    item = await until(voted, "it comes to a vote", timeout_s=60)
    assert (item["rung"], item["winner"]) == ("vote", "bob")


async def test_who_answers_twice_or_uninvited_is_heard_once_or_not_at_all(owner: Owner, play: Any) -> None:
    ada, bob = await play("ada", THRIFTY, "19", answers="twice"), await play("bob", WARM, "22", answers="silent")
    mallory = await play("eve", WARM, "22")
    told = await filed(ada, "bob")
    worth = ()
    await mallory.say(act("inform", told.conversation, appraisal=Appraisal(way="19", worths=worth)))
    await ada.end_of(told.conversation)
    found = await counts(owner)
    assert found["refused_repeated"] >= 1
    assert found["refused_not-invited"] >= 1
    wanted = {("ada", "repeated"), ("eve", "not-invited")}
    await audited(
        owner, "conflict-refused", lambda bodies: wanted <= {(body["sender"], body["cause"]) for body in bodies}
    )
    assert bob.counts["asked"] == 1


async def test_a_higher_class_has_its_way_by_the_owners_file_not_by_its_own_word(owner: Owner, play: Any) -> None:
    ada, _ = await play("ada", THRIFTY, "19"), await play("ill", WARM, "22", holds=True)
    item = await shown(owner, await settled(ada, "ill"))
    assert (item["value"], item["winner"], item["rung"]) == ("22", "ill", "priority")


@pytest.mark.parametrize(
    ("others", "changes", "complaint"),
    [
        (("nobody-here",), {}, "no agent 'nobody-here' has a file here"),
        (("bob",), {"options": tuple(str(n) for n in range(1_000)), "wanted": "19"}, "1000 options: 34 at most"),
        (("bob",), {"options": ("19", "19")}, "an option stands there twice"),
        (("bob",), {"wanted": "30"}, "is none of the options"),
        (("bob",), {"key": ("valve-1", "Open")}, "does not negotiate about valve-1/Open"),
        (("bob",), {"key": ("valve-99", "Setpoint")}, "does not negotiate about valve-99/Setpoint"),
    ],
)
async def test_what_is_no_conflict_here_is_refused_with_its_reason(
    owner: Owner, play: Any, others: tuple[str, ...], changes: dict[str, Any], complaint: str
) -> None:
    ada = await play("ada", THRIFTY, "19")
    before = 0

    async def is_answered() -> DisputeTold | None:
        nonlocal before
        before = (await counts(owner)).get("refused_conflict", 0)
        told = await ada.file(*others, **changes)
        return None if "is not known" in told.problem else told  # the played guard was not quick enough

    told = await until(is_answered, "it is answered", timeout_s=60)
    assert complaint in told.problem
    assert not told.conversation
    assert (await counts(owner))["refused_conflict"] == before + 1


async def test_bytes_that_are_none_are_answered(owner: Owner) -> None:
    answer = await owner.bus.request(subjects.conflict("gw", "ada"), b"\xff\xff\xff", wire.AS_PROTOBUF, timeout_s=30)
    assert wire.decode(DisputeTold, answer.data).problem


async def test_a_flood_of_one_agent_is_refused_and_others_are_heard(owner: Owner, play: Any) -> None:
    dan, _ = await play("dan", THRIFTY, "19"), await play("bob", WARM, "22", answers="yields")
    told: list[DisputeTold] = []
    for _ in range(20):  # nine at a time, four times; more often where a machine that stood still takes over 10 s
        asked = (dan.file("bob", key=(f"valve-{number}", "Setpoint")) for number in range(1, 10))
        told += await asyncio.gather(*asked)
        for item in told:
            if item.conversation:
                await dan.end_of(item.conversation)
        if any("20 conflicts of dan in 10 s" in item.problem for item in told):
            break
    assert any("20 conflicts of dan in 10 s" in item.problem for item in told)
    ada = await play("ada", THRIFTY, "19")
    assert await settled(ada, "bob")


async def test_a_coordinator_that_is_killed_mid_way_settles_nothing_and_a_new_one_knows_of_nothing(
    owner: Owner, play: Any
) -> None:
    ada, bob = await play("ada", THRIFTY, "19"), await play("bob", WARM, "22", holds=True, answers="silent")
    told = await filed(ada, "bob")
    assert told.conversation, told.problem
    owner.gateway.kill()
    with pytest.raises(UnavailableError):
        await ada.file("bob")
    await owner.up()
    assert told.conversation not in ada.settled
    answer = await owner.http.get(f"{owner.gateway.url}/api/v3/conflict/id/{told.conversation}")
    assert (answer.status_code, "`edgeagents why` asks the audit" in answer.text) == (404, True)
    await ada.say(act("inform", told.conversation, appraisal=Appraisal(way="19")))  # nobody knows of it: counted
    bob.holds = False
    await play("cyd", WARM, "22", holds=True)
    assert (await shown(owner, await settled(ada, "cyd")))["rung"] == "nash"


async def test_one_beside_that_is_there_is_asked_too(owner: Owner, play: Any) -> None:
    ada, _ = await play("ada", THRIFTY, "19"), await play("bob", WARM, "22", holds=True)
    cyd = await play("cyd", WARM, "22", answers="yields")
    said = wire.encode(Announcement(incarnation="run-1"))

    async def announced() -> None:
        while True:  # it is forgotten 3 s after it was heard last
            await owner.bus.publish(subjects.announcement("gw", "cyd"), said, wire.AS_PROTOBUF)
            await asyncio.sleep(0.3)

    async def is_there() -> bool:
        agents = (await owner.http.get(f"{owner.gateway.url}/api/v3/roster")).json()["agents"]
        return any(item["agent"] == "cyd" for item in agents)

    announcing = asyncio.create_task(announced())
    try:
        await until(is_there, "cyd is there", timeout_s=30)
        item = await shown(owner, await settled(ada, "bob"))
    finally:
        announcing.cancel()
        await asyncio.gather(announcing, return_exceptions=True)
    assert [party["said"] for party in item["parties"]] == ["bargains", "bargains", "gives way"]
    assert cyd.counts["asked"] == 1


async def audited(owner: Owner, kind: str, wanted: Callable[[list[dict[str, Any]]], bool]) -> None:
    """Wait until the bodies of the coordinator's audit records of a kind are as wanted."""

    async def read() -> list[dict[str, Any]]:
        found = owner.bus.read(subjects.AUDIT_STREAM, [subjects.audits("gw")], name="look")
        records = [wire.decode(AuditRecord, message.data) async for message in found]
        return [json.loads(record.body) for record in records if record.kind == kind]

    async def are_there() -> bool:
        return wanted(await patiently(read))

    await until(are_there, f"what is wanted of {kind!r} is in the audit", timeout_s=60)
