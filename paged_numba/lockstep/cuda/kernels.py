"""`jit` and `Kernel`: decorate kernels, and launch them on the lockstep machine."""

from __future__ import annotations

import functools
import inspect
import math
import numbers
import pickle
import sys
from collections.abc import Callable, Sequence
from functools import update_wrapper
from typing import Any, overload

import numpy as np

from ...arguments import not_negative, shown
from ...draw.text import plural
from ...errors import KernelError, LaunchError, LaunchTypeError, UnsupportedConstructError
from ..compiler.source import Source
from ..compiler.translate import translate
from ..failures import hide
from ..language.signatures import PointerType, check_definition, signatures, signatures_of
from ..launch import launch
from ..numba_typing import check_eagerly
from .memory import ArgHint, as_cuda_array, is_cuda_array
from .numba_parts import (
    Overload,
    as_in_debug_mode,
    as_numba_refuses,
    check_options,
    installed,
    numba_dispatcher,
    numba_type,
    ptx,
    refuse_measure,
    type_note,
    types_of_signature,
    warn_of_host_array,
    warn_of_small_grid,
    warn_of_unassigned,
)
from .pointers import array_from

__all__ = [
    "Kernel",
    "jit",
]


class Kernel:
    """A kernel, as returned by `jit`; ``kernel[blocks_per_grid, threads_per_block](*args)`` launches it.

    Attributes
    ----------
    py_func : function
        The Python function.
    device : bool
        Whether it is a device function, which only kernels call.
    targetoptions : dict
        The options of `jit`.
    overloads : dict
        An `Overload` for each tuple of types: those of the signatures, and those of the launches so far.
    extensions : list
        Objects whose ``prepare_args(type, value, stream, retr)`` returns another type and value for an argument.

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

    def __init__(
        self, function: Callable[..., Any], signature: Any = None, device: bool = False, **options: Any
    ) -> None:
        update_wrapper(self, function)
        self.py_func = function
        self.device = device
        self.targetoptions = {"device": device, **options}
        self.extensions = list(options.get("extensions") or ())
        self.specialized = signature is not None and not isinstance(signature, list)
        self.specializations: dict[Any, Kernel] = {}
        self._launched: dict[Any, None] = {}
        self.__lockstep_given__ = signature
        self.__lockstep_signatures__ = [] if signature is None else signatures(signature)
        check_definition(function, self.__lockstep_signatures__, device)

    @classmethod
    def of(cls, kernel: Any) -> Kernel:
        """Return a kernel or device function of Numba's or of the facade as one that runs on lockstep."""
        options = dict(getattr(kernel, "targetoptions", {}))
        device = options.pop("device", None)
        made = cls(kernel.py_func, device=bool(getattr(kernel, "device", device)), **options)
        made.__lockstep_given__ = getattr(kernel, "__lockstep_given__", None)
        made.__lockstep_signatures__ = signatures_of(kernel)
        return made

    def __getitem__(self, configuration: Any) -> Configured:
        if not isinstance(configuration, tuple) or not 2 <= len(configuration) <= 4:
            raise LaunchError(
                "a launch must read kernel[blocks_per_grid, threads_per_block(, stream, shared_bytes)](...), "
                f"got kernel[{shown(configuration)}]"
            )
        return Configured(self, *configuration)

    def configure(self, griddim: Any, blockdim: Any, stream: Any = 0, sharedmem: int = 0) -> Configured:
        """Return the kernel with a launch configuration; ``kernel[griddim, blockdim]`` is short for it."""
        return Configured(self, griddim, blockdim, stream, sharedmem)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raise LaunchError: a call needs a launch configuration."""
        name = self.py_func.__name__
        raise LaunchError(
            f"the launch configuration was not specified: {name} must be launched as "
            f"{name}[blocks_per_grid, threads_per_block](...)"
        )

    def forall(self, ntasks: int, tpb: int = 0, stream: Any = 0, sharedmem: int = 0) -> Callable[..., None]:
        """Return the kernel configured for a 1-D grid of at least `ntasks` threads."""
        if isinstance(ntasks, numbers.Integral) and ntasks < 0:
            raise ValueError(f"Can't create ForAll with negative task count: ntasks={ntasks}")
        ntasks, threads = not_negative("ntasks", ntasks), not_negative("tpb", tpb) or 256
        sharedmem = not_negative("sharedmem", sharedmem)
        if ntasks == 0:
            return lambda *args: None
        return Configured(self, -(-ntasks // threads), threads, stream, sharedmem)

    # Types.

    def specialize(self, *args: Any) -> Kernel:
        """Return the kernel for arguments of the types of `args`."""
        if self.specialized:
            raise RuntimeError("Dispatcher already specialized")
        types = tuple(type_note(_unwrapped(arg)) for arg in args)
        if types not in self.specializations:
            made = Kernel.of(self)
            made.specialized = True
            made._launched[types] = None
            self.specializations[types] = made
        return self.specializations[types]

    @property
    def overloads(self) -> dict[Any, Overload]:
        given = [types_of_signature(signature) for signature in _listed(self.__lockstep_given__)]
        launched = [tuple(map(numba_type, types)) for types in self._launched]
        return {types: Overload(self, types) for types in given or launched}

    @property
    def signatures(self) -> list[Any]:
        return list(self.overloads)

    nopython_signatures = signatures

    def compile(self, sig: Any) -> Overload:
        """Return the overload for a signature: nothing is compiled before a launch."""
        if self.__lockstep_signatures__:
            raise RuntimeError("Compilation disabled")
        [read] = signatures(sig)
        check_definition(self.py_func, [read], self.device)
        types = types_of_signature(sig)
        self._launched.setdefault(types)
        return Overload(self, types)

    def translate(self) -> None:
        """Read the globals of the kernel now; what cannot run yet is refused, or found, at the first launch."""
        try:
            translate(self.py_func, kernel=not self.device)
        except UnsupportedConstructError:
            Source.forget(self.py_func)

    def recompile(self) -> None:
        """Read the globals of the kernel again, at the next launch."""
        Source.forget(self.py_func)

    def enable_caching(self) -> None:
        """Do nothing: lane programs are not stored."""

    def disable_compile(self, val: bool = True) -> None:
        """Do nothing: nothing is compiled."""

    def inspect_asm(self, signature: Any = None) -> Any:
        """Return the PTX that Numba compiles, or a dict with that of each signature.

        Raises
        ------
        TargetUnavailableError
            ``numba.cuda`` is not installed.
        """
        return self._for_each(signature, functools.partial(ptx, self))

    def _for_each(self, signature: Any, function: Callable[[Any], Any]) -> Any:
        if signature is not None:
            return function(signature)
        return {types: function(types) for types in self.overloads}

    def __getattr__(self, name: str) -> Any:
        if name in _OF_THE_COMPILER:
            return lambda *args, **kwargs: refuse_measure(self, name)
        raise AttributeError(f"a kernel of the lockstep machine has no {name}", name=name, obj=self)

    @property
    def _numba_type_(self) -> Any:
        return numba_dispatcher(self)

    def __reduce__(self) -> Any:
        found: Any = sys.modules.get(self.py_func.__module__)
        for part in self.py_func.__qualname__.split("."):
            found = getattr(found, part, None)
        if found is self:
            return self.py_func.__qualname__
        try:
            from numba import cloudpickle
        except ImportError:
            raise TypeError(
                f"{self.py_func.__name__} must be found in its module by its name to be pickled, or Numba "
                "be installed, whose cloudpickle pickles other functions"
            ) from None
        code = cloudpickle.dumps(self.py_func)
        return _unpickled, (code, self.__lockstep_given__, dict(self.targetoptions))

    def __repr__(self) -> str:
        return f"<{'Device function' if self.device else 'Kernel'} {self.py_func.__name__} on lockstep>"


_OF_THE_COMPILER = (
    "inspect_llvm inspect_sass inspect_sass_cfg inspect_lto_ptx inspect_types inspect_cfg inspect_disasm_cfg "
    "get_regs_per_thread get_const_mem_size get_shared_mem_per_block get_local_mem_per_thread "
    "get_max_threads_per_block compile_device get_compile_result get_metadata get_annotation_info"
).split()
"""Methods of Numba's kernels that tell what its compiler made."""


def _unpickled(code: bytes, signature: Any, options: dict[str, Any]) -> Kernel:
    return Kernel(pickle.loads(code), signature, **options)


class Configured:
    """A kernel with a launch configuration, ready to be called with arguments.

    Attributes
    ----------
    griddim, blockdim : tuple of int
        Thread blocks and threads along x, y and z.
    stream, sharedmem
        The stream, and the bytes of dynamic shared memory.
    pre_launch_callbacks : list
        Functions called with the kernel and this configuration before each launch.
    """

    def __init__(
        self,
        dispatcher: Kernel,
        griddim: Any,
        blockdim: Any,
        stream: Any = 0,
        sharedmem: int = 0,
    ) -> None:
        self.dispatcher = dispatcher
        if dispatcher.device:
            name = dispatcher.py_func.__name__
            raise LaunchError(
                f"Cannot compile a device function as a kernel: {name} must be called by a kernel"
            )
        if griddim is None or blockdim is None:
            raise LaunchError("the launch configuration was not specified: neither part of it may be None")
        self.griddim = _whole("griddim", griddim)
        self.blockdim = _whole("blockdim", blockdim)
        _check_launch_bounds(dispatcher, self.blockdim)
        self.stream = stream
        self.sharedmem = sharedmem
        self.pre_launch_callbacks: list[Callable[..., Any]] = []
        warn_of_small_grid(self.griddim)

    def __call__(self, *args: Any) -> None:
        __tracebackhide__ = hide
        kernel = self.dispatcher
        code = kernel.py_func.__code__
        if len(args) != code.co_argcount and not code.co_flags & inspect.CO_VARARGS:
            args = _with_defaults(kernel.py_func, args)
        after: list[Callable[[], Any]] = []
        if kernel.extensions:
            args = _prepared(kernel.extensions, args, self.stream, after)
        given = [_unwrapped(arg) for arg in args]
        if len(kernel.__lockstep_signatures__ or ()) == 1:
            for place, declared in enumerate(kernel.__lockstep_signatures__[0].args[: len(given)]):
                if isinstance(declared, PointerType):
                    given[place] = array_from(given[place], declared.dtype)
        types = tuple(map(type_note, given))
        if new := types not in kernel._launched:
            warn_of_unassigned(kernel, tuple(given))
        for callback in self.pre_launch_callbacks:
            callback(kernel, self)
        try:
            launch(kernel, self.griddim, self.blockdim, *given, shared_bytes=self.sharedmem)
        except KernelError as error:
            as_numba_refuses(kernel, tuple(given), error)
            if kernel.targetoptions.get("debug"):
                as_in_debug_mode(kernel.py_func, error)
            raise
        for arg, used in zip(args, given, strict=True):
            if isinstance(arg, ArgHint):
                arg.back(used)
        for function in after:
            function()
        if new:
            kernel._launched[types] = None

    def __getstate__(self) -> dict[str, Any]:
        if self.pre_launch_callbacks:
            raise pickle.PicklingError("Cannot pickle configured launches with pre-launch callbacks")
        return dict(vars(self))


def _whole(name: str, value: Any) -> tuple[int, ...]:
    """Return a dimension of a launch as x, y and z; require integers."""
    if type(value) is int:
        return value, 1, 1
    given = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if not 1 <= len(given) <= 3:
        raise LaunchError(f"{name} must be a sequence of 1, 2 or 3 integers, got {shown(list(given))}")
    for size in given:
        if not isinstance(size, numbers.Integral) or isinstance(size, (bool, np.timedelta64)):
            raise LaunchTypeError(f"{name} must be a sequence of integers, got {shown(list(given))}")
    return (*map(int, given), *(1,) * (3 - len(given)))


def _check_launch_bounds(kernel: Kernel, blockdim: tuple[int, ...]) -> None:
    bounds = kernel.targetoptions.get("launch_bounds")
    most = bounds[0] if isinstance(bounds, tuple) else bounds
    if most is not None and math.prod(blockdim) > most:
        raise LaunchError(
            f"blockdim must have at most {most} threads, as launch_bounds says, got {math.prod(blockdim)}"
        )


def _with_defaults(function: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of a launch, completed by the defaults of the parameters."""
    names = inspect.getfullargspec(function).args
    defaults = function.__defaults__ or ()
    missing = len(names) - len(args)
    if 0 < missing <= len(defaults):
        return (*args, *defaults[-missing:])
    raise LaunchTypeError(
        f"{function.__name__} takes {plural(len(names), 'argument')} ({', '.join(names)}), got {len(args)}"
    )


def _prepared(
    extensions: Sequence[Any], args: tuple[Any, ...], stream: Any, after: list[Callable[[], Any]]
) -> tuple[Any, ...]:
    """Return the arguments as the last of the extensions leaves them."""
    prepared = []
    for value in args:
        given = numba_type(type_note(_unwrapped(value)))
        for extension in reversed(extensions):
            given, value = extension.prepare_args(given, value, stream=stream, retr=after)
        prepared.append(value)
    return tuple(prepared)


def _unwrapped(value: Any) -> Any:
    """Return an argument as `launch` takes it."""
    if type(value) is np.ndarray:
        if installed():
            warn_of_host_array()
        return value
    if isinstance(value, ArgHint):
        return value.on_device()
    if is_cuda_array(value) and not hasattr(value, "__lockstep_array__"):
        try:
            return as_cuda_array(value)
        except ValueError as error:
            raise LaunchError(str(error)) from error
    return value


def _listed(given: Any) -> list[Any]:
    return [] if given is None else given if isinstance(given, list) else [given]


@overload
def jit(func_or_sig: Callable[..., Any], *, device: bool = False, **options: Any) -> Kernel: ...
@overload
def jit(
    func_or_sig: Any = None, *, device: bool = False, **options: Any
) -> Callable[[Callable[..., Any]], Kernel]: ...
def jit(func_or_sig: Any = None, device: bool = False, **options: Any) -> Any:
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
    NotImplementedError
        ``boundscheck=True``, which Numba refuses for CUDA; the lockstep machine always checks bounds.

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
    check_options(device, options)
    if inspect.isfunction(func_or_sig):
        return Kernel(Source.decorated(func_or_sig), None, device, **options)
    if inspect.isfunction(getattr(func_or_sig, "py_func", None)):
        return Kernel.of(func_or_sig)
    if inspect.isclass(func_or_sig) and not issubclass(func_or_sig, np.generic):
        raise TypeError(
            f"func_or_sig must be a function or a signature, got the class {func_or_sig.__name__}"
        )

    def decorate(function: Callable[..., Any]) -> Kernel:
        made = Kernel(Source.decorated(function), func_or_sig, device, **options)
        if func_or_sig is not None:  # Numba compiles such a function at once, with the globals of this moment
            if installed():
                check_eagerly(made)
            made.translate()
        return made

    return decorate
