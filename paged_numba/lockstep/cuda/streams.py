"""Streams and events, which never wait: a launch has finished when its call returns."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ...arguments import integer, shown

__all__ = [
    "Event",
    "Stream",
    "default_stream",
    "event",
    "event_elapsed_time",
    "external_stream",
    "legacy_default_stream",
    "per_thread_default_stream",
    "stream",
]

_numbers = itertools.count(0x1000)


class Stream:
    """A stream, whose work is done when the call that adds it returns.

    Parameters
    ----------
    handle : int, optional
        The number of the stream; 0 is the default stream.

    Attributes
    ----------
    handle : int
        The number of the stream.
    external : bool
        Whether another library made the stream.
    """

    def __init__(self, handle: int | None = None, external: bool = False) -> None:
        self.handle = next(_numbers) if handle is None else handle
        self.external = external

    def __int__(self) -> int:
        return self.handle

    def __cuda_stream__(self) -> tuple[int, int]:
        """Return the version of the protocol, and the number of the stream."""
        return 0, self.handle

    def synchronize(self) -> None:
        """Return at once."""

    @contextmanager
    def auto_synchronize(self) -> Iterator[Stream]:
        """Yield the stream."""
        yield self
        self.synchronize()

    def add_callback(self, callback: Callable[[Stream, int, Any], Any], arg: Any = None) -> None:
        """Call ``callback(stream, 0, arg)``: the work before it is done."""
        if not callable(callback):
            raise TypeError(f"callback must be a function, got callback={shown(callback)}")
        callback(self, 0, arg)

    def async_done(self) -> asyncio.Future[Stream]:
        """Return a future of the running event loop that is done: so is the work before it."""
        future: asyncio.Future[Stream] = asyncio.get_running_loop().create_future()
        future.set_result(self)
        return future

    def __repr__(self) -> str:
        kind = {0: "default stream", 1: "legacy default stream", 2: "per-thread default stream"}.get(
            self.handle
        )
        return f"<{kind or ('external stream' if self.external else 'stream')} {self.handle} on lockstep>"


class Event:
    """A point in time.

    Parameters
    ----------
    timing : bool
        Whether the event measures time.
    """

    def __init__(self, timing: bool = True) -> None:
        self.timing = timing
        self.seconds: float | None = None

    def record(self, stream: Any = 0) -> None:
        """Record the time."""
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        """Return at once."""

    def wait(self, stream: Any = 0) -> None:
        """Return at once."""

    def query(self) -> bool:
        """Return True: the work before the event is done."""
        return True

    def elapsed_time(self, end: Event) -> float:
        """Return the milliseconds from this event to `end`."""
        end = _event("end", end)
        if self.seconds is None or end.seconds is None:
            raise RuntimeError("both events must have been recorded before the time between them is known")
        return (end.seconds - self.seconds) * 1e3

    async def async_done(self) -> None:
        """Return at once."""


def stream() -> Stream:
    """Return a stream."""
    return Stream()


def default_stream() -> Stream:
    """Return the default stream."""
    return Stream(0)


def legacy_default_stream() -> Stream:
    """Return the legacy default stream."""
    return Stream(1)


def per_thread_default_stream() -> Stream:
    """Return the default stream of the thread."""
    return Stream(2)


def external_stream(ptr: int) -> Stream:
    """Return a stream for that of another library.

    Raises
    ------
    TypeError
        `ptr` is not an integer.
    """
    return Stream(integer("ptr", ptr), external=True)


def event(timing: bool = True) -> Event:
    """Return an event."""
    return Event(timing)


def event_elapsed_time(start: Event, end: Event) -> float:
    """Return the milliseconds between two events."""
    return _event("start", start).elapsed_time(end)


def _event(name: str, value: Any) -> Event:
    if not isinstance(value, Event):
        raise TypeError(f"{name} must be an event, got {name}={shown(value)}")
    return value
