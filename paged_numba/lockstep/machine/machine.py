"""`Machine`: one launch, with its lanes, its arguments and the memory that its kernel declares."""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Any

import numpy as np

from ...errors import KernelError, LaunchError
from .barriers import Rendezvous, require_whole_blocks
from .identity import IdentityMap
from .lanes import Dim3, Lanes, source_line
from .local_memory import LocalArray
from .masks import Mask
from .memory import LaneArray
from .poison import poisoned
from .strides import contiguous_strides

STATIC_SHARED_LIMIT = 48 * 1024
"""Bytes of static shared memory that a thread block may declare (CUDA C++ Programming Guide, 20.2)."""

LOCAL_LIMIT = 512 * 1024
"""Bytes of local memory of a thread (CUDA C++ Programming Guide, Technical Specifications per Compute Capability)."""


class Site:
    """A place in the source that declares shared or local memory, and the variable to which it assigns the array.

    Parameters
    ----------
    name : str
        The variable.
    function : Source
        The function that declares.
    """

    def __init__(self, name: str, function: Any = None) -> None:
        self.name = name
        self.function = function


class SharedMemory:
    """Shared memory of the thread blocks in a batch.

    Attributes
    ----------
    buffers : dict
        For each `Site`, the arrays of all thread blocks end to end.
    static_bytes : int
        Bytes that a thread block has declared so far, without dynamic memory.
    """

    def __init__(self) -> None:
        self.buffers: dict[Any, Any] = {}
        self.static_bytes = 0

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.buffers.values())


class Machine(Lanes):
    """The machine that runs one launch.

    Parameters
    ----------
    blocks_per_grid, threads_per_block : Dim3 of int
    shared_bytes : int
        Dynamic shared memory of a thread block, in bytes.
    columns : range, optional
        The threads of each thread block that this machine runs; all if None.

    Attributes
    ----------
    depths : dict
        By device function, how many calls of it are running: more than one if it calls itself.
    rendezvous : Rendezvous or None
        Where this machine waits at a barrier; None if all threads of a thread block advance together.
    ended_by : type of exception or None
        The exception that ended the launch, if one did.
    """

    array_type = LaneArray
    local_type: type[LaneArray] = LocalArray
    collects_errors = False
    """Whether errors of the kernel are reported to observers, and the launch continues."""

    def __init__(
        self, blocks_per_grid: Dim3, threads_per_block: Dim3, shared_bytes: int, columns: range | None = None
    ) -> None:
        super().__init__(blocks_per_grid, threads_per_block, columns)
        self.shared_bytes = shared_bytes
        self.rendezvous: Rendezvous | None = None
        self.ended_by: type[BaseException] | None = None
        self._constants: IdentityMap[LaneArray] = IdentityMap()
        # Not the arrays, which refer to the machine: a cycle would keep its memory until the garbage collector runs.
        self._argument_buffers: list[Any] = []
        self.depths: dict[Any, int] = {}

    def part(self, columns: range) -> Machine:
        """Return a machine for some of the threads of each thread block."""
        return Machine(self.blocks_per_grid, self.threads_per_block, self.shared_bytes, columns)

    def begin_batch(self, first: int, count: int, memory: SharedMemory | None = None) -> None:
        """Start the thread blocks ``first .. first + count - 1``, with no lane exited and with fresh memory.

        Machines that run different warps of the same thread blocks share one `memory`.
        """
        self.move_to(first, count)
        self.local_bytes = 0
        self.shared = SharedMemory() if memory is None else memory
        self._local: dict[Any, LaneArray] = {}

    def begin_launch(self, function: Any, arguments: tuple[Any, ...]) -> None:
        """Called when a launch begins; an observed machine reports it."""

    def end_launch(self) -> None:
        """Called when a launch ends, even by an exception; an observed machine reports it."""

    def misses(self, mask: Mask, kind: str, what: str, name: str) -> None:
        """Raise KernelError for lanes that lack a value; an observed machine may report it."""
        raise KernelError(f"{what}, {self.whereabouts(self.first_lane(mask))}")

    def meet(self, mask: Mask, what: str, line: str, parts: list[Any]) -> bool:
        """Check the barrier `what` that the lanes of `mask` have reached; an observed machine reports it.

        Parameters
        ----------
        parts : list of Machine
            The machines of the warps that wait there.

        Returns
        -------
        bool
            Whether the barrier was in order.
        """
        require_whole_blocks(self, mask, what, lambda: line)
        return True

    def exchange(self, mask: Mask, source: Any, itemsize: int) -> None:
        """Called at each shuffle, with the lane that each lane reads from; an observed machine reports it."""

    def wait(self, error: KernelError) -> None:
        """Let the other warps run, since this one waits for memory to change; raise `error` if there are none."""
        if self.rendezvous is None:
            raise error
        self.rendezvous.pass_turn(self, error)

    def compute(self, mask: Mask, dtype: np.dtype[Any], operations: int, special: int) -> None:
        """Report floating-point operations of the lanes in `mask`: nothing, unless the launch is observed."""

    # Memory.

    def argument(self, name: str, array: Any) -> LaneArray:
        """Return an array argument as a lane value, without a copy."""
        made = self.array_type.of(self, name, array)
        self._argument_buffers.append(made.buffer)
        return made

    def digest(self) -> bytes:
        """Return a digest of all memory that the kernel can change: arguments, shared and local arrays."""
        for array in self._local.values():
            if isinstance(array, LocalArray):
                array.settle()
        local = [array.buffer for array in self._local.values()]
        found = blake2b(digest_size=16)
        for buffer in (*self._argument_buffers, *self.shared.buffers.values(), *local):
            found.update(np.ascontiguousarray(buffer).view(np.uint8).data)
        return found.digest()

    def shared_array(self, site: Site, shape: Any, dtype: np.dtype[Any]) -> LaneArray:
        """Return the shared array declared at `site`; ``shape=0`` means the dynamic shared memory."""
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
                    "for more, use dynamic shared memory: shared.array(0, dtype) in the kernel and "
                    "shared_bytes= at launch"
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
        # All dynamic arrays are views of the same memory, each with its own dtype.
        row = -(-self.shared_bytes // 16) * 16
        if "dynamic" not in self.shared.buffers:
            self.shared.buffers["dynamic"] = poisoned(self.batch * row, np.dtype(np.uint8))
        buffer = self.shared.buffers["dynamic"].view(dtype)
        size = self.shared_bytes // dtype.itemsize
        return self.array_type(self, name, buffer, self._row_offsets(row // dtype.itemsize), (size,), (1,))

    def local_array(self, mask: Mask, site: Site, shape: Any, dtype: np.dtype[Any]) -> LaneArray:
        """Return the local array declared at `site`, poisoned in the lanes that run the declaration."""
        lengths = _lengths(shape)
        size = math.prod(lengths)
        if size * dtype.itemsize > LOCAL_LIMIT:
            raise LaunchError(
                f"local memory of a thread must be at most {LOCAL_LIMIT} bytes, got {size * dtype.itemsize} with "
                f"shape={lengths} dtype={dtype}, {source_line()}"
            )
        frame = self.frame(site)
        if frame not in self._local:
            buffer = poisoned(self.num_lanes * size, dtype)
            self.local_bytes += buffer.nbytes
            strides = tuple(s * self.num_lanes for s in contiguous_strides(lengths))
            lane = np.arange(self.num_lanes, dtype=np.int64).reshape(self.shape)
            self._local[frame] = self.local_type(self, site.name, buffer, lane, lengths, strides)
            return self._local[frame]
        found = self._local[frame]
        if isinstance(found, LocalArray):
            found.settle()
        element = poisoned(size * self.num_lanes, dtype).reshape(size, *self.shape)
        np.copyto(found.buffer.reshape(size, *self.shape), element, where=mask)
        return found

    def frame(self, site: Site) -> tuple[Site, int]:
        """Return the key of the local array at `site`: each running call of a function has its own."""
        return site, self.depths.get(site.function, 1)

    def constant(self, name: str, array: Any) -> LaneArray:
        """Return a read-only view of a host array that the kernel refers to as a global."""
        known = self._constants.get(array)
        if known is not None:
            return known
        frozen = np.asarray(array).view()
        frozen.flags.writeable = False
        return self._constants.setdefault(array, self.array_type.of(self, name, frozen))

    def captured(self, name: str, array: Any) -> LaneArray:
        """Return the memory of a device array that the kernel refers to as a global, which is not copied."""
        known = self._constants.get(array)
        return self._constants.setdefault(array, self.argument(name, array)) if known is None else known


def row_size(size: int, dtype: np.dtype[Any]) -> int:
    """Return the step, in elements, from one thread block's shared array to the next: a multiple of 16 bytes."""
    return size + -size % (16 // math.gcd(16, dtype.itemsize))


def _lengths(shape: Any) -> tuple[int, ...]:
    lengths = shape if isinstance(shape, tuple) else (shape,)
    if any(isinstance(n, np.ndarray) for n in lengths):
        raise LaunchError("the shape of a shared or local array must be a constant")
    return tuple(int(n) for n in lengths)
