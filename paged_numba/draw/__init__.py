"""Pictures of recorded data as SVG: block tables, pools over time, warps' addresses, reductions, line charts.

A picture has a method ``svg()``, a method ``save(path)``, and shows itself in a notebook. The data behind it are its
attributes. `paged_numba.draw.text` draws the same pools as plain text for terminals.
"""

from .kernels import Mask, Tree, WarpAccess
from .lines import Chart, Line, Lines
from .pools import BlockTables, PoolHistory

__all__ = ["BlockTables", "Chart", "Line", "Lines", "Mask", "PoolHistory", "Tree", "WarpAccess"]
