"""Tracer: the accesses of a launch as input for pictures, and recordings of launches to step through."""

from .recording import Recording, record, recording
from .tracer import trace

__all__ = ["Recording", "record", "recording", "trace"]
