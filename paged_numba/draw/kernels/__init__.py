"""Pictures of what the threads of a kernel do."""

from .mask import Mask
from .tree import Tree
from .warp_access import WarpAccess

__all__ = ["Mask", "Tree", "WarpAccess"]
