"""Loads the learner's file, and refuses what is no answer."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
import linecache
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ... import lockstep
from ...lockstep.cuda import facade
from .failures import LearnersError, said, said_briefly
from .task import Task

MAY_USE = ("cuda", "draw", "lockstep")
"""Names of the package that any answer may use: the others would be somebody else's answer."""

_EXERCISES = "paged_numba.exercises"
_PACKAGE = str(Path(__file__).parents[2])


def load(path: Path, task: Task) -> Any:
    """Run the learner's file, and return the answer in it.

    Raises
    ------
    LearnersError
        The file cannot be run, uses what it must not, or does not define the answer as asked.
    """
    try:
        source = importlib.util.decode_source(path.read_bytes())
    except (SyntaxError, UnicodeDecodeError):
        raise LearnersError(f"{path.name} must be text in UTF-8") from None
    except OSError as error:
        raise LearnersError(f"{path.name} cannot be read: {error.strerror}") from None
    if not path.name.endswith(".py"):
        raise LearnersError(f"{path.name} must be a Python file, whose name ends in .py")
    try:
        tree = ast.parse(source)
        code = compile(source, str(path.absolute()), "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise LearnersError(f"{path.name} is not Python: {said(error)}") from None
    refuse_others_answers(tree, task)
    module = _module(path, source)
    folder = str(path.absolute().parent)
    sys.path.insert(0, folder)
    try:
        exec(code, vars(module))
    except SystemExit as stop:
        raise LearnersError(f"{path.name} ends the process by SystemExit: {said_briefly(stop)}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise LearnersError(f"{path.name} cannot be run: {said(error)}") from None
    finally:
        # What the checker has yet to import comes first from now on.
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
            sys.path.append(folder)
    missing = object()
    answer = vars(module).get(task.answer, missing)
    if answer is missing:
        defined = [
            node.name
            for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))
        ]
        names = ", ".join(defined) or "nothing"
        raise LearnersError(f"{path.name} must define {task.answer}, got {names}")
    return answer


def _module(path: Path, source: str) -> ModuleType:
    """Return an empty module for a file, which can import its neighbours.

    It is compiled by `load`, not by the import system: that would take a compiled file of the same second and size.
    """
    name = path.stem.replace(".", "_")
    while name in sys.modules:
        name += "_"
    module = sys.modules[name] = ModuleType(name)
    file = module.__file__ = str(path.absolute())
    # The lines are shown as they were checked, though the file may change meanwhile.
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file
    return module


def prepared(answer: Any, task: Task) -> Any:
    """Return an answer as a task runs it: a kernel so that it runs on lockstep.

    Raises
    ------
    LearnersError
        The answer is not of the kind asked for, or comes from this package.
    """
    kernel = _kernel_of(answer)
    function: Any = kernel or answer
    with contextlib.suppress(Exception):
        function = inspect.unwrap(function)
    if _file_of(function).startswith(_PACKAGE):
        raise LearnersError(
            f"{task.answer} must be your own, got {function.__module__}.{function.__qualname__}"
        )
    if not task.kernel:
        if kernel or not callable(answer):
            got = "a kernel" if kernel else type(answer).__name__
            raise LearnersError(f"{task.answer} must be a function or a class, got {got}")
        return answer
    if not kernel:
        got = "a function without it" if inspect.isfunction(answer) else type(answer).__name__
        raise LearnersError(f"{task.answer} must be a kernel, decorated with @cuda.jit, got {got}")
    try:
        return lockstep.jit(answer)
    except Exception as error:
        raise LearnersError(f"{task.answer} must be a kernel that can be launched: {said(error)}") from None


def in_order(answer: Any, skeleton: str, task: Task) -> Any:
    """Return an answer, which must have the arguments of the skeleton in their order if it has their names.

    Raises
    ------
    LearnersError
        The same names stand in another order. They are passed by position, so each would get another one's value.
    """
    given = next(
        (
            [argument.arg for argument in node.args.args]
            for node in ast.parse(skeleton).body
            if isinstance(node, ast.FunctionDef) and node.name == task.answer
        ),
        [],
    )
    with contextlib.suppress(TypeError, ValueError):
        own = list(inspect.signature(_kernel_of(answer) or answer).parameters)
        if own != given and sorted(own) == sorted(given):
            raise LearnersError(
                f"{task.answer} must have the arguments {', '.join(given)}, got {', '.join(own)}"
            )
    return answer


def _kernel_of(answer: Any) -> Any:
    """Return the function of a kernel, None for anything else."""
    try:
        function = answer.py_func
    except Exception:
        return None
    return function if inspect.isfunction(function) else None


def _file_of(thing: Any) -> str:
    """Return the file that defines a function or class, "" if there is none."""
    try:
        return inspect.getfile(thing)
    except (TypeError, OSError):
        return ""


def refuse_others_answers(tree: ast.AST, task: Task) -> None:
    """Raise LearnersError if a file imports the exercises or operations of this package."""
    allowed = {*MAY_USE, *task.may_use}
    aliases = {"paged_numba"}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "paged_numba":
                    aliases.add(alias.asname or parts[0])
                    names += parts[1:2]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "paged_numba":
            names = (node.module or "").split(".")[1:2] or [alias.name for alias in node.names]
        elif (
            isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases
        ):
            names = [node.attr]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _EXERCISES in node.value:
            names = ["exercises"]
        for name in names:
            if name not in allowed:
                raise LearnersError(
                    f"the answer must be your own, got paged_numba.{name} in line {node.lineno}; "  # type: ignore[attr-defined]
                    f"it may use {', '.join(sorted(allowed))} of paged_numba"
                )


@contextlib.contextmanager
def lockstep_as_numba_cuda() -> Iterator[None]:
    """In a ``with`` statement, ``from numba import cuda`` gives the lockstep facade, with or without a GPU."""
    before = sys.modules.get("numba.cuda")
    numba: Any = sys.modules.get("numba") or importlib.import_module("numba")
    attribute = getattr(numba, "cuda", None)
    numba.cuda = sys.modules["numba.cuda"] = facade
    try:
        yield
    finally:
        if before is not None:
            sys.modules["numba.cuda"] = before
        else:
            del sys.modules["numba.cuda"]
        if attribute is not None:
            numba.cuda = attribute
