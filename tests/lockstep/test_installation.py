"""lockstep.install: the names of numba.cuda, before and after, and numba.cuda given back as it was."""

import importlib.util
import inspect
import os
import pickle
import re
import site
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from paged_numba import lockstep, targets
from paged_numba.errors import CompilationError, TargetUnavailableError, UnsupportedConstructError
from paged_numba.lockstep.cuda import facade
from paged_numba.lockstep.cuda.installation import changes, is_installed

cuda = pytest.importorskip("numba.cuda", reason="needs numba.cuda")

import numba  # noqa: E402
from numba.cuda import gpus as gpus_before  # noqa: E402
from numba.cuda import jit as jit_before  # noqa: E402
from numba.cuda import to_device as to_device_before  # noqa: E402
from numba.cuda.cudadrv.devicearray import DeviceNDArray  # noqa: E402
from numba.cuda.dispatcher import CUDADispatcher  # noqa: E402

if targets.simulator_enabled():
    pytest.skip("lockstep cannot be installed beside Numba's simulator", allow_module_level=True)

ROOT = Path(__file__).parents[2]


@cuda.jit
def increment(x):  # decorated by Numba
    i = cuda.grid(1)
    if i < x.size:
        x[i] += 1


configured = increment[1, 32]


def negated(x):
    return -x


def row_sum(x, out):
    total = 0.0
    for i in range(x.shape[0]):
        total += x[i]
    out[0] = total


def add(a, b):
    return a + b


def everything(module):
    """Return what can change of a module: its names, and the code and defaults of its functions."""
    found = dict(vars(module))
    for name, value in vars(module).items():
        if inspect.isfunction(value):
            found[name] = value, value.__code__, value.__defaults__, value.__kwdefaults__
    return found


PATCHED = [
    "numba.cuda",
    "numba.cuda.api",
    "numba.cuda.args",
    "numba.cuda.cudadrv.devicearray",
    "numba.cuda.cudadrv.devices",
    "numba.cuda.cudadrv.driver",
    "numba.cuda.decorators",
    "numba.cuda.dispatcher",
    "numba.cuda.vectorizers",
]


def snapshot():
    modules = {name: everything(sys.modules[name]) for name in PATCHED if name in sys.modules}
    classes = [
        sys.modules["numba.cuda.dispatcher"].CUDADispatcher,
        sys.modules["numba.cuda.cudadrv.driver"].Driver,
    ]
    return (
        modules,
        everything(sys.modules[__name__]),
        [dict(vars(one)) for one in classes],
        list(sys.meta_path),
    )


def test_numba_cuda_is_given_back_as_it_was():
    with lockstep.installed():  # so that all modules are imported
        pass
    before = snapshot()
    for _ in range(2):
        lockstep.install()
        lockstep.install()
        during = snapshot()
        lockstep.uninstall()
        assert during[0] != before[0]
        assert during[1] != before[1]
        assert during[2] != before[2]
        assert snapshot() == before
    lockstep.uninstall()
    assert snapshot() == before
    with pytest.raises(ZeroDivisionError), lockstep.installed():
        raise ZeroDivisionError
    assert snapshot() == before
    assert not is_installed()


def test_names_imported_before_are_those_of_lockstep():
    with lockstep.installed():

        @jit_before("void(float64[:])")
        def twice(x):
            i = cuda.grid(1)
            if i < x.size:
                x[i] *= 2

        x = to_device_before(np.arange(3.0))
        increment[1, 32](x)
        configured(x)
        increment.forall(3)(x)
        increment.configure(1, 32)(x)
        twice[1, 32](x)
        assert isinstance(x, facade.DeviceArray)
        assert isinstance(x, DeviceNDArray)
        assert isinstance(x, cuda.devicearray.DeviceNDArray)
        assert isinstance(cuda.mapped_array(2), cuda.devicearray.MappedNDArray)
        assert isinstance(cuda.managed_array(2), cuda.devicearray.ManagedNDArray)
        record = cuda.to_device(np.zeros(1, [("a", "i4")]))[0]
        assert isinstance(record, cuda.devicearray.DeviceRecord)
        assert isinstance(twice, CUDADispatcher)
        assert isinstance(increment, CUDADispatcher)
        assert not isinstance(negated, CUDADispatcher)
        assert x.copy_to_host().tolist() == [8, 10, 12]
        assert [device.id for device in gpus_before] == [device.id for device in cuda.list_devices()] == [0]
    twice[1, 32](x)  # a kernel of lockstep
    assert x.copy_to_host().tolist() == [16, 20, 24]
    assert not isinstance(twice, CUDADispatcher)


def test_functions_that_were_kept_anywhere_are_redirected():
    kept = {"jit": jit_before, "to_device": (to_device_before,)}

    def late(x, jit=jit_before):
        return jit(increment.py_func)[1, 32](x)

    with lockstep.installed():
        x = kept["to_device"][0](np.zeros(2))
        late(x)
        kept["jit"](device=False)(increment.py_func)[1, 32](x)
    assert x.copy_to_host().tolist() == [2, 2]


def test_states_and_draws_of_random_are_bit_for_bit_those_of_numba():
    from numba.cuda import random

    states = np.zeros(8, random.xoroshiro128p_dtype)
    random.init_xoroshiro128p_states_cpu(states, 5, 2)
    uniform = np.array([random.xoroshiro128p_uniform_float32(states, i) for i in range(8)], np.float32)
    normal = np.array([random.xoroshiro128p_normal_float64(states, i) for i in range(8)])
    with lockstep.installed():
        drawn = random.create_xoroshiro128p_states(8, seed=5, subsequence_start=2)

        @cuda.jit
        def draw(states, uniform, normal):
            i = cuda.grid(1)
            uniform[i] = random.xoroshiro128p_uniform_float32(states, i)
            normal[i] = random.xoroshiro128p_normal_float64(states, i)

        got = np.zeros(8, np.float32), np.zeros(8)
        draw[1, 8](drawn, *got)
    assert np.array_equal(got[0], uniform)
    np.testing.assert_allclose(got[1], normal, rtol=1e-6)  # float32's log and cos of two libraries
    assert np.array_equal(drawn.copy_to_host(), states)


def test_names_inside_kernels_remain_those_of_numba():
    from numba.cuda import libdevice, threadIdx

    before = threadIdx, libdevice.sqrt, cuda.grid, cuda.shared
    modules = {name: getattr(cuda, name, None) for name in ("fp16", "libdevice", "random")}
    with lockstep.installed():
        assert (threadIdx, libdevice.sqrt, cuda.grid, cuda.shared) == before

        @cuda.jit
        def roots(x, out):
            tile = cuda.shared.array(32, cuda.float64)
            tile[threadIdx.x] = libdevice.sqrt(x[threadIdx.x])
            cuda.syncthreads()
            out[threadIdx.x] = tile[cuda.blockDim.x - 1 - threadIdx.x]

        out = np.zeros(4)
        roots[1, 4](np.array([1.0, 4.0, 9.0, 16.0]), out)
        assert all(getattr(cuda, name, None) is module for name, module in modules.items())
    assert out.tolist() == [4, 3, 2, 1]


def test_ufuncs_with_the_target_cuda_run_on_lockstep():
    from numba.np.ufunc.decorators import GUVectorize, Vectorize

    registries = [dict(one.target_registry) for one in (Vectorize, GUVectorize)]
    x = np.arange(6.0).reshape(2, 3)
    with lockstep.installed():
        made = numba.vectorize(["float64(float64)", "float32(float32)"], target="cuda")(negated)
        assert np.array_equal(made(x), -x)
        assert made(x.astype(np.float32)).dtype == np.float32
        made = numba.vectorize(["float64(float64, float64)"], target="cuda", identity=0)(add)
        assert made.reduce(x.ravel()) == 15
        made = numba.guvectorize(["void(float64[:], float64[:])"], "(n)->()", target="cuda")(row_sum)
        assert np.array_equal(made(x), [3, 12])
        assert cuda.reduce(add)(x.ravel()) == 15
    on_cpu = numba.vectorize(["float64(float64)"])(negated)
    assert np.array_equal(on_cpu(x), -x)
    for before, after in zip(registries, (Vectorize, GUVectorize), strict=True):
        assert (
            not {before.get("cuda"), None} ^ {after.target_registry.get("cuda"), None} or "cuda" not in before
        )


def test_what_needs_the_driver_fails_when_used_and_says_what_to_do():
    with lockstep.installed():
        assert cuda.is_available()
        assert cuda.cuda_error() is None
        driver = cuda.cudadrv.driver.driver
        assert driver.is_available
        assert driver.get_device_count() == 1
        with pytest.raises(
            TargetUnavailableError, match="cuDriverGetVersion of the CUDA driver must run on a GPU"
        ):
            driver.get_version()
        with pytest.raises(cuda.CudaSupportError, match=r"without paged_numba\.lockstep\.install"):
            cuda.cudadrv.driver.device_memory_size(driver.cuCtxGetCurrent())
        for refuses in (cuda.set_memory_manager, cuda.cudadrv.driver.set_memory_manager):
            with pytest.raises(UnsupportedConstructError, match="leave the memory manager out"):
                refuses(cuda.HostOnlyCUDAMemoryManager)


def test_numba_still_compiles(cuda_compiler):
    with lockstep.installed():
        kernel = cuda.jit(increment.py_func)
        for compiled in (increment.py_func, kernel, increment):
            assert ".visible .entry" in cuda.compile_ptx(compiled, (numba.float64[:],))[0]
        lockstep.check_compiles(increment, "void(float64[:])")
        lockstep.check_compiles(kernel, "void(float64[:])")


@cuda.jit(device=True)
def undefined(x):
    return no_such_name(x)  # noqa: F821


@facade.jit(["int64(int64)", "float64(float64)"], device=True)
def for_real_numbers(x):
    return x


def calls_undefined(x):
    x[0] = undefined(1.5)


def uses_an_unknown_attribute(x):
    x[0] = float.as_integer_ratio(1.5)[0]


def calls_with_other_types(x):
    x[0] = for_real_numbers(1j).real


def copies(x):
    y = x.copy()
    x[0] = y[0]


@pytest.mark.parametrize(
    ("function", "kind", "said"),
    [
        (calls_undefined, UnsupportedConstructError, "name 'no_such_name' is not defined"),
        (uses_an_unknown_attribute, UnsupportedConstructError, "Unknown attribute 'as_integer_ratio'"),
        (calls_with_other_types, CompilationError, r"with parameters \(complex128\)"),
        (copies, UnsupportedConstructError, None),
    ],
)
def test_what_numba_refuses_too_is_its_typing_error(function, kind, said):
    with lockstep.installed(), pytest.raises(kind) as info:
        cuda.jit(function)[1, 1](np.zeros(1))
    refused = [base for base in type(info.value).__mro__ if base.__name__ == "TypingError"]
    if said is None:
        # Numba takes it; lockstep does not.
        assert not refused
        return
    assert refused
    ours, _, numbas = str(info.value).partition("\nNumba refuses it too: ")
    assert Path(__file__).name in ours
    assert re.search(said, numbas)


def assigns_sometimes(x):
    if x[0] > 0:
        value = 2.0
    x[0] = value


def assigns_always(x):
    value = 2.0
    x[0] = value


@pytest.mark.parametrize(("function", "count"), [(assigns_sometimes, 1), (assigns_always, 0)])
@pytest.mark.parametrize("asked", [0, 1])
def test_numba_warns_of_variables_that_may_be_unassigned(function, count, asked, monkeypatch):
    config = importlib.import_module(
        "numba.cuda.core.config" if importlib.util.find_spec("numba.cuda.core") else "numba.core.config"
    )
    monkeypatch.setattr(config, "ALWAYS_WARN_UNINIT_VAR", asked)
    x = np.ones(1)
    with lockstep.installed():
        kernel = cuda.jit(function)
        for launched in range(2):
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                kernel[1, 1](x)
            found = [str(w.message) for w in seen if "uninitialized variable value" in str(w.message)]
            assert len(found) == (count if asked and not launched else 0)
    assert x[0] == 2


def test_nested_statements_and_threads_uninstall_at_the_last_end():
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with lockstep.installed():
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    with lockstep.installed():
        with lockstep.installed():
            lockstep.install()
            lockstep.uninstall()
        assert is_installed()
        thread.start()
        entered.wait(60)
    assert is_installed()
    leave.set()
    thread.join(60)
    assert not is_installed()
    lockstep.install()
    with lockstep.installed():
        pass
    assert is_installed()
    lockstep.uninstall()
    assert not is_installed()


def test_the_targets_of_the_package(monkeypatch):
    monkeypatch.delenv("PAGED_NUMBA_TARGET", raising=False)
    with lockstep.installed():
        assert targets.resolve() == "lockstep"
        assert targets.cuda_module() is facade
        for target in ("cuda", "cudasim"):
            with pytest.raises(TargetUnavailableError, match=r"call paged_numba\.lockstep\.uninstall"):
                targets.resolve(target)
    assert "lockstep stands" not in (targets.cuda_unavailable_reason() or "")


def test_the_simulator_is_refused(monkeypatch):
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    for call in (lockstep.install, lockstep.installed().__enter__):
        with pytest.raises(TargetUnavailableError, match="NUMBA_ENABLE_CUDASIM is set"):
            call()
    assert not is_installed()


def test_changes_are_taken_back_in_order():
    class Owner:
        kept = 1

    def outer(free):
        def function(a, b=2, *, c=3):
            return free, a, b, c

        return function

    function, made = outer(0), changes.Changes()
    before = everything(Owner), function.__code__, function(1)
    made.set(Owner, "kept", 2)
    made.set(Owner, "kept", 3)
    made.set(Owner, "new", 4)
    made.redirect(function, lambda *args, **kwargs: (args, kwargs))
    assert (Owner.kept, Owner.new) == (3, 4)
    assert function(5, d=6) == ((5,), {"d": 6})
    made.undo()
    assert (everything(Owner), function.__code__, function(1)) == before
    made.undo()


# Processes of their own.


def run(code, **environment):
    given = {name: value for name, value in os.environ.items() if name != "PAGED_NUMBA_TARGET"}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**given, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )


def test_numba_cuda_is_changed_when_it_is_imported():
    done = run(
        """
        import sys
        from paged_numba import lockstep
        lockstep.install()
        assert "numba" not in sys.modules
        from numba.cuda import jit, to_device, grid
        from paged_numba.lockstep.cuda import facade
        import numba.cuda.cudadrv.devicearray as arrays
        assert arrays.DeviceNDArray is facade.DeviceArray
        assert type(to_device([1.0, 2.0])) is facade.DeviceArray
        assert sum(name == "numba.cuda" for name in sys.modules) == 1
        from numba import cuda
        from paged_numba import cuda as ours
        assert ours is facade and cuda.is_available()
        lockstep.uninstall()
        assert not hasattr(jit, "__lockstep__") and arrays.DeviceNDArray is not facade.DeviceArray
        print("done")
        """
    )
    assert done.stdout == "done\n", done.stderr


def test_the_facade_stands_in_where_numba_cuda_cannot_be_imported():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", Path(__file__).with_name("without_numba_cuda.py")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    numbers, error = done.stdout.splitlines()
    from numba.cuda import random

    states = np.zeros(3, random.xoroshiro128p_dtype)
    random.init_xoroshiro128p_states_cpu(states, 1, 0)
    assert eval(numbers) == [random.xoroshiro128p_uniform_float64(states, i) for i in range(3)]
    assert error == "numba.cuda does not fit its surroundings"


START = "import sys; from paged_numba.commands import startup; startup.begin(); startup.begin();"


WILL_INSTALL = f"{START} print(any(hasattr(f, 'installs_lockstep') for f in sys.meta_path))"


@pytest.mark.parametrize(("value", "installs"), [("1", True), ("0", False), ("", False)])
def test_the_variable_is_0_or_1(value, installs):
    done = run(WILL_INSTALL, PAGED_NUMBA_INSTALL=value)
    assert (done.stdout, done.stderr) == (f"{installs}\n", "")


@pytest.mark.parametrize("value", ["yes", " 1"])
def test_another_value_of_the_variable_is_named(value):
    done = run(WILL_INSTALL, PAGED_NUMBA_INSTALL=value)
    assert done.stdout == "False\n"
    assert done.stderr == (
        f"paged_numba: warning: PAGED_NUMBA_INSTALL must be 1 or 0, got {value!r}: lockstep is not installed\n"
    )


def test_the_variable_installs_when_numba_cuda_is_imported():
    code = f"""
        {START}
        light = not {{"numpy", "numba"}} & set(sys.modules)
        from paged_numba import targets
        chosen = targets.resolve()
        from numba import cuda
        from numba.cuda import jit
        print(light, chosen, cuda.is_available(), jit is cuda.jit, len(cuda.gpus))
        import numpy
        print(cuda.to_device(numpy.ones(2)))
        """
    done = run(code, PAGED_NUMBA_INSTALL="1")
    assert done.stdout.startswith("True lockstep True True 1\n<DeviceArray on lockstep"), done.stderr
    done = run(f"{START} import numba.cuda", PAGED_NUMBA_INSTALL="1", NUMBA_ENABLE_CUDASIM="1")
    assert done.returncode == 1
    assert "while NUMBA_ENABLE_CUDASIM is set" in done.stderr


def test_the_wheel_has_the_file_that_reads_the_variable():
    line = (ROOT / "paged_numba" / "commands" / "paged_numba_install.pth").read_text()
    assert line.count("\n") == 1
    assert line.startswith("import ")
    tables = (ROOT / "pyproject.toml").read_text()
    assert '"paged_numba/commands/paged_numba_install.pth" = "paged_numba_install.pth"' in tables
    for value, begins in (("", False), ("0", False), ("1", True), ("x", True)):
        code = f"import sys; exec(open({str(ROOT / 'paged_numba' / 'commands' / 'paged_numba_install.pth')!r}).read())"
        done = run(f"{code}; print('paged_numba' in sys.modules)", PAGED_NUMBA_INSTALL=value)
        assert done.stdout == f"{begins}\n", done.stderr


def test_the_variable_works_where_the_package_is_installed():
    if not any(Path(place, "paged_numba_install.pth").is_file() for place in site.getsitepackages()):
        pytest.skip("paged_numba is not installed: there is no paged_numba_install.pth")
    code = """
        import multiprocessing, sys
        assert "paged_numba.lockstep" not in sys.modules
        from numba import cuda
        pool = multiprocessing.get_context("spawn").Pool(1)
        print(cuda.is_available(), pool.apply(cuda.is_available), pool.apply(cuda.get_current_device))
        """
    done = run(code, PAGED_NUMBA_INSTALL="1", PYTHONPATH="")
    assert done.stdout == "True True <the lockstep machine, no GPU>\n", done.stderr
    assert run(code, PAGED_NUMBA_INSTALL="0", PYTHONPATH="").stdout != done.stdout


@cuda.jit
def module_level(x):
    x[0] = 1


def test_kernels_made_while_installed_are_pickled_by_name():
    with lockstep.installed():
        kernel = cuda.jit(module_level.py_func)
    globals()["module_level"] = kernel
    assert pickle.loads(pickle.dumps(kernel)) is kernel
