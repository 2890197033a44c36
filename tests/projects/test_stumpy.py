"""stumpy, an unchanged package: its GPU functions give its CPU functions' results on lockstep."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("with_stumpy.py")
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("stumpy") is None, reason="stumpy is not installed")


def run(part):
    """Run a part of the comparison by ``paged-numba run``, with stumpy's host functions as plain Python: quick here."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "paged_numba", "run", str(SCRIPT), part],
        capture_output=True,
        text=True,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": path},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.splitlines()


def test_matrix_profiles_are_those_of_the_cpu():
    kinds = ("plain", "gaps", "flat")
    expected = []
    for name in ("gpu_stump", "gpu_aamp"):
        expected += [f"{name} {join} {kind}" for kind in kinds for join in ("self-join", "AB-join")]
        expected += [f"{name} AB-join short", f"{name} 3 nearest"]
    assert run("profiles") == expected


def test_a_pool_of_processes_shares_the_work():
    assert run("devices") == ["gpu_stump on two devices"]


def test_the_other_functions_give_the_results_of_the_cpu():
    *cases, missed = run("others")
    pairs = [("mpdist", "aampdist"), ("ostinato", "aamp_ostinato"), ("stimp", "aamp_stimp")]
    assert cases == [f"gpu_{name}" for pair in pairs for name in pair]
    assert missed == "['gpu_aamp', 'gpu_stump']"  # compared above: stumpy has no other GPU function
