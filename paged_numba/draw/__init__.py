"""Pictures of recorded data as SVG: block tables and pools, threads, warps and reductions, splits of a context.

A picture has a method ``svg()``, a method ``save(path)``, and shows itself in a notebook. The data behind it are its
attributes. `paged_numba.draw.text` draws the same pools as plain text for terminals.
"""

from .kernels import Mask, Splits, Threads, Tree, WarpAccess
from .pools import BlockTables, PoolHistory

__all__ = ["BlockTables", "Mask", "PoolHistory", "Splits", "Threads", "Tree", "WarpAccess"]
