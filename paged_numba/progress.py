"""Progress bars on standard error: shown on a terminal, after one second, if tqdm can be imported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(total: int, description: str, unit: str) -> Iterator[Callable[[int], object]]:
    """Show a progress bar while a ``with`` block runs.

    Parameters
    ----------
    total : int
        Number of units at which the bar is full.
    description, unit : str
        What is being done, and the unit in which it is counted.

    Yields
    ------
    callable
        Call it with the number of units done since the last call.
    """
    try:
        from tqdm import tqdm
    except Exception:  # missing, since the GPU benchmark runs with Numba and NumPy alone, or broken
        yield lambda done: None
        return
    with tqdm(total=total, desc=description, unit=f" {unit}", delay=1, disable=None, leave=False) as bar:
        yield bar.update


def write(text: str) -> None:
    """Print a text to standard output, above the progress bar if there is one."""
    try:
        from tqdm import tqdm
    except Exception:
        print(text)
    else:
        tqdm.write(text, file=sys.stdout)
