"""The state of one launch: which thread blocks run together, their coordinates and their memory.

Lanes are laid out ``[thread blocks in this batch, threads of a block]``. What is the same for all
threads of a block is ``[thread blocks, 1]``, what is the same in all blocks ``[1, threads]``, what is
the same everywhere a scalar; NumPy broadcasts between them, so each costs no more than it must.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import LaunchError
from . import masks
from .local_memory import LocalArray
from .masks import Mask
from .memory import LaneArray, contiguous_strides, poisoned

if TYPE_CHECKING:
    from .schedule import Turns

WARP_SIZE = 32
STATIC_SHARED_LIMIT = 48 * 1024
"""Bytes of static shared memory that a thread block may declare (CUDA C++ Programming Guide, 20.2)."""

SOURCE_MARK = "__lockstep_file__"
"""A global of every translated function: the file of the kernel's source."""


class Dim3(NamedTuple):
    """Three integers, as ``threadIdx`` and its kin are."""

    x: Any
    y: Any
    z: Any


class Site:
    """A place in the source that declares shared or local memory, and the variable that it is assigned to."""

    def __init__(self, name: str) -> None:
        self.name = name


class SharedMemory:
    """Shared memory of the thread blocks in a batch.

    Attributes
    ----------
    buffers : dict
        By place of declaration, the arrays of all blocks end to end.
    static_bytes : int
        Bytes of a block that are declared so far, dynamic memory apart.
    """

    def __init__(self) -> None:
        self.buffers: dict[Any, Any] = {}
        self.static_bytes = 0

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.buffers.values())


class Machine:
    """One launch.

    Parameters
    ----------
    grid_dim, block_dim : Dim3 of int
        Thread blocks in the grid, threads in a block.
    shared_bytes : int
        Dynamic shared memory of a block, in bytes.
    columns : range, optional
        The threads of each block that this machine runs, all if None.
    """

    array_type = LaneArray
    local_type: type[LaneArray] = LocalArray

    def __init__(
        self, grid_dim: Dim3, block_dim: Dim3, shared_bytes: int, columns: range | None = None
    ) -> None:
        self.grid_size = grid_dim
        self.block_size = block_dim
        self.shared_bytes = shared_bytes
        self.columns = range(math.prod(block_dim)) if columns is None else columns
        self.threads = len(self.columns)
        self.blocks = math.prod(grid_dim)
        self.gridDim = Dim3(*map(np.int32, grid_dim))
        self.blockDim = Dim3(*map(np.int32, block_dim))
        thread = np.arange(self.columns.start, self.columns.stop, dtype=np.int32)
        self.threadIdx = _coordinates(thread, block_dim, self.threads, (1, -1))
        self.laneid = (thread % WARP_SIZE).reshape(1, -1) if self.threads > 1 else thread[0] % WARP_SIZE
        self.turns: Turns | None = None
        self._constants: dict[int, LaneArray] = {}

    def begin_batch(self, first: int, count: int, memory: SharedMemory | None = None) -> None:
        """Go on to thread blocks ``first .. first + count - 1``, with every lane alive and fresh memory.

        Machines that run different threads of the same blocks are given the same shared `memory`.
        """
        self.first, self.batch = first, count
        self.shape = (count, self.threads)
        self.num_lanes = count * self.threads
        self.everyone = np.ones(self.shape, bool)
        block = np.arange(first, first + count, dtype=np.int64)
        self.blockIdx = _coordinates(block, self.grid_size, count, (-1, 1))
        self.exited: Mask = False
        self.local_bytes = 0
        self.shared = SharedMemory() if memory is None else memory
        self._local: dict[Any, LaneArray] = {}

    def begin_launch(self, function: Any, arguments: tuple[Any, ...]) -> None:
        """Note that a launch begins."""

    def end_launch(self) -> None:
        """Note that the last thread block has run, or that an error has ended the launch."""

    # Coordinates.

    def grid(self, ndim: int) -> Any:
        """``cuda.grid(ndim)``: the thread's position in the whole grid, int64."""
        positions = tuple(
            self.blockIdx[axis] * np.int64(self.block_size[axis]) + self.threadIdx[axis]
            for axis in range(ndim)
        )
        return positions[0] if ndim == 1 else positions

    def gridsize(self, ndim: int) -> Any:
        """``cuda.gridsize(ndim)``: threads in the whole grid along each axis, int64."""
        sizes = tuple(np.int64(self.grid_size[axis] * self.block_size[axis]) for axis in range(ndim))
        return sizes[0] if ndim == 1 else sizes

    def block_coordinates(self, block: int) -> tuple[int, int, int]:
        """Return blockIdx of the block at row `block` of the lanes."""
        return _unravel(self.first + block, self.grid_size)

    def thread_coordinates(self, thread: int) -> tuple[int, int, int]:
        """Return threadIdx of the thread at column `thread` of the lanes."""
        return _unravel(self.columns.start + thread, self.block_size)

    def whereabouts(self, lane: int) -> str:
        """Name a lane (its flat index) and the line that it runs, for an error."""
        block, thread = divmod(lane, self.threads)
        return (
            f"blockIdx={self.block_coordinates(block)} threadIdx={self.thread_coordinates(thread)}, "
            f"{source_line()}"
        )

    def first_lane(self, mask: Mask) -> int:
        """Return the flat index of the first lane in `mask`."""
        return int(np.argmax(masks.lanes(mask, self.shape)))

    # Memory.

    def argument(self, name: str, array: Any) -> LaneArray:
        """Return an array that the kernel is given, without a copy."""
        return self.array_type.of(self, name, array)

    def shared_array(self, site: Site, shape: Any, dtype: np.dtype[Any]) -> LaneArray:
        """Return the shared array that is declared at `site`; ``shape=0`` asks for the dynamic memory."""
        lengths = _lengths(shape)
        if lengths == (0,):
            return self._dynamic_shared(site.name, dtype)
        size = math.prod(lengths)
        shared = self.shared
        if site not in shared.buffers:
            shared.static_bytes += size * dtype.itemsize
            if shared.static_bytes > STATIC_SHARED_LIMIT:
                raise LaunchError(
                    f"static shared memory of a thread block must be at most {STATIC_SHARED_LIMIT} bytes, "
                    f"got {shared.static_bytes} with shape={lengths} dtype={dtype}, {source_line()}; "
                    "more is had as dynamic shared memory: shared.array(0, dtype) and shared_bytes at launch"
                )
            shared.buffers[site] = poisoned(self.batch * row_size(size, dtype), dtype)
        return self.array_type(
            self,
            site.name,
            shared.buffers[site],
            self._row_offsets(row_size(size, dtype)),
            lengths,
            contiguous_strides(lengths),
        )

    def _row_offsets(self, size: int) -> Any:
        return 0 if self.batch == 1 else (np.arange(self.batch, dtype=np.int64) * size)[:, None]

    def _dynamic_shared(self, name: str, dtype: np.dtype[Any]) -> LaneArray:
        # Every dynamic array is the same memory, seen as its own dtype.
        row = -(-self.shared_bytes // 16) * 16
        if "dynamic" not in self.shared.buffers:
            self.shared.buffers["dynamic"] = poisoned(self.batch * row, np.dtype(np.uint8))
        buffer = self.shared.buffers["dynamic"].view(dtype)
        size = self.shared_bytes // dtype.itemsize
        return self.array_type(self, name, buffer, self._row_offsets(row // dtype.itemsize), (size,), (1,))

    def local_array(self, mask: Mask, site: Site, shape: Any, dtype: np.dtype[Any]) -> LaneArray:
        """Return the local array that is declared at `site`, poisoned in the lanes that run the declaration."""
        lengths = _lengths(shape)
        size = math.prod(lengths)
        if site not in self._local:
            buffer = poisoned(self.num_lanes * size, dtype)
            self.local_bytes += buffer.nbytes
            strides = tuple(s * self.num_lanes for s in contiguous_strides(lengths))
            lane = np.arange(self.num_lanes, dtype=np.int64).reshape(self.shape)
            self._local[site] = self.local_type(self, site.name, buffer, lane, lengths, strides)
            return self._local[site]
        found = self._local[site]
        if isinstance(found, LocalArray):
            found.settle()
        element = poisoned(size * self.num_lanes, dtype).reshape(size, *self.shape)
        np.copyto(found.buffer.reshape(size, *self.shape), element, where=mask)
        return found

    def constant(self, name: str, array: Any) -> LaneArray:
        """Return the view of a host array that the kernel names as a global."""
        if id(array) not in self._constants:
            frozen = np.asarray(array).view()
            frozen.flags.writeable = False
            self._constants[id(array)] = self.array_type.of(self, name, frozen)
        return self._constants[id(array)]


def row_size(size: int, dtype: np.dtype[Any]) -> int:
    """Return the elements from one thread block's shared array to the next one's: whole units of 16 bytes."""
    return size + -size % (16 // math.gcd(16, dtype.itemsize))


def source_line() -> str:
    """Return ``file.py:line`` of the kernel statement that runs now."""
    frame: Any = sys._getframe(1)
    while frame is not None and SOURCE_MARK not in frame.f_globals:
        frame = frame.f_back
    if frame is None:
        return "host"
    file = str(frame.f_globals[SOURCE_MARK]).replace("\\", "/").rsplit("/", 1)[-1]
    return f"{file}:{frame.f_lineno}"


def _coordinates(index: Any, size: tuple[int, ...], count: int, shape: tuple[int, int]) -> Dim3:
    """Split linear positions into x, y, z; scalars where the axis has one position only."""
    parts = []
    for axis in range(3):
        part = (index // math.prod(size[:axis]) % size[axis]).astype(np.int32)
        parts.append(part[0] if count == 1 or size[axis] == 1 else part.reshape(shape))
    return Dim3(*parts)


def _unravel(position: int, size: tuple[int, ...]) -> tuple[int, int, int]:
    x, y, _ = size
    return position % x, position // x % y, position // (x * y)


def _lengths(shape: Any) -> tuple[int, ...]:
    lengths = shape if isinstance(shape, tuple) else (shape,)
    if any(isinstance(n, np.ndarray) for n in lengths):
        raise LaunchError("the shape of a shared or local array must be a constant")
    return tuple(int(n) for n in lengths)
