"""Pictures of recorded data as SVG: block tables, pools and schedules, threads, warps, reductions, splits, rooflines.

A picture has a method ``svg()``, a method ``save(path)`` and a form as plain text (``print(picture)``), and shows
itself in a notebook. The data behind it are its attributes. `paged_numba.draw.text` has tables for terminals.
"""

from .kernels import Mask, OnlineSoftmax, Roofline, Splits, Threads, Tree, WarpAccess
from .pools import BlockTables, PoolHistory, Schedule, TokenPath

__all__ = [
    "BlockTables",
    "Mask",
    "OnlineSoftmax",
    "PoolHistory",
    "Roofline",
    "Schedule",
    "Splits",
    "Threads",
    "TokenPath",
    "Tree",
    "WarpAccess",
]
