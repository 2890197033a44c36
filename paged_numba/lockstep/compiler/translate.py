"""`translate`: turns the source of a kernel into a Python function over lane values, once per kernel.

Each statement becomes one or a few operations on whole arrays of lanes under a mask, ``_m``; control flow becomes
changes of that mask (see `statements` and `loops`). `lane_program` shows the result. The compiled program has the line
numbers of the kernel, so that errors and tracebacks point into the kernel.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from types import FunctionType
from typing import Any, ClassVar, NamedTuple

from ...arguments import shown
from ...errors import KernelError, UnsupportedConstructError
from ..language.control import NAMES
from ..language.patience import Patience
from ..language.signatures import call_signed
from ..machine.lanes import SOURCE_MARK, file_name
from ..machine.machine import Machine
from ..machine.masks import Mask
from . import source as sources
from .analysis.scopes import Function, as_definition, captured_by, inner_functions, outer_names, parameters
from .analysis.syntax import FUNCTION
from .breakpoints import SOURCE_OBJECT, pause
from .functions.overloads import call_member, member_of
from .functions.values import InnerValue, call_value, starred
from .loops import Loops
from .names import Names, decorated_function
from .shortcuts.at_once import NotAtOnceError, accumulate, at_once, latest
from .shortcuts.compaction import Compaction
from .source import Source

LaneFunction = Callable[..., Any]
"""A translated function: ``function(machine, mask, *arguments)``."""


class Translation(NamedTuple):
    """A translated function and the text that it was compiled from."""

    function: LaneFunction
    text: str
    waits: bool
    """Whether a loop of the function, or of one that it calls, may wait for another thread block."""
    source: Source


def translate(
    function: Any,
    *,
    kernel: bool = False,
    writer: type[FunctionWriter] | None = None,
    debug: bool = False,
) -> Translation:
    """Translate a Python function, once.

    Parameters
    ----------
    function : function
        The kernel or device function, undecorated.
    kernel : bool
        Whether it is a kernel: a ``return`` in it ends the thread.
    writer : type, optional
        The class that writes the program; `FunctionWriter` if None.
    debug : bool
        Whether each division by zero raises an error, as in a kernel that Numba compiles with ``debug=True``.

    Raises
    ------
    UnsupportedConstructError
        If the source of the function, or of a device function that it calls, cannot be read, has changed since it
        was imported, or uses Python that the machine does not run.
    """
    source = Source.of(function)
    known = source.translations
    key = kernel, writer or FunctionWriter, sys.gettrace() is not None, debug
    program: Translation | None = known.get(key)
    if program is None:
        with sources.translating:
            program, callees = _translate(source, *key)
            # Before the callees, since one of them may call this function.
            known[key] = program
            try:
                # Now, since Numba compiles them with the kernel: before anything runs, with the globals of this moment.
                for callee in callees:
                    translate(callee, writer=writer)
            except BaseException:
                known.pop(key, None)
                raise
    return program


def call_device(function: Any, machine: Machine, mask: Mask, *arguments: Any) -> Any:
    """Call a device function in the active lanes."""
    return run_device(translate(function), machine, mask, *arguments)


def run_device(program: Translation, machine: Machine, mask: Mask, *arguments: Any) -> Any:
    """Run the program of a device function, and count its running calls."""
    depth = machine.depths.get(program.source, 0)
    machine.depths[program.source] = depth + 1
    try:
        return program.function(machine, mask, *arguments)
    finally:
        machine.depths[program.source] = depth


def lane_program(function: Any) -> str:
    """Return the lane program of a kernel: the Python function over lane values into which it is translated, as text.

    Parameters
    ----------
    function : function
        The kernel or device function, decorated or not.

    Raises
    ------
    TypeError
        `function` is not a function.
    UnsupportedConstructError
        The kernel uses Python that the machine does not run, or its source cannot be read.

    Examples
    --------
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def double(x):
    ...     x[cuda.grid(1)] *= 2
    >>> lockstep.lane_program(double).startswith("def double(")
    True
    """
    plain = decorated_function(function) or function
    if not isinstance(plain, FunctionType):
        raise TypeError(f"function must be a kernel or a Python function, got function={shown(function)}")
    return translate(plain, kernel=True).text


def _translate(
    source: Source, kernel: bool, writer_type: type[FunctionWriter], traced: bool, debug: bool
) -> tuple[Translation, set[Any]]:
    """Translate a function; return its translation and the device functions that it calls."""
    names = Names(source, kernel)
    writer = writer_type(names, source.definition, kernel)
    writer.arcs = traced
    writer.expressions.debug = debug
    try:
        text, numbers = writer.write()
    except KernelError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError) as error:
        line = source.lines[writer.line - source.first].strip()
        raise UnsupportedConstructError(
            f"the lockstep machine does not run `{line}` ({error}), {file_name(source.file)}:{writer.line}"
        ) from error
    program = ast.parse(text)
    columns: dict[int, tuple[int, int]] = {}
    for node in ast.walk(program):
        if isinstance(node, (ast.stmt, ast.expr)):
            place = numbers[node.lineno - 1]
            if not place:
                # CPython's marker for code without a line.
                node.lineno = node.end_lineno = node.col_offset = node.end_col_offset = -1
                continue
            node.lineno = node.end_lineno = place
            if place not in columns:
                # The whole line, so that tracebacks underline nothing.
                line = source.lines[place - source.first]
                columns[place] = len(line) - len(line.lstrip()), len(line.rstrip().encode())
            node.col_offset, node.end_col_offset = columns[place]
    program_globals = {
        **writer.vocabulary,
        **writer.names.constants,
        SOURCE_MARK: source.file,
        SOURCE_OBJECT: source,
    }
    namespace = dict(program_globals)
    exec(compile(program, source.file, "exec"), namespace)
    translated = namespace[source.definition.name]
    # A kernel may have the name of a function that its program calls, such as `add` or `load`.
    namespace.update(program_globals)
    waits = writer.waits_for_others or _calls_wait(writer)
    return Translation(translated, text, waits, source), names.callees


_asked: ContextVar[frozenset[Any]] = ContextVar("asked whether it waits", default=frozenset())


def _calls_wait(writer: FunctionWriter) -> bool:
    """Tell whether a device function that the function calls may wait for another thread block."""
    outer = _asked.get()
    token = _asked.set(outer | {writer.names.source})
    try:
        # A function that cannot be translated raises when it is called.
        with suppress(UnsupportedConstructError):
            return any(
                translate(callee, writer=type(writer)).waits
                for callee in writer.names.callees
                if Source.of(callee) not in _asked.get()
            )
        return False
    finally:
        _asked.reset(token)


class FunctionWriter(Loops):
    """Writer of the lane program of one function.

    Attributes
    ----------
    vocabulary : dict
        The globals of every program.
    """

    vocabulary: ClassVar[dict[str, Any]] = {
        **NAMES,
        **{
            value.__name__: value
            for value in (
                Compaction,
                KernelError,
                NotAtOnceError,
                Patience,
                accumulate,
                at_once,
                call_device,
                call_signed,
                latest,
                call_member,
                member_of,
                starred,
                InnerValue,
                pause,
            )
        },
        "call_value": partial(call_value, call_device, lambda intrinsic: intrinsic),
    }

    def write(self) -> tuple[str, list[int]]:
        """Return the program and, for each of its lines, the line of the kernel."""
        if self.definition.args.kwarg:
            raise self.unsupported(self.definition, "**kwargs in a kernel: give each argument a name")
        if self.kernel and self.definition.args.vararg:
            raise self.unsupported(
                self.definition, "*args in a kernel: give each argument a name, or pass a tuple"
            )
        self.write_function(self.definition.name, ["_rt", "_m"])
        return "\n".join(self.lines) + "\n", self.numbers

    def write_function(self, name: str, first: list[str]) -> None:
        """Write the function: its parameters after the `first` ones, the functions inside it, and its statements."""
        given = parameters(self.definition)
        if self.outer is not None:
            self.line = self.outer.line  # lanes may never reach the line of an inner function
        self.emit(f"def {name}({', '.join([*first, *(f'v_{p}' for p in given)])}):")
        self.line = self.definition.lineno
        self.depth += 1
        declared = outer_names(self.definition)
        if not declared <= self.names.bound or (declared and self.outer is None):
            raise self.unsupported(self.definition, f"nonlocal {', '.join(sorted(declared))}: pass an array")
        outside = [f"v_{name}" for name in sorted(declared)]
        outside += [f"a_{name[2:]}" for name in outside if name[2:] in self.questioned]
        if outside:
            self.emit(f"nonlocal {', '.join(outside)}")
        self.emit("_h0 = _m")
        self.emit("_r = False")
        self.emit("_v = UNSET")
        for name in sorted(self.variables - set(given)):
            self.emit(f"v_{name} = Unset({self.names.shown(name)!r})")
        for name in sorted(self.questioned & self.variables):
            self.emit(f"a_{name} = False")
        if self.debugged:
            self.emit("_stop = None")
        for inner in inner_functions(self.definition):
            self.write_inner(inner)
        if self.returns_partly:
            self.emit("_y, _m0 = False, _m")
        self.statements(self.definition.body, FUNCTION)
        if self.debugged:
            self.settle("if _stop is not None: _stop.end()")
        if self.returns_partly:
            self.emit(f"return partly(_m0, _y, _v, {self.definition.name!r})")
        else:
            self.emit("return None if _v is UNSET else _v")

    def write_inner(self, inner: Function) -> None:
        """Write a function inside the function, whose variables it reads when it is called."""
        definition = as_definition(inner)
        if inner.args.kwarg:
            raise self.unsupported(inner, "**kwargs in an inner function: name its arguments")
        for name in sorted(captured_by(inner) & self.names.bound):
            if not self.names.bound_before(name, inner):
                raise self.unsupported(
                    inner,
                    f"the capture of {name!r}, which is assigned only after the function that captures it: "
                    "assign it before",
                )
        writer = type(self)(self.names, definition, False, self)
        writer.arcs = self.arcs
        writer.expressions.debug = self.expressions.debug
        if writer.debugged:
            raise self.unsupported(
                inner, "a breakpoint in a function inside a kernel: stop where it is called"
            )
        writer.write_function(self.expressions.inner_names[inner], ["_m"])
        self.waits_for_others |= writer.waits_for_others
