"""``python -m paged_numba``."""

import sys

from .commands.main import main

sys.exit(main())
