"""Targets, which run the kernels. Every operation launches its kernels through `launch`.

- ``cuda``: a GPU, through ``numba.cuda``.
- ``lockstep``: this package's machine on NumPy; needs no GPU.
- ``cudasim``: Numba's own simulator, chosen for a whole process by ``NUMBA_ENABLE_CUDASIM=1`` before Numba is imported.
- ``auto``: the target that the environment variable PAGED_NUMBA_TARGET names. If it is not set, ``cudasim`` if that was
  chosen for the process, ``cuda`` if there is a GPU, else ``lockstep``.

While lockstep is installed in the place of ``numba.cuda`` (`paged_numba.lockstep.install`), it is the only target.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import textwrap
from numbers import Integral
from typing import Any

from .arguments import shown
from .errors import TargetNameError, TargetUnavailableError

TARGETS = ("auto", "cuda", "lockstep", "cudasim")

ENVIRONMENT = "PAGED_NUMBA_TARGET"
"""The environment variable that decides what ``auto`` means."""


def resolve(target: str = "auto") -> str:
    """Return the target that will run: ``cuda``, ``lockstep`` or ``cudasim``.

    Parameters
    ----------
    target : {"auto", "cuda", "lockstep", "cudasim"}
        ``auto`` is the target that the environment variable PAGED_NUMBA_TARGET names. If it is not set, ``auto`` is
        ``cudasim`` if NUMBA_ENABLE_CUDASIM is set, ``cuda`` if there is a GPU, else ``lockstep``.

    Raises
    ------
    TargetNameError
        `target`, or the value of the environment variable, is not a target name.
    TargetUnavailableError
        The requested target cannot run here; there is no silent fallback.

    Examples
    --------
    >>> resolve("lockstep")
    'lockstep'
    """
    asked, source = target, "target"
    if isinstance(target, str) and target == "auto" and os.environ.get(ENVIRONMENT):
        asked, source = os.environ[ENVIRONMENT], ENVIRONMENT
    if not isinstance(asked, str) or asked not in TARGETS:
        raise TargetNameError(f"{source} must be one of {', '.join(TARGETS)}, got {source}={shown(asked)}")
    if asked == "auto":
        if lockstep_installed():
            return "lockstep"
        if simulator_enabled():
            return "cudasim"
        return "lockstep" if cuda_unavailable_reason() else "cuda"
    if asked == "cuda":
        reason = cuda_unavailable_reason()
        if reason is not None:
            raise TargetUnavailableError(f"the cuda target cannot run: {reason}")
    if asked == "cudasim" and lockstep_installed():
        raise TargetUnavailableError(f"the cudasim target cannot run: {cuda_unavailable_reason()}")
    if asked == "cudasim" and not simulator_enabled():
        raise TargetUnavailableError(
            "the cudasim target must be chosen before Numba is imported: set NUMBA_ENABLE_CUDASIM=1"
        )
    return str(asked)  # a plain one, whatever subclass of str was asked for


def lockstep_installed() -> bool:
    """Return whether lockstep is installed in the place of ``numba.cuda`` in this process."""
    return any(getattr(finder, "installs_lockstep", False) for finder in sys.meta_path)


def simulator_enabled() -> bool:
    """Return whether Numba's simulator replaces CUDA in this process."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


@functools.cache
def numba_cuda_failure() -> str | None:
    """Return why ``numba.cuda``, in which the kernels are written, cannot be imported, or None if it can."""
    return import_failure("numba.cuda")


def import_failure(module: str) -> str | None:
    """Import a module; return why that fails, or None if it succeeds."""
    try:
        importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a broken installation can raise anything, even SystemExit
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return textwrap.shorten(what, 200, placeholder=" ...")
    return None


def cuda_unavailable_reason() -> str | None:
    """Return why no GPU can be used, or None if a GPU can be used."""
    if lockstep_installed():
        return (
            "lockstep stands in the place of numba.cuda in this process: call paged_numba.lockstep.uninstall, or "
            "run without PAGED_NUMBA_INSTALL and paged-numba run"
        )
    return _cuda_failure()


@functools.cache
def _cuda_failure() -> str | None:
    if simulator_enabled():
        return "NUMBA_ENABLE_CUDASIM is set, so Numba simulates CUDA in this process"
    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed"
    failure = numba_cuda_failure()
    if failure is not None:
        return f"numba.cuda cannot be imported ({failure})"
    from numba import cuda

    try:
        if not cuda.is_available():
            return "no CUDA driver or no GPU was found"
        device = cuda.get_current_device()
        # What a numba-cuda that is too old for NumPy or for float8 lacks, the first launch would miss: load it now.
        from numba.cuda._internal import cuda_fp8  # noqa: F401
        from numba.cuda.descriptor import cuda_target

        cuda_target.typing_context.refresh()
    except Exception as error:
        return f"numba.cuda fails to start ({type(error).__name__}: {error}); paged-numba doctor shows the versions"
    if not tuple(device.compute_capability) >= (5, 0):
        return f"the GPU must have compute capability 5.0 or higher, got {device.compute_capability}"
    return None


def launch(
    kernel: Any, blocks_per_grid: Any, threads_per_block: Any, *args: Any, target: str = "auto"
) -> None:
    """Run a kernel on a target; on every target it reads and writes NumPy arrays in place.

    Parameters
    ----------
    kernel : callable
        A function decorated with ``numba.cuda.jit``.
    blocks_per_grid, threads_per_block : int or tuple of int
        The launch configuration. A grid without thread blocks, with a 0 among its sizes, runs nothing.
    *args
        The kernel's arguments. Convert the arrays of libraries other than NumPy and Numba with
        `paged_numba.arrays.as_array`.
    target : str
        See `resolve`.

    Raises
    ------
    TargetNameError, TargetUnavailableError
        See `resolve`.
    LaunchError
        The grid has a 0 among its sizes, and its other sizes or the thread block are invalid.
    KernelError
        The kernel made an error on lockstep; see `paged_numba.lockstep.launch`.

    See Also
    --------
    paged_numba.lockstep.launch : The same on the target ``lockstep``, with dynamic shared memory.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba.kernels.copy_blocks import copy_blocks_kernel
    >>> cache = np.arange(8, dtype=np.float32).reshape(2, 4, 1, 1)    # 2 blocks of 4 tokens
    >>> launch(copy_blocks_kernel, (1, 1, 4), (32, 1), cache, cache.copy(), np.array([[1, 0]]), target="lockstep")
    >>> cache[0].ravel().tolist()
    [4.0, 5.0, 6.0, 7.0]
    """
    chosen = resolve(target)
    # The kernels that `paged_numba.kernels` exports would choose a target themselves.
    kernel = getattr(kernel, "numba_kernel", kernel)
    if _is_empty(blocks_per_grid, threads_per_block):
        return
    if chosen == "lockstep":
        from . import lockstep

        lockstep.launch(kernel, blocks_per_grid, threads_per_block, *args)
    elif chosen == "cuda":
        _register_float8()
        staged = [_contiguous(array) for array in args]
        kernel[blocks_per_grid, threads_per_block](*staged)
        for array, copy in zip(args, staged, strict=True):
            if array is not copy and array.flags.writeable:
                array[...] = copy
    else:
        kernel[blocks_per_grid, threads_per_block](*args)


def _is_empty(blocks_per_grid: Any, threads_per_block: Any) -> bool:
    """Tell whether a grid has no thread blocks; its other sizes and the thread block must be valid all the same."""
    sizes = blocks_per_grid if isinstance(blocks_per_grid, (tuple, list)) else (blocks_per_grid,)
    zeros = [_is_zero(size) for size in sizes]
    if not any(zeros):
        return False
    from .lockstep.launch import configuration

    configuration(
        tuple(1 if zero else size for zero, size in zip(zeros, sizes, strict=True)), threads_per_block
    )
    return True


def _is_zero(size: Any) -> bool:
    # A duration of NumPy is an Integral in name only.
    return (
        isinstance(size, Integral) and hasattr(size, "__index__") and not isinstance(size, bool) and size == 0
    )


def _contiguous(array: Any) -> Any:
    """Return a strided NumPy array as a contiguous copy, since Numba copies only contiguous arrays to the GPU."""
    import numpy as np

    if not isinstance(array, np.ndarray) or array.flags.c_contiguous or array.flags.f_contiguous:
        return array
    return np.ascontiguousarray(array)


@functools.cache
def _register_float8() -> None:
    """Register ml_dtypes.float8_e4m3fn with Numba as CUDA's fp8_e4m3; Numba already does this for bfloat16."""
    import ml_dtypes
    import numpy as np
    from numba.cuda._internal.cuda_fp8 import fp8_e4m3
    from numba.cuda.np.numpy_support import FROM_DTYPE
    from numba.cuda.typing.asnumbatype import as_numba_type

    FROM_DTYPE.setdefault(np.dtype(ml_dtypes.float8_e4m3fn), as_numba_type(fp8_e4m3))


def cuda_module(target: str = "auto") -> Any:
    """Return the module that ``from paged_numba import cuda`` imports: ``numba.cuda``, or the lockstep facade.

    Parameters
    ----------
    target : str
        See `resolve`.
    """
    if resolve(target) == "lockstep":
        from .lockstep.cuda import facade

        return facade
    from numba import cuda

    return cuda


def multiprocessors(target: str) -> int:
    """Return the number of multiprocessors of a target's GPU; for a target without a GPU, that of an H200."""
    if resolve(target) != "cuda":
        return 132
    from numba import cuda

    return int(cuda.get_current_device().MULTIPROCESSOR_COUNT)
