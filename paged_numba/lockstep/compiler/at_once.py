"""Iterations of a loop at once: in a small launch the calls of NumPy cost more than their work.

A loop that only adds up (`analysis.accumulation`) runs its iterations along a third axis, in front of thread
blocks and threads. Sums are added in the loop's order, so that the results are the same to the bit. Where
anything is out of the ordinary, an error included, the loop runs again one iteration after the other: its body
stores nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..language.control import range_bounds, uniform
from ..machine.arithmetic import arithmetic_result
from ..machine.machine import Machine
from ..machine.masks import Mask

LEAST_ITERATIONS = 4
MOST_VALUES = 1 << 16
"""Values of an expression, over all lanes and iterations: more are no faster at once."""


def at_once(machine: Machine, mask: Mask, *bounds: Any) -> Any:
    """Return the indices of ``range(*bounds)``, [iterations, 1, 1], or None where they go one by one."""
    start, stop, step = range_bounds(bounds)
    stop = uniform(stop)
    if any(isinstance(bound, np.ndarray) for bound in (start, stop, step)) or step == 0:
        return None
    count = len(range(int(start), int(stop), int(step)))
    if count < LEAST_ITERATIONS or count * machine.num_lanes > MOST_VALUES:
        return None
    return np.arange(int(start), int(stop), int(step), dtype=start.dtype).reshape(-1, 1, 1)


def accumulate(total: Any, terms: Any) -> Any:
    """Return ``total + terms[0] + terms[1] + …``, added in this order."""
    if terms.ndim != 3 or arithmetic_result(total.dtype, terms.dtype) != total.dtype:
        raise ValueError("the sum changes its type, or adds the same number in each iteration")
    shape = np.broadcast_shapes(np.shape(total), terms.shape[1:])
    values = np.empty((len(terms) + 1, *shape), total.dtype)
    values[0] = total
    values[1:] = terms
    # Along the first axis of many numbers NumPy adds row by row; a single column it would add in pairs.
    if values[0].size > 1:
        return np.add.reduce(values, axis=0, dtype=total.dtype)
    return np.add.accumulate(values, axis=0, dtype=total.dtype)[-1]


def latest(value: Any) -> Any:
    """Return what a name holds after the last iteration."""
    if isinstance(value, np.generic):
        return value
    if not isinstance(value, np.ndarray):
        raise TypeError("views are made one by one")
    if value.ndim < 3:
        return value
    return value[-1, 0, 0] if value.shape[1:] == (1, 1) else value[-1]
