"""Loads the learner's file, and notices what an answer must not do."""

from __future__ import annotations

import ast
import builtins
import importlib.util
import inspect
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis

from ... import lockstep
from ...lockstep.cuda import facade
from .failures import LearnersError, said
from .task import Task

MAY_USE = ("cuda", "draw", "lockstep")
"""Names of the package that any answer may use: the others would be somebody else's answer."""

_EXERCISES = "paged_numba.exercises"
_FOLDER, _PACKAGE = (str(Path(__file__).parents[up]) for up in (1, 2))
_HYPOTHESIS = str(Path(hypothesis.__file__).parent)
_WATCHED = ("paged_numba", "numpy", "hypothesis")
"""Packages whose functions an answer must not replace: the checker uses them."""


def load(path: Path, task: Task) -> Any:
    """Run the learner's file, and return the answer in it.

    Raises
    ------
    LearnersError
        The file cannot be run, uses what it must not, or does not define the answer as asked.
    """
    try:
        source = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise LearnersError(f"{path.name} must be text in UTF-8") from None
    except OSError as error:
        raise LearnersError(f"{path.name} cannot be read: {error.strerror}") from None
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise LearnersError(f"{path.name} is not Python: {said(error)}") from None
    refuse_others_answers(tree, task)
    spec = importlib.util.spec_from_file_location(path.stem.replace(".", "_"), path.absolute())
    if spec is None or spec.loader is None:
        raise LearnersError(f"{path.name} must be a Python file, whose name ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.absolute().parent))
    try:
        spec.loader.exec_module(module)
    except SystemExit as stop:
        raise LearnersError(f"{path.name} ends the process by SystemExit: {stop}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise LearnersError(f"{path.name} cannot be run: {said(error)}") from None
    missing = object()
    answer = getattr(module, task.answer, missing)
    if answer is missing:
        defined = [
            node.name
            for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))
        ]
        names = ", ".join(defined) or "nothing"
        raise LearnersError(f"{path.name} must define {task.answer}, got {names}")
    return answer


def prepared(answer: Any, task: Task) -> Any:
    """Return an answer as a task runs it: a kernel so that it runs on lockstep.

    Raises
    ------
    LearnersError
        The answer is not of the kind asked for, or comes from this package.
    """
    function = inspect.unwrap(getattr(answer, "py_func", answer))
    if _file_of(function).startswith(_PACKAGE):
        raise LearnersError(
            f"{task.answer} must be your own, got {function.__module__}.{function.__qualname__}"
        )
    if not task.kernel:
        if not callable(answer) or hasattr(answer, "py_func"):
            raise LearnersError(f"{task.answer} must be a function or a class, got {type(answer).__name__}")
        return answer
    if not hasattr(answer, "py_func"):
        got = "a function without it" if inspect.isfunction(answer) else type(answer).__name__
        raise LearnersError(f"{task.answer} must be a kernel, decorated with @cuda.jit, got {got}")
    return lockstep.jit(answer)


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


class Guard:
    """Notices that an answer opens or imports what belongs to the checker, or replaces a function that it uses."""

    def __init__(self, path: Path) -> None:
        self.file = str(path.absolute())
        self.seen: str | None = None
        self._modules = {
            name: module
            for name, module in list(sys.modules.items())
            if name.split(".")[0] in _WATCHED and module is not None
        } | {"builtins": builtins, "math": math}
        self._before = _functions(self._modules)
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        reads = event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(_FOLDER)
        imports = event == "import" and isinstance(arguments[0], str) and arguments[0].startswith(_EXERCISES)
        if not reads and not imports:
            return
        frame: Any = sys._getframe(1)
        while frame is not None:
            name = frame.f_code.co_filename
            if name == self.file:
                self.seen = f"the answer must be your own, but {self.name} reads the exercises of paged_numba"
                raise LearnersError(self.seen)
            if name.startswith((_FOLDER, _HYPOTHESIS)):
                # The checker itself, which the answer has not called, or Hypothesis, which reads what a test ran.
                return
            frame = frame.f_back

    @property
    def name(self) -> str:
        """Name of the learner's file."""
        return Path(self.file).name

    def complaint(self) -> str | None:
        """Return what the answer has done that it must not, or None."""
        if self.seen:
            return self.seen
        now = _functions(self._modules)
        replaced = [name for name, function in self._before.items() if now.get(name) is not function]
        return f"{self.name} replaces {replaced[0]}, which the check uses" if replaced else None


def _functions(modules: dict[str, ModuleType]) -> dict[str, Any]:
    """Return the functions and classes of modules, and the methods of this package's classes, by name."""
    found: dict[str, Any] = {}
    for name, module in modules.items():
        for key, value in list(vars(module).items()):
            if callable(value):
                found[f"{name}.{key}"] = value
                if isinstance(value, type) and value.__module__.split(".")[0] == "paged_numba":
                    for method, function in vars(value).items():
                        if callable(function) or isinstance(function, (property, classmethod, staticmethod)):
                            found[f"{name}.{key}.{method}"] = function
    return found


@contextmanager
def hidden() -> Iterator[None]:
    """Hide the modules of the exercises in a ``with`` statement: an answer that wants one must import it anew.

    The guard notices an import, but not a look at a module that is there.
    """
    package = sys.modules[_EXERCISES.partition(".")[0]]
    modules = {
        name: sys.modules.pop(name) for name in list(sys.modules) if f"{name}.".startswith(f"{_EXERCISES}.")
    }
    del vars(package)["exercises"]
    try:
        yield
    finally:
        sys.modules.update(modules)
        vars(package)["exercises"] = modules[_EXERCISES]


@contextmanager
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
