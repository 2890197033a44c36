"""Operators of the kernel language on lane values, with Numba's typing rules.

A lane value is a NumPy scalar (the same for all lanes) or an array that broadcasts to
``[thread blocks, threads]``. NumPy would keep ``int32 + int32`` at int32 and turn ``int64 + uint64``
into float64; Numba widens both to a 64-bit integer. Rules: Numba documentation, "Numba Enhancement
Proposal 1: Changes in integer typing".
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

Value = Any
"""A NumPy scalar or array, or a tuple of them: what a kernel expression evaluates to."""

BOOL, INT64, UINT64 = np.dtype(np.bool_), np.dtype(np.int64), np.dtype(np.uint64)
UINT16, INT32 = np.dtype(np.uint16), np.dtype(np.int32)
FLOAT16, FLOAT32, FLOAT64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)


class LaneTuple(tuple[Any, ...]):
    """A tuple of lane values, which compares by lane with tuples, and with nothing else."""

    __slots__ = ()
    __array_ufunc__ = None  # NumPy would compare a number with each item
    __hash__ = tuple.__hash__

    def __eq__(self, other: object) -> Any:
        self._require_tuple("==", other)
        return _tuples_equal(self, other)

    def __ne__(self, other: object) -> Any:
        self._require_tuple("!=", other)
        return np.logical_not(_tuples_equal(self, other))

    def __lt__(self, other: Any) -> Any:
        self._require_tuple("<", other)
        return _tuple_less(self, other)

    def __gt__(self, other: Any) -> Any:
        self._require_tuple(">", other)
        return _tuple_less(other, self)

    def __le__(self, other: Any) -> Any:
        self._require_tuple("<=", other)
        return np.logical_not(_tuple_less(other, self))

    def __ge__(self, other: Any) -> Any:
        self._require_tuple(">=", other)
        return np.logical_not(_tuple_less(self, other))

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a variable must hold a tuple in all threads or in none: use two variables")

    def _require_tuple(self, operator: str, other: object) -> None:
        if not isinstance(other, tuple):
            raise TypeError(f"{operator} compares a tuple only with a tuple")


def lane_type(kind: Any) -> Any:
    """Return the subclass of a named tuple that compares as `LaneTuple` does."""
    if issubclass(kind, LaneTuple):
        return kind
    made = _lane_types.get(kind)
    if made is None:
        made = _lane_types[kind] = type(kind.__name__, (LaneTuple, kind), {"__slots__": ()})
    return made


_lane_types: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def tuple_like(values: Any, example: tuple[Any, ...]) -> Any:
    """Return a tuple of `values`, of the same named tuple as `example` if that is one."""
    return lane_type(type(example))._make(values) if hasattr(example, "_fields") else LaneTuple(values)


def _tuples_equal(a: Any, b: Any) -> Any:
    if not isinstance(a, tuple):
        return a == b
    if len(a) != len(b):
        return np.bool_(False)
    equal: Any = np.bool_(True)
    for x, y in zip(a, b, strict=True):
        equal = equal & _tuples_equal(x, y)
    return equal


def _tuple_less(a: tuple[Any, ...], b: tuple[Any, ...]) -> Any:
    less: Any = np.bool_(len(a) < len(b))
    for x, y in reversed(list(zip(a, b, strict=False))):
        first = _tuple_less(x, y) if isinstance(x, tuple) else x < y
        less = first | (_tuples_equal(x, y) & less)
    return less


def integer_result(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """Return uint64 if both are unsigned, else int64."""
    return UINT64 if a.kind == "u" and b.kind == "u" else INT64


def arithmetic_result(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of ``a + b``, ``a - b`` and ``a * b``."""
    if a.kind in "biu" and b.kind in "biu":
        return integer_result(a, b)
    if np.dtype(np.uint8) in (a, b) and FLOAT16 in (a, b):
        return FLOAT32
    # Numba does not convert uint16 to float32, although every uint16 fits.
    a, b = (INT32 if dtype == UINT16 else dtype for dtype in (a, b))
    return np.promote_types(a, b)


def division_result(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of ``a / b``."""
    result = arithmetic_result(a, b)
    return FLOAT64 if result.kind in "iu" else result


def floor_result(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of ``a // b`` and ``a % b``."""
    result = arithmetic_result(a, b)
    return FLOAT32 if result == FLOAT16 else result


def power_result(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of ``a ** b``: an integer exponent keeps a floating-point base."""
    if a.kind == "f" and b.kind in "biu":
        return np.promote_types(a, FLOAT32)
    if a == BOOL and b == INT32:
        return FLOAT32  # the overload that Numba happens to find
    result = arithmetic_result(a, b)
    return FLOAT32 if result == FLOAT16 else result


def bitwise_result(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of ``a & b``, ``a | b`` and ``a ^ b``."""
    if a == BOOL and b == BOOL:
        return BOOL
    _require_integers(a, b)
    return integer_result(a, b)


def shift_result(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of ``a << b`` and ``a >> b``: the left operand decides."""
    _require_integers(a, b)
    return UINT64 if a.kind == "u" else INT64


def _require_integers(*dtypes: np.dtype[Any]) -> None:
    for dtype in dtypes:
        if dtype.kind not in "biu":
            raise TypeError(f"a bitwise operator needs integers, got {dtype}")


_TIMES = {"M": "d", "m": "t"}
_OPERATORS_OF_TIMES: dict[Any, str] = {
    np.add: "dt td tt",
    np.subtract: "dd dt tt",
    np.multiply: "tn nt",
    np.true_divide: "tt tn",
    np.floor_divide: "tn",
}
"""The operands that Numba's operators take: d is a datetime64, t a timedelta64 and n a number."""


def _without_dtype(native: Callable[[Any, Any], Any], a: Value, b: Value) -> Value:
    """Return the result of an operator on a value that is not a number: tuples can be joined."""
    plain = [isinstance(value, tuple) and not hasattr(value, "_fields") for value in (a, b)]
    if native is operator.add and all(plain):
        return LaneTuple((*a, *b))
    for value in (a, b):
        if not isinstance(value, tuple):
            value.dtype  # noqa: B018 (an AttributeError that names the value)
    raise TypeError(f"Numba has no {native.__name__} of a tuple, except to join two plain ones")


def _binary(
    ufunc: np.ufunc, native: Callable[[Any, Any], Any], result: Callable[[Any, Any], np.dtype[Any]]
) -> Callable[[Value, Value], Value]:
    """Make an operator that uses NumPy's own result dtype if it agrees with Numba's, else the dtype of `result`."""
    plans: dict[tuple[int, int], np.dtype[Any] | None] = {}

    def plan(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any] | None:
        if a.kind in "mM" or b.kind in "mM":
            if (_TIMES.get(a.kind, "n") + _TIMES.get(b.kind, "n")) not in _OPERATORS_OF_TIMES.get(ufunc, ""):
                raise TypeError(f"Numba has no {native.__name__} of {a} and {b}")
            plans[a.num, b.num] = None
            return None
        if "V" in (a.kind, b.kind) and a != b:
            raise TypeError(f"Numba has no {native.__name__} of {a} and {b}")
        wanted = result(a, b)
        try:
            agrees = ufunc(np.ones(1, a), np.ones(1, b)).dtype == wanted
        except TypeError:  # NumPy has no bool - bool
            agrees = False
        plans[a.num, b.num] = None if agrees else wanted
        return plans[a.num, b.num]

    def operate(a: Value, b: Value) -> Value:
        try:
            a_type, b_type = a.dtype, b.dtype
        except AttributeError:
            return _without_dtype(native, a, b)
        try:
            wanted = plans[a_type.num, b_type.num]
        except KeyError:
            wanted = plan(a_type, b_type)
        if wanted is None:
            return native(a, b)
        return ufunc(a.astype(wanted), b.astype(wanted))

    return operate


add = _binary(np.add, operator.add, arithmetic_result)
sub = _binary(np.subtract, operator.sub, arithmetic_result)
mul = _binary(np.multiply, operator.mul, arithmetic_result)
truediv = _binary(np.true_divide, operator.truediv, division_result)
bit_and = _binary(np.bitwise_and, operator.and_, bitwise_result)
bit_or = _binary(np.bitwise_or, operator.or_, bitwise_result)
bit_xor = _binary(np.bitwise_xor, operator.xor, bitwise_result)
lshift = _binary(np.left_shift, operator.lshift, shift_result)
rshift = _binary(np.right_shift, operator.rshift, shift_result)
_floordiv = _binary(np.floor_divide, operator.floordiv, floor_result)
_mod = _binary(np.remainder, operator.mod, floor_result)


def _exponent(a: Value, b: Value) -> int | None:
    """Return the exponent if integers by lane are divided by the same power of two, else None."""
    if (
        type(a) is not np.ndarray
        or type(b) is np.ndarray
        or b.dtype.kind not in "iu"
        or a.dtype.kind not in "iu"
    ):
        return None
    divisor = int(b)
    return divisor.bit_length() - 1 if divisor > 0 and not divisor & (divisor - 1) else None


def floordiv_unchecked(a: Value, b: Value) -> Value:
    """``a // b``; a shift takes a third of the time of a division."""
    exponent = _exponent(a, b)
    if exponent is None:
        return _floordiv(a, b)
    dtype = integer_result(a.dtype, b.dtype)
    return a.astype(dtype, copy=False) >> dtype.type(exponent)


def mod_unchecked(a: Value, b: Value) -> Value:
    """``a % b``; a mask takes a tenth of the time of a division."""
    exponent = _exponent(a, b)
    if exponent is None:
        return _mod(a, b)
    dtype = integer_result(a.dtype, b.dtype)
    return a.astype(dtype, copy=False) & dtype.type((1 << exponent) - 1)


def power(a: Value, b: Value) -> Value:
    """``a ** b``; integers with a negative exponent give 0 unless the base is 1 or -1."""
    dtype = power_result(a.dtype, b.dtype)
    if dtype.kind in "iu":
        a, b = a.astype(dtype), b.astype(dtype)
        positive = np.power(a, np.maximum(b, dtype.type(0)))
        if dtype.kind == "u" or np.all(b >= 0):
            return positive
        sign = np.where(b % 2 == 0, dtype.type(1), a)
        return np.where(b >= 0, positive, np.where(np.abs(a) == 1, sign, dtype.type(0)))
    return np.power(a.astype(dtype), b.astype(dtype))


def power_literal(a: Value, exponent: int) -> Value:
    """``a ** exponent`` for an integer literal, by repeated squaring, as Numba compiles it."""
    remaining, base = abs(exponent), positive(a)
    result = None
    while remaining:
        if remaining & 1:
            result = base if result is None else result * base
        remaining >>= 1
        if remaining:
            base = base * base
    if result is None:
        result = base.dtype.type(1)
    return truediv(base.dtype.type(1), result) if exponent < 0 else result


def _widened(a: Value) -> Value:
    if a.dtype.kind in "biu":
        return a.astype(UINT64 if a.dtype.kind == "u" else INT64)
    return a


def positive(a: Value) -> Value:
    """``+a``."""
    return _widened(a)


def negative(a: Value) -> Value:
    """``-a``."""
    if a.dtype.kind == "M":
        raise TypeError("Numba has no negative of a datetime64")
    return -_widened(a)


def invert(a: Value) -> Value:
    """``~a``."""
    if a.dtype == BOOL:
        return ~a
    _require_integers(a.dtype)
    return ~_widened(a)


def truth(a: Value) -> Value:
    """Return the truth value of `a` by lane."""
    if isinstance(a, (bool, tuple)):
        return np.bool_(len(a) > 0 if isinstance(a, tuple) else a)
    if a.dtype.kind in "mM":
        raise TypeError(f"a {a.dtype} is neither true nor false")
    return a if a.dtype == BOOL else a != 0


def logical_not(a: Value) -> Value:
    """``not a`` by lane."""
    return np.logical_not(truth(a))


# Conversions, as the PTX that Numba emits converts. ``cvt.rzi`` truncates a float32 or float64 and saturates. The
# 8-bit integers are converted through 16 bits and keep the low byte. From float16 it is ``cvt.rni``, which rounds to
# even, and saturates at the type itself. Source of the results for values out of range: PTX ISA 9.0, ``cvt``.

_WIDENED = {np.dtype(np.int8): np.dtype(np.int16), np.dtype(np.uint8): UINT16}


def convert(value: Value, dtype: np.dtype[Any]) -> Value:
    """Return `value`, a NumPy scalar or array, as `dtype`; integers wrap around."""
    if value.dtype == dtype:
        return value
    if dtype.kind in "iu":
        if value.dtype.kind == "f":
            return _to_integer(value, dtype)
        if value.dtype.kind == "V":  # bfloat16
            return _to_integer(value.astype(FLOAT32), dtype)
    return value.astype(dtype)


def _to_integer(value: Value, dtype: np.dtype[Any]) -> Value:
    half = value.dtype == FLOAT16
    register = dtype if half else _WIDENED.get(dtype, dtype)
    least, end = int(np.iinfo(register).min), int(np.iinfo(register).max) + 1
    if not half and (not value.size or (float(value.min()) > least - 1 and float(value.max()) < end)):
        return value.astype(register).astype(dtype)
    exact = value.astype(np.float64)
    whole = np.rint(exact) if half else np.trunc(exact)
    fits = (whole >= least) & (whole < end)
    result = np.where(fits, whole, 0.0).astype(register)
    result[whole >= end] = end - 1
    result[whole < least] = least
    if value.dtype.itemsize == 8 or register.itemsize == 8:
        # PTX: 1 << (bits - 1); for all other pairs NaN gives 0.
        result[np.isnan(whole)] = least or end // 2
    return result.astype(dtype)[()]


def cast(a: Value, dtype: np.dtype[Any]) -> Value:
    """`convert` a value that a kernel casts."""
    if a.dtype.kind == "c" and dtype.kind != "c":
        raise TypeError(f"a complex value cannot be cast to {dtype}")
    return convert(a, dtype)


def unify(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """Convert values to the one type that Numba would give a variable that holds any of them."""
    dtype = values[0].dtype
    for value in values[1:]:
        if value.dtype != dtype:
            dtype = np.promote_types(dtype, value.dtype)
    return tuple(value if value.dtype == dtype else value.astype(dtype) for value in values)


_BITS = {np.dtype(code).num: np.dtype(f"i{np.dtype(code).itemsize}") for code in "ilqILQfd"}
"""By number of a dtype of 4 or 8 bytes, the integer of its size."""

_MANY = 2048
"""Number of lanes from which three operations on bits take less time than a branch for each lane."""


def where(condition: Any, a: Value, b: Value) -> Value:
    """``np.where(condition, a, b)``, in a quarter of the time if the processor cannot predict the condition."""
    if (
        type(condition) is np.ndarray
        and condition.size >= _MANY
        and isinstance(a, (np.ndarray, np.generic))
        and isinstance(b, (np.ndarray, np.generic))
        and a.dtype == b.dtype
        and a.dtype.num in _BITS
    ):
        bits = _BITS[a.dtype.num]
        kept = b.view(bits)
        result = a.view(bits) ^ kept
        if result.shape == condition.shape:
            result *= condition
            result ^= kept
            return result.view(a.dtype)
    return np.where(condition, a, b)


def select(condition: Value, a: Value, b: Value) -> Value:
    """Return `a` where `condition` holds and `b` elsewhere, unified."""
    if isinstance(a, tuple):
        return tuple_like([select(condition, x, y) for x, y in zip(a, b, strict=True)], a)
    condition = truth(condition)
    if not isinstance(condition, np.ndarray):
        a, b = unify((a, b))
        return a if condition else b
    return where(condition, a, b)


def minimum(*values: Value) -> Value:
    """``min``; of a NaN and a number it returns the number, as PTX's ``min`` instruction does."""
    return _extremum(np.fmin, np.minimum, values)


def maximum(*values: Value) -> Value:
    """``max``; of a NaN and a number it returns the number, as PTX's ``max`` instruction does."""
    return _extremum(np.fmax, np.maximum, values)


def _extremum(floating: np.ufunc, integer: np.ufunc, values: tuple[Value, ...]) -> Value:
    if len(values) == 1 and isinstance(values[0], tuple):
        values = values[0]
    values = unify(values)
    ufunc = floating if values[0].dtype.kind == "f" else integer
    result = values[0]
    for value in values[1:]:
        result = ufunc(result, value)
    return result


def contains(item: Value, values: tuple[Value, ...]) -> Value:
    """``item in values``."""
    found: Value = np.bool_(False)
    for value in values:
        found = found | _tuples_equal(item, value)
    return found
