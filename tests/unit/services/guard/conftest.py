"""The rig as a fixture."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeagents.protocol import looks
from tests.unit.services.guard.rig import Rig


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A guard's parts; `air` holds the lease of the valve's setpoint since the first record. Nobody waits for looks."""
    monkeypatch.setattr(looks, "BETWEEN_LOOKS_S", 0.0)
    monkeypatch.setattr(looks, "BETWEEN_ROUNDS_S", 0.0)
    found = Rig(tmp_path / "guard")
    found.grant()
    yield found
    found.close()
