"""`jit` and `Kernel`: decorate kernels, and launch them on the lockstep machine."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, overload

from ...arguments import not_negative, shown
from ...errors import LaunchError
from ..failures import hide
from ..language.signatures import check_definition, signatures, signatures_of
from ..launch import launch
from .host_memory import HostArgument


class Kernel:
    """A kernel, as returned by `jit`; ``kernel[blocks_per_grid, threads_per_block](*args)`` launches it.

    Attributes
    ----------
    py_func : function
        The Python function.
    device : bool
        Whether it is a device function, which only kernels call.

    Raises
    ------
    LaunchError
        At a launch: the configuration has too few or too many parts, the kernel is a device function, or
        `paged_numba.lockstep.launch` refuses the launch.

    See Also
    --------
    paged_numba.cuda.jit : Makes kernels.
    paged_numba.lockstep.launch : Launches any kernel.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba.lockstep.cuda import facade as cuda
    >>> @cuda.jit
    ... def fill(x, value):
    ...     x[cuda.grid(1)] = value
    >>> fill
    <Kernel fill on lockstep>
    >>> x = np.zeros(6)
    >>> fill[2, 3](x, 1.5)
    >>> x
    array([1.5, 1.5, 1.5, 1.5, 1.5, 1.5])
    """

    def __init__(self, function: Callable[..., Any], signature: Any = None, device: bool = False) -> None:
        update_wrapper(self, function)
        self.py_func = function
        self.device = device
        self.__lockstep_given__ = signature
        self.__lockstep_signatures__ = [] if signature is None else signatures(signature)
        check_definition(function, self.__lockstep_signatures__, device)

    @classmethod
    def of(cls, kernel: Any) -> Kernel:
        """Return a kernel or device function of Numba's or of the facade as one that runs on lockstep."""
        device = getattr(kernel, "device", None)
        if device is None:
            device = bool(getattr(kernel, "targetoptions", {}).get("device"))
        made = cls(kernel.py_func, device=device)
        made.__lockstep_given__ = getattr(kernel, "__lockstep_given__", None)
        made.__lockstep_signatures__ = signatures_of(kernel)
        return made

    def __getitem__(self, configuration: Any) -> Callable[..., None]:
        if not isinstance(configuration, tuple) or not 2 <= len(configuration) <= 4:
            raise LaunchError(
                "a launch must read kernel[blocks_per_grid, threads_per_block(, stream, shared_bytes)](...), "
                f"got kernel[{shown(configuration)}]"
            )
        if self.device:
            raise LaunchError(f"{self.py_func.__name__} must be called by a kernel: it is a device function")
        blocks_per_grid, threads_per_block, *rest = configuration
        shared_bytes = rest[1] if len(rest) == 2 else 0

        def call(*args: Any) -> None:
            __tracebackhide__ = hide
            given = map(_unwrapped, args)
            launch(self, blocks_per_grid, threads_per_block, *given, shared_bytes=shared_bytes)

        return call

    def __call__(self, *args: Any) -> Any:
        """Raise LaunchError: a call needs a launch configuration."""
        raise LaunchError(
            f"{self.py_func.__name__} must be launched as "
            f"{self.py_func.__name__}[blocks_per_grid, threads_per_block](...)"
        )

    def forall(self, ntasks: int, tpb: int = 0, stream: Any = 0, sharedmem: int = 0) -> Callable[..., None]:
        """Return the kernel configured for a 1-D grid of at least `ntasks` threads."""
        ntasks, threads = not_negative("ntasks", ntasks), not_negative("tpb", tpb) or 256
        sharedmem = not_negative("sharedmem", sharedmem)
        if ntasks == 0:
            return lambda *args: None
        return self[-(-ntasks // threads), threads, stream, sharedmem]

    def specialize(self, *args: Any) -> Kernel:
        """Return the kernel itself: the lockstep machine does not compile for given arguments."""
        return self

    def __repr__(self) -> str:
        return f"<{'Device function' if self.device else 'Kernel'} {self.py_func.__name__} on lockstep>"


def _unwrapped(value: Any) -> Any:
    return value.array if isinstance(value, HostArgument) else value


@overload
def jit(func_or_sig: Callable[..., Any], *, device: bool = False, **options: Any) -> Kernel: ...
@overload
def jit(
    func_or_sig: Any = None, *, device: bool = False, **options: Any
) -> Callable[[Callable[..., Any]], Kernel]: ...
def jit(func_or_sig: Any = None, *, device: bool = False, **options: Any) -> Any:
    """Decorate a kernel or device function, as ``@jit`` or as ``@jit(...)``.

    Parameters
    ----------
    func_or_sig : function, kernel, str, Numba signature, tuple of types, or list of these, optional
        With a signature, scalar arguments, and the result of a device function, are converted to its types, and
        arrays must have its types. Of several signatures, Numba's rules choose one. A kernel of Numba's or of the
        facade keeps its signatures: ``lockstep.jit(kernel)[blocks, threads](...)`` runs it on lockstep, also on a
        machine that has a GPU.
    device : bool
        Whether the function is a device function.
    **options
        Options of the compiler (``fastmath``, ``max_registers``, ``lineinfo``, …), which have no effect here.

    Returns
    -------
    Kernel, or a decorator
        The kernel, or what makes one of a function.

    Raises
    ------
    LaunchError
        The signature cannot be read, or does not fit the function's parameters.

    See Also
    --------
    paged_numba.cuda.Kernel : How to launch a kernel.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba.lockstep.cuda import facade as cuda
    >>> @cuda.jit(device=True)
    ... def square(value):
    ...     return value * value
    >>> @cuda.jit("void(float32[:], float32[:])")
    ... def squares(source, out):
    ...     out[cuda.grid(1)] = square(source[cuda.grid(1)])
    >>> out = np.zeros(4, np.float32)
    >>> squares[1, 4](np.arange(4, dtype=np.float32), out)
    >>> out
    array([0., 1., 4., 9.], dtype=float32)
    """
    if inspect.isfunction(func_or_sig):
        return Kernel(func_or_sig, device=device)
    if inspect.isfunction(getattr(func_or_sig, "py_func", None)):
        return Kernel.of(func_or_sig)
    return lambda function: Kernel(function, func_or_sig, device)
