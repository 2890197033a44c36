"""Access traces: every access of one thread block in order, as input for pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ...arguments import listed, not_negative, shown
from ..machine import masks
from ..machine.lanes import WARP_SIZE
from ..machine.masks import Mask
from .allocations import Memory
from .code import CodeLine
from .observed_array import ObservedArray
from .observed_machine import ObservedMachine
from .observer import Observer, observing


class Access(NamedTuple):
    """One statement's access to one array.

    Attributes
    ----------
    kernel : str
    line : CodeLine
    space, array, kind : str
        As in a profile: memory space, name of the array in the kernel, ``load``, ``store`` or ``atomic``. A shuffle has
        the space ``register``, no array and the kind ``shuffle``; `elements` are then the threads that are read from.
    epoch : int
        Number of barriers that the thread block has passed before the access.
    threads : tuple of int
        The threads that take part, by number in their thread block.
    bytes : tuple of int
        For each thread, the byte at which its element begins. Global memory is counted from the beginning of the
        allocation, as if that were aligned to 256 bytes; shared memory, from the beginning of the thread block's array.
    itemsize : int
        Bytes of an element.
    syncwarps : tuple of int
        For each thread, the number of ``syncwarp`` calls that it has passed before the access.
    """

    kernel: str
    line: CodeLine
    space: str
    array: str
    kind: str
    epoch: int
    threads: tuple[int, ...]
    bytes: tuple[int, ...]
    itemsize: int
    syncwarps: tuple[int, ...] = ()

    @property
    def elements(self) -> tuple[int, ...]:
        """`bytes` in units of elements."""
        return tuple(byte // self.itemsize for byte in self.bytes)


class Trace(Observer):
    """Records the global and shared accesses, and the shuffles, of one thread block of each launch.

    Parameters
    ----------
    thread_block : tuple of 3 int
        The thread block's blockIdx.

    Attributes
    ----------
    accesses : list of Access
        In the order in which they happened.
    """

    def __init__(self, thread_block: tuple[int, int, int] = (0, 0, 0)) -> None:
        sizes = listed("thread_block", thread_block, "3 integers")
        if len(sizes) != 3:
            raise ValueError(f"thread_block must be 3 integers, got thread_block={shown(thread_block)}")
        self.thread_block = tuple(not_negative("thread_block", size) for size in sizes)
        self.accesses: list[Access] = []
        self._epoch = 0
        self._kernel = ""
        self._syncwarps: Any = None

    def begin_launch(self, machine: ObservedMachine, function: Any, arguments: tuple[Any, ...]) -> None:
        self._epoch, self._kernel = 0, function.__name__
        self._syncwarps = np.zeros(machine.threads, np.int64)
        for at, size in zip(self.thread_block, machine.blocks_per_grid, strict=True):
            if not 0 <= at < size:
                grid = tuple(machine.blocks_per_grid)
                raise ValueError(
                    f"thread_block must lie in the grid, got thread_block={self.thread_block} in grid={grid}"
                )
        x, y, z = self.thread_block
        self._number = x + machine.blocks_per_grid.x * (y + machine.blocks_per_grid.y * z)

    def cooperate(self, machine: ObservedMachine, mask: Mask, kind: str, members: Any) -> None:
        if kind in ("block", "grid") and self._lanes(machine, mask).size:
            self._epoch += 1
        elif kind == "syncwarp":
            self._syncwarps[self._lanes(machine, mask)] += 1

    def load(self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any) -> None:
        self._record(machine, array, mask, position, "load")

    def store(
        self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any, value: Any
    ) -> None:
        self._record(machine, array, mask, position, "store")

    def atomic(
        self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any, exchanges: bool
    ) -> None:
        self._record(machine, array, mask, position, "atomic")

    def _lanes(self, machine: ObservedMachine, mask: Mask) -> Any:
        """Return the active threads of the traced thread block."""
        row = self._number - machine.first_thread_block
        if not 0 <= row < machine.batch:
            return np.zeros(0, np.int64)
        return np.flatnonzero(masks.lanes(mask, machine.shape)[row])

    def _record(
        self, machine: ObservedMachine, array: ObservedArray, mask: Mask, position: Any, kind: str
    ) -> None:
        memory: Memory = array.memory
        lanes = self._lanes(machine, mask)
        if memory.space not in ("global", "shared") or not lanes.size:
            return
        byte = self._of_thread_block(machine, position)[lanes] * array.unit + array.start
        if memory.space == "shared":
            byte %= memory.row
        self._append(machine, memory.space, memory.name, kind, lanes, byte, array.dtype.itemsize)

    def exchange(self, machine: ObservedMachine, mask: Mask, source: Any, itemsize: int) -> None:
        lanes = self._lanes(machine, mask)
        if lanes.size:
            thread = lanes // WARP_SIZE * WARP_SIZE + self._of_thread_block(machine, source)[lanes]
            self._append(machine, "register", "", "shuffle", lanes, thread * itemsize, itemsize)

    def _of_thread_block(self, machine: ObservedMachine, value: Any) -> Any:
        """Return a value of the lanes for the threads of the traced thread block."""
        return np.broadcast_to(value, machine.shape)[self._number - machine.first_thread_block]

    def _append(
        self,
        machine: ObservedMachine,
        space: str,
        array: str,
        kind: str,
        lanes: Any,
        byte: Any,
        itemsize: int,
    ) -> None:
        threads, where = tuple(lanes.tolist()), tuple(byte.tolist())
        syncwarps = tuple(self._syncwarps[lanes].tolist())
        of = self._kernel, machine.line, space, array, kind, self._epoch, threads, where, itemsize, syncwarps
        self.accesses.append(Access(*of))


@contextmanager
def tracing(thread_block: tuple[int, int, int] = (0, 0, 0)) -> Iterator[list[Access]]:
    """Record the accesses of one thread block in each lockstep launch of a ``with`` statement.

    Parameters
    ----------
    thread_block : tuple of 3 int
        The thread block's blockIdx.

    Yields
    ------
    list of Access
        Grows with each launch.

    Raises
    ------
    TypeError, ValueError
        The thread block is not three numbers of 0 or more; or at a launch whose grid does not contain it.

    See Also
    --------
    profiling : Counts the accesses of all thread blocks.
    paged_numba.draw.WarpAccess : Draws the accesses of one warp.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def every_other(source, out):
    ...     out[cuda.threadIdx.x] = source[2 * cuda.threadIdx.x]
    >>> with lockstep.tracing() as accesses:
    ...     lockstep.launch(every_other, 1, 4, np.arange(8, dtype=np.float32), np.zeros(4, np.float32))
    >>> [(access.kind, access.array, access.elements) for access in accesses]
    [('load', 'source', (0, 2, 4, 6)), ('store', 'out', (0, 1, 2, 3))]
    >>> accesses[0].line.text
    'out[cuda.threadIdx.x] = source[2 * cuda.threadIdx.x]'
    """
    trace = Trace(thread_block)
    with observing(trace):
        yield trace.accesses
