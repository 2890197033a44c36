"""Hypothesis state machines that compare the allocator, and the whole cache, with plain models, step by step.

A model records which token each position of a sequence should hold, and knows nothing of blocks. Each function takes a
class of allocator, so that a mutant can replace it.
"""

from .allocator import allocator_machine
from .cache import cache_machine
from .prefix import prefix_machine

__all__ = ["allocator_machine", "cache_machine", "prefix_machine"]
