"""Watch launches: what an observer may hear of, and which observers listen.

A launch that nobody observes runs as if this module were not there: the observed machine and program are
built only where an `Observer` listens.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from ..machine.masks import Mask
from .memory import root_of


class Observer:
    """Hears what happens in launches; the defaults ignore it.

    `mask` holds the lanes that take part, ``machine.line`` the line that runs, and `position` the elements
    of ``array.buffer``, by lane or one for all. Stores are heard of before they happen.
    """

    collects_errors = False
    """Whether `wrong` is told of errors in place of an exception, and the launch goes on."""

    def begin_launch(self, machine: Any, function: Any, arguments: tuple[Any, ...]) -> None:
        """Hear of a launch, before its first thread block runs."""

    def end_launch(self, machine: Any) -> None:
        """Hear that a launch has ended, by an exception perhaps."""

    def begin_batch(self, machine: Any) -> None:
        """Hear that other thread blocks run from here on, with fresh shared and local memory."""

    def statement(self, machine: Any, mask: Mask) -> None:
        """Hear of a statement, of one iteration of a loop, or of the test of a ``while``."""

    def load(self, machine: Any, array: Any, mask: Mask, position: Any) -> None:
        """Hear of a load."""

    def store(self, machine: Any, array: Any, mask: Mask, position: Any, value: Any) -> None:
        """Hear of a store."""

    def atomic(self, machine: Any, array: Any, mask: Mask, position: Any, exchanges: bool) -> None:
        """Hear of an atomic operation; one that `exchanges` stores whatever was there."""

    def declare(self, machine: Any, array: Any, mask: Mask) -> None:
        """Hear that the declaration of a shared or local array runs."""

    def cooperate(self, machine: Any, mask: Mask, kind: str, members: Any) -> None:
        """Hear of a barrier (``block``, ``grid``), ``syncwarp``, ``shuffle`` or ``vote``, with its member mask."""

    def compute(self, machine: Any, mask: Mask, dtype: Any, operations: int, special: int) -> None:
        """Hear of floating-point arithmetic: additions and multiplications, and divisions and functions."""

    def narrowed(self, machine: Any, mask: Mask, value: Any, dtype: Any) -> None:
        """Hear of integers that are converted to a narrower signed type on their way to an index."""

    def wrong(self, machine: Any, lane: int, kind: str, what: str, name: str | None) -> None:
        """Hear of an error that the kernel made in a lane, with an array's name; only if `collects_errors`."""


_observers: ContextVar[tuple[Observer, ...]] = ContextVar("lockstep_observers", default=())

_watched: weakref.WeakKeyDictionary[Observer, list[weakref.ref[Any]]] = weakref.WeakKeyDictionary()
"""By observer that lives, the allocations that it watches."""


def observers(arguments: tuple[Any, ...]) -> tuple[Observer, ...]:
    """Return who listens to a launch with these arguments, outermost first."""
    found = _observers.get()
    if not _watched:
        return found
    roots = {id(root_of(array)) for array in map(_host_array, arguments) if isinstance(array, np.ndarray)}
    watching = (
        observer
        for observer, watched in list(_watched.items())
        if any(id(root()) in roots for root in watched if root() is not None)
    )
    return (*found, *(observer for observer in watching if observer not in found))


def _host_array(argument: Any) -> Any:
    return getattr(argument, "__lockstep_array__", argument)


def watch(root: Any, observer: Observer) -> None:
    """Have `observer` listen, as long as it lives, to every launch that is given an allocation or a view of it."""
    _watched.setdefault(observer, []).append(weakref.ref(root))


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Have `observer` listen to the launches in a ``with`` block."""
    token = _observers.set((*_observers.get(), observer))
    try:
        yield
    finally:
        _observers.reset(token)
