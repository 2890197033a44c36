"""Host code written for numba.cuda runs on the facade: the same names, the same meaning."""

import numpy as np
import pytest

import paged_numba as pn
from paged_numba import lockstep
from paged_numba.errors import LaunchError
from paged_numba.lockstep.cuda import facade as cuda


@cuda.jit
def double(out, x):
    i = cuda.grid(1)
    if i < x.size:
        out[i] = 2 * x[i]


def test_host_code_in_the_usual_order():
    x = np.arange(100, dtype=np.float32)
    stream = cuda.stream()
    d_x = cuda.to_device(x, stream=stream)
    d_out = cuda.device_array_like(d_x)
    double[4, 32, stream](d_out, d_x)
    stream.synchronize()
    cuda.synchronize()
    np.testing.assert_array_equal(d_out.copy_to_host(), 2 * x)
    host = np.empty_like(x)
    d_out.copy_to_host(host)
    np.testing.assert_array_equal(host, 2 * x)


def test_to_device_copies_and_host_arrays_are_written_in_place():
    x = np.zeros(4)
    d_x = cuda.to_device(x)
    d_x[1] = 5
    assert not x.any()
    assert d_x.copy_to_host().tolist() == [0, 5, 0, 0]
    double[1, 32](x, np.ones(4))
    assert x.tolist() == [2, 2, 2, 2]


def test_fresh_device_memory_is_dirty():
    assert np.isnan(cuda.device_array(3).copy_to_host()).all()
    assert (cuda.device_array(3, np.int32).copy_to_host() != 0).all()


def test_device_arrays_have_shapes_slices_and_views():
    array = cuda.to_device(np.arange(12.0).reshape(3, 4))
    assert (array.shape, array.ndim, array.size, array.nbytes, len(array)) == ((3, 4), 2, 12, 96, 3)
    assert array.dtype == np.float64
    np.testing.assert_array_equal(array[1].copy_to_host(), [4, 5, 6, 7])
    array[:, 0] = 9
    np.testing.assert_array_equal(array.copy_to_host()[:, 0], [9, 9, 9])
    assert array.reshape(4, 3).shape == (4, 3)
    assert array.T.shape == (4, 3)
    assert cuda.is_cuda_array(array)
    assert not cuda.is_cuda_array(np.zeros(1))
    assert cuda.as_cuda_array(array).shape == (3, 4)


def test_copying_between_shapes_that_differ_is_an_error():
    array = cuda.to_device(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        array.copy_to_host(np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        array.copy_to_device(np.zeros(6))


@pytest.mark.parametrize(
    "signature",
    ["void(float32[:], float32[:])", "(float32[:], float32[:])", ["void(float32[:], float32[:])"]],
)
def test_signatures_are_accepted(signature):
    @cuda.jit(signature)
    def copy(out, x):
        i = cuda.grid(1)
        if i < x.size:
            out[i] = x[i]

    out = np.zeros(3, np.float32)
    copy[1, 4](out, np.ones(3, np.float32))
    assert out.all()


def test_signature_casts_scalars_as_a_compiled_kernel_does():
    @cuda.jit("void(float64[:], int32)")
    def store(out, value):
        out[0] = value

    out = np.zeros(1)
    store[1, 1](out, 2**32 + 2)
    assert out[0] == 2
    with pytest.raises(TypeError, match="value must be an integer"):
        store[1, 1](out, 2.75)
    assert out[0] == 2


@pytest.mark.parametrize(
    "options", [{}, {"fastmath": True}, {"opt": False}, {"max_registers": 32, "lineinfo": True}]
)
def test_compile_options_are_accepted(options):
    @cuda.jit(**options)
    def one(out):
        out[0] = 1

    out = np.zeros(1)
    one[1, 1](out)
    assert out[0] == 1


def test_dynamic_shared_memory_comes_from_the_configuration():
    @cuda.jit
    def reverse(x):
        tile = cuda.shared.array(0, np.float64)
        t = cuda.threadIdx.x
        tile[t] = x[t]
        cuda.syncthreads()
        x[t] = tile[cuda.blockDim.x - 1 - t]

    x = np.arange(8.0)
    reverse[1, 8, 0, 64](x)
    np.testing.assert_array_equal(x, np.arange(8.0)[::-1])
    with pytest.raises(IndexError, match=r"tile\[7\] out of bounds for shape \(7,\)"):
        reverse[1, 8, 0, 56](x)


def test_configuration_must_have_two_to_four_parts():
    for configuration in ((1,), (1, 2, 3, 4, 5)):
        with pytest.raises((LaunchError, ValueError), match=r"threads_per_block|configur"):
            double[configuration]


@pytest.mark.parametrize("arguments", [{"sharedmem": 0.0}, {"tpb": 0.5}, {"sharedmem": -1}])
@pytest.mark.parametrize("ntasks", [0, 1])
def test_forall_checks_its_arguments_also_for_no_tasks(ntasks, arguments):
    with pytest.raises((TypeError, ValueError), match=next(iter(arguments))):
        double.forall(ntasks, **arguments)


def test_forall_covers_every_element():
    out = np.zeros(1000)
    double.forall(1000)(out, np.ones(1000))
    assert (out == 2).all()


def test_events_measure_time_and_devices_have_names():
    start, end = cuda.event(), cuda.event()
    start.record()
    double[1, 32](np.zeros(4), np.zeros(4))
    end.record()
    end.synchronize()
    assert cuda.event_elapsed_time(start, end) >= 0
    assert cuda.is_available()
    device = cuda.get_current_device()
    assert device.WARP_SIZE == 32
    assert device.MAX_THREADS_PER_BLOCK == 1024
    assert "lockstep" in str(device.name)
    cuda.current_context().synchronize()
    assert len(cuda.gpus) == 1


def test_pinned_and_mapped_memory_are_plain_memory():
    array = cuda.pinned_array(4, np.float32)
    with cuda.pinned(array):
        cuda.to_device(array)
    assert array.shape == (4,)


def test_name_that_numba_has_and_the_facade_lacks_is_named():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = cuda.no_such_name


def test_kernel_names_outside_a_kernel_are_refused():
    with pytest.raises(TypeError, match="DeviceName"):
        _ = cuda.threadIdx.x + 1
    with pytest.raises(RuntimeError, match="kernel"):
        cuda.grid(1)


def test_operations_take_arrays_of_the_facade():
    key, value = np.random.default_rng(0).standard_normal((2, 3, 1, 2)).astype(np.float32)
    caches = [cuda.to_device(np.zeros((2, 4, 1, 2), np.float32)) for _ in range(2)]
    slots = cuda.to_device(np.array([5, 0, 7]))
    pn.write_kv(cuda.to_device(key), cuda.to_device(value), *caches, slots, target="lockstep")
    np.testing.assert_array_equal(caches[0].copy_to_host().reshape(8, 1, 2)[[5, 0, 7]], key)


def test_kernels_of_numba_and_of_the_facade_run_alike():
    numba_cuda = pytest.importorskip("numba.cuda")

    @numba_cuda.jit
    def theirs(out, x):
        i = numba_cuda.grid(1)
        if i < x.size:
            out[i] = 2 * x[i]

    x = np.arange(5.0)
    a, b = np.zeros(5), np.zeros(5)
    lockstep.launch(theirs, 1, 32, a, x)
    lockstep.launch(double, 1, 32, b, x)
    np.testing.assert_array_equal(a, b)
    assert a.any()


def test_jit_takes_kernels_of_numba_and_of_the_facade_and_keeps_their_signatures():
    numba_cuda = pytest.importorskip("numba.cuda")

    def halve(x, by):
        i = cuda.grid(1)
        if i < x.size:
            x[i] = x[i] / 2 + by

    @numba_cuda.jit
    def halve_by_numba(x, by):
        i = numba_cuda.grid(1)
        if i < x.size:
            x[i] = x[i] / 2 + by

    for kernel in (halve, halve_by_numba, cuda.jit(halve), lockstep.jit(lockstep.jit(halve_by_numba))):
        made, x = lockstep.jit(kernel), np.arange(6.0)
        assert repr(made).endswith(" on lockstep>")
        made[2, 4](x, 1.5)
        np.testing.assert_array_equal(x, np.arange(6) / 2 + 1.5)
    # An eager signature casts the scalar.
    x = np.arange(6.0)
    lockstep.jit(cuda.jit("void(float64[:], float32)")(halve))[2, 4](x, 1.1)
    np.testing.assert_array_equal(x, np.arange(6) / 2 + np.float64(np.float32(1.1)))
    device = numba_cuda.jit(device=True)(lambda value: value)
    with pytest.raises(LaunchError, match="a device function as a kernel"):
        lockstep.jit(device)[1, 1](1)


def test_trace_records_one_launch():
    x = np.zeros(5)
    [load, store] = lockstep.trace(double, 2, 4, x, x, thread_block=(1, 0, 0))
    assert (load.kind, load.elements, store.kind, store.threads) == ("load", (4,), "store", (0,))
    with pytest.raises(ValueError, match="thread_block must lie in the grid"):
        lockstep.trace(double, 2, 4, x, x, thread_block=(2, 0, 0))


def test_what_jit_returns_says_what_it_is():
    @cuda.jit(device=True)
    def square(x):
        return x * x

    assert repr(double) == "<Kernel double on lockstep>"
    assert repr(square) == "<Device function square on lockstep>"
    assert repr(cuda.to_device(np.zeros((2, 3)))) == "<DeviceArray on lockstep, shape=(2, 3), dtype=float64>"


class Interface:
    """An array of another library that exposes only the array interface."""

    def __init__(self, array):
        self.array = array
        self.__array_interface__ = array.__array_interface__


def test_arrays_of_other_libraries_are_used_without_a_copy():
    x = np.ones(4)
    out = np.zeros(4)
    lockstep.launch(double, 1, 32, Interface(out), Interface(x))
    assert (out == 2).all()
