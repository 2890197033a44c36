"""All iterations of a loop at once: in a small launch, calling NumPy costs more than the arithmetic.

A loop that only computes sums (`analysis.syntax.accumulation`) runs its iterations along a third axis, before the
axes of thread blocks and threads. Sums are added in the loop's order, so the results are the same to the bit. If an
iteration raises an error, or the iterations turn out to need an order, the loop runs again, one iteration after the
other, and raises the error there. Its body stores nothing, so nothing happens twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...language.arrays.ranges import range_bounds, uniform
from ...machine.arithmetic import arithmetic_result
from ...machine.machine import Machine
from ...machine.masks import Mask

LEAST_ITERATIONS = 4
MOST_VALUES = 1 << 16
"""Most values of an expression, over all lanes and iterations; beyond that, running at once is no faster."""


class NotAtOnceError(Exception):
    """The iterations of a loop must run one by one; the error never leaves the lane program."""


def at_once(machine: Machine, mask: Mask, *bounds: Any) -> Any:
    """Return the indices of ``range(*bounds)``, [iterations, 1, 1], or None if the iterations must run one by one."""
    start, stop, step = range_bounds(bounds)
    stop = uniform(stop)
    if any(isinstance(bound, np.ndarray) for bound in (start, stop, step)) or step == 0:
        return None
    count = len(range(int(start), int(stop), int(step)))
    if count < LEAST_ITERATIONS or count * machine.num_lanes > MOST_VALUES:
        return None
    return np.arange(int(start), int(stop), int(step), dtype=start.dtype).reshape(-1, 1, 1)


def accumulate(total: Any, terms: Any) -> Any:
    """Return ``total + terms[0] + terms[1] + …``, added in this order.

    Raises
    ------
    NotAtOnceError
        If `terms` are not numbers by iteration, or the sum changes its type.
    """
    if (
        not isinstance(terms, np.ndarray)
        or terms.ndim != 3
        or not isinstance(total, (np.ndarray, np.generic))
    ):
        raise NotAtOnceError("each iteration adds the same number, or no number")
    if arithmetic_result(total.dtype, terms.dtype) != total.dtype:
        raise NotAtOnceError("the sum changes its type")
    shape = np.broadcast_shapes(np.shape(total), terms.shape[1:])
    values = np.empty((len(terms) + 1, *shape), total.dtype)
    values[0] = total
    values[1:] = terms
    # Along the first axis NumPy adds row by row, but it would add a single column in pairs.
    if values[0].size > 1:
        return np.add.reduce(values, axis=0, dtype=total.dtype)
    return np.add.accumulate(values, axis=0, dtype=total.dtype)[-1]


def latest(value: Any) -> Any:
    """Return the value of a variable after the last iteration.

    Raises
    ------
    NotAtOnceError
        If it is a view or a tuple.
    """
    if isinstance(value, np.generic):
        return value
    if not isinstance(value, np.ndarray):
        raise NotAtOnceError("views and tuples are made one by one")
    if value.ndim < 3:
        return value
    return value[-1, 0, 0] if value.shape[1:] == (1, 1) else value[-1]
