"""`launch`: checks the launch configuration as a GPU would, wraps the arguments, runs the grid in batches."""

from __future__ import annotations

import enum
import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np

from ..arguments import one_of, positive, shown
from ..draw.text import plural
from ..errors import LaunchError, UnsupportedConstructError
from .compiler.names import typed
from .compiler.translate import translate
from .failures import hide, presentable
from .language.signatures import as_declared, signatures_of
from .language.types.enums import member
from .machine.arithmetic import tuple_like
from .machine.lanes import WARP_SIZE, Dim3
from .machine.machine import Machine
from .machine.schedule import in_turns
from .numba_typing import check_launch
from .observe.observed_machine import ObservedMachine
from .observe.observed_program import ObservedWriter
from .observe.observed_warp import ObservedWarp
from .observe.observer import observers, refuse

MAX_THREADS_PER_BLOCK = 1024
MAX_BLOCK_DIM = (1024, 1024, 64)
MAX_GRID_DIM = (2**31 - 1, 65535, 65535)
MAX_SHARED_BYTES = 227 * 1024
"""Limits of compute capability 9.0 (CUDA C++ Programming Guide, Technical Specifications per Compute Capability)."""


Order = Literal["together", "forward", "reverse"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the machine. The results of a race-free kernel do not depend on them.

    Parameters
    ----------
    max_lanes : int
        Threads that run together. A batch has at least one thread block, even if that has more threads.
    memory_budget : int
        Most bytes of shared and local memory that a batch may use; see `max_lanes` for the exception.
    order : {"together", "forward", "reverse"}
        ``together`` advances all warps of a thread block at once. ``forward`` and ``reverse`` run one warp
        after the other from barrier to barrier, beginning with the first or the last one, as a GPU might.
        They are slower, but a kernel that lacks a barrier then gives different results. Traced, profiled and
        sanitized launches run in this order too: for a race-free kernel they count and find the same in any order.
    compute_capability : tuple of int
        Compute capability of the GPU that the machine imitates. Below (7, 0), a barrier waits for all threads, so
        ``if i >= n: return`` before a barrier is an error; from (7, 0) on, it does not wait for exited threads.
    check_compiles : bool
        Whether the first launch of a kernel with arguments of new types checks that Numba can compile it; see
        `paged_numba.lockstep.check_compiles`.

    Raises
    ------
    TypeError, ValueError
        `max_lanes` or `memory_budget` is not a positive integer, `order` is not one of the above,
        `compute_capability` is not a pair of integers, or `check_compiles` is not a bool.

    See Also
    --------
    options : Changes the options for the launches in a ``with`` statement.

    Examples
    --------
    >>> from paged_numba import lockstep
    >>> lockstep.Options(order="reverse")
    Options(max_lanes=32768, memory_budget=268435456, order='reverse', compute_capability=(9, 0), check_compiles=False)
    """

    max_lanes: int = 32768
    memory_budget: int = 256 * 2**20
    order: Order = "together"
    compute_capability: tuple[int, int] = (9, 0)
    check_compiles: bool = False

    def __post_init__(self) -> None:
        for name in ("max_lanes", "memory_budget"):
            # A frozen dataclass is set this way; the machine counts on ints.
            object.__setattr__(self, name, positive(name, getattr(self, name)))
        one_of("order", self.order, get_args(Order))
        pair = self.compute_capability
        if not isinstance(pair, tuple) or len(pair) != 2 or not all(type(part) is int for part in pair):
            raise ValueError(
                f"compute_capability must be two integers such as (9, 0), got compute_capability={shown(pair)}"
            )
        if not isinstance(self.check_compiles, bool):
            raise ValueError(
                f"check_compiles must be a bool, got check_compiles={shown(self.check_compiles)}"
            )


_options: ContextVar[Options] = ContextVar("lockstep_options", default=Options())  # noqa: B039 (frozen)


def current_options() -> Options:
    """Return the options of launches in the current context."""
    return _options.get()


@contextmanager
def options(**changes: Any) -> Iterator[Options]:
    """Change the machine's options for the launches in a ``with`` statement.

    Parameters
    ----------
    **changes
        The fields of `Options` to change; the others keep their values.

    Yields
    ------
    Options

    Raises
    ------
    ValueError
        An option has an invalid value; see `Options`.
    TypeError
        There is no option of that name.

    See Also
    --------
    Options : The options and their defaults.

    Examples
    --------
    A kernel that lacks a barrier: each thread reads its neighbour's element before all are written. The result
    depends on the order of the warps.

    >>> import numpy as np
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def reverse(values):
    ...     tile = cuda.shared.array(64, np.float32)
    ...     tile[cuda.threadIdx.x] = values[cuda.threadIdx.x]
    ...     # cuda.syncthreads() is missing here
    ...     values[cuda.threadIdx.x] = tile[63 - cuda.threadIdx.x]
    >>> def first_and_last(order):
    ...     values = np.arange(64, dtype=np.float32)
    ...     with lockstep.options(order=order):
    ...         lockstep.launch(reverse, 1, 64, values)
    ...     return float(np.nan_to_num(values[0], nan=-1)), float(np.nan_to_num(values[63], nan=-1))
    >>> first_and_last("together")
    (63.0, 0.0)
    >>> first_and_last("forward")  # warp 0 reads what warp 1 has not written: poison, here -1
    (-1.0, 0.0)
    """
    for name, value in changes.items():
        if name not in Options.__dataclass_fields__:
            raise TypeError(
                f"{name} must be an option: {', '.join(Options.__dataclass_fields__)}, got {shown(value)}"
            )
    token = _options.set(replace(_options.get(), **changes))
    try:
        yield _options.get()
    finally:
        _options.reset(token)


def launch(
    kernel: Any, blocks_per_grid: Any, threads_per_block: Any, *args: Any, shared_bytes: int = 0
) -> None:
    """Run a Numba CUDA kernel on NumPy.

    Parameters
    ----------
    kernel : callable
        A function decorated with ``cuda.jit``, Numba's or the facade's, or the plain Python function.
    blocks_per_grid, threads_per_block : int or tuple of up to 3 int
        The launch configuration; a thread block has at most 1,024 threads.
    *args
        The kernel's arguments. NumPy arrays, and other arrays in host memory, are read and written in place.
    shared_bytes : int
        Bytes of dynamic shared memory of a thread block.

    Raises
    ------
    LaunchError
        A GPU would refuse the grid, the thread block, the shared memory or an argument. Nothing has run, unless
        the kernel declares too much static shared memory.
    KernelError
        The kernel made an error: an index out of bounds, a barrier that some threads do not reach, a failed
        assertion, … Earlier stores remain, as on a GPU.
    UnsupportedConstructError
        The kernel uses Python that the machine does not run, or its source cannot be read. Nothing has run.

    See Also
    --------
    profile : Runs a kernel and counts what it does.
    sanitize : Runs a kernel and reports its errors.
    options : Changes the order of warps and the size of batches.
    paged_numba.targets.launch : Runs a kernel on any target.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def add_one(values):
    ...     i = cuda.grid(1)
    ...     if i < values.shape[0]:
    ...         values[i] += 1
    >>> values = np.arange(5)
    >>> lockstep.launch(add_one, 2, 4, values)
    >>> values
    array([1, 2, 3, 4, 5])
    """
    __tracebackhide__ = hide
    try:
        _launch(kernel, blocks_per_grid, threads_per_block, args, shared_bytes)
    except Exception as error:
        shown = presentable(error)
        if shown is None:
            raise
        raise shown from shown.__cause__


def _launch(
    kernel: Any, blocks_per_grid: Any, threads_per_block: Any, args: tuple[Any, ...], shared_bytes: int
) -> None:
    function = getattr(kernel, "py_func", None) or getattr(kernel, "fn", None) or kernel
    if not inspect.isfunction(function):
        raise LaunchError(f"kernel must be a Python function or a decorated one, got {type(kernel).__name__}")
    grid, thread_block = configuration(blocks_per_grid, threads_per_block)
    if not _is_integer(shared_bytes) or not 0 <= shared_bytes <= MAX_SHARED_BYTES:
        raise LaunchError(
            f"shared_bytes must be an integer in 0 .. {MAX_SHARED_BYTES}, got shared_bytes={shown(shared_bytes)}"
        )
    settings = current_options()
    if settings.check_compiles:
        check_launch(kernel, tuple(map(_host_array, args)))
    declared = signatures_of(kernel)
    options = getattr(kernel, "targetoptions", {})
    debug = bool(options.get("debug")) and not options.get("fastmath")
    listeners = observers(args)
    try:
        translation = translate(
            function, kernel=True, writer=ObservedWriter if listeners else None, debug=debug
        )
    except UnsupportedConstructError:
        refuse(listeners)
        raise
    program, source = translation.function, translation.source
    names = source.parameters
    if len(names) != len(args):
        raise LaunchError(
            f"{source.definition.name} takes {plural(len(names), 'argument')} ({', '.join(names)}), got {len(args)}"
        )
    machine = (
        ObservedMachine(listeners, grid, thread_block, shared_bytes)
        if listeners
        else Machine(grid, thread_block, shared_bytes)
    )

    def arguments(machine: Machine) -> list[Any]:
        given = [_argument(machine, name, value) for name, value in zip(names, args, strict=True)]
        return as_declared(declared, names, given) if declared else given

    machine.compute_capability = settings.compute_capability
    # A warp may also wait for another warp of its thread block.
    turns = settings.order != "together" or (translation.waits and machine.threads > WARP_SIZE)
    if turns:
        part = partial(ObservedWarp, machine) if isinstance(machine, ObservedMachine) else machine.part
        run_batch = in_turns(machine, part, program, arguments, reverse=settings.order == "reverse")
    else:
        run_batch = _all_together(machine, program, arguments(machine))
    try:
        machine.begin_launch(function, args)
        with np.errstate(all="ignore"):
            cooperative = "this_grid" in source.code.co_names
            _run_batches(run_batch, machine, settings, cooperative, translation.waits)
    except BaseException as error:
        machine.ended_by = type(error)
        raise
    finally:
        machine.end_launch()


def _all_together(
    machine: Machine, program: Callable[..., Any], given: list[Any]
) -> Callable[[int, int], int]:
    """Return a function that runs a batch of thread blocks at once and returns the bytes of memory that it used."""

    def run_batch(first: int, count: int) -> int:
        machine.begin_batch(first, count)
        program(machine, True, *given)
        return machine.local_bytes + machine.shared.nbytes

    return run_batch


def _run_batches(
    run_batch: Callable[[int, int], int], machine: Machine, settings: Options, cooperative: bool, waits: bool
) -> None:
    """Run the grid in batches of thread blocks; `run_batch` returns the bytes of memory that a batch used."""
    # A thread block can wait for a lock or a flag only if an earlier thread block has released or set it.
    by_lanes = 1 if waits else max(1, settings.max_lanes // machine.threads)
    # All thread blocks of a cooperative launch run together.
    count = machine.num_thread_blocks if cooperative else min(by_lanes, _FIRST_BATCH)
    done = 0
    while done < machine.num_thread_blocks:
        count = min(count, machine.num_thread_blocks - done)
        first = machine.num_thread_blocks - done - count if settings.order == "reverse" else done
        memory = run_batch(first, count)
        done += count
        # The last batch has shown how much memory a thread block uses.
        per_thread_block = max(1, -(-memory // count))
        count = max(1, min(by_lanes, settings.memory_budget // per_thread_block))


_FIRST_BATCH = 256


def configuration(blocks_per_grid: Any, threads_per_block: Any) -> tuple[Dim3, Dim3]:
    """Return the launch configuration as x, y and z, or raise LaunchError."""
    grid = _dimensions("blocks_per_grid", blocks_per_grid, MAX_GRID_DIM)
    thread_block = _dimensions("threads_per_block", threads_per_block, MAX_BLOCK_DIM)
    if math.prod(thread_block) > MAX_THREADS_PER_BLOCK:
        raise LaunchError(
            f"a thread block must have at most {MAX_THREADS_PER_BLOCK} threads, "
            f"got {math.prod(thread_block)} with threads_per_block={tuple(thread_block)}"
        )
    return grid, thread_block


def _is_integer(value: Any) -> bool:
    """Tell whether a value is an integer, but not a bool or a duration, which NumPy counts as integers."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.timedelta64))


def _dimensions(name: str, value: Any, limits: tuple[int, int, int]) -> Dim3:
    """Return `blocks_per_grid` or `threads_per_block` as x, y and z."""
    if type(value) is tuple and len(value) == 3:  # the usual case first
        x, y, z = value
        plain = type(x) is type(y) is type(z) is int
        if plain and 1 <= x <= limits[0] and 1 <= y <= limits[1] and 1 <= z <= limits[2]:
            return Dim3(x, y, z)
    given = value if isinstance(value, (tuple, list)) else (value,)
    if not 1 <= len(given) <= 3:
        raise LaunchError(f"{name} must be an int or a tuple of 1 to 3 ints, got {name}={shown(value)}")
    sizes = [1, 1, 1]
    for axis, size in enumerate(given):
        if not _is_integer(size):
            raise LaunchError(f"{name} must be an int or a tuple of 1 to 3 ints, got {name}={shown(value)}")
        if not 1 <= size <= limits[axis]:
            raise LaunchError(
                f"{name}.{'xyz'[axis]} must lie in 1 .. {limits[axis]}, got {name}={shown(value)}"
            )
        sizes[axis] = int(size)
    return Dim3(*sizes)


_LONG = "gG"
"""Characters of NumPy's longdouble and clongdouble."""


def _argument(machine: Machine, name: str, value: Any) -> Any:
    """Return a kernel argument as a lane value."""
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray):
            raise LaunchError(f"{name} must not be a masked array, since no kernel heeds a mask")
        if value.dtype.hasobject:
            raise LaunchError(f"{name} must have a dtype of fixed size, got {name}.dtype={value.dtype}")
        if not value.dtype.isnative or value.dtype.char in _LONG:
            raise LaunchError(
                f"{name} must have a dtype that a GPU has, in native byte order and of at most 64 bits "
                f"a number, got {name}.dtype={value.dtype!r}"
            )
        return machine.argument(name, value)
    if isinstance(value, np.generic):
        if value.dtype.kind in "SU":
            raise LaunchError(f"{name} must be an array or a number, got the text {value!r}")
        return _argument(machine, name, np.asarray(value)) if value.dtype.char in f"V{_LONG}" else value
    if isinstance(value, enum.Enum):
        return member(value, lambda given: _argument(machine, f"{name}.value", given))
    if isinstance(value, (bool, int, float, complex)):
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise LaunchError(f"{name} must fit in 64 bits, got {name}={value}")
        return typed(value)
    if isinstance(value, tuple):
        items = [_argument(machine, f"{name}[{i}]", item) for i, item in enumerate(value)]
        return tuple_like(items, value)
    if value is None:
        return value
    host = _host_array(value, name)
    if host is not value:
        return _argument(machine, name, host)
    if hasattr(value, "__cuda_array_interface__"):
        raise LaunchError(f"{name} must lie in host memory for the lockstep target, got an array on a GPU")
    if callable(value):
        called = getattr(value, "__name__", type(value).__name__)
        raise LaunchError(
            f"{name} must be an array or a number, got the function {called}: kernels take no functions, but call "
            "those of their module and of the function around them"
        )
    raise LaunchError(f"{name} must be an array or a number, got {type(value).__name__}")


def _host_array(value: Any, name: str = "an argument") -> Any:
    """Return a NumPy array over the memory of an array in host memory, without a copy; anything else itself."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value
    try:
        if hasattr(value, "__lockstep_array__"):
            return value.__lockstep_array__
        if hasattr(value, "__cuda_array_interface__"):
            return value
        if hasattr(value, "__array_interface__"):
            return np.asarray(value)
        return np.from_dlpack(value) if hasattr(value, "__dlpack__") else value
    except Exception as error:  # of the object's own methods, too
        raise LaunchError(
            f"{name} must share its memory with NumPy, got {type(value).__name__}: {error}"
        ) from error
