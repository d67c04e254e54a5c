"""Events of 200 machines at a rate, ten agents, commands all the time: nothing lost, nothing doubled, memory flat.

The last line of a test is JSON. A rate that this machine does not reach is said so, with what held it back: the test
in minutes (`make test-long`) fails then, all else is judged on its own. Source: issue "On a real gateway".
"""

import asyncio
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from tests.bench.events import fsyncs_per_s
from tests.faults.machine import Share
from tests.load.gateway import LoadGateway, as_in_an_image, plan_of
from tests.load.processes import Watch, costs, growing
from tests.load.traffic import LATE_S, Machinery, Traffic, Windows
from tests.load.verdict import Verdict, judge

SECONDS, RATE = "LOAD_SECONDS", "LOAD_RATE"
AGENTS, MACHINES = 10, 20
UP_S = 120.0
WARM_UP_RATE = 20.0
SETTLE_S = 300.0  # a guard that is behind ends what it took when its time is over, and may have a lot of it


async def under_load(folder: Path, rate: float, seconds: float, late_s: float) -> Verdict:
    """Return what came of a load on a fresh gateway: see `verdict.judge`, with costs and the machine added."""
    disk = fsyncs_per_s(folder)
    gateway = LoadGateway(plan_of(folder, AGENTS, MACHINES, as_in_an_image(folder)), devices=AGENTS * MACHINES)
    machinery = Machinery(AGENTS, MACHINES)
    gateway.start()
    try:
        await gateway.come_up(UP_S)
        async with asyncio.TaskGroup() as tasks:
            bus = await gateway.connect()
            traffic = Traffic(bus, machinery, Windows(unread=max(2_000, int(10 * rate))))
            await traffic.listen()
            await traffic.warm_up(WARM_UP_RATE)
            watch, share = Watch(gateway.supervisor), Share()
            watching = tasks.create_task(watch.run())
            seen = await traffic.run(rate, seconds, late_s)
            watch.look()
            watching.cancel()
            ours = share.now()
            await gateway.settle(bus, SETTLE_S)
            found = await judge(bus, seen, machinery, folder, (rate, seconds))
            await bus.close()
    finally:
        await gateway.stop()
    found.report |= costs(watch)
    found.report["machine"] = {
        "cpus": os.cpu_count(), "share_of_it": round(ours, 2), "load": os.getloadavg(), "fsyncs_per_s": disk,
        "python": platform.python_version(),
    }  # fmt: skip
    found.broken += [f"{name} was started again {count} times" for name, count in gateway.supervisor.restarts.items()]
    return found


def run(folder: Path, rate: float, seconds: float, say: Callable[[str], None], late_s: float = LATE_S) -> Verdict:
    """Return what came of a load, after its figures were told."""
    found = uvloop.run(under_load(folder, rate, seconds, late_s))
    say(json.dumps({"load": found.report}))
    assert found.broken == []
    commands = found.report["commands"]
    assert commands["sent"] > 0
    assert commands["outcomes"].get("proven", 0) > 0
    return found


def test_nothing_is_lost_or_doubled_under_a_load_of_seconds(tmp_path: Path, say: Callable[[str], None]) -> None:
    found = run(tmp_path, 200.0, 15.0, say, late_s=60.0)  # all are sent: a rate is asked for elsewhere
    assert found.report["reached"]["published"] == 3000
    assert found.report["reached"]["not_stored"] == 0


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_ten_agents_and_200_devices_at_the_asked_rate(tmp_path: Path, say: Callable[[str], None]) -> None:
    found = run(tmp_path, float(os.environ.get(RATE, "2000")), float(os.environ.get(SECONDS, "600")), say)
    wrong = [f"memory: {text}" for text in growing(found.report["memory"])]
    wrong += [f"rate: {found.short}"] if found.short else []
    assert wrong == []
