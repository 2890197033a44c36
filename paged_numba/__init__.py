"""Paged attention in real Numba CUDA kernels, which run on a GPU or, without a GPU, on the lockstep machine.

PYTEST_DONT_REWRITE: pytest need not rewrite the assertions of a package that brings a plugin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Each public name is listed twice: type checkers read the imports; Python reads the tables, which import a module only
# when one of its names is used. tests/test_types.py compares the two.
if TYPE_CHECKING:
    from . import arrays as arrays
    from . import draw as draw
    from . import errors as errors
    from . import exercises as exercises
    from . import kernels as kernels
    from . import lockstep as lockstep
    from . import models as models
    from . import reference as reference
    from . import serving as serving
    from . import targets as targets
    from .allocator import BlockAllocator as BlockAllocator
    from .cache import PagedKVCache as PagedKVCache
    from .errors import DuplicateSequenceError as DuplicateSequenceError
    from .errors import OutOfBlocksError as OutOfBlocksError
    from .errors import SwappedSequenceError as SwappedSequenceError
    from .errors import UnknownSequenceError as UnknownSequenceError

    # With a GPU `cuda` is numba.cuda, which has no types; the facade declares the names that every target supports.
    from .lockstep.cuda import facade as cuda
    from .ops import copy_blocks as copy_blocks
    from .ops import gather_kv as gather_kv
    from .ops import merge_states as merge_states
    from .ops import paged_attention as paged_attention
    from .ops import plan as plan
    from .ops import quantize_fp8 as quantize_fp8
    from .ops import write_kv as write_kv
    from .timing import time_kernel as time_kernel
else:
    import importlib

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
        "quantize_fp8": "ops",
        "time_kernel": "timing",
        "write_kv": "ops",
    }
    _MODULES = {
        "arrays": "arrays",
        "draw": "draw",
        "errors": "errors",
        "exercises": "exercises",
        "kernels": "kernels",
        "lockstep": "lockstep",
        "models": "models",
        "plan": "ops.plan",
        "reference": "reference",
        "serving": "serving",
        "targets": "targets",
    }

    __all__ = [*_HOME, *_MODULES, "cuda"]  # noqa: PLE0604 (the names are strings)

    def __getattr__(name):
        if name in _HOME:
            return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
        if name in _MODULES:
            return importlib.import_module(f".{_MODULES[name]}", __name__)
        if name == "cuda":
            return importlib.import_module(".targets", __name__).cuda_module()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__():
        return sorted(__all__)
