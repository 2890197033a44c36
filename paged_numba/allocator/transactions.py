"""Transactions: a call that fails, for whatever reason, leaves its pool as it was.

Before each step, a method that changes a pool logs the call that takes the step back. An exception, be it a MemoryError
or Ctrl-C, runs the logged calls, last first. One pool has one `UndoLog`, whose lock also keeps threads apart.

A logged call must be right whether its step was done, half done or not begun. So it restores old values, or finds out
from the pool how far the step came; and where a step must not be half done, it is one assignment to several elements:
Python handles no signal within it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar


class UndoLog(list[tuple[Any, ...]]):
    """How to take back the steps of an unfinished call: a list of tuples ``(function, *arguments)``.

    Attributes
    ----------
    lock : RLock
        Held during a transaction.
    """

    __slots__ = ("acquire", "lock", "release")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        # Looked up once: a call to the pool is short.
        self.acquire, self.release = self.lock.acquire, self.lock.release

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies of a pool have a lock of their own.
        return UndoLog, ()

    def roll_back(self, begin: int, owner: _HasUndoLog) -> None:
        """Take back the steps of a transaction that has begun at entry `begin`."""
        changed = len(self) > begin + 1
        while len(self) > begin:
            function, *arguments = self.pop()
            function(*arguments)
        if changed:
            owner._recount()


RECOUNT = (int,)
"""Entry of a step that needs no other, since the reference counts are counted anew after a roll-back."""


class _HasUndoLog(Protocol):
    @property
    def _undo(self) -> UndoLog: ...

    def _recount(self) -> None: ...


Owner = TypeVar("Owner", bound=_HasUndoLog)
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def transaction(
    method: Callable[Concatenate[Owner, Parameters], Result],
) -> Callable[Concatenate[Owner, Parameters], Result]:
    """Make a method a transaction: it runs alone, and if it raises, its pool is as before the call."""

    @wraps(method)
    def call(self: Owner, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        undo, begin = self._undo, -1
        try:
            # One line each, so that no exception comes between: lock and begin; end and unlock.
            _, begin, _ = undo.acquire(), len(undo), undo.append(RECOUNT)  # type: ignore[func-returns-value]
            return (method(self, *args, **kwargs), begin or undo.clear(), undo.release())[0]  # type: ignore[func-returns-value]
        except BaseException:
            if begin >= 0:
                undo.roll_back(begin, self)
                undo.release()
            raise

    return call


def alone(
    method: Callable[Concatenate[Owner, Parameters], Result],
) -> Callable[Concatenate[Owner, Parameters], Result]:
    """Make a method that changes nothing wait for the transactions of other threads."""

    @wraps(method)
    def call(self: Owner, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with self._undo.lock:
            return method(self, *args, **kwargs)

    return call
