"""What a server is asked: prompts from a text, or the lengths of real requests from a trace."""

from __future__ import annotations

import csv
import io
import re
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

SHIPPED_TEXT = "prompts.txt"
TRACE_COLUMNS = ("ContextTokens", "GeneratedTokens")


MOST_TOKENS = 10_000_000
"""Bound of a count in a trace: more is a mistake in the file."""


@dataclass(frozen=True, eq=False)
class Request:
    """One prompt and how many tokens are to be generated.

    Attributes
    ----------
    name : str
        A letter, or letters.
    prompt : uint8[num_prompt_tokens]
        Byte tokens, the first of them where it was too long.
    max_new_tokens : int
    """

    name: str
    prompt: Any
    max_new_tokens: int

    @property
    def final_length(self) -> int:
        """Tokens in the cache at the end: the last one generated is never written."""
        return len(self.prompt) + self.max_new_tokens - 1


class InputError(ValueError):
    """A file that is not what it must be; the message names it and the line."""


def shipped_text() -> str:
    """Return the prompts that come with the package."""
    return (resources.files(__package__) / "data" / SHIPPED_TEXT).read_text(encoding="utf-8")


def from_text(text: str, source: str, new_tokens: Sequence[int], max_len: int) -> list[Request]:
    """Return a request for each paragraph of a text.

    Parameters
    ----------
    text : str
        Prompts, with blank lines between.
    source : str
        Where it comes from, for the error.
    new_tokens : sequence of int
        Tokens to generate, for one prompt after the other, then from the start again.
    max_len : int
        Bound of prompt and generated tokens together: a longer prompt is cut.

    Raises
    ------
    InputError
        Nothing but white space.
    """
    prompts = [paragraph.strip("\n") for paragraph in re.split(r"\n[ \t]*\n", text) if paragraph.strip()]
    if not prompts:
        raise InputError(f"{source} must hold at least one prompt, got nothing but white space")
    return [
        _request(i, np.frombuffer(prompt.encode(), np.uint8), new_tokens[i % len(new_tokens)], max_len)
        for i, prompt in enumerate(prompts)
    ]


def read_trace(path: Path) -> Any:
    """Return the lengths in a trace.

    Parameters
    ----------
    path : Path
        CSV with the columns ContextTokens and GeneratedTokens, as in the Azure LLM inference traces
        (Patel et al., "Splitwise", ISCA 2024).

    Returns
    -------
    int64[num_requests, 2]
        Prompt and generated tokens of each request, both positive.

    Raises
    ------
    InputError
        A column that is missing, a line that holds no positive counts, or no line at all.
    OSError
        The file cannot be read.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if text.lstrip().startswith("{"):
        raise InputError(
            f"{path}: a trace must be CSV with the columns {' and '.join(TRACE_COLUMNS)}, got JSON lines, which "
            f"`paged-numba replay` reads"
        )
    rows = [
        [count_in(path, line, name, row[name]) for name in TRACE_COLUMNS]
        for line, row in csv_rows(path, text, TRACE_COLUMNS)
    ]
    return np.array(rows, np.int64)


def csv_rows(path: Path, text: str, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a CSV trace by name, each with the number of its line.

    Raises
    ------
    InputError
        A column that is missing, a line that is no CSV or has other cells than the columns, or no row at all.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    if not set(columns) <= set(reader.fieldnames or ()):
        raise InputError(
            f"{path}: a trace must have the columns {', '.join(columns[:-1])} and {columns[-1]}, "
            f"got {reprlib.repr(reader.fieldnames) if reader.fieldnames else 'none in its first line'}"
        )
    empty = True
    try:
        for row in reader:
            empty = False
            missing = [name for name, cell in row.items() if cell is None]
            if missing or None in row:
                # None: the reader's cell where a line ends before the column, its column where it goes on.
                got = f"no {missing[0]}" if missing else f"{len(row[None])} more"
                raise InputError(
                    f"{path}, line {reader.line_num}: a line must have a cell for each column, got {got}"
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}") from None
    if empty:
        raise InputError(f"{path}: a trace must hold at least one request, got none")


def from_lengths(lengths: Any, max_new_tokens: int, max_len: int) -> list[Request]:
    """Return requests of the given lengths, with random byte tokens from a fixed seed.

    Parameters
    ----------
    lengths : int64[num_requests, 2]
        As `read_trace` returns them.
    max_new_tokens : int
        Bound of the generated tokens.
    max_len : int
        Bound of prompt and generated tokens together: a longer prompt is cut.
    """
    rng = np.random.default_rng(0)
    return [
        _request(
            i,
            rng.integers(0, 256, min(prompt, max_len), np.uint8),
            min(int(generated), max_new_tokens),
            max_len,
        )
        for i, (prompt, generated) in enumerate(lengths)
    ]


def _request(number: int, prompt: Any, new_tokens: int, max_len: int) -> Request:
    return Request(name_of(number), prompt[: max_len - new_tokens], new_tokens)


def name_of(number: int) -> str:
    """Return A .. Z, AA, AB, … for 0, 1, ….

    >>> [name_of(n) for n in (0, 25, 26, 51, 52)]
    ['A', 'Z', 'AA', 'AZ', 'BA']
    """
    letters = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        letters = chr(ord("A") + digit) + letters
    return letters


def count_in(path: Path, line: int, name: str, text: str) -> int:
    """Return the count of tokens that a cell of a trace holds.

    Raises
    ------
    InputError
        It holds none, or one out of bounds.
    """
    try:
        count = int(text)
    except ValueError:
        count = 0
    if not 1 <= count <= MOST_TOKENS:
        raise InputError(
            f"{path}, line {line}: {name} must be an integer in 1 .. {MOST_TOKENS}, got {reprlib.repr(text)}"
        )
    return count
