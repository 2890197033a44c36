"""Traces of real requests in two formats, told apart by their content; what is wrong is named by line.

Azure LLM inference trace 2023 (Patel et al., "Splitwise", ISCA 2024): CSV with the columns TIMESTAMP,
ContextTokens and GeneratedTokens. Mooncake (Qin et al., "Mooncake", FAST 2025): JSON lines with timestamp in
milliseconds, input_length, output_length and hash_ids, one for each 512 tokens of the prompt, the last of which
may be fewer; equal ids mean equal tokens after an equal prefix. In both, as published, every count is at least 1
and times do not fall; the reader requires that.
"""

from __future__ import annotations

import csv
import io
import json
import re
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from .errors import InputError
from .progress import progress

TOKENS_PER_HASH = 512
"""Prompt tokens that one of hash_ids stands for."""

MOST_HASH_ID = 2**40
"""Bound of hash_ids: token ids made from them stay far within int64."""

MOST_MILLISECONDS = 10**13
"""Bound of a timestamp: three centuries."""

MOST_TOKENS = 10_000_000
"""Bound of a count in a trace: more is a mistake in the file."""

TRACE_COLUMNS = ("ContextTokens", "GeneratedTokens")
AZURE_FIELDS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
MOONCAKE_FIELDS = ("timestamp", "input_length", "output_length", "hash_ids")
_BATCH = 1000  # lines between two steps of the progress bar
_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,9})?")


@dataclass(frozen=True, eq=False)
class Trace:
    """Requests in the order of their arrival.

    Attributes
    ----------
    name : str
        The file's.
    arrivals : float64[num_requests]
        Seconds since the first request.
    prompt_lens, output_lens : int64[num_requests]
        Tokens, each at least 1.
    hash_ids : list of int64[num_hash_blocks], or None
        By request, one id for each 512 prompt tokens; None where the trace does not say what prompts share.
    """

    name: str
    arrivals: Any
    prompt_lens: Any
    output_lens: Any
    hash_ids: list[Any] | None = None

    def __len__(self) -> int:
        return len(self.arrivals)

    @property
    def final_lens(self) -> Any:
        """Tokens in the cache when a request ends, int64[num_requests]: its last one is never written."""
        return self.prompt_lens + self.output_lens - 1

    def first(self, count: int) -> Trace:
        """Return the first requests."""
        ids = None if self.hash_ids is None else self.hash_ids[:count]
        return replace(
            self,
            arrivals=self.arrivals[:count],
            prompt_lens=self.prompt_lens[:count],
            output_lens=self.output_lens[:count],
            hash_ids=ids,
        )

    def all_at_once(self) -> Trace:
        """Return the same requests, all there from the start."""
        return replace(self, arrivals=np.zeros(len(self)))

    def unbounded_hit_rate(self, block_size: int, steps: Any) -> float:
        """Return the share of prompt tokens that are found where nothing is ever evicted.

        Parameters
        ----------
        block_size : int
            Only full blocks are found.
        steps : int64[num_requests]
            In which each prompt is computed; it finds those of the steps before.
        """
        assert self.hash_ids is not None
        # Prefixes by the number of the one that is a piece shorter, and the piece's id.
        prefixes: dict[tuple[int, int], int] = {}
        # Tokens up to the end of each prefix that a prompt had: the last piece may be a part of one.
        held: list[int] = []
        written: list[tuple[int, int]] = []  # in this step
        hits, last = 0, -1
        for step, prompt_len, ids in zip(
            steps.tolist(), self.prompt_lens.tolist(), self.hash_ids, strict=True
        ):
            if step != last:
                for prefix, end in written:
                    held[prefix] = max(held[prefix], end)
                last, written = step, []
            prefix, known, end = -1, 0, 0
            for number in ids.tolist():
                prefix = prefixes.setdefault((prefix, number), len(prefixes))
                end = min(end + TOKENS_PER_HASH, prompt_len)
                if prefix == len(held):
                    held.append(0)
                known = max(known, min(held[prefix], end))
                written.append((prefix, end))
            # One token is left to compute.
            hits += min(known, prompt_len - 1) // block_size * block_size
        return hits / int(self.prompt_lens.sum())

    def token_ids(self, request: int, start: int, stop: int) -> Any:
        """Return ids of the tokens ``start .. stop - 1`` of a request, int64[stop - start].

        Prompts that begin with equal `hash_ids` begin with equal tokens; a generated token is like no other.
        """
        assert self.hash_ids is not None
        prompt_len = int(self.prompt_lens[request])
        first = start // TOKENS_PER_HASH
        pieces = self.hash_ids[request][first : -(-stop // TOKENS_PER_HASH), None] * TOKENS_PER_HASH
        skipped = first * TOKENS_PER_HASH
        prompt = (pieces + np.arange(TOKENS_PER_HASH)).ravel()[
            start - skipped : min(stop, prompt_len) - skipped
        ]
        generated = np.arange(max(start, prompt_len), stop) + (
            self._first_generated_id + request * MOST_TOKENS * 2
        )
        return np.concatenate([prompt, generated])

    @cached_property
    def _first_generated_id(self) -> int:
        assert self.hash_ids is not None
        return (max(int(ids.max()) for ids in self.hash_ids) + 1) * TOKENS_PER_HASH


def read(path: Path) -> Trace:
    """Read a trace of either format.

    Raises
    ------
    InputError
        A file that is neither, or a line that is not as the format demands.
    OSError
        The file cannot be read.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: a trace must be UTF-8 text, got byte {content[error.start]:#04x}"
        ) from None
    opening = text.lstrip()
    if not opening:
        raise InputError(f"{path}: a trace must hold at least one request, got nothing but white space")
    if opening[0] == "{":
        return _read_mooncake(path, text)
    header = opening.splitlines()[0]
    if not any(name in header for name in AZURE_FIELDS):
        line = text.count("\n", 0, len(text) - len(opening)) + 1
        raise InputError(
            f"{path}, line {line}: a trace must be JSON lines with {', '.join(MOONCAKE_FIELDS)}, "
            f"or CSV with the columns {', '.join(AZURE_FIELDS)}, got {reprlib.repr(header)}"
        )
    return _read_azure(path, text)


def _read_azure(path: Path, text: str) -> Trace:
    times: list[Any] = []
    lens: list[list[int]] = []
    last = np.datetime64(0, "us")
    with progress(text.count("\n"), "read", "lines") as done:
        for line, row in csv_rows(path, text, AZURE_FIELDS):
            time = _time(path, line, row["TIMESTAMP"])
            if times and time < last:
                raise InputError(
                    f"{path}, line {line}: TIMESTAMP must not fall, got {row['TIMESTAMP']!r} after {last}"
                )
            last = time
            times.append(time)
            lens.append([count_in(path, line, name, row[name]) for name in AZURE_FIELDS[1:]])
            if len(lens) % _BATCH == 0:
                done(_BATCH)
    seconds = (np.array(times) - times[0]) / np.timedelta64(1, "s")
    prompt_lens, output_lens = np.array(lens, np.int64).T
    return Trace(path.name, seconds, prompt_lens, output_lens)


def _read_mooncake(path: Path, text: str) -> Trace:
    lines = text.split("\n")
    times: list[float] = []
    lens: list[list[int]] = []
    hash_ids: list[Any] = []
    with progress(len(lines), "read", "lines") as done:
        for number, line in enumerate(lines, start=1):
            if number % _BATCH == 0:
                done(_BATCH)
            if not line.strip():
                continue
            record = _record(path, number, line)
            time, prompt_len, output_len, ids = (record[name] for name in MOONCAKE_FIELDS)
            if times and time < times[-1]:
                _refuse(path, number, "timestamp must not fall", f"timestamp={time} after {times[-1]}")
            times.append(time)
            lens.append([prompt_len, output_len])
            hash_ids.append(np.array(ids, np.int64))
    seconds = (np.array(times, np.float64) - times[0]) / 1000
    prompt_lens, output_lens = np.array(lens, np.int64).T
    return Trace(path.name, seconds, prompt_lens, output_lens, hash_ids)


def _record(path: Path, number: int, line: str) -> dict[str, Any]:
    """Return one line's request, each field of it sound by itself."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        why = (
            f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        )
        _refuse(path, number, "a line must be a JSON object", f"{reprlib.repr(line)}: {why}")
    if not isinstance(record, dict):
        _refuse(path, number, "a line must be a JSON object", reprlib.repr(line))
    missing = [name for name in MOONCAKE_FIELDS if name not in record]
    if missing:
        _refuse(path, number, f"must have {', '.join(MOONCAKE_FIELDS)}", f"no {missing[0]}")
    time, prompt_len, output_len, ids = (record[name] for name in MOONCAKE_FIELDS)
    if type(time) not in (int, float) or not 0 <= time <= MOST_MILLISECONDS:
        what = f"timestamp must be milliseconds in 0 .. {MOST_MILLISECONDS}"
        _refuse(path, number, what, f"timestamp={reprlib.repr(time)}")
    for name, count in (("input_length", prompt_len), ("output_length", output_len)):
        if type(count) is not int or not 1 <= count <= MOST_TOKENS:
            what = f"{name} must be an integer in 1 .. {MOST_TOKENS}"
            _refuse(path, number, what, f"{name}={reprlib.repr(count)}")
    if not isinstance(ids, list) or any(type(n) is not int or not 0 <= n <= MOST_HASH_ID for n in ids):
        what = f"hash_ids must be a list of integers in 0 .. {MOST_HASH_ID}"
        _refuse(path, number, what, f"hash_ids={reprlib.repr(ids)}")
    expected = -(-prompt_len // TOKENS_PER_HASH)
    if len(ids) != expected:
        what = f"hash_ids must hold {expected} for input_length={prompt_len}, one for each {TOKENS_PER_HASH} tokens"
        _refuse(path, number, what, str(len(ids)))
    return record


def _time(path: Path, line: int, text: str) -> Any:
    try:
        if _TIME.fullmatch(text):
            return np.datetime64(text, "us")
    except ValueError:
        pass
    what = "TIMESTAMP must be a time like 2023-11-16 18:15:46.68059"
    raise InputError(f"{path}, line {line}: {what}, got {reprlib.repr(text)}")


def _refuse(path: Path, number: int, requirement: str, got: str) -> NoReturn:
    raise InputError(f"{path}, line {number}: {requirement}, got {got}") from None


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
