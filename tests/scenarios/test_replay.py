"""A home at work: its audit is whole, and every decision in it comes out the same when it is made again."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, BusMessage
from edgeagents.embedded.demo import WINTER_MORNING_S
from edgeagents.embedded.gateway import GATEWAY, Gateway, Plan
from edgeagents.model.message import AuditRecord
from edgeagents.trail import StreamTrail, export
from tests.scenarios.conftest import ROOT, Deadline

FACTOR = 10_000.0  # a day in 9 s: people come and go, and each time agents decide anew
TIMES_AS_OFTEN = 10  # the sensors report, against the home as it is


def busy_home(folder: Path) -> Path:
    """Return a copy of the home whose sensors report more often."""
    profiles = folder / "profiles"
    shutil.copytree(ROOT / "edgex-profiles" / "home", profiles)
    for path in (profiles / "devices").glob("*.yaml"):
        text, count = re.subn(
            r"interval: (\d+)s", lambda found: f"interval: {int(found[1]) * 1000 // TIMES_AS_OFTEN}ms", path.read_text()
        )
        assert count > 10, path
        path.write_text(text)
    return profiles


async def decided(bus: Bus, count: int, timeout_s: float) -> None:
    """Wait until agents have written down so many decisions."""
    seen = 0

    async def on_record(message: BusMessage) -> None:
        nonlocal seen
        seen += wire.decode(AuditRecord, message.data).kind == "decision"

    await bus.subscribe(subjects.audits(GATEWAY), on_record)
    deadline = Deadline(timeout_s)
    while seen < count:
        assert not deadline.is_over, f"{seen} decisions in {timeout_s} s"
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("count", "timeout_s"),
    [
        pytest.param(50, 60, marks=[pytest.mark.slow, pytest.mark.timeout(180)]),
        pytest.param(1000, 500, marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
async def test_every_decision_of_a_home_at_work_is_made_again_bit_for_bit(
    tmp_path: Path, count: int, timeout_s: float
) -> None:
    gateway, exported = Gateway(Plan(tmp_path, busy_home(tmp_path), FACTOR, WINTER_MORNING_S)), tmp_path / "audit.jsonl"
    gateway.start()
    try:
        await gateway.ready()
        bus = await gateway.connect()
        await decided(bus, count, timeout_s)
        await gateway.stop_deciding()
        await gateway.settle(bus)
        _, problems = await export(await StreamTrail.open(bus), GATEWAY, exported)
        await bus.close()
    finally:
        await gateway.stop()

    assert problems == []
    result = replayed(exported)
    print(json.dumps(result))
    assert result["decisions"] >= count
    assert (result["equal"], result["different"], result["problems"]) == (result["decisions"], [], [])


def replayed(exported: Path) -> dict[str, object]:
    """Return what `edgeagents replay --all` starts says of an export."""
    command = [sys.executable, "-m", "services.agent", "--replay=all", "--file", str(exported), "--json"]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("EDGEAGENTS_")}
    done = subprocess.run(command, cwd=ROOT, env=plain, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found
