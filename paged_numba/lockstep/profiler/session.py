"""Where profiling begins and ends."""

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
    """Profile the lockstep launches in a ``with`` block, those of whole operations too.

    Yields
    ------
    Report
        Grows with each launch.

    Examples
    --------
    >>> import numpy as np
    >>> import paged_numba as pn
    >>> from paged_numba.lockstep import facade as cuda
    >>> @cuda.jit
    ... def double(x):
    ...     x[cuda.grid(1)] *= 2
    >>> with pn.lockstep.profiling() as report:  # doctest: +SKIP
    ...     double[4, 128](np.ones(512, np.float32))
    >>> report.memory("global", "load").sectors_per_request  # doctest: +SKIP
    4.0
    """
    profiler = Profiler()
    with observing(profiler):
        yield Report(profiler)


def profile(
    kernel: Any, blocks_per_grid: Any, threads_per_block: Any, *args: Any, shared_bytes: int = 0
) -> Report:
    """Run a kernel as `paged_numba.lockstep.launch` does, and count what it does.

    Parameters
    ----------
    kernel, blocks_per_grid, threads_per_block, *args, shared_bytes
        See `paged_numba.lockstep.launch`.

    Returns
    -------
    Report

    Raises
    ------
    LaunchError, KernelError, UnsupportedConstructError
        See `paged_numba.lockstep.launch`.
    """
    with profiling() as report:
        launch(kernel, blocks_per_grid, threads_per_block, *args, shared_bytes=shared_bytes)
    return report
