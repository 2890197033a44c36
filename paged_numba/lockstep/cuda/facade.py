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
from .device_array import *
from .devices import *
from .functions import random
from .functions.elementwise import *
from .functions.reduction import *
from .functions.stacks import *
from .kernels import *
from .memory import *
from .names import TYPES, DeviceName, absent
from .numba_parts import PASSED_ON, numba_cuda, passed_on
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
