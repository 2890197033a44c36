"""State machine: the whole cache with its kernels, compared with dense attention."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ... import reference
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
            self.cache.allocator = allocator(NUM_BLOCKS, BLOCK_SIZE, prefix_caching=True)
            self.model: dict[int, Dense] = {}
            self.swapped: dict[int, Dense] = {}
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

        @needs_a_sequence
        @rule(data=st.data())
        def fork(self, data: Any) -> None:
            parent, child = pick(data, self.model), next(self.names)
            self.cache.fork(parent, child)
            self.model[child] = self.model[parent]

        @precondition(lambda self: self.model or self.swapped)
        @rule(data=st.data())
        def free(self, data: Any) -> None:
            name = pick(data, self.model | self.swapped)
            self.cache.free(name)
            del (self.model if name in self.model else self.swapped)[name]

        @needs_a_sequence
        @rule(data=st.data())
        def preempt_and_add_again(self, data: Any) -> None:
            name = pick(data, self.model)
            self.cache.preempt(name)
            salt, tokens, _ = self.model.pop(name)
            self.start(name, tokens, salt)

        @needs_a_sequence
        @rule(data=st.data())
        def swap_out(self, data: Any) -> None:
            name = pick(data, self.model)
            self.cache.swap_out(name)
            self.swapped[name] = self.model.pop(name)

        @needs_a_swapped_sequence
        @rule(data=st.data())
        def swap_in(self, data: Any) -> None:
            name = pick(data, self.swapped)
            try:
                self.cache.swap_in(name)
            except OutOfBlocksError:
                return
            self.model[name] = self.swapped.pop(name)

        @needs_a_sequence
        @rule(data=st.data(), window=st.integers(1, 2 * BLOCK_SIZE))
        def release(self, data: Any, window: int) -> None:
            name = pick(data, self.model)
            self.cache.release(name, window)
            salt, tokens, before = self.model[name]
            self.model[name] = Dense(salt, tokens, min(window, before or window))

        @rule()
        def reset_prefix_cache(self) -> None:
            self.cache.allocator.reset_prefix_cache()

        @invariant()
        def attention_is_that_of_the_dense_copies(self) -> None:
            self.cache.allocator.check()
            by_window: dict[int | None, list[int]] = {}
            for name, dense in self.model.items():
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
                for part, wanted in zip(self.cache.gather(name), project(salt, tokens), strict=True):
                    np.testing.assert_array_equal(part, wanted[first:])

    return CacheMachine
