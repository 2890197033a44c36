"""A SIMT machine on NumPy: runs Numba CUDA kernels with all lanes of many thread blocks advancing together.

It contains nothing about attention, and does not need Numba. Like a GPU before Volta, it runs divergent branches
one after the other: a lane that waits in a loop for another lane of its warp waits forever.

Examples
--------
>>> import numpy as np
>>> from paged_numba import cuda, lockstep
>>> @cuda.jit
... def double(x):
...     x[cuda.grid(1)] *= 2
>>> x = np.arange(4)
>>> lockstep.launch(double, 2, 2, x)
>>> x
array([0, 2, 4, 6])
>>> lockstep.profile(double, 2, 2, x)
Report(1 launch of double, 4 sectors of global memory moved)
>>> lockstep.sanitize(double, 2, 2, x)
Findings(no findings)
"""

from .compiler.breakpoints import breakpoint  # noqa: A004 (Python's, with a thread)
from .compiler.translate import lane_program
from .cuda.facade import jit
from .cuda.installation import install, installed, uninstall
from .launch import Options, launch, options
from .numba_typing import check_compiles
from .observe.trace import tracing
from .profiler import profile, profiling
from .sanitizer import sanitize, sanitizing
from .tracer import record, recording, trace

__all__ = [
    "Options",
    "breakpoint",
    "check_compiles",
    "install",
    "installed",
    "jit",
    "lane_program",
    "launch",
    "options",
    "profile",
    "profiling",
    "record",
    "recording",
    "sanitize",
    "sanitizing",
    "trace",
    "tracing",
    "uninstall",
]
