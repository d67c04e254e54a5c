"""`python -m services.coordinator`."""

import gc
import sys

# Nothing that is imported can be freed: looking for it is a tenth of a start. `run_service` switches it on again.
gc.disable()

from edgeagents.adapters.bootstrap import run_service  # noqa: E402
from services.coordinator.app import SPEC, build  # noqa: E402

if __name__ == "__main__":
    sys.exit(run_service(SPEC, build))
