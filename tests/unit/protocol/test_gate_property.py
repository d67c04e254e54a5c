"""The gate against an oracle that is written another way: 100,000 proposals of agents nobody has seen before.

The oracle reads the plain dictionaries the owner's files are made of, parses values with its own rules, and
collects vetoes; it shares no code with the gate.
"""

import math
import random
import re
import struct
from collections import Counter
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.model.agent import AgentDefinition, Sample
from edgeagents.model.device import Device, Profile
from edgeagents.model.site import Site
from edgeagents.protocol.gate import NeedsApproval, Passed, PastSet, Picture, Proposal, Rules, judge

WORLDS, PROPOSALS = 250, 400
NOW_S = 1_000_000.0
KINDS = ("Bool", "Uint8", "Int16", "Int64", "Float32", "Float64", "String", "Float64Array")
RESOURCES = [f"R{index}" for index in range(5)]
DEVICES = [f"dev-{index}" for index in range(5)]
LABELS = ("warm", "cold")
INTEGERS = {"Uint8": (0, 255), "Int16": (-(2**15), 2**15 - 1), "Int64": (-(2**63), 2**63 - 1)}
Spec = dict[str, Any]


class World:
    """Random owner's files, devices and a picture, as dictionaries."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.profiles: dict[str, dict[str, Spec]] = {f"P{index}": self._profile() for index in range(2)}
        self.devices: dict[str, Spec] = {
            name: {"profile": rng.choice(["P0", "P1", "P1", "P-gone"]), "labels": self._some(LABELS)}
            for name in DEVICES[: rng.randint(2, 5)]
        }
        self.site: Spec = {
            "resources": [self._rule() for _ in range(rng.randint(8, 20))],
            "interlocks": [self._interlock(index) for index in range(rng.choice([0, 0, 1, 2]))],
            "max_data_age": rng.choice([60.0, 3600.0]),
        }
        self.agents = {"agent-0": self._agent() | {"mode": "act"}, "agent-1": self._agent(), "agent-2": self._agent()}
        self.readings: dict[tuple[str, str], tuple[Any, float]] = {}
        self.sets: dict[tuple[str, str], list[tuple[str, Any, float]]] = {}
        self._past()
        self.rules = Rules(
            Site.model_validate(self.site),
            {name: _agent_model(name, spec) for name, spec in self.agents.items()},
            {
                name: Device(name=name, profile_name=spec["profile"], labels=tuple(spec["labels"]))
                for name, spec in self.devices.items()
            },
            {name: _profile_model(name, spec) for name, spec in self.profiles.items()},
        )
        self.picture = Picture(
            {key: Sample(value, 0, at_s) for key, (value, at_s) in self.readings.items()},
            {key: tuple(PastSet(*entry) for entry in entries) for key, entries in self.sets.items()},
        )

    def _some(self, things: tuple[str, ...]) -> list[str]:
        return [thing for thing in things if self.rng.random() < 0.5]

    def _limits(self, odds: float, low: int = 0, high: int = 60) -> Spec:
        first, second = sorted((self.rng.randint(low, high), self.rng.randint(low, high)))
        return {
            **({"minimum": float(first)} if self.rng.random() < odds else {}),
            **({"maximum": float(second)} if self.rng.random() < odds else {}),
        }

    def _profile(self) -> dict[str, Spec]:
        found = {}
        for name in RESOURCES[: self.rng.randint(3, 5)]:
            kind = self.rng.choice(KINDS)
            numeric = kind not in ("Bool", "String", "Float64Array")
            limits = self._limits(0.3, -5, 100) if numeric else {}
            found[name] = {"kind": kind, "mode": self.rng.choice(["RW", "RW", "RW", "W", "R"]), **limits}
        return found

    def _selector(self) -> Spec:
        chosen = self.rng.random()
        if chosen < 0.4:
            return {"profile": self.rng.choice(["P0", "P1"])}
        if chosen < 0.6:
            return {"device": "dev-*"}
        if chosen < 0.8:
            return {"device": self.rng.choice([*DEVICES, "dev-[0]", "*-1"])}
        return {"label": self.rng.choice(LABELS), **({"profile": "P0"} if chosen > 0.9 else {})}

    def _rule(self) -> Spec:
        rng = self.rng
        rule = {
            **self._selector(),
            "resource": rng.choice(RESOURCES),
            "risk_class": rng.choice("AAAABCD"),
            **(self._limits(0.5, 0, 70) if rng.random() < 0.15 else {}),
        }
        if rng.random() < 0.2:
            rule |= {"minimum_interval": rng.choice([10, 300])}
        if rng.random() < 0.3:
            rule |= {"minimum_on": 60, "minimum_off": 120}
        if rng.random() < 0.2:
            rule |= {"proof": {"resource": rng.choice(RESOURCES), "wait": 1}}
        return rule

    def _condition(self) -> Spec:
        place = {"device": self.rng.choice([*DEVICES[:3], "dev-gone"]), "resource": self.rng.choice(RESOURCES)}
        return place | self.rng.choice([{"equals": "true"}, {"equals": "20"}, {"above": 20.0}, {"below": 20.0}])

    def _interlock(self, index: int) -> Spec:
        return {
            "name": f"lock-{index}",
            "forbid": self._condition(),
            "during": self._condition(),
            "max_age": self.rng.choice([30.0, 600.0]),
        }

    def _agent(self) -> Spec:
        rng = self.rng
        may = []
        for _ in range(rng.randint(1, 12)):
            entry = {**self._selector(), "resource": rng.choice(RESOURCES)}
            if rng.random() < 0.3:
                entry |= self._limits(0.8)
            if rng.random() < 0.1:
                entry |= {"values": rng.sample(["true", "20", "20.5", "a", "false", "1e1"], 3)}
            if rng.random() < 0.15:
                entry |= {"max_step": rng.choice([1.0, 5.0, 40.0])}
            if rng.random() < 0.2:
                entry |= {"rate": {"count": rng.randint(1, 3), "per": rng.choice([60, 600])}}
            if rng.random() < 0.2:
                entry |= {"max_data_age": rng.choice([30.0, 600.0])}
            may.append(entry)
        return {"mode": rng.choice(["act", "act", "act", "act", "observe"]), "may": may}

    def _value(self) -> Any:
        return self.rng.choice([True, False, 20, 20.0, 25.5, 21, math.nan, math.inf, None, "x", 10**400, [1.0], 19.9])

    def _past(self) -> None:
        rng = self.rng
        for device in DEVICES:
            for resource in RESOURCES:
                if rng.random() < 0.7:
                    self.readings[device, resource] = (self._value(), NOW_S - rng.choice([0, 20, 100, 1000, -50]))
                if rng.random() < 0.4:
                    times = sorted(NOW_S - rng.choice([1, 15, 70, 130, 400, 5000]) for _ in range(rng.randint(1, 4)))
                    self.sets[device, resource] = [
                        (rng.choice(["agent-0", "agent-1"]), rng.choice([True, False, 20.0, 30]), at_s)
                        for at_s in times
                    ]

    def proposal(self) -> Proposal:
        """Return what an agent may want: half the time something sensible."""
        rng = self.rng
        device, resource = rng.choice(list(self.devices)), rng.choice(RESOURCES)
        kind = self.profiles.get(self.devices[device]["profile"], {}).get(resource, {}).get("kind", "")
        if rng.random() < 0.5:
            usual = {"Bool": ["true", "false"], "String": ["a", "b"], "Float64Array": ["[20]"]}.get(kind)
            value = rng.choice(usual) if usual else str(rng.randint(0, 60))
            return Proposal("agent-0", device, resource, value, NOW_S - 5)
        return self._odd_proposal()

    def _odd_proposal(self) -> Proposal:
        rng = self.rng
        number = rng.choice([rng.randint(0, 60), rng.uniform(-10, 70), rng.choice([20, 20.5, 1e300, -1e30, 16777217])])
        value = rng.choice([
            str(number), str(int(number)), f"{number:.3e}", rng.choice(["true", "false"]), rng.choice(["true", "20"]),
            rng.choice(ODD_VALUES),
        ])  # fmt: skip
        return Proposal(
            rng.choice(["agent-0", "agent-1", "agent-2", "agent-2", "guard", ""]) if rng.random() < 0.2 else "agent-0",
            rng.choice([*DEVICES, "dev-9", "", "dev-*"]) if rng.random() < 0.2 else rng.choice(list(self.devices)),
            rng.choice([*RESOURCES, "R9", ""]) if rng.random() < 0.2 else rng.choice(RESOURCES),
            value,
            rng.choice([NOW_S, NOW_S - 10, NOW_S - 45, NOW_S - 1000, NOW_S - 1e9, NOW_S + 5, math.nan])
            if rng.random() < 0.4
            else NOW_S - 5,
        )


ODD_VALUES = (
    "NaN", "nan", "inf", "-Inf", "+Inf", "infinity", "1e999", "-1e999", "", " ", "True", "TRUE", "t", "1", "0", "yes",
    "null", "None", "0x14", "1_0", "２０", "20 ", " 20", "+20", "--20", "20.0.0", "20,5", "[20]", "[]", "[20, 21]",
    "[NaN]", "[1e999]", "[20", "{}", "x" * 5000, "\x00", "20\n", "3.5e38", "-3.5e38", "1e-50", "9" * 19, "9" * 400,
    "-0", "255", "256", "a",
)  # fmt: skip


def _profile_model(name: str, spec: dict[str, Spec]) -> Profile:
    resources = [
        {
            "name": resource,
            "properties": {
                "valueType": item["kind"], "readWrite": item["mode"], "minimum": item.get("minimum"),
                "maximum": item.get("maximum"),
            },
        }
        for resource, item in spec.items()
    ]  # fmt: skip
    return Profile.model_validate({"name": name, "deviceResources": resources})


def _agent_model(name: str, spec: Spec) -> AgentDefinition:
    body = {"name": name, "mode": spec["mode"], "watches": [{"profile": "P0"}], "may": spec["may"]}
    return AgentDefinition.model_validate(body)


# --- the oracle ----------------------------------------------------------------------------------


class NoValueError(Exception):
    """A text that stands for no value."""


def value_of(kind: str, text: str) -> Any:
    """Return what EdgeX would set for a text: a bool, an int, a float, a text or a list of floats."""
    if kind == "String":
        return text
    if kind == "Bool":
        words = {"1": True, "t": True, "T": True, "TRUE": True, "true": True, "True": True}
        words |= {"0": False, "f": False, "F": False, "FALSE": False, "false": False, "False": False}
        if text not in words:
            raise NoValueError
        return words[text]
    if kind in INTEGERS:
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,19}\s*", text) or not INTEGERS[kind][0] <= int(text) <= INTEGERS[kind][1]:
            raise NoValueError
        return int(text)
    if kind == "Float64Array":
        inner = re.fullmatch(r"\s*\[(.*)\]\s*", text, re.DOTALL)
        if not inner:
            raise NoValueError
        return [value_of("Float64", part) for part in inner[1].split(",")] if inner[1].strip() else []
    if not re.fullmatch(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", text):
        raise NoValueError  # NaN and infinities too: nothing can be set to them
    exact = Decimal(text.strip())
    if abs(exact) > Decimal("1.7976931348623158e308") or (kind == "Float32" and abs(exact) >= Decimal("3.40282357e38")):
        raise NoValueError
    return struct.unpack("<f", struct.pack("<f", float(exact)))[0] if kind == "Float32" else float(exact)


def selects(entry: Spec, name: str, device: Spec) -> bool:
    """Say whether an entry of a file is about a device."""
    pattern = ".*".join(re.escape(part) for part in entry.get("device", "*").split("*"))
    return (
        re.fullmatch(pattern, name) is not None
        and entry.get("profile", device["profile"]) == device["profile"]
        and ("label" not in entry or entry["label"] in device["labels"])
    )


def is_inside(value: Any, limits: Spec) -> bool:
    """Say whether a value is a number within limits, where there are any."""
    bounds = [name for name in ("minimum", "maximum") if limits.get(name) is not None]
    if not bounds:
        return True
    if type(value) not in (int, float):
        return False
    return not ("minimum" in bounds and value < limits["minimum"]) and not (
        "maximum" in bounds and value > limits["maximum"]
    )


def as_number(value: Any) -> float | None:
    """Return a number, None for what is none (None, NaN, a text, a list); a bool counts as 0 or 1."""
    if isinstance(value, bool) or type(value) in (int, float):
        return None if value != value else (math.inf if value > 1e308 else float(value))
    return None


class Oracle:
    """May this go out? Collects vetoes from each of the owner's words."""

    def __init__(self, world: World, now_s: float = NOW_S) -> None:
        self.world = world
        self.now_s = now_s

    def answer(self, asked: Proposal) -> str:
        """Return `A`, `B` or `C` when it may pass (with approval), empty when it may not."""
        world = self.world
        agent, device = world.agents.get(asked.agent), world.devices.get(asked.device)
        if agent is None or agent["mode"] != "act" or device is None:
            return ""
        resources = world.profiles.get(device["profile"], {})
        resource = resources.get(asked.resource)
        if resource is None or "W" not in resource["mode"]:
            return ""
        rules = [
            rule
            for rule in world.site["resources"]
            if rule["resource"] == asked.resource and selects(rule, asked.device, device)
        ]
        if not rules or rules[0]["risk_class"] == "D" or not self._is_sound(rules[0], resources):
            return ""
        try:
            value = value_of(resource["kind"], asked.value)
        except NoValueError:
            return ""
        if not is_inside(value, resource) or not is_inside(value, rules[0]):
            return ""
        may = [
            entry
            for entry in agent["may"]
            if entry["resource"] == asked.resource and selects(entry, asked.device, device)
        ]
        if not any(self._permits(entry, asked, resource["kind"], value) for entry in may):
            return ""
        if self._is_too_soon(rules[0], asked, value) or self._is_locked(asked, value):
            return ""
        return str(rules[0]["risk_class"])

    def _is_sound(self, rule: Spec, resources: dict[str, Spec]) -> bool:
        """Say whether a site rule fits the profile; one that does not lets nothing pass."""
        resource, proof = resources[rule["resource"]], rule.get("proof")
        for word in ("minimum", "maximum"):
            numeric = resource["kind"] not in ("Bool", "String", "Float64Array")
            if word in rule and not (numeric and is_inside(rule[word], resource)):
                return False
        return proof is None or "R" in resources.get(proof["resource"], {"mode": ""})["mode"]

    def _permits(self, entry: Spec, asked: Proposal, kind: str, value: Any) -> bool:
        key, world = (asked.device, asked.resource), self.world
        if not is_inside(value, entry) or not self._is_listed(entry, kind, value):
            return False
        oldest_s: float = {"max_data_age": world.site["max_data_age"], **entry}["max_data_age"]
        if not self.now_s - asked.data_site_s <= oldest_s:
            return False
        if "rate" in entry:
            recent = [
                item
                for item in world.sets.get(key, [])
                if item[0] == asked.agent and self.now_s - item[2] < entry["rate"]["per"]
            ]
            if len(recent) >= entry["rate"]["count"]:
                return False
        if "max_step" not in entry:
            return True
        wanted = as_number(value)
        present = [as_number(item) for item in self._maybe(key, oldest_s)]
        return wanted is not None and all(
            item is not None and abs(wanted - item) <= entry["max_step"] * 1.0001 for item in present
        )

    def _is_listed(self, entry: Spec, kind: str, value: Any) -> bool:
        if "values" not in entry:
            return True
        for text in entry["values"]:
            try:
                if value_of(kind, text) == value:
                    return True
            except NoValueError:
                continue
        return False

    def _maybe(self, key: tuple[str, str], oldest_s: float) -> list[Any]:
        """Return all that a resource may be at; None stands for what nobody knows."""
        value, at_s = self.world.readings.get(key, (None, -math.inf))
        found = [value if self.now_s - at_s <= oldest_s else None]
        return found + [item[1] for item in self.world.sets.get(key, [])[-1:] if item[2] > at_s]

    def _is_too_soon(self, rule: Spec, asked: Proposal, value: Any) -> bool:
        past = self.world.sets.get((asked.device, asked.resource), [])
        if not past:
            return False
        if self.now_s - past[-1][2] < rule.get("minimum_interval", 0):
            return True
        if not isinstance(value, bool) or past[-1][1] is not (not value):
            return False
        # How long it has been the other way without a change in between.
        run = [at_s for index, (_, _, at_s) in enumerate(past) if all(item[1] is past[-1][1] for item in past[index:])]
        return self.now_s - min(run) < float(rule.get("minimum_off" if value else "minimum_on", 0))

    def _is_locked(self, asked: Proposal, value: Any) -> bool:
        for lock in self.world.site["interlocks"]:
            sides = [lock["forbid"], lock["during"]]
            if all((side["device"], side["resource"]) != (asked.device, asked.resource) for side in sides):
                continue
            if all(self._may_hold(side, asked, value, lock["max_age"]) for side in sides):
                return True
        return False

    def _may_hold(self, side: Spec, asked: Proposal, value: Any, oldest_s: float) -> bool:
        device = self.world.devices.get(side["device"])
        resource = self.world.profiles.get(device["profile"], {}).get(side["resource"]) if device else None
        if resource is None:
            return True
        key = (side["device"], side["resource"])
        values = [value] if key == (asked.device, asked.resource) else self._maybe(key, oldest_s)
        return any(self._may_be(side, resource["kind"], item) for item in values)

    def _may_be(self, side: Spec, kind: str, value: Any) -> bool:
        if value is None:
            return True
        if "equals" in side:
            try:
                wanted = value_of(kind, side["equals"])
            except NoValueError:
                return True
            return (wanted is value) if isinstance(value, bool) or isinstance(wanted, bool) else bool(wanted == value)
        if isinstance(value, bool) or type(value) not in (int, float) or value != value:
            return True
        return bool(value > side["above"]) if "above" in side else bool(value < side["below"])


SEEN: Counter[str] = Counter()


@settings(max_examples=WORLDS, database=None)
@given(st.integers(0, 2**64 - 1))
def test_no_command_outside_the_owners_word_passes_and_none_inside_is_refused(seed: int) -> None:
    world = World(random.Random(seed))
    oracle = Oracle(world)
    for _ in range(PROPOSALS):
        proposal = world.proposal()
        verdict = judge(proposal, world.rules, world.picture, NOW_S)
        said = ""
        if isinstance(verdict, Passed):
            said = "A"
        elif isinstance(verdict, NeedsApproval):
            said = verdict.risk_class
        assert said == oracle.answer(proposal), (proposal, verdict)
        SEEN[said or "refused"] += 1


def test_the_proposals_were_many_and_of_every_sort() -> None:
    # Counts what the test above generated; run alone it generates a few worlds of its own.
    if not SEEN:
        for seed in range(20):
            test_no_command_outside_the_owners_word_passes_and_none_inside_is_refused.hypothesis.inner_test(seed)  # type: ignore[attr-defined]
    total = SEEN.total()
    assert SEEN["A"] > 0.02 * total
    # Which worlds are drawn depends on what else is loaded: B was a quarter of a percent once.
    assert SEEN["B"] > 0.001 * total
    assert SEEN["C"] > 0.001 * total
    assert SEEN["refused"] > 0.5 * total
