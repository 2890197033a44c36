"""Exercise 21: decode with a sliding window, over blocks of which some are released."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ...draw.text import plural
from ...lockstep.profiler.report import Report
from ..aids.sectors import sectors
from ..aids.weights import HEAD_DIM, Row, Tokens, WeightsTask
from ..checker.task import Limit, Wrong
from ..checker.values import assigned


@dataclass
class Case:
    """Arguments of the kernel; `tokens` has the caches and the block tables."""

    query: Any
    tokens: Tokens
    seq_lens: Any
    window: int


def case_of(
    lens: list[int], window: int, block_size: int = 4, heads: int = 1, seed: int = 0, strength: int = 3
) -> Case:
    """Return a case of random tokens, in which blocks are released that no query will look at.

    The scores have about the standard deviation `strength`.
    """
    tokens = Tokens.of(lens, block_size, heads, seed)
    for seq, seq_len in enumerate(lens):
        released = max(0, seq_len - window) // block_size
        tokens.key_cache[tokens.block_tables[seq, :released]] = np.nan
        tokens.value_cache[tokens.block_tables[seq, :released]] = np.nan
        tokens.block_tables[seq, :released] = -1
    query = strength * np.random.default_rng(seed + 1).standard_normal(
        (len(lens), heads, HEAD_DIM), dtype=np.float32
    )
    return Case(query, tokens, np.array(lens, np.int32), window)


class Window(WeightsTask):
    """A warp has one head of one sequence."""

    answer = "decode"
    lesson = "13_prefill"
    max_examples = 30
    hints = (
        "The query has position seq_len - 1. With a window of 1, it looks only at the key of that position: which "
        "key is the first then?",
        "The first key is seq_len - window, but at least 0, so loop over range(max(0, seq_len - window), seq_len).",
        "In the loop, as in lesson 08, compute the block and offset of the token, the score with warp_sum, "
        "new_largest, rescale, weight, total and weighted.",
    )
    wrong = (
        Wrong("a key too many", "seq_len - window)", "seq_len - window - 1)", "right", "must look at key"),
        Wrong("a key too few", "seq_len - window)", "seq_len - window + 1)", "right", "reads no key"),
        Wrong("no end at 0", "max(0, seq_len - window)", "seq_len - window", "right", "where no token is"),
        Wrong(
            "the first keys in place of the last",
            "range(max(0, seq_len - window), seq_len)",
            "range(min(window, seq_len))",
            "right",
            "must look at key",
        ),
        Wrong(
            "whole blocks from the first key's on",
            "max(0, seq_len - window)",
            "max(0, seq_len - window) // block_size * block_size",
            "right",
            "must look at key",
        ),
        Wrong(
            "hidden keys are read and then left out",
            "range(max(0, seq_len - window), seq_len):\n"
            "        block, offset = block_tables[seq, token // block_size], token % block_size\n"
            "        score = warp_sum(mine * key_cache[block, offset, head, lane])\n",
            "range(seq_len):\n"
            "        block, offset = block_tables[seq, token // block_size], token % block_size\n"
            "        score = warp_sum(mine * key_cache[block, offset, head, lane])\n"
            "        if token < seq_len - window:\n"
            "            continue\n",
            "sanitizer",
            "negative index",
        ),
        Wrong(
            "hidden keys are read where their block is kept",
            "range(max(0, seq_len - window), seq_len):\n"
            "        block, offset = block_tables[seq, token // block_size], token % block_size\n"
            "        score = warp_sum(mine * key_cache[block, offset, head, lane])\n",
            "range(max(0, seq_len - window) // block_size * block_size, seq_len):\n"
            "        block, offset = block_tables[seq, token // block_size], token % block_size\n"
            "        score = warp_sum(mine * key_cache[block, offset, head, lane])\n"
            "        if token < seq_len - window:\n"
            "            continue\n",
            "traffic",
            "a query looks at 6 keys",
        ),
    )

    def worked(self) -> Case:
        """Return the case of the statement."""
        return case_of([8], 3, 2)

    def boundaries(self) -> Sequence[Case]:
        """Return windows around the sequence's and the block's length, and sequences without tokens."""
        sizes = (
            (1, 1),
            (1, 2),
            (2, 1),
            (2, 2),
            (3, 2),
            (4, 4),
            (5, 4),
            (8, 4),
            (9, 4),
            (9, 5),
            (9, 9),
            (9, 20),
            (0, 3),
        )
        return [
            *(case_of([seq_len], window) for seq_len, window in sizes),
            case_of([6, 0, 3, 13], 4, 3, 2, 1),
            case_of([1, 1, 4, 7], 4, 4, 2, 1, 1000),
        ]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases; lengths shrink towards 1, since 0 hides most mistakes."""
        lens = st.lists(st.sampled_from((*range(1, 14), 0)), min_size=1, max_size=2)
        sizes = st.integers(1, 9), st.sampled_from((4, 2, 3, 1)), st.integers(1, 2), st.integers(0, 99)
        return st.builds(case_of, lens, *sizes, st.sampled_from((3, 3, 100)))

    def weight(self, case: Case) -> int:
        """Return the number of tokens and sequences."""
        return int(case.seq_lens.sum()) + len(case.seq_lens) + case.query.shape[1]

    def describe(self, case: Case) -> str:
        """Return lengths, window and block tables; the numbers are random."""
        num_seqs, heads, _ = case.query.shape
        return "\n".join(
            [
                f"seq_lens = {case.seq_lens.tolist()}",
                f"window = {case.window}",
                f"{assigned('block_tables', case.tokens.block_tables)}, blocks of "
                f"{plural(case.tokens.key_cache.shape[1], 'slot')}",
                "value t is 1 in dimension t and 0 in all others, so that out holds the weights of the keys",
                f"decode[({num_seqs}, {heads}), 32](...)",
            ]
        )

    def arguments(self, case: Case) -> tuple[Any, ...]:
        """Return the arguments of the kernel after `out`."""
        tokens = case.tokens
        arrays = case.query, tokens.key_cache, tokens.value_cache, tokens.block_tables
        return *arrays, case.seq_lens, case.window

    def rows(self, case: Case) -> list[Row]:
        """Return the window of each sequence's last token."""
        return [
            Row(
                f"sequence {seq} of {plural(seq_len, 'token')}",
                seq,
                max(0, seq_len - case.window),
                seq_len - 1,
            )
            for seq, seq_len in enumerate(case.seq_lens.tolist())
        ]

    def measured(self) -> Case:
        """Return sequences that begin before the window, in the same block, and one that is shorter."""
        return case_of([13, 7, 3], 6)

    def limits(self, report: Report) -> Sequence[Limit]:
        """The queries look at 6, 6 and 3 keys of 4 sectors."""
        why = (
            "of the 3 sequences, a query looks at 6 keys, 6 keys and 3 keys; a key of 32 floats lies in 4 sectors, and "
            "so does a value"
        )
        return [sectors(report, name, 15 * 4, 15 * 32 * 4, why) for name in ("key_cache", "value_cache")]


TASK = Window()
