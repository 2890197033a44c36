"""``cuda`` without a GPU: the names of ``numba.cuda`` that kernels and host code use.

``from paged_numba import cuda`` imports this module where there is no GPU. A launch has finished when its call
returns, so streams and events have nothing to wait for.

Examples
--------
>>> import numpy as np
>>> from paged_numba.lockstep.cuda import facade as cuda
>>> @cuda.jit
... def double(x):
...     i = cuda.grid(1)
...     if i < x.size:
...         x[i] *= 2
>>> x = cuda.to_device(np.arange(5))
>>> double[2, 4](x)
>>> x.copy_to_host()
array([0, 2, 4, 6, 8])
"""

from __future__ import annotations

from typing import Any

from ..language.intrinsics import DECLARATIONS, INTRINSICS, MACHINE_VALUES
from ..machine.lanes import WARP_SIZE
from ..machine.poison import poisoned
from .device_array import DeviceArray, DeviceRecord, MemoryPointer
from .devices import (
    Context,
    Device,
    close,
    cuda_error,
    current_context,
    detect,
    get_current_device,
    gpus,
    is_available,
    is_bfloat16_supported,
    is_float16_supported,
    is_supported_version,
    list_devices,
    profile_start,
    profile_stop,
    profiling,
    require_context,
    runtime,
    select_device,
    synchronize,
)
from .kernels import Kernel, jit
from .memory import (
    ArgHint,
    In,
    InOut,
    MappedArray,
    Out,
    as_cuda_array,
    defer_cleanup,
    device_array,
    device_array_like,
    from_cuda_array_interface,
    is_cuda_array,
    managed_array,
    mapped,
    mapped_array,
    mapped_array_like,
    pinned,
    pinned_array,
    pinned_array_like,
    to_device,
)
from .names import TYPES, DeviceName, absent
from .numba_parts import PASSED_ON, numba_cuda, passed_on
from .streams import (
    Event,
    Stream,
    default_stream,
    event,
    event_elapsed_time,
    external_stream,
    legacy_default_stream,
    per_thread_default_stream,
    stream,
)

for _path in (*INTRINSICS, *DECLARATIONS, *(f"cuda.{name}" for name in MACHINE_VALUES)):
    _name = _path.split(".")[1]
    globals().setdefault(_name, DeviceName(f"cuda.{_name}"))

warpsize = WARP_SIZE
globals().update(TYPES)

_INSTEAD = {
    **dict.fromkeys(
        ["IpcHandle", "open_ipc_array", "GetIpcHandleMixin"], "copy the array to the host and send that"
    ),
    **dict.fromkeys(
        "BaseCUDAMemoryManager HostOnlyCUDAMemoryManager PinnedMemory MappedMemory set_memory_manager".split(),
        "memory is NumPy's, so leave the memory manager out",
    ),
    **dict.fromkeys(
        "declare_device CUSource PTXSource LTOIR Cubin Fatbin Archive Object LinkableCode".split(),
        "no code but Python's can be run, so write the function in Python",
    ),
}
"""Names of ``numba.cuda`` that are absent, and what to do instead."""


def __getattr__(name: str) -> Any:
    if name in _INSTEAD:
        return absent(f"cuda.{name}", _INSTEAD[name])
    if name in PASSED_ON:
        if numba_cuda() is None:
            return absent(f"cuda.{name}", "it is Numba's own, so install numba-cuda")
        return passed_on(name)
    raise AttributeError(f"cuda.{name} is not part of the lockstep facade: it needs numba.cuda and a GPU")


__all__ = ["Device", "DeviceArray", "Event", "Kernel", "Stream", "as_cuda_array", "device_array"]
__all__ += ["device_array_like", "is_cuda_array", "jit", "poisoned", "to_device"]
