"""Deliberately wrong attention plans: each changes the result of a function of `paged_numba.plan`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ...kernels.columns import ROW_END, ROW_FIRST, ROW_POSITION, ROW_SEQ, TILE_ANY_END, TILE_ROW
from ...ops import adopt, plan


@dataclass(frozen=True)
class PlanMutant:
    """A function that prepares a launch, with one fault.

    Parameters
    ----------
    name : str
        What is wrong.
    function : str
        Name of a function of `module`.
    change : callable
        Function from the right result to the wrong one.
    algorithm : str
        Algorithm of attention, whose property must fail.
    module : module
        Module of ``paged_numba.ops``.
    """

    name: str
    function: str
    change: Callable[[Any], Any]
    algorithm: str = "tile"
    module: ModuleType = plan

    def __str__(self) -> str:
        return f"{self.function}: {self.name}"


@contextmanager
def planned_wrongly(mutant: PlanMutant) -> Iterator[None]:
    """Make operations use a mutant within a ``with`` block."""
    right = getattr(mutant.module, mutant.function)

    def wrong(*args: Any, **options: Any) -> Any:
        return mutant.change(right(*args, **options))

    with mock.patch.object(mutant.module, mutant.function, wrong):
        yield


def _column(column: int, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a change of one column; `change` takes all rows or tiles, and returns the new column."""

    def changed(rows: Any) -> Any:
        rows = rows.copy()
        rows[:, column] = change(rows)
        return rows

    return changed


def _one_less(column: int) -> Callable[[Any], Any]:
    """Return a change that decrements one column, but not below 0."""
    return _column(column, lambda rows: np.maximum(rows[:, column] - 1, 0))


def _of_tiles(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda parts_and_tiles: (parts_and_tiles[0], change(parts_and_tiles[1]))


PLAN_MUTANTS = (
    PlanMutant("the first key is missed", "query_rows",
               _column(ROW_FIRST, lambda rows: np.minimum(rows[:, ROW_FIRST] + 1, rows[:, ROW_END]))),
    PlanMutant("the window is a key too long", "query_rows", _one_less(ROW_FIRST)),
    PlanMutant("a token does not see itself", "query_rows", _one_less(ROW_END)),
    PlanMutant("positions one too high", "query_rows", _column(ROW_POSITION, lambda rows: rows[:, ROW_POSITION] + 1)),
    PlanMutant("all tokens of the first sequence", "query_rows", _column(ROW_SEQ, lambda rows: 0 * rows[:, ROW_SEQ])),
    PlanMutant("splits end a key early", "split_rows",
               _column(ROW_END, lambda rows: np.maximum(rows[:, ROW_END] - 1, rows[:, ROW_FIRST])), "split"),
    PlanMutant("splits overlap", "split_rows", _one_less(ROW_FIRST), "split"),
    PlanMutant("last tile left out", "tile_rows", lambda tiles: tiles[:-1]),
    PlanMutant("last key that any row sees left out", "tile_rows", _one_less(TILE_ANY_END)),
    PlanMutant("a tile begins a row late", "tile_rows", _one_less(TILE_ROW)),
    PlanMutant("one shared token too many", "shared_tokens", lambda tokens: tokens + 1, "cascade"),
    PlanMutant("views taken for contiguous arrays", "caches",
               lambda caches: caches._replace(
                   key=as_strided(caches.key, strides=np.empty_like(caches.key, order="C").strides),
                   value=as_strided(caches.value, strides=np.empty_like(caches.value, order="C").strides),
               ), module=adopt),
    PlanMutant("shared part left out", "cascade_rows", _of_tiles(lambda tiles: tiles[len(tiles) // 2 :]), "cascade"),
)  # fmt: skip
"""Wrong plans that the properties of attention must find."""
