"""Pictures of what the threads of a kernel do."""

from .mask import Mask
from .online_softmax import OnlineSoftmax
from .roofline import Roofline
from .splits import Splits
from .threads import Threads
from .tree import Tree
from .warp_access import WarpAccess

__all__ = ["Mask", "OnlineSoftmax", "Roofline", "Splits", "Threads", "Tree", "WarpAccess"]
