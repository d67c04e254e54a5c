"""The rig as a fixture."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.services.guard.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A guard's parts; `air` holds the lease of the valve's setpoint since the first record."""
    found = Rig(tmp_path / "guard")
    found.grant()
    yield found
    found.close()
