"""Plain text for terminals: aligned tables, block tables and maps of a pool."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from ..arguments import shown
from .names import MOST_LABELS, cut, names_of, width_of
from .protocols import Pool, checked_pool, different_ids

__all__ = ["block_tables", "duration", "pool_map", "reference_counts", "shortened", "size", "table"]

MAP_WIDTH, MAP_LINES = 64, 16


def pool_map(pool: Pool, labels: dict[Hashable, str]) -> str:
    """Return the blocks of a pool, one character each: the label of its owner, ``+`` if shared, ``.`` if free.

    Parameters
    ----------
    pool : Pool
        A `paged_numba.BlockAllocator`, or the allocator of a cache.
    labels : dict of hashable to str
        By sequence, its label: one printable character, as wide as a letter, but neither ``+`` nor ``.``.

    Raises
    ------
    TypeError, ValueError
        `pool` is not a pool, or a sequence that holds a block lacks such a label.

    See Also
    --------
    paged_numba.draw.PoolHistory : A picture of the owners over time.

    Examples
    --------
    >>> import paged_numba as pn
    >>> pool = pn.BlockAllocator(num_blocks=8, block_size=4)
    >>> _ = pool.add("first", 6), pool.add("second", 9)
    >>> print(pool_map(pool, {"first": "a", "second": "b"}))
    0 |aabbb...|
    """
    pool = checked_pool(pool)
    cells = ["."] * pool.num_blocks
    for seq_id in pool:
        for block in pool.held_blocks(seq_id).tolist():
            cells[block] = "+" if pool.ref_count(block) > 1 else _label(labels, seq_id)
    return block_map(cells)


def block_map(cells: Sequence[str]) -> str:
    """Return lines of one character for each block, with the number of the first block before each."""
    digits = len(str(len(cells) - 1))
    lines = [
        f"{first:>{digits}} |{''.join(cells[first : first + MAP_WIDTH])}|"
        for first in range(0, len(cells), MAP_WIDTH)
    ]
    if len(lines) > MAP_LINES:
        left_out = len(cells) - MAP_LINES * MAP_WIDTH
        lines[MAP_LINES:] = [f"{' ' * digits} ... and {left_out} more blocks"]
    return "\n".join(lines)


def _label(labels: dict[Hashable, str], seq_id: Hashable) -> str:
    label = labels.get(seq_id) if isinstance(labels, dict) else None
    if (
        not isinstance(label, str)
        or len(label) != 1
        or label in "+."
        or not label.isprintable()
        or width_of(label) != 1
    ):
        raise ValueError(
            f"labels must have a printable character other than + and . for each sequence, "
            f"got {shown(label)} for {names_of([seq_id])[0]}"
        )
    return label


def block_tables(pool: Pool, seq_ids: Iterable[Hashable]) -> str:
    """Return a line for each sequence: its block table, its number of tokens and its number of blocks.

    Parameters
    ----------
    pool : Pool
        A `paged_numba.BlockAllocator`, or the allocator of a cache.
    seq_ids : iterable of hashable
        Ids of the sequences, one for each row.

    See Also
    --------
    paged_numba.draw.BlockTables : A picture of the block tables.

    Examples
    --------
    >>> import paged_numba as pn
    >>> pool = pn.BlockAllocator(num_blocks=8, block_size=4)
    >>> _ = pool.add("a", 6), pool.add("b", 9)
    >>> print(block_tables(pool, ["a", "b"]))
       block table  tokens  blocks
    -  -----------  ------  ------
    a  0 1               6       2
    b  2 3 4             9       3
    """
    pool, rows, chosen = checked_pool(pool), [], different_ids(seq_ids)
    for seq_id, name in zip(chosen, names_of(chosen), strict=True):
        blocks = pool.block_table(seq_id)
        rows.append([name, shortened(blocks), str(pool.seq_len(seq_id)), str(blocks.size)])
    return table(["", "block table", "tokens", "blocks"], rows, left=2)


def reference_counts(pool: Pool) -> str:
    """Return the used blocks and, below each, its reference count.

    See Also
    --------
    paged_numba.BlockAllocator.ref_count : Returns the count of one block.

    Examples
    --------
    >>> import paged_numba as pn
    >>> pool = pn.BlockAllocator(num_blocks=8, block_size=4)
    >>> _ = pool.add("a", 6)
    >>> pool.fork("a", "b")
    >>> _ = pool.append("b")
    >>> print(reference_counts(pool))
    block       0  1  2
    ----------  -  -  -
    references  2  1  1
    """
    pool = checked_pool(pool)
    used = sorted({block for seq_id in pool for block in pool.held_blocks(seq_id).tolist()})
    counts = [str(pool.ref_count(block)) for block in used]
    return table(["block", *map(str, used)], [["references", *counts]])


def shortened(numbers: Iterable[Any], limit: int = 12) -> str:
    """Return numbers separated by spaces; beyond `limit` numbers, ``..`` replaces those before the last.

    Examples
    --------
    >>> shortened(range(100), limit=5)
    '0 1 2 .. 99'
    """
    chosen = numbers if isinstance(numbers, Sequence) else list(numbers)
    if len(chosen) > limit:
        return " ".join([*map(str, chosen[: limit - 2]), "..", str(chosen[-1])])
    return " ".join(map(str, chosen))


def key_of(labels: Mapping[str, str], drawn: Iterable[str], more: Iterable[str] = ()) -> str:
    """Return what the characters that are drawn in a map mean, from the label of each name."""
    own = [
        label if label == name else f"{label} {cut(name, 20)}"
        for name, label in islice(labels.items(), MOST_LABELS)
    ]
    if len(labels) > MOST_LABELS:
        own.append(f"* {len(labels) - MOST_LABELS:,} more")
    return listed_within([*own, *more, *(words for words in ("+ shared", ". free") if words[0] in drawn)])


def listed_within(entries: Iterable[str], width: int = 100) -> str:
    """Return entries with commas between them, in lines of at most `width` columns where each fits.

    Examples
    --------
    >>> print(listed_within(["a first", "b second", "c third"], 18))
    a first, b second,
    c third
    """
    lines = [""]
    for entry in entries:
        if lines[-1] and width_of(f"{lines[-1]}, {entry}") >= width:
            lines[-1] += ","
            lines.append(entry)
        else:
            lines[-1] += f", {entry}" if lines[-1] else entry
    return "\n".join(lines)


def size(count: float) -> str:
    """Return a number of bytes with its unit, in powers of 1,024.

    Examples
    --------
    >>> size(800), size(16384), size(3 * 2**30)
    ('800 B', '16.0 KiB', '3.0 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} B" if unit == "B" else f"{count:,.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a time with its unit, from nanoseconds to seconds, with three digits.

    Examples
    --------
    >>> duration(3.5e-9), duration(0.0000123), duration(0.25), duration(2)
    ('3.50 ns', '12.3 us', '250 ms', '2.00 s')
    """
    for unit, length in (("s", 1), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        if seconds >= 0.9995 * length or unit == "ns":
            break
    count = seconds / length
    return f"{count:,.{max(0, 2 - len(str(int(count + 0.5))) + 1)}f} {unit}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return rows as aligned text: the first `left` columns flush left, the others flush right.

    Examples
    --------
    >>> print(table(["kernel", "loads"], [["naive", "128"], ["block", "64"]]))
    kernel  loads
    ------  -----
    naive     128
    block      64
    """
    widths = [max(width_of(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = []
        for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
            blank = " " * (width - width_of(cell))
            cells.append(cell + blank if column < left else blank + cell)
        return "  ".join(cells).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])


STEPS, SECTIONS, MOST_ROWS = 70, 4, 40


def over_time(rows: Sequence[tuple[str, str | None]], num_steps: int, what: str) -> list[str]:
    """Return lines with a label and a character for each step, below a line of step numbers.

    Steps beyond 70 continue below, up to 280; up to 40 rows, `what` names those left out. A row of None is a line of
    its own.
    """
    left_out = f"... and {len(rows) - MOST_ROWS} more {what}"
    shown = [*rows[:MOST_ROWS], (left_out, None)] if len(rows) > MOST_ROWS else list(rows)
    width = max([4, *(width_of(label) for label, signs in shown if signs is not None)]) + 2
    lines: list[str] = []
    for first in range(0, min(num_steps, STEPS * SECTIONS), STEPS):
        last = min(num_steps, first + STEPS)
        ruler = "".join(f"{step:<10}" for step in range(first, last, 10))
        lines += [*([""] if first else []), f"{'step':<{width}}{ruler}".rstrip()]
        for label, signs in shown:
            blank = " " * (width - width_of(label))
            lines.append(label if signs is None else f"{label}{blank}{signs[first:last]}".rstrip())
    if num_steps > STEPS * SECTIONS:
        lines.append(f"... and {num_steps - STEPS * SECTIONS} more steps")
    return lines


def some(lines: Sequence[str], most: int, rest: str) -> list[str]:
    """Return lines; beyond `most` lines, the first ones and `rest`, with the number of those left out for ``{}``.

    Examples
    --------
    >>> some(["a", "b", "c", "d"], 2, "and {} more")
    ['a', 'b', 'and 2 more']
    """
    if len(lines) <= most + 1:
        return list(lines)
    return [*lines[:most], rest.format(len(lines) - most)]


def plural(count: int, noun: str) -> str:
    """Return ``1 sector``, ``2,000 sectors``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
