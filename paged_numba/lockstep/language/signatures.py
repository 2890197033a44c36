"""Eager signatures, such as ``void(float32[:, ::1], int32)``: which arguments they accept, and how arguments are cast.

Reading a signature needs no Numba; a name that only Numba knows is looked up there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...arguments import LONGEST_REPR, shown
from ...errors import CompilationError, KernelError, LaunchError, LaunchTypeError
from ..machine.arithmetic import tuple_like
from ..machine.lanes import source_line
from ..machine.memory import LaneArray
from .arrays.views import is_contiguous
from .functions import as_dtype, caster


class Type:
    """A type as a signature writes it: ``t[:, ::1]`` is an array of it, ``t(a, b)`` a signature that returns it."""

    def __call__(self, *args: Any) -> Signature:
        """Return the signature that takes `args`."""
        return Signature(tuple(map(as_type, args)), as_type(self))

    def __getitem__(self, axes: Any) -> ArrayType:
        given = axes if isinstance(axes, tuple) else (axes,)
        if not given or any(type(axis) is not slice for axis in given):
            raise TypeError("the axes of an array must be written : or ::1")
        ones = [place for place, axis in enumerate(given) if axis.step == 1]
        layout = "A" if not ones else "C" if ones[0] == len(given) - 1 else "F"
        return ArrayType(getattr(self, "dtype", None), len(given), layout)


@dataclass(frozen=True)
class Scalar(Type):
    """A number."""

    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return str(self.dtype)


@dataclass(frozen=True)
class ArrayType(Type):
    """An array; `layout` is C or F if it is contiguous in this order, else A."""

    dtype: np.dtype[Any] | None
    ndim: int
    layout: str = "A"
    mutable: bool = True

    def __str__(self) -> str:
        axes = [":"] * self.ndim
        if self.ndim and self.layout != "A":
            axes[-1 if self.layout == "C" else 0] = "::1"
        return f"{'' if self.mutable else 'read-only '}{self.dtype}[{', '.join(axes)}]"


@dataclass(frozen=True)
class TupleType(Type):
    """A tuple."""

    items: tuple[Type, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.items))})"


@dataclass(frozen=True)
class OtherType(Type):
    """Any other type; in a signature it accepts every argument."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class PointerType(OtherType):
    """A pointer to numbers: the kernel sees the memory from the address on, as an array."""

    dtype: np.dtype[Any]


VOID = OtherType("void")


class Signature(NamedTuple):
    """Types of the parameters, and the type of the result, which is None if the signature does not give one."""

    args: tuple[Type, ...]
    result: Type | None = None

    def __str__(self) -> str:
        return f"{'' if self.result is None else self.result}({', '.join(map(str, self.args))})"


_ALIASES = {
    "bool": "boolean bool_ bool b1",
    "int8": "int8 i1 char",
    "uint8": "uint8 u1 uchar byte",
    "int16": "int16 i2 short",
    "uint16": "uint16 u2 ushort",
    "int32": "int32 i4 intc",
    "uint32": "uint32 u4 uintc",
    "int64": "int64 i8 int_ intp long_ longlong ssize_t",
    "uint64": "uint64 u8 uint uintp ulong ulonglong size_t",
    "float16": "float16 f2",
    "float32": "float32 f4",
    "float64": "float64 f8 double",
    "complex64": "complex64 c8",
    "complex128": "complex128 c16",
}
"""The names that signatures give to each dtype."""


def _array(
    dtype: Type, ndim: int, layout: str, readonly: bool = False, name: Any = None, aligned: bool = True
) -> ArrayType:
    return ArrayType(getattr(dtype, "dtype", None), ndim, layout, not readonly)


NAMES: dict[str, Any] = {
    **{name: Scalar(np.dtype(dtype)) for dtype, names in _ALIASES.items() for name in names.split()},
    "void": VOID,
    "none": VOID,
    "Array": _array,
    "UniTuple": lambda dtype, count: TupleType((dtype,) * count),
    "Tuple": lambda items: TupleType(tuple(items)),
}
"""The names that a signature may use."""


def as_type(value: Any) -> Type:
    """Return a type of Numba, or a dtype, as a `Type`.

    Raises
    ------
    TypeError
        `value` is not a type.
    """
    if isinstance(value, Scalar):
        return Scalar(value.dtype)
    if isinstance(value, Type):
        return value
    kinds = {base.__name__ for base in type(value).__mro__ if "numba" in base.__module__}
    if "Array" in kinds:
        return ArrayType(as_dtype(value.dtype), value.ndim, value.layout, value.mutable)
    if "BaseTuple" in kinds:
        return TupleType(tuple(map(as_type, value)))
    if "NoneType" in kinds:
        return VOID
    if "CPointer" in kinds and (pointed := as_dtype(value.dtype)) is not None:
        return PointerType(str(value), pointed)
    dtype = as_dtype(value)
    if dtype is not None and dtype.names is None:
        return Scalar(dtype)
    if kinds or dtype is not None:
        return OtherType(str(value))
    raise TypeError(f"{value!r} is not a type")


def signatures(given: Any) -> list[Signature]:
    """Return the signatures in the first argument of ``cuda.jit``: one of them, or a list.

    Raises
    ------
    LaunchError
        A signature cannot be read.
    """
    if isinstance(given, list):
        if any(isinstance(item, list) for item in given):
            raise _unreadable(given)
        return [signature for item in given for signature in signatures(item)]
    try:
        read = _evaluated(given) if isinstance(given, str) else given
        if isinstance(read, Signature):
            return [read]
        if isinstance(read, tuple):
            return [Signature(tuple(map(as_type, read)))]
        if hasattr(read, "args") and hasattr(read, "return_type"):
            result = None if read.return_type is None else as_type(read.return_type)
            return [Signature(tuple(map(as_type, read.args)), result)]
    except Exception as error:
        raise _unreadable(given, f" ({error})") from error
    raise _unreadable(given)


def _unreadable(given: Any, why: str = "") -> LaunchError:
    return LaunchError(
        f"a signature must read like 'void(float32[:], int32)', got signature={shown(given)}{why[:LONGEST_REPR]}"
    )


def _evaluated(text: str) -> Any:
    try:
        return eval(text, {"__builtins__": {}}, NAMES)
    except NameError:
        return eval(text, {"__builtins__": {}}, {**_names_of_numba(), **NAMES})


def _names_of_numba() -> dict[str, Any]:
    found: dict[str, Any] = {}
    with suppress(ImportError):
        from numba import types

        found.update(vars(types))
        from numba.cuda import types as cuda_types

        found.update(vars(cuda_types))
    return found


def signatures_of(function: Any) -> list[Signature]:
    """Return the signatures with which a kernel or device function was decorated, by the facade's or Numba's jit."""
    known: list[Signature] | None = getattr(function, "__lockstep_signatures__", None)
    if known is not None:
        return known
    # Numba compiles nothing more once a signature was given.
    if getattr(function, "_can_compile", True):
        return []
    device = getattr(function, "targetoptions", {}).get("device")
    return signatures(list(function.nopython_signatures if device else function.overloads))


def check_definition(function: Any, given: Sequence[Signature], device: bool) -> None:
    """Check eager signatures against the function that they decorate.

    Raises
    ------
    LaunchError
        A signature has another number of parameters than the function, or a kernel has a result.
    """
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    for signature in given:
        if len(signature.args) != len(names):
            raise LaunchError(
                f"the signature of {function.__name__} must have a type for each parameter "
                f"({', '.join(names)}), got {signature}"
            )
        if not device and signature.result not in (None, VOID):
            raise LaunchError(f"the kernel {function.__name__} must return void, got signature={signature}")


# Which signature accepts a call: the rules of Numba.

_PROMOTE, _SAFE, _UNSAFE = 1, 2, 3

_RULES = (
    "bool safe int8, bool safe uint8, int8 promote int16, uint8 promote uint16, int16 promote int32, "
    "uint16 promote uint32, int32 promote int64, uint32 promote uint64, uint8 safe int16, uint16 safe int32, "
    "uint32 safe int64, int8 safe float16, int16 safe float32, int32 safe float64, int16 unsafe float16, "
    "int32 unsafe float32, int64 safe float64, uint64 safe float64, float16 promote float32, "
    "float32 promote float64, complex64 promote complex128"
)
"""Conversions as in ``numba.core.typeconv.rules``; the reverse of each is unsafe."""


def _conversions() -> dict[tuple[str, str], int]:
    """Return the rank of the best conversion from each dtype to each other one: that of its worst step."""
    ranks = {"promote": _PROMOTE, "safe": _SAFE, "unsafe": _UNSAFE}
    best = {("float32", "complex64"): _SAFE, ("float64", "complex128"): _SAFE}
    for rule in _RULES.split(", "):
        a, rank, b = rule.split()
        best[a, b], best[b, a] = ranks[rank], _UNSAFE
    for middle in _ALIASES:
        for a in _ALIASES:
            for b in _ALIASES:
                if a != b and (a, middle) in best and (middle, b) in best:
                    worst = max(best[a, middle], best[middle, b])
                    best[a, b] = min(best.get((a, b), worst), worst)
    return best


_CONVERSIONS = _conversions()


def type_of(value: Any) -> Type:
    """Return the type of a lane value."""
    if isinstance(value, LaneArray):
        layout = "F" if is_contiguous(value, -1) else "A"
        layout = "C" if is_contiguous(value) else layout
        return ArrayType(value.dtype, len(value.lengths), layout, bool(value.buffer.flags.writeable))
    if isinstance(value, tuple):
        return TupleType(tuple(map(type_of, value)))
    dtype = getattr(value, "dtype", None)
    return Scalar(dtype) if isinstance(dtype, np.dtype) else OtherType(type(value).__name__)


def conversion(given: Type, wanted: Type) -> int | None:
    """Return how well a type fits a parameter: 0 is exact, 1 to 3 are worse, None is not at all."""
    if given == wanted or (isinstance(wanted, OtherType) and wanted is not VOID):
        return 0
    if isinstance(given, Scalar) and isinstance(wanted, Scalar):
        return _CONVERSIONS.get((given.dtype.name, wanted.dtype.name))
    if isinstance(given, ArrayType) and isinstance(wanted, ArrayType):
        fits = (
            given.ndim == wanted.ndim
            and (wanted.dtype is None or wanted.dtype == given.dtype)
            and wanted.layout in ("A", given.layout)
            and given.mutable >= wanted.mutable
        )
        return _SAFE if fits else None
    if (
        isinstance(given, TupleType)
        and isinstance(wanted, TupleType)
        and len(given.items) == len(wanted.items)
    ):
        ranks = [conversion(g, w) for g, w in zip(given.items, wanted.items, strict=True)]
        return None if None in ranks else max((rank for rank in ranks if rank is not None), default=0)
    return None


def choose(candidates: Sequence[Signature], given: Sequence[Type]) -> list[Signature]:
    """Return the signatures that fit best, several if they fit equally well, in order."""
    rated: list[tuple[tuple[int, ...], Signature]] = []
    for signature in candidates:
        ranks = [conversion(g, w) for g, w in zip(given, signature.args, strict=False)]
        if len(signature.args) == len(given) and None not in ranks:
            rated.append((tuple(ranks.count(rank) for rank in (_UNSAFE, _SAFE, _PROMOTE)), signature))
    best = min((rating for rating, _ in rated), default=None)
    return [signature for rating, signature in rated if rating == best]


def convert(value: Any, wanted: Type | None) -> Any:
    """Return a lane value cast to a type."""
    if isinstance(wanted, Scalar):
        if not hasattr(value, "dtype") or isinstance(value, (LaneArray, np.dtype)):
            raise KernelError(f"a result must be {wanted}, got {type_of(value)}, {source_line()}")
        return value if value.dtype == wanted.dtype else caster(wanted.dtype)(value)
    if isinstance(wanted, TupleType) and isinstance(value, tuple):
        return tuple_like([convert(item, to) for item, to in zip(value, wanted.items, strict=True)], value)
    return None if wanted is VOID else value


def as_declared(candidates: Sequence[Signature], names: Sequence[str], values: Sequence[Any]) -> list[Any]:
    """Return the arguments of a launch, cast as the kernel's signatures say.

    Raises
    ------
    LaunchError
        No signature accepts them, several do equally well, or an integer parameter gets a number that is none.
    """
    given = [type_of(value) for value in values]
    found = choose(candidates, given)
    if len(candidates) == 1 and not found:
        for name, value, wanted in zip(names, given, candidates[0].args, strict=True):
            if conversion(value, wanted) is None:
                raise LaunchTypeError(f"{name} must be {wanted}, as the kernel's signature says, got {value}")
    if len(found) != 1:
        listed = ", ".join(map(str, found or candidates))
        raise LaunchTypeError(
            f"{'Ambiguous overloading' if found else 'No matching definition'}: exactly one signature must fit the "
            f"arguments best, got {'several' if found else 'none'} of {listed} "
            f"for ({', '.join(map(str, given))})"
        )
    for name, kind, wanted in zip(names, given, found[0].args, strict=True):
        _check_integers(name, kind, wanted)
    return [convert(value, wanted) for value, wanted in zip(values, found[0].args, strict=True)]


def _check_integers(name: str, given: Type, wanted: Type) -> None:
    """Refuse a floating-point number for an integer: Numba chooses the signature, but its launch raises TypeError."""
    if isinstance(given, TupleType) and isinstance(wanted, TupleType):
        for place, (item, to) in enumerate(zip(given.items, wanted.items, strict=True)):
            _check_integers(f"{name}[{place}]", item, to)
    elif isinstance(given, Scalar) and isinstance(wanted, Scalar):
        kinds = given.dtype.kind + wanted.dtype.kind
        if kinds in ("fi", "fu"):
            raise LaunchTypeError(f"{name} must be an integer, as the kernel's signature says, got {given}")


def call_signed(
    candidates: Sequence[Signature], name: str, function: Callable[..., Any], *values: Any
) -> Any:
    """Call a device function that has signatures; cast its arguments and its result as they say."""
    given = [type_of(value) for value in values]
    found = choose(candidates, given)
    if not found:
        raise CompilationError(
            f"{name} must be called as its signature says, {' or '.join(map(str, candidates))}, "
            f"got ({', '.join(map(str, given))}), {source_line()}"
        )
    chosen = found[0]  # Numba takes the first of several that fit equally well
    arguments = [convert(value, wanted) for value, wanted in zip(values, chosen.args, strict=True)]
    result = function(*arguments)
    return result if chosen.result is None else convert(result, chosen.result)
