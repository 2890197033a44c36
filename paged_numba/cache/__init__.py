"""`PagedKVCache`: the allocator, the storage and the operations in one object, and its ``debug=True``."""

from .kv_cache import PagedKVCache as PagedKVCache
