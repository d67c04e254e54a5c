"""Wishes that cannot both hold: on generated homes, junctions and shop floors whose conflicts are known beforehand."""

import itertools
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeagents.adapters.files import load_site
from edgeagents.errors import InvalidInputError
from edgeagents.model.device import Device, DeviceResource, Profile, ResourceProperties
from edgeagents.model.site import Condition, Interlock, Site
from edgeagents.protocol import conflicts
from edgeagents.protocol.conflicts import Wish, find_conflicts
from edgeagents.protocol.couplings import Coupling, couplings_of
from tests.unit.protocol.society_machine import CASES, PATIENT

pytestmark = PATIENT
Pair = tuple[str, str]
SEEDS = range(20)
NO_TOLERANCE = "its tolerance is a number of 0 or more, not {}"


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
boxes = st.none() | st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.0, 1.0, 1.5])).map(
    lambda drawn_: tuple((float(low), low + drawn_[2]) for low in drawn_[:2])
)
drawn = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["d1", "d2"]), st.sampled_from([True, False, 1.0]), times, boxes),
    max_size=12,
)
COUPLING = Coupling("pair", (condition("d1", "r", equals="true"), condition("d2", "r", equals="true")))


@settings(max_examples=CASES)
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
        # Half open, as times are; what has no extent is at its lower edge.
        pairs_ = list(zip(one.where, other.where, strict=True))
        return all(
            low <= bottom < max(high, low + 1e-9) or bottom <= low < max(top, bottom + 1e-9)
            for (low, high), (bottom, top) in pairs_
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


def wanted(value: object, agent: str, **others: object) -> Wish:
    return Wish(agent, agent, "d", "r", value, 0.0, 9.0, **others)  # type: ignore[arg-type]


def test_values_within_both_tolerances_are_one_and_nobody_hides_a_conflict_by_its_own() -> None:
    close = [wanted(21.0, "a", tolerance=0.1), wanted(21.05, "b", tolerance=0.2)]
    assert find_conflicts(close).conflicts == ()
    hidden = [wanted(30.0, "a", tolerance=1e9), wanted(15.0, "b")]
    assert pairs(find_conflicts(hidden)) == pairs(find_conflicts(hidden[::-1])) == {("a", "b")}


@pytest.mark.parametrize("place", [((5.0, 5.0), (5.0, 5.0)), ((0.0, 0.0), (0.0, 10.0)), ((5.0, 6.0), (0.0, 0.0))])
def test_bodies_without_extent_are_somewhere_too(place: tuple) -> None:
    wishes = [Wish(name, name, "", "", None, 0.0, 9.0, place, "floor") for name in "ab"]
    assert pairs(find_conflicts(wishes)) == {("a", "b")}
    beside = Wish("b", "b", "", "", None, 0.0, 9.0, (place[0], (20.0, 20.0)), "floor")
    assert find_conflicts([wishes[0], beside]).conflicts == ()


@pytest.mark.parametrize("clearance_s", [float("nan"), float("inf"), -10.0, "1"])
def test_a_clearance_that_is_no_time_is_refused(clearance_s: object) -> None:
    with pytest.raises(InvalidInputError, match="a clearance is a number of seconds, 0 or more"):
        find_conflicts([], clearance_s=clearance_s)  # type: ignore[arg-type]


def test_a_thousand_wishes_of_one_resource_are_one_group_and_not_half_a_million_conflicts() -> None:
    wishes = [Wish(f"w{n:04}", f"a{n}", "d", "r", float(n), 0.0, 9.0) for n in range(1000)]
    apart = [Wish(name, name, "e", "r", value, 0.0, 9.0) for name, value in (("x", 1.0), ("y", 2.0), ("z", 3.0))]
    found = find_conflicts([*wishes, *apart])
    assert len(found.conflicts) + found.unlisted == 1000 * 999 // 2 + 3
    assert len(found.conflicts) <= conflicts.MOST_LISTED + len(wishes) + len(apart)
    assert found.groups() == [tuple(wish.id for wish in wishes), ("x", "y", "z")]


def test_values_are_compared_by_the_type_of_their_resource() -> None:
    kinds = {("d", "r"): "Float32"}
    assert find_conflicts([wanted("21", "a"), wanted(21.0, "b")], kinds=kinds).conflicts == ()
    assert find_conflicts([wanted("0.1", "a"), wanted(0.1, "b")], kinds=kinds).conflicts == ()
    assert pairs(find_conflicts([wanted("21", "a"), wanted(22, "b")], kinds=kinds)) == {("a", "b")}
    text = {("d", "r"): "String"}
    assert pairs(find_conflicts([wanted("21", "a"), wanted("21.0", "b")], kinds=text)) == {("a", "b")}
    refused = find_conflicts([wanted("warm", "a"), wanted(True, "b"), wanted("NaN", "c")], kinds=kinds).refused
    assert [name for name, _ in refused] == ["a", "b", "c"]
    assert "is no Float32" in refused[0][1]


def test_an_interlock_holds_for_whatever_text_means_its_value() -> None:
    lock = Interlock(
        name="l", forbid=condition("v", "S", above=18), during=condition("w", "Open", equals="1")
    )  # fmt: skip
    couplings = couplings_of(Site(interlocks=(lock,)), {}, {})
    for is_open in (True, "true"):
        wishes = [Wish("a", "a", "v", "S", 21.0, 0.0, 9.0), Wish("b", "b", "w", "Open", is_open, 0.0, 9.0)]
        assert pairs(find_conflicts(wishes, couplings, kinds={("w", "Open"): "Bool"})) == {("a", "b")}


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
        (Wish("w", "a", "d", "r", 1.0, 0.0, 10**400), "its times and places must be numbers"),
        (Wish("w", "a", "d", "r", 1.0, "0", 9.0), "its times and places must be numbers"),  # type: ignore[arg-type]
        (
            Wish("w", "a", "d", "r", 1.0, 0.0, 1.0, tolerance=float("inf")),
            "its tolerance is a number of 0 or more, not inf",
        ),
        (
            Wish("w", "a", "d", "r", 1.0, 0.0, 1.0, tolerance=float("nan")),
            "its tolerance is a number of 0 or more, not nan",
        ),
        (Wish("w", "a", "d", "r", 1.0, 0.0, 1.0, tolerance=-1.0), NO_TOLERANCE.format(-1.0)),
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
