"""Where sanitizing begins and ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..launch import launch
from ..observe.observer import observing
from .findings import Findings
from .sanitizer import Sanitizer


@contextmanager
def sanitizing() -> Iterator[Findings]:
    """Look for mistakes in the lockstep launches of a ``with`` block, those of whole operations too.

    Mistakes of kernels that would raise (a stray index, a divergent barrier) are found like the others,
    and the launch goes on: a load out of bounds gives 0, a store out of bounds does nothing.

    Yields
    ------
    Findings
        Grows with each launch.
    """
    sanitizer = Sanitizer()
    with observing(sanitizer):
        yield sanitizer.findings


def sanitize(
    kernel: Any, blocks_per_grid: Any, threads_per_block: Any, *args: Any, shared_bytes: int = 0
) -> Findings:
    """Run a kernel as `paged_numba.lockstep.launch` does, and return what is wrong with it.

    Found, with array, index, threads and source lines, are

    - data races in shared and global memory: two threads of one block with no barrier between, two lanes of
      one warp with no ``syncwarp`` between, or two blocks at all, at least one a plain store. Atomic operations
      do not race with one another. Several threads that write the same value are a benign race. Shuffles,
      votes and fences order no memory here, nor do locks and flags that a kernel builds from atomics. Of the
      readers of an element two are remembered, so that a race with a third may go unseen;
    - barriers and warp operations that some threads do not reach;
    - reads of shared or local memory, or of a fresh ``cuda.device_array``, that nothing wrote. What is copied
      from one global array to another is not yet used: the copy counts as unwritten too. Fresh global memory
      is told written or unwritten by words of 4 bytes;
    - indices out of bounds, and negative ones, which Numba takes from the end without a word;
    - integers that do not fit where a kernel puts them: into a signed array of 32 bits or less, or through a
      cast such as ``int32(i)`` on the way to an index of the same function. Unsigned types wrap around by
      definition.

    For each array that a kernel may store into, the sanitizer keeps 24 bytes for each element.

    Parameters
    ----------
    kernel, blocks_per_grid, threads_per_block, *args, shared_bytes
        See `paged_numba.lockstep.launch`.

    Returns
    -------
    Findings

    Raises
    ------
    LaunchError, KernelError, UnsupportedConstructError
        See `paged_numba.lockstep.launch`; a `KernelError` for what is not listed above.
    """
    with sanitizing() as findings:
        launch(kernel, blocks_per_grid, threads_per_block, *args, shared_bytes=shared_bytes)
    return findings
