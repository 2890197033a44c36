"""The profiler's counts against Nsight Compute's, if there is a GPU and ``ncu``."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from paged_numba import lockstep

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS / "lockstep"))

# Kernels whose source and machine code do the same accesses: grid, block, and the shapes of float32 arguments.
LAUNCHES = {
    "vector_add": ((8,), (128,), [(1000,), (1000,), (1000,)]),
    "transpose_naive": ((2, 8), (32, 8), [(64, 64), (64, 64)]),
    "transpose_tiled": ((2, 2), (32, 8), [(64, 64), (64, 64)]),
    "transpose_padded": ((2, 2), (32, 8), [(64, 64), (64, 64)]),
    "particles": ((8,), (128,), [(1024, 3), (1024,)]),
}

METRICS = {
    "l1tex__t_requests_pipe_lsu_mem_global_op_ld.sum": ("global", "load", "requests"),
    "l1tex__t_requests_pipe_lsu_mem_global_op_st.sum": ("global", "store", "requests"),
    "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum": ("global", "load", "sectors"),
    "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum": ("global", "store", "sectors"),
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum": ("shared", "load", "bank_conflicts"),
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum": ("shared", "store", "bank_conflicts"),
}

SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from numba import cuda
import tutorial_kernels
for name, (grid, block, shapes) in json.loads(sys.argv[2]).items():
    arrays = [cuda.to_device(np.ones(shape, np.float32)) for shape in shapes]
    getattr(tutorial_kernels, name)[tuple(grid), tuple(block)](*arrays)
cuda.synchronize()
"""


@pytest.fixture(scope="module")
def measured():
    """Return the measurements of ``ncu`` by kernel and metric."""
    ncu = shutil.which("ncu")
    if ncu is None:
        pytest.skip("ncu is not installed")
    command = [ncu, "--csv", "--page", "raw", "--metrics", ",".join(METRICS)]
    command += [sys.executable, "-W", "ignore", "-c", SCRIPT, str(TESTS / "lockstep"), json.dumps(LAUNCHES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "ERR_NVGPUCTRPERM" in done.stdout + done.stderr:
        pytest.skip("this user may not read the GPU's performance counters")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    rows = list(csv.DictReader(lines))[1:]  # the first row holds units
    found = {}
    for row in rows:
        name = next((name for name in LAUNCHES if name in row["Kernel Name"]), None)
        if name is not None:
            found[name] = {metric: int(float(row[metric].replace(",", ""))) for metric in METRICS}
    return found


@pytest.mark.gpu
@pytest.mark.parametrize("name", LAUNCHES)
def test_counts_are_those_of_nsight_compute(name, measured):
    import tutorial_kernels

    grid, block, shapes = LAUNCHES[name]
    arrays = [np.ones(shape, np.float32) for shape in shapes]
    report = lockstep.profile(getattr(tutorial_kernels, name), grid, block, *arrays)
    counted = {metric: getattr(report.memory(*key[:2]), key[2]) for metric, key in METRICS.items()}
    assert counted == measured[name]
