"""Fixtures that every test may use, and the settings of hypothesis."""

import os

from hypothesis import HealthCheck, settings

from tests.nats import bus, nats_server

__all__ = ["bus", "nats_server"]

# Shared machines are slow at times: no deadline for an example. CI searches longer than a laptop.
settings.register_profile("laptop", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("laptop"), max_examples=500, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI", "").lower() == "true" else "laptop")
