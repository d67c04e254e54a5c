"""`python -m services.coordinator`."""

import sys

from edgeagents import quick_start  # noqa: F401  # first: it makes the rest cheaper
from edgeagents.adapters.bootstrap import run_service
from services.coordinator.app import SPEC, build

if __name__ == "__main__":
    sys.exit(run_service(SPEC, build))
