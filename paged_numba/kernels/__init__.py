"""Device code: plain Numba CUDA kernels, one idea per file, ready to copy into any project.

The attention kernels form a ladder. In reading order, each rung adds one idea:

- `attention_textbook`: the block table. One thread for each sequence and query head, decode only, no options.
- `attention_naive`: the options that models use: prefill and chunks, windows, soft caps, ALiBi, sinks, LSEs.
- `attention_warp`: a warp for each query token and head; lanes exchange values by shuffles. Online softmax: one pass.
- `attention_block`: a thread block for each; threads share values in shared memory, one tile of tokens at a time.
- `attention_tile`: a thread block for all heads of a KV head and neighbouring query tokens, which share each load.
- `merge_splits`: several thread blocks divide the keys of a tile; their results are merged.
- `attention_packed`: like `attention_block`, for caches in the layout of the first vLLM kernels.

`columns` names the columns of the arrays that describe the work; `score` and `reduce` hold functions that rungs share.
`merge_states` merges attention over two disjoint sets of keys. `write_kv`, `gather_kv` and `copy_blocks` move tokens
and blocks; `write_kv_packed` and `gather_kv_packed` do the same for packed caches.

Each kernel can be imported from here by the name of its function, and launched by hand, with a GPU or without::

    from paged_numba.kernels import attention_textbook_kernel

    attention_textbook_kernel[num_seqs, num_q_heads](out, query, key_cache, value_cache, block_tables, seq_lens, scale)
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import targets
from ..errors import TargetNameError, TargetUnavailableError

_FILES = (
    "attention_textbook",
    "attention_naive",
    "attention_warp",
    "attention_block",
    "attention_tile",
    "merge_splits",
    "attention_packed",
    "merge_states",
    "write_kv",
    "gather_kv",
    "copy_blocks",
    "write_kv_packed",
    "gather_kv_packed",
)
_MADE = ("attention_tile",)
"""Files that hold a function which makes the kernel for given sizes."""

_HOME = {f"{file}_kernel_for" if file in _MADE else f"{file}_kernel": file for file in _FILES}

__all__ = ["Kernel", *_HOME]  # noqa: PLE0604 (names that __getattr__ finds)


class Kernel:
    """A kernel that launches on the target of ``auto``: ``kernel[blocks_per_grid, threads_per_block](*args)``.

    On a GPU and on Numba's simulator it behaves like Numba's own kernel, on lockstep like a kernel that the lockstep
    facade decorated. `paged_numba.targets.resolve` chooses the target at each launch.

    Attributes
    ----------
    numba_kernel : callable
        The function decorated by ``numba.cuda.jit``.
    py_func : function
        The undecorated Python function.
    """

    def __init__(self, numba_kernel: Any, made_by: tuple[Any, ...] | None = None) -> None:
        self.numba_kernel = numba_kernel
        # `fn` is the simulator's name for it.
        self.py_func = getattr(numba_kernel, "py_func", None) or numba_kernel.fn
        functools.update_wrapper(self, self.py_func)
        self.__module__ = __name__
        self._made_by = made_by

    def __reduce__(self) -> Any:
        # By name, or by the function that made it and its arguments.
        return self.py_func.__name__ if self._made_by is None else self._made_by

    def __getitem__(self, configuration: Any) -> Any:
        return self._on_target()[configuration]

    def __call__(self, *args: Any) -> Any:
        """Raise the target's error for a call without a launch configuration."""
        return self._on_target()(*args)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            on_target = self._on_target()
        except (TargetNameError, TargetUnavailableError) as error:  # `hasattr` takes no other error
            raise AttributeError(
                f"the attribute {name!r} of a kernel is its target's, but {error}"
            ) from error
        return getattr(on_target, name)

    def __repr__(self) -> str:
        return f"<kernel {self.py_func.__name__}{inspect.signature(self.py_func)}>"

    def _on_target(self) -> Any:
        target = targets.resolve()
        return targets.cuda_module(target).jit(self.py_func) if target == "lockstep" else self.numba_kernel


@functools.cache
def _launchable(numba_kernel: Any) -> Kernel:
    return Kernel(numba_kernel)


@functools.cache
def _maker(make: Any) -> Any:
    @functools.cache
    def make_launchable(*sizes: int) -> Kernel:
        return Kernel(make(*sizes), (make_launchable, sizes))

    functools.update_wrapper(make_launchable, make)
    make_launchable.__module__ = __name__
    return make_launchable


if TYPE_CHECKING:
    attention_textbook_kernel: Kernel
    attention_naive_kernel: Kernel
    attention_warp_kernel: Kernel
    attention_block_kernel: Kernel
    merge_splits_kernel: Kernel
    attention_packed_kernel: Kernel
    merge_states_kernel: Kernel
    write_kv_kernel: Kernel
    gather_kv_kernel: Kernel
    copy_blocks_kernel: Kernel
    write_kv_packed_kernel: Kernel
    gather_kv_packed_kernel: Kernel
    attention_tile_kernel_for: Callable[[int, int], Kernel]
else:

    def __getattr__(name: str) -> Any:
        # Imports are lazy, so that the package works without Numba; type checkers do not see this function.
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        failure = targets.numba_cuda_failure()
        if failure is not None:
            raise ImportError(
                f"{name} needs numba.cuda, which cannot be imported: {failure}. "
                "The command paged-numba doctor says what to install."
            )
        found = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
        return _maker(found) if _HOME[name] in _MADE else _launchable(found)


def __dir__() -> list[str]:
    return sorted(__all__)
