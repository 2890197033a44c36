"""Exercise 10: attention of one query for each sequence, through the block table."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ... import reference
from ...draw.picture import Picture
from ...draw.text import plural
from ...lockstep.profiler.report import Report
from ..aids.paged import block_tables_of, paged, way_to
from ..aids.sectors import sectors
from ..checker.task import Limit, Task, Wrong
from ..checker.values import Mistake, assigned

BEFORE = -7.0
"""What `out` holds before the launch."""

FAULTS = {
    "unscaled": "as if the weights came from scores that were not multiplied by scale",
    "overflow": "as if exp were taken of the scores themselves, and not of what they are below the largest one",
    "above": "as if the largest score were never below 0, so that exp gives 0 if all scores are far below",
    "raw": "as if the largest score were not multiplied by scale",
    "latest": "as if the last score were taken for the largest",
    "own": "as if each thread took only its own dimension for the score, not the sum over all of them",
    "kept": "as if score were not 0 again at the start of each token",
    "head": "as if all heads had the keys of head 0",
    "newest": "as if weighted held the last token alone, and not the sum over all of them",
    "undivided": "as if the weights were not divided by their sum",
    "table": "as if each sequence had the blocks 0, 1, 2 and so on, whatever its block table says",
    "keys": "as if keys were taken for values",
    "first": "as if the first token were left out",
    "last": "as if the last token were left out",
    "tail": "as if the slots behind the end of a sequence were read",
}
"""Mistakes by their names, as sentences."""


@dataclass
class Case:
    """Arguments of the kernel, and the keys and values of each sequence."""

    query: Any
    cache: Any
    block_tables: Any
    seq_lens: Any
    keys: list[Any]
    values: list[Any]

    @property
    def block_size(self) -> int:
        """Slots of a block."""
        return int(self.cache.shape[2])


def case_of(
    lens: list[int],
    block_size: int = 4,
    heads: int = 1,
    dims: int = 2,
    seed: int = 0,
    strength: int = 1,
    below: bool = False,
) -> Case:
    """Return a case of small integers; values say of which head, token and dimension they are.

    The queries are multiplied by `strength`, and all scores are negative with `below`.
    """
    if strength > 1:
        block_size = 1  # no slots without a token in a block, so that NaN comes from the scores
    rng = np.random.default_rng(seed)
    query = strength * rng.choice([-3, -2, -1, 1, 2, 3], (len(lens), heads, dims)).astype(np.float32)
    keys, values = [], []
    for seq_len in lens:
        token, head, dim = np.indices((seq_len, heads, dims))
        keys.append(rng.integers(-3, 4, token.shape).astype(np.float32))
        if below:
            keys[-1] = -np.sign(query[len(keys) - 1]) * (1 + np.abs(keys[-1]))
        values.append((100 * head + 10 * (token + 1) + dim).astype(np.float32))
    tables = block_tables_of(lens, block_size, seed)
    return Case(
        query, _cache(keys, values, tables, block_size), tables, np.array(lens, np.int32), keys, values
    )


def _cache(keys: list[Any], values: list[Any], tables: Any, block_size: int) -> Any:
    return np.stack([paged(rows, tables, block_size) for rows in (keys, values)], axis=1)


def _with_scores(scores: list[int], dims: int) -> Case:
    """Return a case of one sequence whose tokens have these scores."""
    count = len(scores)
    query = np.ones((1, 1, dims), np.float32)
    keys = np.repeat(np.array(scores, np.float32) / np.float32(dims**0.5), dims).reshape(count, 1, dims)
    values = 10 + np.arange(count * dims, dtype=np.float32).reshape(keys.shape)
    tables = np.arange(count, dtype=np.int32)[None]
    cache = np.stack([keys, values], axis=1)[:, :, None]
    return Case(query, cache, tables, np.array([count], np.int32), [keys], [values])


class Decode(Task):
    """A thread block has one head of one sequence."""

    answer = "decode"
    lesson = "06_right_before_fast"
    rtol = 5e-4
    atol = 1e-5
    hints = (
        "Make each pass a loop over range(seq_lens[seq]), so that it reads no slot without a token.",
        "In both passes, the token is at block = block_tables[seq, token // block_size], offset = token % "
        "block_size. Its score is the sum of query[seq, head, i] * cache[block, 0, offset, head, i] over all i.",
        "Pass 1: largest = max(largest, score * scale). Pass 2: weight = math.exp(score * scale - largest). Add "
        "weight to total, and weight times this thread's element of the value to weighted.",
        "At the end, out[seq, head, dim] = weighted / total, but for a sequence without tokens total is 0.",
    )
    wrong = (
        Wrong("no scale", "float32(1 / math.sqrt(head_dim))", "float32(1)", "right",
              "as if the weights came from scores that were not multiplied by scale"),
        Wrong("the largest score is not subtracted", "math.exp(score * scale - largest)",
              "math.exp(score * scale)", "right", "as if exp were taken of the scores themselves"),
        Wrong("the last score for the largest", "largest = max(largest, score * scale)",
              "largest = score * scale", "right", "as if the last score were taken for the largest"),
        Wrong("the largest score without scale", "max(largest, score * scale)", "max(largest, score)",
              "right", "as if the largest score were not multiplied by scale"),
        Wrong("only the last value", "weighted += weight", "weighted = weight", "right",
              "as if weighted held the last token alone"),
        Wrong("the value of the next slot", "cache[block, 1, offset,",
              "cache[block, 1, (offset + 1) % block_size,", "right", "slots without a token were read"),
        Wrong("no division by the sum", "weighted / total if seq_lens[seq] > 0 else float32(0)", "weighted",
              "right", "as if the weights were not divided"),
        Wrong("out taken to be 0", "weighted / total if seq_lens[seq] > 0",
              "(out[seq, head, dim] + weighted) / total if seq_lens[seq] > 0", "right",
              "as if out were 0 before the launch"),
        Wrong("a sequence without tokens", "weighted / total if seq_lens[seq] > 0 else float32(0)",
              "weighted / total", "right", "sequence 0 has no token, so out[0] must be 0"),
        Wrong("keys for values", "cache[block, 1,", "cache[block, 0,", "right",
              "as if keys were taken for values"),
        Wrong(
            "whole blocks",
            "        largest = max(largest, score * scale)\n    for token in range(seq_lens[seq]):",
            "        largest = max(largest, score * scale)\n"
            "    for token in range(-(-seq_lens[seq] // block_size) * block_size):",
            "right",
            "as if the slots behind the end of a sequence",
        ),
        Wrong(
            "a third pass",
            "        largest = max(largest, score * scale)\n",
            "        largest = max(largest, score * scale)\n"
            "    for token in range(seq_lens[seq]):\n"
            "        block, offset = block_tables[seq, token // block_size], token % block_size\n"
            "        score = float32(0)\n"
            "        for i in range(head_dim):\n"
            "            score += query[seq, head, i] * cache[block, 0, offset, head, i]\n"
            "        total += math.exp(score * scale - largest) - math.exp(score * scale - largest)\n",
            "traffic",
            "two passes are enough",
        ),
    )  # fmt: skip

    def worked(self) -> Case:
        """Return the case of the statement."""
        keys = [np.array([0, 1.0986], np.float32).reshape(2, 1, 1)]
        values = [np.array([10, 20], np.float32).reshape(2, 1, 1)]
        tables = np.array([[1, 0]], np.int32)
        lens = np.array([2], np.int32)
        return Case(
            np.ones((1, 1, 1), np.float32), _cache(keys, values, tables, 2), tables, lens, keys, values
        )

    def boundaries(self) -> Sequence[Case]:
        """Return lengths around multiples of the block size, several heads, large scores, and empty sequences."""
        lens = [1], [2], [3], [4], [5], [8], [9], [0], [4, 1], [0, 5], [3, 8, 6]
        return [
            *(case_of(one) for one in lens),
            case_of([3], 1),
            case_of([6, 7], 4, 2, 4),
            case_of([4], 4, 1, 4, strength=300),
            case_of([4], 4, 1, 4, strength=300, below=True),
        ]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases; lengths shrink towards 1, since 0 hides most mistakes."""
        lens = st.lists(st.sampled_from((*range(1, 10), 0)), min_size=1, max_size=3)
        sizes = (
            st.sampled_from((4, 2, 3, 1)),
            st.integers(1, 2),
            st.sampled_from((2, 1, 4)),
            st.integers(0, 99),
        )
        return st.builds(case_of, lens, *sizes, st.sampled_from((1, 1, 100)), st.booleans())

    def weight(self, case: Case) -> int:
        """Return the number of keys and queries."""
        return int(case.query.size + sum(keys.size for keys in case.keys))

    def describe(self, case: Case) -> str:
        """Return the arguments, and what the tokens hold."""
        num_seqs, heads, dims = case.query.shape
        keys = (assigned(f"keys of sequence {i}", one) for i, one in enumerate(case.keys) if len(one))
        values = (assigned(f"values of sequence {i}", one) for i, one in enumerate(case.values) if len(one))
        return "\n".join(
            [
                f"seq_lens = {case.seq_lens.tolist()}, blocks of {plural(case.block_size, 'slot')}",
                assigned("block_tables", case.block_tables),
                assigned("query", case.query),
                *keys,
                *values,
                f"decode[({num_seqs}, {heads}), {dims}](...)",
            ]
        )

    def run(self, answer: Any, case: Case, before: float = BEFORE) -> dict[str, Any]:
        """Launch the kernel on an array that holds the same number everywhere."""
        out = np.full_like(case.query, before)
        num_seqs, heads, dims = out.shape
        answer[(num_seqs, heads), dims](out, case.query, case.cache, case.block_tables, case.seq_lens)
        return {"out": out}

    def expected(self, case: Case) -> dict[str, Any]:
        """Return dense attention, sequence by sequence."""
        rows = zip(case.query, case.keys, case.values, strict=True)
        out = np.concatenate([reference.attention(query[None], key, value) for query, key, value in rows])
        return {"out": out.astype(np.float32)}

    def _fault(self, case: Case, fault: str) -> Any:
        """Return what a mistake makes of the output."""
        out = self.expected(case)["out"]
        for seq, (query, key, value) in enumerate(zip(case.query, case.keys, case.values, strict=True)):
            if not len(key):
                continue
            if fault in ("table", "tail"):
                size = case.block_size
                table = case.block_tables[seq] if fault == "tail" else np.arange(len(case.cache))
                slots = case.cache[table].swapaxes(1, 2).reshape(-1, 2, *key.shape[1:])
                count = -(-len(key) // size) * size if fault == "tail" else len(key)
                key, value = slots[:count, 0], slots[:count, 1]
            elif fault in ("first", "last"):
                key, value = (rows[1:] if fault == "first" else rows[:-1] for rows in (key, value))
            product = query * (key[:, :1] if fault == "head" else key)
            raw = product if fault == "own" else product.sum(axis=-1, keepdims=True)
            raw = raw.cumsum(axis=0) if fault == "kept" else raw
            score = raw if fault == "unscaled" else raw * np.float32(1 / np.sqrt(query.shape[1]))
            base = raw if fault == "raw" else score[-1:] if fault == "latest" else score
            lowest = 0 if fault == "above" else -np.inf
            largest = 0 if fault == "overflow" else base.max(axis=0, initial=lowest)
            weight = np.exp(score - largest)
            weighted = weight * (key if fault == "keys" else value)
            total = 1 if fault == "undivided" else weight.sum(axis=0)
            out[seq] = (weighted[-1] if fault == "newest" else weighted.sum(axis=0)) / total
        return out

    def judge(self, case: Case, result: dict[str, Any]) -> Mistake | None:
        """Say what was not written, or must be 0."""
        mistake = super().judge(case, result)
        if mistake is None:
            return None
        out = result["out"]
        if (out == BEFORE).any():
            place = ", ".join(map(str, np.argwhere(out == BEFORE)[0]))
            return Mistake(f"nothing was written to out[{place}]", mistake.got, mistake.expected)
        empty = [seq for seq, seq_len in enumerate(case.seq_lens) if seq_len == 0 and out[seq].any()]
        if empty:
            what = f"sequence {empty[0]} has no token, so out[{empty[0]}] must be 0"
            return Mistake(what, mistake.got, mistake.expected)
        return mistake

    def attempt(self, answer: Any, case: Case) -> Mistake | None:
        """Run the answer; if numbers are wrong, run it once more to learn why."""
        mistake = super().attempt(answer, case)
        if mistake is None or not mistake.what.endswith(" wrong"):
            return mistake
        first, second = (self.run(answer, copy.deepcopy(case), before)["out"] for before in (BEFORE, -BEFORE))
        if not np.array_equal(first, second, equal_nan=True):
            cause = f"as if out were 0 before the launch; it held {BEFORE:g}"
            return Mistake(f"{mistake.what}: {cause}", mistake.got, mistake.expected)
        # NaN hides what made it. With numbers in the free slots, it comes from the scores alone.
        small = np.linspace(-0.5, 0.5, case.cache.size, dtype=np.float32).reshape(case.cache.shape)
        filled = replace(case, cache=np.where(np.isnan(case.cache), small, case.cache))
        out, again = (self.run(answer, copy.deepcopy(one))["out"] for one in (case, filled))
        with np.errstate(all="ignore"):
            found = self._faults(answer, filled, again)
        cause = ", or ".join(FAULTS[name] for name in found)
        if not found and not np.array_equal(out, again, equal_nan=True):
            cause = "slots without a token were read, for other numbers in them give another result"
        what = f"{mistake.what}: {cause}" if cause else mistake.what
        return Mistake(what, mistake.got, mistake.expected)

    def _faults(self, answer: Any, case: Case, out: Any) -> list[str]:
        """Return the mistakes that make the output of an answer on a case; none if they are many."""
        right = self.expected(case)["out"]
        outcomes = {name: self._fault(case, name) for name in FAULTS}
        found = [
            name
            for name, outcome in outcomes.items()
            # A test of total > 0 makes 0 of NaN.
            if any(
                np.allclose(out, one, self.rtol, self.atol, equal_nan=True)
                for one in (outcome, np.nan_to_num(outcome, nan=0))
            )
            and not np.allclose(outcome, right, self.rtol, self.atol, equal_nan=True)
        ]
        finite = {
            name: abs(outcomes[name] - out).max() for name in found if np.isfinite(outcomes[name]).all()
        }
        if finite:
            found = [name for name, error in finite.items() if error <= 1e-5 + 10 * min(finite.values())]
        elif len(found) > 1:
            # NaN has many causes, which large scores tell apart.
            for one in map(_with_scores, ([0, 0], [120], [-120], [120, 0], [120]), (1, 1, 1, 1, 4)):
                right = self.expected(one)["out"]
                good = np.allclose(self.run(answer, copy.deepcopy(one))["out"], right)
                found = [name for name in found if np.allclose(self._fault(one, name), right) == good]
        return found if len(found) <= 2 else []

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return the way to the last token of the first sequence that is wrong."""
        out, right = self.run(answer, case)["out"], self.expected(case)["out"]
        for seq, seq_len in enumerate(case.seq_lens.tolist()):
            if seq_len and not np.allclose(out[seq], right[seq], self.rtol, self.atol):
                return way_to(case.block_tables, case.seq_lens.tolist(), case.block_size, seq, seq_len - 1)
        return None

    def measured(self) -> Case:
        """Return 9, 0 and 5 tokens, and one head of 32 dimensions."""
        return case_of([9, 0, 5], 4, 1, 32, 5)

    def limits(self, report: Report) -> Sequence[Limit]:
        """In each pass, all threads read the same number of a key at a time; a value is read once."""
        why = (
            "two passes are enough, which read the 32 numbers of a key one at a time, a sector each; a value is read "
            "once, by neighbouring threads from 4 sectors; and there are 14 tokens"
        )
        return [sectors(report, "cache", 14 * (2 * 32 + 4), 14 * 3 * 32 * 4, why)]


TASK = Decode()
