"""Deliberately wrong plans of attention: each is a function of `paged_numba.plan` whose result is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from ...ops import plan


@dataclass(frozen=True)
class PlanMutant:
    """One fault.

    Parameters
    ----------
    name : str
        What is wrong.
    function : str
        Of `paged_numba.plan`.
    change : callable
        Makes the wrong result of the right one.
    algorithm : str
        Of attention, which must notice.
    """

    name: str
    function: str
    change: Callable[[Any], Any]
    algorithm: str = "tile"

    def __str__(self) -> str:
        return f"{self.function}: {self.name}"


@contextmanager
def planned_wrongly(mutant: PlanMutant) -> Iterator[None]:
    """Have operations plan with a mutant."""
    right = getattr(plan, mutant.function)

    def wrong(*args: Any, **options: Any) -> Any:
        return mutant.change(right(*args, **options))

    with mock.patch.object(plan, mutant.function, wrong):
        yield


def _column(column: int, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a change of one column of rows or tiles, which `change` is given whole."""

    def changed(rows: Any) -> Any:
        rows = rows.copy()
        rows[:, column] = change(rows)
        return rows

    return changed


def _of_tiles(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda parts_and_tiles: (parts_and_tiles[0], change(parts_and_tiles[1]))


PLAN_MUTANTS = (
    PlanMutant("the first key is missed", "query_rows",
               _column(3, lambda rows: np.minimum(rows[:, 3] + 1, rows[:, 4]))),
    PlanMutant("the window is a key too long", "query_rows", _column(3, lambda rows: np.maximum(rows[:, 3] - 1, 0))),
    PlanMutant("a token does not see itself", "query_rows", _column(4, lambda rows: np.maximum(rows[:, 4] - 1, 0))),
    PlanMutant("positions one too high", "query_rows", _column(2, lambda rows: rows[:, 2] + 1)),
    PlanMutant("all tokens of the first sequence", "query_rows", _column(1, lambda rows: 0 * rows[:, 1])),
    PlanMutant("splits end a key early", "split_rows",
               _column(4, lambda rows: np.maximum(rows[:, 4] - 1, rows[:, 3])), "split"),
    PlanMutant("splits overlap", "split_rows", _column(3, lambda rows: np.maximum(rows[:, 3] - 1, 0)), "split"),
    PlanMutant("last tile left out", "tile_rows", lambda tiles: tiles[:-1]),
    PlanMutant("keys that any sees end early", "tile_rows", _column(3, lambda tiles: np.maximum(tiles[:, 3] - 1, 0))),
    PlanMutant("a tile begins a row late", "tile_rows", _column(0, lambda tiles: np.maximum(tiles[:, 0] - 1, 0))),
    PlanMutant("more is shared than is", "shared_tokens", lambda tokens: tokens + 1, "cascade"),
    PlanMutant("what is shared left out", "cascade_rows", _of_tiles(lambda tiles: tiles[len(tiles) // 2 :]), "cascade"),
)  # fmt: skip
"""Plans that attention notices."""
