"""A hundred agents of a gateway start at one moment: how long it takes, what each costs, whether they fit and work.

Real processes, each imports, registers with keeper, gets its session from the guard and follows its streams. The limit
of a minute is for a machine of their own: what others take of it meanwhile stretches it (`tests/faults/machine.py`).
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from tests.faults.machine import Share
from tests.load.gateway import LoadGateway, agent_name, as_in_an_image, plan_of
from tests.load.processes import usage_of
from tests.load.traffic import Machinery, Traffic, Windows
from tests.load.verdict import Verdict, judge

# Fewer for a try; only a hundred count.
AGENTS, MACHINES = int(os.environ.get("START_AGENTS", "100")), 2
MOST_START_S = 60.0
MOST_AGENT_MB = 90.0  # PSS, on average
UP_S = 600.0
EVENTS_PER_S, SECONDS = 100.0, 20.0


async def started(folder: Path, report: dict[str, object]) -> Verdict:
    """Start all, note what that took, and return what comes of events to every one of them."""
    # By default a service gives up after 60 s and is started anew: what it imported then was for nothing.
    patience = {"EDGEX_STARTUP_DURATION": str(int(UP_S))}
    plan = plan_of(folder, AGENTS, MACHINES, as_in_an_image(folder) | patience)
    gateway = LoadGateway(plan, devices=AGENTS * MACHINES)
    try:
        agents_to_start = await gateway.only_agents_missing(UP_S)
        share, began_s = Share(), time.monotonic()
        for child in agents_to_start:
            gateway.supervisor.start(child)
        await gateway.ready(UP_S)
        took_s, ours = time.monotonic() - began_s, share.now()
        used = {name: usage_of(pid) for name, pid in gateway.supervisor.pids.items()}
        agents = [used[f"agent-{agent_name(line)}"] for line in range(AGENTS)]
        report |= {
            "agents": AGENTS, "took_s": round(took_s, 1), "share_of_machine": round(ours, 2), "cpus": os.cpu_count(),
            "cpu_s_an_agent": round(statistics.median(item.cpu_s for item in agents), 2),
            "cpu_s": {name: round(item.cpu_s, 1) for name, item in used.items() if not name.startswith("agent-")},
            "agents_pss_mb": round(sum(item.pss for item in agents) / 1e6), "restarts": gateway.supervisor.restarts,
            "gateway_pss_mb": round(sum(item.pss for item in used.values()) / 1e6),
        }  # fmt: skip
        await gateway.come_up(UP_S)
        bus, machinery = await gateway.connect(), Machinery(AGENTS, MACHINES)
        traffic = Traffic(bus, machinery, Windows())
        await traffic.listen()
        await traffic.warm_up(EVENTS_PER_S / 5)
        seen = await traffic.run(EVENTS_PER_S, SECONDS)
        await gateway.settle(bus)
        found = await judge(bus, seen, machinery, folder, (EVENTS_PER_S, SECONDS))
        await bus.close()
        return found
    finally:
        await gateway.stop()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_hundred_agents_start_in_a_minute_and_all_work(tmp_path: Path, say: Callable[[str], None]) -> None:
    report: dict[str, object] = {}
    try:
        found = uvloop.run(started(tmp_path, report))
    finally:
        say(json.dumps({"start": report}))
    say(json.dumps({"load": {name: found.report[name] for name in ("reached", "commands", "lost", "duplicated")}}))
    assert found.broken == []
    commands = found.report["commands"]
    assert set(commands["outcomes"]) == {"proven"}
    assert commands["agents"] == AGENTS
    assert report["agents_pss_mb"] <= AGENTS * MOST_AGENT_MB
    limit_s = MOST_START_S / float(str(report["share_of_machine"]))
    assert float(str(report["took_s"])) <= limit_s, f"{report['took_s']} s, {limit_s:.0f} s allowed on this machine"
