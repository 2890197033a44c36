"""Hypothesis state machines: the allocator, and the whole cache, in step with plain models.

The models keep what each sequence should hold, token by token, and know nothing of blocks. Both classes are
made for an allocator class, so that deliberately wrong ones can be put in the place of the real one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from .. import reference
from ..allocation import Allocation
from ..allocator import BlockAllocator
from ..cache import PagedKVCache
from ..errors import DuplicateSequenceError, OutOfBlocksError, UnknownSequenceError
from .tolerances import attention_tolerance

NUM_BLOCKS, BLOCK_SIZE, PREFIX_BLOCK = 7, 4, 2
counts = st.one_of(
    st.sampled_from((0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1)),
    st.integers(0, NUM_BLOCKS * BLOCK_SIZE + 1),
)


def allocator_machine(allocator: type[BlockAllocator] = BlockAllocator) -> type[RuleBasedStateMachine]:
    """Return a machine that drives an allocator and a dictionary of token lists in step.

    Memory is a dictionary from slots to tokens. Only what an `Allocation` says is copied and written, so a
    wrong slot or a copy forgotten shows as a token that is not the sequence's own.
    """

    class AllocatorMachine(RuleBasedStateMachine):
        sequences = Bundle("sequences")

        def __init__(self) -> None:
            super().__init__()
            self.pool = allocator(NUM_BLOCKS, BLOCK_SIZE)
            self.model: dict[int, list[int]] = {}
            self.memory: dict[int, int] = {}
            self.names = itertools.count()
            self.tokens = itertools.count()

        def snapshot(self) -> Any:
            tables = {name: self.pool.block_table(name).tolist() for name in self.pool}
            return tables, {name: self.pool.seq_len(name) for name in self.pool}, self.pool.num_free_blocks

        def carry_out(self, allocation: Allocation, name: int, count: int) -> None:
            for src, dst in allocation.copies.tolist():
                for offset in range(BLOCK_SIZE):
                    if src * BLOCK_SIZE + offset in self.memory:
                        self.memory[dst * BLOCK_SIZE + offset] = self.memory[src * BLOCK_SIZE + offset]
            assert allocation.slots.shape == (count,)
            for slot in allocation.slots.tolist():
                token = next(self.tokens)
                self.memory[slot] = token
                self.model[name].append(token)

        @rule(target=sequences, count=counts)
        def add(self, count: int) -> int:
            name = next(self.names)
            needed = -(-count // BLOCK_SIZE)
            fits = needed <= self.pool.num_free_blocks
            assert self.pool.can_allocate(count) == fits
            before = self.snapshot()
            try:
                allocation = self.pool.add(name, count)
            except OutOfBlocksError as error:
                assert not fits
                assert (error.needed, error.free) == (needed, self.pool.num_free_blocks)
                assert self.snapshot() == before
            else:
                assert fits
                assert len(allocation.copies) == 0
                self.model[name] = []
                self.carry_out(allocation, name, count)
            return name

        @rule(name=sequences, count=counts.filter(bool))
        def append(self, name: int, count: int) -> None:
            before = self.snapshot()
            try:
                allocation = self.pool.append(name, count)
            except UnknownSequenceError:
                assert name not in self.model
                assert self.snapshot() == before
            except OutOfBlocksError as error:
                assert error.needed > error.free == self.pool.num_free_blocks
                assert self.snapshot() == before
            else:
                taken = before[2] - self.pool.num_free_blocks
                length = len(self.model[name])
                new = -(-(length + count) // BLOCK_SIZE) - -(-length // BLOCK_SIZE)
                assert taken == new + len(allocation.copies)
                self.carry_out(allocation, name, count)

        @rule(target=sequences, parent=sequences)
        def fork(self, parent: int) -> int:
            child = next(self.names)
            free = self.pool.num_free_blocks
            try:
                self.pool.fork(parent, child)
            except UnknownSequenceError:
                assert parent not in self.model
            else:
                self.model[child] = list(self.model[parent])
            assert self.pool.num_free_blocks == free
            return child

        @rule(name=consumes(sequences))
        def free(self, name: int) -> None:
            before = self.snapshot()
            try:
                self.pool.free(name)
            except UnknownSequenceError:
                assert name not in self.model
                assert self.snapshot() == before
            else:
                del self.model[name]

        @precondition(lambda self: self.model)
        @rule(data=st.data())
        def refuse_a_duplicate(self, data: Any) -> None:
            name = data.draw(st.sampled_from(sorted(self.model)))
            before = self.snapshot()
            for call in (lambda: self.pool.add(name, 1), lambda: self.pool.fork(name, name)):
                try:
                    call()
                except DuplicateSequenceError:
                    assert self.snapshot() == before
                else:
                    raise AssertionError("an id that is in use must be refused")

        @invariant()
        def each_sequence_holds_its_tokens(self) -> None:
            self.pool.check()
            assert set(self.pool) == set(self.model)
            used = set()
            for name, tokens in self.model.items():
                slots = self.pool.slots(name, 0, len(tokens)).tolist()
                table = self.pool.block_table(name).tolist()
                assert slots == [
                    table[i // BLOCK_SIZE] * BLOCK_SIZE + i % BLOCK_SIZE for i in range(len(tokens))
                ]
                assert [self.memory[slot] for slot in slots] == tokens
                assert self.pool.seq_len(name) == len(tokens)
                used |= set(table)
            assert len(used) + self.pool.num_free_blocks == NUM_BLOCKS

        @invariant()
        def the_counts_agree(self) -> None:
            stats = self.pool.stats()
            tables = [set(self.pool.block_table(name).tolist()) for name in self.pool]
            used = set().union(*tables)
            assert stats.num_blocks == NUM_BLOCKS
            assert stats.num_used_blocks == len(used)
            assert stats.num_free_blocks == NUM_BLOCKS - len(used)
            assert stats.num_shared_blocks == sum(sum(b in t for t in tables) > 1 for b in used)
            assert stats.num_sequences == len(self.model)
            assert stats.num_tokens == sum(map(len, self.model.values()))
            held = {
                s for name in self.model for s in self.pool.slots(name, 0, len(self.model[name])).tolist()
            }
            assert stats.num_stored_tokens == len(held)
            assert stats.num_empty_slots == len(used) * BLOCK_SIZE - len(held)

    return AllocatorMachine


def prefix_machine(allocator: Callable[..., BlockAllocator] = BlockAllocator) -> type[RuleBasedStateMachine]:
    """Return a machine that drives an allocator with a prefix cache, and memory, in step.

    What a slot holds of a token is the salt and all tokens up to it, as keys and values do. A block that is
    served and holds anything else is noticed, one that nobody has written yet included.
    """
    salts = st.sampled_from((None, "x"))
    # Few tokens, so that prefixes meet.
    texts = st.lists(st.integers(0, 1), max_size=NUM_BLOCKS * PREFIX_BLOCK)

    class PrefixMachine(RuleBasedStateMachine):
        sequences = Bundle("sequences")

        def __init__(self) -> None:
            super().__init__()
            self.pool = allocator(NUM_BLOCKS, PREFIX_BLOCK, prefix_caching=True)
            self.model: dict[int, tuple[Any, list[int]]] = {}
            self.unwritten: dict[int, list[int]] = {}
            self.memory: dict[int, Any] = {}
            self.names = itertools.count()
            self.queried = self.hit = 0

        def expected(self, name: int, position: int) -> Any:
            salt, tokens = self.model[name]
            return salt, tuple(tokens[: position + 1])

        def write(self, name: int, slots: list[int], first: int) -> None:
            for position, slot in enumerate(slots, first):
                self.memory[slot] = self.expected(name, position)

        def findable(self, name: int, count: int) -> int:
            """Return how many of a sequence's first blocks are known; of two with the same tokens one is."""
            table = self.pool.block_table(name).tolist()[:count]
            return next((i for i, block in enumerate(table) if not self.pool.is_cached(block)), len(table))

        @rule(target=sequences, tokens=texts, salt=salts)
        def add(self, tokens: list[int], salt: Any) -> int:
            name = next(self.names)
            least = max(
                (
                    self.findable(seq, _common_blocks(tokens, other))
                    for seq, (other_salt, other) in self.model.items()
                    if other_salt == salt
                ),
                default=0,
            )
            could = self.pool.can_allocate(tokens, salt=salt)
            free = self.pool.num_free_blocks
            try:
                allocation = self.pool.add(name, tokens, salt=salt)
            except OutOfBlocksError:
                assert not could
                assert self.pool.num_free_blocks == free
                assert name not in self.pool
                return name
            assert could
            cached = allocation.num_cached_tokens
            assert cached % PREFIX_BLOCK == 0
            assert cached < max(1, len(tokens))
            assert cached >= PREFIX_BLOCK * least
            self.queried, self.hit = self.queried + len(tokens), self.hit + cached
            self.model[name] = salt, list(tokens)
            slots = self.pool.slots(name, 0, len(tokens)).tolist()
            assert [self.memory[slot] for slot in slots[:cached]] == [
                self.expected(name, position) for position in range(cached)
            ], "a block was served that does not hold the prefix"
            assert allocation.slots.tolist() == slots[cached:]
            for slot in slots[cached:]:
                self.memory.pop(slot, None)
            self.unwritten[name] = slots[cached:]
            return name

        @rule(name=sequences)
        def finish(self, name: int) -> None:
            if name in self.unwritten:
                slots = self.unwritten.pop(name)
                self.write(name, slots, len(self.model[name][1]) - len(slots))
                self.pool.commit(name)

        @rule(name=sequences, tokens=texts.filter(bool))
        def append(self, name: int, tokens: list[int]) -> None:
            if name not in self.model or name in self.unwritten:
                return
            start = len(self.model[name][1])
            try:
                allocation = self.pool.append(name, tokens)
            except OutOfBlocksError:
                return
            for src, dst in allocation.copies.tolist():
                for offset in range(PREFIX_BLOCK):
                    self.memory[dst * PREFIX_BLOCK + offset] = self.memory.get(src * PREFIX_BLOCK + offset)
            self.model[name][1].extend(tokens)
            self.write(name, allocation.slots.tolist(), start)
            self.pool.commit(name)

        @rule(target=sequences, parent=sequences)
        def fork(self, parent: int) -> int:
            child = next(self.names)
            if parent in self.model and parent not in self.unwritten:
                self.pool.fork(parent, child)
                salt, tokens = self.model[parent]
                self.model[child] = salt, list(tokens)
            return child

        @rule(name=consumes(sequences))
        def free(self, name: int) -> None:
            if name in self.model:
                self.pool.free(name)
                del self.model[name]
                self.unwritten.pop(name, None)

        @rule()
        def reset(self) -> None:
            self.pool.reset_prefix_cache()
            assert not any(map(self.pool.is_cached, range(NUM_BLOCKS)))

        @invariant()
        def what_is_written_stays(self) -> None:
            self.pool.check()
            for name, (_, tokens) in self.model.items():
                if name not in self.unwritten:
                    slots = self.pool.slots(name, 0, len(tokens)).tolist()
                    assert [self.memory[slot] for slot in slots] == [
                        self.expected(name, position) for position in range(len(tokens))
                    ]

        @invariant()
        def the_counts_agree(self) -> None:
            stats = self.pool.stats()
            assert (stats.num_queried_tokens, stats.num_hit_tokens) == (self.queried, self.hit)
            assert stats.num_free_blocks + stats.num_used_blocks == NUM_BLOCKS
            idle = [b for b in range(NUM_BLOCKS) if self.pool.is_cached(b) and not self.pool.ref_count(b)]
            assert stats.num_cached_blocks == len(idle)

    return PrefixMachine


def _common_blocks(tokens: list[int], other: list[int]) -> int:
    """Return how many full blocks two token lists begin with in common, one token of `tokens` left out."""
    most = min(len(tokens) - 1, len(other)) // PREFIX_BLOCK
    same = (
        tokens[: PREFIX_BLOCK * (place + 1)] == other[: PREFIX_BLOCK * (place + 1)] for place in range(most)
    )
    return sum(same)


def cache_machine(
    allocator: type[BlockAllocator] = BlockAllocator, target: str = "lockstep"
) -> type[RuleBasedStateMachine]:
    """Return a machine that drives a cache, its kernels and dense attention in step."""

    class CacheMachine(RuleBasedStateMachine):
        sequences = Bundle("sequences")

        def __init__(self) -> None:
            super().__init__()
            self.cache = PagedKVCache(NUM_BLOCKS, BLOCK_SIZE, num_kv_heads=2, head_dim=3, target=target)
            self.cache.allocator = allocator(NUM_BLOCKS, BLOCK_SIZE)
            self.dense: dict[int, Any] = {}
            self.names = itertools.count()
            self.rng = np.random.default_rng(0)

        def draw(self, count: int) -> Any:
            return self.rng.standard_normal((2, count, 2, 3)).astype(np.float32)

        @rule(target=sequences, count=counts)
        def add(self, count: int) -> int:
            name, tokens = next(self.names), self.draw(count)
            try:
                self.cache.add(name, *tokens)
            except OutOfBlocksError:
                pass
            else:
                self.dense[name] = tokens
            return name

        @rule(name=sequences, count=counts.filter(bool))
        def append(self, name: int, count: int) -> None:
            tokens = self.draw(count)
            try:
                self.cache.append(name, *tokens)
            except (OutOfBlocksError, UnknownSequenceError):
                pass
            else:
                self.dense[name] = np.concatenate([self.dense[name], tokens], axis=1)

        @rule(target=sequences, parent=sequences)
        def fork(self, parent: int) -> int:
            child = next(self.names)
            if parent in self.dense:
                self.cache.fork(parent, child)
                self.dense[child] = self.dense[parent]
            return child

        @rule(name=consumes(sequences))
        def free(self, name: int) -> None:
            if name in self.dense:
                self.cache.free(name)
                del self.dense[name]

        @precondition(lambda self: self.dense)
        @invariant()
        def attention_is_that_of_the_dense_copies(self) -> None:
            names = list(self.dense)
            query = 3 * self.rng.standard_normal((len(names), 4, 3)).astype(np.float32)
            out, lse = self.cache.attend(names, query, return_lse=True)
            for row, name in enumerate(names):
                inputs = query[row : row + 1], *self.dense[name]
                expected, expected_lse = reference.attention(*inputs, return_lse=True)
                allowed = attention_tolerance(*inputs)
                np.testing.assert_allclose(out[row], expected[0], rtol=0, atol=allowed.out)
                np.testing.assert_allclose(lse[row], expected_lse[0], rtol=0, atol=allowed.lse)

        @invariant()
        def gathered_tokens_are_those_written(self) -> None:
            for name, tokens in self.dense.items():
                np.testing.assert_array_equal(self.cache.gather(name), tokens)

    return CacheMachine
