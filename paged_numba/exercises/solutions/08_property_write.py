"""
08 · A property that finds wrong writes
=======================================

Write the test ``check_write``. It takes a function ``write``, calls it with inputs that you choose, and raises
AssertionError if ``write`` is wrong. The check runs your test on several functions. The right ones must pass, and
your score is the number of wrong ones that your test finds.

``write(key, value, key_cache, value_cache, slot_mapping)`` copies the key and the value of each token, in place, to
the slot that the slot mapping names. A token with slot -1 is skipped. Nothing else in the caches may change. No slot
other than -1 appears twice.

Shapes::

    key, value               float32[num_tokens, num_heads, head_dim]
    key_cache, value_cache   float32[num_blocks, block_size, num_heads, head_dim]
    slot_mapping             int64[num_tokens], -1 or a slot of the caches

Three tokens, and two blocks of 2 slots::

    token                0    1    2
    slot_mapping         3   -1    0

    slot                 0    1    2    3
    block, offset       0,0  0,1  1,0  1,1
    after the write      2    .    .    0         a dot: as before

Example: with ``slot_mapping = [3]`` and blocks of 2, ``write`` sets ``key_cache[1, 1]`` to ``key[0]`` and
``value_cache[1, 1]`` to ``value[0]``, and changes nothing else.
"""

import numpy as np
from hypothesis import given, strategies


def check_write(write):
    # >>> Your code: inputs (with @given or without), what the caches must hold, and the comparison (20 lines).
    @given(
        num_tokens=strategies.integers(1, 6),
        num_heads=strategies.integers(1, 3),
        block_size=strategies.integers(2, 4),
        seed=strategies.integers(0, 1000),
    )
    def writes(num_tokens, num_heads, block_size, seed):
        rng = np.random.default_rng(seed)
        slot_mapping = rng.permutation(3 * block_size)[:num_tokens]
        slot_mapping[rng.random(num_tokens) < 0.3] = -1
        key, value = rng.normal(size=(2, num_tokens, num_heads, 2)).astype(np.float32)
        caches = rng.normal(size=(2, 3, block_size, num_heads, 2)).astype(np.float32)
        right = caches.copy()
        for token, slot in enumerate(slot_mapping):
            if slot >= 0:
                right[0, slot // block_size, slot % block_size] = key[token]
                right[1, slot // block_size, slot % block_size] = value[token]
        write(key, value, caches[0], caches[1], slot_mapping)
        np.testing.assert_array_equal(caches, right)

    writes()
    # <<<
