"""The everyday kernels of the benchmark compute what NumPy and plain Python compute."""

import numpy as np
import pytest

from paged_numba import lockstep

everyday = pytest.importorskip("paged_numba.commands.bench.everyday", reason="Numba is not installed")
THREADS = everyday.BLOCKS * everyday.THREADS


def run(name):
    return everyday.results(everyday.CASES[name], lockstep.launch)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_histogram_sums_the_weights_of_each_bin(dtype):
    name = f"histogram of 256 bins, {dtype}"
    _, values, weights = everyday.CASES[name].arguments()
    np.testing.assert_array_equal(run(name), np.bincount(values, weights, everyday.NUM_BINS).astype(dtype))


def test_each_thread_gets_a_ticket():
    np.testing.assert_array_equal(run("tickets from one counter"), np.arange(THREADS))


def test_collatz_counts_the_steps():
    found = run("Collatz")
    for n in (1, 2, 27, THREADS):
        start, steps = n, 0
        while n != 1:
            n, steps = n // 2 if n % 2 == 0 else 3 * n + 1, steps + 1
        assert found[start - 1] == steps


def test_mandelbrot_counts_the_iterations():
    image = run("Mandelbrot, 100 iterations")
    for row, column in ((0, 0), (8, 100), (7, 200), (15, 255)):
        c, z, count = complex(3 * column / 256 - 2, 2 * row / 16 - 1), 0j, 0
        while count < 100:
            z = z * z + c
            if z.real**2 + z.imag**2 >= 4:
                break
            count += 1
        assert image[row, column] == count
    assert len(np.unique(image)) > 20
