"""Every kernel type-checks and compiles for a GPU, with none here: lockstep does not type-check as Numba does."""

import importlib
import pkgutil

import pytest

import paged_numba.kernels

numba_cuda = pytest.importorskip("numba.cuda", reason="numba is not installed")
types = pytest.importorskip("numba").types

FLOAT, INT32, INT64 = types.float32, types.int32, types.int64
VECTOR, MATRIX, TOKENS, CACHE = (types.Array(FLOAT, ndim, "C") for ndim in (1, 2, 3, 4))
ATTENTION = (TOKENS, MATRIX, TOKENS, CACHE, CACHE, *[INT32[:, ::1]] * 2, VECTOR, VECTOR, FLOAT, FLOAT)

SIGNATURES = {
    "copy_blocks_kernel": (CACHE, CACHE, INT64[:, ::1]),
    "attention_block_kernel": ATTENTION,
    "attention_naive_kernel": ATTENTION,
    "merge_splits_kernel": (TOKENS, MATRIX, TOKENS, MATRIX, INT32[::1], VECTOR),
    "merge_states_kernel": (TOKENS, MATRIX, TOKENS, MATRIX, TOKENS, MATRIX),
    "gather_kv_kernel": (TOKENS, TOKENS, CACHE, CACHE, INT32[::1]),
    "write_kv_kernel": (TOKENS, TOKENS, CACHE, CACHE, INT64[::1]),
}


def kernels():
    """Return every kernel of the package by name."""
    found = {}
    for module in pkgutil.iter_modules(paged_numba.kernels.__path__):
        contents = vars(importlib.import_module(f"paged_numba.kernels.{module.name}"))
        found.update({name: value for name, value in contents.items() if name.endswith("_kernel")})
    return found


pytestmark = pytest.mark.usefixtures("cuda_compiler")


def test_every_kernel_is_compiled_here():
    assert sorted(kernels()) == sorted(SIGNATURES)


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)], ids=["sm_80", "sm_90"])
@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_kernel_compiles_and_computes_in_float32(name, capability):
    ptx, _ = numba_cuda.compile_ptx(kernels()[name].py_func, types.void(*SIGNATURES[name]), cc=capability)
    assert f".target sm_{capability[0]}{capability[1]}" in ptx
    assert name in ptx
    # A Python float literal would have made the arithmetic float64, at 1/2 to 1/64 of the speed.
    assert ".f64" not in ptx


def test_kernel_that_numba_cannot_type_does_not_compile():
    def untypable(out):
        out[0] = "text"

    with pytest.raises(Exception, match=r"nopython|untyped|No implementation|unicode"):
        numba_cuda.compile_ptx(untypable, types.void(VECTOR), cc=(9, 0))
