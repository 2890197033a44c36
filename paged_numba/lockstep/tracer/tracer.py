"""`trace`: runs a kernel and records the accesses of one thread block."""

from __future__ import annotations

from typing import Any

from ..launch import launch
from ..observe.trace import Access, tracing


def trace(
    kernel: Any,
    blocks_per_grid: Any,
    threads_per_block: Any,
    *args: Any,
    shared_bytes: int = 0,
    thread_block: tuple[int, int, int] = (0, 0, 0),
) -> list[Access]:
    """Run a kernel as `launch` does, and record the accesses of one thread block, as input for pictures.

    Parameters
    ----------
    kernel : function
        The kernel, decorated or not.
    blocks_per_grid, threads_per_block : int or tuple of int
        The launch configuration, as in `paged_numba.lockstep.launch`.
    *args : object
        The kernel's arguments.
    shared_bytes : int
        Bytes of dynamic shared memory.
    thread_block : tuple of 3 int
        blockIdx of the thread block.

    Returns
    -------
    list of Access
        In the order in which they happened.

    Raises
    ------
    LaunchError, KernelError, UnsupportedConstructError
        For the reasons given in `launch`.
    TypeError, ValueError
        The thread block is not three numbers of 0 or more, or does not lie in the grid.

    See Also
    --------
    tracing : Traces all launches in a ``with`` statement.
    profile : Counts what a kernel does.
    sanitize : Reports the errors of a kernel.
    paged_numba.draw.Tree : Draws the accesses to an array in shared memory.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def every_other(source, out):
    ...     out[cuda.threadIdx.x] = source[2 * cuda.threadIdx.x]
    >>> accesses = lockstep.trace(every_other, 1, 4, np.arange(8, dtype=np.float32), np.zeros(4, np.float32))
    >>> [(access.kind, access.array, access.elements) for access in accesses]
    [('load', 'source', (0, 2, 4, 6)), ('store', 'out', (0, 1, 2, 3))]
    """
    with tracing(thread_block) as accesses:
        launch(kernel, blocks_per_grid, threads_per_block, *args, shared_bytes=shared_bytes)
    return accesses
