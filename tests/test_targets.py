"""Which target runs, and that an absent one is an error."""

import os
import subprocess
import sys

import numpy as np
import pytest

import paged_numba as pn
from paged_numba import targets
from paged_numba.lockstep.cuda import facade

no_gpu = pytest.mark.skipif(targets.cuda_unavailable_reason() is None, reason="this machine has a GPU")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.delenv(targets.ENVIRONMENT, raising=False)
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)


@no_gpu
def test_auto_is_lockstep_without_a_gpu():
    assert targets.resolve() == "lockstep"
    assert pn.cuda is facade


@no_gpu
def test_cuda_without_a_gpu_is_an_error():
    with pytest.raises(pn.errors.TargetUnavailableError, match="the cuda target cannot run: "):
        targets.resolve("cuda")
    with pytest.raises(pn.errors.TargetUnavailableError):
        pn.PagedKVCache(1, 1, 1, 1, target="cuda")


def test_simulator_must_be_chosen_before_numba_is_imported():
    with pytest.raises(pn.errors.TargetUnavailableError, match="set NUMBA_ENABLE_CUDASIM=1"):
        targets.resolve("cudasim")


def test_environment_says_what_auto_means(monkeypatch):
    monkeypatch.setenv(targets.ENVIRONMENT, "lockstep")
    assert targets.resolve() == "lockstep"
    monkeypatch.setenv(targets.ENVIRONMENT, "fast")
    with pytest.raises(
        ValueError, match=r"PAGED_NUMBA_TARGET must be one of .*, got PAGED_NUMBA_TARGET='fast'"
    ):
        targets.resolve()
    # An explicit target wins.
    assert targets.resolve("lockstep") == "lockstep"


def test_unknown_target_is_named():
    with pytest.raises(
        ValueError, match="target must be one of auto, cuda, lockstep, cudasim, got target='gpu'"
    ):
        targets.resolve("gpu")


@pytest.mark.parametrize("target", [np.zeros(0), np.zeros(2), np.array("auto"), None, ["lockstep"]])
def test_a_target_that_is_no_name_is_refused_whatever_the_environment_says(target, monkeypatch):
    for environment in ("", "lockstep"):
        monkeypatch.setenv(targets.ENVIRONMENT, environment)
        with pytest.raises(
            ValueError, match="target must be one of auto, cuda, lockstep, cudasim, got target="
        ):
            targets.resolve(target)


def test_a_target_is_a_plain_str():
    assert type(targets.resolve(np.str_("lockstep"))) is str


def set_first(x):
    x[0] = 1


@pytest.mark.parametrize("grid", [0, (0,), [0], (0, 3), (3, 0, 2), [0, 0], np.int64(0), (np.int32(0), 2)])
def test_grid_without_thread_blocks_runs_nothing(grid):
    x = np.zeros(1)
    targets.launch(set_first, grid, 32, x, target="lockstep")
    assert x[0] == 0


ODD_SIZES = [
    -1,
    False,
    True,
    0.0,
    None,
    "x",
    (0,),
    np.bool_(False),
    np.timedelta64(0),
    np.zeros(1, int),
    2**70,
]


@pytest.mark.parametrize("odd", ODD_SIZES, ids=repr)
def test_an_odd_grid_is_refused_with_and_without_thread_blocks(odd):
    x = np.zeros(1)
    for grid in (odd, (0, odd), (odd, 0), [1, odd, 0], (1, odd), (0, 1, 1, 1), (), (0, 0, 0, odd)):
        if grid == (0,):
            continue
        with pytest.raises(pn.errors.LaunchError, match="blocks_per_grid"):
            targets.launch(set_first, grid, 32, x, target="lockstep")
    assert x[0] == 0


@pytest.mark.parametrize("odd", [*ODD_SIZES, 0, 1025, (32, 33), (1, 1, 65)], ids=repr)
def test_an_odd_thread_block_is_refused_with_and_without_a_grid(odd):
    x = np.zeros(1)
    for grid in (1, 0, (0, 3)):
        with pytest.raises(pn.errors.LaunchError, match="thread"):
            targets.launch(set_first, grid, odd, x, target="lockstep")
    assert x[0] == 0


@pytest.mark.parametrize("shared_bytes", [True, False, np.bool_(True), np.timedelta64(4), -1, 0.0, None, "4"])
def test_shared_bytes_that_are_no_count_are_refused(shared_bytes):
    with pytest.raises(pn.errors.LaunchError, match="shared_bytes must be an integer in 0"):
        pn.lockstep.launch(set_first, 1, 1, np.zeros(1), shared_bytes=shared_bytes)


@pytest.mark.parametrize("dtype", [">f4", ">i8", ">c8", "g", "G"])
def test_arrays_that_no_gpu_can_read_are_refused_by_name(dtype):
    if np.dtype(dtype).isnative and dtype not in "gG":
        dtype = np.dtype(dtype).newbyteorder()
    for x in (np.zeros(1, dtype), facade.to_device(np.zeros(1, dtype)), np.zeros(1, [("a", dtype)])[:1]):
        if dtype in ("g", "G") and x.dtype.names:
            continue
        with pytest.raises(
            pn.errors.LaunchError, match=r"x must have a dtype that a GPU has, .* got x\.dtype="
        ):
            targets.launch(set_first, 1, 1, x, target="lockstep")


def test_a_number_of_more_than_64_bits_is_refused_by_name():
    with pytest.raises(pn.errors.LaunchError, match=r"x must have a dtype that a GPU has"):
        targets.launch(set_first, 1, 1, np.longdouble(1), target="lockstep")


SIMULATED = """
import numpy as np, paged_numba as pn
from paged_numba import targets
assert targets.resolve() == "cudasim", targets.resolve()
rng = np.random.default_rng(0)
cache = pn.PagedKVCache(6, 4, num_kv_heads=1, head_dim=2)
key, value = rng.standard_normal((2, 6, 1, 2)).astype(np.float32)
cache.add("a", key, value)
cache.fork("a", "b")
cache.append("b", key[:1], value[:1])
for ours, written in zip(cache.gather("a"), (key, value)):
    np.testing.assert_array_equal(ours, written)
query = 3 * rng.standard_normal((2, 2, 2)).astype(np.float32)
for algorithm in ("naive", "block"):
    out, lse = cache.attend(["a", "b"], query, return_lse=True, algorithm=algorithm)
    for row, (k, v) in enumerate([(key, value), (np.concatenate([key, key[:1]]), np.concatenate([value, value[:1]]))]):
        expected, expected_lse = pn.reference.attention(query[row:row+1], k, v, return_lse=True)
        np.testing.assert_allclose(out[row], expected[0], atol=1e-5)
        np.testing.assert_allclose(lse[row], expected_lse[0], atol=1e-5)
print("agreed")
"""


def test_kernels_of_the_package_agree_with_the_oracle_on_the_simulator():
    pytest.importorskip("numba.cuda")
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SIMULATED],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "agreed", done.stderr
