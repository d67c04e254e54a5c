"""Devices as people speak of them: rooms, kinds of things, and what each resource is good for.

From core-metadata (names, labels, descriptions, units) and the owner's `words.yaml`, whose word counts. Pure.

Source: docs/ask.md.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from edgeagents.model.device import Device, DeviceResource, Profile
from edgeagents.model.words import LANGUAGES, Kind, Language, Role, ThingWords, Words

MOST_THINGS: Final = 2000
_ROOM: Final = "room"  # devices with this label are in the room that another label of theirs names
_KINDS: Final[tuple[tuple[Kind, frozenset[str], frozenset[Role]], ...]] = (
    ("light", frozenset(("light", "lamp", "luminaire")), frozenset(("switch", "brightness"))),
    ("blind", frozenset(("blind", "shade", "curtain", "shutter", "cover")), frozenset(("open", "closed"))),
    ("heating", frozenset(("radiator", "thermostat", "heating", "heater", "valve")), frozenset(("target",))),
    ("ventilation", frozenset(("ventilation", "ventilator", "fan")), frozenset(("level", "switch"))),
)
_NAMES: Final[Mapping[Kind, Mapping[Language, tuple[str, ...]]]] = {
    "light": {"en": ("light", "lamp"), "zh": ("灯",)},
    "blind": {"en": ("blind", "blinds"), "zh": ("窗帘", "百叶窗")},
    "heating": {"en": ("heating", "radiator"), "zh": ("暖气",)},
    "ventilation": {"en": ("ventilation", "fan"), "zh": ("通风", "新风")},
}
# Read-only resources: unit, or a word of the name, and the role.
_SENSED: Final[tuple[tuple[Role, frozenset[str], frozenset[str]], ...]] = (
    ("outdoor", frozenset(("outdoor", "outside")), frozenset()),
    ("co2", frozenset(("co2",)), frozenset(("ppm",))),
    ("humidity", frozenset(("humidity",)), frozenset(("%rh",))),
    ("temperature", frozenset(("temperature",)), frozenset()),
    ("presence", frozenset(("presence", "occupancy", "motion")), frozenset()),
    ("window", frozenset(("window", "windowopen")), frozenset()),
    ("power", frozenset(("power",)), frozenset()),
    ("price", frozenset(("price",)), frozenset()),
)


@dataclass(frozen=True, slots=True)
class Thing:
    """One device: what it is, in which room (a label; empty: of the whole site), and which resource is good for what.

    The first name is used in answers. `units` and `limits` are those of the profile, by resource.
    """

    device: str
    kind: Kind
    room: str
    names: Mapping[Language, tuple[str, ...]]
    roles: Mapping[Role, str]
    units: Mapping[str, str]
    limits: Mapping[str, tuple[float | None, float | None]]


@dataclass(frozen=True, slots=True)
class House:
    """All there is to speak of; `rooms` gives the names of each label, the first one is used in answers."""

    rooms: Mapping[str, Mapping[Language, tuple[str, ...]]]
    things: tuple[Thing, ...]
    away_c: float = 17.0
    step_c: float = 1.0

    def room_name(self, label: str, language: Language) -> str:
        """Return what a room is called in an answer."""
        names = self.rooms.get(label, {}).get(language, ())
        return names[0] if names else label

    def having(self, role: Role, room: str = "", kind: Kind | None = None) -> list[Thing]:
        """Return the things with a role, in one room or anywhere, in the order of their names."""
        return [
            thing for thing in self.things
            if role in thing.roles and (not room or thing.room == room) and (kind is None or thing.kind == kind)
        ]  # fmt: skip


def house_of(devices: Iterable[Device], profiles: Mapping[str, Profile], words: Words) -> House:
    """Return what people can speak of: the first `MOST_THINGS` devices by name whose profile is known."""
    known = sorted((item for item in devices if item.profile_name in profiles), key=lambda item: item.name)
    known = known[:MOST_THINGS]
    rooms: dict[str, Mapping[Language, tuple[str, ...]]] = {
        room.label: {language: room.names(language) or (room.label,) for language in LANGUAGES} for room in words.rooms
    }
    if not words.rooms:
        rooms = {label: _room_names(label) for label in sorted({_room_label(item) for item in known} - {""})}
    things = tuple(_thing(item, profiles[item.profile_name], words, rooms) for item in known)
    return House(rooms, things, words.away, words.step)


def _room_label(device: Device) -> str:
    """Return which label of a device names its room, where the owner's words do not say."""
    if _ROOM not in device.labels:
        return ""
    parts = set(_parts(device.name))
    return next((label for label in device.labels if label != _ROOM and label.lower() in parts), "")


def _room_names(label: str) -> Mapping[Language, tuple[str, ...]]:
    spoken = " ".join(_parts(label))
    names = (spoken,) if spoken.endswith(_ROOM) else (f"{spoken} room", spoken)
    return dict.fromkeys(LANGUAGES, names)


def _thing(
    device: Device, profile: Profile, words: Words, rooms: Mapping[str, Mapping[Language, tuple[str, ...]]]
) -> Thing:
    said = [item for item in words.things if item.fits(device)]
    room = next((label for label in device.labels if label in rooms), "")
    roles = _roles(profile)
    for item in reversed(said):  # the first entry that fits counts
        roles |= {role: name for role, name in item.resources.items() if profile.resource(name) is not None}
    if not room:
        roles.pop("target", None)  # the water of a heat pump is no room
    kind = next((item.kind for item in said if item.kind is not None), None) or _kind(device, profile, roles)
    if kind != "ventilation" and not any("level" in item.resources for item in said):
        roles.pop("level", None)  # the speed of a pump or a conveyor
    properties = {resource.name: resource.properties for resource in profile.device_resources}
    return Thing(
        device=device.name, kind=kind, room=room, roles=roles,
        names={language: _names(device, said, kind, language) for language in LANGUAGES},
        units={name: item.units for name, item in properties.items()},
        limits={name: (item.minimum, item.maximum) for name, item in properties.items()},
    )  # fmt: skip


def _names(device: Device, said: list[ThingWords], kind: Kind, language: Language) -> tuple[str, ...]:
    """Return what a device is called: what the owner says, else the words of its kind; at last its own name."""
    own = " ".join(_parts(device.name))
    common = next((item.names(language) for item in said if item.names(language)), ())
    return tuple(dict.fromkeys((*(common or _NAMES.get(kind, {}).get(language, ())), own)))


def _kind(device: Device, profile: Profile, roles: Mapping[Role, str]) -> Kind:
    text = {*_parts(profile.name), *_parts(device.name), *(part for label in profile.labels for part in _parts(label))}
    for kind, words, needed in _KINDS:
        if text & words and needed & roles.keys():
            return kind
    return "switch" if "switch" in roles else "sensor"


def _roles(profile: Profile) -> dict[Role, str]:
    found: dict[Role, str] = {}
    for resource in profile.device_resources:
        role = _role(resource)
        if role is not None and not resource.is_hidden:
            found.setdefault(role, resource.name)
    return found


def _role(resource: DeviceResource) -> Role | None:
    properties, parts = resource.properties, set(_parts(resource.name))
    about = f"{resource.name} {resource.description}".lower()
    if not properties.is_writable:
        return next(
            (role for role, words, units in _SENSED if parts & words or properties.units.lower() in units), None
        )
    if properties.value_type == "Bool":
        return "switch"
    if properties.units == "%" and ("bright" in about or "dim" in about):
        return "brightness"
    if properties.units == "%" and "position" in about:
        return "closed" if "100 is closed" in about or "100 closed" in about else "open"
    if properties.units in ("C", "°C") and re.search(r"setpoint|target|to reach", about):
        return "target"
    if properties.value_type.startswith(("Uint", "Int")) and parts & {"level", "speed"}:
        return "level"
    return None


def _parts(name: str) -> list[str]:
    """Return the words of a name, small: `WindowOpen`, `sensor-living_2`."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return [part.lower() for part in re.split(r"[^\w]+|_+", spaced) if part]
