"""Long rows in pictures: which positions are shown, and where an ellipsis stands for the others."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, pairwise


def folded(count: int, room: int, keep: Iterable[int] = ()) -> list[int | None]:
    """Return the positions of ``0 .. count - 1`` that fit, in order, with None where some are left out.

    Parameters
    ----------
    count : int
    room : int
        Most places, those of the ellipses included; at least 5.
    keep : iterable of int
        Positions that are shown before others, beside the first and the last one.

    Examples
    --------
    >>> folded(4, 6)
    [0, 1, 2, 3]
    >>> folded(100, 6)
    [0, 1, 2, 3, None, 99]
    >>> folded(100, 9, keep=[70, 71])
    [0, 1, 2, 3, None, 70, 71, None, 99]
    """
    if count <= room:
        return list(range(count))
    chosen: set[int] = set()
    for position in chain((0, count - 1), keep, range(count)):
        if 0 <= position < count:
            wider = {*chosen, position}
            if len(_with_gaps(wider, count)) > room and position not in (0, count - 1):
                if position > 0 and position - 1 in chosen:
                    break
                continue
            chosen = wider
    return _with_gaps(chosen, count)


def _with_gaps(chosen: set[int], count: int) -> list[int | None]:
    ordered = sorted(chosen)
    shown: list[int | None] = [ordered[0]]
    for before, after in pairwise(ordered):
        if after - before == 2:
            shown.append(before + 1)
        elif after - before > 2:
            shown.append(None)
        shown.append(after)
    return shown


def ranges(positions: Iterable[int]) -> str:
    """Return ascending numbers as text, those that follow one another as ``first to last``.

    Five and more that are equally far apart are not listed one by one.

    Examples
    --------
    >>> ranges([0, 1, 2, 5, 8, 9])
    '0 to 2, 5, 8, 9'
    >>> ranges(range(0, 64, 4))
    '0, 4, 8, ..., 60'
    """
    positions = list(positions)
    apart = {after - before for before, after in pairwise(positions)}
    if len(positions) > 4 and len(apart) == 1 and apart != {1}:
        return f"{positions[0]}, {positions[1]}, {positions[2]}, ..., {positions[-1]}"
    runs: list[list[int]] = []
    for position in positions:
        if runs and runs[-1][-1] + 1 == position:
            runs[-1][1:] = [position]
        else:
            runs.append([position])
    words: list[str] = []
    for run in runs:
        words += [f"{run[0]} to {run[-1]}"] if run[-1] - run[0] > 1 else map(str, run)
    return ", ".join(words)
