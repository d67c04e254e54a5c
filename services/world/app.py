"""Start here: a simulated world as a real EdgeX device service.

`python -m services.world --scenario home` and the flags of every EdgeX service. The house runs in site time;
its state lies in `EDGEAGENTS_WORLD_STATE_DIR` and outlives the process.

Source: design.md sections 2 and 4.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from edgeagents.adapters.bootstrap import Build, EdgexService, ServiceSpec, run_service
from edgeagents.adapters.device_service import DeviceService, DeviceServiceSettings, serve_devices
from edgeagents.adapters.provisioning import load_inventory
from edgeagents.errors import NotFoundError
from edgeagents.journal import Journal
from edgeagents.model.device import Device, Profile
from edgeagents.settings import PREFIX
from services.world.driver import HomeDriver, points_of
from services.world.simulation import Simulation
from services.world.switches import add_switches

ROOT: Final = Path(__file__).resolve().parents[2]
PORTS: Final = {"home": 59980}


class WorldSettings(BaseSettings):
    """What the owner chooses about a simulated world."""

    model_config = SettingsConfigDict(env_prefix=f"{PREFIX}WORLD_", frozen=True)

    seed: int = Field(1, ge=0, description="of weather, people and prices: the same seed, the same days")
    state_dir: Path = Field(Path("var/world"), description="folder for the state of the house")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the service until it is told to stop; return its exit code."""
    parser = argparse.ArgumentParser(prog="services.world", add_help=False, allow_abbrev=False)
    parser.add_argument("--scenario", choices=sorted(PORTS), default="home")
    chosen, rest = parser.parse_known_args(sys.argv[1:] if argv is None else argv)
    return run_service(make_spec(chosen.scenario), make_build(chosen.scenario), rest)


def make_spec(scenario: str) -> ServiceSpec:
    """Return what the service of a scenario is to EdgeX."""
    return ServiceSpec(
        key=f"device-world-{scenario}",
        kind="device",
        port=PORTS[scenario],
        config={
            "Writable": {"LogLevel": "INFO", "Reading": {"ReadingUnits": True}},
            "Service": {"StartupMsg": f"simulated {scenario} has started"},
            "Device": {
                "ProfilesDir": f"edgex-profiles/{scenario}/profiles",
                "DevicesDir": f"edgex-profiles/{scenario}/devices",
                "DataTransform": True,
                "MaxCmdOps": 128,
            },
        },
        settings=(DeviceServiceSettings, WorldSettings),
    )


def make_build(scenario: str) -> Build:
    """Return what wires a scenario into a started service."""

    @contextlib.asynccontextmanager
    async def build(service: EdgexService) -> AsyncIterator[None]:
        settings, events = WorldSettings(), DeviceServiceSettings()
        inventory = load_inventory(_folder(service, "Device/ProfilesDir"), _folder(service, "Device/DevicesDir"))
        simulation = Simulation(settings.seed, service.site_time, settings.state_dir / f"{scenario}.json")
        await simulation.save()
        running = service.tasks.create_task(simulation.run(), name="simulation")
        journal = Journal.in_folder(events.journal_dir, "world")
        driver = HomeDriver(simulation)
        async with serve_devices(
            service, driver, inventory, settings=events, journal=journal, labels=("world", scenario)
        ) as devices:
            _add_page(service, scenario, simulation, devices)
            add_switches(service.app, driver, journal, lambda name: _own(devices, name))
            yield
        running.cancel()
        await simulation.save()

    return build


def _folder(service: EdgexService, key: str) -> Path:
    # A relative folder is one of the project: the service may be started anywhere.
    return ROOT / service.config.text(key)


def _add_page(service: EdgexService, scenario: str, simulation: Simulation, devices: DeviceService) -> None:
    @service.app.get("/api/v3/world", tags=["world"])
    async def world() -> dict[str, Any]:
        """Return the house, its score and what went over the bus, for pages and tests."""
        return {"apiVersion": "v3", "scenario": scenario, **describe(simulation, devices)}


def _own(devices: DeviceService, name: str) -> tuple[Device, Profile]:
    """Return a device of this house and its profile.

    Raises:
        NotFoundError: it has no such device (yet).
    """
    own = {device.name: device for device in devices.own_devices()}
    profile = devices.service.devices.profile_of(name) if name in own else None
    if profile is None:
        raise NotFoundError(f"the house has no device {name!r}: it has {', '.join(sorted(own)) or 'none yet'}")
    return own[name], profile


def describe(simulation: Simulation, devices: DeviceService) -> dict[str, Any]:
    """Return everything worth showing about a running world."""
    publisher, counters, home = devices.publisher, devices.counters, simulation.home
    return {
        "seed": simulation.seed,
        "site_time": datetime.fromtimestamp(home.site_s, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        "site_s": home.site_s,
        "wall_s": time.time(),
        "factor": simulation.clock.factor,
        "lag_s": round(simulation.lag_s, 1),
        **points_of(home, simulation.around),
        "score": {name: round(value, 4) for name, value in asdict(home.score).items()},
        "counters": {
            "published": publisher.published, "resent": publisher.resent, "gaps": publisher.gaps,
            "waiting": publisher.waiting, **asdict(counters),
        },
        "provisioned": devices.is_provisioned,
        "devices": [
            {"name": device.name, "profile": device.profile_name, "labels": list(device.labels),
             "adminState": device.admin_state, "operatingState": device.operating_state}
            for device in devices.own_devices()
        ],
    }  # fmt: skip
