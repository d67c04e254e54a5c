"""The keeper client against the recorded answers of a real core-keeper."""

import json

import httpx
import pytest

from edgeagents.adapters.keeper import HealthCheck, KeeperClient, Registration, RegistryAddress
from edgeagents.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError, UpstreamError
from tests.recorded_http import Recorded

pytestmark = pytest.mark.recordings

PROBE = "edgex/v4/app-probe"
OWN = Registration(service_id="app-probe", host="localhost", port=59799, HealthCheck=HealthCheck(interval="2s"))


def keeper_and_recording(case: str = "") -> tuple[KeeperClient, Recorded]:
    recorded = Recorded("keeper")
    if case:
        recorded.case(case)
    return KeeperClient("http://recorded", recorded.http()), recorded


async def test_a_subtree_comes_back_as_text_by_full_key() -> None:
    keeper, recorded = keeper_and_recording("kv get tree")
    pairs = await keeper.get(PROBE)
    assert pairs[f"{PROBE}/Writable/Telemetry/Interval"] == "30s"
    assert pairs[f"{PROBE}/Service/On"] == "true"
    assert recorded.asked[0].url.params["plaintext"] == "true"


async def test_a_tree_of_the_common_configuration_has_its_sections() -> None:
    keeper, _ = keeper_and_recording("kv common tree")
    tree = await keeper.get_tree("edgex/v4/core-common-config-bootstrapper")
    assert tree["IsCommonConfigReady"] == "true"
    assert tree["app-services"]["Trigger"] == {"SubscribeTopics": "events/#", "Type": "edgex-messagebus"}


async def test_an_absent_key_is_not_found_and_an_absent_tree_is_empty() -> None:
    keeper, _ = keeper_and_recording("kv absent")
    with pytest.raises(NotFoundError, match="no key starting with"):
        await keeper.get(PROBE)
    assert await keeper.get_tree(PROBE) == {}
    keeper, _ = keeper_and_recording("kv absent keyOnly")
    assert not await keeper.has(PROBE)


async def test_keys_are_listed() -> None:
    keeper, _ = keeper_and_recording("kv keyOnly")
    assert f"{PROBE}/Writable/LogLevel" in await keeper.keys(PROBE)
    assert await keeper.has(PROBE)


async def test_one_value_is_put_as_it_is() -> None:
    keeper, recorded = keeper_and_recording("kv put one")
    assert await keeper.put(f"{PROBE}/Writable/LogLevel", "DEBUG") == [f"{PROBE}/Writable/LogLevel"]
    assert json.loads(recorded.asked[0].content) == {"apiVersion": "v3", "value": "DEBUG"}


async def test_a_tree_is_put_flattened_with_its_lists_as_text() -> None:
    keeper, recorded = keeper_and_recording("kv put flatten")
    tree = {"Service": {"Port": 59799, "On": True, "L": ["a", "b"], "E": {}, "N": None}}
    written = await keeper.put_tree(PROBE, tree)
    assert f"{PROBE}/Service/Port" in written
    assert recorded.asked[0].url.params["flatten"] == "true"
    # A list would be stored as empty text.
    assert json.loads(recorded.asked[0].content)["value"] == {"Service": {"Port": 59799, "On": True, "L": "a,b"}}


async def test_a_key_that_keeper_refuses_is_invalid_input() -> None:
    keeper, _ = keeper_and_recording("kv bad key")
    with pytest.raises(InvalidInputError, match="only allows characters"):
        await keeper.put("edgex/v4/app probe", 1)


async def test_a_parent_is_deleted_only_with_what_lies_below() -> None:
    keeper, _ = keeper_and_recording("kv delete parent")
    with pytest.raises(ConflictError, match="same prefix"):
        await keeper.delete(PROBE)
    keeper, recorded = keeper_and_recording("kv delete prefix")
    await keeper.delete(PROBE, below=True)
    assert recorded.asked[0].url.params["prefixMatch"] == "true"


async def test_an_unknown_service_is_posted() -> None:
    recorded = Recorded("keeper")
    recorded.lines = [line for line in recorded.lines if line.case in ("registry unknown", "registry add")]
    await KeeperClient("http://recorded", recorded.http()).register(OWN)
    assert [request.method for request in recorded.asked] == ["GET", "POST"]
    assert json.loads(recorded.asked[1].content)["registration"] == {
        "serviceId": "app-probe", "host": "localhost", "port": 59799,
        "HealthCheck": {"interval": "2s", "path": "/api/v3/ping", "type": "http"},
    }  # fmt: skip


async def test_a_known_service_is_replaced() -> None:
    recorded = Recorded("keeper")
    known = ("registry get, nobody listens", "registry update")
    recorded.lines = [line for line in recorded.lines if line.case in known]
    await KeeperClient("http://recorded", recorded.http()).register(OWN)
    assert [request.method for request in recorded.asked] == ["GET", "PUT"]


async def test_an_orderly_end_is_told_with_the_same_body() -> None:
    keeper, recorded = keeper_and_recording("registry halt")
    await keeper.halt(OWN)
    body = json.loads(recorded.asked[0].content)["registration"]
    assert body["status"] == "HALT"
    assert body["port"] == 59799


async def test_a_registration_says_status_and_address() -> None:
    keeper, _ = keeper_and_recording("registry get halted")
    found = await keeper.registration("app-probe")
    assert found.status == "HALT"
    assert found.base_url == "http://localhost:59799"
    assert found.health_check.interval == "2s"


async def test_all_registrations_are_listed() -> None:
    keeper, recorded = keeper_and_recording("registry all deregistered")
    names = {item.service_id for item in await keeper.registrations(halted=True)}
    assert {"core-metadata", "core-command", "app-probe"} <= names
    assert recorded.asked[0].url.params["deregistered"] == "true"


async def test_a_bad_registration_is_told_with_keepers_reason() -> None:
    keeper, _ = keeper_and_recording("registry bad")
    with pytest.raises(InvalidInputError, match="Host field is required"):
        await keeper.add(OWN)
    keeper, _ = keeper_and_recording("registry add again")
    with pytest.raises(ConflictError, match="already exists"):
        await keeper.add(OWN)
    keeper, _ = keeper_and_recording("registry put unknown")
    with pytest.raises(NotFoundError):
        await keeper.update(OWN)


async def test_keys_that_only_begin_alike_do_not_belong_to_a_service() -> None:
    pairs = [{"key": f"edgex/v4/{name}", "value": "1"} for name in ("app-x2/Writable/LogLevel", "app-x/Service/Port")]

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"apiVersion": "v3", "statusCode": 200, "response": pairs})

    keeper = KeeperClient("http://keeper", httpx.AsyncClient(transport=httpx.MockTransport(answer)))
    assert await keeper.get_tree("edgex/v4/app-x") == {"Service": {"Port": "1"}}
    with pytest.raises(NotFoundError):
        await keeper.get("edgex/v4/app")


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"response": 1}', '{"response": [1]}', "<html>", '{"response":[{}]}']
)
async def test_an_answer_of_another_shape_is_an_upstream_error(body: str) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text=body))
    keeper = KeeperClient("http://keeper", httpx.AsyncClient(transport=transport))
    with pytest.raises(UpstreamError):
        await keeper.get("edgex/v4/app-x")
    with pytest.raises(UpstreamError):
        await keeper.registration("app-x")


async def test_a_registered_address_is_looked_up_once_and_again_after_it_was_forgotten() -> None:
    keeper, recorded = keeper_and_recording("registry get, nobody listens")
    address = RegistryAddress(keeper, "app-probe")
    assert await address.base_url() == "http://localhost:59799"
    await address.base_url()
    assert len(recorded.asked) == 1
    address.forget()
    await address.base_url()
    assert len(recorded.asked) == 2
    assert await RegistryAddress(keeper, "app-probe", "127.0.0.1").base_url() == "http://127.0.0.1:59799"


async def test_a_service_that_is_not_registered_is_unavailable() -> None:
    keeper, _ = keeper_and_recording("registry unknown")
    with pytest.raises(UnavailableError, match="not in keeper's registry"):
        await RegistryAddress(keeper, "app-probe").base_url()
