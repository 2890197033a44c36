"""`PagedKVCache`: the allocator, the storage and the operations in one object, and its ``debug=True``."""

from .batch import BatchAllocation as BatchAllocation
from .kv_cache import PagedKVCache as PagedKVCache
from .step_plan import StepPlan as StepPlan
