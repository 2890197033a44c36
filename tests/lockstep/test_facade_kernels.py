"""Kernels, devices, names and types of the facade, as host code of Numba's projects uses them."""

import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from paged_numba import lockstep
from paged_numba.errors import KernelError, LaunchError, LaunchTypeError, UnsupportedConstructError
from paged_numba.lockstep.cuda import facade as cuda


@cuda.jit
def fill(x, value=1):
    i = cuda.grid(1)
    if i < x.size:
        x[i] = value


def test_configurations_are_objects():
    configured = fill.configure(2, (4, 1))
    assert (configured.griddim, configured.blockdim) == ((2, 1, 1), (4, 1, 1))
    seen = []
    configured.pre_launch_callbacks.append(lambda kernel, config: seen.append((kernel, config)))
    x = np.zeros(8)
    configured(x, 3)
    assert (x == 3).all()
    assert seen == [(fill, configured)]
    with pytest.raises(pickle.PicklingError, match="callbacks"):
        pickle.dumps(configured)
    assert pickle.loads(pickle.dumps(fill[1, 2])).dispatcher is fill


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, r"griddim must be a sequence of integers, got \[2.0\]", lambda: fill[2.0, 3]),
        (TypeError, r"blockdim must be a sequence of integers, got \[True\]", lambda: fill[2, True]),
        (TypeError, "blockdim", lambda: fill[2, np.array(3)]),
        (ValueError, r"griddim must be a sequence of 1, 2 or 3 integers", lambda: fill[(1, 2, 3, 4), 3]),
        (ValueError, "launch configuration was not specified", fill),
        (ValueError, "launch configuration was not specified", lambda: fill[None, 3]),
        (ValueError, "negative task count", lambda: fill.forall(-1)),
        (TypeError, r"fill takes 2 arguments \(x, value\), got 0", fill[1, 1]),
        (TypeError, r"fill takes 2 arguments \(x, value\), got 3", lambda: fill[1, 1](1, 2, 3)),
        (TypeError, "the class int", lambda: cuda.jit(int)),
        (NotImplementedError, "bounds checking", lambda: cuda.jit(boundscheck=True)),
        (ValueError, "link", lambda: cuda.jit(device=True, link=["x.ptx"])),
        (ValueError, "Got 4 launch bounds", lambda: cuda.jit(launch_bounds=(1, 2, 3, 4))),
        (ValueError, "between -1 and 100", lambda: cuda.jit(shared_memory_carveout=101)),
        (ValueError, "Invalid carveout", lambda: cuda.jit(shared_memory_carveout="Most")),
        (LaunchError, "launch_bounds", lambda: cuda.jit(launch_bounds=32)(fill.py_func)[1, 64]),
        (RuntimeError, "already specialized", lambda: fill.specialize(np.ones(1)).specialize(np.ones(1))),
    ],
)
def test_wrong_launches_and_options_raise_numbas_types_of_errors(error, match, call):
    with pytest.raises(error, match=match):
        call()


def test_defaults_of_parameters_are_used():
    x = np.zeros(3)
    fill[1, 4](x)
    assert (x == 1).all()


def test_overloads_are_the_types_of_the_launches():
    types = pytest.importorskip("numba").types
    kernel = cuda.jit(fill.py_func)
    assert kernel.overloads == {}
    kernel[1, 2](np.zeros(2, np.float32), 3)
    kernel[1, 2](cuda.to_device(np.zeros((2, 2)))[:, 0], np.float32(3))
    kernel[1, 2](np.zeros(2, np.float32), 4)
    first, second = kernel.signatures
    assert first == (types.Array(types.float32, 1, "C"), types.int64)
    assert second == (types.Array(types.float64, 1, "A"), types.float32)
    assert kernel.overloads[first].max_cooperative_grid_blocks(128) == 16
    signed = cuda.jit("void(float64[:], int32)")(fill.py_func)
    signed[1, 2](np.zeros(2), 3)
    assert signed.signatures == [(types.Array(types.float64, 1, "A"), types.int32)]
    assert signed.specialized
    with pytest.raises(RuntimeError, match="Compilation disabled"):
        signed.compile("void(float32[:], int32)")


def test_specializations_are_kept_by_type():
    kernel = cuda.jit(fill.py_func)
    one = kernel.specialize(np.zeros(2), 3)
    assert kernel.specialize(np.ones(5), 4) is one
    assert kernel.specialize(cuda.float64[:], cuda.int64) is not one
    assert len(kernel.specializations) == 2
    x = np.zeros(2)
    one[1, 2](x, 5)
    assert (x == 5).all()


class Scaled:
    """An argument that is no array, which an extension turns into one."""

    def __init__(self, array):
        self.array = array


class Extension:
    def prepare_args(self, kind, value, stream, retr):
        if not isinstance(value, Scaled):
            return kind, value
        copy = value.array * 10

        def back():
            value.array[:] = copy

        retr.append(back)
        return kind, copy


def test_extensions_prepare_arguments():
    @cuda.jit(extensions=[Extension()])
    def add_one(x):
        x[cuda.grid(1)] += 1

    scaled = Scaled(np.arange(3.0))
    add_one[1, 3](scaled)
    assert scaled.array.tolist() == [1, 11, 21]


def test_signatures_with_wrong_arguments_raise_type_errors():
    signed = cuda.jit(["void(float64[:], int32)", "void(float32[:], int32)"])(fill.py_func)
    with pytest.raises(LaunchTypeError, match="No matching definition"):
        signed[1, 1](np.zeros(1, complex), 1)
    with pytest.raises(TypeError, match="x must be float64"):
        cuda.jit("void(float64[:], int32)")(fill.py_func)[1, 1](np.zeros(1, np.float32), 1)


class OwnError(Exception):
    """Raised in a kernel."""


def test_debug_mode_says_where_a_kernel_raised():
    @cuda.jit(debug=True, opt=False)
    def fail(x):
        if cuda.grid(1) == x:
            raise OwnError("no luck")

    with pytest.raises(
        OwnError, match=r"tid=\[1, 0, 0\] ctaid=\[1, 0, 0\]: no luck\nIn function 'fail', file"
    ) as info:
        fail[2, 4](5)
    assert isinstance(info.value, KernelError)
    with pytest.raises(ZeroDivisionError, match="integer division by zero"):
        cuda.jit(divide)[1, 1](np.zeros(1, np.int64))


def divide(x):
    x[0] = 1 // x[0]


@cuda.jit(device=True)
def quiet_quotient(a, b):
    return a / b


def quotients(out, b):
    i = cuda.grid(1)
    out[i] = quiet_quotient(1.0, b[i])
    if i > 0:
        out[i] = i / b[i]


def floor_quotients(out, b):
    i = cuda.grid(1)
    if i > 0:
        out[i] = i // b[i]


def remainders(out, b):
    i = cuda.grid(1)
    if i > 0:
        out[i] = i % b[i]


def quotients_in_place(out, b):
    i = cuda.grid(1)
    if i > 0:
        out[i] /= b[i]


@pytest.mark.parametrize("function", [quotients, floor_quotients, remainders, quotients_in_place])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_debug_mode_raises_for_each_division_by_zero(function, dtype):
    debugged = cuda.jit(debug=True, opt=False)(function)
    divisors = np.array([0, 2, 3, 4], dtype)
    with np.errstate(all="ignore"):
        expected = np.ones(4)
        cuda.jit(function)[1, 4](expected, divisors)
    out = np.ones(4)
    # The thread that would divide by zero does not divide, or in a function without debug=True.
    debugged[1, 4](out, divisors)
    np.testing.assert_array_equal(out, expected)
    divisors[2] = -0.0
    for run in (
        lambda: debugged[1, 4](out, divisors),
        lambda: lockstep.profile(debugged, 1, 4, out, divisors),
    ):
        with pytest.raises(ZeroDivisionError, match=r"division by zero, thread 2 of") as info:
            run()
        assert isinstance(info.value, KernelError)
    # Neither without debug=True nor with fastmath=True.
    cuda.jit(function)[1, 4](out, divisors)
    cuda.jit(debug=True, opt=False, fastmath=True)(function)[1, 4](out, divisors)
    assert not np.isfinite(out[2])


# Types.


def test_types_write_signatures_cast_and_are_dtypes():
    @cuda.jit(cuda.void(cuda.float32[:], cuda.i4))
    def store(x, value):
        tile = cuda.shared.array(4, dtype=cuda.f8)
        tile[cuda.threadIdx.x] = cuda.float32(value) / cuda.uint8(2.9)
        x[cuda.threadIdx.x] = tile[cuda.threadIdx.x]

    x = np.zeros(4, cuda.float32)
    store[1, 4](x, 7)
    assert (x == 3.5).all()
    assert type(cuda.float32(2)) is np.float32
    assert cuda.to_device(x).dtype == np.dtype(cuda.f4)
    assert cuda.intp == cuda.int64
    assert str(cuda.float32[:, ::1]) == "float32[:, ::1]"
    assert hash(cuda.int8) == hash(cuda.i1)


def test_numba_understands_types_and_kernels_of_the_facade():
    pytest.importorskip("numba.cuda")

    @cuda.jit(device=True)
    def half(x):
        return x / 2

    @cuda.jit((cuda.float32[:],))
    def halve(x):
        if cuda.grid(1) < x.size:
            x[cuda.grid(1)] = half(x[cuda.grid(1)])

    lockstep.check_compiles(halve)
    code, result = cuda.compile_ptx(halve, cuda.void(cuda.float32[:]))
    assert ".visible" in code
    assert str(result) in ("none", "void")
    [(_, code)] = halve.inspect_asm().items()
    assert ".version" in code


# Devices.


def test_the_device_is_a_context_manager_and_the_only_one():
    with cuda.gpus[0] as device:
        assert cuda.gpus.current is device
    assert [*cuda.gpus] == cuda.gpus.lst == [device]
    with pytest.raises(IndexError):
        cuda.gpus[1]
    assert device.name.decode() == device.name
    assert device.get_primary_context() is cuda.current_context() is cuda.select_device(0)
    assert device.uuid.startswith("GPU-")
    with lockstep.options(compute_capability=(7, 5)):
        assert (device.COMPUTE_CAPABILITY_MAJOR, device.COMPUTE_CAPABILITY_MINOR) == (7, 5)
        assert not device.supports_bfloat16
    assert cuda.is_supported_version()
    assert cuda.cuda_error() is None
    assert cuda.runtime.get_version() >= (12, 0)

    @cuda.require_context
    def run(x):
        return x + 1

    assert run(1) == 2


def test_the_context_has_memory_and_nothing_to_free():
    context = cuda.current_context()
    free, total = context.get_memory_info()
    assert 0 < free <= total == context.get_memory_info().total
    context.deallocations.clear()
    with context.deallocations.disable(), cuda.defer_cleanup():
        assert len(context.deallocations) == 0
    memory = context.memalloc(16)
    made = cuda.DeviceArray((2, 2), (8, 4), np.float32, gpu_data=memory)
    assert np.isnan(made.copy_to_host()).all()
    made[:] = 1
    same = cuda.DeviceArray(4, 4, np.float32, gpu_data=memory)
    assert same.copy_to_host().tolist() == [1, 1, 1, 1]
    context.push()
    assert context.pop() is None


# What is absent.


def subclass_of_absent():
    class Own(cuda.HostOnlyCUDAMemoryManager):
        pass


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("cuda.IpcHandle()", lambda: cuda.IpcHandle(1)),
        ("cuda.open_ipc_array()", lambda: cuda.open_ipc_array(1, 2, 3)),
        ("cuda.set_memory_manager()", lambda: cuda.set_memory_manager(1)),
        ("current_context().get_ipc_handle()", lambda: cuda.current_context().get_ipc_handle(1)),
        ("cuda.cudadrv.driver.host_to_device()", lambda: cuda.driver.host_to_device(1, 2, 3)),
        ("fill.get_regs_per_thread()", fill.get_regs_per_thread),
        ("fill.inspect_sass()", fill.inspect_sass),
        ("Device.CLOCK_RATE", lambda: cuda.get_current_device().CLOCK_RATE),
        ("cuda.HostOnlyCUDAMemoryManager", subclass_of_absent),
    ],
)
def test_what_is_absent_fails_when_it_is_used_and_says_what_to_do(name, use):
    with pytest.raises(UnsupportedConstructError) as info:
        use()
    assert str(info.value).startswith(f"the lockstep machine does not run {name}")
    assert ": " in str(info.value)


def test_functions_in_other_languages_are_refused_by_name_when_a_kernel_calls_them():
    other = cuda.declare_device("other", "int32(int32)", link=cuda.CUSource("code"))

    @cuda.jit(link=[cuda.CUSource("code")])
    def call(x):
        x[0] = other(x[0])

    with pytest.raises(UnsupportedConstructError, match=r"other.*test_facade_kernels\.py:\d+"):
        call[1, 1](np.zeros(1, np.int32))


def test_isinstance_and_except_work_with_names_of_the_driver():
    assert isinstance(cuda.to_device(np.ones(1)), cuda.cudadrv.devicearray.DeviceNDArray)
    assert not cuda.devicearray.is_cuda_ndarray(np.ones(1))
    assert cuda.devices.get_context() is cuda.current_context()
    assert not isinstance(1, cuda.IpcHandle)
    try:
        cuda.current_context()
    except (cuda.CudaSupportError, cuda.cudadrv.driver.CudaAPIError):
        raise AssertionError from None


def test_the_facade_tells_what_needs_numba_where_it_is_missing():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from paged_numba.lockstep.cuda import facade as cuda\n"
        "from paged_numba.lockstep.cuda.facade import compile_ptx\n"
        "states = cuda.random.create_xoroshiro128p_states(2, seed=1)\n"
        "try:\n    compile_ptx(1, 2)\nexcept NotImplementedError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == (
        "the lockstep machine does not run cuda.compile_ptx(): it is Numba's own, so install numba-cuda\n"
    ), done.stderr


def test_numbas_warnings_are_given_only_while_lockstep_is_installed_and_where_they_arise(monkeypatch):
    numba_errors = pytest.importorskip("numba.cuda.core.errors")
    for option in ("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "NUMBA_CUDA_WARN_ON_IMPLICIT_COPY"):
        monkeypatch.setenv(option, "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fill[1, 2](np.zeros(2), 1)
        cuda.jit(debug=True)(fill.py_func)
    with lockstep.installed():
        with pytest.warns(numba_errors.NumbaPerformanceWarning, match="Grid size 1 ") as given:
            configured, _ = fill[1, 2], fill.configure(1, 2)
        assert [warning.filename for warning in given] == [__file__, __file__]
        with pytest.warns(numba_errors.NumbaPerformanceWarning, match="Host array") as given:
            configured(np.zeros(2), 1)
        assert given[0].filename == __file__
        with pytest.warns(numba_errors.NumbaInvalidConfigWarning, match="opt=True"):
            cuda.jit(debug=True)(fill.py_func)


def test_warnings_about_a_gpus_time_are_off_unless_asked_for(monkeypatch):
    config = pytest.importorskip("numba.cuda.core.config")
    for option in ("CUDA_LOW_OCCUPANCY_WARNINGS", "CUDA_WARN_ON_IMPLICIT_COPY"):
        monkeypatch.delenv(f"NUMBA_{option}", raising=False)
        monkeypatch.setattr(config, option, 1)
    with lockstep.installed(), warnings.catch_warnings():
        warnings.simplefilter("error")
        fill[1, 2](np.zeros(2), 1)
    assert config.CUDA_LOW_OCCUPANCY_WARNINGS == config.CUDA_WARN_ON_IMPLICIT_COPY == 1
