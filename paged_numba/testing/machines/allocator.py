"""State machine: the allocator without its prefix cache, compared with a dictionary of token lists."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ...allocator.allocation import Allocation
from ...allocator.allocator import BlockAllocator
from ...errors import DuplicateSequenceError, OutOfBlocksError, SwappedSequenceError, UnknownSequenceError
from .pick import needs_a_sequence, needs_a_swapped_sequence, pick

NUM_BLOCKS, BLOCK_SIZE = 7, 4
counts = st.one_of(
    st.sampled_from((0, 1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1)),
    st.integers(0, NUM_BLOCKS * BLOCK_SIZE + 1),
)
windows = st.integers(1, 2 * BLOCK_SIZE + 1)
limits = st.one_of(st.none(), st.sampled_from((1, BLOCK_SIZE, BLOCK_SIZE + 1)))


def allocator_machine(allocator: type[BlockAllocator] = BlockAllocator) -> type[RuleBasedStateMachine]:
    """Return a machine that applies each change to an allocator and to a dictionary of token lists.

    Memory is a dictionary from slots to tokens. Only the copies and the slots of an `Allocation` change it, so that a
    wrong slot or a missing copy shows as a token of another sequence.
    """

    class AllocatorMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.pool = allocator(NUM_BLOCKS, BLOCK_SIZE)
            self.model: dict[int, list[int]] = {}
            self.released: dict[int, int] = {}
            self.swapped: dict[int, list[int]] = {}
            self.memory: dict[int, int] = {}
            self.names = itertools.count()
            self.tokens = itertools.count()
            self.preemptions = [0, 0]

        def snapshot(self) -> Any:
            tables = {name: self.pool.block_table(name).tolist() for name in self.pool}
            return tables, {name: self.pool.seq_len(name) for name in self.pool}, self.pool.num_free_blocks

        def held(self, name: int) -> int:
            """Return how many blocks a sequence has in the pool."""
            return -(-len(self.model[name]) // BLOCK_SIZE) - self.released[name]

        def carry_out(self, allocation: Allocation, tokens: list[int]) -> None:
            for src, dst in allocation.copies.tolist():
                for offset in range(BLOCK_SIZE):
                    if src * BLOCK_SIZE + offset in self.memory:
                        self.memory[dst * BLOCK_SIZE + offset] = self.memory[src * BLOCK_SIZE + offset]
            assert allocation.slots.shape == (len(tokens),)
            self.memory.update(zip(allocation.slots.tolist(), tokens, strict=True))

        def new_tokens(self, count: int) -> list[int]:
            return list(itertools.islice(self.tokens, count))

        @rule(count=counts, limit=limits)
        def add(self, count: int, limit: int | None) -> None:
            self.start(next(self.names), self.new_tokens(count), limit)

        @precondition(lambda self: self.pool.num_free_blocks)
        @rule()
        def add_what_fills_the_pool(self) -> None:
            self.start(next(self.names), self.new_tokens(self.pool.num_free_blocks * BLOCK_SIZE))

        def start(self, name: int, tokens: list[int], limit: int | None = None) -> None:
            count, tokens = len(tokens), tokens[:limit]
            needed = -(-len(tokens) // BLOCK_SIZE)
            fits = needed <= self.pool.num_free_blocks
            assert self.pool.can_allocate(count, limit=limit) == fits
            before = self.snapshot()
            try:
                allocation = self.pool.add(name, count, limit=limit)
            except OutOfBlocksError as error:
                assert not fits
                assert (error.needed, error.free) == (needed, self.pool.num_free_blocks)
                assert self.snapshot() == before
            else:
                assert fits
                assert len(allocation.copies) == 0
                self.model[name], self.released[name] = tokens, 0
                self.carry_out(allocation, tokens)

        @needs_a_sequence
        @rule(data=st.data(), count=counts.filter(bool))
        def append(self, data: Any, count: int) -> None:
            name = pick(data, self.model)
            before = self.snapshot()
            fits = self.pool.can_append(name, count)
            try:
                allocation = self.pool.append(name, count)
            except OutOfBlocksError as error:
                assert not fits
                assert error.needed > error.free == self.pool.num_free_blocks
                assert self.snapshot() == before
            else:
                assert fits
                taken = before[2] - self.pool.num_free_blocks
                length = len(self.model[name])
                new = -(-(length + count) // BLOCK_SIZE) - -(-length // BLOCK_SIZE)
                assert taken == new + len(allocation.copies)
                tokens = self.new_tokens(count)
                self.model[name] = self.model[name] + tokens
                self.carry_out(allocation, tokens)

        @needs_a_sequence
        @rule(data=st.data())
        def truncate(self, data: Any) -> None:
            name = pick(data, self.model)
            tokens, low = self.model[name], self.released[name] * BLOCK_SIZE
            length = data.draw(st.integers(low, len(tokens)))
            before = self.snapshot()
            for wrong in (low - 1, len(tokens) + 1):
                try:
                    self.pool.truncate(name, wrong)
                except ValueError:
                    assert self.snapshot() == before
                else:
                    raise AssertionError("tokens that the sequence does not hold must not be kept")
            self.pool.truncate(name, length)
            self.model[name] = tokens[:length]

        @needs_a_sequence
        @rule(data=st.data())
        def truncate_and_append_again(self, data: Any) -> None:
            """A step that failed can be tried again: it finds as many blocks as before."""
            name = pick(data, self.model)
            length, count = len(self.model[name]), data.draw(counts.filter(bool))
            if self.pool.can_append(name, count):
                for _ in range(2):
                    self.pool.truncate(name, length)
                    tokens = self.new_tokens(count)
                    self.carry_out(self.pool.append(name, count), tokens)
                self.model[name] = self.model[name] + tokens

        @needs_a_sequence
        @rule(data=st.data())
        def fork(self, data: Any) -> None:
            parent, child = pick(data, self.model), next(self.names)
            free = self.pool.num_free_blocks
            self.pool.fork(parent, child)
            self.model[child], self.released[child] = self.model[parent], self.released[parent]
            assert self.pool.num_free_blocks == free

        @precondition(lambda self: self.model or self.swapped)
        @rule(data=st.data())
        def free(self, data: Any) -> None:
            name = pick(data, self.model | self.swapped)
            self.pool.free(name)
            del (self.model if name in self.model else self.swapped)[name]
            self.refuse(name, UnknownSequenceError)

        def refuse(self, name: int, error: type[Exception]) -> None:
            """Require that every operation on a sequence without blocks raises, and changes nothing."""
            before = self.snapshot()
            pool = self.pool
            calls: list[Callable[[], Any]] = [
                lambda: pool.append(name, 1),
                lambda: pool.can_append(name),
                lambda: pool.truncate(name, 0),
                lambda: pool.fork(name, -1),
                lambda: pool.release(name, 1),
                lambda: pool.slots(name, 0, 0),
                *(
                    partial(call, name)
                    for call in (pool.block_table, pool.swap_out, pool.preempt, pool.commit)
                ),
                *(
                    [partial(call, name) for call in (pool.free, pool.swap_in, pool.can_swap_in)]
                    if error is UnknownSequenceError
                    else []
                ),
            ]
            for call in calls:
                try:
                    call()
                except (UnknownSequenceError, SwappedSequenceError) as raised:
                    assert type(raised) is error
                    assert self.snapshot() == before
                else:
                    raise AssertionError("a sequence without blocks must be refused")

        @needs_a_sequence
        @rule(data=st.data())
        def preempt_and_add_again(self, data: Any) -> None:
            name = pick(data, self.model)
            self.pool.preempt(name)
            self.preemptions[0] += 1
            self.start(name, self.model.pop(name))

        @needs_a_sequence
        @rule(data=st.data())
        def swap_out(self, data: Any) -> None:
            name = pick(data, self.model)
            self.pool.swap_out(name)
            self.preemptions[1] += 1
            self.swapped[name] = self.model.pop(name)
            assert self.pool.is_swapped(name)
            self.refuse(name, SwappedSequenceError)

        @needs_a_swapped_sequence
        @rule(data=st.data())
        def swap_in(self, data: Any) -> None:
            name = pick(data, self.swapped)
            before = self.snapshot()
            fits = self.pool.can_swap_in(name)
            try:
                allocation = self.pool.swap_in(name)
            except OutOfBlocksError as error:
                assert not fits
                assert error.needed > error.free == self.pool.num_free_blocks
                assert self.snapshot() == before
            else:
                assert fits
                tokens = self.model[name] = self.swapped.pop(name)
                assert before[2] - self.pool.num_free_blocks == self.held(name)
                first = self.released[name] * BLOCK_SIZE
                assert allocation.num_cached_tokens == first
                self.carry_out(allocation, tokens[first:])

        @needs_a_sequence
        @rule(data=st.data(), window=windows)
        def release(self, data: Any, window: int) -> None:
            name = pick(data, self.model)
            before = self.released[name]
            seen = max(0, len(self.model[name]) - window)
            self.released[name] = max(before, seen // BLOCK_SIZE)
            assert self.pool.release(name, window) == self.released[name] - before

        @precondition(lambda self: self.model or self.swapped)
        @rule(data=st.data())
        def refuse_a_duplicate(self, data: Any) -> None:
            name = pick(data, self.model | self.swapped)
            before = self.snapshot()
            calls: list[Callable[[], Any]] = [lambda: self.pool.add(name, 1)]
            if self.model:
                calls.append(lambda: self.pool.fork(next(iter(self.model)), name))
            for call in calls:
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
                table, released = self.pool.block_table(name).tolist(), self.released[name]
                assert len(table) == -(-len(tokens) // BLOCK_SIZE)
                assert table[:released] == [-1] * released
                assert self.pool.held_blocks(name).tolist() == table[released:]
                positions = range(released * BLOCK_SIZE, len(tokens))
                slots = self.pool.slots(name, positions.start, positions.stop).tolist()
                assert slots == [table[i // BLOCK_SIZE] * BLOCK_SIZE + i % BLOCK_SIZE for i in positions]
                assert [self.memory[slot] for slot in slots] == tokens[positions.start :]
                used |= set(table[released:])
            assert len(used) + self.pool.num_free_blocks == NUM_BLOCKS
            for name, tokens in (self.model | self.swapped).items():
                assert self.pool.seq_len(name) == len(tokens)

        @invariant()
        def the_counts_agree(self) -> None:
            stats = self.pool.stats()
            tables = [set(self.pool.held_blocks(name).tolist()) for name in self.pool]
            used = set().union(*tables)
            assert stats.num_blocks == NUM_BLOCKS
            assert stats.num_used_blocks == len(used)
            assert stats.num_free_blocks == NUM_BLOCKS - len(used)
            assert stats.num_shared_blocks == sum(sum(b in t for t in tables) > 1 for b in used)
            assert stats.num_sequences == len(self.model)
            assert stats.num_tokens == sum(map(len, self.model.values()))
            held = {
                slot
                for name, tokens in self.model.items()
                for slot in self.pool.slots(name, self.released[name] * BLOCK_SIZE, len(tokens)).tolist()
            }
            assert stats.num_stored_tokens == len(held)
            assert stats.num_empty_slots == len(used) * BLOCK_SIZE - len(held)
            assert stats.num_swapped_sequences == len(self.swapped)
            assert [stats.num_recompute_preemptions, stats.num_swap_preemptions] == self.preemptions
            assert stats.num_preemptions == sum(self.preemptions)

    return AllocatorMachine
