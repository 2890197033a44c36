"""The lockstep machine as the only device, with its only context."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from ...arguments import integer, not_negative, shown
from ..launch import (
    MAX_BLOCK_DIM,
    MAX_GRID_DIM,
    MAX_SHARED_BYTES,
    MAX_THREADS_PER_BLOCK,
    current_options,
)
from ..machine.lanes import WARP_SIZE
from ..machine.poison import fresh_array
from . import streams
from .device_array import DeviceArray
from .memory import defer_cleanup
from .names import AbsentError, absent, refusal
from .pointers import MemoryPointer

__all__ = [
    "Context",
    "Device",
    "close",
    "cuda_error",
    "current_context",
    "detect",
    "get_current_device",
    "gpus",
    "is_available",
    "is_bfloat16_supported",
    "is_float16_supported",
    "is_supported_version",
    "list_devices",
    "profile_start",
    "profile_stop",
    "profiling",
    "require_context",
    "runtime",
    "select_device",
    "synchronize",
]

F = TypeVar("F", bound=Callable[..., Any])


class _Name(str):
    """A name that also has the method of bytes, which older releases of Numba return."""

    __slots__ = ()

    def decode(self, *encoding: str) -> str:
        return str(self)


class Device:
    """The lockstep machine as a device, with the limits that `launch` enforces.

    In a ``with`` statement it is the current device, as it always is.
    """

    id = 0
    name = _Name("paged_numba lockstep")
    uuid = "GPU-00000000-0000-0000-0000-000000000000"
    WARP_SIZE = WARP_SIZE
    MAX_THREADS_PER_BLOCK = MAX_THREADS_PER_BLOCK
    MAX_BLOCK_DIM_X, MAX_BLOCK_DIM_Y, MAX_BLOCK_DIM_Z = MAX_BLOCK_DIM
    MAX_GRID_DIM_X, MAX_GRID_DIM_Y, MAX_GRID_DIM_Z = MAX_GRID_DIM
    MAX_SHARED_MEMORY_PER_BLOCK = MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = MAX_SHARED_BYTES
    MAX_SHARED_MEMORY_PER_MULTIPROCESSOR = MAX_SHARED_BYTES + 1024
    MULTIPROCESSOR_COUNT = 1
    # As of compute capability 9.0.
    MAX_THREADS_PER_MULTI_PROCESSOR = 2048
    MAX_BLOCKS_PER_MULTIPROCESSOR = 32
    MAX_REGISTERS_PER_BLOCK = MAX_REGISTERS_PER_MULTIPROCESSOR = TOTAL_CONSTANT_MEMORY = 65536
    CONCURRENT_KERNELS = COOPERATIVE_LAUNCH = UNIFIED_ADDRESSING = MANAGED_MEMORY = CAN_MAP_HOST_MEMORY = 1
    INTEGRATED = PCI_DOMAIN_ID = PCI_BUS_ID = PCI_DEVICE_ID = 0
    supports_float16 = True

    @property
    def compute_capability(self) -> tuple[int, int]:
        """The compute capability that the machine imitates; see `paged_numba.lockstep.Options`."""
        return current_options().compute_capability

    @property
    def COMPUTE_CAPABILITY_MAJOR(self) -> int:
        return self.compute_capability[0]

    @property
    def COMPUTE_CAPABILITY_MINOR(self) -> int:
        return self.compute_capability[1]

    @property
    def supports_bfloat16(self) -> bool:
        return self.compute_capability >= (8, 0)

    @property
    def supports_fp8(self) -> bool:
        return self.compute_capability >= (8, 9)

    @property
    def _device(self) -> Device:
        """The device itself: some projects reach it through Numba's list of contexts of devices."""
        return self

    @property
    def primary_context(self) -> Context:
        return _context

    def get_primary_context(self) -> Context:
        """Return the only context."""
        return _context

    def release_primary_context(self) -> None:
        """Do nothing."""

    def get_device_identity(self) -> dict[str, int]:
        """Return where the device would sit on the bus."""
        return {"pci_domain_id": 0, "pci_bus_id": 0, "pci_device_id": 0}

    def reset(self) -> None:
        """Do nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.isupper():  # an attribute of which Numba asks the driver
            raise AbsentError(str(refusal(f"Device.{name}", _OF_A_GPU)))
        raise AttributeError(f"the device of the lockstep machine has no {name}", name=name, obj=self)

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: object) -> None:
        """Do nothing: the device stays the current one."""

    def __repr__(self) -> str:
        return "<the lockstep machine, no GPU>"


_OF_A_GPU = "only a GPU has it, so give it a value where there is none: getattr(device, name, value)"


class _Gpus(Sequence[Device]):
    """The list of devices, with the lockstep machine as the only one."""

    @property
    def lst(self) -> list[Device]:
        return [_device]

    @property
    def current(self) -> Device:
        return _device

    def __getitem__(self, index: Any) -> Any:
        return self.lst[index]

    def __len__(self) -> int:
        return 1

    def __str__(self) -> str:
        return f"[{_device!r}]"


class Deallocations:
    """The memory that waits to be freed: none, since memory is freed at once."""

    is_disabled = False

    def clear(self) -> None:
        """Do nothing: nothing waits."""

    @contextmanager
    def disable(self) -> Iterator[None]:
        """Do nothing: nothing waits."""
        yield

    def __len__(self) -> int:
        return 0


class MemoryInfo(tuple[int, int]):
    """The free and the total memory in bytes, as ``info.free`` and ``info.total``."""

    __slots__ = ()

    @property
    def free(self) -> int:
        return self[0]

    @property
    def total(self) -> int:
        return self[1]


class Context:
    """The only context.

    Attributes
    ----------
    device : Device
        The only device.
    deallocations : Deallocations
        The memory that waits to be freed: none.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.handle = 1
        self.deallocations = Deallocations()
        self.allocations: dict[int, Any] = {}
        self.extras: dict[Any, Any] = {}

    def synchronize(self) -> None:
        """Return at once: every launch has finished."""

    def reset(self) -> None:
        """Do nothing."""

    def push(self) -> None:
        """Do nothing: the context is the current one."""

    def pop(self) -> None:
        """Do nothing: the context stays the current one."""

    def prepare_for_use(self) -> None:
        """Do nothing."""

    def get_memory_info(self) -> MemoryInfo:
        """Return the free and the total memory of this computer in bytes."""
        try:
            page = os.sysconf("SC_PAGE_SIZE")
            return MemoryInfo((os.sysconf("SC_AVPHYS_PAGES") * page, os.sysconf("SC_PHYS_PAGES") * page))
        except (AttributeError, ValueError, OSError):
            raise refusal("get_memory_info()", "this system does not tell how much memory it has") from None

    def memalloc(self, bytesize: int) -> MemoryPointer:
        """Return fresh memory, which is poisoned."""
        memory = fresh_array((not_negative("bytesize", bytesize),), np.dtype(np.uint8))
        return DeviceArray.of(memory).gpu_data

    def memallocmanaged(self, bytesize: int, attach_global: bool = True) -> MemoryPointer:
        """Return fresh memory, which is poisoned."""
        return self.memalloc(bytesize)

    def memhostalloc(
        self, bytesize: int, mapped: bool = False, portable: bool = False, wc: bool = False
    ) -> MemoryPointer:
        """Return fresh memory, which is poisoned."""
        return self.memalloc(bytesize)

    def create_stream(self) -> streams.Stream:
        """Return a stream."""
        return streams.stream()

    def create_external_stream(self, ptr: int) -> streams.Stream:
        """Return a stream for that of another library."""
        return streams.external_stream(ptr)

    def get_default_stream(self) -> streams.Stream:
        """Return the default stream."""
        return streams.default_stream()

    def get_legacy_default_stream(self) -> streams.Stream:
        """Return the legacy default stream."""
        return streams.legacy_default_stream()

    def get_per_thread_default_stream(self) -> streams.Stream:
        """Return the default stream of the thread."""
        return streams.per_thread_default_stream()

    def create_event(self, timing: bool = True) -> streams.Event:
        """Return an event."""
        return streams.event(timing)

    def can_access_peer(self, peer_device: Any) -> bool:
        """Return False: there is no other device."""
        return False

    def defer_cleanup(self) -> Any:
        """Return a context manager that does nothing: no cleanup is pending."""
        return defer_cleanup()

    def __getattr__(self, name: str) -> Any:
        if name in _ABSENT:
            return absent(f"current_context().{name}")
        raise AttributeError(f"the context of the lockstep machine has no {name}")

    def __repr__(self) -> str:
        return "<the context of the lockstep machine>"


_ABSENT = (
    "get_ipc_handle open_ipc_handle enable_peer_access create_module_ptx create_module_image unload_module "
    "mempin memory_manager get_max_potential_block_size get_active_blocks_per_multiprocessor modules"
).split()

_device = Device()
_context = Context(_device)
gpus = _Gpus()


def list_devices() -> Sequence[Device]:
    """Return the only device, the lockstep machine."""
    return gpus


def current_context(devnum: int | None = None) -> Context:
    """Return the only context."""
    return _context


get_context = current_context


def require_context(fn: F) -> F:
    """Decorate a function that needs a context: there always is one."""
    if not callable(fn):
        raise TypeError(f"fn must be a function, got fn={shown(fn)}")

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return call  # type: ignore[return-value]


def get_current_device() -> Device:
    """Return the only device, the lockstep machine."""
    return _device


def select_device(device_id: int) -> Context:
    """Return the context of the only device.

    Raises
    ------
    TypeError, ValueError
        `device_id` is not 0.
    """
    if integer("device_id", device_id) != 0:
        raise ValueError(f"device_id must be 0 on the lockstep machine, got device_id={shown(device_id)}")
    return _context


def is_available() -> bool:
    """Return True: kernels run on the lockstep machine."""
    return True


def is_supported_version() -> bool:
    """Return True: kernels run on the lockstep machine."""
    return True


def is_float16_supported() -> bool:
    """Return True: kernels may use float16."""
    return True


def is_bfloat16_supported() -> bool:
    """Tell whether the GPU that the machine imitates has bfloat16."""
    return _device.supports_bfloat16


def cuda_error() -> None:
    """Return None: there was no error."""


class Runtime:
    """The CUDA runtime that the lockstep machine imitates, as ``cuda.runtime``."""

    def get_version(self) -> tuple[int, int]:
        """Return the version of CUDA: 12.9, the last of those for which every release of Numba was made."""
        return 12, 9

    def is_supported_version(self) -> bool:
        """Return True: kernels run on the lockstep machine."""
        return True

    @property
    def supported_versions(self) -> tuple[tuple[int, int], ...]:
        return (self.get_version(),)


runtime = Runtime()


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
