"""Transactions: a call that fails for any reason leaves its pool as it was.

Before each step, a method that changes a pool logs a call that undoes the step. If the method raises any exception,
even MemoryError or KeyboardInterrupt, the logged calls run, last first. A pool has one `UndoLog`, whose lock also lets
only one thread change the pool at a time.

A logged call must be correct whether its step was done, half done or not begun. It therefore restores old values, or
reads from the pool how far the step went. A step that must not be half done is one assignment to several elements,
during which Python handles no signal.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from ..errors import PagedNumbaError


class UndoLog(list[tuple[Any, ...]]):
    """How to undo the steps of an unfinished call: a list of tuples ``(function, *arguments)``.

    Attributes
    ----------
    lock : RLock
        Held by the thread that calls a method of the pool.
    changing : RLock
        Held, too, during a transaction that others may be part of.
    half_done : Lock
        Held, too, during one that no other may be part of, since the pool may be half changed.
    state : object
        Another object after each change of the pool's block tables and reference counts.
    """

    __slots__ = ("changing", "half_done", "lock", "state")

    def __init__(self) -> None:
        self.lock, self.changing, self.half_done = threading.RLock(), threading.RLock(), threading.Lock()
        self.state = object()

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies of a pool have a lock of their own.
        return UndoLog, ()

    def run(self, nested: bool, method: Callable[..., Any], owner: Any, args: Any, kwargs: Any) -> Any:
        """Call a method; if it raises, undo what it did. A nested transaction ends with the outer one."""
        if self and not nested:
            # A second Ctrl-C interrupted a roll-back.
            self.roll_back(0, owner)
        begin = len(self)
        try:
            # One line: no exception can come between the end of the method and the end of the transaction.
            return (method(owner, *args, **kwargs), nested or self.clear())[0]  # type: ignore[func-returns-value]
        except BaseException:
            if len(self) > begin:
                self.roll_back(begin, owner)
            raise

    def roll_back(self, begin: int, owner: Any) -> None:
        """Undo the steps from entry `begin` on."""
        while len(self) > begin:
            function, *arguments = self[-1]
            function(*arguments)
            del self[-1]
        owner._recount()


RECOUNT = (int,)
"""Entry of a step that changes reference counts alone, which are counted again after every roll-back."""


class _HasLock(Protocol):
    @property
    def _undo(self) -> UndoLog: ...


class _HasUndoLog(_HasLock, Protocol):
    def _recount(self) -> None: ...


Reader = TypeVar("Reader", bound=_HasLock)
Owner = TypeVar("Owner", bound=_HasUndoLog)
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def transaction(
    method: Callable[Concatenate[Owner, Parameters], Result],
) -> Callable[Concatenate[Owner, Parameters], Result]:
    """Make a method a transaction: it runs alone, and if it raises, its pool is as before the call.

    It may call methods of the pool. A call from elsewhere, by a signal handler or an observer, is part of it, too.
    """
    return _under(method, "changing")


def whole(
    method: Callable[Concatenate[Owner, Parameters], Result],
) -> Callable[Concatenate[Owner, Parameters], Result]:
    """Make a method a transaction within which no other can begin.

    For methods that change the pool step by step. Between two steps Python may run other code: a signal handler, a
    finalizer, or the ``__eq__`` of an id.
    """

    @wraps(method)
    def noted(self: Owner, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        undo = self._undo
        begin = len(undo)
        result = method(self, *args, **kwargs)
        if len(undo) > begin:
            # An object of its own: no later state is taken for one that was rolled back.
            undo.append((setattr, undo, "state", undo.state))
            undo.state = object()
        return result

    return _under(noted, "half_done")


def _under(
    method: Callable[Concatenate[Owner, Parameters], Result], innermost: str
) -> Callable[Concatenate[Owner, Parameters], Result]:
    """Make a method a transaction that holds `lock` and another of the locks of its log."""

    @wraps(method)
    def call(self: Owner, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        undo = self._undo
        nested = undo.changing._is_owned()  # type: ignore[attr-defined]
        if undo.half_done.locked() and undo.lock._is_owned():  # type: ignore[attr-defined]
            raise _half_done(method.__name__)
        # One line, as in `run`: else an exception could come before the locks are released.
        with undo.lock, getattr(undo, innermost): return undo.run(nested, method, self, args, kwargs)  # noqa: E701  # fmt: skip

    return call


def alone(
    method: Callable[Concatenate[Reader, Parameters], Result],
) -> Callable[Concatenate[Reader, Parameters], Result]:
    """Make a method that changes nothing wait for the transactions of other threads."""

    @wraps(method)
    def call(self: Reader, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with self._undo.lock: return method(self, *args, **kwargs)  # noqa: E701  # fmt: skip

    return call


def _half_done(name: str) -> PagedNumbaError:
    return PagedNumbaError(
        f"{name} must not be called while another call changes the same pool, got a call from within it: by a signal "
        "handler, a finalizer, or a method of an id or a salt"
    )
