"""Exercise 22: prefill of chunks, whose queries are the last tokens of their sequences."""

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
    cu_seqlens_q: Any


def case_of(
    sequences: list[tuple[int, int]], block_size: int = 4, heads: int = 1, seed: int = 0, strength: int = 3
) -> Case:
    """Return a case of sequences with so many tokens before the chunk, and in it.

    The scores have about the standard deviation `strength`.
    """
    lens = [before + chunk for before, chunk in sequences]
    cu_seqlens_q = np.cumsum([0, *(chunk for _, chunk in sequences)]).astype(np.int32)
    rng = np.random.default_rng(seed + 1)
    query = strength * rng.standard_normal((int(cu_seqlens_q[-1]), heads, HEAD_DIM), dtype=np.float32)
    return Case(query, Tokens.of(lens, block_size, heads, seed), np.array(lens, np.int32), cu_seqlens_q)


class ChunkedPrefill(WeightsTask):
    """A warp has one head of one query."""

    answer = "prefill"
    lesson = "13_prefill"
    max_examples = 25
    hints = (
        "Row r belongs to sequence s if cu_seqlens_q[s] <= r < cu_seqlens_q[s + 1]. A while loop can find s; think "
        "of sequences without queries.",
        "The last query of the chunk is at position seq_lens[s] - 1. How many rows before the last is row r?",
        "position = seq_lens[seq] - (cu_seqlens_q[seq + 1] - row), and the loop is over range(position + 1).",
    )
    wrong = (
        Wrong(
            "the corner of the mask at the top left",
            "seq_lens[seq] - (cu_seqlens_q[seq + 1] - row)",
            "row - cu_seqlens_q[seq]",
            "right",
            "must look at keys",
        ),
        Wrong(
            "a row before its sequence",
            "<= row",
            "< row",
            "right",
            "its thread block reads key 0 of sequence 0",
        ),
        Wrong("no causal mask", "range(position + 1)", "range(seq_lens[seq])", "right", "must look at key 0"),
        Wrong(
            "the query's own key is left out",
            "range(position + 1)",
            "range(position)",
            "right",
            "its thread block reads no key",
        ),
        Wrong(
            "empty chunks are not passed over",
            "    while cu_seqlens_q[seq + 1] <= row:",
            "    if cu_seqlens_q[seq + 1] <= row:",
            "right",
            "its thread block reads key 0 of sequence 1",
        ),
        Wrong(
            "the tokens of the chunk are not in seq_lens",
            "seq_lens[seq] - (cu_seqlens_q[seq + 1] - row)",
            "seq_lens[seq] + row - cu_seqlens_q[seq]",
            "right",
            "where no token is: its key is NaN",
        ),
        Wrong(
            "keys behind the query are read and then left out",
            "range(position + 1):\n"
            "        block, offset = block_tables[seq, token // block_size], token % block_size\n"
            "        score = warp_sum(mine * key_cache[block, offset, head, lane])\n",
            "range(seq_lens[seq]):\n"
            "        block, offset = block_tables[seq, token // block_size], token % block_size\n"
            "        score = warp_sum(mine * key_cache[block, offset, head, lane])\n"
            "        if token > position:\n"
            "            continue\n",
            "traffic",
            "the queries look at 6 + 7 + 8, 4 and 1 + 2 keys",
        ),
    )

    def worked(self) -> Case:
        """Return the case of the statement."""
        return case_of([(3, 2), (4, 0), (0, 3)])

    def boundaries(self) -> Sequence[Case]:
        """Return prompts, pieces and decodes around the size of a block, and sequences without queries."""
        single = (0, 1), (0, 2), (0, 4), (0, 5), (1, 1), (3, 1), (4, 1), (2, 2), (3, 2), (4, 4)
        return [
            *(case_of([one]) for one in single),
            case_of([(0, 1), (0, 1)]),
            case_of([(2, 0), (0, 1)]),
            case_of([(1, 0), (2, 0), (1, 2), (3, 0)]),
            case_of([(2, 3), (5, 1), (0, 4)], 3, 2, 1),
            case_of([(0, 5), (4, 2)], 4, 2, 1, 1000),
        ]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases: at least one row."""
        sequence = st.tuples(st.integers(0, 8), st.sampled_from((1, 2, 3, 4, 5, 0)))
        sequences = st.lists(sequence, min_size=1, max_size=3).filter(
            lambda drawn: any(chunk for _, chunk in drawn)
        )
        return st.builds(
            case_of,
            sequences,
            st.sampled_from((4, 2, 3, 1)),
            st.integers(1, 2),
            st.integers(0, 99),
            st.sampled_from((3, 3, 100)),
        )

    def weight(self, case: Case) -> int:
        """Return the number of tokens, queries and sequences."""
        return int(case.seq_lens.sum() + case.query[:, :, 0].size + len(case.seq_lens))

    def describe(self, case: Case) -> str:
        """Return lengths, chunks and block tables; the numbers are random."""
        rows, heads, _ = case.query.shape
        return "\n".join(
            [
                f"seq_lens = {case.seq_lens.tolist()}",
                f"cu_seqlens_q = {case.cu_seqlens_q.tolist()}",
                f"{assigned('block_tables', case.tokens.block_tables)}, blocks of "
                f"{plural(case.tokens.key_cache.shape[1], 'slot')}",
                "value t is 1 in dimension t and 0 in all others, so that out holds the weights of the keys",
                f"prefill[({rows}, {heads}), 32](...)",
            ]
        )

    def arguments(self, case: Case) -> tuple[Any, ...]:
        """Return the arguments of the kernel after `out`."""
        tokens = case.tokens
        arrays = case.query, tokens.key_cache, tokens.value_cache, tokens.block_tables
        return *arrays, case.seq_lens, case.cu_seqlens_q

    def rows(self, case: Case) -> list[Row]:
        """Return what the queries look at: all keys up to their own."""
        rows: list[Row] = []
        for seq, seq_len in enumerate(case.seq_lens.tolist()):
            chunk = int(case.cu_seqlens_q[seq + 1] - case.cu_seqlens_q[seq])
            for i in range(chunk):
                name = f"row {len(rows)}, query {i} of the chunk of sequence {seq},"
                rows.append(Row(name, seq, 0, seq_len - chunk + i))
        return rows

    def measured(self) -> Case:
        """Return a piece of a prompt, a decode, a sequence without queries, and a prompt."""
        return case_of([(5, 3), (3, 1), (2, 0), (0, 2)])

    def limits(self, report: Report) -> Sequence[Limit]:
        """The queries look at 28 keys of 4 sectors."""
        why = "the queries look at 6 + 7 + 8, 4 and 1 + 2 keys; a key or value of 32 floats lies in 4 sectors"
        return [sectors(report, name, 28 * 4, 28 * 32 * 4, why) for name in ("key_cache", "value_cache")]


TASK = ChunkedPrefill()
