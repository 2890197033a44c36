"""Workloads of ``paged-numba profile`` and ``sanitize``: an operation, or a function from the user's file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ...cache import PagedKVCache
from ...draw.text import size
from ...errors import InputError
from ...lockstep.observe.observer import unseen
from ...lockstep.profiler.report import Report
from ...ops.attention import ALGORITHMS
from ...ops.copies import copy_blocks
from ...ops.plan import choose
from ...targets import multiprocessors
from ..options import DEFAULT_SHAPE, shape
from .user_function import load_function

MOST_BYTES = 4 * 2**30
"""Largest cache and query that ``--shape`` may ask for. On lockstep, a larger one would take hours."""

OPERATIONS = ("write_kv", "gather_kv", "copy_blocks", "paged_attention")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that choose the workload."""
    sizes = " ".join(f"{name}={size}" for name, size in DEFAULT_SHAPE.items())
    parser.add_argument(
        "what",
        metavar="OPERATION or FILE.py::function",
        help=f"one of {', '.join(OPERATIONS)}, or a function without parameters that launches kernels; "
        "its kernels run on lockstep, which replaces numba.cuda in that file",
    )
    parser.add_argument(
        "--shape",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=SIZE",
        help=f"sizes that the operation runs with, given after the operation (default: {sizes})",
    )
    parser.add_argument(
        "--algorithm", choices=ALGORITHMS, default="auto", help="algorithm of paged_attention"
    )


def prepare(options: argparse.Namespace, *, debug: bool = False) -> Callable[[], Any]:
    """Return a function that runs the chosen workload on inputs made beforehand.

    Parameters
    ----------
    options : argparse.Namespace
        Values of the arguments that `add_arguments` declares.
    debug : bool
        Whether an operation runs on a cache with ``debug=True``.

    Raises
    ------
    InputError
        An operation, size, file or function does not exist, or an option does not apply to it.
    """
    what: str = options.what
    if (place := _place(what)) is not None:
        if options.algorithm != "auto":
            raise InputError(f"--algorithm applies only to paged_attention, got {what}")
        if options.shape:
            raise InputError(f"--shape applies only to operations, got {what}")
        return load_function(*place)
    if options.algorithm != "auto" and what != "paged_attention":
        raise InputError(f"--algorithm applies only to paged_attention, got {what}")
    if what not in OPERATIONS:
        raise InputError(
            f"OPERATION must be one of {', '.join(OPERATIONS)}, or FILE.py::function, got {what!r}"
        )
    call = _operation(what, shape(options.shape), options.algorithm, debug)

    def run() -> Any:
        try:
            return call()
        except ValueError as error:  # of an operation's checks, or a LaunchError
            raise InputError(f"--shape must give sizes that a kernel can take, got: {error}") from None

    return run


def file_of(options: argparse.Namespace) -> str | None:
    """Return the name of the Python file that is read, None if an operation runs."""
    place = _place(options.what)
    return None if place is None else place[0]


def _place(what: str) -> tuple[str, str] | None:
    """Return file and function of ``FILE.py::function``, None if the argument has another form."""
    if "::" not in what:
        return None
    file, _, name = what.rpartition("::")
    if not file or not name:
        raise InputError(f"FILE.py::function must name a file and a function, got {what!r}")
    return file, name


def ending(call: Callable[[], Any]) -> BaseException | None:
    """Call a function and return the exception that ended it, if any, so that the caller can print its report first."""
    try:
        call()
    except BaseException as error:
        return error
    return None


def launches_in(report: Report) -> int:
    """Return the number of launches in a report."""
    return sum(kernel["launches"] for kernel in report.kernels)


def require_launches(
    options: argparse.Namespace, launches: int, num_unseen: int, ending: BaseException | None
) -> None:
    """If nothing was launched, raise `ending`, or an InputError that names the launches that were not seen."""
    if launches:
        return
    if ending is not None:
        raise ending
    others = f"; {unseen(num_unseen, 'seen')}" if num_unseen else ""
    raise InputError(f"{options.what} must launch a kernel, got no launch{others}")


def _operation(name: str, sizes: dict[str, int], algorithm: str, debug: bool) -> Callable[[], Any]:
    """Return a function that runs an operation on a cache with scattered block tables."""
    rng = np.random.default_rng(0)
    num_seqs, seq_len, num_kv_heads, head_dim = (
        sizes[key] for key in ("num_seqs", "seq_len", "num_kv_heads", "head_dim")
    )
    per_seq = -(-(seq_len + 1) // sizes["block_size"])
    slots = (2 * num_seqs * per_seq + 1) * sizes["block_size"]
    needed = 2 * 4 * head_dim * (num_kv_heads * (slots + seq_len) + num_seqs * sizes["num_q_heads"])
    if needed > MOST_BYTES:
        raise InputError(
            f"--shape must give a cache and a query of at most {size(MOST_BYTES)}, got {size(needed)}"
        )
    try:
        cache = PagedKVCache(
            2 * num_seqs * per_seq + 1,
            sizes["block_size"],
            num_kv_heads,
            head_dim,
            target="lockstep",
            debug=debug,
        )
    except ValueError as error:
        raise InputError(str(error)) from None

    def tokens(count: int) -> Any:
        return rng.standard_normal((2, count, num_kv_heads, head_dim), np.float32)

    key, value = tokens(seq_len)
    # Freeing every second sequence scatters the free blocks.
    _add(cache, range(2 * num_seqs), key, value)
    for seq in range(0, 2 * num_seqs, 2):
        cache.free(seq)
    if name == "write_kv":
        return lambda: _add(cache, range(0, 2 * num_seqs, 2), key, value)
    if name == "gather_kv":
        return lambda: [cache.gather(seq) for seq in range(1, 2 * num_seqs, 2)]
    if name == "copy_blocks":
        blocks = cache.block_tables(range(1, 2 * num_seqs, 2)).ravel()
        _add(cache, range(0, 2 * num_seqs, 2), key, value)
        targets = cache.block_tables(range(0, 2 * num_seqs, 2)).ravel()
        pairs = np.stack([blocks, targets], axis=1).astype(np.int64)
        return lambda: copy_blocks(cache.key_cache, cache.value_cache, pairs, target="lockstep")
    if algorithm == "auto":
        # The choice for a GPU; on lockstep, another algorithm may take less time.
        lens, starts = np.full(num_seqs, seq_len), np.arange(num_seqs + 1)
        algorithm = choose(
            lens,
            starts,
            num_q_heads=sizes["num_q_heads"],
            num_kv_heads=num_kv_heads,
            multiprocessors=multiprocessors("lockstep"),
        ).algorithm
    query = 3 * rng.standard_normal((num_seqs, sizes["num_q_heads"], head_dim), np.float32)
    return lambda: cache.attend(range(1, 2 * num_seqs, 2), query, algorithm=algorithm)


def _add(cache: PagedKVCache, seq_ids: Iterable[int], key: Any, value: Any) -> None:
    for seq_id in seq_ids:
        cache.add(seq_id, key, value)
