"""A gateway runs, is backed up, runs on, is stopped, and runs on from the backup: nothing lost, nothing twice."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.backup_archive import read_manifest
from edgeagents.adapters.gateway_backup import Place, back_up, restore
from edgeagents.embedded.demo import WINTER_MORNING_S
from edgeagents.embedded.gateway import Gateway, Plan
from edgeagents.errors import ConfigurationError
from edgeagents.model.message import LeaseRecord
from tests.contract.waiting import until
from tests.scenarios.conftest import Deadline, figures_of, never_done, patient

SILENT = lambda name: None  # noqa: E731


def gateway_in(folder: Path) -> Gateway:
    """Return a gateway that keeps its state in a folder."""
    return patient(Gateway(Plan(folder, never_done(folder.parent), 60.0, WINTER_MORNING_S)))


async def proven(gateway: Gateway) -> int:
    """Return how many commands the guard of this run has proven."""
    return int((await gateway.state("guard", "/api/v3/guard")).get("outcomes", {}).get("proven", 0))


async def until_proven(gateway: Gateway, seconds: float = 30.0) -> None:
    """Wait until one more command is proven."""
    before, deadline = await proven(gateway), Deadline(seconds)
    while await proven(gateway) <= before:
        assert not deadline.is_over, "no further command was proven"
        await asyncio.sleep(0.1)


async def generation(gateway: Gateway) -> int:
    """Return the generation in force."""

    async def told() -> int:
        return int((await gateway.state("guard", "/api/v3/guard")).get("generation", 0))

    return int(await until(told, "the guard tells its generation"))


async def generations(gateway: Gateway) -> list[int]:
    """Return the generations of all lease records, in the order of the stream."""
    bus = await gateway.connect()
    try:
        read = bus.read(subjects.COMMANDS_STREAM, [subjects.lease_records("home")], name="check-leases")
        return [wire.decode(LeaseRecord, stored.data).generation async for stored in read]
    finally:
        await bus.close()


async def run_until_proven(folder: Path) -> tuple[int, dict[str, Any], list[int]]:
    """Run a gateway until commands are proven; return its generation, the demo's figures and all generations."""
    gateway = gateway_in(folder)
    gateway.start()
    try:
        await gateway.ready()
        await until_proven(gateway)
        return await generation(gateway), await figures_of(gateway), await generations(gateway)
    finally:
        await gateway.stop()


@pytest.mark.timeout(240)
async def test_a_gateway_runs_on_from_a_backup_of_a_running_one(tmp_path: Path) -> None:
    folder, archive = tmp_path / "gateway", tmp_path / "backup.tar"
    place, gateway = Place.of_folder(folder), gateway_in(folder)
    gateway.start()
    try:
        await gateway.ready()
        await until_proven(gateway)
        place = Place.of_folder(folder)
        manifest = await back_up(place, archive, SILENT)
        first = await generation(gateway)
        with pytest.raises(ConfigurationError, match="runs on it: stop the gateway first"):
            await restore(place, archive, SILENT, force=True)
        await until_proven(gateway)
    finally:
        await gateway.stop()
    assert (manifest.gateway, manifest.generation) == ("home", first)
    assert manifest == read_manifest(archive)
    assert not [member.name for member in manifest.members if member.name.startswith(("secrets", "passwords"))]
    assert archive.stat().st_mode & 0o777 == 0o600

    with pytest.raises(ConfigurationError, match="there is state already: --force"):
        await restore(place, archive, SILENT)
    seen = [first]
    for _ in range(2):  # the same backup twice gives two generations
        done = await restore(place, archive, SILENT, force=True)
        assert done.aside is not None
        assert (done.aside / "guard" / "guard.db").exists()
        now, figures, records = await run_until_proven(folder)
        assert figures["problems"] == []
        assert (figures["lost"], figures["duplicated"]) == (0, 0)
        assert now > max(seen)
        assert records == sorted(records), "epochs only grow"
        assert records[-1] == now
        seen.append(now)


@pytest.mark.timeout(120)
async def test_a_stopped_gateway_is_backed_up_and_restored_into_an_empty_folder(tmp_path: Path) -> None:
    folder, other, archive = tmp_path / "gateway", tmp_path / "other", tmp_path / "backup.tar"
    first, _, _ = await run_until_proven(folder)
    manifest = await back_up(Place.of_folder(folder), archive, SILENT, with_secrets=True)
    assert manifest.generation == first
    assert manifest.has_secrets
    assert {"secrets/owner.token", "passwords/owner.password"} <= {member.name for member in manifest.members}
    done = await restore(Place.of_folder(other), archive, SILENT)
    assert done.aside is None
    assert (other / "nats" / "owner.password").read_text() == (folder / "nats" / "owner.password").read_text()
    now, figures, _ = await run_until_proven(other)
    assert now > first
    assert (figures["problems"], figures["lost"], figures["duplicated"]) == ([], 0, 0)
