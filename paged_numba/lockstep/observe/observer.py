"""The `Observer` interface, and the registry of observers that listen to launches.

A launch without observers runs as if this module did not exist: the observed machine and program are built only
if an `Observer` listens.
"""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..machine.masks import Mask
from .allocations import root_of

EXITED = "barrier after some threads exited"
"""A kind that `Observer.wrong` reports, though it is not an error since compute capability 7.0."""


class Observer:
    """Base class of observers: one method per event; the methods here do nothing.

    In every method `machine` is the launch's `ObservedMachine` and `array` an `ObservedArray`; both are defined in
    ``observed_machine.py``, which imports this file, so that their annotations here are `Any`. `mask` holds the
    lanes that take part, ``machine.line`` is the line that runs, and `position` gives the elements of
    ``array.buffer``, one element for each lane or a single element for all.
    """

    collects_errors = False
    """Whether errors of the kernel go to `wrong` instead of being raised; the launch then continues."""

    def begin_launch(self, machine: Any, function: Any, arguments: tuple[Any, ...]) -> None:
        """Called before the first thread block of a launch runs."""

    def end_launch(self, machine: Any) -> None:
        """Called when a launch ends, even by an exception."""

    def begin_batch(self, machine: Any) -> None:
        """Called when the next batch of thread blocks starts, with fresh shared and local memory."""

    def statement(self, machine: Any, mask: Mask) -> None:
        """Called before each statement, each iteration of a loop and each test of a ``while``."""

    def branch(self, machine: Any, mask: Mask, held: Mask) -> None:
        """Called after each test of an ``if`` or ``while``; it holds for the lanes of `held`."""

    def enter(self, machine: Any, mask: Mask, function: Any, parameters: dict[str, Any]) -> None:
        """Called when a function begins; `parameters` are values as in `assign`, ``machine.line`` is the caller's."""

    def assign(self, machine: Any, mask: Mask, function: Any, name: str, value: Any) -> None:
        """Called after each assignment to a variable.

        Parameters
        ----------
        function : CodeFunction
            The function whose variable it is.
        name : str
        value : object
            The variable's value: a lane value, a tuple of them, an array, or None.
        """

    def load(self, machine: Any, array: Any, mask: Mask, position: Any) -> None:
        """Called before each load."""

    def store(self, machine: Any, array: Any, mask: Mask, position: Any, value: Any) -> None:
        """Called before each store."""

    def atomic(self, machine: Any, array: Any, mask: Mask, position: Any, exchanges: bool) -> None:
        """Called before each atomic operation; if `exchanges`, it stores whatever the old value is."""

    def declare(self, machine: Any, array: Any, mask: Mask) -> None:
        """Called after each declaration of a shared or local array, and each use of a constant array."""

    def cooperate(self, machine: Any, mask: Mask, kind: str, members: Any) -> None:
        """Called after each barrier, ``syncwarp``, shuffle and vote.

        Parameters
        ----------
        kind : {"block", "grid", "syncwarp", "shuffle", "vote"}
            ``block`` and ``grid`` are barriers of a thread block and of the grid.
        members : int64 value or None
            The member mask of a warp operation.
        """

    def exchange(self, machine: Any, mask: Mask, source: Any, itemsize: int) -> None:
        """Called at each shuffle.

        Parameters
        ----------
        source : int value
            The lane of the warp, 0 to 31, that each lane reads from.
        itemsize : int
            Bytes of the value.
        """

    def compute(self, machine: Any, mask: Mask, dtype: Any, operations: int, special: int) -> None:
        """Called after floating-point arithmetic.

        Parameters
        ----------
        dtype : dtype
            The type of the result.
        operations : int
            Additions and multiplications of each lane.
        special : int
            Divisions and functions such as ``exp`` of each lane.
        """

    def narrowed(self, machine: Any, mask: Mask, value: Any, dtype: Any) -> None:
        """Called before integers that flow into an index are converted to a narrower signed type."""

    def wrong(
        self, machine: Any, lane: int, kind: str, what: str, array: str, element: str, count: int
    ) -> None:
        """Called for each error of the kernel, and for `EXITED`, if `collects_errors`.

        Parameters
        ----------
        lane : int
            Flat index of the first lane at fault.
        kind : str
            Such as ``out of bounds``.
        what : str
            The message.
        array, element : str
            Name of the array, and the array with its index; empty if no array is involved.
        count : int
            Lanes at fault.
        """

    def refused(self) -> None:
        """Called for each launch that does not begin, since lockstep cannot run its kernel."""

    def missed(self) -> None:
        """Called for each launch of another thread that no observer sees while this one listens; see `observing`."""


@dataclass(eq=False)
class _Scope:
    """One ``with observing(...)`` statement; `open` until its end."""

    observer: Observer
    open: bool = True


_scopes: ContextVar[tuple[_Scope, ...]] = ContextVar("lockstep_observers", default=())

_open: tuple[_Scope, ...] = ()
"""The open scopes of all threads."""

launching = threading.RLock()
"""Held during each observed launch: an observer takes in one launch at a time."""

_registry = threading.Lock()
"""Held briefly, to change `_open` or to report an unobserved launch, which must not wait for other launches."""

_watched: weakref.WeakKeyDictionary[Observer, list[weakref.ref[Any]]] = weakref.WeakKeyDictionary()
"""The allocations that each living observer watches."""


def observers(arguments: tuple[Any, ...]) -> tuple[Observer, ...]:
    """Return the observers of a launch with these arguments, outermost first."""
    scopes = _current()
    found = tuple(scope.observer for scope in scopes if scope.open) if scopes else ()
    if _open and not found:
        miss()
    if not _watched:
        return found
    roots = {id(root_of(array)) for array in map(_host_array, arguments) if isinstance(array, np.ndarray)}
    watching = (
        observer
        for observer, watched in list(_watched.items())
        if any(id(root()) in roots for root in watched if root() is not None)
    )
    return (*found, *(observer for observer in watching if observer not in found))


def _current() -> tuple[_Scope, ...]:
    """Return the scopes of this thread: its own, or those in which it was started."""
    scopes = _scopes.get()
    if not scopes and _open:
        scopes = getattr(threading.current_thread(), _STARTED_IN, ())
    return scopes


def listening(listeners: tuple[Observer, ...]) -> tuple[Observer, ...]:
    """Return the observers whose ``with`` statement has not ended yet; the caller must hold `launching`."""
    now = {id(scope.observer) for scope in _open}
    return tuple(listener for listener in listeners if id(listener) in now or listener in _watched)


def refuse(listeners: tuple[Observer, ...]) -> None:
    """Tell observers that lockstep cannot run the kernel of a launch."""
    with launching:
        for listener in listeners:
            listener.refused()


def miss() -> None:
    """Tell the observers that listen that they do not see a launch."""
    with _registry:
        for scope in _open:
            scope.observer.missed()


def _host_array(argument: Any) -> Any:
    return getattr(argument, "__lockstep_array__", argument)


def watch(root: Any, observer: Observer) -> None:
    """Register `observer`, for as long as it lives, for each launch with an argument in the allocation `root`."""
    _watched.setdefault(observer, []).append(weakref.ref(root))


def unseen(count: int, done: str) -> str:
    """Return the number of missed launches in words.

    >>> unseen(2, "checked")
    '2 launches of other threads were not checked'
    """
    what, were = ("launch", "was") if count == 1 else ("launches", "were")
    return f"{count:,} {what} of other threads {were} not {done}"


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Register `observer` for the launches inside a ``with`` statement and of the threads that are started inside it.

    A launch of any other thread that no observer sees is reported to `Observer.missed`. At its end, the statement waits
    for the observed launch that is running.
    """
    global _open
    _follow_threads()
    scope = _Scope(observer)
    token = _scopes.set((*_current(), scope))
    try:
        with _registry:
            _open = (*_open, scope)
        yield
    finally:
        scope.open = False
        with launching, _registry:
            _open = tuple(other for other in _open if other is not scope)
        _scopes.reset(token)


_STARTED_IN = "_lockstep_scopes"
"""Attribute of a thread: the scopes in which it was started."""


@functools.cache
def _follow_threads() -> None:
    """Make `threading.Thread.start` record the current scopes, since a new thread does not inherit the context."""
    start = threading.Thread.start

    @functools.wraps(start)
    def noted(thread: threading.Thread, *args: Any, **options: Any) -> None:
        scopes = _current()
        if scopes:
            setattr(thread, _STARTED_IN, scopes)
        start(thread, *args, **options)

    threading.Thread.start = noted  # type: ignore[method-assign, assignment]


def _unlock_child() -> None:
    """Replace the locks in a forked process, in which the thread that held them does not exist."""
    global launching, _registry
    launching, _registry = threading.RLock(), threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_unlock_child)
