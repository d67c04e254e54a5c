"""Fixtures that every test may use, and the settings of hypothesis."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.nats import bus, nats_server

__all__ = ["bus", "nats_server"]

# Shared machines are slow at times: no deadline for an example. CI searches longer than a laptop.
settings.register_profile("laptop", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("laptop"), max_examples=500, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI", "").lower() == "true" else "laptop")


# Which tests share a worker when several run at once: whole gateways and single services want EdgeX's own ports, the
# contract suite has one EdgeX for its whole run, and a file's fixtures are built once.
_TESTS = Path(__file__).parent
_TOGETHER = {"scenarios": "gateway", "docs": "gateway", "integration": "gateway", "contract": "contract"}


@pytest.hookimpl(tryfirst=True)  # before the workers read the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say for each test which worker it belongs to."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            path = item.path.relative_to(_TESTS)
            item.add_marker(pytest.mark.xdist_group(_TOGETHER.get(path.parts[0], str(path))))
