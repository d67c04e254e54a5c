"""`python -m services.world`."""

import sys

from services.world.app import main

sys.exit(main())
