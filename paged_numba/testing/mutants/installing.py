"""`installed` puts any mutant in place of the real thing, and `caught` runs a test that must fail."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from ...allocator.allocator import BlockAllocator
from ...allocator.block_pool import BlockPool
from ...allocator.prefix_cache import PrefixCache
from ...arguments import shown
from ...cache import PagedKVCache
from ...serving.engine import Engine
from ...serving.scheduler import Scheduler
from ...serving.text import AnswerText
from ...serving.toy.preempting import PreemptingServer
from . import kernel_mutant
from .kernel_mutant import KernelMutant
from .plans import PlanMutant, planned_wrongly

# The modules in which a class is looked up when an object of it is made.
_USERS: dict[type, tuple[str, ...]] = {
    BlockAllocator: ("paged_numba", "paged_numba.cache.kv_cache"),
    PrefixCache: ("paged_numba.allocator.allocator",),
    BlockPool: ("paged_numba.allocator.allocator",),
    PagedKVCache: ("paged_numba",),
    Engine: ("paged_numba.serving", "paged_numba.serving.engine"),
    Scheduler: ("paged_numba.serving.engine",),
    AnswerText: ("paged_numba.serving.engine", "paged_numba.serving.text"),
    PreemptingServer: ("paged_numba.serving.toy.preempting",),
}


@contextmanager
def installed(mutant: KernelMutant | PlanMutant | type) -> Iterator[None]:
    """Use a mutant in place of the real kernel, plan or class within a ``with`` block.

    Parameters
    ----------
    mutant : KernelMutant, PlanMutant or type
        A class is used for the class of the package that it is derived from: ``pn.BlockAllocator(...)`` makes the
        wrong allocator, and so does ``pn.PagedKVCache(...)`` for itself.

    Raises
    ------
    TypeError
        It is none of these, or a class that is not derived from one that has mutants.
    """
    with ExitStack() as stack:
        if isinstance(mutant, KernelMutant):
            stack.enter_context(kernel_mutant.installed(mutant))
        elif isinstance(mutant, PlanMutant):
            stack.enter_context(planned_wrongly(mutant))
        else:
            real = real_class(mutant)
            for name in _USERS[real]:
                stack.enter_context(mock.patch.object(importlib.import_module(name), real.__name__, mutant))
        yield


def real_class(mutant: Any) -> type:
    """Return the class of the package that a mutant is derived from; raise TypeError if it is derived from none."""
    names = ", ".join(base.__name__ for base in _USERS)
    if not isinstance(mutant, type):
        raise TypeError(
            f"mutant must be a KernelMutant, a PlanMutant or a class derived from one of {names}, "
            f"got mutant={shown(mutant)}"
        )
    real = next((base for base in _USERS if issubclass(mutant, base) and mutant is not base), None)
    if real is None:
        raise TypeError(f"mutant must be derived from one of {names}, got mutant={mutant.__name__}")
    return real


def caught(test: Callable[..., object], *arguments: Any) -> str:
    """Run a test that must fail; return its message, with the smallest input if Hypothesis found one.

    Parameters
    ----------
    test : callable
    *arguments : Any
        What it is called with.

    Raises
    ------
    AssertionError
        The test passes.
    TypeError
        `test` cannot be called with the arguments.
    """
    # An error of the call itself says nothing about the wrong code.
    inspect.signature(test).bind(*arguments)
    try:
        test(*arguments)
    except Exception as fault:
        notes = "\n".join(map(str, getattr(fault, "__notes__", ())))
        # Hypothesis may go on to list lines of code, with paths that differ between machines.
        return f"{type(fault).__name__}: {fault}\n{notes.partition('Explanation:')[0]}".rstrip()
    raise AssertionError(f"{getattr(test, '__name__', test)} passes on the wrong code")
