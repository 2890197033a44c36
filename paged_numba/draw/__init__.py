"""Pictures of recorded data as SVG: block tables, pools over time, warps' addresses, reductions, line charts.

A picture has a method ``svg()``, a method ``save(path)`` and a form as plain text (``print(picture)``), and shows
itself in a notebook. The data behind it are its attributes. `paged_numba.draw.text` has tables for terminals.
"""

from .kernels import Tree, WarpAccess
from .lines import Chart, Line, Lines
from .pools import BlockTables, PoolHistory, Schedule, TokenPath

__all__ = [
    "BlockTables",
    "Chart",
    "Line",
    "Lines",
    "PoolHistory",
    "Schedule",
    "TokenPath",
    "Tree",
    "WarpAccess",
]
