"""Values of every EdgeX type: set through core-command, over HTTP and over the bus, and read back as they were."""

from typing import Any

import pytest

from edgeagents.model.values import Value
from tests.contract.edgex import Edgex
from tests.contract.lab import INTEGERS, WRITABLE_TYPES, Lab
from tests.contract.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

LIMITS: dict[str, list[Value]] = {
    "Int8": [-128, 127], "Int16": [-32768, 32767], "Int32": [-(2**31), 2**31 - 1], "Int64": [-(2**63), 2**63 - 1],
    "Uint8": [0, 255], "Uint16": [0, 65535], "Uint32": [0, 2**32 - 1], "Uint64": [0, 2**64 - 1],
}  # fmt: skip
SIMPLE: dict[str, list[Value]] = {
    "Bool": [True, False],
    "String": ["plain", 'Grüße, 世界 "quoted" <&> \\ / %41', " blanks "],
    "Float32": [0.0, -2.5, 3.4028235e38, 1e-45],
    "Float64": [0.1, -1.7976931348623157e308, 5e-324, 21.5],
    **LIMITS,
}
VALUES: dict[str, list[Value]] = {
    **SIMPLE,
    **{f"{kind}Array": [values] for kind, values in SIMPLE.items()},
    "Object": [{"a": {"b": [1, 2.5, "x", None, True]}}],
    "ObjectArray": [[{"a": 1}, {"b": "x"}]],
}
CASES = [(kind, value) for kind in WRITABLE_TYPES for value in VALUES[kind]]


def as_text(kind: str, value: Any) -> Any:
    """Return a set parameter as text; an object as itself."""
    if kind.startswith("Object"):
        return value
    if kind.endswith("Array"):
        inner = kind.removesuffix("Array")
        parts = (f'"{_escaped(item)}"' if inner == "String" else as_text(inner, item) for item in value)
        return f"[{', '.join(parts)}]"
    return str(value).lower() if kind == "Bool" else str(value)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


@pytest.mark.parametrize(("kind", "value"), CASES)
async def test_value_set_over_http_is_read_back(edgex: Edgex, lab: Lab, kind: str, value: Value) -> None:
    await edgex.command.set(lab.device, kind, {kind: as_text(kind, value)})
    assert lab.driver.values[lab.device, kind] == value
    reading = (await edgex.command.get(lab.device, kind)).readings[0]
    assert (reading.value_type, reading.decoded()) == (kind, value)


@pytest.mark.parametrize(("kind", "value"), CASES)
async def test_value_set_over_the_bus_is_read_back(edgex: Edgex, lab: Lab, kind: str, value: Value) -> None:
    await edgex.command.set_by_bus(lab.device, kind, {kind: as_text(kind, value)})
    assert lab.driver.values[lab.device, kind] == value
    reading = (await edgex.command.get_by_bus(lab.device, kind)).readings[0]
    assert (reading.value_type, reading.decoded()) == (kind, value)


@pytest.mark.parametrize("way", ["http", "bus"])
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("Bool", True),
        *((kind, 7) for kind in INTEGERS),
        ("Float64", 21.5),
        ("Int16Array", [1, -2]),
        ("StringArray", ["a"]),
    ],
)
async def test_value_in_natural_json_is_read_back(edgex: Edgex, lab: Lab, kind: str, value: Value, way: str) -> None:
    send = edgex.command.set if way == "http" else edgex.command.set_by_bus
    await send(lab.device, kind, {kind: value})
    assert lab.driver.values[lab.device, kind] == value


@pytest.mark.parametrize("kind", [kind for kind in WRITABLE_TYPES if kind not in ("Object", "ObjectArray")])
async def test_value_is_kept_by_core_data_as_it_was(edgex: Edgex, lab: Lab, kind: str) -> None:
    value = VALUES[kind][-1]
    await edgex.command.set(lab.device, kind, {kind: as_text(kind, value)})
    event = await edgex.command.get(lab.device, kind, push_event=True)
    kept = await until(lambda: _kept(edgex, lab, event.id, kind), f"core-data keeps the event of {kind}")
    assert (kept.value_type, kept.decoded()) == (kind, value)


async def _kept(edgex: Edgex, lab: Lab, event_id: str, kind: str) -> Any:
    events = await edgex.data.events(device=lab.device, limit=5)
    return next((event.reading(kind) for event in events if event.id == event_id), None)


async def test_binary_value_is_read_over_http(edgex: Edgex, lab: Lab) -> None:
    reading = (await edgex.command.get(lab.device, "Picture")).readings[0]
    assert (reading.value_type, reading.media_type, reading.decoded()) == ("Binary", "image/png", b"\x89PNG")
