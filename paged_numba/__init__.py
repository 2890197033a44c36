"""Paged attention with real kernels: Numba CUDA source that runs on a GPU and, in lockstep, without one."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "BlockAllocator": "allocator",
    "DuplicateSequenceError": "errors",
    "OutOfBlocksError": "errors",
    "PagedKVCache": "cache",
    "SwappedSequenceError": "errors",
    "UnknownSequenceError": "errors",
    "copy_blocks": "ops",
    "gather_kv": "ops",
    "merge_states": "ops",
    "paged_attention": "ops",
    "write_kv": "ops",
}
_MODULES = {
    "arrays": "arrays",
    "draw": "draw",
    "errors": "errors",
    "lockstep": "lockstep",
    "plan": "ops.plan",
    "reference": "reference",
    "targets": "targets",
}

__all__ = [  # noqa: PLE0604 (names that __getattr__ finds)
    *_HOME,
    *_MODULES,
    "cuda",
]


def __getattr__(name: str) -> Any:
    # Lazily, so that the allocator and the lockstep machine are had without importing Numba.
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    if name in _MODULES:
        return importlib.import_module(f".{_MODULES[name]}", __name__)
    if name == "cuda":
        return importlib.import_module(".targets", __name__).cuda_module()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
