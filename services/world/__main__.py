"""`python -m services.world`."""

import sys

from edgeagents import quick_start  # noqa: F401  # first: it makes the rest cheaper
from services.world.app import main

sys.exit(main())
