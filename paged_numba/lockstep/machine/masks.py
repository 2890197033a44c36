"""Masks of active lanes: ``True`` (all), ``False`` (none) or a bool array.

An array broadcasts to ``[thread blocks, threads]`` and has at least one active lane. Masks never change in place:
if the current mask ``is`` the one saved earlier, no lane has left since.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .arithmetic import truth

Mask = Any
"""``True``, ``False`` or a bool array."""


def split(mask: Mask, condition: Any) -> tuple[Mask, Mask]:
    """Divide `mask` into the lanes where `condition` holds and the others."""
    condition = truth(condition)
    if not isinstance(condition, np.ndarray):
        return (mask, False) if condition else (False, mask)
    then = condition if mask is True else mask & condition
    if not then.any():
        return False, mask
    otherwise = ~condition if mask is True else mask & ~condition
    if not otherwise.any():
        return mask, False
    return then, otherwise


def narrow(mask: Mask, condition: Any) -> Mask:
    """Return the lanes of `mask` where `condition` holds; `mask` itself if it holds for all of them."""
    condition = truth(condition)
    if not isinstance(condition, np.ndarray):
        return mask if condition else False
    # count_nonzero takes a fraction of the time of all() and any().
    held = np.count_nonzero(condition)
    if held == condition.size:
        return mask
    if mask is True:
        return condition if held else False
    narrowed = mask & condition
    held = np.count_nonzero(narrowed)
    if not held:
        return False
    return mask if narrowed.shape == mask.shape and held == np.count_nonzero(mask) else narrowed


def minus(mask: Mask, gone: Mask) -> Mask:
    """Return the lanes of `mask` that are not in `gone`."""
    if gone is False:
        return mask
    if gone is True or mask is gone:
        return False
    if mask is False:
        return False
    left = ~gone if mask is True else mask & ~gone
    return left if left.any() else False


def union(a: Mask, b: Mask) -> Mask:
    """Return the lanes of either mask."""
    if a is False or b is True:
        return b
    if b is False or a is True:
        return a
    either = a | b
    return True if either.all() else either


def join(entry: Mask, then: Mask, then_left: Mask, otherwise: Mask, otherwise_left: Mask) -> Mask:
    """Return the lanes that continue after an ``if`` in which some may have returned or left a loop.

    `then` and `otherwise` entered the branches; `then_left` and `otherwise_left` reached their ends.
    """
    if then_left is then and otherwise_left is otherwise:
        return entry
    return union(then_left, otherwise_left)


def most(mask: Mask, count: Any) -> int:
    """Return the largest of the counts that the active lanes have."""
    if not isinstance(count, np.ndarray):
        return int(count)
    return int(count.max() if mask is True else np.where(mask, count, 0).max())


def common(mask: Mask, value: Any) -> Any:
    """Return the value of all active lanes, or None if their values differ."""
    if not isinstance(value, np.ndarray):
        return value
    shape = np.broadcast_shapes(value.shape, np.shape(mask))
    active = np.broadcast_to(value, shape)[np.broadcast_to(mask, shape)]
    return active[0] if (active == active[0]).all() else None


def lanes(mask: Mask, shape: tuple[int, ...]) -> Any:
    """Return `mask` as a bool array of `shape`."""
    return np.broadcast_to(np.asarray(mask), shape)
