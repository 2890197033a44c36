"""`Source`: the syntax tree of a function, checked against the code that was imported, and the values of its globals.

Python keeps no source with a function: it is read from the file, which may have changed since. A function runs only
if its file still compiles to the function's own code object.
"""

from __future__ import annotations

import ast
import builtins
import dis
import inspect
import linecache
import os
import re
import sys
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache, reduce
from types import CodeType, FunctionType
from typing import Any

import numpy as np

from ...errors import UnsupportedConstructError
from ..machine.lanes import file_name
from .analysis.matching import without_match
from .analysis.scopes import as_definition, parameters, unique

_sources: weakref.WeakKeyDictionary[Any, Source] = weakref.WeakKeyDictionary()

translating = threading.RLock()
"""Held to read and translate a function: `ast.parse` fails in several threads at once (python/cpython issue 106905)."""


def copied(function: FunctionType, space: dict[str, Any] | None = None) -> FunctionType:
    """Return another function of the same code, with the globals `space` if given."""
    copy = FunctionType(
        function.__code__,
        function.__globals__ if space is None else space,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    for name in ("__kwdefaults__", "__qualname__", "__module__", "__doc__", "__annotations__"):
        setattr(copy, name, getattr(function, name))
    return copy


class Source:
    """A kernel or device function as the machine runs it.

    Globals and closure variables are read once, when the function is first translated: to Numba they are constants. A
    kernel with a signature is translated when it is decorated, any other at its first launch.

    Parameters
    ----------
    function : function
        The Python function, undecorated.

    Attributes
    ----------
    code : code object
        The code that the source belongs to.
    file : str
    lines : tuple of str
        The source lines of the function, decorators included.
    first : int
        The number in the file of the first of them.
    definition : ast.FunctionDef
        The syntax tree, with the line numbers of the file; variables of inner functions have names of their own.
    outer : dict
        The values of the names outside the function that it uses.
    attributes : dict
        The values of attributes of these names that have been resolved, by their text.
    parameters : list of str
    translations : dict
        The function's lane programs; see `translate`.
    notes : dict
        Results of analyses of the function, by their names.

    Raises
    ------
    UnsupportedConstructError
        The source cannot be read or parsed, or differs from the code.
    """

    def __init__(self, function: Any) -> None:
        self.code: CodeType = function.__code__
        name = self.code.co_name
        self.file = inspect.getsourcefile(function) or self.code.co_filename
        flags = self.code.co_flags & _FUTURE | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        text = _executed_text(self.code, flags) or _read(function, self.file)
        try:
            candidates = _parsed(text, flags).get(name, [])
        except (SyntaxError, ValueError) as error:
            raise _changed(name, self.file) from error
        found = _definition(candidates, self.code)
        if found is None and name == "<lambda>":
            raise UnsupportedConstructError(
                "the lockstep machine must find the source of a lambda: write it with def, or on a line of its own, "
                f"{file_name(self.file)}:{self.code.co_firstlineno}"
            )
        if found is None:
            raise _changed(name, self.file)
        self.definition = unique(without_match(found, self.file) if "match" in text else found)
        self.first = _first_line(found)
        self.parameters = parameters(self.definition)
        end = found.end_lineno or found.lineno
        self.lines = tuple(text.split("\n")[self.first - 1 : end])
        # The table of sources must not keep a function alive, and the globals of its module do.
        self.function = weakref.ref(function)
        self.outer: dict[str, Any] = {}
        self.attributes: dict[str, Any] = {}
        self.translations: dict[Any, Any] = {}
        self.notes: dict[str, Any] = {}
        for name in (*self.code.co_freevars, *self.code.co_names):
            self.defines(name)

    def defines(self, name: str) -> bool:
        """Tell whether a name is defined outside the function; if so, `outer` holds its value from then on."""
        if name not in self.outer:
            with suppress(NameError):
                self.outer[name] = constant(_outside(self.function(), name))
        return name in self.outer

    def is_current(self) -> bool:
        """Tell whether the names outside the function still have the values that were read."""
        function = self.function()
        try:
            for text, known in (self.outer | self.attributes).items():
                name, *attributes = text.split(".")
                if not _is_same(reduce(getattr, attributes, _outside(function, name)), known):
                    return False
        except (NameError, AttributeError):
            return False
        return True

    @classmethod
    def of(cls, function: Any) -> Source:
        """Return the source of a function, which is read again only if the function has a new code object."""
        known = _sources.get(function)
        if known is not None and known.code is function.__code__:
            return known
        inside = inspect.unwrap(function)
        if inside is not function:
            return cls.of(inside)
        with translating:
            known = _sources[function] = cls(function)
        return known

    @classmethod
    def decorated(cls, function: Any) -> Any:
        """Return a function that is decorated, or a copy if the names outside it have changed since it was translated.

        Numba compiles a function anew for each decorator, and so the copy has a source of its own.
        """
        known = _sources.get(function)
        if known is None or known.is_current():
            return function
        return copied(function)

    @staticmethod
    def forget(function: Any) -> None:
        """Read the source of a function, and the values of its globals, again when it is next needed."""
        _sources.pop(function, None)


_FUTURE = 0
for _name in __import__("__future__").all_feature_names:
    _FUTURE |= getattr(__import__("__future__"), _name).compiler_flag


def _changed(name: str, file: str) -> UnsupportedConstructError:
    return UnsupportedConstructError(
        f"the source of {name!r} must be the code that runs, but {file} has changed since {name!r} was imported: "
        "import it again, or restart"
    )


def _read(function: Any, file: str) -> str:
    """Return the text of the file that holds a function."""
    # Not `inspect.findsource`, which looks through all modules that are imported.
    linecache.checkcache(file)
    lines = linecache.getlines(file, function.__globals__)
    if not lines:
        name = function.__code__.co_name
        if os.path.exists(file):
            raise _changed(name, file)
        hint = "save it to a file" if file.startswith("<") else "the file must exist"
        raise UnsupportedConstructError(
            f"the source of {name!r} must be readable, got code from {file}: {hint}"
        )
    return "".join(lines)


_executed: deque[str] = deque(maxlen=1000)
"""The last texts with functions that were passed to ``exec``, ``eval`` or ``compile`` under no file's name."""
_keeping = False


def keep_executed_texts(keep: bool) -> None:
    """Begin or end to keep texts that are executed, so that functions in them can run: Python forgets the texts."""
    global _keeping
    _keeping = keep
    if keep:
        _add_hook()


@lru_cache(maxsize=1)
def _add_hook() -> None:
    """Add the hook, once: Python cannot remove it."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if (
            _keeping
            and event == "compile"
            and args[0]
            and isinstance(args[1], str)
            and args[1].startswith("<")
        ):
            text = args[0].decode(errors="replace") if isinstance(args[0], bytes) else args[0]
            if isinstance(text, str) and "def " in text and text not in _executed:
                _executed.append(text)

    sys.addaudithook(hook)


def _executed_text(code: CodeType, flags: int) -> str | None:
    """Return the text passed to ``exec`` or ``python -c`` that a function stands in, or None."""
    if not code.co_filename.startswith("<"):
        return None
    arguments = sys.orig_argv
    typed = [arguments[arguments.index("-c") + 1]] if "-c" in arguments[:-1] else []
    for text in (*typed, *reversed(_executed)):
        if code.co_name in text:
            with suppress(SyntaxError, ValueError):
                if _definition(_parsed(text, flags).get(code.co_name, []), code) is not None:
                    return text
    return None


@lru_cache(maxsize=8)
def _parsed(text: str, flags: int) -> dict[str, list[tuple[ast.FunctionDef, CodeType]]]:
    """Return all functions in a file, by name: the definition and the code."""
    places: dict[tuple[int, str], ast.FunctionDef] = {}
    lambdas: dict[int, list[ast.Lambda]] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            places[_first_line(node), node.name] = node
        elif isinstance(node, ast.Lambda):
            lambdas.setdefault(node.lineno, []).append(node)
    found: dict[str, list[tuple[ast.FunctionDef, CodeType]]] = {}
    for module in _modules(text, flags):
        unnamed: dict[int, list[CodeType]] = {}
        for code in _codes(module):
            definition = places.get((code.co_firstlineno, code.co_name))
            if definition is not None:
                found.setdefault(code.co_name, []).append((definition, code))
            elif code.co_name == "<lambda>":
                unnamed.setdefault(code.co_firstlineno, []).append(code)
        for line, codes in unnamed.items():
            # Several on one line are compiled from left to right.
            nodes = sorted(lambdas.get(line, []), key=lambda node: node.col_offset)
            if len(nodes) == len(codes):
                pairs = [(as_definition(node), code) for node, code in zip(nodes, codes, strict=True)]
                found.setdefault("<lambda>", []).extend(pairs)
    return found


def _modules(text: str, flags: int) -> Iterator[CodeType]:
    """Yield the code of a file, of each cell if ``# %%`` divides it into cells, and of each statement.

    Spyder and sphinx-gallery compile cells one by one, IPython the statements of a cell. CPython compiles
    `cuda.grid(1)` in another way if the import of `cuda` is not in the same compilation.
    """
    yield compile(text, "<source>", "exec", flags, dont_inherit=True)
    cells = re.split(r"^(?=# ?%%)", text, flags=re.M)
    line = 0
    for cell in cells if len(cells) > 1 else ():
        with suppress(SyntaxError):  # "# %%" in a string divides nothing
            yield compile("\n" * line + cell, "<source>", "exec", flags, dont_inherit=True)
        line += cell.count("\n")
    for statement in ast.parse(text).body:
        yield compile(ast.Module([statement], []), "<source>", "exec", flags, dont_inherit=True)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def _definition(candidates: list[tuple[ast.FunctionDef, CodeType]], code: CodeType) -> ast.FunctionDef | None:
    """Return the definition that compiles to `code`, at its line or, if lines above it have changed, at another."""
    for node, one in sorted(candidates, key=lambda pair: pair[1].co_firstlineno != code.co_firstlineno):
        if one.replace(co_firstlineno=code.co_firstlineno) == code or _same_but_asserts(one, code, node):
            return node
    return None


def _first_line(node: ast.FunctionDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _same_but_asserts(compiled: CodeType, code: CodeType, definition: ast.FunctionDef) -> bool:
    """Tell whether a definition compiles to `code` apart from ``assert``, which pytest rewrites in test files."""
    asserts = [node for node in ast.walk(definition) if isinstance(node, ast.Assert)]
    rewritten = {line for a in asserts for line in range(a.lineno, (a.end_lineno or a.lineno) + 1)}
    return bool(rewritten) and _instructions(compiled, rewritten) == _instructions(code, rewritten)


def _instructions(code: CodeType, without: set[int]) -> dict[int, list[Any]]:
    """Return the instructions of each line, apart from some lines, and without jumps, which depend on other lines."""
    found: dict[int, list[Any]] = {}
    line = None
    for instruction in dis.get_instructions(code):
        starts = getattr(instruction, "line_number", None) or instruction.starts_line
        line = starts if starts and not isinstance(starts, bool) else line
        jumps = instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs
        if line is None or line in without or jumps or instruction.opname in ("EXTENDED_ARG", "NOP"):
            continue
        # Which loads check or borrow depends on the block around them, and so on an `assert` in it.
        name = instruction.opname.replace("_BORROW", "").replace("_CHECK", "")
        found.setdefault(line, []).append((name, instruction.argrepr))
    return found


def _outside(function: Any, name: str) -> Any:
    """Return the value that a name outside a function has now; raise NameError if it has none."""
    names = () if function is None else function.__code__.co_freevars
    if name in names:
        with suppress(ValueError):  # of a cell that is still empty
            return function.__closure__[names.index(name)].cell_contents
    else:
        for namespace in (getattr(function, "__globals__", {}), vars(builtins)):
            if name in namespace:
                return namespace[name]
    raise NameError(name)


def _is_same(now: Any, read: Any) -> bool:
    """Tell whether a value from outside a function is the constant that was read."""
    if isinstance(read, np.ndarray) and isinstance(now, np.ndarray):
        if now is read:
            return True
        same_type = now.dtype == read.dtype and now.shape == read.shape
        return same_type and now.tobytes() == read.tobytes()
    if type(now) is tuple and type(read) is tuple:
        return len(now) == len(read) and all(map(_is_same, now, read))
    return now is read or (type(now) is type(read) and isinstance(now, _PLAIN) and repr(now) == repr(read))


_PLAIN = (bool, int, float, complex, str, bytes, np.generic)


def constant(value: Any) -> Any:
    """Return a value from outside a function as a constant: a copy of an array, anything else itself."""
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        value = value.copy(order="K")
        value.flags.writeable = False
    elif type(value) is tuple and any(isinstance(item, (np.ndarray, tuple)) for item in value):
        value = tuple(map(constant, value))
    return value


def _unlock_child() -> None:
    """Replace the lock in a forked process, in which the thread that held it does not exist."""
    global translating
    translating = threading.RLock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_unlock_child)
