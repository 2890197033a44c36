"""Rows of scores, for exercises on softmax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

INF = float("inf")
MEASURED = 256
"""Scores of a row of the case whose traffic is counted."""


@dataclass
class Rows:
    """Rows of scores, and the threads of a thread block."""

    scores: Any
    threads_per_block: int


def case_of(scores: Any, threads: int) -> Rows:
    """Return a case with these rows of scores."""
    return Rows(np.array(scores, np.float32), threads)


@st.composite
def drawn_rows(draw: st.DrawFn) -> Rows:
    """Draw rows of scores, some of which are masked."""
    size, threads = draw(st.integers(1, 12)), draw(st.sampled_from((1, 2, 4, 32)))
    score = st.sampled_from((0.0, 1.0, 3.0, -2.0, -INF))
    scores = draw(st.lists(st.lists(score, min_size=size, max_size=size), min_size=1, max_size=3))
    level = draw(st.sampled_from((0.0, 990.0, -990.0)))
    return case_of(np.array(scores) + level, threads)
