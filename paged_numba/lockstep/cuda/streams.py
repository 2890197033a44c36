"""Streams and events, which never wait: a launch has finished when its call returns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...arguments import shown


class Stream:
    """A stream, whose work is done when the call that adds it returns."""

    def synchronize(self) -> None:
        """Return at once."""

    @contextmanager
    def auto_synchronize(self) -> Iterator[Stream]:
        """Yield the stream."""
        yield self


class Event:
    """A point in time."""

    def __init__(self, timing: bool = True) -> None:
        self.seconds = 0.0

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
        return (_event("end", end).seconds - self.seconds) * 1e3


def stream() -> Stream:
    """Return a stream."""
    return Stream()


default_stream = legacy_default_stream = per_thread_default_stream = stream


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
