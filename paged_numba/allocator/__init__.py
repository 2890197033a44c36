"""Host-side bookkeeping of KV blocks: which sequence holds which block, which blocks are shared, which are free."""

from .allocation import Allocation, AllocatorStats
from .allocator import BlockAllocator

__all__ = ["Allocation", "AllocatorStats", "BlockAllocator"]
