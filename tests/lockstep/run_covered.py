"""Runs the kernels of `covered_kernels` on lockstep, or thread by thread in plain Python, for coverage.py."""

import os
import sys
import types

import numpy as np

THREADS, BLOCKS = 5, 2

if os.environ["WHO"] == "threads":
    thread = 0

    def jit(function=None, **options):
        """Return the function itself."""
        return function or jit

    stub = types.ModuleType("one_by_one")
    stub.cuda = types.SimpleNamespace(jit=jit, grid=lambda ndim: thread)
    sys.modules["one_by_one"] = stub

import covered_kernels  # noqa: E402 (after the stub that it imports)

for kernel in covered_kernels.KERNELS:
    x, out = np.array([3, 60, 45, 1, 9, 120, 2]), np.zeros(10, int)
    x = np.concatenate([x, x])[: 7 if kernel is covered_kernels.branches else 12]
    if os.environ["WHO"] == "threads":
        for thread in range(BLOCKS * THREADS):  # noqa: B007 (the stub of ``grid`` returns it)
            kernel(x, out)
    else:
        from paged_numba import lockstep

        lockstep.launch(kernel, BLOCKS, THREADS, x, out)
    print(out.tolist())
