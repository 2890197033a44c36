"""Predicted and measured time of a kernel. The measurement runs on a GPU; without one, on a stand-in that counts."""

import sys
import types

import numpy as np
import pytest

import paged_numba as pn
from paged_numba import targets, timing
from paged_numba.lockstep.cuda import facade as cuda


@cuda.jit
def double(out, x):
    i = cuda.grid(1)
    if i < out.size:
        out[i] = 2 * x[i]


def arrays():
    x = np.arange(1024, dtype=np.float32)
    return np.zeros_like(x), x


def test_prediction_is_the_roofline_and_leaves_the_arguments_alone(monkeypatch):
    monkeypatch.setenv(targets.ENVIRONMENT, "lockstep")
    out, x = arrays()
    found = pn.time_kernel(double, 8, 128, out, x)
    # 4,096 bytes read and as many written.
    assert found == timing.Timing("H200", 8192 / 4.8e12, "memory")
    assert str(found) == "at least 1.71 ns on the H200, for its memory; not measured, since there is no GPU"
    assert not out.any()


@pytest.mark.parametrize(
    ("device", "gpu"),
    [(b"NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA GeForce RTX 4090", "RTX 4090"), ("NVIDIA B300", "H200")],
)
def test_measurement_is_the_median_of_launches_on_copies(monkeypatch, device, gpu):
    """With a clock that each launch advances: `double` by 5, 6, 7, ... ms, any other kernel by 2 ms."""
    clock, launches, copied = [0.0], [], []

    class Event:
        def record(self):
            self.at = clock[0]

        def synchronize(self):
            pass

    class Kernel:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, configuration):
            assert configuration == (8, 128)
            return self.launch

        def launch(self, *args):
            launches.append(self.name)
            clock[0] += 2 if self.name != "double" else 5 + launches.count("double")
            assert all(array is copied[place] for place, array in enumerate(args))

    def to_device(array):
        copied.append(array.copy())
        return copied[-1]

    fake = types.SimpleNamespace(
        event=Event,
        event_elapsed_time=lambda one, other: other.at - one.at,
        synchronize=lambda: None,
        get_current_device=lambda: types.SimpleNamespace(name=device),
        to_device=to_device,
        jit=lambda function: Kernel(function.__name__),
    )
    numba = types.ModuleType("numba")
    numba.cuda = fake
    monkeypatch.setitem(sys.modules, "numba", numba)
    monkeypatch.setattr(targets, "resolve", lambda target="auto": "cuda")
    kernel = Kernel("double")
    kernel.py_func = double.py_func
    out, x = arrays()
    found = timing.time_kernel(kernel, 8, 128, out, x)
    # 4 launches to warm up, then 20 that take 10, 11, ... 29 ms.
    assert launches.count("double") == 24
    assert (found.gpu, found.seconds, found.empty_seconds) == (
        gpu,
        pytest.approx(19.5e-3),
        pytest.approx(2e-3),
    )
    name = device.decode() if isinstance(device, bytes) else device
    assert f"measured 19.5 ms on {name}, where a launch that does nothing takes 2.00 ms" in str(found)
    assert not out.any()


@pytest.mark.gpu
def test_a_gpu_takes_longer_than_the_least_time_and_than_an_empty_launch():
    from numba import cuda as numba_cuda

    x = np.ones(2**26, np.float32)
    found = pn.time_kernel(numba_cuda.jit(double.py_func), 2**18, 256, np.empty_like(x), x)
    assert found.device
    assert found.seconds > max(found.least_seconds, found.empty_seconds)
