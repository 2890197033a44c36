"""Numba's simulator as an independent check: it shares only the kernels with lockstep."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from paged_numba.tolerances import fixed_tolerance, storing_tolerance

sys.path.insert(0, str(Path(__file__).parent))
simulated = pytest.importorskip("simulated", reason="Numba is not installed")


@pytest.fixture(scope="module")
def on_the_simulator(tmp_path_factory):
    """Return the simulator's results as bits, by name."""
    pytest.importorskip("numba.cuda")
    folder = tmp_path_factory.mktemp("simulated")
    paths = [folder / f"{part}.npz" for part in range(simulated.NUM_PARTS)]
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", simulated.__file__, str(path), str(part)],
            env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PAGED_NUMBA_TARGET": ""},
            stderr=subprocess.PIPE,
            text=True,
        )
        for part, path in enumerate(paths)
    ]
    found = {}
    for process, path in zip(running, paths, strict=True):
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        with np.load(path) as results:
            found |= results
    return found


def test_simulator_and_lockstep_agree(on_the_simulator):
    """Copies agree bit for bit, sums within rounding: lockstep sums in float32, the simulator in Python's float64."""
    names = set()
    for name, result in simulated.run("lockstep"):
        names.add(name)
        witness = on_the_simulator[name].view(result.dtype)
        if name.endswith(("keys", "values", "gathered")):
            assert witness.tobytes() == result.tobytes(), name
            continue
        expected = result.astype(np.float64)
        seen = np.isfinite(expected)
        np.testing.assert_array_equal(witness[~seen], result[~seen], err_msg=name)
        error = np.abs(witness[seen].astype(np.float64) - expected[seen])
        allowed = fixed_tolerance(expected[seen], "float32")
        allowed += 2 * storing_tolerance(expected[seen], result.dtype)
        assert (error <= allowed).all(), f"{name} is off by {error.max()}"
    assert names == set(on_the_simulator)
