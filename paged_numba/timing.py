"""Time of a kernel: the least that its bytes and operations need on a GPU, and what a GPU that is here takes."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import lockstep, targets
from .draw.text import duration
from .lockstep.profiler import GPUS

REPEATS = 20
"""Launches that `time_kernel` measures."""


@dataclass(frozen=True)
class Timing:
    """Predicted and measured time of one launch.

    Attributes
    ----------
    gpu : str
        The GPU of the prediction, a name in `paged_numba.lockstep.profiler.GPUS`.
    least_seconds : float
        The time that no launch can be faster than, from the roofline of the GPU.
    bound : {"memory", "compute"}
        What needs that time.
    device : str
        Name of the GPU that was measured; empty if there is none.
    seconds, empty_seconds : float or None
        Median time of the launch, and of one whose kernel does nothing; None if there is no GPU.

    See Also
    --------
    paged_numba.time_kernel : Predicts and measures.
    """

    gpu: str
    least_seconds: float
    bound: str
    device: str = ""
    seconds: float | None = None
    empty_seconds: float | None = None

    def __str__(self) -> str:
        cause = "memory" if self.bound == "memory" else "arithmetic"
        predicted = f"at least {duration(self.least_seconds)} on the {self.gpu}, for its {cause}"
        if self.seconds is None or self.empty_seconds is None:
            return f"{predicted}; not measured, since there is no GPU"
        return (
            f"{predicted}; measured {duration(self.seconds)} on {self.device}, "
            f"where a launch that does nothing takes {duration(self.empty_seconds)}"
        )


def time_kernel(kernel: Any, blocks_per_grid: Any, threads_per_block: Any, *args: Any) -> Timing:
    """Predict the least time of a launch and, if ``auto`` is a GPU, measure the launch there.

    The prediction comes from a profile, which runs the kernel on lockstep. The arguments stay as they are: both runs
    work on copies. The GPU's arrays are copied once, before the measured launches.

    Parameters
    ----------
    kernel : callable
        A function decorated with ``cuda.jit``.
    blocks_per_grid, threads_per_block : int or tuple of int
        The launch configuration.
    *args
        The kernel's arguments; arrays are in host memory.

    Returns
    -------
    Timing
        The prediction and, if there is a GPU, what was measured.

    Raises
    ------
    LaunchError, KernelError, UnsupportedConstructError
        As for `paged_numba.lockstep.launch`.

    See Also
    --------
    paged_numba.lockstep.profile : The counts behind the prediction.

    Examples
    --------
    >>> import numpy as np
    >>> import paged_numba as pn
    >>> from paged_numba import cuda
    >>> @cuda.jit
    ... def double(out, x):
    ...     i = cuda.grid(1)
    ...     out[i] = 2 * x[i]
    >>> x = np.ones(2**16, np.float32)
    >>> timing = pn.time_kernel(double, 256, 256, np.empty_like(x), x)
    >>> print(timing)  # doctest: +SKIP
    at least 109 ns on the H200, for its memory; not measured, since there is no GPU
    >>> timing.least_seconds == 2 * x.nbytes / 4.8e12
    True
    """
    report = lockstep.profile(kernel, blocks_per_grid, threads_per_block, *map(_copy, args))
    if targets.resolve() != "cuda":
        roof = report.roofline()
        return Timing(roof.gpu.name, roof.seconds, roof.bound)
    from numba import cuda

    device = cuda.get_current_device().name
    device = device.decode() if isinstance(device, bytes) else str(device)
    # The longest name: "RTX 4090" before a shorter one that is part of it.
    known = [name for name in sorted(GPUS, key=len, reverse=True) if name in device]
    roof = report.roofline(known[0] if known else "H200")
    on_device = [cuda.to_device(arg) if isinstance(arg, np.ndarray) else arg for arg in args]
    launch = kernel[blocks_per_grid, threads_per_block]
    empty = cuda.jit(_nothing)[blocks_per_grid, threads_per_block]
    measured = statistics.median(gpu_times(lambda: launch(*on_device), REPEATS))
    nothing = statistics.median(gpu_times(empty, REPEATS))
    return Timing(roof.gpu.name, roof.seconds, roof.bound, device, measured / 1e3, nothing / 1e3)


def _copy(arg: Any) -> Any:
    return arg.copy() if isinstance(arg, np.ndarray) else arg


def _nothing() -> None:
    """Do nothing, as a kernel."""


def gpu_times(call: Callable[[], Any], repeats: int) -> list[float]:
    """Return the milliseconds on the GPU of each of `repeats` calls that run back to back."""
    from numba import cuda

    for _ in range(3):
        call()
    events = [cuda.event() for _ in range(repeats + 1)]
    cuda.synchronize()
    # One call ahead of the first event keeps the GPU busy while the host fills the queue.
    call()
    for event in events[:-1]:
        event.record()
        call()
    events[-1].record()
    events[-1].synchronize()
    return [cuda.event_elapsed_time(a, b) for a, b in itertools.pairwise(events)]
