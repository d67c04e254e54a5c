"""Conflicts of real agents: coordinator, guard, agents and valves, each a process; the guard proves what was agreed."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
import yaml

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import BusMessage
from edgeagents.model.cooperation import Dispute, DisputeTold
from edgeagents.protocol.conversation import act
from tests.contract.waiting import until
from tests.guarded import ANN, SITE, Beside, Client, Gateway, agent_file, bearer, client_of

# What each wants of a valve once it is shut, and what each degree is worth to it.
AGENTS = {
    "warm": (23.0, [[19, 0.2], [20, 0.6], [21, 0.8], [23, 1]]),
    "thrifty": (19.0, [[19, 1], [20, 0.9], [21, 0.5], [23, 0.1]]),
}

# Nobody reads valve-9, and what is not known counts in the unsafe direction: this holds all the time.
FROST = {"name": "frost", "forbid": {"device": "valve-5", "resource": "Setpoint", "below": 20.5},
         "during": {"device": "valve-9", "resource": "Setpoint", "below": 100}, "max_age": "1s"}  # fmt: skip


def written(name: str) -> dict[str, Any]:
    """Return an agent's file: while its valve is shut it wants its own degree of it."""
    wants, _ = AGENTS[name]
    # Each valve is used by one test; a valve is woken by its `Open`.
    rule = {"name": "wants-{n}", "for_each": {"n": ["3", "4", "5"]}, "given": {"open": "valve-{n}/Open"},
            "when": "open", "set": {"device": "valve-{n}", "resource": "Setpoint", "value": wants}}  # fmt: skip
    over = {"for_each": {"n": ["3", "4", "5"]}, "device": "valve-{n}", "resource": "Setpoint", "minimum": 19,
            "maximum": 23, "step": 1, "brings": {"degrees": "value"}}  # fmt: skip
    return agent_file(
        name, rules=[rule], ttl=10, negotiates={"preferences": f"../{name}-preferences.yaml", "over": [over]}
    )


class Arguing(Beside):
    """A guarded gateway with two real agents that want different things of one valve, and a coordinator."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        folder = gateway.folder
        gateway.site_file.write_text(yaml.safe_dump({**SITE, "interlocks": [*SITE["interlocks"], FROST]}))
        for name, (_, points) in AGENTS.items():
            (folder / "agents" / f"{name}.yaml").write_text(yaml.safe_dump(written(name)))
            part = {"of": "degrees", "shape": {"kind": "linear", "points": points}}
            preferences = {"agent": name, "disagreement": 0.1, "parts": [part]}
            (folder / f"{name}-preferences.yaml").write_text(yaml.safe_dump(preferences))

    def start(self, name: str) -> None:
        """Start one agent, or the coordinator, that does not run yet."""
        if name == "coordinator" and "app-coordinator" not in self.processes:
            self.coordinate(EDGEAGENTS_COORDINATOR_CONFLICT_HOLD_S="0", EDGEAGENTS_COORDINATOR_CONFLICT_ANSWER_S="5")
        elif name != "coordinator" and f"app-agent-{name}" not in self.processes:
            self.act(name)


@pytest.fixture(scope="module")
def arguing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arguing]:
    """One gateway for all tests of this file."""
    with Arguing.on(tmp_path_factory.mktemp("arguing")) as found:
        yield found


@pytest.fixture
async def client(arguing: Arguing) -> AsyncIterator[Client]:
    """Return the owner's connection; the guard runs."""
    async with client_of(arguing.gateway) as found:
        yield found


async def nudged(client: Client, valve: str, check: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Return what a check gives once it is true; meanwhile the valve says again and again that it is open."""
    for _ in range(60):
        for is_open in (False, True):  # a change is news
            await client.control(device=valve, hand=is_open, resource="Open")
            await client.publish_reading(valve, "Open")
        with contextlib.suppress(AssertionError):
            return await until(check, what, timeout_s=1.5)
    raise AssertionError(what)


async def has(client: Client, valve: str, value: float) -> None:
    """Wait until a valve's set-point was set to a value, last of all."""

    async def is_so() -> bool:
        effects = [what for what in await client.effects(valve) if what[0] == "Setpoint"]
        return bool(effects) and effects[-1] == ("Setpoint", value)

    await nudged(client, valve, is_so, f"{valve} is set to {value}")


async def up(client: Client, *names: str) -> None:
    """Wait until agents have sessions."""

    async def are_there() -> bool:
        return set(names) <= set((await client.state())["sessions"])

    await until(are_there, f"{names} have sessions", timeout_s=60)


async def conflicts(client: Client, url: str, place: str) -> list[dict[str, Any]]:
    """Return the conflicts over a device that were settled by bargaining, once there is one."""

    async def found() -> list[dict[str, Any]]:
        try:
            answer = (await client.http.get(f"{url}/api/v3/conflict/all")).json()
        except (httpx.HTTPError, ValueError):
            return []
        return [item for item in answer.get("conflicts", []) if (item["deviceName"], item["rung"]) == (place, "nash")]

    result: list[dict[str, Any]] = await nudged(client, place, found, f"a conflict over {place} is settled")
    return result


async def counts(client: Client, arguing: Arguing, name: str) -> dict[str, int]:
    """Return what an agent counts of conflicts."""
    found = (await client.http.get(f"{arguing.processes[f'app-agent-{name}'].ready()}/api/v3/agent")).json()
    return dict(found["conflicts"])


async def test_without_a_coordinator_the_holder_keeps_what_it_has_as_ever(arguing: Arguing, client: Client) -> None:
    arguing.start("warm")
    await up(client, "warm")
    await has(client, "valve-4", 23.0)
    arguing.start("thrifty")
    await up(client, "thrifty")

    async def has_asked() -> bool:
        return (await counts(client, arguing, "thrifty")).get("not_settled", 0) > 0

    await nudged(client, "valve-4", has_asked, "thrifty asked, and nobody answered")
    assert [what for what in await client.effects("valve-4") if what[0] == "Setpoint"] == [("Setpoint", 23.0)]


async def test_a_mediator_that_dies_mid_way_leaves_everything_to_the_guard(arguing: Arguing, client: Client) -> None:
    """Played: it asks what options are worth, and is never heard of again."""
    asked: list[str] = []

    async def begin(message: BusMessage) -> None:
        dispute = wire.decode(Dispute, message.data)
        name = f"conflict-{len(asked)}"
        asked.append(name)
        told = DisputeTold(conversation=name, ends_s=0.5)
        await client.bus.respond(message, wire.encode(told), wire.AS_PROTOBUF)
        question = dispute.model_copy(update={"others": ("thrifty", "warm")})
        for party in question.others:
            await client.bus.publish(
                subjects.act("gw", party, subjects.COORDINATOR),
                wire.encode(act("cfp", name, dispute=question, reply_by_s=0.1)), wire.AS_PROTOBUF,
            )  # fmt: skip

    subscription = await client.bus.subscribe(subjects.conflict("gw", "thrifty"), begin)

    async def has_asked() -> bool:
        return bool(asked)

    await nudged(client, "valve-4", has_asked, "thrifty asks again")
    await subscription.unsubscribe()

    async def both_said() -> bool:
        return all([(await counts(client, arguing, name)).get("asked", 0) > 0 for name in AGENTS])

    await until(both_said, "both were asked", timeout_s=40)
    assert [what for what in await client.effects("valve-4") if what[0] == "Setpoint"] == [("Setpoint", 23.0)]
    held = {(item["deviceName"], item["agent"]) for item in (await client.state())["leases"]}
    assert ("valve-4", "warm") in held


async def test_equals_settle_on_what_is_best_for_both_and_the_guard_proves_it(arguing: Arguing, client: Client) -> None:
    arguing.start("coordinator")
    arguing.start("warm")
    arguing.start("thrifty")
    await up(client, "warm", "thrifty")
    await conflicts_are_served(client, arguing)
    found = await conflicts(client, arguing.url, "valve-3")
    assert {party["agent"] for party in found[-1]["parties"]} == {"warm", "thrifty"}
    assert (found[-1]["rung"], found[-1]["value"], found[-1]["runnerUp"]) == ("nash", "20", "21")
    await has(client, "valve-3", 20.0)

    async def is_proven() -> bool:  # told behind the effect
        ended = [item for item in await client.outcomes(found[-1]["winner"]) if item.device == "valve-3"]
        return any(item.status == "proven" and float(item.value) == 20.0 for item in ended)

    await until(is_proven, "the guard has proven it", timeout_s=40)


async def conflicts_are_served(client: Client, arguing: Arguing) -> None:
    """Wait until the coordinator settles conflicts."""

    async def is_up() -> bool:
        try:
            return (await client.http.get(f"{arguing.url}/api/v3/conflict/all")).status_code == 200
        except httpx.HTTPError:
            return False

    await until(is_up, "the coordinator serves", timeout_s=60)


async def test_what_a_paused_winner_gave_holds_the_other_back_no_longer(arguing: Arguing, client: Client) -> None:
    for name in ("coordinator", *AGENTS):
        arguing.start(name)
    await up(client, *AGENTS)
    await conflicts_are_served(client, arguing)
    settled = (await conflicts(client, arguing.url, "valve-3"))[0]  # the newest: it stands for five minutes
    await has(client, "valve-3", 20.0)
    other = next(name for name in AGENTS if name != settled["winner"])
    order = {"scope": "agent", "name": settled["winner"], "reason": "away"}
    assert (await client.http.post(f"{client.gateway.url}/api/v3/pause", json=order, headers=bearer(ANN))).is_success

    async def is_released() -> bool:
        found = (await client.http.get(f"{arguing.url}/api/v3/conflict/id/{settled['id']}")).json()["conflict"]
        return bool(found["released"] == f"{settled['winner']} takes no part any more: paused by ann: away")

    await until(is_released, "the conflict's record says so", timeout_s=30)
    await has(client, "valve-3", AGENTS[other][0])
    assert (await counts(client, arguing, other))["released"] >= 1
    assert (await counts(client, arguing, settled["winner"]))["left"] >= 1  # what was settled over valve-4, too
    assert (await client.http.post(f"{client.gateway.url}/api/v3/resume", json=order, headers=bearer(ANN))).is_success


async def test_what_an_interlock_forbids_is_no_option_of_theirs(arguing: Arguing, client: Client) -> None:
    for name in ("coordinator", *AGENTS):
        arguing.start(name)
    await up(client, *AGENTS)
    await conflicts_are_served(client, arguing)
    found = (await conflicts(client, arguing.url, "valve-5"))[-1]
    assert (found["value"], set(found["forbidden"])) == ("21", {"19", "20"})  # it would be 20 without
    assert found["forbidden"]["19"].startswith("interlock 'frost': valve-5/Setpoint below 20.5 while valve-9/Setpoint")
    assert {"19", "20"}.isdisjoint(found["options"])
    await has(client, "valve-5", 21.0)

    async def is_proven() -> bool:
        ended = [item for name in AGENTS for item in await client.outcomes(name) if item.device == "valve-5"]
        return any(item.status == "proven" and float(item.value) == 21.0 for item in ended)

    await until(is_proven, "the guard has proven it", timeout_s=40)
