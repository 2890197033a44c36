"""Exercise 16: a thread block for all query heads that share a KV head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ... import lockstep, reference
from ...draw.kernels.warp_access import WarpAccess
from ...draw.picture import Picture
from ...draw.text import plural
from ...lockstep.profiler.report import Report
from ..aids.paged import block_tables_of, paged
from ..aids.reads import reads_of, what_reads
from ..aids.sectors import sectors
from ..checker.task import Limit, Task, Wrong
from ..checker.values import Mistake, assigned

BEFORE = -7.0
"""What `out` holds before the launch."""


@dataclass
class Case:
    """Arguments of the kernel, and the keys and values of each sequence."""

    query: Any
    key_cache: Any
    value_cache: Any
    block_tables: Any
    seq_lens: Any
    keys: list[Any]
    values: list[Any]

    @property
    def group(self) -> int:
        """Query heads to a KV head."""
        return int(self.query.shape[1] // self.key_cache.shape[2])


def case_of(
    lens: list[int],
    block_size: int = 4,
    kv_heads: int = 1,
    group: int = 1,
    dims: int = 2,
    seed: int = 0,
    strength: int = 1,
) -> Case:
    """Return a case of small integers; values say of which KV head, token and dimension they are.

    The queries are multiplied by `strength`.
    """
    rng = np.random.default_rng(seed)
    query = strength * rng.choice([-3, -2, -1, 1, 2, 3], (len(lens), kv_heads * group, dims)).astype(
        np.float32
    )
    keys, values = [], []
    for seq_len in lens:
        token, head, dim = np.indices((seq_len, kv_heads, dims))
        keys.append(rng.integers(-3, 4, token.shape).astype(np.float32))
        values.append((100 * (head + 1) + 10 * token + dim).astype(np.float32))
    tables = block_tables_of(lens, block_size, seed)
    key_cache, value_cache = (paged(rows, tables, block_size) for rows in (keys, values))
    return Case(query, key_cache, value_cache, tables, np.array(lens, np.int32), keys, values)


class GroupedQueries(Task):
    """A thread block has one KV head of one sequence."""

    answer = "attention"
    lesson = "09_ragged_batches"
    rtol = 5e-4
    atol = 1e-5
    max_examples = 30
    hints = (
        "The query heads of a group are neighbours: KV head 0 has query heads 0 to group - 1, KV head 1 the next "
        "ones.",
        "Only the threads of one query head need to load: if member == 0, key[dim] = key_cache[block, offset, "
        "kv_head, dim].",
        "You need two barriers per token: one before the key is used, one before the next key overwrites it.",
        "As in lesson 08: new_largest, rescale = exp(largest - new_largest) and weight = exp(score - new_largest). "
        "Multiply total and weighted by rescale before you add to them.",
    )
    wrong = (
        Wrong(
            "the head map of neighbours in turn",
            "kv_head * group + member",
            "member * (query.shape[1] // group) + kv_head",
            "right",
            "as if query head h shared KV head h % 2",
        ),
        Wrong(
            "all threads have the same query head",
            "kv_head * group + member",
            "kv_head * group",
            "right",
            "nothing",
        ),
        Wrong(
            "no barrier before the key is used",
            "        cuda.syncthreads()  # the key and the value are there\n",
            "",
            "sanitizer",
            "race",
        ),
        Wrong(
            "no barrier after the key was used",
            "        cuda.syncthreads()  # all threads have used them\n",
            "",
            "sanitizer",
            "race",
        ),
        Wrong(
            "no rescaling", "weighted * rescale +", "weighted +", "right", "as if weighted were not rescaled"
        ),
        Wrong(
            "the value from the cache, for each query head",
            "weight * value[dim]",
            "weight * value_cache[block, offset, kv_head, dim]",
            "traffic",
            "for all 4 query heads of its group",
        ),
        Wrong(
            "whole blocks, with the slots behind the last token",
            "range(seq_lens[seq])",
            "range(-(-seq_lens[seq] // block_size) * block_size)",
            "right",
            "where no token is: its key is NaN",
        ),
        Wrong(
            "no scale",
            "float32(1 / math.sqrt(head_dim))",
            "float32(1)",
            "right",
            "were not multiplied by scale",
        ),
    )

    def worked(self) -> Case:
        """Return the case of the statement."""
        return case_of([9], 4, 2, 3, 32, 1)

    def boundaries(self) -> Sequence[Case]:
        """Return one and more heads of each kind, and lengths around a multiple of the block size."""
        heads = (1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (3, 2)
        lens = [1], [3], [4], [5], [0], [2, 0], [4, 7]
        return [
            *(case_of(one) for one in lens),
            *(case_of([3], 4, kv_heads, group) for kv_heads, group in heads),
            case_of([5], 4, 2, 4, 32),
            *(case_of([4], 4, 2, 2, 4, seed, 300) for seed in range(3)),
        ]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases; lengths shrink towards 1, since 0 hides most mistakes."""
        lens = st.lists(st.sampled_from((*range(1, 8), 0)), min_size=1, max_size=2)
        sizes = st.integers(1, 3), st.integers(1, 4), st.sampled_from((2, 1, 4)), st.integers(0, 99)
        return st.builds(case_of, lens, st.sampled_from((4, 2, 3, 1)), *sizes, st.sampled_from((1, 1, 100)))

    def sanitized(self) -> Sequence[Case]:
        """Return a thread block of one warp, one of several, and several thread blocks."""
        return [case_of([3], 4, 1, 2), case_of([3], 4, 1, 2, 32), case_of([2, 0], 4, 2, 3, 32)]

    def weight(self, case: Case) -> int:
        """Return the number of keys and queries."""
        return int(case.query.size + sum(keys.size for keys in case.keys))

    def describe(self, case: Case) -> str:
        """Return the arguments, and what the tokens hold."""
        _, block_size, kv_heads, dims = case.key_cache.shape
        heads = plural(case.query.shape[1], "query head"), plural(kv_heads, "KV head")
        tokens = [
            assigned(f"{name} of sequence {i}", one)
            for name, rows in (("keys", case.keys), ("values", case.values))
            for i, one in enumerate(rows)
            if len(one)
        ]
        return "\n".join(
            [
                f"seq_lens = {case.seq_lens.tolist()}, blocks of {plural(block_size, 'slot')}",
                f"{', '.join(heads)}, {plural(dims, 'dimension')}",
                assigned("block_tables", case.block_tables),
                assigned("query", case.query),
                *tokens,
                f"attention[({len(case.seq_lens)}, {kv_heads}), ({dims}, {case.group})](...)",
            ]
        )

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Launch the kernel on an array that holds the same number everywhere."""
        out = np.full_like(case.query, BEFORE)
        kv_heads, dims = case.key_cache.shape[2:]
        grid, threads = (len(out), kv_heads), (dims, case.group)
        arrays = case.query, case.key_cache, case.value_cache, case.block_tables, case.seq_lens
        answer[grid, threads](out, *arrays)
        hidden = (np.isnan(out) | (out == 0)).all(axis=2) & (case.seq_lens > 0)[:, None]
        if not hidden.any():
            return {"out": out, "reads": ""}
        # The output does not show which keys were looked at.
        seq, head = (int(place) for place in np.argwhere(hidden)[0])
        thread_block = seq, head // case.group, 0
        slots = reads_of(
            (answer, grid, threads, np.full_like(out, BEFORE), *arrays), thread_block, case.key_cache
        )
        seq_len = int(case.seq_lens[seq])
        reads = what_reads(
            slots, case.block_tables, case.key_cache.shape[1], case.seq_lens, seq, range(seq_len)
        )
        of = f"thread block ({seq}, {head // case.group}) of sequence {seq}, which has {plural(seq_len, 'token')},"
        return {"out": out, "reads": reads and f"{of} {reads}"}

    def expected(self, case: Case) -> dict[str, Any]:
        """Return dense attention, sequence by sequence."""
        rows = zip(case.query, case.keys, case.values, strict=True)
        out = np.concatenate([reference.attention(query[None], key, value) for query, key, value in rows])
        return {"out": out.astype(np.float32)}

    def _mapped(self, case: Case, kv_head_of: Any) -> Any:
        """Return attention with another head map."""
        out = np.zeros_like(case.query)
        for seq, (query, key, value) in enumerate(zip(case.query, case.keys, case.values, strict=True)):
            rows = (array[:, kv_head_of] for array in (key, value))
            out[seq] = reference.attention(query[None], *rows)[0]
        return out

    def _faults(self, case: Case) -> dict[str, Any]:
        """Return what some mistakes make of the output, by what is said of them."""
        heads, kv_heads = np.arange(case.query.shape[1]), case.key_cache.shape[2]
        unscaled, unrescaled, neither, short = (np.zeros_like(case.query) for _ in range(4))
        for seq, (query, key, value) in enumerate(zip(case.query, case.keys, case.values, strict=True)):
            if not len(key):
                continue
            short[seq] = reference.attention(query[None], key[:-1], value[:-1])[0]
            unscaled[seq] = reference.attention(query[None], key, value, scale=1)[0]
            key, value = (np.repeat(rows, case.group, axis=1) for rows in (key, value))
            score = np.einsum("hd,nhd->nh", query, key) / np.sqrt(query.shape[1])
            weight = np.exp(score - np.maximum.accumulate(score, axis=0))
            total = np.exp(score - score.max(axis=0)).sum(axis=0)
            unrescaled[seq] = np.einsum("nh,nhd->hd", weight, value) / total[:, None]
            neither[seq] = np.einsum("nh,nhd->hd", weight, value) / weight.sum(axis=0)[:, None]
        return {
            f"as if query head h shared KV head h % {kv_heads}, and not h // {case.group}": self._mapped(
                case, heads % kv_heads
            ),
            f"as if query head h shared KV head h // {kv_heads}, and not h // {case.group}": self._mapped(
                case, np.minimum(heads // kv_heads, kv_heads - 1)
            ),
            "as if all query heads shared KV head 0": self._mapped(case, 0 * heads),
            "as if the scores were not multiplied by scale": unscaled,
            "as if weighted were not rescaled when the largest score changes": unrescaled,
            "as if total and weighted were not rescaled when the largest score changes": neither,
            "as if the last token were left out": short,
        }

    def judge(self, case: Case, result: dict[str, Any]) -> Mistake | None:
        """Name the mistake if the output is what it makes, and no other mistake makes the same."""
        mistake = super().judge(case, result)
        if mistake is None:
            return None
        out, right = result["out"], self.expected(case)["out"]
        what = mistake.what
        if (out == BEFORE).any():
            place = ", ".join(map(str, np.argwhere(out == BEFORE)[0]))
            what = f"nothing was written to out[{place}]"
        elif (out[case.seq_lens == 0] != 0).any():
            what = "a sequence without tokens must give 0"
        else:

            def same(one: Any, other: Any) -> bool:
                return np.allclose(one, other, self.rtol, self.atol, equal_nan=True)

            faults = self._faults(case).items()
            named = [name for name, one in faults if same(out, one) and not same(right, one)]
            maps = "as if query head h shared", "as if all query heads shared"
            if len(named) > 1 and all(name.startswith(maps) for name in named):
                named = ["as if query heads read the KV head of another group"]
            found = [result["reads"]] if result["reads"] else named
            what += f": {found[0]}" if len(found) == 1 else ""
        return Mistake(what, mistake.got, mistake.expected)

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return what the first warp of the first thread block loads of a key, if the output is right."""
        result = self.run(answer, case)
        if self.judge(case, result) is not None:
            return None  # no picture of loads explains wrong numbers
        out = result["out"]
        kv_heads, dims = case.key_cache.shape[2:]
        arguments = case.query, case.key_cache, case.value_cache, case.block_tables, case.seq_lens
        accesses = lockstep.trace(answer, (len(out), kv_heads), (dims, case.group), out, *arguments)
        title = f"A key of KV head 0, for {case.group} query head{'s' * (case.group != 1)}"
        try:
            return WarpAccess.of(accesses, "key_cache", title=title)
        except ValueError:  # nothing is loaded
            return None

    def measured(self) -> Case:
        """Return 5 and 9 tokens, 2 KV heads and groups of 4 query heads."""
        return case_of([5, 9], 4, 2, 4, 32)

    def limits(self, report: Report) -> Sequence[Limit]:
        """14 tokens have 2 KV heads of 4 sectors; a thread block has 4 warps, and 2 barriers for each token."""
        why = (
            "14 tokens have 2 KV heads of 4 sectors each, and a thread block can load each once for all 4 query heads "
            "of its group"
        )
        barriers = (
            "a thread block of 4 warps needs 2 barriers for each token, and there are 2 KV heads of 14 tokens: 224, "
            "and half as many to spare"
        )
        return [
            *(sectors(report, name, 112, 14 * 2 * 32 * 4, why) for name in ("key_cache", "value_cache")),
            Limit("barriers of a warp", report.work().barriers, 3 * 14 * 2 * 4, barriers),
        ]


TASK = GroupedQueries()
