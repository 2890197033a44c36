"""A SIMT machine on NumPy: runs Numba CUDA kernels with all lanes of many thread blocks advancing together.

Knows nothing of attention and needs no Numba. Like a GPU before Volta, it runs divergent branches one
after the other: a lane that spins until another lane of its branch goes on waits forever.
"""

from .compiler.translate import lane_program
from .launch import Options, launch, options
from .observe.trace import tracing
from .profiler import profile, profiling
from .sanitizer import sanitize, sanitizing

__all__ = [
    "Options",
    "lane_program",
    "launch",
    "options",
    "profile",
    "profiling",
    "sanitize",
    "sanitizing",
    "tracing",
]
