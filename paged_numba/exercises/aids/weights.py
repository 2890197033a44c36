"""`WeightsTask`: base class of attention tasks in which the output shows which keys a kernel looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ... import reference
from ...draw.kernels.mask import Mask
from ...draw.picture import Picture
from ..checker.task import Task
from ..checker.values import Mistake
from .paged import block_tables_of, paged
from .reads import reads_of, what_reads

HEAD_DIM = 32
"""A number for each lane of a warp. No sequence has more tokens."""

BEFORE = -7.0
"""What `out` holds before the launch."""


@dataclass(frozen=True)
class Row:
    """What a row of the output must be.

    Attributes
    ----------
    name : str
        Which query it is, as in ``query 2 of sequence 0``.
    seq : int
        The sequence.
    first, last : int
        The keys that the query looks at; none if `last` is less than `first`.
    """

    name: str
    seq: int
    first: int
    last: int


@dataclass
class Tokens:
    """Keys and values of some sequences, in a paged cache.

    Value t is 1 in dimension t and 0 in all others, so that the output of a query is the list of its weights.
    """

    keys: list[Any]
    key_cache: Any
    value_cache: Any
    block_tables: Any

    @classmethod
    def of(cls, seq_lens: list[int], block_size: int, heads: int, seed: int) -> Tokens:
        """Return random tokens."""
        rng = np.random.default_rng(seed)
        keys = [rng.standard_normal((seq_len, heads, HEAD_DIM), dtype=np.float32) for seq_len in seq_lens]
        eye = np.eye(HEAD_DIM, dtype=np.float32)[:, None]
        values = [np.repeat(eye[:seq_len], heads, axis=1) for seq_len in seq_lens]
        tables = block_tables_of(seq_lens, block_size, seed)
        return cls(keys, paged(keys, tables, block_size), paged(values, tables, block_size), tables)


class WeightsTask(Task):
    """Base class of tasks whose cases have `query` and `tokens`, and whose output is the weights of keys."""

    rtol = 1e-3
    atol = 1e-6

    def rows(self, case: Any) -> list[Row]:
        """Return what each row of the output must look at."""
        raise NotImplementedError

    def arguments(self, case: Any) -> tuple[Any, ...]:
        """Return the arguments of the kernel after `out`."""
        raise NotImplementedError

    def run(self, answer: Any, case: Any) -> dict[str, Any]:
        """Launch the kernel on an array that holds the same number everywhere.

        The result also has what is wrong with the keys that are read for a query, by its row and head, if its output is
        NaN or 0, so that it does not show which keys were looked at.
        """
        out, arguments = np.full_like(case.query, BEFORE), self.arguments(case)
        answer[out.shape[:2], HEAD_DIM](out, *arguments)
        key_cache, tables = case.tokens.key_cache, case.tokens.block_tables
        seq_lens, reads = [len(keys) for keys in case.tokens.keys], {}
        for i, row in enumerate(self.rows(case)):
            heads = np.flatnonzero(np.isnan(out[i]).any(axis=1) | (out[i] == 0).all(axis=1))
            if len(heads) and row.first <= row.last:
                head = int(heads[0])
                launch = answer, out.shape[:2], HEAD_DIM, np.full_like(out, BEFORE), *arguments
                slots = reads_of(launch, (i, head, 0), key_cache)
                keys = range(row.first, row.last + 1)
                reads[i, head] = what_reads(slots, tables, key_cache.shape[1], seq_lens, row.seq, keys)
                break  # the verdict is on the first query that is wrong
        return {"out": out, "reads": reads}

    def expected(self, case: Any) -> dict[str, Any]:
        """Return dense attention to the keys that each query looks at."""
        out = np.zeros_like(case.query)
        for i, row in enumerate(self.rows(case)):
            shown = slice(row.first, row.last + 1)
            key = case.tokens.keys[row.seq][shown]
            value = np.repeat(np.eye(HEAD_DIM)[shown, None], key.shape[1], axis=1)[: len(key)]
            out[i] = reference.attention(case.query[i : i + 1], key, value)[0]
        return {"out": out}

    def judge(self, case: Any, result: dict[str, Any]) -> Mistake | None:
        """Say which keys the first wrong query looks at, and which it must look at."""
        out, reads, right = result["out"], result["reads"], self.expected(case)["out"]
        same = np.isclose(out, right, self.rtol, self.atol)
        if same.all():
            return None
        i, head = (int(place) for place in np.argwhere(~same.all(axis=2))[0])
        row, got = self.rows(case)[i], out[i, head]
        must = named(range(row.first, row.last + 1))
        if (got == BEFORE).any():
            what = f"nothing was written to out[{i}, {head}], {row.name}"
        elif row.last < row.first:
            what = f"{row.name} looks at no key, so its output must be 0"
        elif np.isnan(got).any() or not got.any():
            output = "NaN" if np.isnan(got).any() else "0"
            why = reads.get((i, head)) or (
                "reads just that. Then a sum or a quotient is NaN: 0 / 0, inf / inf or -inf - -inf"
            )
            what = f"{row.name} must look at {must}, and its output is {output}: its thread block {why}"
        elif np.array_equal(got != 0, right[i, head] != 0):
            what = f"{row.name} looks at the right keys, and gives them wrong weights"
        elif np.count_nonzero(right[i, head]) < row.last + 1 - row.first:
            what = f"the weights of {row.name} are wrong"  # some are too small for a float
        else:
            what = f"{row.name} looks at {named(np.flatnonzero(got))}, and must look at {must}"
        return Mistake(what, _weights(i, head, got), _weights(i, head, right[i, head]))

    def picture(self, answer: Any, case: Any) -> Picture | None:
        """Return which keys the queries of a sequence look at: of the first that is wrong, in the wrong head."""
        out, rows = self.run(answer, case)["out"], self.rows(case)
        wrong = np.argwhere(~np.isclose(out, self.expected(case)["out"], self.rtol, self.atol))
        i, head = (int(place) for place in wrong[0][:2]) if len(wrong) else (0, 0)
        chosen = [place for place, row in enumerate(rows) if row.seq == rows[i].seq]
        num_keys = len(case.tokens.keys[rows[i].seq])
        if not num_keys or np.isnan(out[i]).any() or (out[i] == BEFORE).any():
            return None
        title = f"The keys that your queries of sequence {rows[i].seq} look at"
        return Mask((out[chosen, head, :num_keys] > 0).tolist(), title)


def named(keys: Any) -> str:
    """Return keys as text: ``keys 2 to 5``."""
    keys = [int(key) for key in keys]
    if not keys:
        return "no key"
    if len(keys) == 1:
        return f"key {keys[0]}"
    if keys == [*range(keys[0], keys[-1] + 1)]:
        return f"keys {keys[0]} to {keys[-1]}"
    return f"keys {', '.join(map(str, keys))}"


def _weights(row: int, head: int, weights: Any) -> str:
    """Return the weights of a row that are not 0."""
    for value, name in ((0, "0"), (BEFORE, f"{BEFORE:g}, as before the launch"), (np.nan, "nan")):
        if np.array_equal(weights, np.full_like(weights, value), equal_nan=True):
            return f"out[{row}, {head}] is all {name}"
    lines = [f"key {key}: {weights[key]:.4g}" for key in np.flatnonzero(weights)]
    return "\n".join([f"out[{row}, {head}], all others are 0:", *lines])
