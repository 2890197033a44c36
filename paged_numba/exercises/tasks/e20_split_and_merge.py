"""Exercise 20: merge the results and LSEs of splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ...draw.kernels.splits import Splits
from ...draw.picture import Picture
from ...lockstep.profiler.report import Report
from ..checker.task import Limit, Task, Wrong
from ..checker.values import Mistake, assigned, size_of

INF = float("inf")


@dataclass
class Case:
    """Scores and values of tokens in splits, and what attention over each split leaves behind."""

    starts: list[int]
    scores: Any
    values: Any
    part_out: Any
    part_lse: Any


def case_of(sizes: Sequence[int], scores: Any, values: Any) -> Case:
    """Return a case with splits of so many tokens; scores [tokens, heads] and values [tokens, heads, dims]."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    part_out = np.full((len(sizes), *values.shape[1:]), np.nan, np.float32)  # of an empty split never written
    part_lse = np.full(part_out.shape[:2], -INF, np.float32)
    for i, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        if size:
            own = slice(start, start + size)
            part_out[i], part_lse[i] = attention(scores[own], values[own])
    return Case(starts, scores, values, part_out, part_lse)


def attention(scores: Any, values: Any) -> tuple[Any, Any]:
    """Return attention over tokens, and its LSE, for each head in double precision."""
    lse = np.logaddexp.reduce(scores, axis=0) if len(scores) else np.full(scores.shape[1], -INF)
    weights = np.exp(scores - np.where(np.isfinite(lse), lse, 0))
    return np.einsum("th,thd->hd", weights, values), lse


def random_case(
    sizes: Sequence[int], num_heads: int, head_dim: int, level: float = 0.0, seed: int = 0
) -> Case:
    """Return a case whose scores differ much within and between splits, so that weights do, too."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 3, (sum(sizes), num_heads)).round() + level
    return case_of(sizes, scores, rng.integers(-9, 10, (sum(sizes), num_heads, head_dim)).astype(np.float64))


class Merge(Task):
    """Results of splits weigh as much as the sums of their exponentiated scores."""

    answer = "merge"
    lesson = "12_split_and_merge"
    max_examples = 40
    rtol = 1e-3
    atol = 1e-3  # an LSE of 990 in float32 is off by up to 3e-5, and values are as large as 9
    hints = (
        "Use two loops over the splits: the first finds the largest LSE, the second adds up. A weight is "
        "exp(part_lse - largest).",
        "0 * NaN is NaN, so a weight of 0 does not keep out the result of an empty split. Skip the split.",
        "The merged LSE is largest + log(total), where total is the sum of the weights. What are largest and total "
        "if all splits are empty?",
        "if part_lse[split, head] > -inf: total += weight; weighted += weight * part_out[split, head, dim]. After "
        "the loop, out is weighted / total, or 0 if total is 0; thread 0 writes the LSE.",
    )
    wrong = (
        Wrong(
            "the average of the results",
            "weight = math.exp(part_lse[split, head] - largest)",
            "weight = float32(1)",
            "right",
            "as if all splits with tokens weighed the same",
        ),
        Wrong(
            "no maximum: overflow",
            "        largest = max(largest, part_lse[split, head])\n",
            "        largest = float32(0)\n",
            "right",
            "overflow",
        ),
        Wrong(
            "the result of an empty split is weighed by 0",
            "if part_lse[split, head] > -np.inf:",
            "if largest > -np.inf:",
            "right",
            "a split has no token",
        ),
        Wrong(
            "no split has a token",
            "weighted / total if total > 0 else float32(0)",
            "weighted / total",
            "right",
            "no split has a token",
        ),
        Wrong(
            "the largest LSE is not added to the merged one",
            "largest + math.log(total)",
            "math.log(total)",
            "right",
            "lacks the largest",
        ),
        Wrong("a logarithm to base 2", "math.log(total)", "math.log2(total)", "right", "base 2"),
        Wrong("weights to base 2", "math.exp(", "2 ** (", "right", "What should come out"),
        Wrong(
            "the LSE of the first head for all",
            "weight = math.exp(part_lse[split, head] - largest)",
            "weight = math.exp(part_lse[split, 0] - largest)",
            "right",
            "What should come out",
        ),
        Wrong(
            "results are read for the maximum, too",
            "        largest = max(largest, part_lse[split, head])\n",
            "        if part_out[split, head, dim] == part_out[split, head, dim]:\n"
            "            largest = max(largest, part_lse[split, head])\n",
            "traffic",
            "sectors loaded",
        ),
    )

    def worked(self) -> Case:
        """Return the case of the statement: a token in each split."""
        return case_of([1, 1, 0], np.log([[1.0], [3.0]]), np.array([[[2.0]], [[6.0]]]))

    def boundaries(self) -> Sequence[Case]:
        """Return one split, empty ones at each place, none with a token, and large LSEs."""
        sizes = ([1], [0], [2, 1], [0, 0], [0, 3], [3, 0], [2, 0, 4, 1], [4] * 9)
        cases = [random_case(one, 2, 2, seed=1) for one in sizes]
        return [*cases, random_case([2, 1], 1, 1, 990.0), random_case([1, 0, 2], 1, 1, -990.0)]

    def cases(self) -> st.SearchStrategy[Case]:
        """Return what draws cases."""
        sizes = st.lists(st.sampled_from((1, 2, 3, 4, 0)), min_size=1, max_size=5)
        level = st.sampled_from((0.0, 990.0, -990.0))
        return st.builds(random_case, sizes, st.integers(1, 3), st.integers(1, 4), level, st.integers(0, 99))

    def run(self, answer: Any, case: Case) -> dict[str, Any]:
        """Launch the kernel with a thread block for each head."""
        num_heads, head_dim = case.part_out.shape[1:]
        out = np.full((num_heads, head_dim), np.nan, np.float32)
        lse = np.full(num_heads, np.nan, np.float32)
        answer[num_heads, head_dim](out, lse, case.part_out, case.part_lse)
        return {"out": out, "lse": lse}

    def expected(self, case: Case) -> dict[str, Any]:
        """Return attention over all tokens at once."""
        out, lse = attention(case.scores, case.values)
        return {"out": out.astype(np.float32), "lse": lse.astype(np.float32)}

    def judge(self, case: Case, result: dict[str, Any]) -> Mistake | None:
        """Name what the input has, or what the result is, where that shows the cause."""
        mistake = super().judge(case, result)
        if mistake is None:
            return None
        causes = self._causes(case, result)
        return Mistake("; ".join([mistake.what, *causes[:1]]), mistake.got, mistake.expected)

    def _causes(self, case: Case, result: dict[str, Any]) -> list[str]:
        expected, some = self.expected(case), np.isfinite(case.part_lse)
        wrong = [name for name, right in expected.items() if not np.allclose(result[name], right, 1e-3, 1e-3)]
        unequal = np.isnan(result["out"]).any() or np.isnan(result["lse"]).any()
        largest = case.part_lse.max(axis=0)
        causes = []
        if unequal and np.abs(case.scores).max(initial=0) > 500:
            causes.append("exp(part_lse) overflows, or is 0, for LSEs as large or as small as these")
        if unequal and not some.any():
            causes.append("no split has a token here")
        elif unequal and not some.all():
            causes.append("a split has no token here, and its part_out holds nan")
        elif not some.all():
            causes.append("a split has no token here")
        if not some.all(axis=0).all():
            return causes
        if np.allclose(result["out"], case.part_out.mean(axis=0), atol=1e-4) and "out" in wrong:
            causes.append("as if all splits with tokens weighed the same")
        if wrong == ["lse"]:
            logarithm = expected["lse"] - largest
            if np.allclose(result["lse"], logarithm, atol=1e-3):
                causes.append("it lacks the largest of the LSEs")
            elif np.allclose(result["lse"], largest + logarithm / np.log(2), atol=1e-3):
                causes.append("its logarithm is to base 2")
        return causes

    def describe(self, case: Case) -> str:
        """Return the arrays that the kernel gets."""
        names = ("part_out", "part_lse")
        return "\n".join(assigned(name, getattr(case, name)) for name in names)

    def weight(self, case: Case) -> int:
        """Count what the learner sees."""
        return size_of(case.part_out) + size_of(case.part_lse)

    def picture(self, answer: Any, case: Case) -> Picture | None:
        """Return the splits with the weights that those of the first wrong head should have."""
        result, expected = self.run(answer, case), self.expected(case)
        got, right = (np.column_stack([one["lse"], one["out"]]) for one in (result, expected))
        wrong = ~np.isclose(got, right, self.rtol, self.atol).all(axis=1)
        if not wrong.any():
            return None
        head = int(np.argmax(wrong))
        title = f"The weights that the splits of head {head} should have"
        return Splits(case.starts, len(case.scores), case.part_lse[:, head].tolist(), title)

    def measured(self) -> Case:
        """Return eight splits of two heads with 64 dimensions."""
        return random_case([3] * 8, 2, 64)

    def limits(self, report: Report) -> Sequence[Limit]:
        """The results lie in 128 sectors; each of 4 warps may load each of 8 LSEs a few times."""
        loads, stores = report.memory("global", "load").sectors, report.memory("global", "store").sectors
        why = "8 results of 2 heads with 64 floats lie in 128 sectors, and 4 warps may load each of 8 LSEs five times"
        return [
            Limit("sectors loaded", loads, 128 + 160, why),
            Limit(
                "sectors stored", stores, 20, "the result lies in 16 sectors, and 4 warps may write the LSE"
            ),
        ]


TASK = Merge()
