"""Deliberately wrong kernels, plans, allocators and caches: the properties must find the mistake in each.

The exhibits of the bug museum, ``tutorials/museum/``, show them with the names below.
"""

from .difference import Difference
from .installing import caught, installed
from .kernels import kernel

__all__ = ["Difference", "caught", "installed", "kernel"]
