"""The table of feature kernels on lockstep, compiled for a GPU, on Numba's simulator, and on a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from paged_numba import lockstep
from paged_numba.lockstep.observe.observer import Observer, observing

sys.path.insert(0, str(Path(__file__).parent))
feature_kernels = pytest.importorskip("feature_kernels", reason="Numba is not installed")
pytest.importorskip("function_kernels", reason="Numba is not installed")
pytest.importorskip("type_features")  # which adds to the same table
FEATURES = feature_kernels.FEATURES
NEED_A_DEVICE = (
    "bits_of_an_integer",
    "device_function_with_two_results",
    "device_function_with_a_default",
    "row_view_passed_to_a_device_function",
    "sum_by_shuffles",
    "device_function_as_an_argument",
    "builtin_functions_as_arguments",
    "functions_held_in_variables",
    "functions_from_a_tuple",
    "jitted_cpu_function_as_an_argument",
    "function_as_a_default_argument",
    "function_that_a_function_returns",
    "kernel_that_closes_over_a_function",
    "kernel_that_closes_over_a_lambda",
    "starred_and_keyword_arguments",
    "inner_function_and_lambda_as_arguments",
    "two_inner_functions_of_one_name",
    "number_in_a_tuple_or_an_array",
    "array_stored_into_a_slice_by_lane",
    "view_as_another_type",
    "reductions_of_a_row",
)
everywhere = pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)


def copies(feature):
    return [arg.copy() if isinstance(arg, np.ndarray) else arg for arg in feature.args]


def run_lockstep(feature, **options):
    args = copies(feature)
    with lockstep.options(**options):
        lockstep.launch(
            feature.kernel, feature.blocks, feature.threads, *args, shared_bytes=feature.shared_bytes
        )
    return args[0]


def assert_same(feature, actual, expected):
    if feature.exact:
        np.testing.assert_array_equal(actual, expected)
    else:
        # 4 units in the last place of the narrowest type in play.
        eps = 4 * max(np.finfo(np.float32).eps, np.finfo(actual.dtype).eps)
        np.testing.assert_allclose(actual, expected, rtol=eps, atol=eps)


@everywhere
def test_feature_computes_what_it_must(feature):
    expected = np.asarray(feature.expected)
    actual = run_lockstep(feature)
    assert_same(feature, actual, expected.reshape(actual.shape) if expected.dtype.names is None else expected)


@everywhere
@pytest.mark.parametrize(
    "options", [{"max_lanes": 1}, {"order": "forward"}, {"order": "reverse", "max_lanes": 8}]
)
def test_feature_does_not_depend_on_batches_or_order(feature, options):
    if feature.name == "atomic_add_returns_the_old_value":
        options = {**options, "order": "together"}  # who gets which ticket is a race by design
    np.testing.assert_array_equal(run_lockstep(feature, **options), run_lockstep(feature))


@everywhere
@pytest.mark.parametrize("collects_errors", [False, True])
def test_feature_is_the_same_when_it_is_observed(feature, collects_errors):
    observer = Observer()
    observer.collects_errors = collects_errors
    with observing(observer):
        observed = run_lockstep(feature)
    np.testing.assert_array_equal(observed, run_lockstep(feature))


@everywhere
@pytest.mark.usefixtures("cuda_compiler")
def test_feature_is_one_that_numba_compiles(feature):
    numba_cuda = pytest.importorskip("numba.cuda")
    if feature.name in NEED_A_DEVICE:
        pytest.skip("numba-cuda asks the GPU's properties to compile device functions and methods of arrays")
    from numba.cuda import types
    from numba.cuda.typing.typeof import typeof

    signature = types.void(*(typeof(arg) for arg in feature.args))
    ptx, _ = numba_cuda.compile_ptx(feature.kernel.py_func, signature, cc=(8, 0))
    assert ".entry" in ptx


@pytest.mark.gpu
@everywhere
def test_feature_is_the_same_on_a_gpu(feature):
    args = copies(feature)
    feature.kernel[feature.blocks, feature.threads, 0, feature.shared_bytes](*args)
    if feature.name == "atomic_add_returns_the_old_value":
        args[0].sort()
        np.testing.assert_array_equal(args[0], np.sort(run_lockstep(feature)))
        return
    assert_same(feature, args[0], run_lockstep(feature))


SIMULATE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import feature_kernels, function_kernels, numpy as np
results = {}
for feature in feature_kernels.FEATURES:
    if feature.simulated:
        args = [arg.copy() if isinstance(arg, np.ndarray) else arg for arg in feature.args]
        feature.kernel[feature.blocks, feature.threads, 0, feature.shared_bytes](*args)
        out = args[0].view(np.float32) if args[0].dtype == np.complex64 else args[0]
        out = out.view(np.float64) if out.dtype == np.complex128 else out
        results[feature.name] = out.ravel().tolist()
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def simulated():
    """Return what Numba's simulator computes for each feature, from one separate process."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SIMULATE, str(Path(__file__).parent)],
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("feature", [f for f in FEATURES if f.simulated], ids=lambda feature: feature.name)
def test_feature_is_the_same_on_the_simulator(feature, simulated):
    if feature.name == "int32_plus_int32_is_int64":
        pytest.skip("the simulator adds with NumPy's types, which wrap around at 32 bits")
    ours = run_lockstep(feature)
    if np.iscomplexobj(ours):
        ours = ours.view(np.float32 if ours.dtype == np.complex64 else np.float64)
    assert_same(feature, ours, np.array(simulated[feature.name]).reshape(ours.shape).astype(ours.dtype))
