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

import numpy as np

from ..language.intrinsics import DECLARATIONS, INTRINSICS, MACHINE_VALUES
from ..machine.lanes import WARP_SIZE
from ..machine.poison import poisoned
from .device_array import (
    DeviceArray,
    as_cuda_array,
    device_array,
    device_array_like,
    is_cuda_array,
    to_device,
)
from .devices import (
    Context,
    Device,
    close,
    current_context,
    detect,
    get_current_device,
    gpus,
    is_available,
    list_devices,
    profile_start,
    profile_stop,
    profiling,
    select_device,
    synchronize,
)
from .host_memory import (
    HostArgument,
    In,
    InOut,
    Out,
    defer_cleanup,
    managed_array,
    mapped_array,
    mapped_array_like,
    pinned,
    pinned_array,
    pinned_array_like,
)
from .kernels import Kernel, jit
from .names import DeviceName
from .streams import (
    Event,
    Stream,
    default_stream,
    event,
    event_elapsed_time,
    legacy_default_stream,
    per_thread_default_stream,
    stream,
)

for _path in (*INTRINSICS, *DECLARATIONS, *(f"cuda.{name}" for name in MACHINE_VALUES)):
    _name = _path.split(".")[1]
    globals().setdefault(_name, DeviceName(f"cuda.{_name}"))

warpsize = WARP_SIZE
boolean = bool_ = np.bool_
for _name in "int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split():
    globals()[_name] = getattr(np, _name)
complex64, complex128 = np.complex64, np.complex128


def __getattr__(name: str) -> Any:
    raise AttributeError(f"cuda.{name} is not part of the lockstep facade: it needs numba.cuda and a GPU")


__all__ = ["Device", "DeviceArray", "Event", "Kernel", "Stream", "as_cuda_array", "device_array"]
__all__ += ["device_array_like", "is_cuda_array", "jit", "poisoned", "to_device"]
