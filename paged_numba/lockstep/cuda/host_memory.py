"""Host memory: ``In``, ``Out`` and ``InOut``, pinned, mapped and managed arrays, which are all NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .device_array import device_array, device_array_like


class HostArgument:
    """A host array passed to a kernel as `In`, `Out` or `InOut`."""

    def __init__(self, array: Any) -> None:
        self.array = array


In = Out = InOut = HostArgument


def pinned_array(shape: Any, dtype: Any = np.float64, strides: Any = None, order: str = "C") -> Any:
    """Return a fresh host array, whose memory is poisoned."""
    return device_array(shape, dtype, order=order).__lockstep_array__


mapped_array = managed_array = pinned_array


def pinned_array_like(ary: Any) -> Any:
    """Return a fresh host array with the shape and dtype of `ary`."""
    return device_array_like(ary).__lockstep_array__


mapped_array_like = pinned_array_like


@contextmanager
def pinned(*arrays: Any) -> Iterator[None]:
    """Do nothing: all memory is host memory."""
    yield


@contextmanager
def defer_cleanup() -> Iterator[None]:
    """Do nothing: no cleanup is pending."""
    yield
