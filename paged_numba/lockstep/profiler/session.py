"""`profile` and `profiling`: run launches under the profiler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..launch import launch
from ..observe.observer import observing
from .profiler import Profiler
from .report import Report


@contextmanager
def profiling() -> Iterator[Report]:
    """Profile the lockstep launches in a ``with`` statement, including those of operations such as `write_kv`.

    That includes launches of the threads that are started in the statement, a thread pool's too. A launch of another
    thread is counted in ``num_unseen`` of the report, unless an observer of that thread sees it; a launch of another
    process cannot be seen. Observed launches run one after the other.

    Yields
    ------
    Report
        Grows with each launch.

    See Also
    --------
    profile : Profiles a single launch.
    tracing : Records each access of one thread block.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def double(x):
    ...     x[cuda.grid(1)] *= 2
    >>> x = np.ones(512, np.float32)
    >>> with lockstep.profiling() as report:
    ...     lockstep.launch(double, 4, 128, x)
    ...     lockstep.launch(double, 2, 256, x)
    >>> report
    Report(2 launches of double, 256 sectors of global memory moved)
    >>> report.memory("global", "load").sectors_per_request
    4.0
    """
    profiler = Profiler()
    with observing(profiler):
        yield Report(profiler)


def profile(
    kernel: Any, blocks_per_grid: Any, threads_per_block: Any, *args: Any, shared_bytes: int = 0
) -> Report:
    """Run a kernel as `launch` does, and count what it does.

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

    Returns
    -------
    Report
        The counts of the launch.

    Raises
    ------
    LaunchError, KernelError, UnsupportedConstructError
        For the reasons given in `launch`.

    See Also
    --------
    profiling : Profiles all launches in a ``with`` statement.
    sanitize : Reports the errors of a kernel.

    Examples
    --------
    Each warp stores 32 floats that lie 4 elements, 16 bytes, apart: 16 sectors of 32 bytes where 4 would do.

    >>> import numpy as np
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def fill_every_fourth(x):
    ...     x[4 * cuda.grid(1)] = 1
    >>> report = lockstep.profile(fill_every_fourth, 2, 128, np.zeros(1024, np.float32))
    >>> report
    Report(1 launch of fill_every_fourth, 128 sectors of global memory moved)
    >>> stores = report.memory("global", "store")
    >>> stores.sectors_per_request, stores.efficiency
    (16.0, 25.0)
    """
    with profiling() as report:
        launch(kernel, blocks_per_grid, threads_per_block, *args, shared_bytes=shared_bytes)
    return report
