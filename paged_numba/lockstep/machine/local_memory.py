"""Local memory: an array for each lane, kept element by element."""

from __future__ import annotations

from typing import Any

import numpy as np

from .arithmetic import convert, where
from .masks import Mask
from .memory import LaneArray


class LocalArray(LaneArray):
    """One array for each lane; element ``i`` of all lanes is contiguous in the buffer.

    If all lanes access the same element, the value that they stored last is kept as a lane value, which never changes
    in place. `settle` writes the kept values into the buffer before any other access.
    """

    __slots__ = ("_has_views", "_kept")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._kept: dict[int, Any] = {}
        self._has_views = False

    def load(self, mask: Mask, index: Any) -> Any:
        start = self._element(index)
        if start is None:
            self.settle()
            return super().load(mask, index)
        if start not in self._kept:
            width = self.machine.num_lanes
            value = self.buffer[start : start + width].reshape(self.machine.shape).copy()
            if self._has_views:
                return value
            self._kept[start] = value
        return self._kept[start]

    def store(self, mask: Mask, index: Any, value: Any) -> None:
        start = self._element(index)
        if start is None or self._has_views or isinstance(value, LaneArray):
            self.settle()
            super().store(mask, index, value)
            return
        if value.dtype != self.dtype:
            value = convert(value, self.dtype)
        self._kept[start] = value if mask is True else where(mask, value, self.load(mask, index))

    def like(self, *where: Any) -> LaneArray:
        self.share()
        return super().like(*where)

    def over(self, *where: Any) -> LaneArray:
        self.share()
        return super().over(*where)

    def locate_atomic(self, mask: Mask, index: tuple[Any, ...], exchanges: bool) -> tuple[Any, Mask]:
        self.settle()
        return super().locate_atomic(mask, index, exchanges)

    def share(self) -> None:
        """Keep no values from now on, since another array refers to the same memory."""
        self.settle()
        self._has_views = True

    def settle(self) -> None:
        """Write the kept values into the buffer."""
        for start, value in self._kept.items():
            self.buffer[start : start + self.machine.num_lanes].reshape(self.machine.shape)[:] = value
        self._kept.clear()

    def _element(self, index: Any) -> int | None:
        """Return the position of the element that all lanes access; None if they differ or are out of bounds."""
        if type(index) is not tuple:
            index = (index,)
        if self._selects_view(index) or self.dtype.names is not None:
            return None
        element = 0
        for i, n, stride in zip(index, self.lengths, self.strides, strict=True):
            if isinstance(i, np.ndarray) or i.dtype.kind not in "iu" or not 0 <= i < n:
                return None
            element += int(i) * stride
        return element
