"""Arithmetic has Numba's types, not NumPy's: each operator on each pair of types, against Numba's typing."""

import itertools
import math
import operator

import numpy as np
import pytest

from paged_numba.lockstep.language import functions
from paged_numba.lockstep.machine import arithmetic

numba = pytest.importorskip("numba", reason="Numba is the oracle, and is not installed")
cuda = pytest.importorskip("numba.cuda")
descriptor = pytest.importorskip("numba.cuda.descriptor")
# numba-cuda has types of its own; Numba's own CUDA target, which runs without numba-cuda, has those of the CPU.
types = cuda.types if hasattr(cuda.types, "float32") else numba.types

NAMES = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float32",
    "float64",
]
COMPLEX = ["complex64", "complex128"]
OPERATORS = {
    operator.add: arithmetic.add,
    operator.sub: arithmetic.sub,
    operator.mul: arithmetic.mul,
    operator.truediv: arithmetic.truediv,
    operator.floordiv: arithmetic.floordiv_unchecked,
    operator.mod: arithmetic.mod_unchecked,
    operator.pow: arithmetic.power,
    operator.and_: arithmetic.bit_and,
    operator.or_: arithmetic.bit_or,
    operator.xor: arithmetic.bit_xor,
    operator.lshift: arithmetic.lshift,
    operator.rshift: arithmetic.rshift,
}


def numba_type(name):
    return types.boolean if name == "bool" else getattr(types, name)


@pytest.fixture(scope="module")
def context():
    """Return Numba's typing context for CUDA."""
    descriptor.cuda_target.typing_context.refresh()
    return descriptor.cuda_target.typing_context


def numba_result(context, function, *names):
    """Return the dtype that Numba gives a result, or None if Numba has no such operation."""
    try:
        signature = context.resolve_function_type(function, tuple(map(numba_type, names)), {})
    except numba.TypingError:
        return None
    return None if signature is None else np.dtype(str(signature.return_type))


@pytest.mark.parametrize("function", OPERATORS, ids=lambda function: function.__name__)
def test_binary_operator_has_the_type_that_numba_gives_it(context, function):
    differences = []
    compared = 0
    for a, b in itertools.product(NAMES + COMPLEX, repeat=2):
        expected = numba_result(context, function, a, b)
        if expected is None:
            continue
        actual = OPERATORS[function](np.ones(1, a), np.ones(1, b)).dtype
        compared += 1
        if actual != expected:
            differences.append(f"{a} {function.__name__} {b}: {actual}, Numba {expected}")
    assert compared > 20
    assert not differences


@pytest.mark.parametrize(
    "name", ["exp", "log", "sqrt", "sin", "tanh", "floor", "erf", "lgamma", "isnan", "fabs"]
)
def test_math_function_has_the_type_that_numba_gives_it(context, name):
    differences = []
    compared = 0
    for a in ["int32", "int64", "uint64", "float32", "float64"]:
        expected = numba_result(context, getattr(math, name), a)
        if expected is None:
            continue
        actual = functions.MATH[name].function(np.ones(1, a)).dtype
        compared += 1
        if actual != expected:
            differences.append(f"{name}({a}): {actual}, Numba {expected}")
    assert compared >= 2
    assert not differences
