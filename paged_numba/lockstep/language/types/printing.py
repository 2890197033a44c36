"""``print`` in a kernel, with the formats of Numba's CUDA target: ``%d`` for an integer, ``%f`` for a number."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ...machine import masks
from ...machine.lanes import Dim3
from ...machine.machine import Machine
from ...machine.masks import Mask

_MOST_ITEMS = 32


def print_lanes(machine: Machine, mask: Mask, *values: Any) -> None:
    """``print`` in a kernel: a line for each active thread, in the order of thread blocks and threads."""
    formats = " ".join(map(_format, values))
    if len(values) > _MOST_ITEMS:
        warnings.warn(
            f"CUDA print() cannot print more than {_MOST_ITEMS} items. "
            "The raw format string will be emitted by the kernel instead.",
            UserWarning,
            stacklevel=2,
        )
    parts = [np.broadcast_to(part, machine.shape) for value in values for part in _parts(value)]
    for lane in np.flatnonzero(masks.lanes(mask, machine.shape)):
        if len(values) > _MOST_ITEMS:
            print(formats)
        else:
            print(
                formats.replace("%lld", "%s").replace("%llu", "%s") % tuple(part.flat[lane] for part in parts)
            )


def _format(value: Any) -> str:
    if isinstance(value, tuple) and (isinstance(value, Dim3) or not hasattr(value, "_fields")):
        inside = ", ".join(map(_format, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, str):
        return "%s"
    kind = getattr(getattr(value, "dtype", None), "kind", "O")
    if kind not in _FORMATS or not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"print takes numbers, bools, constant texts and tuples of them, not {_name(value)}")
    return _FORMATS[kind]


_FORMATS = {"b": "%s", "i": "%lld", "u": "%llu", "f": "%f"}


def _name(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    return f"a value of type {type(value).__name__ if dtype is None else dtype}"


def _parts(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return [part for item in value for part in _parts(item)]
    return [value]
