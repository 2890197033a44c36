"""Workloads of ``paged-numba profile`` and ``sanitize``: an operation, or a function from the user's file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..cache import PagedKVCache
from ..errors import InputError
from ..lockstep.profiler.report import Report
from ..ops.attention import ALGORITHMS
from ..ops.copies import copy_blocks
from ..ops.plan import choose
from ..targets import multiprocessors
from .options import DEFAULT_SHAPE, shape
from .user_function import load_function

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
    if "::" in what:
        if options.algorithm != "auto":
            raise InputError(f"--algorithm applies only to paged_attention, got {what}")
        if options.shape:
            raise InputError(f"--shape applies only to operations, got {what}")
        return load_function(*what.rsplit("::", 1))
    if options.algorithm != "auto" and what != "paged_attention":
        raise InputError(f"--algorithm applies only to paged_attention, got {what}")
    if what not in OPERATIONS:
        raise InputError(
            f"OPERATION must be one of {', '.join(OPERATIONS)}, or FILE.py::function, got {what!r}"
        )
    return _operation(what, shape(options.shape), options.algorithm, debug)


def require_launches(options: argparse.Namespace, report: Report) -> int:
    """Return the number of launches in a report; raise InputError if there is none."""
    launches = sum(kernel["launches"] for kernel in report.kernels)
    if not launches:
        raise InputError(f"{options.what} must launch a kernel, got no launch")
    return launches


def _operation(name: str, sizes: dict[str, int], algorithm: str, debug: bool) -> Callable[[], Any]:
    """Return a function that runs an operation on a cache with scattered block tables."""
    rng = np.random.default_rng(0)
    num_seqs, seq_len, num_kv_heads, head_dim = (
        sizes[key] for key in ("num_seqs", "seq_len", "num_kv_heads", "head_dim")
    )
    per_seq = -(-(seq_len + 1) // sizes["block_size"])
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
