"""`breakpoint`: stops a kernel in the debugger, with the variables of one thread.

The debugger must show the kernel's line, and the thread's variables by their own names; the lane program's frame holds
the values of all lanes under other names. So a frame is made for the debugger: a generator with the kernel's name,
file, line numbers and globals, whose variables are set before it runs a line of its own, which does nothing. Device
functions that are running get such frames too, as its callers. A function that contains a breakpoint is translated with
a call before each statement, which resumes the generator at that line, so that ``n`` goes to the next statement.
"""

from __future__ import annotations

import ast
import builtins
import os
import sys
from collections.abc import Callable, Sequence
from types import CodeType, FrameType, FunctionType
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import numpy as np

from ...errors import KernelError
from ..language.control import Unset
from ..machine import masks
from ..machine.lanes import Lanes, source_line
from ..machine.local_memory import LocalArray
from ..machine.masks import Mask
from ..machine.memory import LaneArray
from .analysis.scopes import variables
from .source import Source


def breakpoint(thread: Any = None, block: Any = None) -> NoReturn:  # noqa: A001 (Python's, with a thread)
    """Stop a kernel that runs on lockstep in the debugger, at one thread.

    It calls ``sys.breakpointhook``, as Python's own ``breakpoint()`` does, so that the environment variable
    PYTHONBREAKPOINT and pytest choose the debugger. A kernel may also call ``breakpoint()`` itself, which needs no
    import and takes no arguments. Either must be a statement of its own, in a kernel or device function, but not in a
    function inside it. The debugger shows the kernel's source and the thread's own variables: numbers as NumPy scalars,
    arrays as NumPy arrays over the same memory. In pdb, ``p``, ``pp locals()``, ``l`` and ``w`` work as in any
    function, ``n`` goes to the next statement that the thread runs, ``u`` to the caller of a device function, ``c`` to
    the next breakpoint. After the function's last statement, ``n`` is the same as ``c``.

    Threads that do not reach the statement do not stop. Without `thread`, it stops once for all threads that reach it
    together, in the first of them, and follows this thread until the end of the launch: in a loop it stops in each of
    the thread's iterations.

    The statement must be removed before the kernel is compiled for a GPU: Numba can neither compile this function nor
    Python's ``breakpoint``.

    Parameters
    ----------
    thread : int or tuple of int, optional
        The thread's ``threadIdx``: x, or x and y, or x, y and z.
    block : int or tuple of int, optional
        The ``blockIdx`` of its thread block.

    Raises
    ------
    KernelError
        `thread` or `block` lies outside the launch, or differs between threads; or the function is called outside a
        kernel of lockstep.

    See Also
    --------
    paged_numba.lockstep.sanitize : Finds data races and other errors of a kernel.

    Examples
    --------
    A debugger that prints the variables and continues:

    >>> import sys
    >>> import numpy as np
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def double(x):
    ...     i = cuda.grid(1)
    ...     value = x[i]
    ...     lockstep.breakpoint(thread=3, block=1)
    ...     x[i] = 2 * value
    >>> def show():
    ...     print({name: int(value) for name, value in sys._getframe(1).f_locals.items() if name != "x"})
    >>> sys.breakpointhook = show
    >>> lockstep.launch(double, 2, 4, np.arange(8))
    {'i': 7, 'value': 7}
    >>> sys.breakpointhook = sys.__breakpointhook__
    """
    raise KernelError("breakpoint() stops kernels and device functions that run on lockstep, not host code")


BREAKPOINTS = (breakpoint, builtins.breakpoint)
"""What a kernel may call to stop."""


class Stop:
    """A call of a function in which one thread has stopped in the debugger, and its steps from there.

    Parameters
    ----------
    machine : Lanes
        The machine that runs the call.
    source : Source
        The function.
    thread : tuple of int
        The number of the thread block in the grid, and of the thread in its thread block.
    """

    def __init__(self, machine: Lanes, source: Source, thread: tuple[int, int]) -> None:
        self.machine = machine
        self.thread = thread
        self.state = _State()
        self.frame = _function(source, self.state, _generator_code)()
        self.before = _debugger()

    def call(self, frame: FrameType) -> Stop | None:
        """Call the debugger; return the stop if it wants to see the next statements, else None."""
        place = _place(self.machine, self.thread)
        assert place is not None
        lane = place[0] * self.machine.threads + place[1]
        self.state.hook, self.state.named = _hook(self.machine.thread_name(lane))
        return self._show(frame, frame.f_lineno) if self.state.hook is not None else None

    def step(self, mask: Mask, line: int) -> Stop | None:
        """Show a statement to the debugger, if the thread runs it; return None if that wants to see no more."""
        if not _active(self.machine, mask, self.thread):
            return self
        return self._show(sys._getframe(1), line)

    def end(self) -> None:
        """End the debugger's frame unseen, since the call returns."""
        trace = sys.gettrace()
        sys.settrace(None)
        self.frame.close()
        # A debugger that was to stop in this frame would trace the rest of the program for nothing.
        sys.settrace(trace if getattr(getattr(trace, "__self__", None), "breaks", True) else self.before)

    def _show(self, frame: FrameType, line: int) -> Stop | None:
        self.state.variables = _variables(self.machine, frame, self.thread)
        self.state.line = line
        run: Callable[[], Any] = self.frame.__next__
        caller = frame.f_back
        while caller is not None:
            source = caller.f_globals.get(SOURCE_OBJECT)
            if source is not None and caller.f_code.co_name == source.definition.name:
                if caller.f_locals.get("_rt") is not self.machine:
                    break  # a launch inside a launch, by an observer
                state = _State()
                state.variables, state.line, state.run = (
                    _variables(self.machine, caller, self.thread),
                    caller.f_lineno,
                    run,
                )
                run = _function(source, state, _caller_code)
            caller = caller.f_back
        run()
        return None if _debugger() in (None, self.before) else self


def pause(
    machine: Lanes, mask: Mask, stop: Stop | None, thread: Any = None, block: Any = None
) -> Stop | None:
    """Run a breakpoint: stop in the thread that is asked for, if it is active; return the new `stop`."""
    frame = sys._getframe(1)
    source = frame.f_globals[SOURCE_OBJECT]
    chosen = _chosen(machine, mask, (source, frame.f_lineno), thread, block)
    if chosen is None:
        return stop
    if stop is not None:
        if stop.thread == chosen:
            return stop  # the step to this statement has shown it
        stop.end()
    return Stop(machine, source, chosen).call(frame)


# Threads.


def _chosen(machine: Lanes, mask: Mask, site: Any, thread: Any, block: Any) -> tuple[int, int] | None:
    """Return the thread in which a breakpoint stops, None if it does not stop."""
    blocks = np.arange(machine.batch)[:, None] + machine.first_thread_block
    threads = np.arange(machine.threads) + machine.columns.start
    here = masks.lanes(mask, machine.shape)
    if block is not None:
        here = here & (blocks == _number("block", block, machine.blocks_per_grid))
    if thread is not None:
        here = here & (threads == _number("thread", thread, machine.threads_per_block))
    rendezvous = getattr(machine, "rendezvous", None)
    followed = _followed.setdefault(machine if rendezvous is None else rendezvous.whole, {})
    if site in followed:
        return followed[site] if _active(machine, here, followed[site]) else None
    if not here.any():
        return None
    row, column = divmod(int(np.argmax(here)), machine.threads)
    followed[site] = row + machine.first_thread_block, column + machine.columns.start
    return followed[site]


_followed: WeakKeyDictionary[Any, dict[Any, tuple[int, int]]] = WeakKeyDictionary()
"""By machine, and by breakpoint, the thread in which it stops."""


def _number(name: str, given: Any, size: Sequence[int]) -> int:
    """Return the number of a thread in its thread block, or of a thread block in the grid."""
    index = given if isinstance(given, tuple) else (given,)
    if not 1 <= len(index) <= 3 or any(not isinstance(i, np.integer) for i in index):
        raise KernelError(f"{name} must be an int or up to 3 ints, the same in all threads, {source_line()}")
    index = (*map(int, index), 0, 0)[:3]
    if not all(0 <= i < n for i, n in zip(index, size, strict=True)):
        raise KernelError(f"{name} must lie inside {tuple(size)}, got {name}={index}, {source_line()}")
    x, y, z = index
    return x + size[0] * (y + size[1] * z)


def _place(machine: Lanes, thread: tuple[int, int]) -> tuple[int, int] | None:
    """Return the row and column of a thread among a machine's lanes, None if it is not one of them."""
    row, column = thread[0] - machine.first_thread_block, thread[1] - machine.columns.start
    return (row, column) if 0 <= row < machine.batch and 0 <= column < machine.threads else None


def _active(machine: Lanes, mask: Mask, thread: tuple[int, int]) -> bool:
    place = _place(machine, thread)
    return place is not None and bool(masks.lanes(mask, machine.shape)[place])


# Values.


def _variables(machine: Lanes, frame: FrameType, thread: tuple[int, int]) -> dict[str, Any]:
    """Return the variables of a thread in a call of a lane program."""
    held = frame.f_locals
    place = _place(machine, thread)
    return {
        name[2:]: _value(machine, value, place)
        for name, value in held.items()
        if name.startswith("v_")
        and not isinstance(value, Unset)
        and _active(machine, held.get(f"a_{name[2:]}", True), thread)
    }


def _value(machine: Lanes, value: Any, place: tuple[int, int] | None) -> Any:
    """Return the value that a lane value has in one lane."""
    if isinstance(value, tuple):
        parts = [_value(machine, part, place) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, np.ndarray):
        return np.broadcast_to(value, machine.shape)[place]
    if not isinstance(value, LaneArray):
        return value
    if isinstance(value, LocalArray):
        value.settle()
    shape = tuple(int(_value(machine, length, place)) for length in value.lengths)
    if 0 in shape:
        return np.empty(shape, value.dtype)
    unit = value.buffer.strides[0]
    start = value.buffer[int(_value(machine, value.offset, place)) :]
    shown = np.lib.stride_tricks.as_strided(
        start, shape, [unit * stride for stride in value.strides], writeable=start.flags.writeable
    )
    if value.dtype.names is None:
        return shown
    records = shown.view(np.recarray)  # whose fields are attributes, as in a kernel
    return records if shape else records[()]


# The debugger.


def _hook(thread: str) -> tuple[Callable[..., Any] | None, dict[str, Any]]:
    """Return what calls the debugger, with its arguments; None if breakpoints are turned off."""
    hook, chosen = sys.breakpointhook, os.environ.get("PYTHONBREAKPOINT", "")
    header = f"{thread}, on lockstep"
    if hook is sys.__breakpointhook__:
        if chosen == "0":
            return None, {}
        if chosen in ("", "pdb.set_trace"):
            return hook, {"header": header}
    elif (getattr(hook, "__module__", None) or "").startswith("_pytest."):
        return hook, {"header": header}
    print(header, file=sys.stderr)
    return hook, {}


def _debugger() -> Any:
    """Return what debugs or traces this thread, None if nothing does."""
    monitoring = getattr(sys, "monitoring", None)
    return sys.gettrace() or (monitoring and monitoring.get_tool(monitoring.DEBUGGER_ID))


# Frames for the debugger.

SOURCE_OBJECT = "__lockstep_source__"
"""Name of the global of every lane program that holds its `Source`."""

_STATE = "__lockstep_state__"


class _State:
    """What a frame for the debugger shows; plain attributes, so that a step does not enter code of ours."""

    __slots__ = ("hook", "line", "named", "run", "variables")

    def __init__(self) -> None:
        self.variables: dict[str, Any] = {}
        self.line = 0
        self.hook: Any = None
        self.named: dict[str, Any] = {}
        self.run: Any = None


def _function(source: Source, state: _State, code: Callable[[Source], CodeType]) -> Callable[[], Any]:
    """Return a function with the name, file, lines and globals of `source`, which shows a state."""
    outside = getattr(source.function(), "__globals__", {})
    return FunctionType(code(source), {**outside, **source.outer, _STATE: state})


def _generator_code(source: Source) -> CodeType:
    """Return the code of a generator that runs, each time it is resumed, the line of its state."""
    # Before Python 3.13, pdb stops at the first line after the call that starts it: the line runs again for that.
    again = ["   continue"] if sys.version_info < (3, 13) else []
    lines: list[tuple[str, int]] = [(" while True:", 0), *_assignments(source)]
    for line in _lines_of(source):
        lines += [
            (f"  if {_STATE}.line == {line}:", 0),
            (f"   if {_STATE}.hook is not None:", 0),
            (f"    {_STATE}.hook(**{_STATE}.named)", line),
            (f"    {_STATE}.hook = None", 0),
            *((f" {text}", 0) for text in again),
            ("   yield", line),
            ("   continue", 0),
        ]
    return _code(source, "generator", [*lines, ("  return", 0)])


def _caller_code(source: Source) -> CodeType:
    """Return the code of a function that calls ``state.run`` at the line of its state."""
    lines: list[tuple[str, int]] = [(" if True:", 0), *_assignments(source)]
    for line in _lines_of(source):
        lines += [(f"  if {_STATE}.line == {line}:", 0), (f"   {_STATE}.run()", line), ("   return", line)]
    return _code(source, "caller", lines)


def _lines_of(source: Source) -> list[int]:
    nodes = ast.walk(source.definition)
    return sorted({node.lineno for node in nodes if isinstance(node, (ast.stmt, ast.expr))})


def _assignments(source: Source) -> list[tuple[str, int]]:
    """Return the lines that make the function's variables those of the state."""
    lines = []
    for name in sorted(variables(source.definition)):
        lines += [
            (f"  if {name!r} in {_STATE}.variables:", 0),
            (f"   {name} = {_STATE}.variables[{name!r}]", 0),
            ("  else:", 0),
            (f"   {name} = None", 0),
            (f"   del {name}", 0),
        ]
    return lines


def _code(source: Source, kind: str, lines: list[tuple[str, int]]) -> CodeType:
    """Compile the lines of a function, each with a line number of `source`, or 0 for none."""
    if kind not in source.notes:
        name, first = source.definition.name, source.definition.lineno
        program = ast.parse("\n".join([f"def {name}():", *(text for text, _ in lines)]))
        numbers = [first, *(number for _, number in lines)]
        for node in ast.walk(program):
            if isinstance(node, (ast.stmt, ast.expr)):
                line = numbers[node.lineno - 1] or -1
                node.lineno = node.end_lineno = line
                node.col_offset = node.end_col_offset = -1 if line < 0 else 0
        module = compile(program, source.file, "exec")
        source.notes[kind] = next(one for one in module.co_consts if isinstance(one, CodeType))
    code: CodeType = source.notes[kind]
    return code
