"""Eager signatures accept and cast as Numba's do: each rule against Numba itself."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paged_numba import lockstep
from paged_numba.errors import KernelError, LaunchError
from paged_numba.lockstep.cuda import facade as cuda
from paged_numba.lockstep.language import signatures as ours

DTYPES = sorted(ours._ALIASES)


@pytest.fixture(scope="module")
def numba():
    """Return Numba's types, its reader of signatures and its typing context for CUDA."""
    types = pytest.importorskip("numba.cuda.types")
    descriptor = pytest.importorskip("numba.cuda.descriptor")
    sigutils = pytest.importorskip("numba.cuda.core.sigutils")
    return types, sigutils.normalize_signature, descriptor.cuda_target.typing_context


# Reading.

TEXTS = [
    "void(float32[:], int32)",
    "(f4[::1], i8, b1)",
    " void ( float64[:, ::1] , float64[::1, :],uint8[:,:,:]) ",
    "int64(int64, int64)",
    "none(UniTuple(int64, 3), Tuple((float32, int8)))",
    "void(Array(float32, 2, 'C', readonly=True), Array(boolean, 1, 'A'))",
    "double(intp, uintp, size_t, longlong, uchar, byte, char, short, complex64)",
    "void()",
]


@pytest.mark.parametrize("text", TEXTS)
def test_signature_as_text_is_read_as_numba_reads_it(numba, text):
    args, result = numba[1](text)
    read = ours.signatures(text)
    assert read == ours.signatures([text])
    assert [list(signature.args) for signature in read] == [[ours.as_type(a) for a in args]]
    assert read[0].result == (None if result is None else ours.as_type(result))


def test_every_name_of_a_number_is_numbas(numba):
    types = numba[0]
    for name, value in ours.NAMES.items():
        if isinstance(value, ours.Scalar):
            assert ours.as_type(getattr(types, name)) == value, name


@pytest.mark.parametrize(
    "text", ["float32", "void(float32", "void(flot32)", "void(float32[0])", "1", "void(1)"]
)
def test_text_that_is_no_signature_is_refused(text):
    with pytest.raises(LaunchError, match="a signature must read like"):
        cuda.jit(text)(lambda x: None)


# Choosing.


def numba_type(types, of):
    if isinstance(of, ours.Scalar):
        return types.boolean if of.dtype == bool else getattr(types, of.dtype.name)
    if isinstance(of, ours.TupleType):
        return types.Tuple([numba_type(types, item) for item in of.items])
    return types.Array(numba_type(types, ours.Scalar(of.dtype)), of.ndim, of.layout, readonly=not of.mutable)


def test_each_conversion_ranks_as_in_numba(numba):
    types, _, context = numba
    arrays = [
        ours.ArrayType(np.dtype(dtype), ndim, layout, mutable)
        for dtype in ("int32", "float64")
        for ndim in (1, 2)
        for layout in "ACF"
        for mutable in (True, False)
    ]
    scalars = [ours.Scalar(np.dtype(name)) for name in DTYPES]
    tuples = [ours.TupleType(tuple(scalars[:n])) for n in (1, 2)]
    for a, b in itertools.product(arrays + scalars + tuples, repeat=2):
        expected = context.can_convert(numba_type(types, a), numba_type(types, b))
        assert ours.conversion(a, b) == (None if expected is None else int(expected) - 1), (a, b)


some_types = st.sampled_from([ours.Scalar(np.dtype(name)) for name in DTYPES]) | st.builds(
    ours.ArrayType,
    st.sampled_from([np.dtype("float32"), np.dtype("float64")]),
    st.integers(1, 2),
    st.sampled_from("AC"),
    st.booleans(),
)


@given(data=st.data(), count=st.integers(1, 3))
def test_the_same_signature_is_chosen_as_by_numba(numba, data, count):
    types, _, context = numba
    lists = st.lists(some_types, min_size=count, max_size=count).map(tuple)
    candidates = [ours.Signature(args) for args in data.draw(st.lists(lists, min_size=1, max_size=4))]
    values = data.draw(lists)
    templates = [types.void(*(numba_type(types, a) for a in c.args)) for c in candidates]
    chosen = context.resolve_overload(
        "f", templates, tuple(numba_type(types, a) for a in values), {}, allow_ambiguous=True
    )
    found = ours.choose(candidates, values)
    if chosen is None:
        assert found == []
    else:
        assert found[0] == candidates[templates.index(chosen)]


# Kernels.


def copier(signature):
    @cuda.jit(signature)
    def copy(out, x):
        out[0] = x[0]

    return copy


@pytest.mark.parametrize(
    ("signature", "x", "message"),
    [
        ("void(float64[:], float32[:])", np.ones(2), r"x must be float32\[:\], .* got float64\[::1\]"),
        ("void(float64[:], float64[:, :])", np.ones(2), r"x must be float64\[:, :\]"),
        ("void(float64[:], float64[::1])", np.ones(4)[::2], r"x must be float64\[::1\], .*got float64\[:\]"),
        ("void(float64[:], float64[::1, :])", np.ones((2, 3)), r"x must be float64\[::1, :\]"),
        ("void(float64[:], float64[:])", 3.0, r"x must be float64\[:\], .* got float64"),
        ("void(float64[:], float64[:])", None, r"x must be float64\[:\]"),
        ("void(float64[:], float64)", np.ones(2), r"x must be float64, "),
        ("void(float64[:], float64)", 1j, r"x must be float64, .* got complex128"),
        ("void(float64[:], float64[:])", np.broadcast_to(1.0, 3), r"x must be .* got read-only"),
    ],
)
def test_an_argument_of_another_type_is_refused(signature, x, message):
    out = np.zeros(1)
    with pytest.raises(LaunchError, match=message):
        copier(signature)[1, 1](out, x)
    with pytest.raises(LaunchError, match=message):
        lockstep.launch(copier(signature), 1, 1, out, x)
    assert out[0] == 0


@pytest.mark.parametrize(
    ("axes", "x"),
    [
        (":", np.ones(4)[::2]), (":", np.ones(4)[::-1]), ("::1", np.ones(4)), ("::1", np.ones(4)[:1:2]),
        (":, :", np.ones((2, 3)).T), ("::1, :", np.ones((2, 3)).T), (":, ::1", np.ones((2, 3))),
    ],
)  # fmt: skip
def test_an_argument_of_the_declared_layout_is_accepted(axes, x):
    @cuda.jit(f"void(float64[:], float64[{axes}])")
    def sizes(out, x):
        out[0] = x.size

    out = np.zeros(1)
    sizes[1, 1](out, x)
    assert out[0] == x.size


@given(st.sampled_from("iufb"), st.lists(st.integers(0, 3), max_size=3), st.booleans(), st.booleans())
def test_the_type_of_an_array_is_numbas(numba, kind, shape, transposed, stepped):
    array = np.zeros(shape, {"i": "i4", "u": "u1", "f": "f8", "b": "?"}[kind])
    array = array.T if transposed else array
    array = array[::2] if stepped and array.ndim else array
    machine_array = lockstep.launch.__globals__["Machine"].array_type.of(None, "x", array)
    assert ours.type_of(machine_array) == ours.as_type(pytest.importorskip("numba").typeof(array))


def test_of_several_signatures_the_best_is_chosen_and_ties_are_refused():
    @cuda.jit(["void(float64[:], int64)", "void(float64[:], float32)", "void(int32[:], int32)"])
    def kernel(out, value):
        out[0] = value / 2

    out = np.zeros(1)
    kernel[1, 1](out, 3)
    assert out[0] == 1.5
    kernel[1, 1](out, np.float32(0.1))
    assert out[0] == np.float32(0.1) / 2
    with pytest.raises(LaunchError, match=r"none of .* for \(float32\[::1\], int64\)"):
        kernel[1, 1](np.zeros(1, np.float32), 3)
    tied = cuda.jit(["void(int32[:], int64)", "void(int32[:], int64)"])(kernel.py_func)
    with pytest.raises(LaunchError, match=r"got several of"):
        tied[1, 1](np.zeros(1, np.int32), 3)


def test_scalars_are_cast_and_tuples_with_them():
    @cuda.jit("void(float64[:], UniTuple(int32, 2), uint8)")
    def kernel(out, pair, byte):
        out[0] = pair[0]
        out[1] = pair[1]
        out[2] = byte

    out = np.zeros(3)
    kernel[1, 1](out, (np.int64(2**32 + 1), 3), 257)
    assert out.tolist() == [1, 3, 1]
    # Numba's launch raises TypeError, too.
    with pytest.raises(TypeError, match=r"pair\[0\] must be an integer, .* got float64"):
        kernel[1, 1](out, (1.75, 3), 257)
    with pytest.raises(TypeError, match=r"byte must be an integer, .* got float32"):
        kernel[1, 1](out, (1, 3), np.float32(2))


def test_types_of_numba_work_as_text_does():
    types = pytest.importorskip("numba").types
    f8 = types.float64
    for signature in (
        types.void(f8[:], types.int32),
        (f8[:], types.int32),
        [types.void(f8[:], types.int32)],
        [(f8[::1], types.int32), "void(float64[:], int8)"],
        types.void(types.Array(f8, 1, "C"), types.int32),
    ):

        @cuda.jit(signature)
        def kernel(out, value):
            out[0] = value

        out = np.zeros(1)
        kernel[1, 1](out, np.int32(2))
        assert out[0] == 2
        with pytest.raises(LaunchError):
            kernel[1, 1](np.zeros(1, np.float32), np.int32(2))


def test_signatures_of_numbas_own_kernels_are_known(numba):
    types = numba[0]
    dispatcher = pytest.importorskip("numba.cuda").jit(copier("void(float64[:], float64[:])").py_func)
    assert ours.signatures_of(dispatcher) == []
    # As on a machine with a GPU, where Numba compiles for each signature when it decorates.
    dispatcher.overloads[types.float64[:], types.float64[::1]] = None
    dispatcher.disable_compile()
    try:
        assert ours.signatures_of(dispatcher) == ours.signatures("(float64[:], float64[::1])")
        with pytest.raises(LaunchError, match=r"x must be float64\[::1\]"):
            lockstep.launch(dispatcher, 1, 1, np.zeros(1), np.ones(4)[::2])
    finally:
        dispatcher.overloads.clear()  # Numba frees the code of what is in it


@pytest.mark.parametrize("signature", ["void(float32[:])", "void(float32[:], int32, int32)", "void()"])
@pytest.mark.parametrize("device", [False, True])
def test_a_wrong_number_of_parameters_is_an_error_at_decoration(signature, device):
    with pytest.raises(LaunchError, match=r"a type for each parameter \(out, x\)"):

        @cuda.jit(signature, device=device)
        def kernel(out, x):
            out[0] = x


def test_a_kernel_returns_void():
    with pytest.raises(LaunchError, match="must return void"):

        @cuda.jit("int32(int32[:])")
        def kernel(out):
            out[0] = 1


@cuda.jit
def strides_of(out, x):
    out[0], out[1] = x.strides


@cuda.jit
def reshaped(out, x):
    out[0] = x.reshape(x.size)[1]


def test_strides_count_bytes_and_reshape_refuses_gaps():
    whole = np.arange(60.0).reshape(6, 10)
    for x in (whole, whole[::2, ::2], whole.T, whole[::-1], np.ones((6, 10), "f4")[:, ::5]):
        out = np.zeros(2)
        lockstep.launch(strides_of, 1, 1, out, x)
        assert tuple(out) == x.strides
    with pytest.raises(KernelError, match="reshape needs a contiguous array"):
        lockstep.launch(reshaped, 1, 1, np.zeros(1), whole.ravel()[::2])


# Device functions.


@cuda.jit("int64(int64, int64)", device=True)
def add(a, b):
    return a + b


@cuda.jit(["float32(float32)", "float64(float64)"], device=True)
def third(x):
    return x / 3


@cuda.jit("float32(float64)", device=True)
def narrow(x):
    return x / 3


@cuda.jit("void(float64[::1], int8)", device=True)
def fill(out, value):
    for i in range(out.size):
        out[i] = value


@cuda.jit("(int32,)", device=True)
def open_result(x):
    return x * 1.5


@cuda.jit
def calls(out, x):
    i = cuda.grid(1)
    out[i] = add(x[i], 2.5)
    out[4 + i] = third(np.float32(x[i])) + third(x[i])
    out[8 + i] = narrow(x[i])
    out[12 + i] = open_result(x[i]) if x[i] > 2 else 0.0


@cuda.jit
def fills(out):
    fill(out, 300)


@cuda.jit
def fills_memory(out):
    local = cuda.local.array(2, np.float64)
    shared = cuda.shared.array((2, 2), np.float64)
    fill(local, 7)
    fill(shared[1], 8)
    out[0] = local[1]
    out[1] = shared[1, 0]


@cuda.jit
def fills_strided(out):
    fill(out[::2], 1)


@pytest.mark.parametrize("launcher", [lockstep.launch, lockstep.profile, lockstep.sanitize])
def test_a_device_function_casts_arguments_and_result(launcher):
    x = np.array([1.5, 2.5, 3.5, 4.5])
    out = np.zeros(16)
    launcher(calls, 1, 4, out, x)
    np.testing.assert_array_equal(out[:4], [3, 4, 5, 6])
    np.testing.assert_array_equal(out[4:8], np.float32(x) / np.float32(3) + x / 3)
    np.testing.assert_array_equal(out[8:12], np.float32(x / 3))
    np.testing.assert_array_equal(out[12:], [0, 3, 4.5, 6])
    out = np.zeros(3)
    launcher(fills, 1, 1, out)
    np.testing.assert_array_equal(out, 300 - 256)
    launcher(fills_memory, 1, 4, out)
    assert out.tolist() == [7, 8, 300 - 256]


def test_a_device_function_refuses_what_its_signature_does():
    with pytest.raises(
        KernelError, match=r"fill must be called as .*float64\[::1\].*got \(float32\[::1\], int64\)"
    ):
        lockstep.launch(fills, 1, 1, np.zeros(3, np.float32))
    with pytest.raises(KernelError, match=r"got \(float64\[:\], int64\), test_signatures\.py:\d+"):
        lockstep.launch(fills_strided, 1, 1, np.zeros(4))


def test_a_list_that_holds_itself_is_no_list_of_signatures():
    given = ["void(int32)"]
    given.append(given)
    with pytest.raises(LaunchError, match="a signature must read like"):
        cuda.jit(given)(lambda x: None)


# Pointers.


@pytest.mark.parametrize("start", [0, 3])
def test_an_address_of_a_device_array_is_the_memory_from_there_on(start, numba):
    types, _, _ = numba
    array = cuda.to_device(np.arange(8, dtype=np.int32))

    @cuda.jit(types.void(types.CPointer(types.int32), types.int32))
    def add(x, count):
        i = cuda.grid(1)
        if i < count:
            x[i] += 10

    address = array.__cuda_array_interface__["data"][0] + 4 * start
    add[1, 32](address, 8 - start)
    assert array.copy_to_host().tolist() == [*range(start), *range(10 + start, 18)]
    with pytest.raises(IndexError, match="out of bounds"):
        add[1, 32](address, 9 - start)
    for stray in (8, 1.5, array):
        with pytest.raises(
            LaunchError, match="a pointer must be the address of an element of a device array"
        ):
            add[1, 32](stray, 1)


@pytest.mark.parametrize("shape", [(6,), (2, 3), (3, 2), (2, 1, 2), (0, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_carray_and_farray_give_a_pointer_a_shape(shape, order, numba):
    types, _, _ = numba
    view = getattr(pytest.importorskip("numba"), {"C": "carray", "F": "farray"}[order])
    start, size, ndim = 2, int(np.prod(shape)), len(shape)
    array = cuda.to_device(np.arange(9, dtype=np.float32))

    @cuda.jit(types.void(types.CPointer(types.float32), types.float32[:, :], types.int64[:]))
    def number(pointer, count, lengths):
        x = view(pointer, shape, dtype=np.float32)
        for axis in range(ndim):
            lengths[axis] = x.shape[axis]
        for place in np.ndindex(x.shape):
            x[place] = count[0, 0]
            count[0, 0] += 1

    lengths, count = np.zeros(ndim, np.int64), np.full((1, 1), 100, np.float32)
    number[1, 1](array.__cuda_array_interface__["data"][0] + 4 * start, count, lengths)
    assert tuple(lengths) == shape
    expected = np.arange(9, dtype=np.float32)
    memory = expected[start : start + size].reshape(shape, order=order)
    for place, index in enumerate(np.ndindex(shape)):
        memory[index] = 100 + place
    np.testing.assert_array_equal(array.copy_to_host(), expected)


@pytest.mark.parametrize("name", ["carray", "farray"])
def test_carray_and_farray_refuse_what_the_memory_does_not_hold(name, numba):
    types, _, _ = numba
    view = getattr(pytest.importorskip("numba"), name)
    array = cuda.to_device(np.zeros(6, np.float32))
    address = array.__cuda_array_interface__["data"][0]

    @cuda.jit(types.void(types.CPointer(types.float32), types.int64))
    def first(pointer, rows):
        view(pointer, (rows, 2))[0, 0] = 1

    @cuda.jit(types.void(types.CPointer(types.float32)))
    def other(pointer):
        view(pointer, 3, np.int32)[0] = 1

    first[1, 1](address, 3)
    with pytest.raises(IndexError, match=r"must lie in the 6 elements from pointer on, got shape=\(4, 2\)"):
        first[1, 1](address, 4)
    with pytest.raises(KernelError, match="needs the dtype of pointer, float32, got int32"):
        other[1, 1](address)
    assert array.copy_to_host().tolist() == [1, 0, 0, 0, 0, 0]


def test_a_place_in_memory_is_equal_to_the_same_place(numba):
    array = cuda.to_device(np.arange(8, dtype=np.int32))
    assert array.gpu_data == array.view(np.uint32).gpu_data
    assert hash(array.gpu_data) == hash(array.view(np.uint32).gpu_data)
    assert array.gpu_data != array[1:].gpu_data
    assert array.gpu_data != array[:4].gpu_data
