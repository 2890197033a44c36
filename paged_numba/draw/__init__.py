"""Pictures drawn from recorded data: warps' addresses, block tables, pools over time, trees by barriers, lines."""

from .block_tables import BlockTables
from .lines import Chart, Line, Lines
from .pool import PoolHistory
from .tree import Tree
from .warp import WarpAccess

__all__ = ["BlockTables", "Chart", "Line", "Lines", "PoolHistory", "Tree", "WarpAccess"]
