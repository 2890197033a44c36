"""Exceptions of paged_numba. Each is also a subclass of the builtin exception that fits it.

::

    PagedNumbaError
    +-- OutOfBlocksError (MemoryError)               the pool has fewer free blocks than the call needs
    +-- UnknownSequenceError (LookupError)           no sequence has this id
    +-- SwappedSequenceError (RuntimeError)          the sequence is swapped out: it has no blocks in the pool
    +-- DuplicateSequenceError (ValueError)          a sequence already has this id
    +-- TargetUnavailableError (RuntimeError)        the chosen target cannot run here
    +-- KernelError (RuntimeError)                   a kernel did something invalid on a GPU
        +-- LaunchError (ValueError)                 a grid, thread block or arguments that no GPU accepts
        +-- KernelIndexError (IndexError)            an index outside its array
        +-- SynchronizationError                     a barrier or warp operation that some threads do not reach
        +-- UnsupportedConstructError (NotImplementedError)  Python code that the lockstep machine cannot run
        +-- CompilationError (TypeError)             Numba cannot compile the kernel for arguments of these types
    ValueError
    +-- InputError                                   an invalid file or command-line argument
    +-- TargetNameError                              an unknown target name

Wrong shapes, dtypes and values in the public operations raise plain ``TypeError`` and ``ValueError``.
"""

from __future__ import annotations


class PagedNumbaError(Exception):
    """Base class of the package's exceptions."""


class OutOfBlocksError(PagedNumbaError, MemoryError):
    """The pool has fewer free blocks than the call needs; nothing was changed.

    Attributes
    ----------
    needed, free : int
        Blocks that the call needed, and blocks that were free.

    See Also
    --------
    paged_numba.BlockAllocator.can_allocate : Tells whether a sequence can be added.
    paged_numba.BlockAllocator.preempt, paged_numba.BlockAllocator.swap_out : Make room.

    Examples
    --------
    >>> import paged_numba as pn
    >>> pool = pn.BlockAllocator(num_blocks=2, block_size=16)
    >>> pool.add("a", 33)
    Traceback (most recent call last):
    paged_numba.errors.OutOfBlocksError: add of 33 tokens needs 3 blocks, 2 are free
    """

    def __init__(self, needed: int, free: int, why: str, watermark: int = 0) -> None:
        # All arguments, so that copies and pickles can be made from them.
        super().__init__(needed, free, why, watermark)
        self.needed = needed
        self.free = free

    def __str__(self) -> str:
        _, _, why, watermark = self.args
        above = f" above a watermark of {watermark}" if watermark else ""
        blocks, are = "block" if self.needed == 1 else "blocks", "is" if self.free == 1 else "are"
        return f"{why} needs {self.needed} {blocks}{above}, {self.free} {are} free"


class UnknownSequenceError(PagedNumbaError, LookupError):
    """No sequence has this id; nothing was changed.

    See Also
    --------
    DuplicateSequenceError : A sequence already has the id.

    Examples
    --------
    >>> import paged_numba as pn
    >>> pn.BlockAllocator(num_blocks=2, block_size=16).free("a")
    Traceback (most recent call last):
    paged_numba.errors.UnknownSequenceError: no sequence has the id 'a'
    """


class SwappedSequenceError(PagedNumbaError, RuntimeError):
    """The sequence is swapped out: it has no blocks in the pool; nothing was changed.

    See Also
    --------
    paged_numba.BlockAllocator.swap_in : Gives it blocks again.

    Examples
    --------
    >>> import paged_numba as pn
    >>> pool = pn.BlockAllocator(num_blocks=2, block_size=16)
    >>> _ = pool.add("a", 3)
    >>> pool.swap_out("a")
    >>> pool.append("a")
    Traceback (most recent call last):
    paged_numba.errors.SwappedSequenceError: the sequence 'a' is swapped out
    """


class DuplicateSequenceError(PagedNumbaError, ValueError):
    """A sequence already has this id; nothing was changed.

    See Also
    --------
    UnknownSequenceError : No sequence has the id.

    Examples
    --------
    >>> import paged_numba as pn
    >>> pool = pn.BlockAllocator(num_blocks=2, block_size=16)
    >>> _ = pool.add("a", 3)
    >>> pool.fork("a", "a")
    Traceback (most recent call last):
    paged_numba.errors.DuplicateSequenceError: a sequence already has the id 'a'
    """


class TargetUnavailableError(PagedNumbaError, RuntimeError):
    """The chosen target cannot run on this machine or in this process."""


class KernelError(PagedNumbaError, RuntimeError):
    """A kernel did something invalid on a GPU, whether or not a GPU would report it."""


class LaunchError(KernelError, ValueError):
    """No GPU accepts the grid, the thread block or the arguments."""


class LaunchTypeError(LaunchError, TypeError):
    """A launch has arguments or a configuration of the wrong types or number, for which Numba raises TypeError."""


class KernelIndexError(KernelError, IndexError):
    """An index lies outside its array."""


class SynchronizationError(KernelError):
    """Some threads do not reach a barrier or a warp operation at which other threads wait.

    Parameters
    ----------
    what : str
        Which threads do not reach which barrier or warp operation.
    line : str
        The source line of the barrier or warp operation.
    """

    def __init__(self, what: str, line: str) -> None:
        super().__init__(what, line)
        self.what = what

    def __str__(self) -> str:
        return ", ".join(self.args)


class UnsupportedConstructError(KernelError, NotImplementedError):
    """The kernel or its host code uses something that the lockstep machine cannot run.

    The message names it, says what to do instead and, for a kernel, gives the line.
    """


class CompilationError(KernelError, TypeError):
    """Numba cannot compile the kernel for arguments of these types."""


class InputError(ValueError):
    """A file or a command-line argument is invalid; the message names it and, for a file, the line."""


class TargetNameError(ValueError):
    """No target has this name."""
