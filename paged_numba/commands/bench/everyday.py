"""Kernels that people write first, for ``paged-numba bench lockstep``: histograms, a counter, Collatz, Mandelbrot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

BLOCKS, THREADS = 16, 256
NUM_BINS = 256


@cuda.jit
def histogram_kernel(bins: Any, values: Any, weights: Any) -> None:
    """Add the weight of each value to the value's bin."""
    # bins: int32 or float32[NUM_BINS]; values: int32[num_values]; weights: the type of bins[num_values]
    i = cuda.grid(1)
    if i < values.shape[0]:
        cuda.atomic.add(bins, values[i], weights[i])


@cuda.jit
def ticket_kernel(tickets: Any, counter: Any) -> None:
    """Give each thread a number of its own."""
    # tickets: int32[num_threads]; counter: int32[1]
    tickets[cuda.grid(1)] = cuda.atomic.add(counter, 0, 1)


@cuda.jit
def collatz_kernel(steps: Any) -> None:
    """Count the steps from i + 1 to 1."""
    # steps: int32[num_threads]
    i = cuda.grid(1)
    n = i + 1
    count = 0
    while n != 1:
        if n % 2 == 0:
            n = n // 2
        else:
            n = 3 * n + 1
        count += 1
    steps[i] = count


@cuda.jit
def mandelbrot_kernel(image: Any, max_iterations: Any) -> None:
    """Count the iterations after which a point has left the circle of radius 2."""
    # image: int32[num_rows, THREADS]
    row, column = cuda.blockIdx.x, cuda.threadIdx.x
    c = complex(3 * column / image.shape[1] - 2, 2 * row / image.shape[0] - 1)
    z = 0j
    image[row, column] = max_iterations
    for iteration in range(max_iterations):
        z = z * z + c
        if z.real * z.real + z.imag * z.imag >= 4:
            image[row, column] = iteration
            break


class Case(NamedTuple):
    """A kernel with its arguments, the first of which it writes."""

    kernel: Any
    arguments: Callable[[], tuple[Any, ...]]
    in_any_order: bool = False
    """Whether the threads may exchange their results."""


def _histogram(dtype: Any) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    values = rng.integers(0, NUM_BINS, BLOCKS * THREADS).astype(np.int32)
    # Quarters, whose sums are the same in any order.
    weights = (rng.integers(1, 9, values.size) / (4 if dtype is np.float32 else 1)).astype(dtype)
    return np.zeros(NUM_BINS, dtype), values, weights


CASES = {
    f"histogram of {NUM_BINS} bins, int32": Case(histogram_kernel, lambda: _histogram(np.int32)),
    f"histogram of {NUM_BINS} bins, float32": Case(histogram_kernel, lambda: _histogram(np.float32)),
    "tickets from one counter": Case(
        ticket_kernel, lambda: (np.zeros(BLOCKS * THREADS, np.int32), np.zeros(1, np.int32)), True
    ),
    "Collatz": Case(collatz_kernel, lambda: (np.zeros(BLOCKS * THREADS, np.int32),)),
    "Mandelbrot, 100 iterations": Case(
        mandelbrot_kernel, lambda: (np.zeros((BLOCKS, THREADS), np.int32), np.int64(100))
    ),
}
"""By name; each runs with `BLOCKS` thread blocks of `THREADS` threads."""


def results(case: Case, launch: Callable[..., None]) -> Any:
    """Run a case by ``launch(kernel, blocks, threads, *arguments)`` and return what it computes."""
    arguments = case.arguments()
    launch(case.kernel, BLOCKS, THREADS, *arguments)
    return np.sort(arguments[0]) if case.in_any_order else arguments[0]
