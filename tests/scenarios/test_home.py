"""A whole home: what its parts may and may not do to each other."""

import asyncio

import httpx

from edgeagents.embedded.gateway import Gateway
from tests.scenarios.conftest import ANSWER_S, Deadline


async def test_agents_cannot_reach_core_command(gateway: Gateway) -> None:
    url = f"{gateway.url('command')}/api/v3/device/name/radiator-living/Setpoint"
    async with httpx.AsyncClient(timeout=ANSWER_S) as client:
        without = await client.put(url, json={"Setpoint": "23"})
        wrong = await client.put(url, json={"Setpoint": "23"}, headers={"Authorization": "Bearer comfort"})
        owner = {"Authorization": f"Bearer {gateway.token('owner')}"}
        allowed = await client.put(url, json={"Setpoint": "20.5"}, headers=owner)

    assert (without.status_code, wrong.status_code) == (401, 401)
    assert without.json()["apiVersion"] == "v3"
    assert allowed.status_code == 200


async def test_a_rule_result_by_http_is_stored_and_taken_in_by_the_agent(gateway: Gateway) -> None:
    url = (await gateway.agent_urls())["comfort"]
    async with httpx.AsyncClient(timeout=ANSWER_S) as client:
        one = await client.post(f"{url}/api/v3/rule", json={"cold": True})
        many = await client.post(f"{url}/api/v3/rule", json=[{"cold": True}, {"cold": False}])
        bad = await client.post(f"{url}/api/v3/rule", content=b"[1, 2")
        wrong = await client.post(f"{url}/api/v3/rule", json=[1, 2])

        assert (one.status_code, many.status_code) == (202, 202)
        assert len(many.json()["sequences"]) == 2
        assert (bad.status_code, wrong.status_code) == (400, 400)
        deadline = Deadline(30)
        while (await client.get(f"{url}/api/v3/agent")).json()["counts"].get("rule_results", 0) < 3:
            assert not deadline.is_over, "the agent never took the rule results in"
            await asyncio.sleep(0.05)


async def test_a_pipeline_edited_in_keeper_changes_what_is_decided_on_within_a_second(gateway: Gateway) -> None:
    url = (await gateway.agent_urls())["air"]
    key = f"{gateway.url('keeper')}/api/v3/kvs/key/edgex/v4/app-agent-air"
    async with httpx.AsyncClient(timeout=ANSWER_S) as client:

        async def filtered() -> int:
            return int((await client.get(f"{url}/api/v3/agent")).json()["counts"].get("filtered", 0))

        async def until_filtering(value: str, path: str) -> None:
            before = await filtered()
            answer = await client.put(f"{key}/{path}", json={"value": value})
            assert answer.status_code == 200
            deadline = Deadline(30)  # the change itself takes well under a second; then an event has to come
            while await filtered() == before:
                assert not deadline.is_over, f"{path} = {value!r} filtered no event"
                await asyncio.sleep(0.05)

        await until_filtering("sensor-living", "Writable/Pipeline/Functions/FilterByDeviceName/Parameters/DeviceNames")
        await until_filtering("rules/agents", "Trigger/SubscribeTopics")
