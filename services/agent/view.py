"""What a decision looks at: a view of the devices, one that remembers what was asked, one that gives the same again.

An agent decides on its twin through a `SeenView`; the audit keeps what that saw. A replay decides on a `FrozenView`
of it. So whatever a stage asks of a view is covered, statistics included: their results are kept, not the samples.

Source: design.md section 3.9.
"""

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from edgeagents.errors import InvalidInputError, NotFoundError
from edgeagents.model.agent import Recent, Sample
from edgeagents.model.values import Value
from edgeagents.protocol.gate import Key


class View(Protocol):
    """What stages may ask of an agent's picture of its devices; `Twin` is one."""

    def latest(self, key: Key) -> Sample | None:
        """Return the newest sample of a resource, None when there is none."""

    def recent(self, recent: Recent, site_s: float) -> Sample | None:
        """Return a statistic over the last samples of a resource, None when there is none to take it of."""


class SeenView:
    """A view that remembers every answer it gave."""

    def __init__(self, view: View) -> None:
        """Ask another view."""
        self._view = view
        self._latest: dict[Key, Sample | None] = {}
        self._recent: dict[tuple[Recent, float], Sample | None] = {}

    def latest(self, key: Key) -> Sample | None:
        """Return the newest sample of a resource; the same one however often it is asked for."""
        if key not in self._latest:
            self._latest[key] = self._view.latest(key)
        return self._latest[key]

    def recent(self, recent: Recent, site_s: float) -> Sample | None:
        """Return a statistic; the same one however often it is asked for."""
        key = (recent, site_s)
        if key not in self._recent:
            self._recent[key] = self._view.recent(recent, site_s)
        return self._recent[key]

    def described(self) -> dict[str, Any]:
        """Return what was seen as JSON holds it: `latest` and `recent`, in the order of the first question."""
        return {
            "latest": [[*key, *_described(sample)] for key, sample in self._latest.items()],
            "recent": [
                [recent.model_dump(mode="json"), site_s, *_described(sample)]
                for (recent, site_s), sample in self._recent.items()
            ],
        }


class FrozenView:
    """A view that answers what another one once answered."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        """Read what `SeenView.described` wrote.

        Raises:
            InvalidInputError: it is something else.
        """
        try:
            self._latest = {(item[0], item[1]): _sample(item[2:]) for item in described["latest"]}
            self._recent = {_question(item[0], item[1]): _sample(item[2:]) for item in described["recent"]}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InvalidInputError(f"the record's view cannot be read: {type(error).__name__}: {error}") from error

    def latest(self, key: Key) -> Sample | None:
        """Return the sample that was seen.

        Raises:
            NotFoundError: nobody looked at that resource.
        """
        try:
            return self._latest[key]
        except KeyError as error:
            raise NotFoundError(f"the decision did not look at {key[0]}/{key[1]}") from error

    def recent(self, recent: Recent, site_s: float) -> Sample | None:
        """Return the statistic that was seen.

        Raises:
            NotFoundError: nobody asked for that one.
        """
        try:
            return self._recent[_question(recent.model_dump(mode="json"), site_s)]
        except KeyError as error:
            raise NotFoundError(f"the decision did not look at the {recent.take} of {recent.of}") from error


def described_samples(samples: Mapping[str, Sample]) -> dict[str, Any]:
    """Return samples by name as JSON holds them."""
    return {name: list(_described(sample)) for name, sample in samples.items()}


def samples_of(described: Mapping[str, Any]) -> dict[str, Sample]:
    """Return what `described_samples` wrote.

    Raises:
        InvalidInputError: it is something else.
    """
    try:
        found = {name: _sample(item) for name, item in described.items()}
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise InvalidInputError(f"the record's samples cannot be read: {error}") from error
    return {name: sample for name, sample in found.items() if sample is not None}


def plain_values(values: Mapping[str, Value]) -> dict[str, Any]:
    """Return values by name as JSON holds them."""
    return {name: _plain(value) for name, value in values.items()}


def values_of(plain: Mapping[str, Any]) -> dict[str, Value]:
    """Return what `plain_values` wrote; raises KeyError, TypeError or ValueError when it is something else."""
    return {name: _value(item) for name, item in plain.items()}


def _question(recent: Mapping[str, Any], site_s: float) -> tuple[str, float]:
    return json.dumps(recent, sort_keys=True), site_s


def _described(sample: Sample | None) -> Iterable[Any]:
    return () if sample is None else (_plain(sample.value), sample.origin_ns, sample.site_s)


def _sample(items: list[Any]) -> Sample | None:
    if not items:
        return None
    value, origin_ns, site_s = items
    if not isinstance(origin_ns, int) or not isinstance(site_s, (int, float)):
        raise TypeError("a sample is [value, origin_ns, site_s]")
    return Sample(_value(value), origin_ns, site_s)


def _plain(value: Value) -> Any:
    """Return a value as JSON holds it: numbers as they are (their text reads back as the same double)."""
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {
            "$object": [[name, _plain(item)] for name, item in value.items()]
        }  # a record sorts names, a value must not
    return value


def _value(plain: Any) -> Value:
    if isinstance(plain, list):
        return [_value(item) for item in plain]
    if isinstance(plain, dict):
        if "$bytes" in plain:
            return base64.b64decode(plain["$bytes"], validate=True)
        return {str(name): _value(item) for name, item in plain["$object"]}
    found: Value = plain
    return found
