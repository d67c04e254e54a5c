"""Our application service beside this EdgeX: configuration, registration, health, secrets, live devices."""

import asyncio
import uuid
from dataclasses import replace
from typing import Any

import pytest

from edgeagents.errors import NotFoundError
from edgeagents.model.envelope import EdgexMessage, EventMessage
from tests.contract.edgex import Edgex
from tests.contract.lab import Lab, lab_profile
from tests.contract.running import HEALTH_INTERVAL, Running, app_spec, nothing_more, run, running
from tests.contract.waiting import Seen, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
INTERVAL_S = float(HEALTH_INTERVAL.removesuffix("s"))
COMMON = "edgex/v4/core-common-config-bootstrapper"


async def get(edgex: Edgex, service: Running, path: str) -> Any:
    answer = await edgex.http.get(f"{service.service.base_url}/api/v3{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def kept(edgex: Edgex, service: Running, path: str) -> str | None:
    """Return what keeper holds of a service's own configuration."""
    key = f"edgex/v4/{service.service.key}/{path}"
    try:
        return (await edgex.keeper.get(key)).get(key)
    except NotFoundError:
        return None


# --- start ---------------------------------------------------------------------------------------


async def test_common_routes_answer_as_those_of_any_edgex_service(edgex: Edgex, app: Running) -> None:
    key = app.service.key
    ping, version = await get(edgex, app, "/ping"), await get(edgex, app, "/version")
    assert ping == {"apiVersion": "v3", "timestamp": ping["timestamp"], "serviceName": key}
    assert version.keys() == {"apiVersion", "version", "serviceName", "sdk_version"}
    assert version["version"].startswith("4.")
    config = await get(edgex, app, "/config")
    assert config["serviceName"] == key
    assert config["config"]["Service"]["Port"] == app.service.config.get("Service/Port")


async def test_correlation_id_of_a_request_comes_back_and_one_is_made_when_absent(edgex: Edgex, app: Running) -> None:
    url, mine = f"{app.service.base_url}/api/v3/ping", str(uuid.uuid4())
    assert (await edgex.http.get(url, headers={"X-Correlation-ID": mine})).headers["X-Correlation-ID"] == mine
    assert uuid.UUID((await edgex.http.get(url)).headers["X-Correlation-ID"])


async def test_private_configuration_is_seeded_in_keeper(edgex: Edgex, app: Running) -> None:
    assert await kept(edgex, app, "Writable/LogLevel")
    assert await kept(edgex, app, "Service/Host") == edgex.target.host
    assert await kept(edgex, app, "Service/Port") == str(app.service.spec.port)
    assert await kept(edgex, app, "Trigger/Type") == "edgex-messagebus"


async def test_service_is_up_within_one_interval(edgex: Edgex, nats_url: str) -> None:
    spec = app_spec(edgex, edgex.name("app-up"))
    async with running(edgex, nats_url, spec, nothing_more):

        async def is_up() -> bool:
            return (await edgex.keeper.registration(spec.key)).status == "UP"

        await until(is_up, f"keeper finds {spec.key} up", timeout_s=INTERVAL_S)


async def test_stopped_service_ends_with_0_and_has_said_goodbye(edgex: Edgex, nats_url: str) -> None:
    spec = app_spec(edgex, edgex.name("app-stopped"))
    async with running(edgex, nats_url, spec, nothing_more) as started:
        assert await started.stop() == 0
        assert (await edgex.keeper.registration(spec.key)).status == "HALT"


async def test_service_starts_again_after_its_end(edgex: Edgex, nats_url: str) -> None:
    spec = app_spec(edgex, edgex.name("app-again"))
    for _ in range(2):
        async with running(edgex, nats_url, spec, nothing_more) as started:
            assert (await edgex.keeper.registration(spec.key)).status in ("UNKNOWN", "UP")
            assert await started.stop() == 0


@pytest.mark.parametrize("others", [None, range(0)], ids=["on its port", "on any port"])
async def test_second_service_of_a_key_that_lives_is_refused(
    edgex: Edgex, nats_url: str, app: Running, caplog: pytest.LogCaptureFixture, others: range | None
) -> None:
    spec = replace(app.service.spec, free_port_range=others)
    assert await run(edgex, nats_url, spec, nothing_more, asyncio.Event()) == 1
    assert f"{spec.key} is already running at {app.service.base_url}" in caplog.text
    registration = await edgex.keeper.registration(spec.key)
    assert registration.base_url == app.service.base_url
    assert registration.status in ("UNKNOWN", "UP")


# --- configuration -------------------------------------------------------------------------------


async def test_private_wins_over_app_services_and_those_over_all_services(edgex: Edgex, nats_url: str) -> None:
    # Words that nobody else reads, below everybody's own sections.
    word = edgex.name("Word")
    for section in ("all-services", "app-services"):
        for name in ("Everywhere", "Twice", "Once"):
            if (section, name) != ("app-services", "Once"):
                await edgex.keeper.put(f"{COMMON}/{section}/Writable/{word}/{name}", section)
    own = {"Writable": {word: {"Everywhere": "private"}}}
    async with running(edgex, nats_url, app_spec(edgex, edgex.name("app-layers"), own), nothing_more) as started:
        found = (await get(edgex, started, "/config"))["config"]["Writable"][word]
        assert found == {"Everywhere": "private", "Twice": "app-services", "Once": "all-services"}
        # And when it changes: what a lower layer says counts only where no higher one speaks.
        for name in ("Everywhere", "Twice", "Once"):
            await edgex.keeper.put(f"{COMMON}/all-services/Writable/{word}/{name}", "changed")
        config = started.service.config
        await until(lambda: config.text(f"Writable/{word}/Once") == "changed", "the change is seen", timeout_s=1.0)
        assert config.text(f"Writable/{word}/Twice") == "app-services"
        assert config.text(f"Writable/{word}/Everywhere") == "private"


async def test_log_level_in_keeper_takes_effect_in_less_than_a_second(edgex: Edgex, app: Running) -> None:
    key, config = f"edgex/v4/{app.service.key}/Writable/LogLevel", app.service.config
    before = config.text("Writable/LogLevel")
    other = "ERROR" if before != "ERROR" else "WARN"
    await edgex.keeper.put(key, other)
    try:
        await until(lambda: config.text("Writable/LogLevel") == other, "the level is changed", timeout_s=1.0)
        assert (await get(edgex, app, "/config"))["config"]["Writable"]["LogLevel"] == other
    finally:
        await edgex.keeper.put(key, before)
    await until(lambda: config.text("Writable/LogLevel") == before, "the level is changed back", timeout_s=1.0)


async def test_environment_counts_only_when_the_configuration_is_first_written(edgex: Edgex, nats_url: str) -> None:
    spec = app_spec(edgex, edgex.name("app-seeded"))
    for said, counts in (("first", "first"), ("second", "first")):
        environ = {"SERVICE_STARTUPMSG": said}
        async with running(edgex, nats_url, spec, nothing_more, environ) as started:
            assert await kept(edgex, started, "Service/StartupMsg") == counts
            assert started.service.config.text("Service/StartupMsg") == counts


async def test_configuration_that_keeper_holds_already_is_left_as_it_is(edgex: Edgex, nats_url: str) -> None:
    spec = app_spec(edgex, edgex.name("app-kept"), {"Mine": {"Limit": 1}})
    async with running(edgex, nats_url, spec, nothing_more) as started:
        await edgex.keeper.put(f"edgex/v4/{spec.key}/Mine/Limit", 2)
        await until(lambda: started.service.config.get("Mine/Limit") == 2, "it is live", timeout_s=1.0)
    async with running(edgex, nats_url, spec, nothing_more) as again:
        assert again.service.config.get("Mine/Limit") == 2


# --- secrets -------------------------------------------------------------------------------------


async def test_secret_is_stored_in_keeper_and_never_shown(edgex: Edgex, app: Running) -> None:
    word = edgex.name("secret")
    body = {
        "apiVersion": "v3", "requestId": "", "secretName": word,
        "secretData": [{"key": "password", "value": "open sesame"}],
    }  # fmt: skip
    answer = await edgex.http.post(f"{app.service.base_url}/api/v3/secret", json=body)
    assert (answer.status_code, answer.json()) == (201, {"apiVersion": "v3", "statusCode": 201})
    assert await kept(edgex, app, f"Writable/InsecureSecrets/{word}/SecretName") == word
    assert await kept(edgex, app, f"Writable/InsecureSecrets/{word}/SecretData/password") == "open sesame"
    await until(
        lambda: app.service.config.secret(word) == {"password": "open sesame"}, "the service has it", timeout_s=1.0
    )
    assert "open sesame" not in str(await get(edgex, app, "/config"))


@pytest.mark.parametrize(
    "body",
    [
        {"apiVersion": "v3", "secretName": "", "secretData": [{"key": "k", "value": "v"}]},
        {"apiVersion": "v3", "secretName": "n", "secretData": []},
        {"apiVersion": "v3", "secretName": "n", "secretData": [{"key": "", "value": "v"}]},
        {"apiVersion": "v3", "secretName": "n"},
    ],
)
async def test_secret_without_name_key_or_value_is_refused(edgex: Edgex, app: Running, body: dict[str, Any]) -> None:
    answer = await edgex.http.post(f"{app.service.base_url}/api/v3/secret", json=body)
    assert (answer.status_code, answer.json()["statusCode"]) == (400, 400)


# --- devices and events --------------------------------------------------------------------------


async def test_devices_of_others_are_known_from_the_start(lab: Lab, app: Running) -> None:
    devices = app.service.devices
    await until(lambda: devices.profile_of(lab.device), "the lab's device and profile are known")
    profile = devices.profile_of(lab.device)
    assert profile is not None
    assert profile.name == lab.profile
    assert profile.resource("Level") is not None


async def test_devices_that_are_added_changed_and_deleted_are_followed(edgex: Edgex, lab: Lab, app: Running) -> None:
    devices = app.service.devices
    changes: list[str] = []
    forget = devices.on_change(lambda change: changes.append(f"{change.action} {change.name}"))
    async with lab.another(labels=["new"]) as name:
        await until(lambda: devices.device(name), "it is known", timeout_s=1.0)
        await edgex.metadata.update_device(name, {"labels": ["changed"]})
        await until(lambda: devices.devices_by_name[name].labels == ("changed",), "it is changed", timeout_s=1.0)
    await until(lambda: devices.device(name) is None, "it is forgotten", timeout_s=1.0)
    forget()
    assert [change for change in changes if change.endswith(name)] == [
        f"add {name}",
        f"update {name}",
        f"delete {name}",
    ]


async def test_profiles_that_are_added_and_changed_are_followed(edgex: Edgex, app: Running) -> None:
    name, devices = edgex.name("profile"), app.service.devices
    body = [{"apiVersion": "v3", "profile": lab_profile(name)}]
    await edgex.ask("core-metadata", "POST", "/deviceprofile", body)
    await until(lambda: devices.profile(name), "it is known", timeout_s=1.0)
    body = [{"apiVersion": "v3", "profile": lab_profile(name, description="changed")}]
    await edgex.ask("core-metadata", "PUT", "/deviceprofile", body)
    await until(lambda: devices.profiles_by_name[name].description == "changed", "it is changed", timeout_s=1.0)
    await edgex.metadata.delete_profile(name)
    await until(lambda: devices.profile(name) is None, "it is forgotten", timeout_s=1.0)


async def test_events_of_devices_reach_the_service(edgex: Edgex, lab: Lab, app: Running) -> None:
    heard = Seen()

    async def note(message: EdgexMessage) -> None:
        await heard.note(message)

    cancel = await app.service.edgex.subscribe("events/device/#", note)
    try:
        await app.service.bus.flush()
        event = await edgex.command.get(lab.device, "Temperature", push_event=True)
        message: EventMessage = await heard.first(lambda item: item.event.id == event.id)
    finally:
        await cancel()
    assert message.event == event


async def test_commands_of_the_service_are_carried_out_both_ways(lab: Lab, app: Running) -> None:
    command = app.service.command
    async with lab.another() as device:
        await command.set(device, "State", {"Power": False, "Level": 33})
        assert (await command.get_by_bus(device, "Level")).readings[0].decoded() == 33
        await command.set_by_bus(device, "Level", {"Level": 34})
        assert (await command.get(device, "Level")).readings[0].decoded() == 34
