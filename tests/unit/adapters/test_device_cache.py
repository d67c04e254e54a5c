"""The live cache: loaded in the background, kept fresh by system events, complete again after a loss."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi.responses import JSONResponse

from edgeagents.adapters import device_cache
from edgeagents.adapters.device_cache import Change, DeviceCache
from edgeagents.adapters.edgex import MetadataClient
from edgeagents.adapters.edgex_bus import EdgexBus, RawHandler
from edgeagents.adapters.envelopes import encode_envelope
from edgeagents.adapters.rest import FixedAddress, Rest
from edgeagents.errors import NotFoundError, UnavailableError
from edgeagents.model.envelope import Envelope
from tests.contract.waiting import until
from tests.fake_edgex import LAMP, LAMP_PROFILE, FakeEdgex
from tests.recordings import bus_lines


class Notices:
    """A transport that only carries what the test says."""

    handler: RawHandler | None = None

    async def publish(self, topic: str, envelope: Envelope) -> None:
        assert self.handler is not None
        await self.handler(topic, encode_envelope(envelope), {})

    async def subscribe(self, topic_filter: str, handler: RawHandler) -> Any:
        assert topic_filter == "edgex/system-events/core-metadata/#"
        self.handler = handler

        async def cancel() -> None:
            self.handler = None

        return cancel

    async def tell(self, kind: str, action: str, details: dict[str, Any]) -> None:
        payload = {
            "apiVersion": "v3", "type": kind, "action": action, "source": "core-metadata", "owner": "device-x",
            "details": details, "timestamp": 1,
        }  # fmt: skip
        await self.publish(f"edgex/system-events/core-metadata/{kind}/{action}/device-x/lamp", Envelope(payload))


class Setup:
    """A cache over a fake core-metadata."""

    def __init__(self) -> None:
        self.edgex = FakeEdgex()
        self.edgex.devices, self.edgex.profiles = [LAMP], [LAMP_PROFILE]
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.edgex.app))
        self.metadata = MetadataClient(Rest("core-metadata", FixedAddress("http://metadata"), self.http))
        self.cache = DeviceCache(self.metadata, retry_s=0.01)
        self.notices = Notices()
        self.changes: list[Change] = []
        self.cache.on_change(self.changes.append)


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    made = Setup()
    await made.cache.subscribe(EdgexBus(made.notices))
    yield made
    await made.http.aclose()


async def test_everything_is_read_once_the_cache_is_ready(setup: Setup) -> None:
    assert setup.cache.device("lamp-1") is None
    assert not setup.cache.is_ready
    await setup.cache.load()
    await setup.cache.wait_ready(1)
    assert [device.name for device in setup.cache.all()] == ["lamp-1"]
    assert setup.cache.profile_of("lamp-1") is setup.cache.profiles_by_name["lamp"]
    assert setup.changes == [Change("profile", "add", "lamp"), Change("device", "add", "lamp-1")]


async def test_system_events_add_change_and_delete(setup: Setup) -> None:
    await setup.cache.load()
    setup.changes.clear()
    await setup.notices.tell("device", "add", LAMP | {"name": "lamp-2"})
    await setup.notices.tell("device", "update", LAMP | {"adminState": "LOCKED"})
    await setup.notices.tell("deviceprofile", "update", LAMP_PROFILE | {"description": "new"})
    await setup.notices.tell("device", "delete", LAMP | {"name": "lamp-2"})
    await setup.notices.tell("deviceservice", "add", {"name": "device-x"})
    assert setup.changes == [
        Change("device", "add", "lamp-2"),
        Change("device", "update", "lamp-1"),
        Change("profile", "update", "lamp"),
        Change("device", "delete", "lamp-2"),
    ]
    assert setup.cache.devices_by_name["lamp-1"].admin_state == "LOCKED"
    assert "lamp-2" not in setup.cache.devices_by_name


async def test_the_same_notice_twice_is_one_change(setup: Setup) -> None:
    await setup.cache.load()
    setup.changes.clear()
    for _ in range(2):
        await setup.notices.tell("device", "update", LAMP | {"labels": ["new"]})
        await setup.notices.tell("device", "delete", LAMP | {"name": "never-there"})
    assert setup.changes == [Change("device", "update", "lamp-1")]


async def test_a_notice_during_the_reading_is_not_overwritten_by_it(setup: Setup) -> None:
    asked = asyncio.Event()
    go_on = asyncio.Event()
    profiles = setup.metadata.profiles

    async def slow(labels: Any = ()) -> Any:
        asked.set()
        await go_on.wait()
        return await profiles(labels)

    setup.metadata.profiles = slow  # type: ignore[method-assign]
    loading = asyncio.create_task(setup.cache.load())
    await asked.wait()
    await setup.notices.tell("device", "update", LAMP | {"adminState": "LOCKED"})
    go_on.set()
    await loading
    assert setup.cache.devices_by_name["lamp-1"].admin_state == "LOCKED"


async def test_core_metadata_may_come_later(setup: Setup) -> None:
    devices, away = setup.metadata.devices, 3

    async def absent(**query: Any) -> Any:
        nonlocal away
        if away:
            away -= 1
            raise UnavailableError("core-metadata is away")
        return await devices(**query)

    setup.metadata.devices = absent  # type: ignore[method-assign]
    task = asyncio.create_task(setup.cache.run())
    with pytest.raises(UnavailableError, match="is it up"):
        await setup.cache.wait_ready(0.001)
    await setup.cache.wait_ready(5)
    assert setup.cache.device("lamp-1") is not None
    task.cancel()
    await asyncio.wait({task})


async def test_what_was_missed_is_found_by_reading_again(setup: Setup) -> None:
    task = asyncio.create_task(setup.cache.run())
    await setup.cache.wait_ready(5)
    setup.changes.clear()
    setup.edgex.devices = [LAMP | {"labels": ["moved"]}, LAMP | {"name": "lamp-2"}]
    seen = asyncio.Event()
    setup.cache.on_change(lambda change: seen.set())
    setup.cache.refresh()
    await asyncio.wait_for(seen.wait(), 5)
    assert setup.changes == [Change("device", "add", "lamp-2"), Change("device", "update", "lamp-1")]
    task.cancel()
    await asyncio.wait({task})


async def test_all_is_read_once_more_soon_and_the_broker_knows_our_subscription_before_each_reading(
    setup: Setup,
) -> None:
    happened: list[str] = []
    profiles = setup.metadata.profiles

    async def settle() -> None:
        happened.append("settled")
        if len(happened) > 1:
            raise UnavailableError("the link is down")

    async def read(labels: Any = ()) -> Any:
        happened.append("read")
        return await profiles(labels)

    setup.metadata.profiles = read  # type: ignore[method-assign]
    cache = DeviceCache(setup.metadata, refresh_s=0.5, soon_s=0.05, settle=settle)
    task = asyncio.create_task(cache.run())
    await cache.wait_ready(5)
    setup.edgex.devices = [LAMP, LAMP | {"name": "lamp-2"}]  # nobody hears of it: core-metadata's own link is down
    await until(lambda: cache.device("lamp-2") is not None, "it is found", timeout_s=5)
    assert happened == ["settled", "read"] * 2
    await asyncio.sleep(0.2)
    assert len(happened) == 4, "from then on it is read at leisure"
    task.cancel()
    await asyncio.wait({task})


def asked_by_name(setup: Setup) -> list[str]:
    """Have the fake answer for single devices and profiles, too; return the devices that it is asked for."""
    asked: list[str] = []

    @setup.edgex.app.get("/api/v3/device/name/{name}")
    async def device(name: str) -> Any:
        asked.append(name)
        found = [item for item in setup.edgex.devices if item["name"] == name]
        return {"device": found[0]} if found else JSONResponse({"message": "none"}, 404)

    @setup.edgex.app.get("/api/v3/deviceprofile/name/{name}")
    async def profile(name: str) -> dict[str, Any]:
        return {"profile": LAMP_PROFILE}

    return asked


async def test_a_device_whose_notice_was_lost_is_found_when_it_is_named(setup: Setup) -> None:
    asked = asked_by_name(setup)
    setup.edgex.devices, setup.edgex.profiles = [], []
    task = asyncio.create_task(setup.cache.run())
    await setup.cache.wait_ready(5)
    setup.edgex.devices, setup.edgex.profiles = [LAMP, LAMP | {"name": "lamp-2"}], [LAMP_PROFILE]
    await setup.cache.seek("lamp-1")
    assert setup.cache.profile_of("lamp-1") is not None
    assert setup.changes == [Change("profile", "add", "lamp"), Change("device", "add", "lamp-1")]
    await until(lambda: setup.cache.device("lamp-2") is not None, "what was lost with it is found", timeout_s=5)
    await setup.cache.seek("lamp-1")
    assert asked == ["lamp-1"]
    task.cancel()
    await asyncio.wait({task})


async def test_a_device_that_has_no_profile_is_no_notice_that_was_lost(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    asked = asked_by_name(setup)
    setup.edgex.devices = [LAMP, LAMP | {"name": "bare", "profileName": ""}]
    await setup.cache.load()
    setup.changes.clear()
    await setup.cache.seek("bare")
    assert (asked, setup.changes, setup.cache._stale.is_set()) == (["bare"], [], False)
    assert "did not reach us" not in caplog.text


async def test_who_names_what_is_not_here_has_all_read_again_twice_a_minute_at_most(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup.cache.miss()
    assert not setup.cache._stale.is_set(), "it is being read"
    await setup.cache.load()
    setup.cache.miss()
    assert not setup.cache._stale.is_set()
    monkeypatch.setattr(device_cache, "_MISSED_S", 0.0)
    task = asyncio.create_task(setup.cache.run())
    setup.edgex.devices = [LAMP, LAMP | {"name": "lamp-2"}]
    await until(lambda: setup.cache.device("lamp-2") is not None, "the first reading")
    setup.edgex.devices.append(LAMP | {"name": "lamp-3"})
    setup.cache.miss()
    await until(lambda: setup.cache.device("lamp-3") is not None, "it is read again", timeout_s=5)
    task.cancel()
    await asyncio.wait({task})


async def test_made_up_names_cost_core_metadata_little(setup: Setup) -> None:
    asked = asked_by_name(setup)
    await setup.cache.load()
    for number in range(100):
        await setup.cache.seek(f"made-up-{number}")
    assert 5 <= len(asked) < 100
    assert setup.cache.device("made-up-1") is None


async def test_who_names_a_device_waits_a_second_at_most_for_a_core_metadata_that_does_not_answer(setup: Setup) -> None:
    await setup.cache.load()

    async def never(name: str) -> Any:
        await asyncio.Event().wait()

    setup.metadata.device = never  # type: ignore[method-assign]
    async with asyncio.timeout(10):
        await setup.cache.seek("lamp-9")
    assert setup.cache.device("lamp-9") is None


@pytest.mark.parametrize("details", [{}, {"name": ""}, {"name": "x", "profileName": "never-seen"}])
async def test_a_notice_that_leaves_something_open_has_all_read_again(setup: Setup, details: dict[str, Any]) -> None:
    task = asyncio.create_task(setup.cache.run())
    await setup.cache.wait_ready(5)
    setup.edgex.devices = [LAMP, LAMP | {"name": "lamp-2"}]
    found = asyncio.Event()
    setup.cache.on_change(lambda change: found.set() if change.name == "lamp-2" else None)
    await setup.notices.tell("device", "add", details)
    await asyncio.wait_for(found.wait(), 5)
    task.cancel()
    await asyncio.wait({task})


async def test_a_watcher_that_ended_hears_no_more(setup: Setup) -> None:
    heard: list[Change] = []
    setup.cache.on_change(heard.append)()
    await setup.cache.load()
    assert heard == []


async def test_a_profile_that_is_not_cached_is_asked_for(setup: Setup) -> None:
    @setup.edgex.app.get("/api/v3/device/name/{name}")
    async def device(name: str) -> dict[str, Any]:
        return {"device": LAMP | {"name": name, "profileName": "" if name == "bare" else "lamp"}}

    @setup.edgex.app.get("/api/v3/deviceprofile/name/{name}")
    async def profile(name: str) -> dict[str, Any]:
        return {"profile": LAMP_PROFILE}

    assert (await setup.cache.need_profile_of("lamp-9")).name == "lamp"
    with pytest.raises(NotFoundError, match="no profile"):
        await setup.cache.need_profile_of("bare")


@pytest.mark.recordings
async def test_recorded_system_events_of_a_real_core_metadata_are_followed(setup: Setup) -> None:
    assert setup.notices.handler is not None
    setup.edgex.devices, setup.edgex.profiles = [], []
    await setup.cache.load()
    for line in bus_lines():
        if line.subject.startswith("edgex.system-events.core-metadata."):
            await setup.notices.handler(line.subject.replace(".", "/"), line.data, line.headers)
    assert Change("device", "add", "lamp-1") in setup.changes
    assert Change("device", "delete", "lamp-1") in setup.changes
    assert Change("profile", "delete", "probe-lamp") in setup.changes
    assert "Random-Boolean-Device" in setup.cache.devices_by_name
    assert setup.cache.profile_of("Random-Float-Device") is not None
    assert "lamp-1" not in setup.cache.devices_by_name
