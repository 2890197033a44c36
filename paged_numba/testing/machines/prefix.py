"""State machine: the allocator with its prefix cache, compared with a memory that records the prefix in each slot."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ...allocator.allocation import Allocation
from ...allocator.allocator import BlockAllocator
from ...errors import OutOfBlocksError
from .pick import needs_a_sequence, needs_a_swapped_sequence, pick

NUM_BLOCKS, BLOCK_SIZE = 7, 2
salts = st.sampled_from((None, "x"))
# Few different tokens, so that sequences share prefixes.
texts = st.lists(st.integers(0, 1), max_size=4 * BLOCK_SIZE)
limits = st.one_of(st.none(), st.integers(1, BLOCK_SIZE + 1))


def prefix_machine(allocator: Callable[..., BlockAllocator] = BlockAllocator) -> type[RuleBasedStateMachine]:
    """Return a machine that applies each change to an allocator with a prefix cache and to a memory.

    A slot of the memory holds the salt and all tokens up to its own, on which keys and values depend. The machine
    fails if the prefix cache serves a block that holds anything else, or that was not written yet.
    """

    class PrefixMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.pool = allocator(NUM_BLOCKS, BLOCK_SIZE, prefix_caching=True)
            self.model: dict[int, tuple[Any, list[int]]] = {}
            self.swapped: dict[int, tuple[Any, list[int]]] = {}
            # By sequence, the first position that is not written yet.
            self.unwritten: dict[int, int] = {}
            # Sequences that were added before the last reset of the prefix cache.
            self.hidden: set[int] = set()
            self.memory: dict[int, Any] = {}
            self.names = itertools.count()
            self.queried = self.hit = 0

        def expected(self, name: int, position: int) -> Any:
            salt, tokens = self.model[name]
            return salt, tuple(tokens[: position + 1])

        def must_write(self, name: int, slots: list[int], first: int) -> None:
            """Record that the slots of the tokens from position `first` on are not written yet."""
            for slot in slots:
                self.memory.pop(slot, None)
            self.unwritten[name] = min(first, self.unwritten.get(name, first))

        def require_held(self, name: int, stop: int) -> None:
            """Require that memory holds the first tokens, except the released ones."""
            start = self.pool.num_released_tokens(name)
            stop = max(start, stop)
            slots = self.pool.slots(name, start, stop).tolist()
            assert [self.memory.get(slot) for slot in slots] == [
                self.expected(name, position) for position in range(start, stop)
            ], "a block was served that does not hold the prefix"

        def findable(self, name: int, count: int) -> int:
            """Return how many of a sequence's first `count` blocks the prefix cache can find in a row."""
            table = self.pool.block_table(name).tolist()[:count]
            return next(
                (i for i, block in enumerate(table) if block < 0 or not self.pool.is_cached(block)),
                len(table),
            )

        @rule(tokens=texts, salt=salts, written=st.booleans(), limit=limits)
        def add(self, tokens: list[int], salt: Any, written: bool, limit: int | None) -> None:
            self.start(next(self.names), tokens, salt, written, limit)

        @precondition(lambda self: self.model or self.swapped)
        @rule(data=st.data(), place=st.integers(0, 2), salt=salts, written=st.booleans(), limit=limits)
        def add_a_part_of_another(
            self, data: Any, place: int, salt: Any, written: bool, limit: int | None
        ) -> None:
            known = self.model | self.swapped
            _, tokens = known[pick(data, known)]
            self.start(next(self.names), [*tokens[place * BLOCK_SIZE :], 1], salt, written, limit)

        @rule()
        def crowd_out(self) -> None:
            """Evict every idle block."""
            name = next(self.names)
            self.start(name, [2] * self.pool.num_free_blocks * BLOCK_SIZE, None, False)
            self.end(name)
            assert self.pool.stats().num_cached_blocks == 0

        def least_found(self, tokens: list[int], salt: Any) -> int:
            """Return how many of the first blocks must be found, since a sequence in the pool holds them."""
            return max(
                (
                    self.findable(seq, _common_blocks(tokens, other))
                    for seq, (other_salt, other) in self.model.items()
                    if other_salt == salt
                ),
                default=0,
            )

        def start(
            self, name: int, tokens: list[int], salt: Any, written: bool, limit: int | None = None
        ) -> None:
            least = self.least_found(tokens, salt)
            could = self.pool.can_allocate(tokens, salt=salt, limit=limit)
            free = self.pool.num_free_blocks
            try:
                allocation = self.pool.add(name, tokens, salt=salt, limit=limit)
            except OutOfBlocksError:
                assert not could
                assert self.pool.num_free_blocks == free
                assert name not in self.pool
                return
            assert could
            cached = allocation.num_cached_tokens
            assert cached % BLOCK_SIZE == 0
            assert cached < max(1, len(tokens))
            assert cached >= BLOCK_SIZE * least
            self.queried, self.hit = self.queried + len(tokens), self.hit + cached
            if limit is not None:
                tokens = tokens[: cached + limit]
            self.model[name] = salt, list(tokens)
            self.require_held(name, cached)
            slots = self.pool.slots(name, cached, len(tokens)).tolist()
            assert allocation.slots.tolist() == slots
            self.must_write(name, slots, cached)
            if written:
                self.finish_writing(name)

        @precondition(lambda self: self.unwritten)
        @rule(data=st.data())
        def finish(self, data: Any) -> None:
            self.finish_writing(pick(data, self.unwritten))

        def finish_writing(self, name: int) -> None:
            length = len(self.model[name][1])
            first = max(self.unwritten.pop(name, length), self.pool.num_released_tokens(name))
            if first < length:
                for position, slot in enumerate(self.pool.slots(name, first, length).tolist(), first):
                    self.memory[slot] = self.expected(name, position)
            self.pool.commit(name)

        @needs_a_sequence
        @rule(data=st.data(), tokens=texts.filter(bool), written=st.booleans())
        def append(self, data: Any, tokens: list[int], written: bool) -> None:
            name = pick(data, self.model)
            could = self.pool.can_append(name, tokens)
            try:
                allocation = self.pool.append(name, tokens)
            except OutOfBlocksError:
                assert not could
                return
            assert could
            self.carry_out(name, allocation, tokens)
            if written:
                self.finish_writing(name)

        def carry_out(self, name: int, allocation: Allocation, tokens: list[int]) -> None:
            start = len(self.model[name][1])
            for src, dst in allocation.copies.tolist():
                for offset in range(BLOCK_SIZE):
                    self.memory[dst * BLOCK_SIZE + offset] = self.memory.get(src * BLOCK_SIZE + offset)
            self.model[name][1].extend(tokens)
            self.must_write(name, allocation.slots.tolist(), start)

        @needs_a_sequence
        @rule(data=st.data())
        def truncate(self, data: Any) -> None:
            name = pick(data, self.model)
            salt, tokens = self.model[name]
            length = data.draw(st.integers(self.pool.num_released_tokens(name), len(tokens)))
            self.pool.truncate(name, length)
            self.model[name] = salt, tokens[:length]
            if self.unwritten.get(name, length) >= length:
                self.unwritten.pop(name, None)

        @needs_a_sequence
        @rule(data=st.data())
        def append_truncate_and_append_again(self, data: Any) -> None:
            """A step that failed can be tried again, even if its tokens were committed: it finds as many blocks."""
            name = pick(data, self.model)
            length = len(self.model[name][1])
            if name in self.unwritten or not self.pool.can_append(name, BLOCK_SIZE):
                return
            for token in (3, 4):
                self.pool.truncate(name, length)
                salt, tokens = self.model[name]
                self.model[name] = salt, tokens[:length]
                assert self.pool.can_append(name, BLOCK_SIZE)
                tokens = [token] * BLOCK_SIZE
                self.carry_out(name, self.pool.append(name, tokens), tokens)
                self.finish_writing(name)

        @needs_a_sequence
        @rule(data=st.data())
        def fork(self, data: Any) -> None:
            parent, child = pick(data, self.model), next(self.names)
            self.pool.fork(parent, child)
            salt, tokens = self.model[parent]
            self.model[child] = salt, list(tokens)
            if parent in self.unwritten:
                self.unwritten[child] = self.unwritten[parent]
            if parent in self.hidden:
                self.hidden.add(child)

        @precondition(lambda self: self.model or self.swapped)
        @rule(data=st.data())
        def free(self, data: Any) -> None:
            self.end(pick(data, self.model | self.swapped))

        def end(self, name: int) -> None:
            self.pool.free(name)
            for known in (self.model, self.swapped, self.unwritten):
                known.pop(name, None)
            self.hidden.discard(name)

        @needs_a_sequence
        @rule(data=st.data())
        def preempt_and_add_again(self, data: Any) -> None:
            name = pick(data, self.model)
            self.pool.preempt(name)
            self.unwritten.pop(name, None)
            self.hidden.discard(name)
            salt, tokens = self.model.pop(name)
            self.start(name, tokens, salt, False)

        @needs_a_sequence
        @rule(data=st.data())
        def swap_out(self, data: Any) -> None:
            self.leave(pick(data, self.model))

        @needs_a_swapped_sequence
        @rule(data=st.data())
        def swap_in(self, data: Any) -> None:
            name = pick(data, self.swapped)
            salt, tokens = self.swapped[name]
            self.come_back(name, 0 if name in self.hidden else self.least_found(tokens, salt))

        @needs_a_sequence
        @rule(data=st.data())
        def swap_out_and_in(self, data: Any) -> None:
            name = pick(data, self.model)
            least = self.findable(name, len(self.model[name][1]) // BLOCK_SIZE)
            self.leave(name)
            self.come_back(name, least)

        def leave(self, name: int) -> None:
            self.pool.swap_out(name)
            self.swapped[name] = self.model.pop(name)
            self.unwritten.pop(name, None)

        def come_back(self, name: int, least: int) -> None:
            free = self.pool.num_free_blocks
            could = self.pool.can_swap_in(name)
            try:
                allocation = self.pool.swap_in(name)
            except OutOfBlocksError:
                assert not could
                assert self.pool.num_free_blocks == free
                return
            assert could
            self.model[name] = self.swapped.pop(name)
            length, cached = len(self.model[name][1]), allocation.num_cached_tokens
            assert cached >= BLOCK_SIZE * least
            self.require_held(name, cached)
            assert allocation.slots.tolist() == self.pool.slots(name, cached, length).tolist()
            self.must_write(name, allocation.slots.tolist(), cached)

        @needs_a_sequence
        @rule(data=st.data(), window=st.integers(1, 2 * BLOCK_SIZE))
        def release(self, data: Any, window: int) -> None:
            self.pool.release(pick(data, self.model), window)

        @rule()
        def reset(self) -> None:
            self.pool.reset_prefix_cache()
            self.hidden |= self.model.keys() | self.swapped.keys()
            assert not any(map(self.pool.is_cached, range(NUM_BLOCKS)))

        @invariant()
        def what_is_written_stays(self) -> None:
            self.pool.check()
            for name, (_, tokens) in self.model.items():
                if name not in self.unwritten:
                    self.require_held(name, len(tokens))

        @invariant()
        def what_is_written_is_findable(self) -> None:
            for name, (_, tokens) in self.model.items():
                if name not in self.unwritten and name not in self.hidden:
                    full = self.pool.block_table(name).tolist()[: len(tokens) // BLOCK_SIZE]
                    assert all(block < 0 or self.pool.is_cached(block) for block in full)

        @invariant()
        def what_was_there_at_a_reset_is_not_findable(self) -> None:
            for name in self.hidden & self.model.keys():
                assert not any(map(self.pool.is_cached, self.pool.held_blocks(name).tolist()))

        @invariant()
        def the_counts_agree(self) -> None:
            stats = self.pool.stats()
            assert (stats.num_queried_tokens, stats.num_hit_tokens) == (self.queried, self.hit)
            assert stats.num_free_blocks + stats.num_used_blocks == NUM_BLOCKS
            idle = [b for b in range(NUM_BLOCKS) if self.pool.is_cached(b) and not self.pool.ref_count(b)]
            assert stats.num_cached_blocks == len(idle)

    return PrefixMachine


def _common_blocks(tokens: list[int], other: list[int]) -> int:
    """Return how many full blocks two token lists share at the beginning; the last token of `tokens` does not count."""
    most = min(len(tokens) - 1, len(other)) // BLOCK_SIZE
    same = (tokens[: BLOCK_SIZE * (place + 1)] == other[: BLOCK_SIZE * (place + 1)] for place in range(most))
    return sum(same)
