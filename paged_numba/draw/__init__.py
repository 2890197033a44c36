"""Pictures of recorded data as SVG: block tables, pools over time, warps' addresses, reductions.

A picture has a method ``svg()``, a method ``save(path)``, and shows itself in a notebook. The data behind it are its
attributes. `paged_numba.draw.text` draws the same pools as plain text for terminals.
"""

from .kernels import Tree, WarpAccess
from .pools import BlockTables, PoolHistory

__all__ = ["BlockTables", "PoolHistory", "Tree", "WarpAccess"]
