"""The lockstep machine as the only device, with its only context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ...arguments import integer, shown
from ..launch import (
    MAX_BLOCK_DIM,
    MAX_GRID_DIM,
    MAX_SHARED_BYTES,
    MAX_THREADS_PER_BLOCK,
    current_options,
)
from ..machine.lanes import WARP_SIZE


class Device:
    """The lockstep machine as a device, with the limits that `launch` enforces."""

    id = 0
    name = b"paged_numba lockstep"
    WARP_SIZE = WARP_SIZE
    MAX_THREADS_PER_BLOCK = MAX_THREADS_PER_BLOCK
    MAX_BLOCK_DIM_X, MAX_BLOCK_DIM_Y, MAX_BLOCK_DIM_Z = MAX_BLOCK_DIM
    MAX_GRID_DIM_X, MAX_GRID_DIM_Y, MAX_GRID_DIM_Z = MAX_GRID_DIM
    MAX_SHARED_MEMORY_PER_BLOCK = MAX_SHARED_BYTES
    MULTIPROCESSOR_COUNT = 1

    @property
    def compute_capability(self) -> tuple[int, int]:
        """The compute capability that the machine imitates; see `paged_numba.lockstep.Options`."""
        return current_options().compute_capability

    def __repr__(self) -> str:
        return "<the lockstep machine, no GPU>"

    def reset(self) -> None:
        """Do nothing."""


class Context:
    """The only context."""

    device = Device()

    def synchronize(self) -> None:
        """Return at once: every launch has finished."""

    def reset(self) -> None:
        """Do nothing."""


gpus: Sequence[Device] = (Context.device,)
_context = Context()


def list_devices() -> Sequence[Device]:
    """Return the only device, the lockstep machine."""
    return gpus


def current_context(devnum: int | None = None) -> Context:
    """Return the only context."""
    return _context


def get_current_device() -> Device:
    """Return the only device, the lockstep machine."""
    return Context.device


def select_device(device_id: int) -> Device:
    """Return the only device.

    Raises
    ------
    TypeError, ValueError
        `device_id` is not 0.
    """
    if integer("device_id", device_id) != 0:
        raise ValueError(f"device_id must be 0 on the lockstep machine, got device_id={shown(device_id)}")
    return Context.device


def is_available() -> bool:
    """Return True: kernels run on the lockstep machine."""
    return True


def detect() -> bool:
    """Print that kernels run on the lockstep machine, and return True."""
    print("No GPU: kernels run on the lockstep machine")
    return True


def synchronize() -> None:
    """Return at once: every launch has finished."""


def close() -> None:
    """Do nothing."""


def profile_start() -> None:
    """Do nothing."""


profile_stop = profile_start


@contextmanager
def profiling() -> Iterator[None]:
    """Do nothing."""
    yield
