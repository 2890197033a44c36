"""What ``paged-numba profile`` and ``paged-numba sanitize`` run: an operation, or a function of a Python file."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from .cache import PagedKVCache
from .errors import KernelError
from .lockstep.profiler.report import Report
from .ops import ALGORITHMS, copy_blocks
from .target import ENVIRONMENT
from .workload import InputError

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
        return _function(*subject.rsplit("::", 1))
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
    query = 3 * rng.standard_normal((num_seqs, sizes["num_q_heads"], head_dim), np.float32)
    return lambda: cache.attend(range(1, 2 * num_seqs, 2), query, algorithm=algorithm)


def _add(cache: PagedKVCache, seq_ids: Iterable[int], key: Any, value: Any) -> None:
    for seq_id in seq_ids:
        cache.add(seq_id, key, value)


def _function(file: str, name: str) -> Callable[[], Any]:
    """Return a function of a Python file."""
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{file} is a directory" if path.is_dir() else f"no file {file}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    with _lockstep_as_numba_cuda(module, path), _failures_of(file):
        # Here, so that what the file launches by itself is not counted.
        spec.loader.exec_module(module)
    function = getattr(module, name, None)
    if not inspect.isfunction(function):
        found = [n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == path.stem]
        kernel = ": it is a kernel" if hasattr(function, "py_func") else ""
        raise InputError(
            f"{name} must be a host function of {file} that launches kernels{kernel}; "
            f"functions there: {', '.join(found) or 'none'}"
        )
    if inspect.signature(function).parameters:
        raise InputError(f"{name} must take no arguments, it has {inspect.signature(function)}")

    def run() -> Any:
        with _lockstep_as_numba_cuda(module, path), _failures_of(f"{file}::{name}"):
            return function()

    return run


@contextmanager
def _failures_of(what: str) -> Iterator[None]:
    """Have an exception of the caller's code, but no kernel's, be bad input, with its traceback."""
    try:
        yield
    except KernelError:
        raise
    except Exception as error:
        traceback.print_exc()
        raise InputError(f"{what} failed: {type(error).__name__}: {error}") from error


@contextmanager
def _lockstep_as_numba_cuda(module: Any, path: Path) -> Iterator[None]:
    """Have ``from numba import cuda`` mean the lockstep facade, and operations run on lockstep, for a module."""
    from .lockstep import facade

    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, {ENVIRONMENT: "lockstep"}))
        stack.enter_context(mock.patch.dict(sys.modules))
        if importlib.util.find_spec("numba") is not None:
            numba = importlib.import_module("numba")
            stack.enter_context(mock.patch.object(numba, "cuda", facade, create=True))
            sys.modules["numba.cuda"] = facade
        sys.modules[path.stem] = module
        stack.enter_context(mock.patch.object(sys, "path", [str(path.parent), *sys.path]))
        yield
