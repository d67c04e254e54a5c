"""The agent's pipeline as EdgeX shows it: filters, then perceive, then decide; read from `Writable.Pipeline`.

What the owner's file watches comes first and is never widened here: the pipeline can only narrow it. Filters are
named and parametrised as in the Go SDK (`DeviceNames: "a, b"`, `FilterOut: "true"`); names are compared exactly.

Source: edgex-wire.md sections 3.4, 6.2 and 8.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from edgeagents.adapters.logs import shortened
from edgeagents.errors import InvalidInputError
from edgeagents.model.device import Event

log = logging.getLogger(__name__)

PERCEIVE: Final = "Perceive"
DECIDE: Final = "Decide"
# Function -> the parameter that holds its names.
FILTERS: Final = {
    "FilterByProfileName": "ProfileNames",
    "FilterByDeviceName": "DeviceNames",
    "FilterBySourceName": "SourceNames",
    "FilterByResourceName": "ResourceNames",
}

DEFAULT: Final[Mapping[str, Any]] = {
    "ExecutionOrder": ", ".join((*FILTERS, PERCEIVE, DECIDE)),
    "TargetType": "event",
    "Functions": {
        **{name: {"Parameters": {names: "", "FilterOut": "false"}} for name, names in FILTERS.items()},
        # The UI offers only what stands here with a parameter: what was taken out of the order could not be put back.
        PERCEIVE: {"Parameters": {"Into": "twin"}},
        DECIDE: {"Parameters": {"Stages": "rule"}},
    },
}


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter; no names: everything passes."""

    function: str
    names: frozenset[str]
    out: bool

    def apply(self, event: Event) -> Event | None:
        """Return what passes: the event, the event with fewer readings, or None."""
        if not self.names:
            return event
        if self.function == "FilterByResourceName":
            kept = tuple(item for item in event.readings if (item.resource_name in self.names) is not self.out)
            return event.model_copy(update={"readings": kept}) if kept else None
        name = {
            "FilterByProfileName": event.profile_name,
            "FilterByDeviceName": event.device_name,
            "FilterBySourceName": event.source_name,
        }[self.function]
        return event if (name in self.names) is not self.out else None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What happens to an event: filters in order; whether it is perceived, and decided on by which stages."""

    filters: tuple[Filter, ...] = ()
    perceives: bool = True
    stages: frozenset[str] = frozenset({"rule"})
    topics: tuple[str, ...] = ("#",)

    def run(self, event: Event, topic: str) -> Event | None:
        """Return what of an event is to be perceived, None when nothing is.

        Args:
            event: as it came.
            topic: its topic below the base, compared with `Trigger.SubscribeTopics`; empty: it came by HTTP.
        """
        if not self.perceives or (topic and not any(topic_fits(pattern, topic) for pattern in self.topics)):
            return None
        kept: Event | None = event
        for item in self.filters:
            kept = item.apply(kept) if kept is not None else None
        return kept


def read_pipeline(pipeline: Mapping[str, Any], subscribe_topics: str) -> Pipeline:
    """Return the pipeline that a configuration describes.

    Args:
        pipeline: `Writable.Pipeline`.
        subscribe_topics: `Trigger.SubscribeTopics`, comma separated.

    Raises:
        InvalidInputError: an unknown function, a wrong order or a wrong parameter; it is named.
    """
    order = _words(str(pipeline.get("ExecutionOrder", "")))
    functions = pipeline.get("Functions") or {}
    unknown = [name for name in order if name not in (*FILTERS, PERCEIVE, DECIDE)]
    if unknown:
        known = ", ".join((*FILTERS, PERCEIVE, DECIDE))
        raise InvalidInputError(f"Writable.Pipeline.ExecutionOrder: {shortened(unknown[0])!r} is none of {known}")
    if len(order) != len(set(order)) or not _is_in_order(order):
        raise InvalidInputError(
            "Writable.Pipeline.ExecutionOrder: filters first, then Perceive, then Decide, each once"
        )
    decide = _parameters(functions, DECIDE)
    stages = frozenset(_words(str(decide.get("Stages", "rule")))) if DECIDE in order else frozenset()
    return Pipeline(
        filters=tuple(_filter(name, _parameters(functions, name)) for name in order if name in FILTERS),
        perceives=PERCEIVE in order,
        stages=stages,
        topics=tuple(_words(subscribe_topics)) or ("#",),
    )


def topic_fits(pattern: str, topic: str) -> bool:
    """Say whether a topic matches an MQTT topic filter (`+` one level, a last `#` all that follow)."""
    wanted, levels = pattern.split("/"), topic.split("/")
    for index, word in enumerate(wanted):
        if word == "#":
            return True
        if index >= len(levels) or word not in ("+", levels[index]):
            return False
    return len(wanted) == len(levels)


def _is_in_order(order: Sequence[str]) -> bool:
    ranks = [1 if name == PERCEIVE else 2 if name == DECIDE else 0 for name in order]
    return ranks == sorted(ranks)


def _parameters(functions: object, name: str) -> Mapping[str, Any]:
    found = functions.get(name) if isinstance(functions, Mapping) else None
    parameters = found.get("Parameters") if isinstance(found, Mapping) else None
    return parameters if isinstance(parameters, Mapping) else {}


def _filter(name: str, parameters: Mapping[str, Any]) -> Filter:
    out = str(parameters.get("FilterOut", "false")).strip().lower() or "false"
    if out not in ("true", "false"):
        raise InvalidInputError(
            f"Writable.Pipeline.Functions.{name}.Parameters.FilterOut: {shortened(out)!r} is not true or false"
        )
    return Filter(name, frozenset(_words(str(parameters.get(FILTERS[name], "")))), out == "true")


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
