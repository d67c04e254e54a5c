"""Wishes that cannot both hold: on generated homes, junctions and shop floors whose conflicts are known beforehand."""

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.adapters.files import load_site
from edgeagents.errors import InvalidInputError
from edgeagents.model.device import Device, DeviceResource, Profile, ResourceProperties
from edgeagents.model.site import Condition, Interlock, Site
from edgeagents.protocol.conflicts import Coupling, Wish, couplings_of, find_conflicts, meets

Pair = tuple[str, str]
SEEDS = range(20)


def pairs(found: object) -> set[Pair]:
    return {(item.first, item.second) for item in found.conflicts}  # type: ignore[attr-defined]


def device(name: str, profile: str, *labels: str) -> Device:
    return Device(
        name=name, profile_name=profile, service_name="s", labels=labels, protocols={}, admin_state="UNLOCKED",
        operating_state="UP",
    )  # fmt: skip


def profile(name: str, resource: str, kind: str, **tags: object) -> Profile:
    properties = ResourceProperties(value_type=kind, read_write="RW")
    return Profile(name=name, device_resources=(DeviceResource(name=resource, properties=properties, tags=tags),))


def condition(name: str, resource: str, **what: object) -> Condition:
    return Condition(device=name, resource=resource, **what)


# --- worlds that know their conflicts: each wish is made for one, and no other can meet it -------------------------


def slots(random_: random.Random, count: int) -> list[tuple[float, float]]:
    """Return times that never overlap, some of which touch."""
    edges = [0.0]
    for _ in range(count):
        edges.append(edges[-1] + random_.choice([60.0, 600.0]))
    return list(itertools.pairwise(edges))


def overlapping(random_: random.Random, begin: float, end: float) -> tuple[float, float]:
    """Return a time within another that it surely meets."""
    middle = random_.uniform(begin, end)
    return (middle, end) if random_.random() < 0.5 else (begin, middle + 1e-3)


def home(seed: int) -> tuple[list[Wish], list[Coupling], set[Pair]]:
    """Return wishes for radiators, windows and lights of rooms, what is coupled, and which pairs conflict."""
    random_, wishes, known = random.Random(seed), [], set()
    rooms = [f"room-{number}" for number in range(6)]
    profiles = {
        "Valve": profile(
            "Valve", "Setpoint", "Float64", effect="heat", against="vent", within="room", active={"above": 18}
        ),
        "Window": profile("Window", "Open", "Bool", effect="vent"),
        "Light": profile("Light", "Switch", "Bool"),
    }  # fmt: skip
    kinds = {"valve": "Valve", "window": "Window", "light": "Light"}
    devices = {
        f"{kind}-{room}": device(f"{kind}-{room}", kinds[kind], f"room:{room}") for room in rooms for kind in kinds
    }
    for room in rooms:
        for number, (begin, end) in enumerate(slots(random_, 12)):
            names, case = (f"{room}.{number}.a", f"{room}.{number}.b"), random_.randrange(6)
            late, until = overlapping(random_, begin, end)
            first = Wish(names[0], "warm", f"valve-{room}", "Setpoint", 21.0, begin, end)
            second = {
                0: Wish(names[1], "save", f"valve-{room}", "Setpoint", 17.0, late, until),  # another value
                1: Wish(names[1], "save", f"valve-{room}", "Setpoint", 21.0, late, until),  # the same one
                2: Wish(names[1], "air", f"window-{room}", "Open", True, late, until),  # heating against a window
                3: Wish(names[1], "air", f"window-{room}", "Open", False, late, until),
                4: Wish(names[1], "air", f"light-{room}", "Switch", True, late, until),  # nothing to do with it
                5: Wish(names[1], "warm", f"valve-{room}", "Setpoint", 17.0, late, until),  # its own affair
            }[case]
            wishes += [first, second]
            if case in (0, 2):
                known.add(names)
    return wishes, couplings_of(Site(), devices, profiles), known


def junction(seed: int) -> tuple[list[Wish], list[Coupling], set[Pair]]:
    """Return greens of a junction's approaches; those of crossing ones conflict by interlocks."""
    random_, wishes, known = random.Random(seed), [], set()
    crossing = {("north", "east"), ("north", "west"), ("south", "east"), ("south", "west")}
    locks = tuple(
        Interlock(
            name=f"{one}-{other}", forbid=condition(f"light-{one}", "Phase", equals="green"),
            during=condition(f"light-{other}", "Phase", equals="green"),
        )
        for one, other in crossing
    )  # fmt: skip
    for number, (begin, end) in enumerate(slots(random_, 60)):
        one, other = random_.sample(["north", "south", "east", "west"], 2)
        phases = random_.choice(["green", "green", "red"]), random_.choice(["green", "green", "amber"])
        late, until = overlapping(random_, begin, end)
        ids = (f"{number}.a", f"{number}.b")
        wishes.append(Wish(ids[0], f"agent-{one}", f"light-{one}", "Phase", phases[0], begin, end))
        wishes.append(Wish(ids[1], f"agent-{other}", f"light-{other}", "Phase", phases[1], late, until))
        if phases == ("green", "green") and {(one, other), (other, one)} & crossing:
            known.add(ids)
    return wishes, couplings_of(Site(interlocks=locks), {}, {}), known


def shop_floor(seed: int) -> tuple[list[Wish], list[Coupling], set[Pair]]:
    """Return robots that enter zones and cross the floor; two in one zone, or in one place, conflict."""
    random_, wishes, known = random.Random(seed), [], set()
    profiles = {"Robot": profile("Robot", "Enter", "Bool", exclusive="zone")}
    devices = {f"r{number}": device(f"r{number}", "Robot", f"zone:{number % 3}") for number in range(9)}
    for number, (begin, end) in enumerate(slots(random_, 60)):
        one, other = random_.sample(range(9), 2)
        late, until = overlapping(random_, begin, end)
        ids = (f"{number}.a", f"{number}.b")
        if random_.random() < 0.5:
            wishes.append(Wish(ids[0], f"a{one}", f"r{one}", "Enter", True, begin, end))
            wishes.append(Wish(ids[1], f"a{other}", f"r{other}", "Enter", random_.random() < 0.8, late, until))
            is_known = one % 3 == other % 3 and wishes[-1].value is True
        else:
            x, y = random_.uniform(0, 50), random_.uniform(0, 50)
            off = random_.choice([0.0, 0.9, 1.0, 1.1, 5.0])  # two bodies of 1 m: touching is not meeting
            boxes = ((x, x + 1.0), (y, y + 1.0)), ((x + off, x + off + 1.0), (y, y + 1.0))
            wishes.append(Wish(ids[0], f"a{one}", "", "", None, begin, end, boxes[0], "floor"))
            wishes.append(Wish(ids[1], f"a{other}", "", "", None, late, until, boxes[1], "floor"))
            is_known = off < 1.0
        if is_known:
            known.add(ids)
    return wishes, couplings_of(Site(), devices, profiles), known


@pytest.mark.parametrize("world", [home, junction, shop_floor])
def test_no_conflict_is_missed_and_hardly_one_is_false(world: object) -> None:
    missed = false = looked_at = 0
    for seed in SEEDS:
        wishes, couplings, known = world(seed)  # type: ignore[operator]
        random.Random(seed).shuffle(wishes)
        found = find_conflicts(wishes, couplings)
        assert found.refused == ()
        missed, false = missed + len(known - pairs(found)), false + len(pairs(found) - known)
        looked_at += len(known)
    assert looked_at > 200, "a world without conflicts shows nothing"
    assert missed == 0
    assert false <= 0.02 * looked_at


times = st.tuples(st.integers(0, 12), st.integers(1, 6)).map(lambda item: (float(item[0]), float(sum(item))))
boxes = st.none() | st.tuples(st.integers(0, 3), st.integers(0, 3)).map(
    lambda corner: tuple((float(low), low + 1.5) for low in corner)
)
drawn = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["d1", "d2"]), st.sampled_from([True, False, 1.0]), times, boxes),
    max_size=12,
)
COUPLING = Coupling("pair", (condition("d1", "r", equals="true"), condition("d2", "r", equals="true")))


@given(drawn)
def test_the_sweep_finds_what_looking_at_every_pair_finds(items: list) -> None:
    wishes = [
        Wish(f"w{number:02}", agent, name, "r", value, *span, box)
        for number, (agent, name, value, span, box) in enumerate(items)
    ]

    def conflict(one: Wish, other: Wish) -> bool:
        if one.agent == other.agent or not (one.from_s < other.until_s and other.from_s < one.until_s):
            return False
        if one.device == other.device:
            is_same = one.value is other.value or (
                one.value == other.value == 1.0 and type(one.value) is type(other.value)
            )
            if not is_same:
                return True
        elif one.value is True and other.value is True:
            return True
        if one.where is None or other.where is None:
            return False
        return all(
            low < top and bottom < high for (low, high), (bottom, top) in zip(one.where, other.where, strict=True)
        )

    expected = {(one.id, other.id) for one, other in itertools.combinations(wishes, 2) if conflict(one, other)}
    assert pairs(find_conflicts(wishes, [COUPLING])) == expected


def test_an_open_window_is_a_wish_of_nobody() -> None:
    site = load_site(Path("edgex-profiles/home/site.yaml"))
    couplings = couplings_of(site, {}, {})
    heat = Wish("heat", "comfort", "radiator-living", "Setpoint", 21.0, 0.0, 600.0)
    is_open = Wish("open", "", "sensor-living", "WindowOpen", True, 0.0, 600.0)
    (conflict,) = find_conflicts([heat, is_open], couplings).conflicts
    assert conflict.kind == "coupling"
    assert conflict.reason == (
        "interlock 'living-room-window': radiator-living/Setpoint = 21.0 (comfort) while "
        "sensor-living/WindowOpen = true (as it is)"
    )
    low = Wish("heat", "comfort", "radiator-living", "Setpoint", 17.0, 0.0, 600.0)
    assert find_conflicts([low, is_open], couplings).conflicts == ()


def test_what_hangs_together_is_one_conflict_to_settle() -> None:
    wishes = [Wish(name, name, "d", "r", value, 0.0, 9.0) for name, value in (("a", 1.0), ("b", 2.0), ("c", 3.0))]
    wishes += [Wish(name, name, "e", "r", value, 0.0, 9.0) for name, value in (("x", 1.0), ("y", 2.0), ("z", 2.0))]
    assert find_conflicts(wishes).groups() == [("a", "b", "c"), ("x", "y", "z")]


def test_values_within_the_tolerance_are_one() -> None:
    wishes = [Wish("a", "a", "d", "r", 21.0, 0.0, 9.0, tolerance=0.1), Wish("b", "b", "d", "r", 21.05, 0.0, 9.0)]
    assert find_conflicts(wishes).conflicts == ()


def test_a_place_stays_empty_between_two_bodies_for_as_long_as_is_asked() -> None:
    box = ((0.0, 1.0),)
    wishes = [Wish("a", "a", "", "", None, 0.0, 5.0, box), Wish("b", "b", "", "", None, 6.0, 9.0, box)]
    assert find_conflicts(wishes, clearance_s=1.0).conflicts == ()
    assert pairs(find_conflicts(wishes, clearance_s=1.5)) == {("a", "b")}


@pytest.mark.parametrize(
    ("wish", "reason"),
    [
        (Wish("w", "a", "d", "r", 1.0, 5.0, 5.0), "it ends at 5 s, before it begins at 5 s"),
        (Wish("w", "a", "d", "r", 1.0, 0.0, float("nan")), "its times and places must be numbers"),
        (Wish("w", "a", "d", "r", 1.0, 0.0, float("inf")), "its times and places must be numbers"),
        (Wish("w", "a", "d", "r", float("nan"), 0.0, 1.0), "its value is no number"),
        (Wish("w", "a", "d", "r", 1.0, 0.0, 1.0, ((2.0, 1.0),)), "its place ends before it begins"),
        (Wish("w", "a", "", "", None, 0.0, 1.0), "it names neither a device resource nor a place"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_with_its_reason(wish: Wish, reason: str) -> None:
    assert find_conflicts([wish]).refused == (("w", reason),)


def test_a_second_wish_of_one_name_is_refused() -> None:
    wish = Wish("w", "a", "d", "r", 1.0, 0.0, 1.0)
    assert find_conflicts([wish, wish]).refused == (("w", "a second wish 'w'"),)


@pytest.mark.parametrize(
    ("tags", "problem"),
    [({"exclusive": 5}, "write a word or a list of words"), ({"exclusive": "zone", "active": "on"}, "tag 'active'")],
)
def test_a_tag_that_cannot_be_understood_names_its_resource(tags: dict, problem: str) -> None:
    profiles = {"P": profile("P", "Enter", "Bool", **tags)}
    devices = {"d": device("d", "P", "zone:1"), "e": device("e", "P", "zone:1")}
    with pytest.raises(InvalidInputError, match=problem) as caught:
        couplings_of(Site(), devices, profiles)
    assert "'Enter'" in str(caught.value)


@pytest.mark.parametrize(
    ("what", "value", "expected"),
    [
        ({"equals": "true"}, True, True),
        ({"equals": "2.10e+01"}, 21.0, True),
        ({"equals": "green"}, "green", True),
        ({"equals": "1"}, True, False),
        ({"above": 18}, 18.0, False),
        ({"above": 0}, True, False),
        ({"below": 3}, b"x", False),
        ({"below": 3}, None, False),
    ],
)
def test_a_condition_is_met_by_what_it_describes(what: dict, value: object, expected: bool) -> None:
    assert meets(condition("d", "r", **what), value) is expected  # type: ignore[arg-type]
