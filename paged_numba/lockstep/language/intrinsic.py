"""`Intrinsic`: a function that a kernel can call, with its cost and its effect on other threads and memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["", "block", "grid", "syncwarp", "shuffle", "vote", "store", "atomic"]


@dataclass(frozen=True)
class Intrinsic:
    """A function that a kernel can call.

    Parameters
    ----------
    function : callable
        ``function(machine, mask, *arguments)`` if `masked`, else ``function(*arguments)``.
    masked : bool
        Whether the function needs the machine and the mask of the active lanes.
    operations, special : int
        Floating-point operations of a call in one lane: additions and multiplications; divisions, roots and
        transcendental functions.
    kind : str
        How threads cooperate: at a barrier of the thread block (``block``) or of the ``grid``, by ``syncwarp``,
        ``shuffle`` or ``vote``. Or how the first argument, an array, is written: ``store`` or ``atomic``.
        Empty for all others.
    unused : callable or None
        Does the same faster if the kernel does not use the result.
    """

    function: Callable[..., Any]
    masked: bool = False
    operations: int = 0
    special: int = 0
    kind: Kind = ""
    unused: Callable[..., None] | None = None
