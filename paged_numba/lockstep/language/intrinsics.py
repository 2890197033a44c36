"""What the names in a kernel mean: intrinsics of ``cuda``, functions of ``math``, casts and builtins."""

from __future__ import annotations

import builtins
import cmath
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...errors import KernelError
from ..machine import arithmetic, masks
from ..machine.lanes import source_line
from ..machine.machine import Machine
from ..machine.masks import Mask
from ..machine.memory import LaneArray
from . import atomics, functions, synchronization


@dataclass(frozen=True)
class Intrinsic:
    """Something that a kernel calls.

    Parameters
    ----------
    function : callable
        ``function(machine, mask, *arguments)`` if `cooperative`, else ``function(*arguments)``.
    cooperative : bool
        Whether it needs to know the machine and the active lanes.
    """

    function: Callable[..., Any]
    cooperative: bool = False


# Cooperative ones that are small enough to stand here.


def _nothing(machine: Machine, mask: Mask, *arguments: Any) -> None:
    """A memory fence: lockstep makes every store visible at once."""


def _grid(machine: Machine, mask: Mask, ndim: Any) -> Any:
    return machine.grid(int(ndim))


def _gridsize(machine: Machine, mask: Mask, ndim: Any) -> Any:
    return machine.gridsize(int(ndim))


class GridGroup:
    """What ``cuda.cg.this_grid()`` returns."""

    __lane_attributes__ = ("sync",)

    def __init__(self, machine: Machine, mask: Mask) -> None:
        self.sync = lambda: synchronization.sync_grid(machine, mask)


def _load_hinted(machine: Machine, mask: Mask, array: LaneArray, index: Any) -> Any:
    return array.load(mask, index)


def _store_hinted(machine: Machine, mask: Mask, array: LaneArray, index: Any, value: Any) -> None:
    array.store(mask, index, value)


def _print(machine: Machine, mask: Mask, *values: Any) -> None:
    """``print`` in a kernel: a line for each active thread, in the order of blocks and threads."""
    for lane in np.flatnonzero(masks.lanes(mask, machine.shape)):
        line = (
            value if isinstance(value, str) else np.broadcast_to(value, machine.shape).flat[lane]
            for value in values
        )
        print(*line)


def floordiv(machine: Machine, mask: Mask, a: Any, b: Any) -> Any:
    """``a // b``; an integer divided by zero, undefined on a GPU, is an error."""
    _require_divisor(machine, mask, a, b)
    return arithmetic.floordiv_unchecked(a, b)


def mod(machine: Machine, mask: Mask, a: Any, b: Any) -> Any:
    """``a % b``; an integer divided by zero, undefined on a GPU, is an error."""
    _require_divisor(machine, mask, a, b)
    return arithmetic.mod_unchecked(a, b)


def _divmod(machine: Machine, mask: Mask, a: Any, b: Any) -> Any:
    return floordiv(machine, mask, a, b), mod(machine, mask, a, b)


def _require_divisor(machine: Machine, mask: Mask, a: Any, b: Any) -> None:
    if b.dtype.kind not in "biu" or a.dtype.kind not in "biu" or np.count_nonzero(b) == b.size:
        return
    zero = masks.lanes(mask, machine.shape) & masks.lanes(b == 0, machine.shape)
    if zero.any():
        raise KernelError(f"integer division by zero, {machine.whereabouts(machine.first_lane(zero))}")


_COOPERATIVE: dict[str, Callable[..., Any]] = {
    "grid": _grid,
    "gridsize": _gridsize,
    "threadfence": _nothing,
    "threadfence_block": _nothing,
    "threadfence_system": _nothing,
    "nanosleep": _nothing,
    "cg.this_grid": GridGroup,
    **{f"ld{hint}": _load_hinted for hint in ("ca", "cg", "cs", "lu", "cv")},
    **{f"st{hint}": _store_hinted for hint in ("cg", "cs", "wb", "wt")},
    **{
        name: getattr(synchronization, name)
        for name in (
            "syncthreads syncthreads_count syncthreads_and syncthreads_or syncwarp shfl_sync "
            "shfl_up_sync shfl_down_sync shfl_xor_sync all_sync any_sync ballot_sync eq_sync "
            "match_any_sync match_all_sync activemask lanemask_lt"
        ).split()
    },
    **{
        f"atomic.{name}": getattr(atomics, name)
        for name in "add sub and_ or_ xor exch inc dec nanmax nanmin cas compare_and_swap".split()
    },
    "atomic.max": atomics.max_,
    "atomic.min": atomics.min_,
}


def _vector_types() -> dict[str, Callable[..., Any]]:
    """``cuda.float32x4`` and its kin: tuples with fields x, y, z, w."""
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
        vector: Any = NamedTuple(name, [(axis, Any) for axis in "xyzw"[:count]])  # type: ignore[misc]

        def make(*parts: Any) -> Any:
            flat: list[Any] = []
            for part in parts:
                flat.extend(part if isinstance(part, tuple) else (part,))
            if len(flat) != count:
                raise TypeError(f"{name} takes {count} components, got {len(flat)}")
            return vector(*(component.astype(dtype) for component in flat))

        return make

    made = {}
    for dtype_name, alias in names.items():
        for count in (1, 2, 3, 4):
            make = maker(f"{dtype_name}x{count}", np.dtype(dtype_name), count)
            made[f"{dtype_name}x{count}"] = made[f"{alias}{count}"] = make
    return made


def _libdevice() -> dict[str, Callable[..., Any]]:
    """The part of ``libdevice`` that has a counterpart in ``math``: ``expf``, ``fast_expf``, ``exp`` and others."""

    def typed(function: Callable[..., Any], dtype: Any) -> Callable[..., Any]:
        return lambda *values: function(*(value.astype(dtype) for value in values))

    known: dict[str, Callable[..., Any]] = {
        **functions.MATH,
        "rsqrt": lambda x: x.dtype.type(1) / np.sqrt(x),
        "cbrt": functions.INTEGER_AND_FLOAT["cbrt"],
        "fma": functions.fma,
        "fmin": arithmetic.minimum,
        "fmax": arithmetic.maximum,
    }
    made: dict[str, Callable[..., Any]] = {}
    for name, function in known.items():
        made[name] = typed(function, np.float64)
        made[f"{name}f"] = made[f"fast_{name}f"] = typed(function, np.float32)
    return made


_PURE: dict[str, Callable[..., Any]] = {
    **functions.INTEGER_AND_FLOAT,
    **{f"fp16.{name}": function for name, function in functions.FP16.items()},
    **{f"libdevice.{name}": function for name, function in _libdevice().items()},
    **_vector_types(),
}

INTRINSICS: dict[str, Intrinsic] = {
    **{f"cuda.{path}": Intrinsic(function, cooperative=True) for path, function in _COOPERATIVE.items()},
    **{f"cuda.{path}": Intrinsic(function) for path, function in _PURE.items()},
}
"""Everything that a kernel may call on ``cuda``, by its path."""

MACHINE_VALUES = ("threadIdx", "blockIdx", "blockDim", "gridDim", "laneid")
"""Names on ``cuda`` that are values of the machine."""

DECLARATIONS = ("cuda.shared.array", "cuda.local.array", "cuda.const.array_like")
"""Calls that declare memory: the translator gives each place in the source its own array."""

_PREFIXES = ("shared", "local", "const", "atomic", "fp16", "cg", "libdevice")

PREFIXES = tuple(f"cuda.{prefix}" for prefix in _PREFIXES)
"""Groups of names on ``cuda``."""

_BUILTINS: dict[int, Intrinsic] = {
    id(function): Intrinsic(lane_function, cooperative)
    for function, lane_function, cooperative in (
        (min, arithmetic.minimum, False),
        (max, arithmetic.maximum, False),
        (abs, functions.absolute, False),
        (round, functions.round_, False),
        (int, functions.int_, False),
        (float, functions.float_, False),
        (bool, arithmetic.truth, False),
        (complex, functions.complex_, False),
        (len, functions.length, False),
        (sum, functions.sum_, False),
        (pow, arithmetic.power, False),
        (divmod, _divmod, True),
        (print, _print, True),
    )
}

_MODULE_FUNCTIONS: dict[int, Intrinsic] = {
    id(getattr(module, name)): Intrinsic(function)
    for module, table in ((math, functions.MATH), (cmath, functions.CMATH))
    for name, function in table.items()
    if hasattr(module, name)
}

_FACADE = f"{__package__.rpartition('.')[0]}.cuda.facade"


def path_of(value: Any) -> str | None:
    """Return the path that `value` has on ``cuda``, such as ``cuda.shared``, or None if it has none."""
    name = getattr(value, "__name__", None)
    if type(value) is type(sys):
        if name in ("numba.cuda", _FACADE):
            return "cuda"
        for prefix in _PREFIXES:
            if name in (f"numba.cuda.{prefix}", f"numba.cuda.simulator.{prefix}"):
                return f"cuda.{prefix}"
        return None
    path: str | None = (
        getattr(value, "__lockstep_path__", None) if type(value).__module__ == _FACADE else None
    )
    return path or _known_objects().get(id(value))


_objects: dict[int, str] = {}
_objects_of: Any = None


def _known_objects() -> dict[int, str]:
    """Map the objects of ``numba.cuda``, where it is imported, to their paths: for ``from numba.cuda import …``."""
    global _objects_of
    module = sys.modules.get("numba.cuda")
    if module is not _objects_of and hasattr(module, "jit"):
        _objects_of = module
        _objects.clear()
        for path in (*_COOPERATIVE, *_PURE, *MACHINE_VALUES, *_PREFIXES, "shared.array", "local.array"):
            value: Any = module
            for part in path.split("."):
                value = getattr(value, part, None)
            if value is not None and not isinstance(value, (int, np.generic)):
                _objects.setdefault(id(value), f"cuda.{path}")
    return _objects


def intrinsic_of(value: Any) -> Intrinsic | None:
    """Return what calling `value` means in a kernel, or None if it is nothing that is known."""
    path = path_of(value)
    if path is not None:
        return INTRINSICS.get(path)
    if id(value) in _BUILTINS:
        return _BUILTINS[id(value)]
    if id(value) in _MODULE_FUNCTIONS:
        return _MODULE_FUNCTIONS[id(value)]
    if isinstance(value, np.ufunc):
        return Intrinsic(value)
    dtype = functions.as_dtype(value)
    return None if dtype is None else Intrinsic(functions.caster(dtype))


def is_builtin(value: Any, name: str) -> bool:
    """Tell whether `value` is the builtin of that name."""
    return value is getattr(builtins, name)


def raise_in_kernel(machine: Machine, mask: Mask, what: Any) -> None:
    """``raise`` and a failed ``assert``: name the first thread that gets there."""
    raise KernelError(f"{what}, {machine.whereabouts(machine.first_lane(mask))}")


__all__ = [
    "DECLARATIONS",
    "INTRINSICS",
    "MACHINE_VALUES",
    "PREFIXES",
    "Intrinsic",
    "floordiv",
    "intrinsic_of",
    "is_builtin",
    "mod",
    "path_of",
    "raise_in_kernel",
    "source_line",
]
