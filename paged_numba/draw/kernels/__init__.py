"""Pictures of what the threads of a kernel do."""

from .online_softmax import OnlineSoftmax
from .tree import Tree
from .warp_access import WarpAccess

__all__ = ["OnlineSoftmax", "Tree", "WarpAccess"]
