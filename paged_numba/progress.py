"""Progress on standard error: a bar, on a terminal only and after a second; nothing where tqdm is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(total: int, description: str, unit: str) -> Iterator[Callable[[int], object]]:
    """Show a bar within a ``with`` block.

    Parameters
    ----------
    total : int
        What makes the bar full.
    description, unit : str
        What is done, and what is counted.

    Yields
    ------
    callable
        To be called with how much more is done.
    """
    try:
        from tqdm import tqdm
    except ImportError:  # the GPU benchmark runs with Numba and NumPy alone
        yield lambda done: None
        return
    with tqdm(total=total, desc=description, unit=f" {unit}", delay=1, disable=None, leave=False) as bar:
        yield bar.update


def write(text: str) -> None:
    """Print a text to standard output, above a bar if there is one."""
    try:
        from tqdm import tqdm
    except ImportError:
        print(text)
    else:
        tqdm.write(text, file=sys.stdout)
