"""Requests of every kind put to the real model: each ends once, and memory is as it was."""

from collections.abc import Iterator

import pytest

from edgeagents.inference.engine import Engine
from tests.real_model import Load, engine_of, needs_model, own_memory_bytes

pytestmark = needs_model
MIB = 1 << 20


@pytest.fixture
def engine() -> Iterator[Engine]:
    found = engine_of()
    yield found
    found.close()


def grown_bytes(engine: Engine, warm_up: int, count: int) -> int:
    """Return by how much memory is larger after `count` requests than after the first ones."""
    load = Load(engine)
    load.run(warm_up)
    before = own_memory_bytes()
    load.run(count)
    load.check()
    assert {"stop", "length", "cancelled", "budget"} <= set(load.ends), dict(load.ends)
    assert engine.prefixes.evicted > 0
    assert engine.prefixes.size_bytes <= engine.prefixes.budget_bytes
    grown = own_memory_bytes() - before
    print(f"{load.asked} requests, ends {dict(load.ends)}, refused {load.refused}: {grown / MIB:+.1f} MiB")
    return grown


@pytest.mark.timeout(300)
def test_three_hundred_requests_end_once_each_and_leave_no_memory_behind(engine: Engine) -> None:
    # Some prompts are longer than any of the first hundred: the runtime keeps room for the longest.
    assert grown_bytes(engine, 100, 200) < 24 * MIB


@pytest.mark.long
@pytest.mark.timeout(7_200)
def test_ten_thousand_requests_end_once_each_and_leave_no_memory_behind(engine: Engine) -> None:
    assert grown_bytes(engine, 1_000, 9_000) < 8 * MIB
