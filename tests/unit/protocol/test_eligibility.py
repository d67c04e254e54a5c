"""Who could do a task: the owner's files and the profiles decide."""

from typing import Any

import pytest

from edgeagents.errors import InvalidInputError
from edgeagents.model.agent import AgentDefinition
from edgeagents.model.device import Device
from edgeagents.model.task import TaskWanted
from edgeagents.protocol.eligibility import Site, able, invited, unknown_devices
from edgeagents.protocol.roster import Run
from tests.valves import PROFILE


def agent(name: str, **changes: Any) -> AgentDefinition:
    """Return an agent that may set valves from 10 to 25."""
    return AgentDefinition.model_validate({
        "name": name, "watches": [{"profile": "Valve"}],
        "may": [{"profile": "Valve", "resource": "Setpoint", "minimum": 10, "maximum": 25}],
        "skills": [{"name": "set"},
                   {"name": "warm", "set": {"device": "valve-{n}", "resource": "Setpoint", "value": "{degrees}"}}],
        **changes,
    })  # fmt: skip


DEVICES = {name: Device(name=name, profile_name="Valve") for name in ("valve-1", "valve-2")}
SITE = Site(
    {
        "ada": agent("ada"), "bob": agent("bob", may=[{"profile": "Valve", "resource": "Open"}]),
        "cyd": agent("cyd", skills=[]),
        "dan": agent("dan", may=[{"device": "valve-1", "resource": "Setpoint", "values": ["20", "odd"]}]),
    },
    DEVICES,
    {"Valve": PROFILE},
)  # fmt: skip


def setting(value: object = "20", device: str = "valve-1", resource: str = "Setpoint") -> TaskWanted:
    """Return a task."""
    return TaskWanted.model_validate({"skill": "set", "deviceName": device, "resourceName": resource, "value": value})


def test_permissions_and_values_of_the_owners_file_decide() -> None:
    assert able(setting(), SITE) == ["ada", "dan"]
    assert able(setting("21"), SITE) == ["ada"]
    assert able(setting("true", resource="Open"), SITE) == ["bob"]
    assert able(TaskWanted(skill="warm", params={"n": "2", "degrees": "22"}), SITE) == ["ada"]


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (TaskWanted(skill="dance"), "no agent has skill 'dance'.*there are set, warm"),
        (setting(device="valve-7"), "no device 'valve-7'"),
        (setting(resource="Colour"), "no resource 'Colour'"),
        (setting("29"), "outside what 'ada' may set"),
        (setting("31"), "outside the profile's range"),
        (setting("NaN"), "outside the profile's range"),
        (setting("warm"), "valve-1/Setpoint"),
        (TaskWanted(skill="warm", params={"n": "1"}), "needs the parameter 'degrees'"),
    ],
)
def test_what_nobody_could_do_is_refused_and_says_why(wanted: TaskWanted, text: str) -> None:
    with pytest.raises(InvalidInputError, match=text):
        able(wanted, SITE)


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (setting(), []),
        (setting(device="valve-9"), ["valve-9"]),
        (setting(device="bare"), ["bare"]),  # without its profile nothing can be said about it
        (TaskWanted(skill="warm", params={"n": "7", "degrees": "20"}), ["valve-7"]),
        (TaskWanted(skill="warm", params={"n": "7"}), []),
        (TaskWanted(skill="fly", device_name="valve-9"), []),
    ],
)
def test_devices_that_a_task_is_about_and_nobody_told_of_are_named(wanted: TaskWanted, names: list[str]) -> None:
    site = Site(SITE.agents, {**DEVICES, "bare": Device(name="bare", profile_name="Lost")}, SITE.profiles)
    assert unknown_devices(wanted, site) == names


def test_the_least_busy_that_are_there_are_asked() -> None:
    alive = {name: Run(name, "r", ("set",), busy, 0.0) for name, busy in (("ada", 2), ("bob", 0), ("dan", 1))}
    assert invited(["ada", "cyd", "dan"], alive, 5) == ("dan", "ada")
    assert invited(["ada", "bob", "dan"], alive, 2) == ("bob", "dan")


def test_among_the_equally_busy_lots_are_drawn_by_the_tasks_name() -> None:
    names = [f"a{number:02d}" for number in range(20)]
    alive = {name: Run(name, "r", ("set",), 0, 0.0) for name in names}
    asked = [invited(names, alive, 4, f"task-{number}") for number in range(50)]
    assert asked == [invited(names, alive, 4, f"task-{number}") for number in range(50)]
    assert all(len(set(some)) == 4 for some in asked)
    assert {name for some in asked for name in some} == set(names)
