"""Exceptions of paged_numba; each is a subclass of the builtin that it refines.

::

    PagedNumbaError
    +-- OutOfBlocksError (MemoryError)               the pool has fewer free blocks than the call needs
    +-- UnknownSequenceError (LookupError)           no sequence has this id
    +-- SwappedSequenceError (RuntimeError)          the sequence is swapped out: it has no blocks in the pool
    +-- DuplicateSequenceError (ValueError)          a sequence already has this id
    +-- TargetUnavailableError (RuntimeError)        the target that was asked for cannot run here
    +-- KernelError (RuntimeError)                   a kernel did what a GPU would punish
        +-- LaunchError (ValueError)                 grid, thread block or arguments that no GPU accepts
        +-- KernelIndexError (IndexError)            an index outside its array
        +-- SynchronizationError                     a barrier or warp operation that some threads miss
        +-- UnsupportedConstructError (NotImplementedError)  Python that the lockstep machine does not run
    ValueError
    +-- InputError                                   a file or a command-line argument that is not what it must be
    +-- TargetNameError                              a name that is no target's

Wrong shapes, dtypes and values in the public operations raise plain ``TypeError`` and ``ValueError``.
"""

from __future__ import annotations


class PagedNumbaError(Exception):
    """Base of every exception that is this package's own."""


class OutOfBlocksError(PagedNumbaError, MemoryError):
    """The pool has fewer free blocks than the call needs; nothing was changed.

    Attributes
    ----------
    needed, free : int
        Blocks that the call needed, and blocks that were free.
    """

    def __init__(self, needed: int, free: int, why: str) -> None:
        super().__init__(f"{why} needs {needed} blocks, {free} are free")
        self.needed = needed
        self.free = free


class UnknownSequenceError(PagedNumbaError, LookupError):
    """No sequence has this id; nothing was changed."""


class SwappedSequenceError(PagedNumbaError, RuntimeError):
    """The sequence is swapped out: it has no blocks in the pool; nothing was changed."""


class DuplicateSequenceError(PagedNumbaError, ValueError):
    """A sequence already has this id; nothing was changed."""


class TargetUnavailableError(PagedNumbaError, RuntimeError):
    """The target that was asked for cannot run on this machine or in this process."""


class KernelError(PagedNumbaError, RuntimeError):
    """A kernel did what a GPU would punish, with or without telling."""


class LaunchError(KernelError, ValueError):
    """The grid, the thread block or the arguments are ones that no GPU accepts."""


class KernelIndexError(KernelError, IndexError):
    """An index lies outside its array."""


class SynchronizationError(KernelError):
    """A barrier or a warp operation that some of its threads do not reach."""


class UnsupportedConstructError(KernelError, NotImplementedError):
    """The kernel uses Python that the lockstep machine does not run."""


class InputError(ValueError):
    """A file or a command-line argument is not what it must be; the message names it, and the line of a file."""


class TargetNameError(ValueError):
    """A name that is no target's."""
