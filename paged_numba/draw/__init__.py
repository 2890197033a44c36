"""Pictures drawn from recorded data: a warp's addresses, block tables, a pool over time, a tree by barriers."""

from .block_tables import BlockTables
from .pool import PoolHistory
from .tree import Tree
from .warp import WarpAccess

__all__ = ["BlockTables", "PoolHistory", "Tree", "WarpAccess"]
