"""Every kernel compiles for a GPU, on a machine without a GPU: Numba checks types that lockstep does not."""

import functools
import importlib
import pkgutil
import re

import pytest

import paged_numba.kernels

numba_cuda = pytest.importorskip("numba.cuda", reason="numba is not installed")
types = pytest.importorskip("numba").types

FLOAT, INT32, INT64 = types.float32, types.int32, types.int64
VECTOR, MATRIX = types.Array(FLOAT, 1, "C"), types.Array(FLOAT, 2, "C")


def storage(name):
    """Return Numba's type of a dtype."""
    if name == "float8_e4m3fn":
        return pytest.importorskip("numba.cuda._internal.cuda_fp8")._type_fp8_e4m3
    known = pytest.importorskip("numba.cuda.types")
    if not hasattr(known, name):  # that of Numba itself
        pytest.skip("numba-cuda is not installed: pip install '.[cuda13]'", allow_module_level=True)
    return getattr(known, name)


def signatures(query, cache, order="C"):
    """Return the argument types of each kernel; `order` is A for caches whose strides are not those of NHD."""
    tokens, outputs = types.Array(storage(cache), 3, "C"), types.Array(storage(query), 3, "C")
    pool = types.Array(storage(cache), 4, order)
    packed = types.Array(storage(cache), 5, order)
    parts = types.Array(FLOAT, 3, "C")
    given = (outputs, MATRIX, outputs, pool, pool, INT32[:, ::1], INT32[:, ::1])
    options = (VECTOR, VECTOR, VECTOR, VECTOR, FLOAT, FLOAT)
    return {
        "copy_blocks_kernel": (pool, pool, INT64[:, ::1]),
        "attention_tile_kernel": (*given, INT32[:, ::1], INT64, *options),
        "attention_block_kernel": (*given, *options),
        "attention_naive_kernel": (*given, *options),
        "attention_warp_kernel": (*given, *options),
        "attention_textbook_kernel": (parts, outputs, pool, pool, INT32[:, ::1], INT32[::1], FLOAT),
        "attention_packed_kernel": (*given[:3], packed, *given[4:], *options),
        "merge_splits_kernel": (outputs, MATRIX, parts, MATRIX, INT32[::1], VECTOR),
        "merge_states_kernel": (outputs, MATRIX, outputs, MATRIX, outputs, MATRIX),
        "gather_kv_kernel": (tokens, tokens, pool, pool, INT32[::1]),
        "gather_kv_packed_kernel": (tokens, tokens, packed, pool, INT32[::1]),
        "write_kv_kernel": (tokens, tokens, pool, pool, INT64[::1]),
        "write_kv_packed_kernel": (tokens, tokens, packed, pool, INT64[::1]),
    }


NAMES = sorted(signatures("float32", "float32"))
SIZES = [(1, 64), (8, 128), (16, 128), (16, 256), (64, 128), (128, 256)]
"""Query rows and threads for which the tile kernel is compiled here; launches use further sizes."""


def kernels():
    """Return every kernel of the package by name."""
    found = {}
    for module in pkgutil.iter_modules(paged_numba.kernels.__path__):
        contents = vars(importlib.import_module(f"paged_numba.kernels.{module.name}"))
        found.update({name: value for name, value in contents.items() if name.endswith("_kernel")})
        makers = {name: value for name, value in contents.items() if name.endswith("_kernel_for")}
        found.update({name.removesuffix("_for"): make(*SIZES[0]) for name, make in makers.items()})
    return found


pytestmark = pytest.mark.usefixtures("cuda_compiler")


def test_every_kernel_is_compiled_here():
    assert sorted(kernels()) == NAMES


@functools.cache
def compiled(kernel, signature, capability=(9, 0)):
    ptx, _ = numba_cuda.compile_ptx(kernel.py_func, types.void(*signature), cc=capability)
    assert f".target sm_{capability[0]}{capability[1]}" in ptx
    # A Python float literal would have made the arithmetic float64, at 1/2 to 1/64 of the speed.
    assert ".f64" not in ptx
    return ptx


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)], ids=["sm_80", "sm_90"])
@pytest.mark.parametrize("name", NAMES)
def test_kernel_compiles_and_computes_in_float32(name, capability):
    ptx = compiled(kernels()[name], signatures("float32", "float32")[name], capability)
    assert name in ptx


@pytest.mark.parametrize(
    "types_of",
    [
        ("float16", "float16"), ("bfloat16", "bfloat16"), ("bfloat16", "float8_e4m3fn"), ("float32", "float32", "A"),
    ],
    ids="-".join,
)  # fmt: skip
@pytest.mark.parametrize("name", NAMES)
def test_kernel_compiles_for_every_storage(name, types_of):
    compiled(kernels()[name], signatures(*types_of)[name])


@pytest.mark.parametrize("sizes", SIZES)
def test_attention_tile_fits_shared_memory_and_keeps_sums_of_up_to_16_rows_in_registers(sizes):
    from paged_numba.kernels.attention_tile import attention_tile_kernel_for

    ptx = compiled(
        attention_tile_kernel_for(*sizes), signatures("float32", "float32")["attention_tile_kernel"]
    )
    shared = sum(int(size) for size in re.findall(r"\.shared .*?\[(\d+)\]", ptx))
    assert 0 < shared <= 48 * 1024
    # Local memory means that a loop over rows was not unrolled. With 16 rows, that may only be the loop for keys that
    # not all rows see, with 4 more loads and 4 more stores of 16 bytes a tile. With more rows, local memory holds sums
    # and scores.
    local = sum(int(size) for size in re.findall(r"\.local .*?\[(\d+)\]", ptx))
    rows = sizes[0]
    assert local <= (0 if rows < 16 else 4 * 16 if rows == 16 else 4 * (rows + 16))
    assert len(re.findall(r"[sl][td]\.local", ptx)) <= 14 or rows > 16


@pytest.mark.parametrize("name", ["attention_packed_kernel", "attention_warp_kernel"])
def test_sums_are_kept_in_registers(name):
    ptx = compiled(kernels()[name], signatures("float32", "float32")[name])
    assert not re.findall(r"[sl][td]\.local", ptx)


def test_attention_warp_has_no_shared_memory_and_no_barrier():
    ptx = compiled(
        kernels()["attention_warp_kernel"], signatures("float32", "float32")["attention_warp_kernel"]
    )
    assert ptx.count("shfl.sync.bfly") == 5
    assert ".shared" not in ptx
    assert "bar.sync" not in ptx


def test_kernel_that_numba_cannot_type_does_not_compile():
    def untypable(out):
        out[0] = "text"

    with pytest.raises(Exception, match=r"nopython|untyped|No implementation|unicode"):
        numba_cuda.compile_ptx(untypable, types.void(VECTOR), cc=(9, 0))
