"""What is made of the answers of EdgeX services, and of what answers in their place."""

import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from edgeagents.adapters.config import READY
from edgeagents.adapters.examination import edgex as module
from edgeagents.adapters.examination.edgex import look_at_core, look_at_keeper, look_at_service
from tests.dripping import dripping

Answer = Callable[[httpx.Request], httpx.Response]


def http(answer: Answer) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


def service(key: str, version: str = "4.0.2", **headers: str) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        body = {"serviceName": key, "version": version}
        return httpx.Response(200, json=body, headers=headers)

    return answer


async def test_a_service_tells_its_version_and_its_time() -> None:
    late = formatdate(time.time() + 120, usegmt=True)
    facts = await look_at_service(http(service("core-data", date=late)), "core-data", "http://d/")
    assert (facts.state, facts.url, facts.version) == ("up", "http://d", "4.0.2")
    assert facts.clock_ahead_s == pytest.approx(120, abs=1.5)


@pytest.mark.parametrize("date", ["", "yesterday", "Wed, 99 Nov 2026 10:00:00 GMT"])
async def test_a_time_that_is_none_is_not_known(date: str) -> None:
    facts = await look_at_service(http(service("core-data", date=date)), "core-data", "http://d")
    assert (facts.state, facts.clock_ahead_s) == ("up", None)


@pytest.mark.parametrize(
    ("answer", "state", "words"),
    [
        (service("core-metadata"), "other", "core-metadata answers there"),
        (lambda request: httpx.Response(401, json={}), "token", "asks for a token (401)"),
        (lambda request: httpx.Response(404, text="<html>"), "other", "status 404"),
        (lambda request: httpx.Response(200, text="<html>hi</html>"), "other", "does not say which service it is"),
        (lambda request: httpx.Response(200, json={"serviceName": ["core-data"]}), "other", "does not say which"),
        (lambda request: httpx.Response(302, headers={"Location": "http://e"}), "other", "status 302"),
        (lambda request: httpx.Response(200, content=b" " * (2 << 20)), "other", "is longer than 1 MB"),
    ],
)
async def test_what_is_no_such_service_is_told(answer: Answer, state: str, words: str) -> None:
    facts = await look_at_service(http(answer), "core-data", "http://d")
    assert facts.state == state
    assert words in facts.text


@pytest.mark.parametrize("version", [None, 4, {"a": 1}])
async def test_a_version_that_is_no_text_is_not_told(version: object) -> None:
    facts = await look_at_service(
        http(lambda request: httpx.Response(200, json={"serviceName": "core-data", "version": version})),
        "core-data",
        "http://d",
    )
    assert (facts.state, facts.version) == ("up", "")


async def test_an_address_that_cannot_be_looked_up_is_away() -> None:
    facts = await look_at_service(http(service("core-data")), "core-data", "http://xn--:1")
    assert facts.state == "away"


async def test_one_that_sends_a_byte_now_and_then_is_away_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.2)
    with dripping() as url:
        async with httpx.AsyncClient() as client:
            facts = await look_at_service(client, "core-data", url)
    assert (facts.state, "no whole answer in 0.2 s" in facts.text) == ("away", True)


@pytest.mark.parametrize("odd", [3, "x", {"a": 1}, [3], True])
async def test_a_registry_of_another_shape_tells_of_no_core_service(odd: object) -> None:
    answers = http(lambda request: httpx.Response(200, json={"registrations": odd}))
    assert {item.registry for item in await look_at_core(answers, "http://k")} == {None}


async def test_nobody_there_is_away() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    facts = await look_at_service(http(refuse), "core-data", "http://d")
    assert (facts.state, facts.text) == ("away", "core-data at http://d: refused")


@pytest.mark.parametrize(("said", "is_ready"), [("true", True), ("false", False), ("maybe", False), (None, False)])
async def test_whether_the_common_configuration_is_there(said: str | None, is_ready: bool) -> None:
    def keeper(request: httpx.Request) -> httpx.Response:
        if "/kvs/" not in request.url.path:
            return service("core-keeper")(request)
        if said is None:
            return httpx.Response(404, json={"message": "none"})
        return httpx.Response(200, json={"response": [{"key": READY, "value": said}]})

    facts, ready = await look_at_keeper(http(keeper), "http://k")
    assert (facts.state, ready) == ("up", is_ready)


async def test_core_services_are_found_by_the_registry() -> None:
    def edgex(request: httpx.Request) -> httpx.Response:
        if request.url.host == "k":
            items: list[dict[str, Any]] = [
                {"serviceId": "core-data", "host": "d", "port": 1, "status": "UP"},
                {"serviceId": "core-command", "host": "c", "port": 1, "status": "HALT"},
            ]
            return httpx.Response(200, json={"registrations": items})
        return service("core-data")(request)

    found = {facts.key: facts for facts in await look_at_core(http(edgex), "http://k")}
    assert (found["core-data"].state, found["core-data"].registry) == ("up", "UP")
    assert found["core-command"].registry == "HALT"
    assert found["core-metadata"].registry == ""


async def test_without_a_registry_nothing_is_known_of_core_services() -> None:
    facts = await look_at_core(http(lambda request: httpx.Response(503, json={})), "http://k")
    assert {item.registry for item in facts} == {None}
