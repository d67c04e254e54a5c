"""Class B over a real broker: a real guard asks a real agent, forgeries are sent, and the audit says who consented."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from copy import deepcopy
from typing import Any

import pytest
import yaml

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import BusMessage
from edgeagents.cli.why import command_lines
from edgeagents.model.cooperation import Act
from tests.contract.waiting import until
from tests.guarded import SITE, Agent, Client, Gateway, agent_file, client_of, history_of
from tests.services import ServiceProcess

# It wants the second valve shut whatever is read, and may not open the third one itself.
RULES = [{"name": "shut", "given": {"s": "valve-2/Setpoint"}, "when": "s > -1000.0",
          "set": {"device": "valve-2", "resource": "Brief", "value": False}, "because": "a draught"}]  # fmt: skip


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Return a gateway on which `Brief` needs the consent of `heat`, which is a process, and waits 20 s for it."""
    found = Gateway(tmp_path_factory.mktemp("consents"))
    site = deepcopy(SITE)
    site["resources"][-1] = {
        "profile": "Valve", "resource": "Brief", "risk_class": "B", "kind": "absolute", "approval_wait": "20s",
        "affected": ["heat"], "proof": {"resource": "Brief", "wait": "10s"},
    }  # fmt: skip
    found.site_file.write_text(yaml.safe_dump(site))
    heat = agent_file("heat", priority="health", rules=RULES)
    (found.folder / "agents" / "heat.yaml").write_text(yaml.safe_dump(heat))
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def heat(gateway: Gateway) -> Iterator[list[ServiceProcess]]:
    """Return the agent's process, once a test has started it."""
    started: list[ServiceProcess] = []
    yield started
    for process in started:
        process.kill()


@pytest.fixture
async def client(gateway: Gateway, heat: list[ServiceProcess]) -> AsyncIterator[Client]:
    """Return the owner's connection, once the agent has a session."""
    async with client_of(gateway) as found:
        if not heat:
            file = str(gateway.folder / "agents" / "heat.yaml")
            environ = {"EDGEAGENTS_GATEWAY": "gw", "EDGEAGENTS_AGENT_FILE": file}
            heat.append(ServiceProcess(
                "services.agent", "app-agent-heat", gateway.core, gateway.nats.url, gateway.folder, environ=environ
            ))  # fmt: skip

        async def is_there() -> bool:
            return "heat" in (await found.state())["sessions"]

        await until(is_there, "heat has a session", timeout_s=60)
        yield found


@pytest.fixture
async def air(client: Client) -> AsyncIterator[Agent]:
    """Return the agent that wants something, played by the test."""
    async with client.agent("air") as found:
        yield found


async def reads(client: Client, agent: ServiceProcess, device: str, resource: str) -> None:
    """Have a valve publish what it shows until an agent, which may begin to listen only now, has taken it in."""
    url = f"{agent.ready()}/api/v3/agent"

    async def events() -> int:
        return int((await client.http.get(url)).json()["counts"].get("events", 0))

    before = await events()
    async with asyncio.timeout(60):
        while await events() == before:
            await client.publish_reading(device, resource)
            await asyncio.sleep(0.3)


async def whys(client: Client, command: str) -> dict[str, str]:
    """Return what `edgeagents why` says of a command, once agents' words on it are in the audit."""

    async def both() -> dict[str, str]:
        told = dict(command_lines(await history_of(client.bus), command))
        return told if {"consent", "consent-said"} <= set(told) else {}

    found: dict[str, str] = await until(both, "agents' words are in the audit", timeout_s=60)
    return found


async def test_with_the_agents_consent_it_is_done_and_why_says_who_consented(client: Client, air: Agent) -> None:
    done = await air.do("valve-1", "true", "Brief")
    assert (done.status, done.approver) == ("proven", "")
    told = await whys(client, done.command_id)
    assert "heat consented: enough to let it pass, 1 of 1 needed" in told["consent"]
    assert "consents to valve-1/Brief = true for air" in told["consent-said"]


async def test_what_its_rules_are_against_waits_for_a_person_who_may_let_it_pass(
    client: Client, air: Agent, heat: list[ServiceProcess]
) -> None:
    heard: list[Act] = []

    async def note(message: BusMessage) -> None:
        heard.append(wire.decode(Act, message.data))

    subscription = await client.bus.subscribe(subjects.consent("gw", "heat"), note)
    # First what it is, then what its rule looks at: so heat wants nothing that is not so, and commands nothing.
    for resource in ("Brief", "Setpoint"):
        await reads(client, heat[0], "valve-2", resource)
    reply = await air.lease("valve-2", "Brief")
    assert reply.granted, reply.reason
    command = air.command("valve-2", "true", reply.epoch, "Brief")
    await air.send(command)

    async def has_said() -> bool:
        return bool(heard)

    await until(has_said, "heat has an answer", timeout_s=40)
    await subscription.unsubscribe()
    assert (heard[0].performative, "a draught" in heard[0].reason) == ("reject-proposal", True)
    # Forged and misdirected words: another's, one for no question, one of who is not concerned.
    for name, conversation in (("eye", heard[0].conversation), ("narrow", command.id), ("heat", command.id)):
        forged = wire.encode(Act(version=1, performative="accept-proposal", conversation=conversation))
        await client.bus.publish(subjects.consent("gw", name), forged)
    twice = wire.encode(Act(version=1, performative="accept-proposal", conversation=heard[0].conversation))
    await client.bus.publish(subjects.consent("gw", "heat"), twice)

    async def are_counted() -> bool:
        counts: dict[str, Any] = (await client.state())["consents"]
        return bool(counts.get("refused_stranger", 0) >= 1 and counts.get("refused_repeated", 0) >= 1)

    await until(are_counted, "the forgeries are counted", timeout_s=20)
    assert await client.effects("valve-2") == []
    assert (await client.decide(command.id, "approve")).status_code == 200
    done = await air.outcome(command)
    assert (done.status, done.approver) == ("proven", "ann")
    told = await whys(client, command.id)
    assert "heat refused: rule 'shut' wants False: a draught: not enough" in told["consent"]


async def test_a_member_that_is_gone_has_not_consented(client: Client, air: Agent, heat: list[ServiceProcess]) -> None:
    heat[0].kill()
    reply = await air.lease("valve-3", "Brief")
    command = air.command("valve-3", "true", reply.epoch, "Brief", ttl_s=6.0)
    await air.send(command)
    done = await air.outcome(command)
    assert (done.status, await client.effects("valve-3")) == ("expired", [])
    assert done.reason == "nobody approved it in time; 0 of 1 consents: heat was silent"
