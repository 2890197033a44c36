"""Storage of a cache: allocates the arrays of every layer, unless they cannot fit into the memory of the target."""

from __future__ import annotations

import math
from typing import Any

from ..arguments import require_memory, shown
from ..arrays import storage, torch_device


def bytes_of_layers(shapes: tuple[tuple[int, ...], ...], num_layers: int, dtype: Any) -> int:
    """Return the bytes of the arrays that `storage_of_layers` makes."""
    size: int = num_layers * sum(math.prod(shape) for shape in shapes) * dtype.itemsize
    return size


def storage_of_layers(
    shapes: tuple[tuple[int, ...], ...], num_layers: int, dtype: Any, target: str, device: Any = None
) -> tuple[list[Any], ...]:
    """Return arrays full of NaN: for each shape, one array for each layer.

    Parameters
    ----------
    shapes : tuple of tuple of int
        Shapes of a layer's key cache and value cache.
    num_layers : int
    dtype : dtype
    target : str
        The target that runs, from `paged_numba.targets.resolve`.
    device : torch.device or str, optional
        Device of torch; if given, the arrays are torch tensors.

    Raises
    ------
    TypeError, ValueError
        The target does not run on the device.
    MemoryError
        The arrays do not fit into memory.
    """
    device = torch_device(device, target)
    needed = bytes_of_layers(shapes, num_layers, dtype)
    arrays = " and ".join(map(str, shapes))
    what = f"the storage of num_layers={shown(num_layers)} layers, arrays of shapes {arrays} in each,"
    require_memory(what, needed, _memory_of_gpu() if target == "cuda" else None)
    try:
        return tuple([storage(shape, dtype, target, device) for _ in range(num_layers)] for shape in shapes)
    except (MemoryError, RuntimeError) as error:  # torch's error is a RuntimeError
        if not (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"):
            raise
        raise MemoryError(f"{what} must fit into memory, got {needed / 2**30:,.1f} GiB") from None


def _memory_of_gpu() -> int:
    from numba import cuda

    return int(cuda.current_context().get_memory_info().total)
