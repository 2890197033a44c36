"""Hypothesis state machines: the allocator, and the whole cache, in step with plain models.

The models keep what each sequence should hold, token by token, and know nothing of blocks. Each machine is made
for an allocator class, so that deliberately wrong ones can be put in the place of the real one.
"""

from .allocator import allocator_machine
from .cache import cache_machine
from .prefix import prefix_machine

__all__ = ["allocator_machine", "cache_machine", "prefix_machine"]
