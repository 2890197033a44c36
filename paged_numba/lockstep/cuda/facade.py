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
from . import names as _names
from .device_array import *
from .devices import *
from .functions import random
from .functions.elementwise import *
from .functions.reduction import *
from .functions.stacks import *
from .kernels import *
from .memory import *
from .names import TYPES, DeviceName
from .numba_parts import PASSED_ON
from .numba_parts import numba_cuda as _numba_cuda
from .numba_parts import passed_on as _passed_on
from .pointers import *
from .streams import *

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
}
"""Names of ``numba.cuda`` that are absent, and what to do instead."""


_CUDADRV = _names.Namespace(
    "cuda.cudadrv",
    devicearray=_names.Namespace(
        "cuda.cudadrv.devicearray",
        DeviceNDArray=DeviceArray,
        DeviceNDArrayBase=DeviceArray,
        DeviceRecord=DeviceRecord,
        MappedNDArray=MappedArray,
        ManagedNDArray=MappedArray,
        is_cuda_ndarray=lambda obj: isinstance(obj, DeviceArray),
        auto_device=lambda obj, stream=0, copy=True: (to_device(obj, stream, copy), not is_cuda_array(obj)),
    ),
    devices=_names.Namespace(
        "cuda.cudadrv.devices",
        gpus=gpus,
        get_context=current_context,
        require_context=require_context,
        reset=close,
    ),
    driver=_names.Namespace(
        "cuda.cudadrv.driver",
        Device=Device,
        Context=Context,
        Stream=Stream,
        Event=Event,
        MemoryPointer=MemoryPointer,
        CudaAPIError=_names.CudaAPIError,
        is_device_memory=is_cuda_array,
        event_elapsed_time=event_elapsed_time,
        profile_start=profile_start,
        profile_stop=profile_stop,
    ),
    error=_names.Namespace(
        "cuda.cudadrv.error", CudaSupportError=_names.CudaSupportError, CudaDriverError=_names.CudaDriverError
    ),
    runtime=_names.Namespace("cuda.cudadrv.runtime", runtime=runtime),
)
_HIDDEN = {
    "cudadrv": _CUDADRV,
    "CudaSupportError": _names.CudaSupportError,
    "CudaAPIError": _names.CudaAPIError,
}
_HIDDEN.update((name, getattr(_CUDADRV, name)) for name in ("devicearray", "devices", "driver"))
_HIDDEN.update(
    dict.fromkeys(
        "CUSource PTXSource LTOIR Cubin Fatbin Archive Object LinkableCode".split(), _names.LinkableCode
    ),
    declare_device=_names.declare_device,
)
"""Names that `install` leaves as Numba has them."""


def __getattr__(name: str) -> Any:
    if name in _HIDDEN:
        return _HIDDEN[name]
    if name in _INSTEAD:
        return _names.absent(f"cuda.{name}", _INSTEAD[name])
    if name in PASSED_ON:
        if _numba_cuda() is None:
            return _names.absent(f"cuda.{name}", "it is Numba's own, so install numba-cuda")
        return _passed_on(name)
    raise AttributeError(f"cuda.{name} is not part of the lockstep facade: it needs numba.cuda and a GPU")


__all__ = ["Device", "DeviceArray", "Event", "Kernel", "Stream", "as_cuda_array", "device_array"]
__all__ += ["device_array_like", "is_cuda_array", "jit", "poisoned", "to_device"]
