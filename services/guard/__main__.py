"""`python -m services.guard`."""

import sys

from edgeagents.adapters.bootstrap import run_service
from services.guard.app import SPEC, build

if __name__ == "__main__":
    sys.exit(run_service(SPEC, build))
