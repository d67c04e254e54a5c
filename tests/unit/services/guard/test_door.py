"""What agents may reach of EdgeX: the guard's door as a pure function."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.model.agent import AgentDefinition
from services.guard.door import Forward, LookUp, Refused, Register, judge, let_pass, service_key

OWN = "/api/v3/kvs/key/edgex/v4/app-agent-air"
COMMON = "/api/v3/kvs/key/edgex/v4/core-common-config-bootstrapper"
METHODS = ("GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS")


def asked(method: str, path: str, body: Any = None, **query: str) -> Any:
    return judge("air", method, path, query, body)


@pytest.mark.parametrize("path", [OWN, f"{OWN}/Writable", f"{OWN}/Writable/LogLevel"])
def test_an_agent_reads_and_writes_its_own_keys(path: str) -> None:
    root = path.removeprefix("/api/v3/kvs/key/")
    found = asked("GET", path, plaintext="true")
    assert found == Forward("core-keeper", tuple(path[1:].split("/")), {"plaintext": "true"}, root)
    assert isinstance(asked("PUT", path, {"value": "x"}, flatten="true"), Forward)


def test_an_agent_reads_the_common_configuration_and_cannot_write_it() -> None:
    assert isinstance(asked("GET", f"{COMMON}/all-services"), Forward)
    assert asked("PUT", f"{COMMON}/all-services/Writable/LogLevel", {"value": "x"}).cause == "another's key"


@pytest.mark.parametrize(
    "path",
    [
        "/api/v3/kvs/key/edgex/v4/app-agent-heat",
        "/api/v3/kvs/key/edgex/v4/app-agent-airy",  # the same letters first
        "/api/v3/kvs/key/edgex/v4/app-agent-ai",
        "/api/v3/kvs/key/edgex/v4",
        "/api/v3/kvs/key/edgex",
        "/api/v3/kvs/key/",
        f"{OWN}/../app-guard",
        f"{OWN}//../app-guard",
        f"{OWN}/./x",
        f"{OWN}/%2e%2e/app-guard",
        f"{OWN}/a b",
        f"{OWN}\x00/x",
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_no_other_key_is_let_through(method: str, path: str) -> None:
    assert isinstance(asked(method, path, {"value": "x"}), Refused)


def test_deleting_is_refused_even_of_own_keys() -> None:
    assert asked("DELETE", OWN, prefixMatch="true").cause == "deleting keys"


def test_parameters_that_nobody_needs_do_not_go_on() -> None:
    assert asked("GET", OWN, plaintext="true", prefixMatch="true", x="y").query == {"plaintext": "true"}
    assert asked("GET", "/api/v3/device/all", limit="5", x="y").query == {"limit": "5"}


REGISTRATION = {
    "serviceId": "app-agent-air", "healthCheck": {"interval": "10s", "path": "/api/v3/ping", "type": "http"},
}  # fmt: skip


@pytest.mark.parametrize(
    "more",
    [
        # Keeper reads keys in any case and takes the last.
        {"ServiceID": "core-command", "Host": "172.20.0.66", "PORT": 59882},
        {"healthCheck": {"path": "@edgex-core-command:59882/api/v3/device/name/lamp/all", "type": "http"}},
        {"healthCheck": {"interval": "0s"}}, {"HealthCheck": {"type": "http://elsewhere/?"}}, {"status": "x"},
        {"status": ["UP"]}, {"lastConnected": 1}, {"labels": ["a"]},
    ],
)  # fmt: skip
def test_nothing_an_agent_writes_of_its_registration_goes_on_to_keeper(more: dict[str, Any]) -> None:
    wanted = {"serviceId": "app-agent-air", "host": "x", "port": 59750, **more}
    assert asked("PUT", "/api/v3/registry", {"registration": wanted}) == Register(59750, REGISTRATION)


def test_an_agent_may_say_that_it_halts() -> None:
    wanted = {"serviceId": "app-agent-air", "port": 59750, "status": "HALT"}
    verdict = asked("PUT", "/api/v3/registry", {"registration": wanted})
    assert verdict == Register(59750, {**REGISTRATION, "status": "HALT"})


def test_an_agent_registers_itself_alone() -> None:
    own = {"serviceId": "app-agent-air", "host": "anything", "port": 59750}
    for method in ("POST", "PUT"):
        assert asked(method, "/api/v3/registry", {"registration": own}) == Register(59750, REGISTRATION)
        for wrong in (
            {**own, "serviceId": "core-command"}, {**own, "port": 0}, {**own, "port": "59750"}, {**own, "port": True},
            {**own, "port": 70_000}, {}, None, [],
        ):  # fmt: skip
            assert isinstance(asked(method, "/api/v3/registry", {"registration": wrong}), Refused), wrong
    for body in (None, [], "x", 5):
        assert isinstance(asked("POST", "/api/v3/registry", body), Refused)
    assert isinstance(asked("DELETE", "/api/v3/registry/serviceId/app-agent-air"), Refused)


def test_it_finds_itself_and_core_metadata_and_no_other_service() -> None:
    where = "/api/v3/registry/serviceId"
    assert asked("GET", f"{where}/app-agent-air") == LookUp("app-agent-air", is_own=True)
    assert asked("GET", f"{where}/core-metadata") == LookUp("core-metadata", is_own=False)
    for other in (f"{where}/core-command", f"{where}/app-agent-heat", "/api/v3/registry/all"):
        assert asked("GET", other).cause == "another's registration"


@pytest.mark.parametrize(
    "path",
    [
        "/api/v3/device/all",
        "/api/v3/device/name/lamp-1",
        "/api/v3/deviceprofile/name/lamp",
        "/api/v3/deviceservice/all",
    ],
)
def test_core_metadata_is_read_and_never_changed(path: str) -> None:
    assert asked("GET", path) == Forward("core-metadata", tuple(path[1:].split("/")), {})
    for method in METHODS[1:]:
        assert asked(method, path, []).cause == "changing core-metadata"


@pytest.mark.parametrize(
    "path",
    [
        "/api/v3/device/name/lamp-1/Power",  # core-command
        "/api/v3/device/name/lamp-1/Power/x",
        "/api/v3/device/name//",
        "/api/v3/device/name/..",
        "/api/v3/config",  # of whom?
        "/api/v3/secret",
        "/api/v3/event",
        "/api/v2/ping",
        "/metrics",
        "/",
        "",
    ],
)
def test_all_else_is_refused(path: str) -> None:
    for method in METHODS:
        assert isinstance(asked(method, path), Refused), method


@given(st.text(alphabet="/.%abc:\\\x00 -~é", max_size=40), st.sampled_from(METHODS))
def test_whatever_is_appended_to_an_own_key_stays_below_it(tail: str, method: str) -> None:
    found = asked(method, OWN + tail, {"value": "x"})
    if isinstance(found, Forward):
        key = "/".join(found.parts[4:])
        assert key == "edgex/v4/app-agent-air" or key.startswith("edgex/v4/app-agent-air/")
        assert not {"", ".", ".."} & set(found.parts)


@given(st.lists(st.text(max_size=8), max_size=6), st.sampled_from(METHODS))
def test_no_path_reaches_core_command_or_changes_core_metadata(levels: list[str], method: str) -> None:
    found = asked(method, "/api/v3/device/" + "/".join(levels))
    if isinstance(found, Forward):
        assert method == "GET"
        assert found.parts[3] != "name" or len(found.parts) <= 5
    else:
        assert isinstance(found, Refused)


def test_keeper_answers_by_first_letters_and_others_keys_do_not_pass() -> None:
    root = f"edgex/v4/{service_key('air')}"
    answer = {
        "apiVersion": "v3",
        "response": [
            {"key": f"{root}/Writable/LogLevel", "value": "INFO"},
            {"key": f"{root}y/Writable/LogLevel", "value": "theirs"},
            {"key": root, "value": "x"},
        ],
    }
    assert [item["key"] for item in let_pass(answer, root)["response"]] == [f"{root}/Writable/LogLevel", root]
    names = {"apiVersion": "v3", "response": [f"{root}/A", f"{root}y/A", 5, None]}
    assert let_pass(names, root)["response"] == [f"{root}/A"]


def test_secrets_in_the_common_configuration_do_not_pass() -> None:
    root = "edgex/v4/core-common-config-bootstrapper"
    secret = f"{root}/all-services/Writable/InsecureSecrets/DB/SecretData/password"
    answer = {
        "response": [{"key": secret, "value": "postgres"}, {"key": f"{root}/all-services/Service/Host", "value": "h"}]
    }
    assert [item["key"] for item in let_pass(answer, root)["response"]] == [f"{root}/all-services/Service/Host"]


@pytest.mark.parametrize("answer", [None, [], "x", {"response": "x"}, {"message": "no"}])
def test_an_answer_that_is_none_lets_nothing_pass(answer: Any) -> None:
    assert let_pass(answer, "edgex/v4/app-agent-air")["response"] == []


@pytest.mark.parametrize("who", ["coordinator", "inference"])
def test_a_service_that_is_no_agent_has_its_own_key_and_registration_and_no_more(who: str) -> None:
    def asks(method: str, path: str, body: Any = None) -> Any:
        return judge(who, method, path, {}, body)

    own = f"/api/v3/kvs/key/edgex/v4/app-{who}"
    assert isinstance(asks("GET", f"{own}/Writable"), Forward)
    assert isinstance(asks("PUT", own, {"value": "x"}), Forward)
    registration = {"serviceId": f"app-{who}", "port": 59741}
    assert isinstance(asks("POST", "/api/v3/registry", {"registration": registration}), Register)
    assert isinstance(asks("GET", "/api/v3/device/all"), Forward)
    for other in ("app-guard", f"app-agent-{who}", "app-agent-air", "core-command"):
        assert isinstance(asks("GET", f"/api/v3/kvs/key/edgex/v4/{other}"), Refused)
        assert isinstance(asks("GET", f"/api/v3/registry/serviceId/{other}"), Refused)
        wanted = {"registration": {**registration, "serviceId": other}}
        assert isinstance(asks("POST", "/api/v3/registry", wanted), Refused)
    assert asks("PUT", "/api/v3/device/name/lamp-1/Power", {}).cause == "unknown route"


@pytest.mark.parametrize("who", ["coordinator", "inference"])
def test_no_agent_takes_the_name_of_such_a_service(who: str) -> None:
    with pytest.raises(ValueError, match=rf"the name '{who}' is taken"):
        AgentDefinition.model_validate({"name": who, "watches": [{"profile": "Lamp"}]})
