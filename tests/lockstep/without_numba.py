"""Script for a machine without Numba; prints the result of its kernel."""

import sys

sys.modules["numba"] = None

import numpy as np  # noqa: E402 (after Numba is hidden)

from paged_numba import cuda  # noqa: E402


@cuda.jit
def double(x):
    i = cuda.grid(1)
    if i < x.size:
        x[i] *= 2


if __name__ == "__main__":
    values = np.arange(3.0)
    double[1, 32](values)
    print(values)
