"""What ``paged-numba profile`` and ``paged-numba sanitize`` run: an operation, or a function of the user's file."""

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
from .user_function import load_function

OPERATIONS = ("write_kv", "gather_kv", "copy_blocks", "paged_attention")

SHAPE = {
    "num_seqs": 2,
    "seq_len": 100,
    "num_q_heads": 4,
    "num_kv_heads": 2,
    "head_dim": 64,
    "block_size": 16,
}
"""The sizes that an operation runs with where ``--shape`` says nothing else."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what to run."""
    sizes = " ".join(f"{name}={size}" for name, size in SHAPE.items())
    parser.add_argument(
        "subject",
        metavar="OPERATION or FILE.py::function",
        help=f"one of {', '.join(OPERATIONS)}, or a function without parameters that launches kernels; "
        "what its file imports as numba.cuda is the lockstep machine",
    )
    parser.add_argument(
        "--shape",
        nargs="+",
        default=[],
        metavar="NAME=SIZE",
        help=f"sizes of an operation; {sizes} by default",
    )
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="auto", help="kernel of paged_attention")


def prepare(options: argparse.Namespace, *, debug: bool = False) -> Callable[[], Any]:
    """Return what to run, with its inputs made.

    Parameters
    ----------
    options : argparse.Namespace
        Of the arguments that `add_arguments` declares.
    debug : bool
        Whether an operation runs on a cache that watches its slots.

    Raises
    ------
    InputError
        No such operation, size, file or function.
    """
    subject: str = options.subject
    if "::" in subject:
        if options.algorithm != "auto":
            raise InputError(
                "--algorithm is for paged_attention, a function of a file has kernels of its own"
            )
        if options.shape:
            raise InputError("--shape is for operations, a function of a file has its own sizes")
        return load_function(*subject.rsplit("::", 1))
    if options.algorithm != "auto" and subject != "paged_attention":
        raise InputError(f"--algorithm is for paged_attention, got it for {subject}")
    if subject not in OPERATIONS:
        raise InputError(f"expected one of {', '.join(OPERATIONS)} or FILE.py::function, got {subject!r}")
    return _operation(subject, _sizes(options.shape), options.algorithm, debug)


def require_launches(options: argparse.Namespace, report: Report) -> int:
    """Return how many launches a report counted; raise InputError for none."""
    launches = sum(kernel["launches"] for kernel in report.kernels)
    if not launches:
        raise InputError(f"{options.subject} must launch a kernel, it launched none")
    return launches


def _sizes(words: list[str]) -> dict[str, int]:
    sizes = dict(SHAPE)
    for word in words:
        name, _, text = word.partition("=")
        if name not in sizes:
            raise InputError(f"--shape takes {', '.join(SHAPE)}, got {word!r}")
        if not text.isdecimal() or int(text) < 1:
            raise InputError(f"--shape {name} must be a positive integer, got {word!r}")
        sizes[name] = int(text)
    if sizes["num_q_heads"] % sizes["num_kv_heads"]:
        raise InputError(
            f"--shape num_q_heads must be a multiple of num_kv_heads={sizes['num_kv_heads']}, "
            f"got {sizes['num_q_heads']}"
        )
    return sizes


def _operation(name: str, sizes: dict[str, int], algorithm: str, debug: bool) -> Callable[[], Any]:
    """Return a call of an operation on a cache whose blocks lie scattered."""
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
    # Every second sequence is freed again, the last ones first: the blocks that come back lie scattered.
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
        # What a GPU would run: without one, another algorithm may take less time.
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
