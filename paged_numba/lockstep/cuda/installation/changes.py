"""`Changes`: changes to modules, classes and functions of other packages, which can be taken back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FunctionType, ModuleType
from typing import Any

_ABSENT = object()


class Changes:
    """Changes made to objects of other packages, remembered so that `undo` takes them back."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def undo(self) -> None:
        """Take all changes back, the last first."""
        while self._undo:
            self._undo.pop()()

    def when_undone(self, call: Callable[[], None]) -> None:
        """Remember a call that takes a change back."""
        self._undo.append(call)

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of a module, class or object."""
        before = vars(owner).get(name, _ABSENT)
        setattr(owner, name, value)

        def undo() -> None:
            if before is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, before)

        self._undo.append(undo)

    def redirect(self, function: FunctionType, target: Callable[..., Any]) -> None:
        """Make a function call `target`, so that whoever imported the function before calls `target` too."""
        before = function.__code__, function.__defaults__, function.__kwdefaults__
        function.__kwdefaults__ = {"_lockstep": target}
        function.__code__ = _forwarding(function.__code__)
        function.__defaults__ = None

        def undo() -> None:
            function.__code__, function.__defaults__, function.__kwdefaults__ = before

        self._undo.append(undo)

    def rebind(self, before: Any, after: Any) -> None:
        """Replace an object by another in the globals of all modules, `undo` also in those imported meanwhile."""
        places = _rebind(before, after)

        def undo() -> None:
            _rebind(after, before)
            for module, name in places:  # another object may have been replaced by the same one
                setattr(module, name, before)

        self._undo.append(undo)


def _forwarding(code: CodeType) -> CodeType:
    """Return code with the closure variables of `code`, which calls its keyword-only argument ``_lockstep``."""
    free = code.co_freevars
    text = (
        f"def outer({', '.join(free)}):\n"
        f"    def {_name(code)}(*args, _lockstep, **kwargs):\n"
        "        __tracebackhide__ = True\n"
        "        return _lockstep(*args, **kwargs)\n"
        f"        {', '.join(free)}\n"
        f"    return {_name(code)}\n"
    )
    space: dict[str, Any] = {}
    exec(compile(text, __file__, "exec"), space)
    forwarding: CodeType = space["outer"](*(None for _ in free)).__code__
    return forwarding


def _name(code: CodeType) -> str:
    return code.co_name if code.co_name.isidentifier() else "call"


def _rebind(before: Any, after: Any) -> list[tuple[ModuleType, str]]:
    """Replace an object in the globals of all modules but ours; return the places."""
    ours = __package__.partition(".")[0]
    places = []
    for name, module in list(sys.modules.items()):
        if not isinstance(module, ModuleType) or name.partition(".")[0] == ours:
            continue
        for key, value in list(vars(module).items()):
            if value is before:
                setattr(module, key, after)
                places.append((module, key))
    return places
