"""`Reduce`: combines all elements of an array by a function of two, in the order in which Numba does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....arguments import not_negative, shown
from ..device_array import DeviceArray
from ..kernels import Kernel
from ..memory import device_array, to_device
from ..names import DeviceName
from .elementwise import on_host

__all__ = ["Reduce", "reduce"]

THREADS, MOST_BLOCKS = 128, 64
"""Threads of a thread block, and most thread blocks, as in Numba."""

cuda: Any = DeviceName("cuda")


def _kernels(combine: Kernel, dtype: Any) -> tuple[Kernel, Kernel]:
    """Return the kernel for thread blocks of 128 threads, and that for one thread block of fewer."""

    def in_warp(tile: Any, thread: Any) -> None:
        warp, lane = thread // 32, thread % 32
        distance = 16
        while distance:
            if lane < distance:
                tile[warp, lane] = combine(tile[warp, lane], tile[warp, lane + distance])
            cuda.syncwarp()
            distance //= 2

    in_warp = Kernel(in_warp, device=True)

    def full_blocks(source: Any, out: Any, init: Any) -> None:
        tile = cuda.shared.array((4, 32), dtype)
        thread, block = cuda.threadIdx.x, cuda.blockIdx.x
        first = thread + 128 * block
        value = source[first]
        for i in range(first + 128 * cuda.gridDim.x, source.size, 128 * cuda.gridDim.x):
            value = combine(value, source[i])
        tile[thread // 32, thread % 32] = value
        cuda.syncwarp()
        in_warp(tile, thread)
        cuda.syncthreads()
        if thread < 2:
            tile[thread, 0] = combine(tile[thread, 0], tile[thread + 2, 0])
        cuda.syncwarp()
        if thread == 0:
            out[block] = combine(tile[0, 0], tile[1, 0])
            if block == 0:
                out[0] = combine(out[0], init)

    def one_block(source: Any, out: Any, init: Any, with_init: Any) -> None:
        tile = cuda.shared.array((4, 32), dtype)
        thread = cuda.threadIdx.x
        warp, lane = thread // 32, thread % 32
        tile[warp, lane] = source[thread]
        cuda.syncthreads()
        if (warp + 1) * 32 < source.size:
            in_warp(tile, thread)
        elif lane == 0:
            for i in range(1, source.size - warp * 32):
                tile[warp, 0] = combine(tile[warp, 0], tile[warp, i])
        cuda.syncthreads()
        if thread == 0:
            value = tile[0, 0]
            for i in range(1, (cuda.blockDim.x + 31) // 32):
                value = combine(value, tile[i, 0])
            out[0] = value
            if with_init:
                out[0] = combine(out[0], init)

    return Kernel(full_blocks), Kernel(one_block)


class Reduce:
    """A reduction by a function of two elements.

    Parameters
    ----------
    functor : function
        Returns the combination of two elements.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba.lockstep.cuda import facade as cuda
    >>> @cuda.reduce
    ... def largest(a, b):
    ...     return max(a, b)
    >>> int(largest(np.array([3, 9, 4])))
    9
    """

    def __init__(self, functor: Callable[..., Any]) -> None:
        function = getattr(functor, "py_func", functor)
        if not callable(function):
            raise TypeError(f"functor must be a function of two elements, got functor={shown(functor)}")
        self._combine = Kernel(function, device=True)
        self._made: dict[Any, tuple[Kernel, Kernel]] = {}

    def __call__(
        self, arr: Any, size: int | None = None, res: Any = None, init: Any = 0, stream: Any = 0
    ) -> Any:
        """Return the combination of all elements and `init`.

        Parameters
        ----------
        arr : array
            On the host or the device, 1-D.
        size : int, optional
            How many elements of it to take.
        res : DeviceArray, optional
            Receives the result in its first element; nothing is returned then.
        init : number
            Combined with the elements, cast to their type.
        stream : object
            Work is done when the call returns.

        Raises
        ------
        TypeError
            `arr` is not 1-D.
        """
        if arr.ndim != 1:
            raise TypeError(f"arr must have 1 axis, got shape={arr.shape}")
        source = on_host(arr)
        if size is not None:
            source = source[: not_negative("size", size)]
        dtype = source.dtype
        init = dtype.type(init)
        if not source.size:
            return init
        if dtype not in self._made:
            self._made[dtype] = _kernels(self._combine, dtype)
        full_blocks, one_block = self._made[dtype]
        source = np.ascontiguousarray(source) if source is arr else source
        full = source.size // THREADS * THREADS
        blocks = min(full // THREADS, MOST_BLOCKS)
        partials = device_array(blocks + (full < source.size), dtype)
        if full:
            full_blocks[blocks, THREADS, stream](DeviceArray.of(source[:full]), partials[:blocks], init)
        if full < source.size:
            one_block[1, source.size - full, stream](
                DeviceArray.of(source[full:]), partials[blocks:], init, not blocks
            )
        if partials.size > 1:
            one_block[1, partials.size, stream](partials, partials, init, False)
        if res is None:
            return partials[0]
        to_device(res)[:1].copy_to_device(partials[:1])
        return None


reduce = Reduce
