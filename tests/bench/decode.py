"""How long one EdgeX event takes from its bytes to a typed event, in each encoding, beside a bare parser.

    make bench-decode

Each figure is the median of seven passes; passes of all subjects alternate, so that what else the machine does hits
all alike. One core. The official EdgeX Python SDK would be the fair peer, but it demands Python 3.10 and is not
published on PyPI: it is left out, and the report says so.
"""

import base64
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import cbor2

from edgeagents.adapters.envelopes import Encoding, encode_envelope, encode_headers
from edgeagents.adapters.events import decode_message
from edgeagents.model.device import Event
from edgeagents.model.envelope import Envelope, EventMessage

PASSES: Final = 7
PASS_S: Final = 0.15
GOALS: Final = {"json_us": ("json", 25.0), "cbor_us": ("cbor", 40.0)}
ENCODINGS: Final = {
    "json": Encoding(),
    "base64": Encoding(base64_payload=True),
    "optimised": Encoding(optimise=True),
    "events in cbor": Encoding(events_cbor=True),
    "cbor": Encoding(cbor=True),
}
TOPIC: Final = "edgex/events/device/device-virtual/Random-Float-Device/Random-Float-Device/Float64"
PEER: Final = "official EdgeX Python SDK: left out, it needs Python 3.10 and is not on PyPI"


@dataclass(frozen=True, slots=True)
class Message:
    """One event on the bus, in one encoding."""

    name: str
    data: bytes
    headers: Mapping[str, str]
    parse: Callable[[], Any]  # what a bare parser does with the same bytes


def payload(readings: int) -> dict[str, Any]:
    """Return the AddEventRequest that device-virtual sends, with so many readings."""
    name, origin = "Random-Float-Device", 1_795_465_567_626_438_574
    names = ["Float64", *(f"Float64-{number}" for number in range(1, readings))]
    return {
        "apiVersion": "v3",
        "requestId": "7d939de1-344d-433c-91ae-6e5518c9865d",
        "event": {
            "apiVersion": "v3", "id": "e897b104-b999-4bce-a900-0e2ceac7e619", "deviceName": name, "profileName": name,
            "sourceName": "Float64", "origin": origin,
            "readings": [
                {
                    "id": "f32e576f-e648-4e8e-9d0a-86d5b96877a2", "origin": origin, "deviceName": name,
                    "resourceName": resource, "profileName": name, "valueType": "Float64",
                    "value": "-5.499881669433625e+306",
                }
                for resource in names
            ],
        },
    }  # fmt: skip


def messages(readings: int) -> list[Message]:
    """Return one event in every encoding, over MQTT and in NATS's format `nats`."""
    envelope = Envelope(payload(readings), "ba2cd780-f964-46ae-8733-88bf22069b4a")
    found = []
    for name, encoding in ENCODINGS.items():
        data = encode_envelope(envelope, encoding)
        found.append(Message(name, data, {}, parser(data)))
    for name in ("json", "cbor"):
        data, headers = encode_headers(envelope, ENCODINGS[name])
        found.append(Message(f"nats headers, {name}", data, headers, parser(data)))
    return found


def parser(data: bytes) -> Callable[[], Any]:
    """Return what `json.loads` or `cbor2.loads` alone do with a message, base64 included."""
    if not data.startswith(b"{"):
        return lambda: cbor2.loads(data)
    body = json.loads(data)
    if not isinstance(body.get("payload"), str):
        return lambda: json.loads(data)
    loads: Callable[[bytes], Any] = cbor2.loads if body["contentType"] == "application/cbor" else json.loads
    return lambda: loads(base64.b64decode(json.loads(data)["payload"]))


def measured(subjects: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Return microseconds a call of each subject: the median of passes that alternate."""
    counts = {}
    for name, subject in subjects.items():
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < 0.05:
            subject()
            count += 1
        counts[name] = max(1, int(count * PASS_S / 0.05))
    passes: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(PASSES):
        for name, subject in subjects.items():
            count = counts[name]
            began = time.perf_counter()
            for _ in range(count):
                subject()
            passes[name].append((time.perf_counter() - began) / count * 1e6)
    return {name: statistics.median(figures) for name, figures in passes.items()}


def run(readings: int) -> dict[str, dict[str, float]]:
    """Return the figures of one size of event, by encoding."""
    subjects: dict[str, Callable[[], Any]] = {}
    ours = messages(readings)
    for message in ours:
        decoded = decode_message(TOPIC, message.data, message.headers)
        assert isinstance(decoded, EventMessage)
        assert len(decoded.event.readings) == readings
        subjects[f"{message.name}|ours"] = lambda one=message: decode_message(TOPIC, one.data, one.headers)
        subjects[f"{message.name}|parser"] = message.parse
    body = payload(readings)["event"]
    subjects["the typed model alone|ours"] = lambda: Event.model_validate(body)
    figures = measured(subjects)
    found: dict[str, dict[str, float]] = {}
    for name, value in figures.items():
        kind, _, column = name.partition("|")
        found.setdefault(kind, {})[f"{column}_us"] = round(value, 2)
    for message in ours:
        found[message.name] |= {"bytes": len(message.data), "events_s": round(1e6 / found[message.name]["ours_us"])}
    return found


def main() -> int:
    """Measure, print a table, and the same as one line of JSON."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    results = {f"readings_{readings}": run(readings) for readings in (1, 10)}
    for size, figures in results.items():
        print(f"\n{size.replace('_', ': ')}, µs an event{'':13}ours    parser alone   events/s   bytes")
        for name, row in figures.items():
            alone = f"{row['parser_us']:>12.1f}" if "parser_us" in row else f"{'':>12}"
            rate = f"{row['events_s']:>13,.0f}{row['bytes']:>8,.0f}" if "events_s" in row else ""
            print(f"  {name:<30}{row['ours_us']:>9.1f}{alone}{rate}")
    print(f"\n{PEER}")
    goals = {}
    for name, (encoding, goal) in GOALS.items():
        value = results["readings_1"][encoding]["ours_us"]
        goals[name] = {"value": value, "goal": goal, "met": value <= goal}
    versions = {"python": platform.python_version(), "machine": platform.machine(), "cores_used": 1}
    print(json.dumps({"bench": "decode", "goals": goals, "results": results, "peer": PEER, **versions}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
