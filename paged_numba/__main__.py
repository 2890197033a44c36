"""``python -m paged_numba``."""

import sys

try:
    from .commands.main import main
except KeyboardInterrupt:
    print("paged-numba: interrupted", file=sys.stderr)
    sys.exit(130)

sys.exit(main())
