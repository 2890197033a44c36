"""`ObservedWarp`: one warp of an observed launch whose warps take turns; observers see the whole thread block."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..machine import masks
from ..machine.machine import Machine, Site
from ..machine.masks import Mask
from ..machine.memory import LaneArray
from .code import CodeFunction, CodeLine
from .observed_array import ObservedArray
from .observed_machine import MOST_MASKS, ObservedMachine


class ObservedWarp(ObservedMachine):
    """A warp of each thread block in the batch.

    Events are reported as events of `whole`: masks, positions and values are spread over all threads of the thread
    block, so that an observer need not know in which order the warps run.

    Attributes
    ----------
    whole : ObservedMachine
        The machine of whole thread blocks.
    """

    def __init__(self, whole: ObservedMachine, columns: range) -> None:
        Machine.__init__(self, whole.blocks_per_grid, whole.threads_per_block, whole.shared_bytes, columns)
        self.whole = whole
        self.line, self.strays = whole.line, False
        self.memories = whole.memories
        self._place = slice(columns.start, columns.stop)
        self._spread_masks: dict[int, tuple[Mask, Mask]] = {}

    def begin_batch(self, first: int, count: int, memory: Any = None) -> None:
        Machine.begin_batch(self, first, count, memory)
        self._spread_masks.clear()
        self.declarations = {}
        self.collects_errors = self.whole.collects_errors
        self.on_load = [self._load] if self.whole.on_load else []
        self.on_store = [self._store] if self.whole.on_store else []

    # From the lanes of the warp to those of the thread block.

    def _spread_mask(self, mask: Mask) -> Any:
        """Return a mask of the warp as a mask of the thread block."""
        known = self._spread_masks.get(id(mask))
        if known is None:
            if len(self._spread_masks) >= MOST_MASKS:
                self._spread_masks.clear()
            spread = np.zeros(self.whole.shape, bool)
            spread[:, self._place] = mask
            # Keep the mask, so that no other object can get its id.
            known = self._spread_masks[id(mask)] = mask, True if spread.all() else spread
        return known[1]

    def _spread(self, value: Any) -> Any:
        """Return a value of the warp as a value of the thread block; other warps have zeros."""
        if not isinstance(value, np.ndarray) or value.ndim < 2 or value.shape[1] == 1:
            return value
        spread = np.zeros((value.shape[0], self.whole.threads), value.dtype)
        spread[:, self._place] = value
        return spread

    def _lane(self, lane: int) -> int:
        row, column = divmod(lane, self.threads)
        return row * self.whole.threads + self.columns.start + column

    # Events.

    def _whole(self) -> ObservedMachine:
        """Return the machine of whole thread blocks, at the line that this warp runs."""
        self.whole.line = self.line
        return self.whole

    def begin_statement(self, line: CodeLine, mask: Mask) -> None:
        self.line = line
        self.whole.begin_statement(line, self._spread_mask(mask))

    def compute(self, mask: Mask, dtype: Any, operations: int, special: int) -> None:
        self._whole().compute(self._spread_mask(mask), dtype, operations, special)

    def branch(self, mask: Mask, held: Mask) -> None:
        if self.whole.on_branch:
            self._whole().branch(self._spread_mask(mask), self._spread_mask(held))

    def enter(self, mask: Mask, function: CodeFunction, /, **parameters: Any) -> None:
        if self.whole.on_enter:
            spread = {name: self._spread_value(value) for name, value in parameters.items()}
            self._whole().enter(self._spread_mask(mask), function, **spread)

    def assigned(self, mask: Mask, function: CodeFunction, name: str, value: Any) -> Any:
        if self.whole.on_assign:
            self._whole().assigned(self._spread_mask(mask), function, name, self._spread_value(value))
        return value

    def _spread_value(self, value: Any) -> Any:
        """Return the value of a variable, which may be a tuple, as one of the thread block."""
        return tuple(map(self._spread_value, value)) if type(value) is tuple else self._spread(value)

    def _load(self, _: Any, array: ObservedArray, mask: Mask, position: Any) -> None:
        whole, mask, position = self._whole(), self._spread_mask(mask), self._spread(position)
        for load in whole.on_load:
            load(whole, array, mask, position)

    def _store(self, _: Any, array: ObservedArray, mask: Mask, position: Any, value: Any) -> None:
        whole, mask, position = self._whole(), self._spread_mask(mask), self._spread(position)
        for store in whole.on_store:
            store(whole, array, mask, position, self._spread(value))

    def tell(self, event: str, *what: Any) -> None:
        whole, place = self._whole(), _MASK_AT[event]
        if event == "cooperate":
            exited = np.array(masks.lanes(whole.exited, whole.shape))
            exited[:, self._place] = self.exited
            whole.exited = exited
        mask = self._spread_mask(what[place])
        whole.tell(event, *what[:place], mask, *map(self._spread, what[place + 1 :]))

    def tell_wrong(
        self, lane: int, kind: str, what: str, array: str | None = None, element: str = "", count: int = 1
    ) -> None:
        self._whole().tell_wrong(self._lane(lane), kind, what, array, element, count)

    # Memory.

    def local_array(self, mask: Mask, site: Site, shape: Any, dtype: np.dtype[Any]) -> LaneArray:
        """Return this warp's part of the array of all threads."""
        whole = self.whole
        whole.depths = self.depths
        found = Machine.local_array(whole, self._spread_mask(mask), site, shape, dtype)
        return self.declare_local(mask, site, found, found.offset[:, self._place])


_MASK_AT = {"atomic": 1, "declare": 1, "cooperate": 0, "narrowed": 0, "exchange": 0}
"""Place of the mask in the arguments of an event."""
