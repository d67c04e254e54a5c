"""The demo, headless, as a stranger runs it."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from edgeagents.embedded.gateway import Gateway
from tests.scenarios.conftest import ROOT, Deadline

KEYS = {
    "events", "decisions", "commands_sent", "commands_proven", "failures", "refused_by_gate", "lost", "duplicated",
    "event_to_command_ms", "comfort_violation_degree_hours", "energy_kwh",
}  # fmt: skip


@pytest.mark.timeout(150)
def test_headless_demo_proves_commands_and_loses_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgeagents.embedded.demo", "--seconds", "30", "--json", "--keep", str(tmp_path)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=140, check=False)

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result.keys() >= KEYS
    assert result["commands_proven"] >= 5, result
    assert result["failures"] <= 0.01 * result["commands_sent"], result
    assert (result["lost"], result["duplicated"]) == (0, 0), result
    assert result["event_to_command_ms"]["p50"] > 0
    assert processes_that_mention(str(tmp_path)) == []


async def test_agents_cannot_reach_core_command(gateway: Gateway) -> None:
    url = f"{gateway.url('command')}/api/v3/device/name/radiator-living/Setpoint"
    async with httpx.AsyncClient() as client:
        without = await client.put(url, json={"Setpoint": "23"})
        wrong = await client.put(url, json={"Setpoint": "23"}, headers={"Authorization": "Bearer comfort"})
        owner = {"Authorization": f"Bearer {gateway.token('owner')}"}
        allowed = await client.put(url, json={"Setpoint": "20.5"}, headers=owner)

    assert (without.status_code, wrong.status_code) == (401, 401)
    assert without.json()["apiVersion"] == "v3"
    assert allowed.status_code == 200


async def test_a_rule_result_by_http_is_stored_and_taken_in_by_the_agent(gateway: Gateway) -> None:
    url = (await gateway.agent_urls())["comfort"]
    async with httpx.AsyncClient() as client:
        one = await client.post(f"{url}/api/v3/rule", json={"cold": True})
        many = await client.post(f"{url}/api/v3/rule", json=[{"cold": True}, {"cold": False}])
        bad = await client.post(f"{url}/api/v3/rule", content=b"[1, 2")
        wrong = await client.post(f"{url}/api/v3/rule", json=[1, 2])

        assert (one.status_code, many.status_code) == (202, 202)
        assert len(many.json()["sequences"]) == 2
        assert (bad.status_code, wrong.status_code) == (400, 400)
        deadline = Deadline(10)
        while (await client.get(f"{url}/api/v3/agent")).json()["counts"].get("rule_results", 0) < 3:
            assert not deadline.is_over, "the agent never took the rule results in"
            await asyncio.sleep(0.05)


def processes_that_mention(text: str) -> list[str]:
    """Return the command lines of processes that name a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if text in line:
                found.append(line)
    return found
