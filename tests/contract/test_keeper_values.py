"""core-keeper's key-value store: what is put, read, listed, refused and deleted."""

import asyncio
import base64
from typing import Any
from urllib.parse import quote

import pytest

from edgeagents.model.envelope import ConfigChange
from tests.contract.edgex import Edgex, Reply

pytestmark = pytest.mark.asyncio(loop_scope="session")

TREE = {
    "Writable": {"LogLevel": "INFO", "Telemetry": {"Interval": "30s"}},
    "Service": {"Port": 59799, "On": True, "Fraction": 1.5, "List": ["a", "b"], "Empty": {}, "Nothing": None},
}


@pytest.fixture
def root(edgex: Edgex) -> str:
    """A key that nothing lies below yet."""
    return f"edgex/v4/{edgex.name('app-values')}"


async def put(edgex: Edgex, key: str, value: Any, **query: str) -> Reply:
    return await edgex.ask(
        "core-keeper", "PUT", f"/kvs/key/{key}", {"apiVersion": "v3", "value": value}, query=query or None
    )


async def get(edgex: Edgex, key: str, **query: str) -> Reply:
    return await edgex.ask("core-keeper", "GET", f"/kvs/key/{key}", query=query or None)


async def test_tree_put_at_once_is_stored_leaf_by_leaf_as_text(edgex: Edgex, root: str) -> None:
    answer = await put(edgex, root, TREE, flatten="true")
    assert answer.status == 200
    leaves = {
        f"{root}/Writable/LogLevel": "INFO", f"{root}/Writable/Telemetry/Interval": "30s",
        f"{root}/Service/Port": "59799", f"{root}/Service/On": "true", f"{root}/Service/Fraction": "1.5",
        f"{root}/Service/List": "",
    }  # fmt: skip
    assert sorted(answer.body["response"]) == sorted(leaves)
    found = await get(edgex, root, plaintext="true")
    assert {pair["key"]: pair["value"] for pair in found.body["response"]} == leaves


async def test_value_is_read_with_the_times_of_its_making_and_changing(edgex: Edgex, root: str) -> None:
    key = f"{root}/Writable/LogLevel"
    await put(edgex, key, "INFO")
    first = (await get(edgex, key, plaintext="true")).body["response"][0]
    await put(edgex, key, "DEBUG")
    second = (await get(edgex, key, plaintext="true")).body["response"][0]
    assert first.keys() == second.keys() == {"key", "value", "Created", "Modified"}
    assert second["value"] == "DEBUG"
    assert second["Created"] == first["Created"]
    assert second["Modified"] >= first["Modified"] >= first["Created"] > 1_700_000_000_000


async def test_value_comes_in_base64_unless_asked_for_as_text(edgex: Edgex, root: str) -> None:
    await put(edgex, f"{root}/Word", "grüße")
    found = (await get(edgex, f"{root}/Word")).body["response"][0]
    assert base64.b64decode(found["value"]).decode() == "grüße"


async def test_keys_alone_are_listed_when_asked_for(edgex: Edgex, root: str) -> None:
    await put(edgex, root, {"a": {"b": 1}, "c": 2}, flatten="true")
    answer = await get(edgex, root, keyOnly="true")
    assert answer.status == 200
    assert sorted(answer.body["response"]) == [f"{root}/a/b", f"{root}/c"]


async def test_key_may_be_percent_escaped_in_the_address(edgex: Edgex, root: str) -> None:
    await put(edgex, f"{root}/Writable/LogLevel", "INFO")
    escaped = quote(f"{root}/Writable/LogLevel", safe="").replace("-", "%2D")
    found = await get(edgex, escaped, plaintext="true")
    assert [pair["value"] for pair in found.body["response"]] == ["INFO"]


@pytest.mark.parametrize(
    ("value", "text"),
    [("words", "words"), (59799, "59799"), (True, "true"), (1.5, "1.5"), ({"a": {"b": 1}}, '{"a":{"b":1}}')],
)
async def test_one_value_is_stored_as_its_text(edgex: Edgex, root: str, value: Any, text: str) -> None:
    answer = await put(edgex, f"{root}/Value", value)
    assert (answer.status, answer.body["response"]) == (200, [f"{root}/Value"])
    found = await get(edgex, f"{root}/Value", plaintext="true")
    assert [pair["value"] for pair in found.body["response"]] == [text]


async def test_absent_key_is_404_with_and_without_values(edgex: Edgex, root: str) -> None:
    for query in ({}, {"plaintext": "true"}, {"keyOnly": "true"}):
        answer = await get(edgex, root, **query)
        assert (answer.status, answer.message) == (404, f"no key starting with '{root}' found")


async def test_key_with_a_blank_is_refused(edgex: Edgex, root: str) -> None:
    answer = await put(edgex, f"{root}/two%20words", 1)
    assert answer.status == 400
    assert "key only allows characters between a to z" in answer.message


async def test_put_without_a_value_is_refused(edgex: Edgex, root: str) -> None:
    answer = await edgex.ask("core-keeper", "PUT", f"/kvs/key/{root}/Value", {"apiVersion": "v3"})
    assert (answer.status, answer.message) == (400, "the value field is undefined")


async def test_deleted_key_is_gone(edgex: Edgex, root: str) -> None:
    await put(edgex, f"{root}/Value", 1)
    answer = await edgex.ask("core-keeper", "DELETE", f"/kvs/key/{root}/Value")
    assert (answer.status, answer.body["response"]) == (200, [f"{root}/Value"])
    assert (await get(edgex, f"{root}/Value")).status == 404


async def test_key_with_children_is_only_deleted_with_them(edgex: Edgex, root: str) -> None:
    await put(edgex, root, {"a": {"b": 1}, "c": 2}, flatten="true")
    refused = await edgex.ask("core-keeper", "DELETE", f"/kvs/key/{root}")
    assert refused.status == 409
    assert refused.message == f"keys having the same prefix {root} exist and cannot be deleted"
    assert (await get(edgex, root, keyOnly="true")).status == 200
    answer = await edgex.ask("core-keeper", "DELETE", f"/kvs/key/{root}", query={"prefixMatch": "true"})
    assert (answer.status, sorted(answer.body["response"])) == (200, [f"{root}/a/b", f"{root}/c"])
    assert (await get(edgex, root, keyOnly="true")).status == 404


async def test_absent_key_cannot_be_deleted(edgex: Edgex, root: str) -> None:
    assert (await edgex.ask("core-keeper", "DELETE", f"/kvs/key/{root}/Value")).status == 404


async def test_our_client_reads_back_the_tree_it_wrote(edgex: Edgex, root: str) -> None:
    await edgex.keeper.put_tree(root, {"Writable": {"LogLevel": "INFO"}, "Service": {"Tags": ["a", "b"], "Port": 1}})
    assert await edgex.keeper.get_tree(root) == {
        "Writable": {"LogLevel": "INFO"}, "Service": {"Tags": "a,b", "Port": "1"},
    }  # fmt: skip


async def test_common_configuration_is_there_and_ready(edgex: Edgex) -> None:
    common = await edgex.keeper.get_tree("edgex/v4/core-common-config-bootstrapper")
    assert common["IsCommonConfigReady"] == "true"
    assert {"all-services", "app-services", "device-services"} <= common.keys()
    assert common["all-services"]["MessageBus"]["Type"] == edgex.target.bus


# --- what is told on the bus ---------------------------------------------------------------------


@pytest.mark.parametrize("value", ["DEBUG", 5, True, {"a": {"b": 1}}])
async def test_written_key_is_told_on_its_own_topic_with_its_value_as_sent(edgex: Edgex, root: str, value: Any) -> None:
    key = f"{root}/Writable/Value"
    async with edgex.watch(f"edgex/configs/{root}/#", absolute=True) as seen:
        await put(edgex, key, value)
        notice: ConfigChange = await seen.first()
    assert notice.topic == f"edgex/configs/{key}"
    assert (notice.key, notice.value) == (key, value)
    assert notice.envelope.content_type == "application/json"
    assert notice.envelope.error_code == 0


async def test_tree_put_at_once_is_told_once_on_its_root(edgex: Edgex, root: str) -> None:
    # One level up: on NATS, `root/#` would not hold the root itself.
    async with edgex.watch("edgex/configs/edgex/v4/#", absolute=True) as seen:
        await put(edgex, root, {"c": 2, "a": {"b": 1}}, flatten="true")
        await put(edgex, f"{root}/last", "one")
        await seen.first(lambda notice: notice.key == f"{root}/last")
    told = {item.topic: (item.key, item.value) for item in seen.messages if item.key.startswith(root)}
    assert told == {
        f"edgex/configs/{root}": (root, {"c": 2, "a": {"b": 1}}),
        f"edgex/configs/{root}/last": (f"{root}/last", "one"),
    }


async def test_deleted_key_is_told_without_a_value(edgex: Edgex, root: str) -> None:
    await put(edgex, f"{root}/Value", 1)
    async with edgex.watch(f"edgex/configs/{root}/Value", absolute=True) as seen:
        await edgex.keeper.delete(f"{root}/Value")
        notice: ConfigChange = await seen.first(lambda item: item.value is None)  # the put may be told only now
    assert notice.key == f"{root}/Value"
    assert "value" not in notice.envelope.payload


async def test_notice_carries_the_correlation_id_of_the_request(edgex: Edgex, root: str) -> None:
    async with edgex.watch(f"edgex/configs/{root}/#", absolute=True) as seen:
        mine = "7f0e6a5e-0000-4000-8000-000000000001"
        body = {"apiVersion": "v3", "value": "x"}
        await edgex.ask("core-keeper", "PUT", f"/kvs/key/{root}/Value", body, headers={"X-Correlation-ID": mine})
        assert (await seen.first()).envelope.correlation_id == mine


async def test_many_writes_at_once_are_all_told(edgex: Edgex, root: str) -> None:
    async with edgex.watch(f"edgex/configs/{root}/#", absolute=True) as seen:
        await asyncio.gather(*(put(edgex, f"{root}/Value{number}", number) for number in range(20)))
        told = await seen.some(20)
    assert sorted(notice.value for notice in told) == list(range(20))
