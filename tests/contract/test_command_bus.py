"""core-command over the bus: answers by request id, errors as text, silence where nothing can be answered."""

import asyncio
import uuid
from typing import Any

import pytest

from edgeagents.errors import DeviceSilentError, InvalidInputError, NotFoundError, UpstreamError
from edgeagents.model.envelope import Answer, CommandRequest
from tests.contract.edgex import Edgex
from tests.contract.lab import Lab

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def ask(edgex: Edgex, device: str, command: str, verb: str, payload: Any = None, **query: str) -> Answer:
    topic = f"core/command/request/{device}/{command}/{verb}"
    return await edgex.bus.request(topic, payload, answer_from="core-command", timeout_s=5.0, query=query)


async def test_set_is_read_back(edgex: Edgex, lab: Lab) -> None:
    async with lab.another() as device:
        answer = await ask(edgex, device, "State", "set", {"Power": "false", "Level": 70})
        assert (answer.error, answer.envelope.payload) == (None, None)
        read = await ask(edgex, device, "State", "get")
        assert read.event is not None
        assert {item.resource_name: item.value for item in read.event.readings} == {"Power": "OFF", "Level": "70"}


async def test_answer_carries_the_request_and_correlation_ids(edgex: Edgex, lab: Lab) -> None:
    mine = str(uuid.uuid4())
    answer = await edgex.bus.request(
        f"core/command/request/{lab.device}/Level/get", None, answer_from="core-command", timeout_s=5.0,
        correlation_id=mine,
    )  # fmt: skip
    assert answer.envelope.request_id == answer.request_id
    assert answer.envelope.correlation_id == mine
    assert (answer.envelope.error_code, answer.envelope.content_type) == (0, "application/json")
    assert answer.envelope.payload["apiVersion"] == "v3"
    assert answer.envelope.payload["statusCode"] == 200


async def test_request_is_passed_on_to_the_device_service_over_the_bus(edgex: Edgex, lab: Lab) -> None:
    async with lab.another() as device:
        mine = str(uuid.uuid4())
        async with edgex.watch(f"device/command/request/{lab.key}/{device}/Level/set") as seen:
            await edgex.command.set_by_bus(device, "Level", {"Level": 7}, correlation_id=mine)
            request: CommandRequest = await seen.first()
        assert (request.service, request.device, request.command) == (lab.key, device, "Level")
        assert request.settings == {"Level": 7}
        assert request.envelope.correlation_id == mine
        assert (device, {"Level": 7}, mine) in lab.driver.written


async def test_commands_of_a_device_can_be_asked_for(edgex: Edgex, lab: Lab) -> None:
    answer = await edgex.bus.request(
        f"core/commandquery/request/{lab.device}", None, answer_from="core-command", timeout_s=5.0
    )
    assert answer.error is None
    found = answer.envelope.payload["deviceCoreCommand"]
    over_http = (await edgex.ask("core-command", "GET", f"/device/name/{lab.device}")).body["deviceCoreCommand"]
    assert found["deviceName"] == lab.device
    assert by_name(found) == by_name(over_http)


def by_name(found: dict[str, Any]) -> dict[str, Any]:
    """Return the commands without their order, which is none."""
    return {command["name"]: command for command in found["coreCommands"]}


@pytest.mark.parametrize(("flag", "is_told"), [("true", True), ("false", False)])
async def test_pushevent_decides_whether_the_event_is_told(edgex: Edgex, lab: Lab, flag: str, is_told: bool) -> None:
    async with lab.another() as device, edgex.watch(f"events/device/{lab.key}/+/{device}/#") as seen:
        answer = await ask(edgex, device, "Level", "get", **{"ds-pushevent": flag})
        await ask(edgex, device, "Temperature", "get", **{"ds-pushevent": "true"})
        await seen.first(lambda item: item.event.source_name == "Temperature")
    assert answer.event is not None
    assert (answer.event.id in {item.event.id for item in seen.messages}) is is_told


async def test_returnevent_false_answers_without_an_event(edgex: Edgex, lab: Lab) -> None:
    answer = await ask(edgex, lab.device, "Level", "get", **{"ds-returnevent": "false"})
    assert (answer.error, answer.event) == (None, None)


@pytest.mark.parametrize(
    ("device", "command", "verb", "payload", "reason"),
    [
        ("", "Level", "set", {"Level": "101"}, "out of maximum value 100"),
        ("", "Power", "set", {"Power": "maybe"}, "strconv.ParseBool"),
        ("", "Temperature", "set", {"Temperature": 1}, "DeviceResource Temperature is marked as read-only"),
        ("", "Reset", "get", None, "no readable resources matched with Reset"),
        ("", "Nope", "get", None, "Nope not found"),
        ("nobody", "Level", "get", None, "no device with name 'nobody' found"),
    ],
)
async def test_refusal_is_an_error_answer_with_its_reason(
    edgex: Edgex, lab: Lab, device: str, command: str, verb: str, payload: Any, reason: str
) -> None:
    answer = await ask(edgex, device or lab.device, command, verb, payload)
    assert answer.error is not None
    assert reason in answer.error
    assert (answer.envelope.error_code, answer.envelope.content_type) == (1, "text/plain")
    assert answer.event is None


async def test_locked_device_is_refused(edgex: Edgex, lab: Lab) -> None:
    async with lab.another(adminState="LOCKED") as device:
        answer = await ask(edgex, device, "Level", "get")
        assert answer.error is not None
        assert f"device {device} locked" in answer.error


async def test_flag_that_is_neither_true_nor_false_is_refused(edgex: Edgex, lab: Lab) -> None:
    answer = await ask(edgex, lab.device, "Level", "get", **{"ds-pushevent": "maybe"})
    assert answer.error is not None
    assert "true" in answer.error


async def test_request_of_neither_get_nor_set_is_refused(edgex: Edgex, lab: Lab) -> None:
    answer = await ask(edgex, lab.device, "Level", "toggle")
    assert answer.error is not None
    assert "toggle" in answer.error


async def test_device_service_that_does_not_answer_is_silence(
    edgex: Edgex, silent_device: str, request_timeout_s: float
) -> None:
    async with edgex.watch("response/core-command/#") as answers:
        with pytest.raises(DeviceSilentError):
            await edgex.command.get_by_bus(silent_device, "Level", timeout_s=request_timeout_s + 1.0)
    assert answers.messages == []


async def test_many_requests_at_once_are_each_answered(edgex: Edgex, lab: Lab) -> None:
    async with lab.another() as device:
        answers = await asyncio.gather(*(ask(edgex, device, "Level", "get") for _ in range(50)))
        assert all(answer.event is not None for answer in answers)
        assert len({answer.request_id for answer in answers}) == 50


async def test_requests_over_both_ways_see_each_others_values(edgex: Edgex, lab: Lab) -> None:
    async with lab.another() as device:
        await edgex.command.set(device, "Level", {"Level": 11})
        assert (await edgex.command.get_by_bus(device, "Level")).readings[0].decoded() == 11
        await edgex.command.set_by_bus(device, "Level", {"Level": 12})
        assert (await edgex.command.get(device, "Level")).readings[0].decoded() == 12


async def test_our_client_tells_refusals_apart(edgex: Edgex, lab: Lab) -> None:
    with pytest.raises(NotFoundError):
        await edgex.command.get_by_bus("nobody", "Level")
    with pytest.raises(InvalidInputError):
        await edgex.command.set_by_bus(lab.device, "Temperature", {"Temperature": 1})
    with pytest.raises(UpstreamError, match="no readable resources"):  # the bus carries no status
        await edgex.command.get_by_bus(lab.device, "Reset")
