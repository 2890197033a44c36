"""`Guard`: notices that an answer reads the exercises, or reaches for the checker."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import hypothesis

from ..checker.failures import LearnersError
from ..checker.task import Task

_EXERCISES = "paged_numba.exercises"
_FOLDER = str(Path(__file__).resolve().parents[1])
_HYPOTHESIS = str(Path(hypothesis.__file__).resolve().parent)
_STANDARD = (os.path.dirname(os.__file__), "<frozen")
_WATCHED = (
    "paged_numba numpy hypothesis "
    "builtins contextlib copy dataclasses hashlib hmac io json math random re textwrap time traceback types"
).split()
"""Packages and modules whose functions an answer must not replace: the checker uses them."""

_WHOLE = ("paged_numba", "json")
"""Those of whose classes an answer must not replace anything."""

_STARTS = (
    "os.exec os.fork os.forkpty os.posix_spawn os.spawn os.startfile os.system pty.spawn subprocess.Popen"
).split()
"""Audit events of a process that is started."""

_REACHES = (
    "gc.get_objects gc.get_referents gc.get_referrers sys._current_frames sys._getframe sys.setprofile sys.settrace"
).split()
"""Audit events of functions that find the objects of others, if the answer itself calls them."""

_ATTRIBUTES = {
    "object.__getattr__": ("tb_frame", "gi_frame", "cr_frame", "ag_frame"),
    "object.__setattr__": ("__code__", "__defaults__"),
}
"""Audit events of attributes that lead to the frames of others, or make other functions of them."""

_READS = ("open", "import", "os.link")
_EVENTS = frozenset([*_READS, *_STARTS, *_REACHES, *_ATTRIBUTES])


class Guard:
    """Notices that an answer opens or imports what belongs to the checker, or replaces a function that it uses.

    It closes the ways that come to mind, not all there are: the answer runs in the checker's process.

    Parameters
    ----------
    path : Path
        The learner's file.
    task : Task

    Attributes
    ----------
    seen : str or None
        What the answer was seen to do that it must not.
    """

    def __init__(self, path: Path, task: Task) -> None:
        self.file, self._task = str(path.absolute()), task
        self.seen: str | None = None
        self._here = threading.local()
        self._modules = {
            name: module
            for name, module in list(sys.modules.items())
            if name.split(".")[0] in _WATCHED and module is not None
        }
        self._before = _contents(self._modules)
        self._of_task = dict(vars(task))
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _EVENTS or getattr(self._here, "busy", False):
            return
        self._here.busy = True  # the hook's own look at a frame is an event, too
        try:
            what = self._complaint(event, arguments, sys._getframe(1))
        finally:
            self._here.busy = False
        if what:
            self.seen = what
            raise LearnersError(self.seen)

    def _complaint(self, event: str, arguments: tuple[Any, ...], frame: FrameType | None) -> str:
        """Return what an event says that the answer does and must not, else an empty text."""
        if event in _READS:
            reads = self._belongs_to_the_checker(event, arguments[0]) and self._is_the_answers(frame)
            return (
                f"the answer must be your own, but {self.name} reads the exercises of paged_numba"
                if reads
                else ""
            )
        if event in _STARTS:
            # Packages that the answer imports may start one, as Matplotlib does to find fonts.
            while frame is not None and frame.f_code.co_filename.startswith(_STANDARD):
                frame = frame.f_back
            starts = frame is None or frame.f_code.co_filename in (self.file, "<string>")
            return f"{self.name} starts a process, which an answer must not" if starts else ""
        if event in _ATTRIBUTES and arguments[1] not in _ATTRIBUTES[event]:
            return ""
        if frame is not None and frame.f_code.co_name in ("currentframe", "stack"):
            frame = frame.f_back  # of `inspect`
        if frame is None or frame.f_code.co_filename not in (self.file, "<string>"):
            return ""
        return f"{self.name} reaches for objects of the check, which an answer must not"

    @staticmethod
    def _belongs_to_the_checker(event: str, what: Any) -> bool:
        if event == "import":
            return isinstance(what, str) and f"{what}.".startswith(f"{_EXERCISES}.")
        if not isinstance(what, (str, bytes)):
            return False
        # Case does not count, as on most systems of macOS and Windows.
        path = os.path.realpath(os.fsdecode(what)).casefold()
        return path.startswith(f"{_FOLDER}{os.sep}".casefold())

    def _is_the_answers(self, frame: FrameType | None) -> bool:
        """Tell whether the answer does what a frame does, itself or in a thread."""
        while frame is not None:
            name = frame.f_code.co_filename
            if name == self.file:
                return True
            if name.startswith((_FOLDER, _HYPOTHESIS)):
                # The checker itself, which the answer has not called, or Hypothesis, which reads what a test ran.
                return False
            frame = frame.f_back
        return True

    @property
    def name(self) -> str:
        """Name of the learner's file."""
        return Path(self.file).name

    def refuse(self) -> None:
        """Raise LearnersError if the answer has done what it must not; then the checker is whole again."""
        if complaint := self.restore():
            raise LearnersError(complaint)

    def restore(self) -> str | None:
        """Put back what the answer has replaced; return what it has done that it must not, or None."""
        complaint = self.seen
        for name, module in self._modules.items():
            if sys.modules.get(name, module) is not module:
                sys.modules[name] = module
                complaint = complaint or f"{self.name} replaces the module {name}, which the check uses"
        for (name, key), (owner, value) in {**_contents(self._modules), **self._before}.items():
            is_ours = name.startswith(_EXERCISES) or isinstance(owner, type)
            if (name, key) not in self._before:
                if is_ours:
                    delattr(owner, key)
            elif vars(owner).get(key) is not value:
                setattr(owner, key, value)
            else:
                continue
            if is_ours or (name, key) in self._before:
                complaint = complaint or f"{self.name} replaces {name}.{key}, which the check uses"
        if vars(self._task) != self._of_task:
            vars(self._task).clear()
            vars(self._task).update(self._of_task)
            complaint = complaint or f"{self.name} changes the task, which the check uses"
        return complaint


def _contents(modules: dict[str, ModuleType]) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Return what an answer might replace, by the name of its owner and its own: the owner, and the value.

    These are the functions and classes of modules, what classes of `_WHOLE` hold, and all that modules of the exercises
    hold.
    """
    found: dict[tuple[str, str], tuple[Any, Any]] = {}
    for name, module in modules.items():
        for key, value in list(vars(module).items()):
            if callable(value) or (name.startswith(_EXERCISES) and not key.startswith("__")):
                found[name, key] = module, value
            if isinstance(value, type) and value.__module__ == name and name.startswith(_WHOLE):
                for method, content in list(vars(value).items()):
                    if callable(content) or not method.startswith(("__", "_abc")):
                        found[f"{name}.{key}", method] = value, content
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
