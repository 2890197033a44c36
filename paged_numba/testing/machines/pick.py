"""Helpers for rules of a machine that need a sequence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition


def pick(data: Any, names: Iterable[int]) -> int:
    """Draw one of the sequences; shrinks towards the oldest."""
    return data.draw(st.sampled_from(sorted(names)))


needs_a_sequence = precondition(lambda machine: machine.model)
needs_a_swapped_sequence = precondition(lambda machine: machine.swapped)
