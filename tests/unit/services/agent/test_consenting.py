"""What an agent answers when the guard asks for its consent, and why."""

import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeagents import subjects
from edgeagents.adapters import wire
from edgeagents.adapters.bus import Bus, BusMessage, Handler
from edgeagents.adapters.device_cache import DeviceCache
from edgeagents.audit import Audit
from edgeagents.errors import UnavailableError
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.cooperation import Act, CallForProposals, Param
from edgeagents.model.device import Device, Profile
from edgeagents.settings import SiteTime
from services.agent.commands import Commander
from services.agent.consenting import Consenting
from services.agent.perception import Twin
from services.agent.rules import RuleBook

NOON_S = 12 * 3600.0
PROFILE = Profile.model_validate({
    "name": "P",
    "deviceResources": [
        {"name": "Setpoint", "properties": {"valueType": "Float64", "readWrite": "RW"}},
        {"name": "Open", "properties": {"valueType": "Bool", "readWrite": "RW"}},
    ],
})  # fmt: skip
WARM = {
    "name": "warm", "given": {"t": "sensor/Temperature"}, "when": "t < 20.0",
    "set": {"device": "valve", "resource": "Setpoint", "value": 21.0, "dead_band": 0.5}, "because": "it has {t} °C",
}  # fmt: skip


class FakeBus:
    """Where an agent is asked and answers; `is_down` loses what it says."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(gateway="gw")
        self.said: list[Act] = []
        self.handler: Handler
        self.is_down = False

    async def subscribe(self, subject: str, handler: Handler, *, pending_bytes: int) -> None:
        assert subject == "gw.consent-requests.heat"
        self.handler = handler

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        assert subject == "gw.consents.heat"
        if self.is_down:
            raise UnavailableError("link is down")
        self.said.append(wire.decode(Act, data))


class Asked:
    """An agent with a permission, a rule and commands under way, whom the guard asks."""

    def __init__(self, *rules: dict[str, Any], **permission: Any) -> None:
        may = [{"device": "valve", "resource": "Setpoint", **permission}]
        self.agent = AgentDefinition.model_validate(
            {"name": "heat", "watches": [{"device": "*"}], "rules": list(rules), "may": may}
        )
        self.rules = RuleBook(self.agent, "heat.yaml")
        self.twin = Twin(SiteTime(), self.rules.keys, 3600)
        self.pending: dict[str, Any] = {}
        self.bus, self.records = FakeBus(), list[dict[str, Any]]()
        audit = SimpleNamespace(append=lambda kind, **body: self.records.append({"kind": kind, **body}))
        known = {name: Device(name=name, profile_name="P") for name in ("valve", "pump")}
        devices = SimpleNamespace(
            device=known.get, profile_of=lambda name: PROFILE if name in known else None
        )  # fmt: skip
        self.consenting = Consenting(
            cast(Bus, self.bus), self.agent, cast(DeviceCache, devices),
            cast(Commander, SimpleNamespace(pending=self.pending)), self.rules, self.twin, cast(Audit, audit),
            lambda: NOON_S,
        )  # fmt: skip

    def reads(self, value: float) -> None:
        """Have the sensor show a temperature."""
        self.twin.set_value(("sensor", "Temperature"), value, int(NOON_S * 1e9), NOON_S)

    async def ask(self, value: str, ask: str = "q-1", device: str = "valve", resource: str = "Setpoint") -> str:
        """Ask, and return the objection; empty when it consents."""
        call = CallForProposals(
            task="c-1", skill="consent", device=device, resource=resource, value=value,
            params=(Param(name="agent", value="air"),),
        )  # fmt: skip
        await self.tell(wire.encode(Act(version=1, performative="propose", conversation=ask, call=call)))
        said = self.bus.said[-1]
        assert said.conversation == ask
        assert said.performative == ("reject-proposal" if said.reason else "accept-proposal")
        return said.reason

    async def tell(self, data: bytes) -> None:
        """Send bytes where the guard asks."""
        await self.consenting.open()
        message = BusMessage(subjects.consent_request("gw", "heat"), data, wire.AS_PROTOBUF)
        await self.bus.handler(message)


async def test_without_a_reason_not_to_it_consents_and_writes_it_down() -> None:
    asked = Asked()
    assert await asked.ask("2.15e+01") == ""
    assert asked.records == [{
        "kind": "consent-said", "command": "c-1", "device": "valve", "resource": "Setpoint", "value": "2.15e+01",
        "of": "air", "consents": True, "reason": "",
    }]  # fmt: skip
    assert asked.consenting.counts["consented"] == 1


@pytest.mark.parametrize(
    ("permission", "value", "words"),
    [
        ({"maximum": 20}, "25", "25 is outside what it may set itself"),
        ({"minimum": 10}, "5", "5 is outside what it may set itself"),
        ({"values": ["18", "20"]}, "19", "19 is outside what it may set itself"),
        ({"values": ["18", "20"]}, "20.0", ""),
        ({"minimum": 10, "maximum": 20}, "20", ""),
    ],
)
async def test_it_does_not_consent_to_what_its_own_owner_does_not_let_it_set(
    permission: dict[str, Any], value: str, words: str
) -> None:
    assert await Asked(**permission).ask(value) == words


async def test_of_what_its_file_says_nothing_it_does_not_say_yes() -> None:
    assert await Asked(WARM).ask("true", resource="Open") == "nothing in the file of heat says whether it minds"


async def test_a_rule_alone_makes_it_mind_a_resource_that_it_may_not_set() -> None:
    shut = {**WARM, "set": {"device": "valve", "resource": "Open", "value": False}}
    asked = Asked(shut)
    asked.reads(17.0)
    assert await asked.ask("true", "q-1", resource="Open") == "rule 'warm' wants False: it has 17 °C"
    assert await asked.ask("false", "q-2", resource="Open") == ""


async def test_what_its_rules_look_at_and_is_not_read_yet_is_no_consent() -> None:
    asked = Asked(WARM)
    assert await asked.ask("15") == "heat has not read sensor/Temperature yet, on which rule 'warm' rests"
    recent = {**WARM, "given": {"t": {"of": "sensor/Temperature", "over": "1h", "take": "mean"}}}
    assert "has not read sensor/Temperature yet" in await Asked(recent).ask("15")


async def test_its_rules_object_while_they_want_another_value() -> None:
    asked = Asked(WARM)
    asked.reads(17.0)
    assert await asked.ask("15", "q-1") == "rule 'warm' wants 21: it has 17 °C"
    assert await asked.ask("21.3", "q-2") == "", "within the rule's dead band"
    asked.reads(22.0)
    assert await asked.ask("15", "q-3") == "", "the rule is silent now"


async def test_a_rule_that_fails_is_no_consent() -> None:
    asked = Asked({**WARM, "when": "t < 20.0"})
    asked.twin.set_value(("sensor", "Temperature"), "cold", int(NOON_S * 1e9), NOON_S)
    assert await asked.ask("15") == "rule 'warm' of heat fails, so it cannot say what it wants"


async def test_its_own_command_under_way_for_another_value_objects() -> None:
    asked = Asked()
    command = SimpleNamespace(device="valve", resource="Setpoint", value="2e+01")
    asked.pending["c-9"] = SimpleNamespace(command=command, published_s=time.monotonic())
    assert await asked.ask("15", "q-1") == "a command of heat for 2e+01 is under way"
    assert await asked.ask("20", "q-2") == ""


@pytest.mark.parametrize(
    ("device", "resource", "value", "words"),
    [
        ("oven", "Setpoint", "15", "heat knows no oven/Setpoint"),
        ("valve", "Colour", "15", "heat knows no valve/Colour"),
        ("valve", "Setpoint", "warm", "'warm'"),
    ],
)
async def test_what_it_does_not_know_it_does_not_consent_to(device: str, resource: str, value: str, words: str) -> None:
    assert words in await Asked().ask(value, device=device, resource=resource)


async def test_asked_again_it_says_the_same_and_writes_it_down_once() -> None:
    asked = Asked(WARM)
    asked.reads(17.0)
    first = await asked.ask("15")
    asked.reads(22.0)
    assert await asked.ask("15") == first
    assert len(asked.records) == 1


async def test_what_is_no_question_is_counted_and_not_answered() -> None:
    asked = Asked()
    await asked.tell(b"\xff\xff")
    await asked.tell(wire.encode(Act(version=1, performative="inform", conversation="q")))
    await asked.tell(wire.encode(Act(version=1, performative="propose", conversation="q")))
    assert (asked.bus.said, asked.consenting.counts["rejected"]) == ([], 3)


async def test_an_answer_that_gets_lost_is_given_again_when_it_is_asked_again() -> None:
    asked = Asked()
    call = CallForProposals(task="c-1", skill="consent", device="valve", resource="Setpoint", value="15")
    data = wire.encode(Act(version=1, performative="propose", conversation="q-1", call=call))
    asked.bus.is_down = True
    await asked.tell(data)
    asked.bus.is_down = False
    await asked.tell(data)
    assert [act.performative for act in asked.bus.said] == ["accept-proposal"]
