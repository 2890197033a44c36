"""Table of intrinsics: the `Intrinsic` for each path on ``cuda``, each builtin, and each function of ``math``."""

from __future__ import annotations

import cmath
import math
import operator
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from ...errors import KernelError
from ..machine import arithmetic, masks
from ..machine.identity import IdentityMap
from ..machine.machine import Machine
from ..machine.masks import Mask
from ..machine.memory import LaneArray
from . import functions
from .arrays import iteration, methods, ufuncs, views
from .atomics import ATOMICS
from .intrinsic import Intrinsic
from .synchronization import SYNCHRONIZATION
from .types.bfloat16 import BFLOAT16
from .types.fp8 import FP8
from .types.libdevice import LIBDEVICE
from .types.printing import print_lanes


def _nothing(machine: Machine, mask: Mask, *arguments: Any) -> None:
    """Do nothing for a memory fence or a pause: every store is visible at once."""


def _grid(machine: Machine, mask: Mask, ndim: Any) -> Any:
    return machine.grid(int(ndim))


def _gridsize(machine: Machine, mask: Mask, ndim: Any) -> Any:
    return machine.gridsize(int(ndim))


def _load_hinted(machine: Machine, mask: Mask, array: LaneArray, index: Any) -> Any:
    return array.load(mask, index)


def _store_hinted(machine: Machine, mask: Mask, array: LaneArray, index: Any, value: Any) -> None:
    array.store(mask, index, value)


def floordiv(machine: Machine, mask: Mask, a: Any, b: Any) -> Any:
    """``a // b``; raises KernelError if an integer is divided by zero, which is undefined on a GPU."""
    _require_divisor(machine, mask, a, b)
    return arithmetic.floordiv_unchecked(a, b)


def mod(machine: Machine, mask: Mask, a: Any, b: Any) -> Any:
    """``a % b``; raises KernelError if an integer is divided by zero, which is undefined on a GPU."""
    _require_divisor(machine, mask, a, b)
    return arithmetic.mod_unchecked(a, b)


def _divmod(machine: Machine, mask: Mask, a: Any, b: Any) -> Any:
    return floordiv(machine, mask, a, b), mod(machine, mask, a, b)


def _require_divisor(machine: Machine, mask: Mask, a: Any, b: Any) -> None:
    if b.dtype.kind in "biu" and a.dtype.kind in "biu":
        _require_nonzero(machine, mask, b, "integer division by zero")


def nonzero(machine: Machine, mask: Mask, divisor: Any) -> Any:
    """Return a divisor; raises KernelError if it is zero, as all divisions of ``jit(debug=True)`` do."""
    if hasattr(divisor, "dtype"):
        _require_nonzero(machine, mask, divisor, "division by zero")
    return divisor


def _require_nonzero(machine: Machine, mask: Mask, b: Any, what: str) -> None:
    if np.count_nonzero(b) == b.size:
        return
    zero = masks.lanes(mask, machine.shape) & masks.lanes(b == 0, machine.shape)
    if zero.any():
        raise_in_kernel(machine, zero, what, ZeroDivisionError)


_MASKED: dict[str, Intrinsic] = {
    **{
        name: Intrinsic(function, masked=True)
        for name, function in {
            "grid": _grid,
            "gridsize": _gridsize,
            "threadfence": _nothing,
            "threadfence_block": _nothing,
            "threadfence_system": _nothing,
            "nanosleep": _nothing,
            **{f"ld{hint}": _load_hinted for hint in ("ca", "cg", "cs", "lu", "cv")},
        }.items()
    },
    **{f"st{hint}": Intrinsic(_store_hinted, masked=True, kind="store") for hint in ("cg", "cs", "wb", "wt")},
    **SYNCHRONIZATION,
    **ATOMICS,
}


def _vector_types() -> dict[str, Callable[..., Any]]:
    """Return the constructors of vector types such as ``cuda.float32x4``: tuples with fields x, y, z, w."""
    names = {
        "int8": "char",
        "int16": "short",
        "int32": "int",
        "int64": "long",
        "uint8": "uchar",
        "uint16": "ushort",
        "uint32": "uint",
        "uint64": "ulong",
        "float32": "float",
        "float64": "double",
    }

    def maker(name: str, dtype: np.dtype[Any], count: int) -> Callable[..., Any]:
        vector: Any = arithmetic.lane_type(NamedTuple(name, [(axis, Any) for axis in "xyzw"[:count]]))

        def make(*parts: Any) -> Any:
            flat: list[Any] = []
            for part in parts:
                flat.extend(part if hasattr(part, "_fields") else (part,))
            if len(flat) != count:
                raise TypeError(f"{name} takes {count} components, got {len(flat)}")
            return vector(*(arithmetic.cast(component, dtype) for component in flat))

        return make

    made = {}
    for dtype_name, alias in names.items():
        for count in (1, 2, 3, 4):
            make = maker(f"{dtype_name}x{count}", np.dtype(dtype_name), count)
            made[f"{dtype_name}x{count}"] = made[f"{alias}{count}"] = make
    return made


_PURE: dict[str, Intrinsic] = {
    **functions.INTEGER_AND_FLOAT,
    **{f"fp16.{name}": intrinsic for name, intrinsic in functions.FP16.items()},
    **{f"libdevice.{name}": intrinsic for name, intrinsic in LIBDEVICE.items()},
    **{name: Intrinsic(make) for name, make in _vector_types().items()},
    "bfloat16": BFLOAT16["bfloat16"],
    **{f"bf16.{name}": intrinsic for name, intrinsic in BFLOAT16.items()},
    **{f"fp8.{name}": intrinsic for name, intrinsic in FP8.items()},
}

INTRINSICS: dict[str, Intrinsic] = {
    f"cuda.{path}": intrinsic for path, intrinsic in {**_MASKED, **_PURE}.items()
}
"""Everything that a kernel may call on ``cuda``, by its path."""

MACHINE_VALUES = ("threadIdx", "blockIdx", "blockDim", "gridDim", "laneid")
"""Names on ``cuda`` that are attributes of the machine."""

DECLARATIONS = ("cuda.shared.array", "cuda.local.array", "cuda.const.array_like")
"""Calls that declare memory: each declaration in the source makes a separate array."""

_PREFIXES = ("shared", "local", "const", "atomic", "fp16", "bf16", "fp8", "cg", "libdevice")

PREFIXES = tuple(f"cuda.{prefix}" for prefix in _PREFIXES)
"""Groups of names on ``cuda``."""

_BINDINGS = {
    "numba.cuda._internal.cuda_bf16": ("bf16", BFLOAT16),
    "numba.cuda._internal.cuda_fp8": ("fp8", FP8),
}
"""Modules whose functions have other objects than those of ``numba.cuda``: their names there."""

# By identity, since a kernel may name an object that cannot be hashed.
_HOST_FUNCTIONS: IdentityMap[Intrinsic] = IdentityMap(
    [
        (abs, Intrinsic(functions.absolute)),
        (round, Intrinsic(functions.round_)),
        (int, Intrinsic(functions.int_)),
        (float, Intrinsic(functions.float_)),
        (bool, Intrinsic(arithmetic.truth)),
        (complex, Intrinsic(functions.complex_)),
        (pow, Intrinsic(arithmetic.power, special=1)),
        (divmod, Intrinsic(_divmod, masked=True)),
        (print, Intrinsic(print_lanes, masked=True)),
        (tuple, Intrinsic(functions.tuple_)),
        *(
            (function, Intrinsic(floordiv, masked=True))
            for function in (operator.floordiv, operator.ifloordiv)
        ),
        *((function, Intrinsic(mod, masked=True)) for function in (operator.mod, operator.imod)),
        *iteration.BUILTINS,
        *methods.FUNCTIONS,
        *(
            (getattr(module, name), intrinsic)
            for module, table in (
                (math, functions.MATH),
                (cmath, functions.CMATH),
                (operator, functions.OPERATORS),
            )
            for name, intrinsic in table.items()
            if hasattr(module, name)
        ),
    ]
)
"""Builtins and functions of ``math``, ``cmath`` and NumPy."""

_CUDA = f"{__package__.rpartition('.')[0]}.cuda"
_FACADE, _NAMES = f"{_CUDA}.facade", f"{_CUDA}.names"


def path_of(value: Any) -> str | None:
    """Return the path that `value` has on ``cuda``, such as ``cuda.shared``, or None if it has none."""
    name = getattr(value, "__name__", None)
    if type(value) is type(sys):
        if name in ("numba.cuda", _FACADE):
            return "cuda"
        if name in _BINDINGS:
            return f"cuda.{_BINDINGS[name][0]}"
        for prefix in _PREFIXES:
            if name in (f"numba.cuda.{prefix}", f"numba.cuda.simulator.{prefix}"):
                return f"cuda.{prefix}"
        return None
    path: str | None = getattr(value, "__lockstep_path__", None) if type(value).__module__ == _NAMES else None
    return path or _known_objects().get(value)


_objects: IdentityMap[str] = IdentityMap()
_objects_of: Any = None


def _known_objects() -> IdentityMap[str]:
    """Map the objects of ``numba.cuda``, if it is imported, to their paths: for ``from numba.cuda import …``."""
    global _objects, _objects_of
    module = sys.modules.get("numba.cuda")
    state = module, *map(sys.modules.get, _BINDINGS)
    if state != _objects_of and hasattr(module, "jit"):
        _objects_of = state
        found = []
        for path in (*_MASKED, *_PURE, *MACHINE_VALUES, *_PREFIXES, "shared.array", "local.array"):
            value: Any = module
            for part in path.split("."):
                value = getattr(value, part, None)
            if value is not None and not isinstance(value, (int, np.generic)):
                found.append((value, f"cuda.{path}"))
        for place, (prefix, names) in _BINDINGS.items():
            for name in names:
                value = getattr(sys.modules.get(place), "nv_bfloat16" if name == "bfloat16" else name, None)
                if value is not None:
                    found.append((value, f"cuda.{prefix}.{name}"))
        _objects = IdentityMap(found)
    return _objects


_OF_NUMBA = {
    "literal_unroll": Intrinsic(iteration.unroll),
    "carray": Intrinsic(partial(views.from_pointer, 1), masked=True),
    "farray": Intrinsic(partial(views.from_pointer, -1), masked=True),
}
"""Functions that only Numba has, wherever its releases keep them."""


def intrinsic_of(value: Any) -> Intrinsic | None:
    """Return the intrinsic that a kernel calls by calling `value`, or None if there is none."""
    path = path_of(value)
    if path is not None:
        return INTRINSICS.get(path)
    known = _HOST_FUNCTIONS.get(value)
    if known is not None:
        return known
    if isinstance(value, np.ufunc) and getattr(np, value.__name__, None) is value:
        function: Callable[..., Any] = partial(ufuncs.call, value)
        return Intrinsic(function, masked=True)
    if getattr(value, "__name__", "") in _OF_NUMBA and value.__module__.startswith("numba."):
        return _OF_NUMBA[value.__name__]
    dtype = functions.as_dtype(value)
    return None if dtype is None else Intrinsic(functions.caster(dtype))


def raise_in_kernel(machine: Machine, mask: Mask, what: str, kind: Any = None) -> None:
    """``raise`` and a failed ``assert``: raise an error that is a KernelError and a `kind`, for the first thread."""
    lane = machine.first_lane(mask)
    text = f"{what}, {machine.whereabouts(lane)}"
    both = KernelError if kind is None else _both(kind)
    # The class may demand other arguments than a text.
    error = both.__new__(both, text)
    error.lockstep_place = (what, *machine.coordinates(lane))
    raise error


@lru_cache(maxsize=64)
def _both(kind: Any) -> Any:
    """Return the class of errors that are KernelErrors and of the class `kind`; KernelError if there is none."""
    try:
        made: Any = type(kind.__name__, (KernelError, kind), {"__module__": kind.__module__})
        made.__new__(made, "")  # refused for OSError, for example
        return made
    except TypeError:
        return KernelError
