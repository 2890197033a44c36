"""Exercise 03: a property that finds wrong attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ... import lockstep, reference
from ...kernels import attention_textbook
from ...testing.mutants.attention import ATTENTION_MUTANTS
from ...testing.mutants.kernel_mutant import KernelMutant, installed
from ..checker.property_task import OwnInputs, Subject
from ..checker.task import Wrong
from ..checker.values import Mistake, difference, shown_list

BLOCK_SIZE = 4
ATOL = 0.01
ALIKE = {
    "heads interleaved, not grouped": "there is one query head for each KV head",
    "-inf less -inf": "no score is infinite",
}
"""Mutants that are right here, and why."""


def attend(query: Any, key: Any, value: Any) -> Any:
    """Return the attention of one token, by the textbook kernel on a cache of scattered blocks.

    The kernel works on a batch of two sequences. The first is another one, whose tokens also lie in the unused slots.
    """
    query, key, value = _checked(query, key, value)
    num_tokens, num_heads, head_dim = key.shape
    num_blocks = -(-num_tokens // BLOCK_SIZE)
    table = np.arange(2 * num_blocks + 2)[
        ::-2
    ]  # one block more than there are tokens, as in a table with room
    other = np.full((2 * num_blocks + 2) * BLOCK_SIZE, -1.0, np.float32)
    caches = []
    for rows in (key, value):
        cache = np.empty((other.size, num_heads, head_dim), np.float32)
        cache[:] = (other + np.arange(other.size) % 3)[:, None, None]
        places = np.arange(num_tokens)
        cache[table[places // BLOCK_SIZE] * BLOCK_SIZE + places % BLOCK_SIZE] = rows
        caches.append(cache.reshape(-1, BLOCK_SIZE, num_heads, head_dim))
    out = np.full((2, num_heads, head_dim), np.nan, np.float32)
    tables = np.array([table - 1, table], np.int32)
    lens = np.array([1, num_tokens], np.int32)
    scale = np.float32(head_dim**-0.5)
    kernel = lockstep.jit(attention_textbook.attention_textbook_kernel)
    with np.errstate(all="ignore"):
        kernel[2, num_heads](out, np.stack([query, query]), *caches, tables, lens, scale)
    return out[1]


def attend_in_numpy(query: Any, key: Any, value: Any) -> Any:
    """Return the attention of one token in float32, with another order of operations than the kernel has."""
    query, key, value = _checked(query, key, value)
    if not len(key):
        return np.zeros_like(query)
    scores = np.einsum("hd,nhd->nh", query / np.sqrt(np.float32(query.shape[1])), key)
    weights = np.exp(scores - scores.max(axis=0))
    return np.einsum("nh,nhd->hd", weights / weights.sum(axis=0), value)


def _checked(query: Any, key: Any, value: Any) -> list[Any]:
    arrays = [np.asarray(array, np.float32) for array in (query, key, value)]
    if arrays[0].ndim != 2 or not arrays[0].size:
        raise ValueError(f"query must be float32[num_heads, head_dim], got shape {arrays[0].shape}")
    for name, array in zip(("key", "value"), arrays[1:], strict=True):
        right = (len(arrays[1]), *arrays[0].shape)
        if array.shape != right:
            raise ValueError(
                f"{name} must be float32[n, num_heads, head_dim], here {list(right)}, got shape {array.shape}"
            )
    return arrays


@contextmanager
def _installed(mutant: KernelMutant) -> Iterator[Callable[..., Any]]:
    with installed(mutant):
        yield attend


def _arrays(num_tokens: int, num_heads: int, head_dim: int, largest: int, seed: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    shapes = (num_heads, head_dim), (num_tokens, num_heads, head_dim), (num_tokens, num_heads, head_dim)
    query, key, value = (rng.integers(-largest, largest + 1, shape).astype(np.float32) for shape in shapes)
    return query, key, value


class PropertyAttention(OwnInputs):
    """The learner draws inputs of attention, and compares."""

    answer = "check_attention"
    lesson = "02_oracle"
    may_use = ("reference",)
    hints = (
        "Look at the input on which the first wrong function that you miss goes wrong. Can your test draw an input "
        "like it?",
        "Draw the shapes first: no token, one token, and more than two blocks of tokens; several heads; several "
        "dimensions, since with one dimension the scale is 1.",
        "A kernel that does not subtract the largest score overflows float32 when a score is large, so some of your "
        "numbers must be large: 20 * 20 is a score of 400, and exp(400) is too large for float32. Draw small "
        "numbers as well.",
        "def agrees(num_tokens, num_heads, head_dim, largest, seed), with @given above it: "
        "np.random.default_rng(seed) makes arrays of these shapes, and reference.attention(query[None], key, "
        "value)[0] is the right result.",
    )
    wrong = (
        Wrong("looks at the shape only", "np.testing.assert_allclose(attend(query[0], key, value), right, rtol=0, "
              "atol=0.01)", "assert attend(query[0], key, value).shape == right.shape", "kills",
              "this one passes: block table not followed"),
        Wrong("one block is enough for all tokens", "[0, 1, 3, 4, 5, 9]", "[0, 1, 3, 4]", "kills",
              "place in the sequence taken for the offset  NOT FOUND"),
        Wrong("never without tokens", "[0, 1, 3, 4, 5, 9]", "[1, 3, 4, 5, 9]", "kills",
              "this one passes: empty sequence divides 0 by 0"),
        Wrong("one head", "integers(1, 3)", "just(1)", "kills", "this one passes: KV head 0 for all heads"),
        Wrong("one dimension, with which the scale is 1", "sampled_from([1, 2, 8])", "just(1)", "kills",
              "this one passes: scale forgotten"),
        Wrong("small numbers", "sampled_from([1, 20])", "just(1)", "kills",
              "this one passes: largest score not subtracted"),
        Wrong("the test is not called", "    agrees()\n", "    agrees\n", "right", "never calls"),
        Wrong("equal to the last bit", "np.testing.assert_allclose(attend(query[0], key, value), right, rtol=0, "
              "atol=0.01)", "np.testing.assert_array_equal(attend(query[0], key, value), right)", "right",
              "refuses the textbook kernel, which is right: Arrays are not equal"),
        Wrong("refuses everything", "    agrees()\n", "    agrees()\n    raise AssertionError('wrong')\n", "right",
              "which is right: wrong"),
    )  # fmt: skip

    def right_subjects(self) -> Sequence[Subject]:
        """Return the textbook kernel, and attention in NumPy, which rounds otherwise."""
        return (
            Subject("the textbook kernel", partial(nullcontext, attend)),
            Subject("attention in NumPy", partial(nullcontext, attend_in_numpy)),
        )

    def wrong_subjects(self) -> Sequence[Subject]:
        """Return the mutants of the textbook kernel."""
        textbook = (one for one in ATTENTION_MUTANTS if one.operation == "attend textbook")
        mutants = [one for one in textbook if one.name not in ALIKE]
        return [Subject(one.name, partial(_installed, one)) for one in mutants]

    def inputs(self) -> st.SearchStrategy[tuple[Any, Any, Any]]:
        """Return what draws arrays of small integers, or large ones."""
        return st.builds(
            _arrays,
            st.integers(0, 10),
            st.integers(1, 3),
            st.sampled_from((1, 4)),
            st.sampled_from((2, 20)),
            st.integers(0, 100),
        )

    def compared(self, subject: Any, given: tuple[Any, Any, Any]) -> Mistake | None:
        """Return the result beside that of the oracle."""
        query, key, value = given
        right = reference.attention(query[None], key, value)[0]
        return difference("the result", subject(query, key, value), right, atol=ATOL)

    def accuracy(self, subject: Any, given: tuple[Any, Any, Any]) -> str:
        """Return how far a result is from that of the oracle, or why it may be further than is allowed."""
        query, key, value = given
        if self.compared(subject, given) is not None:
            largest = max(np.abs(array).max(initial=0) for array in given)
            return f"The input has numbers up to {largest:.3g}; up to 20, {ATOL} is enough for rounding"
        far = np.abs(subject(query, key, value) - reference.attention(query[None], key, value)[0]).max()
        return (
            f"On this input, its result differs from the oracle's by at most {far:.2g}, and {ATOL} is allowed"
        )

    def describe_input(self, given: tuple[Any, Any, Any]) -> str:
        """Return the three arrays."""
        names = "query", "key", "value"
        return "\n".join(f"{name} = {shown_list(array)}" for name, array in zip(names, given, strict=True))


TASK = PropertyAttention()
