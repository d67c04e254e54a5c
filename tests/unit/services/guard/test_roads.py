"""Which requests are passed on to agents, coordinator and language model: a short list, matched on what was sent."""

import pytest

from services.guard.roads import AGENTS_ROAD, SERVICES_ROADS, road_of

OPEN = [
    ("air", "GET", "/api/v3/agent"),
    ("air", "POST", "/api/v3/ask"),
    ("air", "POST", "/api/v3/task"),
    ("air", "GET", "/api/v3/task/all"),
    ("air", "GET", "/api/v3/task/id/morning-1"),
    ("air", "DELETE", "/api/v3/task/id/morning-1"),
    ("air", "GET", "/api/v3/leading"),
    ("coordinator", "POST", "/api/v3/task"),
    ("coordinator", "GET", "/api/v3/task/all"),
    ("coordinator", "GET", "/api/v3/task/id/morning-1"),
    ("coordinator", "DELETE", "/api/v3/task/id/a%2Fb"),
    ("coordinator", "GET", "/api/v3/task/id/morning-1/watch"),
    ("coordinator", "GET", "/api/v3/task/watch"),
    ("coordinator", "GET", "/api/v3/conflict/all"),
    ("coordinator", "GET", "/api/v3/conflict/id/light-office.Switch"),
    ("inference", "GET", "/v1/models"),
    ("inference", "GET", "/v1/models/smollm2-135m-instruct"),
    ("inference", "POST", "/v1/chat/completions"),
    ("inference", "GET", "/api/v3/ready"),
]
SHUT = [
    ("air", "POST", "/api/v3/deciding/off"),
    ("air", "GET", "/api/v3/task/watch"),
    ("air", "GET", "/api/v3/coordinator"),
    ("air", "GET", "/metrics"),
    ("air", "DELETE", "/api/v3/config"),
    ("coordinator", "POST", "/api/v3/ask"),
    ("coordinator", "DELETE", "/api/v3/task/all"),
    ("coordinator", "GET", "/api/v3/task/id/"),
    ("coordinator", "GET", "/api/v3/task/id/.."),
    ("coordinator", "GET", "/api/v3/conflict/id/..."),
    ("coordinator", "DELETE", "/api/v3/conflict/id/x"),
    ("coordinator", "GET", "/api/v3/task/id/../../config"),
    ("coordinator", "GET", "/api/v3/task/id/a/watch/b"),
    ("coordinator", "GET", "/api/v3/task/id/a?limit=1"),
    ("coordinator", "GET", "http://edgex-core-command:59882/api/v3/ping"),
    ("coordinator", "GET", "//edgex-core-command:59882/api/v3/ping"),
    ("inference", "GET", "/v1/chat/completions"),
    ("inference", "GET", "/v1/models/../x"),
    ("inference", "GET", "/v1/models/.."),
    ("inference", "GET", "/docs"),
]


@pytest.mark.parametrize(("who", "method", "path"), OPEN)
def test_what_edgex_and_the_owner_need_is_passed_on(who: str, method: str, path: str) -> None:
    assert road_of(who).route(method, path) is not None


@pytest.mark.parametrize(("who", "method", "path"), SHUT)
def test_all_else_stays_behind_the_guard(who: str, method: str, path: str) -> None:
    assert road_of(who).route(method, path) is None


@pytest.mark.parametrize("who", ["air", *SERVICES_ROADS])
def test_keeper_asks_everybody_for_its_health_at_once(who: str) -> None:
    route = road_of(who).route("GET", "/api/v3/ping")
    assert route is not None
    assert route.is_quick


def test_services_have_a_port_of_their_own_that_no_agent_gets() -> None:
    ports = [road.port for road in SERVICES_ROADS.values()]
    assert ports == [59741, 59743]
    assert AGENTS_ROAD.others is not None
    assert not set(ports) & set(AGENTS_ROAD.others)
    assert all(road.others is None for road in SERVICES_ROADS.values())
