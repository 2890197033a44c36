"""Hypothesis state machines that compare the allocator, and the whole cache, with plain models, step by step.

A model records which token each position of a sequence should hold, and knows nothing of blocks. A machine is made for
a class of allocators, so that a mutant can take the place of the real one.
"""

from .allocator import allocator_machine
from .cache import cache_machine
from .prefix import prefix_machine

__all__ = ["allocator_machine", "cache_machine", "prefix_machine"]
