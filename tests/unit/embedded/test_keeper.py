"""Keeper's key-value store and registry, without HTTP."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeagents.embedded.common_config import READY_KEY, Addresses, common_leaves, service_config
from edgeagents.embedded.keeper import KeyValues
from edgeagents.embedded.registry import Registry, health_url
from edgeagents.embedded.storage import Database, Table
from edgeagents.errors import ConflictError, InvalidInputError, NotFoundError
from edgeagents.settings import BusSettings


class Listener:
    """Takes the place of the link to the broker."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    async def publish(self, topic: str, payload: Any, correlation_id: str, *, absolute: bool = False) -> None:
        assert absolute
        assert correlation_id == "c"
        self.told.append((topic, payload))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "x.sqlite", "", durable=False)
    yield opened
    opened.close()


@pytest.fixture
def keys(database: Database) -> tuple[KeyValues, Listener]:
    listener = Listener()
    return KeyValues(Table(database, "key_values"), listener), listener  # type: ignore[arg-type]


def values(store: KeyValues, key: str) -> dict[str, str]:
    return {row["key"]: row["value"] for row in store.read(key, plain=True)}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"), (True, "true"), (0, "0"), (59799, "59799"), (1.5, "1.5"), (1e21, "1000000000000000000000"),
        (1e-7, "0.0000001"), (2.0, "2"), ({"b": 1, "a": [1, None]}, '{"a":[1,null],"b":1}'), ([1], "[1]"),
    ],
)  # fmt: skip
async def test_value_is_stored_as_text(keys: tuple[KeyValues, Listener], value: Any, text: str) -> None:
    store, listener = keys
    assert await store.put("a/b", value, "c", flatten=False) == ["a/b"]
    assert values(store, "a") == {"a/b": text}
    assert listener.told == [("edgex/configs/a/b", {"key": "a/b", "Created": 0, "Modified": 0, "value": value})]


async def test_flattened_object_is_stored_leaf_by_leaf_and_told_once(keys: tuple[KeyValues, Listener]) -> None:
    store, listener = keys
    tree = {"W": {"Level": "INFO", "T": {"I": 5}}, "List": ["a"], "Empty": {}, "Nothing": None, "On": False}
    stored = await store.put("r", tree, "c", flatten=True)
    assert values(store, "r") == {"r/W/Level": "INFO", "r/W/T/I": "5", "r/List": "", "r/On": "false"}
    assert sorted(stored) == sorted(values(store, "r"))
    assert [topic for topic, _ in listener.told] == ["edgex/configs/r"]


async def test_subtree_is_its_root_and_what_lies_below(keys: tuple[KeyValues, Listener]) -> None:
    store, _ = keys
    for key in ("a", "a/b", "ab", "a_b/c"):
        await store.put(key, "x", "c", flatten=False)
    assert store.below("a") == ["a", "a/b"]
    with pytest.raises(NotFoundError, match="no key starting with 'b' found"):
        store.below("b")


async def test_refused_delete_removes_nothing(keys: tuple[KeyValues, Listener]) -> None:
    store, listener = keys
    for key in ("a", "a/b"):
        await store.put(key, "x", "c", flatten=False)
    listener.told.clear()
    with pytest.raises(ConflictError):
        await store.delete("a", "c", prefix=False)
    assert store.below("a") == ["a", "a/b"]
    assert listener.told == []
    assert await store.delete("a", "c", prefix=True) == ["a", "a/b"]
    assert listener.told == [("edgex/configs/a", {"key": "a", "Created": 0, "Modified": 0})]
    with pytest.raises(NotFoundError):
        await store.delete("a", "c", prefix=True)


@pytest.mark.parametrize("key", ["", "a b", "ä", "a\n", "a#", "a?b"])
async def test_key_with_other_characters_is_refused(keys: tuple[KeyValues, Listener], key: str) -> None:
    store, _ = keys
    with pytest.raises(InvalidInputError, match="key only allows"):
        await store.put(key, 1, "c", flatten=False)
    if key:
        with pytest.raises(InvalidInputError, match="key only allows"):
            await store.put("a", {key: 1}, "c", flatten=True)


async def test_seeding_keeps_changes_but_for_addresses(keys: tuple[KeyValues, Listener]) -> None:
    store, _ = keys
    bus = BusSettings(nats_url="nats://broker:4333", edgex_bus="nats-core")
    store.seed(common_leaves(Addresses("gw", 1, 2, 3, 4), bus))
    root = READY_KEY.rsplit("/", 1)[0]
    interval, port = (
        f"{root}/all-services/Writable/Telemetry/Interval",
        f"{root}/app-services/Clients/core-metadata/Port",
    )
    assert values(store, READY_KEY) == {READY_KEY: "true"}
    assert values(store, f"{root}/all-services/MessageBus/Host") == {f"{root}/all-services/MessageBus/Host": "broker"}
    assert values(store, f"{root}/all-services/MessageBus/Port") == {f"{root}/all-services/MessageBus/Port": "4333"}
    await store.put(interval, "5s", "c", flatten=False)
    store.seed(common_leaves(Addresses("gw", 1, 22, 3, 4), bus))
    assert values(store, interval) == {interval: "5s"}
    assert values(store, port) == {port: "22"}


def test_configuration_of_a_core_service_names_its_port_and_hides_secrets() -> None:
    tree = service_config("core-data", 3, Addresses("::1", 1, 2, 3, 4), BusSettings())
    assert (tree["Service"]["Host"], tree["Service"]["Port"]) == ("::1", 3)
    assert "Secret" not in repr(sorted(tree["Writable"]))
    assert Addresses("::1", 1, 2, 3, 4).url("keeper") == "http://[::1]:1"


# --- registry ------------------------------------------------------------------------------------


def registration(name: str = "app-x", interval: str = "100ms", **more: Any) -> dict[str, Any]:
    check = {"interval": interval, "path": "/ping", "type": "http"}
    return {"serviceId": name, "status": "", "host": "h", "port": 1, "HealthCheck": check} | more


class Service:
    """Takes the place of a service that is asked how it is."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)
        self.asked = asyncio.Queue[str]()

    async def probe(self, url: str) -> bool:
        self.asked.put_nowait(url)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def test_service_is_asked_until_it_is_replaced_by_one_that_said_goodbye(database: Database) -> None:
    service = Service(False, True)
    registry = Registry(Table(database, "registrations"), service.probe)
    async with asyncio.TaskGroup() as group:
        registry.start(group)
        await registry.add(registration())
        assert registry.get("app-x")["status"] == "UNKNOWN"
        async with asyncio.timeout(10):
            assert [await service.asked.get() for _ in range(4)] == ["http://h:1/ping"] * 4
        assert registry.get("app-x")["status"] == "UP"
        with pytest.raises(ConflictError):
            await registry.add(registration())
        await registry.update(registration(status="HALT"))
        assert registry.get("app-x")["status"] == "HALT"
        assert registry.all(halted=False) == []
        assert len(registry.all(halted=True)) == 1
        # The group ends: nobody is asked any more.


async def test_status_that_edgex_does_not_know_is_unknown(database: Database) -> None:
    registry = Registry(Table(database, "registrations"), Service(True).probe)
    await registry.add(registration(status="FINE"))
    assert registry.get("app-x")["status"] == "UNKNOWN"
    await registry.remove("app-x")
    for act in (registry.remove("app-x"), registry.update(registration())):
        with pytest.raises(NotFoundError, match="service id 'app-x' not found"):
            await act


def test_health_address_of_an_ipv6_host_is_bracketed() -> None:
    assert health_url(registration(host="fe80::1")) == "http://[fe80::1]:1/ping"
