"""Memory pools for a replay: blocks from `BlockAllocator`, or one contiguous reservation for each request.

The three reservation policies are those of Kwon et al., SOSP 2023: the maximum length ("Orca (Max)"), the prompt
plus the next power of two of the output length ("Orca (Pow2)"), and the exact length, known to an oracle ("Orca
(Oracle)"). Reservations are placed by first fit here, which wastes less than that paper's buddy allocator.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..allocator.allocator import BlockAllocator
from ..traces import Trace


class Pool(Protocol):
    """The memory of a replay. Methods take a request by its number, and lengths in tokens."""

    num_slots: int

    def ever_fits(self, request: int) -> bool:
        """Tell whether a request fits into the empty pool."""

    def admit(self, request: int, length: int) -> int:
        """Allocate memory for `length` tokens; return the request's capacity in tokens, 0 if they do not fit."""

    def commit(self, request: int, length: int) -> None:
        """Record that the first `length` tokens are written; the capacity suffices for them."""

    def grow(self, request: int) -> int:
        """Allocate memory for one more token; return the new capacity in tokens, 0 if no memory is free."""

    def release(self, request: int) -> None:
        """Free the memory of a request that ended."""

    def preempt(self, request: int) -> None:
        """Free the memory of a request that will be admitted again."""

    @property
    def num_held_slots(self) -> int:
        """Number of allocated slots."""

    def num_stranded_slots(self, request: int) -> int:
        """Return the free slots if a request would fit into them in one piece, else 0: external fragmentation."""


class PagedPool:
    """Blocks of a `BlockAllocator`; with `share_prefixes`, its prefix cache lets prompts share blocks.

    Attributes
    ----------
    num_prompt_tokens, num_found_tokens : int
        Prompt tokens, and the prompt tokens that the prefix cache found. Each request counts when it is first admitted:
        a preempted request that finds its own blocks again does not count twice.
    """

    def __init__(
        self, trace: Trace, num_slots: int, block_size: int, *, share_prefixes: bool = False
    ) -> None:
        num_blocks = num_slots // block_size
        self.allocator = BlockAllocator(num_blocks, block_size, prefix_caching=share_prefixes)
        self.block_size = block_size
        self.num_slots = num_blocks * block_size
        self._trace = trace
        self._share = share_prefixes
        self._final_lens = trace.final_lens.tolist()
        self.num_prompt_tokens = self.num_found_tokens = 0
        self._admitted: set[int] = set()

    def ever_fits(self, request: int) -> bool:
        return self._final_lens[request] <= self.num_slots

    def admit(self, request: int, length: int) -> int:
        tokens = self._tokens(request, 0, length)
        if not self.allocator.can_allocate(tokens):
            return 0
        allocation = self.allocator.add(request, tokens)
        if request not in self._admitted:
            self._admitted.add(request)
            self.num_prompt_tokens += length
            self.num_found_tokens += allocation.num_cached_tokens
        return -(-length // self.block_size) * self.block_size

    def commit(self, request: int, length: int) -> None:
        # Tokens that fit into the last block are appended here all at once, which takes no block.
        stored = self.allocator.seq_len(request)
        if length > stored:
            self.allocator.append(request, self._tokens(request, stored, length))
        self.allocator.commit(request)

    def grow(self, request: int) -> int:
        if not self.allocator.num_free_blocks:
            return 0
        length = self.allocator.seq_len(request)
        self.allocator.append(request, self._tokens(request, length, length + 1))
        return length + self.block_size

    def release(self, request: int) -> None:
        self.allocator.free(request)

    def preempt(self, request: int) -> None:
        self.allocator.preempt(request)

    @property
    def num_held_slots(self) -> int:
        return (self.allocator.num_blocks - self.allocator.num_free_blocks) * self.block_size

    def num_stranded_slots(self, request: int) -> int:
        return 0

    def _tokens(self, request: int, start: int, stop: int) -> Any:
        return self._trace.token_ids(request, start, stop) if self._share else stop - start


class ContiguousPool:
    """One reservation for each request, made when it is admitted and freed when it ends."""

    def __init__(self, num_slots: int, reservations: Any) -> None:
        self.num_slots = num_slots
        self.num_held_slots = 0
        self._needs: list[int] = np.asarray(reservations).tolist()
        self._starts: dict[int, int] = {}
        self._holes = [(0, num_slots)]  # (start, stop), sorted; no hole is empty, and no two holes touch

    def ever_fits(self, request: int) -> bool:
        return self._needs[request] <= self.num_slots

    def admit(self, request: int, length: int) -> int:
        need = self._needs[request]
        for place, (start, stop) in enumerate(self._holes):
            if stop - start >= need:
                self._holes[place : place + 1] = [(start + need, stop)] if start + need < stop else []
                self._starts[request] = start
                self.num_held_slots += need
                return need
        return 0

    def commit(self, request: int, length: int) -> None:
        pass

    def grow(self, request: int) -> int:
        raise AssertionError(f"request {request} outgrew its reservation of {self._needs[request]} slots")

    def release(self, request: int) -> None:
        start = self._starts.pop(request)
        stop = start + self._needs[request]
        self.num_held_slots -= stop - start
        holes: list[tuple[int, int]] = []
        for hole in sorted([*self._holes, (start, stop)]):
            if holes and holes[-1][1] == hole[0]:
                holes[-1] = (holes[-1][0], hole[1])
            else:
                holes.append(hole)
        self._holes = holes

    def preempt(self, request: int) -> None:
        raise AssertionError(f"request {request} was preempted, but its reservation never grows")

    def num_stranded_slots(self, request: int) -> int:
        free = self.num_slots - self.num_held_slots
        return free if free >= self._needs[request] else 0


def maximum_length(trace: Trace) -> Any:
    """Return reservations of the length of the longest request, int64[num_requests]."""
    return np.full(len(trace), trace.final_lens.max())


def next_power_of_two(trace: Trace) -> Any:
    """Return reservations of prompt plus next power of two of the output, at most the maximum, int64[num_requests]."""
    outputs = np.array([1 << (count - 1).bit_length() for count in trace.output_lens.tolist()], np.int64)
    return np.minimum(trace.prompt_lens + outputs, maximum_length(trace))


def exact(trace: Trace) -> Any:
    """Return reservations of the final length, which only an oracle knows, int64[num_requests]."""
    return trace.final_lens


RESERVATIONS = {
    "maximum length": maximum_length,
    "next power of two": next_power_of_two,
    "exact (oracle)": exact,
}
"""Reservation policies by name."""
