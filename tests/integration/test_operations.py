"""What `edgeagents doctor` finds on a real broker and an embedded core when something is wrong; how services say it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeagents import subjects
from edgeagents.adapters.bus import Bus
from edgeagents.adapters.examination.disk import look_at_disk
from edgeagents.cli.doctor import diagnose
from edgeagents.cli.place import Place
from edgeagents.embedded.nats import find_nats_server, write_config
from edgeagents.errors import UnavailableError
from edgeagents.model.finding import Finding
from edgeagents.permissions import for_everything
from edgeagents.protocol.diagnosis.machine import disk_finding
from edgeagents.settings import BusSettings
from tests.contract.waiting import until
from tests.embedded_core import EmbeddedCore
from tests.fake_edgex import FakeEdgex
from tests.nats import NatsServer, free_port
from tests.services import ServiceProcess

AGENT = "name: air\nwatches: [{device: lamp-9}]\nmay: [{device: lamp-9, resource: Power}]\n"
SITE = "resources: [{device: lamp-9, resource: Power, risk_class: A}]\n"


@pytest.fixture
def core(nats_server: NatsServer, tmp_path: Path) -> Iterator[EmbeddedCore]:
    """A running embedded core on the test's broker."""
    running = EmbeddedCore(tmp_path / "core", nats_server.url).start()
    yield running
    running.kill()


@pytest.fixture
def place(nats_server: NatsServer, tmp_path: Path) -> Place:
    """A gateway of which the broker runs, with one agent file; keeper is not there."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "air.yaml").write_text(AGENT)
    (tmp_path / "site.yaml").write_text(SITE)
    away = f"http://127.0.0.1:{free_port()}"
    return Place(
        nats=nats_server.url, gateway="gw", keeper=away, guard=away, coordinator=away, inference=away,
        site_file=tmp_path / "site.yaml",
        agents_dir=tmp_path / "agents", guard_dir=tmp_path,
    )  # fmt: skip


def at(place: Place, **changes: Any) -> Place:
    """Return a place with other addresses."""
    return Place(**{name: getattr(place, name) for name in Place.__slots__} | changes)


async def found(place: Place) -> dict[str, Finding]:
    """Return the worst finding of each check."""
    worst: dict[str, Finding] = {}
    order = ("ok", "skipped", "warning", "failed")
    for finding in await diagnose(place.resolved()):
        known = worst.get(finding.check)
        if known is None or order.index(finding.level) > order.index(known.level):
            worst[finding.check] = finding
    return worst


async def make_streams(bus: Bus) -> None:
    """Make the gateway's streams, as the guard does."""
    for name, captured in subjects.stream_subjects("gw").items():
        await bus.ensure_stream(name, captured)


async def test_streams_that_no_guard_has_made_yet_are_named_then_there(bus: Bus, place: Place) -> None:
    missing = (await found(place))["streams"]
    assert (missing.level, "edgex-events" in missing.found) == ("failed", True)
    await make_streams(bus)
    sound = await found(place)
    assert sound["streams"].level == "ok"
    assert sound["stream of tasks"].level == "warning"
    assert sound["clock of broker"].level == "ok"
    assert sound["credentials"].level == "warning"  # this broker asks nobody who it is


async def test_the_stream_of_tasks_is_looked_at_as_any_other(bus: Bus, place: Place) -> None:
    await make_streams(bus)
    await bus.ensure_stream(subjects.TASKS_STREAM, ["elsewhere.tasks.*"])
    findings = await found(place)
    assert "stream of tasks" not in findings
    assert findings["streams"].found == "tasks captures elsewhere.tasks.*"


async def test_a_stream_that_takes_nothing_in_any_more_is_stuck(bus: Bus, place: Place) -> None:
    await make_streams(bus)
    # As a store that met "no space left" behaves: what is published is left without an acknowledgement.
    config = (await bus.js.stream_info(subjects.TRIGGERS_STREAM)).config
    await bus.js.delete_stream(subjects.TRIGGERS_STREAM)
    await bus.js.add_stream(config.evolve(max_msgs=1, discard="new"))

    async def publish() -> None:
        while True:
            await bus.publish("gw.triggers.air", b"{}")
            await bus.publish("edgex.events.device.s.p.d.r", b"{}")
            await asyncio.sleep(0.05)

    async def stuck() -> Finding | None:
        finding = (await found(place))["streams"]
        return finding if (finding.level, finding.found[:19]) == ("failed", "triggers is stuck: ") else None

    async with asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(publish())
        await until(stuck, "the doctor finds it", timeout_s=60)  # messages have to come while it looks
        publishing.cancel()


@contextlib.asynccontextmanager
async def server(*flags: str) -> AsyncIterator[str]:
    """Yield the address of another nats-server."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        find_nats_server(), "-a", "127.0.0.1", "-p", str(port), *flags, stderr=asyncio.subprocess.DEVNULL
    )
    try:

        async def listens() -> bool:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return True
            return False

        await until(listens, "nats-server listens")
        yield f"nats://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


async def test_a_broker_without_jetstream_is_named_with_the_setting(place: Place) -> None:
    async with server() as url:
        findings = await found(at(place, nats=url))
    assert (findings["broker"].level, findings["jetstream"].level) == ("ok", "failed")
    assert "jetstream {" in findings["jetstream"].remedy
    assert findings["streams"].level == "skipped"


async def test_a_wrong_password_is_told_apart_from_a_broker_that_is_away(place: Place, tmp_path: Path) -> None:
    config, passwords = write_config(tmp_path / "users", free_port(), {"owner": for_everything()})
    (tmp_path / "wrong").write_text("wrong")
    async with server("-c", str(config)) as url:
        right = await found(at(place, nats=url, user="owner", password_file=passwords["owner"]))
        wrong = await found(at(place, nats=url, user="owner", password_file=tmp_path / "wrong"))
    assert (right["credentials"].level, right["credentials"].found) == ("ok", "accepted as owner")
    assert (wrong["broker"].level, wrong["credentials"].level) == ("ok", "failed")
    assert "EDGEAGENTS_NATS_PASSWORD_FILE" in wrong["credentials"].remedy


async def test_credentials_that_have_expired_are_told_as_such() -> None:
    """A server of an operator mode says so in its own words."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "x", "version": "2.15.1", "auth_required": True, "max_payload": 1024, "proto": 1}
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        await reader.readline()
        writer.write(b"-ERR 'User Authentication Expired'\r\n")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        with pytest.raises(UnavailableError, match=r"refused user or password \(expired\): do EDGEAGENTS_NATS_USER"):
            await Bus.connect(BusSettings(nats_url=f"nats://127.0.0.1:{port}", connect_timeout_s=5), "x")


async def test_a_sound_core_is_ok_and_a_device_that_is_missing_a_warning(core: EmbeddedCore, place: Place) -> None:
    findings = await found(at(place, keeper=core.urls["keeper"]))
    for name in ("keeper", "edgex version", "core-metadata", "core-data", "core-command", "clock of EdgeX"):
        assert findings[name].level == "ok", findings[name]
    assert findings["devices"].level == "warning"
    assert "device 'lamp-9'" in findings["devices"].found
    assert findings["agent air"].found == "not registered in keeper"


async def test_another_service_at_keepers_address_is_named(core: EmbeddedCore, place: Place) -> None:
    keeper = (await found(at(place, keeper=core.urls["metadata"])))["keeper"]
    assert keeper.level == "failed"
    assert "core-metadata answers there" in keeper.found


@pytest.mark.parametrize("version", ["3.1.0", "5.0.0"])
async def test_an_edgex_of_another_major_version_is_named(place: Place, version: str) -> None:
    edgex = FakeEdgex()
    edgex.version = version
    async with edgex.serving():
        finding = (await found(at(place, keeper=edgex.url)))["edgex version"]
    assert finding.level == "failed"
    assert finding.found == f"core-keeper is version {version}, these services need 4.x"


async def test_two_files_of_one_name_and_a_file_that_does_not_parse_are_each_named(place: Place) -> None:
    for name, text in (("twin", AGENT), ("bad", "name: [")):
        (place.agents_dir / f"{name}.yaml").write_text(text)
    texts = [item.found for item in await diagnose(place) if item.check == "agent files" and item.level == "failed"]
    assert len(texts) == 2
    assert any(f"{place.agents_dir / 'bad.yaml'}" in text for text in texts)
    assert any("both declare agent 'air'" in text for text in texts)


def test_a_folder_that_cannot_be_written_is_a_failure_with_the_remedy() -> None:
    finding = disk_finding(look_at_disk("the guard", Path("/proc")))
    assert finding.level == "failed"
    assert "writable" in finding.remedy


async def test_a_service_given_anothers_address_for_keepers_says_whose_it_is(
    core: EmbeddedCore, nats_server: NatsServer, tmp_path: Path, place: Place
) -> None:
    environ = {
        "EDGEAGENTS_AGENT_FILE": str(place.agents_dir / "air.yaml"), "EDGEX_STARTUP_DURATION": "2",
        "EDGEX_CONFIG_PROVIDER": core.urls["data"].replace("http://", "keeper.http://"),
    }  # fmt: skip
    service = ServiceProcess("services.agent", "app-agent-air", core, nats_server.url, tmp_path, environ=environ)
    try:
        code = await asyncio.to_thread(service.process.wait, 20)
    finally:
        service.kill()
    log = service.log_path.read_text()
    assert code == 1
    assert "waiting for core-keeper at " in log
    assert "service 'core-data' answers there: name keeper's address" in log
    assert "Traceback" not in log


async def test_a_guard_on_a_broker_without_jetstream_ends_and_says_what_to_switch_on(
    core: EmbeddedCore, tmp_path: Path, place: Place
) -> None:
    async with server() as url:
        environ = {
            "EDGEAGENTS_GUARD_SITE_FILE": str(place.site_file), "EDGEAGENTS_GUARD_AGENTS_DIR": str(place.agents_dir),
            "EDGEAGENTS_GUARD_STATE_DIR": str(tmp_path / "state"),
        }  # fmt: skip
        guard = ServiceProcess("services.guard", "app-guard", core, url, tmp_path, environ=environ)
        try:
            code = await asyncio.to_thread(guard.process.wait, 30)
        finally:
            guard.kill()
    log = guard.log_path.read_text()
    assert code == 1
    assert "is JetStream on" in log
    assert "Traceback" not in log
