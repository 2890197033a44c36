"""Pictures of what the threads of a kernel do."""

from .tree import Tree
from .warp_access import WarpAccess

__all__ = ["Tree", "WarpAccess"]
