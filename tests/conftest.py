"""Fixtures that every test may use, and the settings of hypothesis."""

import os
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests.nats import bus, nats_server

__all__ = ["bus", "nats_server"]

# Shared machines are slow at times: no deadline for an example. CI searches longer than a laptop.
settings.register_profile("laptop", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("laptop"), max_examples=500, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI", "").lower() == "true" else "laptop")


# Which tests share a worker when several run at once: whole gateways want EdgeX's own ports, the contract suite has one
# EdgeX for its whole run, one model is enough for the memory of a laptop. Of all others those of a file, whose fixtures
# are built once and which may build on each other. By the first part of a path that is named here.
TOGETHER: Final = {
    "contract": "contract", "docs": "gateway", "load": "gateway", "scenarios": "gateway",
    "integration/test_telemetry.py": "gateway", "integration/test_real_model_injections.py": "model",
    "integration/test_real_model_memory.py": "model", "unit/toolchain/test_smollm2.py": "model",
}  # fmt: skip


def group_of(nodeid: str) -> str:
    """Return which tests a test shares a worker with."""
    path = nodeid.partition("::")[0].removeprefix("tests/")
    return next((group for start, group in TOGETHER.items() if f"{path}/".startswith(f"{start}/")), path)


class Together(LoadScopeScheduling):
    """Gives each worker whole groups. (xdist's own groups, `--dist loadgroup`, are none with pytest 9.2: its #1386.)"""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """Have tests that run at once be handed out in groups, whatever `--dist` says."""
    return Together(config, log)
