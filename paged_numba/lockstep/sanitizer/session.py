"""`sanitize` and `sanitizing`: run launches under the sanitizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..launch import launch
from ..observe.observer import observing
from .findings import Findings
from .sanitizer import Sanitizer


@contextmanager
def sanitizing() -> Iterator[Findings]:
    """Sanitize the lockstep launches in a ``with`` statement, including those of operations such as `write_kv`.

    Launches of threads that are started inside the statement are included, also those of a thread pool. A launch of any
    other thread is counted in ``num_unseen`` of the findings, unless an observer of that thread sees it; a launch of
    another process cannot be seen. Observed launches run one after the other.

    Errors that would otherwise raise (a stray index, a divergent barrier) become findings too, and the launch
    continues: a load out of bounds gives 0, a store out of bounds does nothing.

    Yields
    ------
    Findings
        Grows with each launch.

    See Also
    --------
    sanitize : Sanitizes a single launch, and lists the errors that the sanitizer finds.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def shift(source, out):
    ...     i = cuda.grid(1)
    ...     out[i] = source[i + 1]
    >>> out = np.zeros(32, np.float32)
    >>> with lockstep.sanitizing() as findings:
    ...     lockstep.launch(shift, 1, 32, np.zeros(33, np.float32), out)
    ...     lockstep.launch(shift, 1, 32, np.zeros(32, np.float32), out)
    >>> findings
    Findings(out of bounds: 1)
    >>> [finding.example.what for finding in findings]
    ['source[32] out of bounds for shape (32,), thread 31 of thread block 0']
    """
    sanitizer = Sanitizer()
    with observing(sanitizer):
        yield sanitizer.findings


def sanitize(
    kernel: Any, blocks_per_grid: Any, threads_per_block: Any, *args: Any, shared_bytes: int = 0
) -> Findings:
    """Run a kernel as `launch` does, and report its errors with arrays, indices, threads and source lines.

    The sanitizer finds

    - data races in shared and global memory: two accesses to one element, at least one of them a plain store, by
      threads of one thread block with no barrier between, by lanes of one warp with no ``syncwarp`` between, or by
      different thread blocks. Atomic operations do not race with each other. If all threads write the same value,
      the race is benign. Shuffles, votes and fences do not order memory accesses here, nor do locks and flags that
      a kernel builds from atomics. Only two readers of each element are remembered, so a race with a third may be
      missed;
    - barriers and warp operations that some threads do not reach. If only threads that have exited do not reach a
      barrier, this is noted but is not an error: a GPU waits for them only before compute capability 7.0;
    - reads of a variable that only other threads have assigned, and of the result of a device function that returned
      nothing in the thread;
    - uses of a local array after a later call of the function that returned it has declared its memory again;
    - reads of shared memory, local memory or a fresh ``cuda.device_array`` before anything is written. A copy from
      one global array to another is not a use: the copy counts as unwritten too. Fresh global memory is tracked in
      words of 4 bytes;
    - indices out of bounds, and negative indices, which Numba silently counts from the end, unless they are constants
      such as ``-1``;
    - integers that do not fit their destination: a signed array of 32 bits or less, or a cast such as ``int32(i)``
      whose result flows into an index of the same function. Unsigned types wrap around by definition.

    The sanitizer uses 24 bytes of memory for each element of the arrays that the kernel may store into.

    Parameters
    ----------
    kernel : function
        The kernel, decorated or not.
    blocks_per_grid, threads_per_block : int or tuple of int
        The launch configuration, as in `paged_numba.lockstep.launch`.
    *args : object
        The kernel's arguments.
    shared_bytes : int
        Bytes of dynamic shared memory.

    Returns
    -------
    Findings
        What is wrong with the launch; false if nothing is.

    Raises
    ------
    LaunchError, UnsupportedConstructError
        For the reasons given in `launch`.
    KernelError
        The kernel made an error that is not listed above, such as a failed assertion.

    See Also
    --------
    sanitizing : Sanitizes all launches in a ``with`` statement.
    profile : Counts what a kernel does.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def histogram(values, counts):
    ...     counts[values[cuda.grid(1)]] += 1
    >>> findings = lockstep.sanitize(histogram, 1, 64, np.arange(64) % 4, np.zeros(4, np.int64))
    >>> {finding.kind for finding in findings.errors}
    {'data race'}
    """
    with sanitizing() as findings:
        launch(kernel, blocks_per_grid, threads_per_block, *args, shared_bytes=shared_bytes)
    return findings
