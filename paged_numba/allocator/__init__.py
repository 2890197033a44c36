"""Host-side bookkeeping of KV blocks: which sequences hold each block, and which blocks are free."""

from ..arrays import untraced
from .allocation import Allocation, AllocatorStats
from .allocator import BlockAllocator
from .queries import PoolQueries

untraced(PoolQueries)
untraced(BlockAllocator)

__all__ = ["Allocation", "AllocatorStats", "BlockAllocator"]
