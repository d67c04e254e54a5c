"""What stands against a wish: a coupled resource that is active, if it can be seen and negotiated about."""

import pytest

from edgeagents.model.agent import Intent, Sample
from edgeagents.model.site import Condition
from edgeagents.model.values import Value
from edgeagents.protocol.couplings import Coupling
from edgeagents.protocol.gate import Key
from services.agent.coupled import Against, standing_against

VENT, HEAT = ("window", "Open"), ("radiator", "Setpoint")
KINDS = {VENT: "Bool", HEAT: "Float32"}
COUPLING = Coupling("heat against vent in room:living", (
    Condition(device="radiator", resource="Setpoint", above=18),
    Condition(device="window", resource="Open", equals="true"),
))  # fmt: skip
OPTIONS = {VENT: ("true", "false"), HEAT: ("19", "17", "15")}


def against(key: Key, value: Value, seen: dict[Key, Value], **changes: object) -> Against | None:
    samples = {name: Sample(found, 1, 0.0) for name, found in seen.items()}
    given = {"couplings": [COUPLING], "kinds": KINDS, "latest": samples.get, "options": OPTIONS, **changes}
    return standing_against(Intent(*key, value, "", ""), **given)  # type: ignore[arg-type]


def test_a_window_that_is_open_stands_against_heat_and_shut_would_let_both_be() -> None:
    assert against(HEAT, 21.0, {VENT: True}) == Against(VENT, "false", COUPLING.name)


def test_heat_stands_against_opening_and_the_first_value_that_is_not_active_would_do() -> None:
    assert against(VENT, True, {HEAT: 21.0}) == Against(HEAT, "17", COUPLING.name)


@pytest.mark.parametrize(
    ("key", "value", "seen", "changes"),
    [
        (HEAT, 17.0, {VENT: True}, {}),  # not active itself
        (HEAT, 21.0, {VENT: False}, {}),  # nor is the other
        (HEAT, 21.0, {}, {}),  # nobody knows
        (HEAT, 21.0, {VENT: True}, {"options": {}}),  # nothing that is negotiated about
        (HEAT, 21.0, {VENT: True}, {"options": {VENT: ("true",)}}),  # no value of it would do
        (HEAT, 21.0, {VENT: True}, {"couplings": []}),
        (("lamp", "Switch"), True, {VENT: True}, {}),
    ],
)
def test_else_nothing_does(
    key: tuple[str, str], value: Value, seen: dict[tuple[str, str], Value], changes: dict[str, object]
) -> None:
    assert against(key, value, seen, **changes) is None
