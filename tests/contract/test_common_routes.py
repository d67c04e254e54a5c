"""What every core service answers: ping, version, configuration, errors, correlation ids."""

import re
import uuid

import pytest

from tests.contract.edgex import SERVICES, Edgex

pytestmark = pytest.mark.asyncio(loop_scope="session")
UNIX_DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d [A-Z]{3,4} \d{4}")


@pytest.mark.parametrize("service", SERVICES)
async def test_ping_names_the_service_and_the_time(edgex: Edgex, service: str) -> None:
    answer = await edgex.ask(service, "GET", "/ping")
    assert answer.status == 200
    assert answer.body.keys() == {"apiVersion", "timestamp", "serviceName"}
    assert (answer.body["apiVersion"], answer.body["serviceName"]) == ("v3", service)
    assert UNIX_DATE.fullmatch(answer.body["timestamp"])


@pytest.mark.parametrize("service", SERVICES)
async def test_version_is_of_the_fourth_edgex(edgex: Edgex, service: str) -> None:
    answer = await edgex.ask(service, "GET", "/version")
    assert answer.status == 200
    assert answer.body == {"apiVersion": "v3", "version": answer.body["version"], "serviceName": service}
    assert answer.body["version"].startswith("4.")


@pytest.mark.parametrize("service", SERVICES)
async def test_configuration_tells_where_the_service_listens_and_what_it_speaks(edgex: Edgex, service: str) -> None:
    answer = await edgex.ask(service, "GET", "/config")
    assert answer.status == 200
    assert answer.body["serviceName"] == service
    config = answer.body["config"]
    assert edgex.urls[service].endswith(f":{config['Service']['Port']}")
    assert config["MessageBus"]["Type"] == edgex.target.bus
    assert config["Writable"]["LogLevel"]


@pytest.mark.parametrize("service", SERVICES)
async def test_correlation_id_of_a_request_comes_back(edgex: Edgex, service: str) -> None:
    mine = str(uuid.uuid4())
    answer = await edgex.ask(service, "GET", "/version", headers={"X-Correlation-ID": mine})
    assert answer.headers["X-Correlation-ID"] == mine


@pytest.mark.parametrize("service", SERVICES)
async def test_route_that_is_not_there_is_404(edgex: Edgex, service: str) -> None:
    url = f"{edgex.urls[service]}/api/v3/nothing/of/this/name"
    assert (await edgex.http.get(url)).status_code == 404


@pytest.mark.parametrize("service", SERVICES)
async def test_method_that_a_route_does_not_have_is_405(edgex: Edgex, service: str) -> None:
    assert (await edgex.http.delete(f"{edgex.urls[service]}/api/v3/ping")).status_code == 405


@pytest.mark.parametrize(
    ("service", "path", "status"),
    [
        ("core-keeper", "/registry/serviceId/nobody", 404),
        ("core-metadata", "/device/name/nobody", 404),
        ("core-metadata", "/device/all?limit=-2", 400),
        ("core-data", "/event/id/nope", 400),
        ("core-command", "/device/name/nobody", 404),
    ],
)
async def test_error_says_its_status_and_why(edgex: Edgex, service: str, path: str, status: int) -> None:
    answer = await edgex.ask(service, "GET", path)
    assert answer.status == status
    assert answer.body == {"apiVersion": "v3", "message": answer.message, "statusCode": status}
    assert answer.message.strip()


@pytest.mark.parametrize(
    ("service", "method", "path"),
    [
        ("core-keeper", "POST", "/registry"),
        ("core-metadata", "POST", "/device"),
        ("core-metadata", "POST", "/deviceprofile"),
        ("core-data", "POST", "/event/service/profile/device/source"),
    ],
)
async def test_body_that_is_no_json_is_refused(edgex: Edgex, service: str, method: str, path: str) -> None:
    answer = await edgex.ask(service, method, path, content="{bad")
    assert answer.status in (400, 500)  # 500 in 4.0, 400 in later ones
    assert answer.body["statusCode"] == answer.status
    assert answer.message


async def test_request_id_comes_back_in_the_answer(edgex: Edgex) -> None:
    mine = str(uuid.uuid4())
    service = {"name": edgex.name("device-asked"), "baseAddress": "http://127.0.0.1:9", "adminState": "UNLOCKED"}
    body = [{"apiVersion": "v3", "requestId": mine, "service": service}]
    assert [(await edgex.ask("core-metadata", "POST", "/deviceservice", body)).item["requestId"] for _ in range(2)] == [
        mine, mine,
    ]  # fmt: skip
