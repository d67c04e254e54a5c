"""One guard that dies or stops where the folder `FAULTS_FOLDER` says: `python -m tests.faults.one_guard`.

Source: issue "Nothing lost".
"""

import os
import sys
from pathlib import Path

from tests.faults.crash_points import FOLDER, install
from tests.faults.crashing_guard import BEGINNINGS

if __name__ == "__main__":
    install(BEGINNINGS, Path(os.environ[FOLDER]))
    from edgeagents.adapters.bootstrap import run_service
    from services.guard.app import SPEC, build

    sys.exit(run_service(SPEC, build))
