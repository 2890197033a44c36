"""State machine: the whole cache with its kernels, compared with dense attention."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ... import ops, reference
from ...allocator.allocator import BlockAllocator
from ...cache import PagedKVCache
from ...errors import OutOfBlocksError
from ...tolerances import attention_tolerance
from .pick import needs_a_sequence, needs_a_swapped_sequence, pick

NUM_BLOCKS, BLOCK_SIZE = 9, 3
# Few different tokens, so that sequences share prefixes.
texts = st.lists(st.integers(0, 1), max_size=NUM_BLOCKS * BLOCK_SIZE)
salts = st.sampled_from((0, 1))
STATES = 997


class Dense(NamedTuple):
    """A sequence of the model: its salt, its tokens, and the window that hides its released tokens."""

    salt: int
    tokens: list[int]
    window: int | None = None


def cache_machine(
    allocator: Callable[..., BlockAllocator] = BlockAllocator,
    target: str = "lockstep",
    cache: type[PagedKVCache] = PagedKVCache,
) -> type[RuleBasedStateMachine]:
    """Return a machine that applies each change to a cache with prefix caching and to a dictionary of token lists.

    The keys and values of a token depend on the salt and on all tokens up to it, as in a language model.
    """
    rng = np.random.default_rng(0)
    keys, values = (rng.standard_normal((STATES, 2, dims)).astype(np.float32) for dims in (3, 2))

    def project(salt: int, tokens: list[int]) -> Any:
        states = itertools.accumulate(
            tokens, lambda state, token: (31 * state + token + 1) % STATES, initial=salt
        )
        chosen = list(states)[1:]
        return keys[chosen], values[chosen]

    class CacheMachine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.cache = cache(
                NUM_BLOCKS,
                BLOCK_SIZE,
                num_kv_heads=2,
                head_dim=3,
                value_head_dim=2,
                prefix_caching=True,
                target=target,
            )
            self.cache.allocator = self.cache._layers.allocator = allocator(
                NUM_BLOCKS, BLOCK_SIZE, prefix_caching=True
            )
            self.model: dict[int, Dense] = {}
            self.swapped: dict[int, Dense] = {}
            # By sequence, the first position that was reserved and is not written yet.
            self.unwritten: dict[int, int] = {}
            # Sequences that were added before the last reset of the prefix cache.
            self.hidden: set[int] = set()
            # Sequences that the allocator swapped out without the cache.
            self.lost: set[int] = set()
            self.names = itertools.count()
            self.rng = np.random.default_rng(0)

        @rule(tokens=texts, salt=salts)
        def add(self, tokens: list[int], salt: int) -> None:
            self.start(next(self.names), tokens, salt)

        def start(self, name: int, tokens: list[int], salt: int) -> None:
            key, value = project(salt, tokens)
            try:
                self.cache.add(name, key, value, tokens, salt=salt)
            except OutOfBlocksError:
                pass
            else:
                self.model[name] = Dense(salt, tokens)

        @needs_a_sequence
        @rule(data=st.data(), tokens=texts.filter(bool))
        def append(self, data: Any, tokens: list[int]) -> None:
            name = pick(data, self.model)
            salt, before, window = self.model[name]
            key, value = (part[len(before) :] for part in project(salt, before + tokens))
            try:
                self.cache.append(name, key, value, tokens)
            except OutOfBlocksError:
                pass
            else:
                self.model[name] = Dense(salt, before + tokens, window)

        @rule(data=st.data(), tokens=texts, salt=salts, limit=st.none() | st.integers(1, 2 * BLOCK_SIZE))
        def reserve(self, data: Any, tokens: list[int], salt: int, limit: int | None) -> None:
            """Reserve tokens on the cache, or on its allocator; `write_reserved` writes them."""
            name, dense = next(self.names), Dense(salt, [])
            if self.model and tokens and data.draw(st.booleans()):
                name = pick(data, self.model)
                dense = self.model[name]
            pool = self.cache.allocator
            try:
                if data.draw(st.booleans()):
                    allocation = self.cache.reserve(name, tokens, salt=salt, limit=limit)
                elif name in self.model:
                    allocation = pool.append(name, tokens[:limit])
                else:
                    allocation = pool.add(name, tokens, salt=salt, limit=limit)
                    assert not allocation.copies.size
            except OutOfBlocksError:
                return
            # The cache has made its copies; to make them again changes nothing.
            ops.copy_blocks(self.cache.key_cache, self.cache.value_cache, allocation.copies, target=target)
            first = len(dense.tokens) + allocation.num_cached_tokens
            tokens = tokens[: allocation.num_cached_tokens + allocation.slots.size]
            self.model[name] = dense._replace(tokens=dense.tokens + tokens)
            self.unwritten.setdefault(name, first)

        @precondition(lambda self: self.unwritten.keys() & self.model.keys())
        @rule(data=st.data(), direct=st.booleans())
        def write_reserved(self, data: Any, direct: bool) -> None:
            self.write(pick(data, self.unwritten.keys() & self.model.keys()), direct)

        def write(self, name: int, direct: bool) -> None:
            salt, tokens, _ = self.model[name]
            first = max(self.unwritten.pop(name), self.cache.allocator.num_released_tokens(name))
            if first < len(tokens):
                key, value = (part[first:] for part in project(salt, tokens))
                slots = self.cache.allocator.slots(name, first, len(tokens))
                self.cache.write_layer(0, key, value, slots)
            self.methods(direct).commit(name)

        def methods(self, direct: bool) -> Any:
            """Return the cache, or its allocator: each of their methods in common does the same."""
            return self.cache.allocator if direct else self.cache

        @needs_a_sequence
        @rule(data=st.data(), direct=st.booleans())
        def truncate(self, data: Any, direct: bool) -> None:
            name = pick(data, self.model)
            salt, tokens, window = self.model[name]
            # From there on no later token sees a released one.
            low = self.cache.allocator.num_released_tokens(name)
            low = 0 if window is None or not low else min(len(tokens), low + window)
            length = data.draw(st.integers(low, len(tokens)))
            self.methods(direct).truncate(name, length)
            self.model[name] = Dense(salt, tokens[:length], window)
            if self.unwritten.get(name, 0) >= length:
                self.unwritten.pop(name, None)

        @rule(data=st.data(), new=st.lists(texts, max_size=2), appended=texts.filter(bool))
        def step(self, data: Any, new: list[list[int]], appended: list[int]) -> None:
            """Run a step of a model with a plan: new sequences, and tokens of old ones, in any order."""
            old = [
                name for name, its in self.model.items() if its.window is None and name not in self.unwritten
            ]
            chosen = data.draw(st.sets(st.sampled_from(old)) if old else st.just(set()))
            given = {next(self.names): (tokens, place % 2) for place, tokens in enumerate(new)}
            given |= {name: (appended[: 1 + name % 3], self.model[name].salt) for name in sorted(chosen)}
            names = data.draw(st.permutations(list(given)))
            tokens = {name: given[name][0] for name in names}
            salts = {name: given[name][1] for name in names}
            try:
                slots, cu_seqlens_q, _ = self.cache.reserve_batch(tokens, salts=salts)
            except OutOfBlocksError:
                return
            plan = self.cache.plan(names, 4, slots=slots, cu_seqlens_q=cu_seqlens_q, return_lse=True)
            parts = [project(0, [])]
            for name, count in zip(names, np.diff(cu_seqlens_q).tolist(), strict=True):
                whole = (self.model[name].tokens if name in self.model else []) + tokens[name]
                self.model[name] = Dense(salts[name], whole)
                key, value = project(salts[name], whole)
                parts.append((key[len(whole) - count :], value[len(whole) - count :]))
            plan.write(0, *(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
            query = 3 * self.rng.standard_normal((plan.num_tokens, 4, 3)).astype(np.float32)
            out, lse = plan.attend(0, query)
            for name, start, stop in zip(names, cu_seqlens_q[:-1], cu_seqlens_q[1:], strict=True):
                inputs = query[start:stop], *project(*self.model[name][:2])
                expected, expected_lse = reference.attention(*inputs, return_lse=True)
                allowed = attention_tolerance(*inputs)
                np.testing.assert_allclose(out[start:stop], expected, rtol=0, atol=allowed.out)
                np.testing.assert_allclose(lse[start:stop], expected_lse, rtol=0, atol=allowed.lse)
                self.cache.commit(name)

        @needs_a_sequence
        @rule(data=st.data(), direct=st.booleans())
        def fork(self, data: Any, direct: bool) -> None:
            parent, child = pick(data, self.model), next(self.names)
            self.methods(direct).fork(parent, child)
            self.model[child] = self.model[parent]
            if parent in self.unwritten:
                self.unwritten[child] = self.unwritten[parent]
            if parent in self.hidden:
                self.hidden.add(child)

        @precondition(lambda self: self.model or self.swapped)
        @rule(data=st.data(), direct=st.booleans())
        def free(self, data: Any, direct: bool) -> None:
            name = pick(data, self.model | self.swapped)
            self.methods(direct).free(name)
            self.forget(name)
            del (self.model if name in self.model else self.swapped)[name]

        def forget(self, name: int) -> None:
            self.unwritten.pop(name, None)
            self.hidden.discard(name)
            self.lost.discard(name)

        @needs_a_sequence
        @rule(data=st.data(), direct=st.booleans())
        def preempt_and_add_again(self, data: Any, direct: bool) -> None:
            name = pick(data, self.model)
            self.methods(direct).preempt(name)
            self.forget(name)
            salt, tokens, _ = self.model.pop(name)
            self.start(name, tokens, salt)

        @needs_a_sequence
        @rule(data=st.data(), direct=st.booleans())
        def swap_out(self, data: Any, direct: bool) -> None:
            name = pick(data, self.model)
            self.methods(direct).swap_out(name)
            self.swapped[name] = self.model.pop(name)
            if direct:
                self.lost.add(name)

        @needs_a_swapped_sequence
        @rule(data=st.data(), direct=st.booleans())
        def swap_in(self, data: Any, direct: bool) -> None:
            name = pick(data, self.swapped)
            direct |= name in self.lost
            if name in self.lost:
                try:
                    self.cache.swap_in(name)
                except ValueError as error:
                    assert "swapped out by this cache" in str(error)
                else:
                    raise AssertionError("the cache holds no copy of this sequence")
            try:
                allocation = self.methods(direct).swap_in(name)
            except OutOfBlocksError:
                return
            self.model[name] = self.swapped.pop(name)
            self.lost.discard(name)
            if direct:
                # Nobody brought the tokens back: they are as tokens that were reserved.
                self.unwritten[name] = allocation.num_cached_tokens

        @needs_a_sequence
        @rule(data=st.data(), window=st.integers(1, 2 * BLOCK_SIZE), direct=st.booleans())
        def release(self, data: Any, window: int, direct: bool) -> None:
            name = pick(data, self.model)
            self.methods(direct).release(name, window)
            salt, tokens, before = self.model[name]
            self.model[name] = Dense(salt, tokens, min(window, before or window))

        @rule()
        def reset_prefix_cache(self) -> None:
            self.cache.allocator.reset_prefix_cache()
            self.hidden |= self.model.keys() | self.swapped.keys()

        @invariant()
        def what_is_written_is_findable(self) -> None:
            for name in self.model.keys() - self.unwritten.keys() - self.hidden:
                full = self.cache.allocator.block_table(name)[: len(self.model[name].tokens) // BLOCK_SIZE]
                assert all(block < 0 or self.cache.allocator.is_cached(block) for block in full.tolist())

        @invariant()
        def the_cache_lists_its_sequences(self) -> None:
            assert {*self.cache} == {*self.model}
            assert len(self.cache) == len(self.model)
            for name, dense in (self.model | self.swapped).items():
                assert self.cache.seq_len(name) == len(dense.tokens)
                assert (name in self.cache) == (name in self.model)

        @invariant()
        def attention_is_that_of_the_dense_copies(self) -> None:
            self.cache.allocator.check()
            by_window: dict[int | None, list[int]] = {}
            for name, dense in self.model.items():
                if name in self.unwritten or not len(dense.tokens):
                    continue
                by_window.setdefault(dense.window, []).append(name)
            for window, names in by_window.items():
                query = 3 * self.rng.standard_normal((len(names), 4, 3)).astype(np.float32)
                out, lse = self.attend(names, query, window)
                for row, name in enumerate(names):
                    inputs = query[row : row + 1], *project(*self.model[name][:2])
                    expected, expected_lse = reference.attention(*inputs, window=window, return_lse=True)
                    allowed = attention_tolerance(*inputs, window=window)
                    np.testing.assert_allclose(out[row], expected[0], rtol=0, atol=allowed.out)
                    np.testing.assert_allclose(lse[row], expected_lse[0], rtol=0, atol=allowed.lse)

        def attend(self, names: list[int], query: Any, window: int | None) -> Any:
            return self.cache.attend(names, query, window=window, return_lse=True)

        @invariant()
        def gathered_tokens_are_those_written(self) -> None:
            for name, (salt, tokens, _) in self.model.items():
                first = self.cache.allocator.num_released_tokens(name)
                count = max(0, self.unwritten.get(name, len(tokens)) - first)
                for part, wanted in zip(self.cache.gather(name), project(salt, tokens), strict=True):
                    np.testing.assert_array_equal(part[:count], wanted[first : first + count])

    return CacheMachine
