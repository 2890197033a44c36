"""What runs compiles: shapes of declared arrays, and `check_compiles`, against Numba's own typing."""

import subprocess
import sys
import textwrap
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from written_kernels import written

from paged_numba import lockstep
from paged_numba.errors import (
    CompilationError,
    KernelError,
    LaunchError,
    TargetUnavailableError,
    UnsupportedConstructError,
)
from paged_numba.lockstep.cuda import facade as cuda

numba = pytest.importorskip("numba")
pytest.importorskip("numba.cuda.compiler")

pytestmark = pytest.mark.filterwarnings("ignore")

# Shapes.

N, M = 4, 5
NUMPY_N = np.int32(4)
PAIR = 2, 3
Pair = namedtuple("Pair", "rows columns")
FIELDS = Pair(2, 3)


@cuda.jit(device=True)
def uses(x, n, m=2):
    local = cuda.local.array((n, m), np.float32)
    local[0, 0] = x[0]
    return local[0, 0]


@cuda.jit(device=True)
def passes_on(x, n):
    return uses(x, n)


OUTSIDE = {
    "N": N, "M": M, "NUMPY_N": NUMPY_N, "PAIR": PAIR, "FIELDS": FIELDS, "uses": uses, "passes_on": passes_on,
    "CONFIG": sys.modules[__name__], "TEXT": "float32", "DTYPE": np.dtype("float32"),
}  # fmt: skip

SHAPES = """
4  2 * 8  N  (N, M)  (N, 3)  PAIR  PAIR[0]  (PAIR[1], N)  (2, 3)[0]  x.ndim  +4  (4,)  ()  0
N + 1  (N, N + 1)  N * 2  N // 2  -N  2 * N  NUMPY_N  CONFIG.N  len(PAIR)  int(N)  min(N, 8)  FIELDS  FIELDS.rows
FIELDS[0]  x.size  x.shape[0]  x.shape  n  (n, 4)  cuda.blockDim.x  cuda.threadIdx.x  cuda.warpsize  4.0  True  [3, 4]
8 if N > 4 else 2  8 if x[0] > 4 else 8  8 if x[0] > 4 else 2  N if True else x.size  2 ** 3  ~-5  x[0]  None  "4"
"""
DTYPES = [
    "np.float32",
    '"float32"',
    "TEXT",
    "DTYPE",
    "x.dtype",
    "float",
    "int",
    "bool",
    "np.bool_",
    "4",
    "None",
    '"no"',
]


def agrees(kernel, *arguments):
    """Check that the lockstep machine runs a kernel if and only if Numba can type it."""
    try:
        lockstep.check_compiles(kernel, arguments)
        theirs = None
    except CompilationError as error:
        theirs = error
    try:
        lockstep.launch(kernel, 1, 1, *arguments)
        ours = None
    except KernelError as error:
        ours = error
    assert (ours is None) == (theirs is None), (ours, theirs)


@pytest.mark.parametrize("space", ["shared", "local"])
@pytest.mark.parametrize("shape", [s for line in SHAPES.splitlines() for s in line.split("  ") if s])
def test_a_shape_runs_if_numba_can_type_it(space, shape):
    text = f"def kernel(x, n):\n    y = cuda.{space}.array({shape}, np.float32)\n    x[0] = y.size\n"
    agrees(written(text, **OUTSIDE), np.ones(3), 4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_dtype_runs_if_numba_can_type_it(dtype):
    agrees(
        written(f"def kernel(x):\n    y = cuda.local.array(3, {dtype})\n    x[0] = y.size\n", **OUTSIDE),
        np.ones(3),
    )


@pytest.mark.parametrize(
    "call", ["uses(x, 8)", "uses(x, N)", "uses(x, 4, N)", "uses(x, m=2, n=3)", "uses(x, x.size)", "uses(x, n)",
             "uses(x, N + 1)", "passes_on(x, 8)", "passes_on(x, n)", "uses(x, 3, n)", "passes_on(x, PAIR[0])"],
)  # fmt: skip
def test_lengths_that_a_device_function_takes_must_be_literals_in_the_call(call):
    agrees(written(f"def kernel(x, n):\n    x[0] = {call}\n", **OUTSIDE), np.ones(3), 4)


@pytest.mark.parametrize(
    "test", ["FLAG", "not FLAG", "N", "N > 3", "N == 4 and not FLAG", "N % 2 == 0", "N + 1 > 3", "TEXT == 'float32'",
             "NONE is None", "NUMPY_N > 2", "len(PAIR) == 2", "x is None", "True", "N in (4, 8)", "0 < N < 8",
             "N > 3 or x[0] > 2", "N > 3 and x[0] > 2", "N > 5 and x[0] > 2"],
)  # fmt: skip
@pytest.mark.parametrize("choice", ["m = 8 if {} else 4", "if {}:\n        m = 8\n    else:\n        m = 4"])
def test_the_branch_that_a_constant_condition_never_takes_does_not_count(choice, test):
    text = f"def kernel(x):\n    {choice.format(test)}\n    x[0] = cuda.local.array(m, np.int8).size\n"
    agrees(written(text, **OUTSIDE, FLAG=True, NONE=None), np.ones(3))


@st.composite
def blocks(draw, depth):
    lines = []
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.integers(0, 6 if depth else 4))
        if kind <= 3:
            value = draw(st.sampled_from(["4", "4", "N", "m", "n", "5", "x.size", "n + 1"]))
            lines.append(f"{draw(st.sampled_from('nm'))} = {value}")
        elif kind == 4:
            lines.append("x[1] = cuda.local.array(n, np.float32).size")
        else:
            inner = [f"    {line}" for line in draw(blocks(depth - 1))]
            if kind == 5:
                lines += ["if x[0] > 3:", *inner]
                if draw(st.booleans()):
                    lines += ["else:", *(f"    {line}" for line in draw(blocks(depth - 1)))]
            else:
                lines += ["for i in range(3):", *inner]
    return lines


@given(blocks(2))
def test_a_variable_is_a_length_if_numba_can_type_it(lines):
    body = ["n = 4", "m = 4", *lines, "x[1] = cuda.local.array((n, m), np.float32).size"]
    agrees(written("def kernel(x):\n" + textwrap.indent("\n".join(body), "    "), N=4), np.ones(3))


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        (
            "cuda.shared.array((N, N + 1), np.float32)",
            r"got `N \+ 1`: assign `N \+ 1` to a name outside the kernel",
        ),
        (
            "cuda.shared.array(cuda.blockDim.x, np.float32)",
            r"dynamic shared memory: shared.array\(0, dtype\)",
        ),
        ("cuda.local.array(n, np.float32)", r"got `n`: use a constant, <written \d+>:2"),
        ("cuda.local.array(-4, np.float32)", "must not be negative"),
        (
            "cuda.local.array(200000, np.float32)",
            "local memory of a thread must be at most 524288 bytes, got 800000",
        ),
        ("cuda.shared.array(4, float)", "dtype must be a type of Numba or NumPy"),
        ("cuda.shared.array(4)", "without dtype"),
        ("cuda.shared.array(4, np.float32, size=3)", "whose arguments are shape, dtype, alignment"),
    ],
)
def test_a_refused_declaration_says_what_to_write(declaration, message):
    kernel = written(f"def kernel(x, n):\n    y = {declaration}\n    x[0] = y.size\n", **OUTSIDE)
    x = np.ones(1)
    with pytest.raises(KernelError, match=message):
        lockstep.launch(kernel, 1, 1, x, 4)
    assert x[0] == 1


def test_alignment_is_accepted():
    text = "def kernel(x):\n    y = cuda.shared.array(4, np.float32, alignment=16)\n    x[0] = y.size\n"
    x = np.ones(1)
    lockstep.launch(written(text), 1, 1, x)
    assert x[0] == 4


# check_compiles.


@cuda.jit
def with_walrus(x):
    if (i := cuda.grid(1)) < x.size:
        x[i] = 1


@cuda.jit
def reshaped(x):
    x.reshape(x.size)[0] = 1


@cuda.jit(device=True)
def no_such_attribute(x):
    return x.no_such


@cuda.jit
def fails_inside(x):
    x[0] = 2
    x[0] = no_such_attribute(x)


@cuda.jit("int64(int64, int64)", device=True)
def add(a, b):
    return a + b


@cuda.jit(device=True)
def factorial(n):
    return n if n <= 1 else n * factorial(n - 1)


@cuda.jit
def everything(x, n):
    i = cuda.grid(1)
    tile = cuda.shared.array(N, np.float32)
    tile[cuda.threadIdx.x] = x[i]
    cuda.syncthreads()
    x[i] = (
        add(1.5, n)
        + factorial(n)
        + cuda.warpsize
        + cuda.shfl_down_sync(-1, tile[0], 1)
        + sum(PAIR)
        + max(PAIR)
    )
    cuda.atomic.add(x, 0, uses(x, 3))


def test_a_kernel_that_numba_can_type_passes_for_every_form_of_signature():
    f4 = numba.types.float32
    for signature in (
        "void(float32[:], int32)",
        (f4[::1], numba.types.int64),
        numba.types.void(f4[:], numba.types.int32),
        ["void(float32[:], int32)", (f4[:], f4)],
        (np.ones(3, np.float32), 3),
        (cuda.to_device(np.ones(3)), np.int8(3)),
    ):
        lockstep.check_compiles(everything, signature)
        lockstep.check_compiles(everything.py_func, signature)
    decorated = numba.cuda.jit(everything.py_func)
    lockstep.check_compiles(decorated, "void(float32[:], int32)")


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (
            with_walrus,
            r"with_walrus\(array\(float64, 1d, A\)\): Type of .* has no assignment expressions \(:=\)",
        ),
        (reshaped, r"reshape\(\) supports contiguous array only"),
        (fails_inside, r"Unknown attribute 'no_such' of type array\(float64, 1d, A\)"),
    ],
)
def test_a_kernel_that_numba_cannot_type_is_refused_in_numbas_words(kernel, message):
    with pytest.raises(CompilationError, match=rf"{message}, test_numba_typing\.py:\d+$"):
        lockstep.check_compiles(kernel, "void(float64[:])")
    with pytest.raises(CompilationError):
        lockstep.check_compiles(kernel, (np.ones(4)[::2],))
    with pytest.raises(CompilationError):
        lockstep.check_compiles(cuda.jit("void(float64[:])")(kernel.py_func))


def test_the_option_checks_the_first_launch_for_each_type_of_arguments():
    x = np.zeros(4)
    with lockstep.options(check_compiles=True):
        for _ in range(2):
            with pytest.raises(CompilationError, match="Type of variable"):
                lockstep.launch(with_walrus, 1, 4, x)
        assert not x.any()
        lockstep.launch(reshaped, 1, 1, x)
        with pytest.raises(CompilationError, match="contiguous"):
            lockstep.launch(reshaped, 1, 1, np.zeros(4)[::2])
    assert x[0] == 1
    lockstep.launch(with_walrus, 1, 4, x)
    assert x.all()
    with pytest.raises(ValueError, match="check_compiles must be a bool"):
        lockstep.Options(check_compiles=1)


@pytest.mark.parametrize(
    ("signature", "error", "message"),
    [
        ("void(float32[:], int32)", LaunchError, r"a type for each parameter \(x\)"),
        ("void(float32", LaunchError, "must read like"),
        (None, LaunchError, "signature must be given"),
        ((object(),), CompilationError, "argument 0 must have a type that Numba knows, got object"),
        (3, LaunchError, "must read like"),
    ],
)
def test_a_signature_that_cannot_be_used_is_refused(signature, error, message):
    with pytest.raises(error, match=message):
        lockstep.check_compiles(reshaped, signature)
    with pytest.raises(LaunchError, match="kernel must be a Python function"):
        lockstep.check_compiles(3, "void()")


def test_a_kernel_that_returns_a_value_is_refused():
    with pytest.raises(CompilationError, match="must return nothing, got Literal"):
        lockstep.check_compiles(written("def kernel(x):\n    return 1\n"), "void(float64[:])")


# With a signature, Numba compiles when it decorates.


def not_a_constant(x):
    shared = cuda.shared.array(x[0], np.int32)
    shared[0] = 1


def not_an_attribute(x):
    x[0] = x.nothing


@pytest.mark.parametrize(
    ("function", "message"),
    [(not_a_constant, "No implementation of function"), (not_an_attribute, "nothing")],
)
def test_where_lockstep_is_installed_numba_refuses_a_function_with_a_signature_at_once(function, message):
    made = cuda.jit("void(int32[:])")(function)  # not installed: nothing is asked
    assert isinstance(made, cuda.Kernel)
    with lockstep.installed():
        with pytest.raises(Exception, match=message) as caught:
            numba.cuda.jit("void(int32[:])")(function)
        assert type(caught.value).__name__ == "TypingError"
        assert isinstance(numba.cuda.jit(function), cuda.Kernel)


def test_an_eager_function_may_call_itself_and_sees_the_globals_of_its_first_launch():
    def made():
        @numba.cuda.jit("int32(int32)", device=True)
        def triangle(n):
            return n + triangle(n - 1) if n > 0 else 0

        @numba.cuda.jit("void(int32[:])")
        def kernel(out):
            out[0] = triangle(later)

        later = 4
        return kernel

    with lockstep.installed():
        out = np.zeros(1, np.int32)
        made()[1, 1](out)
        assert out[0] == 4 + 3 + 2 + 1


@pytest.mark.skipif("numba.cuda.typing.templates" not in sys.modules, reason="without numba-cuda")
def test_numba_compiles_its_own_overloads_while_lockstep_is_installed():
    with lockstep.installed():
        # Of these calls, Numba makes functions that it decorates while it infers types.
        lockstep.check_compiles(calls_overloads, "void(float32[:], float32[:])")
    lockstep.check_compiles(calls_overloads, "void(float32[:], float32[:])")


def calls_overloads(x, out):
    shared = cuda.shared.array(4, np.float32)
    shared[0] = np.sum(x) + x.mean()
    out[0] = shared[0]


@pytest.mark.parametrize("name", ["attention_naive_kernel", "merge_states_kernel", "write_kv_kernel"])
def test_kernels_of_the_package_pass(name):
    pytest.importorskip("numba.cuda.core", reason="numba-cuda is not installed")
    from test_kernels_compile import kernels, signatures

    lockstep.check_compiles(kernels()[name], tuple(signatures("float32", "float32")[name]))


def test_a_check_leaves_numba_as_it_was():
    dispatcher = pytest.importorskip("numba.cuda.dispatcher").CUDADispatcher
    before = dispatcher.get_call_template, dispatcher.get_overload
    lockstep.check_compiles(everything, "void(float32[:], int32)")
    with pytest.raises(CompilationError):
        lockstep.check_compiles(fails_inside, "void(float32[:])")
    assert (dispatcher.get_call_template, dispatcher.get_overload) == before


@pytest.mark.parametrize(
    "hidden", ["sys.modules['numba'] = None", "os.environ['NUMBA_ENABLE_CUDASIM'] = '1'"]
)
def test_without_numbas_compiler_the_check_says_so(hidden, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import os, sys\n{hidden}\nfrom paged_numba import lockstep\ndef kernel(x): x[0] = 1\n"
        "try: lockstep.check_compiles(kernel, 'void(float32[:])')\n"
        "except RuntimeError as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{TargetUnavailableError.__name__} check_compiles needs"), done


def test_unsupported_shapes_are_unsupported_constructs():
    with pytest.raises(UnsupportedConstructError):
        lockstep.launch(
            written("def kernel(x):\n    cuda.local.array(x.size, np.float32)\n"), 1, 1, np.ones(1)
        )


# Records.


def read_field(records, out):
    out[0] = records[0].kept


def write_field(records, value):
    records[0].kept = value[0]


def pass_field(records, value):
    for_fields(records[0].kept)


@cuda.jit(device=True)
def for_fields(field):
    return field


KINDS = "bool i1 u2 i4 f4 i8 f8 c8 c16 M8[s] (2,)f4 (2,)c16".split()


@pytest.mark.parametrize("kind", [*KINDS, [("x", "i1"), ("y", "f8")]])
@pytest.mark.parametrize("padding", [0, 1, 2, 4, 8, 12])
def test_a_field_of_a_record_must_be_aligned_as_numba_has_it(kind, padding):
    from numba.cuda.descriptor import cuda_target
    from numba.np.numpy_support import from_dtype

    fields = [("before", f"V{padding}")] * (padding > 0) + [("kept", kind)]
    dtype = np.dtype(fields)
    known = from_dtype(np.dtype({"names": ["kept"], "formats": [kind], "offsets": [padding]}))
    try:
        cuda_target.target_context.sentry_record_alignment(known, "kept")
        aligned = True
    except numba.core.errors.NumbaError:
        aligned = False
    except Exception as error:  # of Numba's newer releases
        aligned = "is not aligned" not in str(error)
    records = np.ones(2, dtype) if padding == 0 else np.zeros(2, dtype)
    single = dtype["kept"].subdtype is None and dtype["kept"].names is None
    for function in (pass_field, read_field, write_field) if single else (pass_field,):
        kernel = cuda.jit(function)
        other = np.zeros(1, dtype["kept"] if single else "f8")
        if aligned:
            kernel[1, 1](records, other)
            continue
        with pytest.raises(CompilationError, match=r"records\.kept of a record: the type .* is not aligned"):
            kernel[1, 1](records, other)
    # All fields at once are an array, which Numba reads wherever it lies.
    if single:
        lockstep.launch(cuda.jit(read_all), 1, 1, records, np.zeros(1, dtype["kept"]))


def read_all(records, out):
    out[0] = records.kept[0]


def test_check_compiles_refuses_a_field_that_is_not_aligned():
    fields = [("a", "i4"), ("kept", "f8")]
    records, aligned = np.zeros(1, fields), np.zeros(1, np.dtype(fields, align=True))
    for function in (read_field, write_field):
        with pytest.raises(CompilationError, match="kept of type float64 is not aligned"):
            lockstep.check_compiles(cuda.jit(function), (records, np.zeros(1)))
    lockstep.check_compiles(cuda.jit(read_field), (aligned, np.zeros(1)))
