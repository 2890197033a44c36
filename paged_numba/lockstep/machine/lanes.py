"""The lanes that run together: their shape, their coordinates, and their names in errors.

Lanes are laid out ``[thread blocks in this batch, threads of a thread block]``. A value that is the same for all
threads of a thread block has shape ``[thread blocks, 1]``. A value that is the same in all thread blocks has shape
``[1, threads]``. A value that is the same everywhere is a scalar. NumPy broadcasts between them, so no value is stored
or computed more often than necessary.
"""

from __future__ import annotations

import math
import sys
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from . import masks
from .arithmetic import LaneTuple
from .masks import Mask

WARP_SIZE = 32

SOURCE_MARK = "__lockstep_file__"
"""Name of the global of every lane program that holds the file of the kernel's source."""


class Dim3(NamedTuple):
    """Three integers x, y and z, such as ``threadIdx``."""

    x: Any
    y: Any
    z: Any


class Lanes:
    """Lanes of one launch, a batch of thread blocks at a time.

    Parameters
    ----------
    blocks_per_grid, threads_per_block : Dim3 of int
    columns : range, optional
        The threads of each thread block that these lanes represent; all if None.

    Attributes
    ----------
    threads : int
        Lanes of a thread block: the length of `columns`.
    num_thread_blocks : int
        Thread blocks in the grid.
    first_thread_block, batch : int
        The number in the grid of the batch's first thread block, and how many thread blocks the batch has.
    shape : tuple of int
        ``(batch, threads)``.
    num_lanes : int
        ``batch * threads``.
    everyone : bool array of `shape`
        The mask of all lanes as an array.
    exited : mask
        Lanes that have returned from the kernel.
    compute_capability : tuple of int
        Of the GPU for which the lanes stand.
    threadIdx, blockIdx, blockDim, gridDim, laneid
        As on ``cuda``, by lane: int32 scalars or arrays.
    """

    compute_capability: tuple[int, int] = (9, 0)

    def __init__(self, blocks_per_grid: Dim3, threads_per_block: Dim3, columns: range | None = None) -> None:
        self.blocks_per_grid = blocks_per_grid
        self.threads_per_block = threads_per_block
        self.columns = range(math.prod(threads_per_block)) if columns is None else columns
        self.threads = len(self.columns)
        self.num_thread_blocks = math.prod(blocks_per_grid)
        self.gridDim, self.blockDim = _int32(blocks_per_grid), _int32(threads_per_block)
        self.threadIdx, self.laneid = _threads(self.columns, threads_per_block)

    def move_to(self, first: int, count: int) -> None:
        """Start the thread blocks ``first .. first + count - 1``, with no lane exited."""
        self.first_thread_block, self.batch = first, count
        self.shape = (count, self.threads)
        self.num_lanes = count * self.threads
        self.everyone = _everyone(self.shape)
        self.blockIdx = _thread_blocks(range(first, first + count), self.blocks_per_grid)
        self.exited: Mask = False

    @property
    def first_thread(self) -> int:
        """The number in the grid of the batch's first thread."""
        return self.first_thread_block * self.threads

    def grid(self, ndim: int) -> Any:
        """``cuda.grid(ndim)``: the thread's position in the whole grid, int64."""
        positions = tuple(
            self.blockIdx[axis] * np.int64(self.threads_per_block[axis]) + self.threadIdx[axis]
            for axis in range(ndim)
        )
        return positions[0] if ndim == 1 else LaneTuple(positions)

    def gridsize(self, ndim: int) -> Any:
        """``cuda.gridsize(ndim)``: threads in the whole grid along each axis, int64."""
        sizes = tuple(
            np.int64(self.blocks_per_grid[axis] * self.threads_per_block[axis]) for axis in range(ndim)
        )
        return sizes[0] if ndim == 1 else LaneTuple(sizes)

    def block_name(self, row: int) -> str:
        """Return the thread block at a row of the lanes for an error: ``thread block 5`` or ``thread block (5, 1)``."""
        return f"thread block {_place(self.first_thread_block + row, self.blocks_per_grid)}"

    def thread_of_block(self, column: int) -> str:
        """Return the thread at a column of the lanes for an error: ``thread 5`` or, in 2-D, ``thread (5, 1)``."""
        return f"thread {_place(self.columns.start + column, self.threads_per_block)}"

    def thread_name(self, lane: int) -> str:
        """Return the thread of a lane, given by flat index, for an error, such as ``thread 5 of thread block 0``."""
        row, column = divmod(lane, self.threads)
        return f"{self.thread_of_block(column)} of {self.block_name(row)}"

    def coordinates(self, lane: int) -> tuple[Dim3, Dim3]:
        """Return threadIdx and blockIdx of a lane."""
        row, column = divmod(lane, self.threads)
        return (
            _along_axes(self.columns.start + column, self.threads_per_block),
            _along_axes(self.first_thread_block + row, self.blocks_per_grid),
        )

    def whereabouts(self, lane: int) -> str:
        """Return the coordinates of a lane and the line that it runs, for an error."""
        return f"{self.thread_name(lane)}, {source_line()}"

    def first_lane(self, mask: Mask) -> int:
        """Return the flat index of the first lane in `mask`."""
        return int(np.argmax(masks.lanes(mask, self.shape)))


def source_line() -> str:
    """Return the line of the kernel statement that is running as ``file.py:line``, or ``host`` outside kernels."""
    frame: Any = sys._getframe(1)
    while frame is not None and SOURCE_MARK not in frame.f_globals:
        frame = frame.f_back
    if frame is None:
        return "host"
    return f"{file_name(frame.f_globals[SOURCE_MARK])}:{frame.f_lineno}"


def file_name(path: str) -> str:
    """Return the name of a source file without its folders, on any operating system."""
    return path.replace("\\", "/").rsplit("/", 1)[-1]


# Launches repeat their configurations, and lane values never change in place: the functions below are cached.


@lru_cache(maxsize=64)
def _int32(size: Dim3) -> Dim3:
    return Dim3(*map(np.int32, size))


@lru_cache(maxsize=64)
def _threads(columns: range, threads_per_block: Dim3) -> tuple[Dim3, Any]:
    """Return threadIdx and laneid of the threads of a thread block."""
    laneid: Any = np.arange(columns.start, columns.stop, dtype=np.int32) % WARP_SIZE
    laneid.flags.writeable = False
    laneid = laneid.reshape(1, -1) if len(columns) > 1 else laneid[0]
    return _coordinates(columns, threads_per_block, (1, -1)), laneid


@lru_cache(maxsize=16)
def _thread_blocks(numbers: range, blocks_per_grid: Dim3) -> Dim3:
    """Return blockIdx of the thread blocks of a batch."""
    return _coordinates(numbers, blocks_per_grid, (-1, 1))


@lru_cache(maxsize=16)
def _everyone(shape: tuple[int, int]) -> Any:
    everyone = np.ones(shape, bool)
    everyone.flags.writeable = False
    return everyone


def _coordinates(positions: range, size: Dim3, shape: tuple[int, int]) -> Dim3:
    """Split linear positions into int32 x, y, z; scalars if there is only one position, or the axis has length 1."""
    index = np.arange(positions.start, positions.stop)
    parts: list[Any] = []
    step, last = 1, math.prod(size)
    for length in size:
        if length == 1:
            parts.append(np.int32(0))
            continue
        part = index if step == 1 else index // step
        step *= length
        part = (part if step == last else part % length).astype(np.int32)
        part.flags.writeable = False
        parts.append(part.reshape(shape) if len(positions) > 1 else part[0])
    return Dim3(*parts)


def _along_axes(position: int, size: Dim3) -> Dim3:
    x, y, _ = size
    return Dim3(position % x, position // x % y, position // (x * y))


def _place(position: int, size: Dim3) -> str:
    """Return a position as a number if there is only one axis, else with as many numbers as there are axes."""
    _, y, z = size
    if y == z == 1:
        return str(position)
    place = tuple(_along_axes(position, size))
    return str(place if z > 1 else place[:2])
