"""Traces of real requests: the class `Trace`, and one reader for the files of Azure, BurstGPT and Mooncake.

The reader recognises a format by its content, and reads files compressed with gzip as well:

- Azure LLM inference traces (2023: Patel et al., "Splitwise", ISCA 2024; 2024: Stojkovic et al., "DynamoLLM",
  HPCA 2025): CSV with the columns TIMESTAMP, ContextTokens and GeneratedTokens.
- BurstGPT (Wang et al., "BurstGPT: A Real-world Workload Dataset to Optimize LLM Serving Systems"): CSV with the
  columns Timestamp, Request tokens and Response tokens. A row with 0 response tokens is a request that failed; the
  reader leaves it out and counts it in `Trace.num_failed`.
- Mooncake (Qin et al., "Mooncake", FAST 2025): JSON lines with timestamp (milliseconds), input_length,
  output_length and hash_ids. Each hash id stands for 512 tokens of the prompt, the last one for the rest; equal
  ids mean equal tokens after an equal prefix.

Columns may be in any order, and there may be others. A time in a CSV file is a date and time of ISO 8601 or a
number of seconds, the same kind in all lines; digits after the nanosecond are dropped. Times with UTC offsets are
compared in UTC. If a CSV file has no column of times, the arrivals of its requests are unknown.

Apart from failed requests, every count must be at least 1, and times must not decrease. Errors name file and line.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import operator
import re
import reprlib
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import MAX_PREC, Context, Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from . import arguments
from .arguments import between, host_array, not_negative, positive
from .errors import InputError
from .progress import progress

TOKENS_PER_HASH = 512
"""Prompt tokens that one of `hash_ids` stands for."""

MOST_HASH_ID = 2**40
"""Largest hash id. Token ids made from hash ids stay far within int64."""

MOST_SECONDS = 10**10
"""Largest time given as a number: three centuries."""

MOST_TOKENS = 10_000_000
"""Largest count of tokens. A larger one is a mistake in the file."""


class CsvFormat(NamedTuple):
    """Names of the columns of a CSV trace, and the smallest output length: 0 if that marks a failed request."""

    time: str
    prompt_len: str
    output_len: str
    least_output_len: int


AZURE = CsvFormat("TIMESTAMP", "ContextTokens", "GeneratedTokens", 1)
BURSTGPT = CsvFormat("Timestamp", "Request tokens", "Response tokens", 0)
MOONCAKE_FIELDS = ("timestamp", "input_length", "output_length", "hash_ids")

FORMATS = (
    f"CSV with {', '.join(AZURE[:3])} (Azure) or {', '.join(BURSTGPT[:3])} (BurstGPT), "
    f"or JSON lines with {', '.join(MOONCAKE_FIELDS)} (Mooncake)"
)
"""The formats of a trace file, for help texts and errors."""

_fields = operator.itemgetter(*MOONCAKE_FIELDS)
_BATCH = 1000  # requests between two steps of the progress bar

_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_STAMP = re.compile(
    r"(\d{4})(-?)(\d\d)\2(\d\d)"  # year, month, day
    r"(?:[Tt ](\d\d)(?:(:?)(\d\d)(?:\6(\d\d)(?:[.,](\d+))?)?)?"  # hour, minute, second, fraction
    r"([Zz]|([+-])(\d\d)(?::?(\d\d)(?::?(\d\d))?)?)?)?",  # UTC offset: sign, hours, minutes, seconds
    re.ASCII,
)
_EXACT = Context(prec=MAX_PREC)

_shown = reprlib.Repr()  # long enough to show a whole time stamp
_shown.maxstring = 60


@dataclass(frozen=True, eq=False)
class Trace:
    """Requests in the order of their arrival.

    Attributes
    ----------
    name : str
        Name of the file.
    arrivals : float64[num_requests] or None
        Seconds since the first request; None if the file has no times.
    prompt_lens, output_lens : int64[num_requests]
        Tokens, each at least 1.
    hash_ids : list of int64[num_hash_blocks], or None
        For each request, one id for each 512 prompt tokens; None if the file does not record shared prefixes.
    num_failed : int
        Number of failed requests in the whole file. The other attributes leave them out.
    """

    name: str
    arrivals: Any
    prompt_lens: Any
    output_lens: Any
    hash_ids: list[Any] | None = None
    num_failed: int = 0

    def __len__(self) -> int:
        return len(self.prompt_lens)

    @property
    def final_lens(self) -> Any:
        """Tokens in the cache when a request ends, int64[num_requests]: the last token is never written."""
        return self.prompt_lens + self.output_lens - 1

    def first(self, count: int) -> Trace:
        """Return the first `count` requests."""
        count = not_negative("count", count)
        return replace(
            self,
            arrivals=None if self.arrivals is None else self.arrivals[:count],
            prompt_lens=self.prompt_lens[:count],
            output_lens=self.output_lens[:count],
            hash_ids=None if self.hash_ids is None else self.hash_ids[:count],
        )

    def all_at_once(self) -> Trace:
        """Return the same requests, all arriving at time 0."""
        return replace(self, arrivals=np.zeros(len(self)))

    def unbounded_hit_rate(self, block_size: int, steps: Any) -> float:
        """Return the share of prompt tokens that a prefix cache finds if it never evicts a block.

        Parameters
        ----------
        block_size : int
            Tokens of a block; the cache finds only full blocks.
        steps : int64[num_requests]
            The step in which each prompt is computed. A prompt finds the tokens that earlier steps computed.
        """
        hash_ids, block_size = self._known_hash_ids(), positive("block_size", block_size)
        steps = host_array("steps", steps)
        if steps.shape != (len(self),) or steps.dtype.kind not in "iu":
            raise ValueError(
                f"steps must hold an integer for each of {len(self)} requests, "
                f"got steps.dtype={steps.dtype} steps.shape={steps.shape}"
            )
        # The number of each prefix, by the number of the prefix without its last hash id, and by that hash id.
        prefixes: dict[tuple[int, int], int] = {}
        # Tokens computed up to the end of each prefix: the last hash id may stand for fewer than 512.
        held: list[int] = []
        written: list[tuple[int, int]] = []  # in this step
        hits, last = 0, -1
        for step, prompt_len, ids in zip(steps.tolist(), self.prompt_lens.tolist(), hash_ids, strict=True):
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
            # The last token of a prompt is always computed: its output is the next token.
            hits += min(known, prompt_len - 1) // block_size * block_size
        return hits / int(self.prompt_lens.sum())

    def token_ids(self, request: int, start: int, stop: int) -> Any:
        """Return ids of the tokens ``start .. stop - 1`` of a request, int64[stop - start].

        Prompts whose `hash_ids` begin with the same ids begin with the same tokens; each generated token is unique.
        """
        hash_ids = self._known_hash_ids()
        request = between("request", request, 0, len(self) - 1, "len(trace) - 1")
        stop = between("stop", stop, 0, MOST_TOKENS * 2)
        start = between("start", start, 0, stop, "stop")
        prompt_len = int(self.prompt_lens[request])
        first = start // TOKENS_PER_HASH
        firsts = hash_ids[request][first : -(-stop // TOKENS_PER_HASH), None] * TOKENS_PER_HASH
        skipped = first * TOKENS_PER_HASH
        prompt = (firsts + np.arange(TOKENS_PER_HASH)).ravel()[
            start - skipped : min(stop, prompt_len) - skipped
        ]
        generated = np.arange(max(start, prompt_len), stop) + (
            self._first_generated_id + request * MOST_TOKENS * 2
        )
        return np.concatenate([prompt, generated])

    @cached_property
    def _first_generated_id(self) -> int:
        return (max(int(ids.max()) for ids in self._known_hash_ids()) + 1) * TOKENS_PER_HASH

    def _known_hash_ids(self) -> list[Any]:
        if self.hash_ids is None:
            raise ValueError(
                f"hash_ids must be known for shared prefixes, got none in the trace {self.name!r}"
            )
        return self.hash_ids


def read(path: str | Path) -> Trace:
    """Read a trace file of any format.

    Raises
    ------
    InputError
        The file is in none of the formats, a line violates its format, or a gzip file is damaged.
    TypeError, ValueError
        `path` is not a path.
    OSError
        The file cannot be read.
    """
    path = arguments.path("path", path)
    text = _text(path)
    start = re.search(r"\S", text)
    if start is None:
        raise InputError(f"{path}: a trace must hold at least one request, got nothing but white space")
    return (_read_mooncake if start.group() == "{" else _read_csv)(path, text)


def _text(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise InputError(f"{path}: a gzip file must be complete and undamaged, got: {error}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # `error.object` has no byte order mark, even if the file does.
        before, byte = error.object[: error.start], error.object[error.start]
        line = 1 + len(re.findall(rb"\r\n|\r|\n", before))
        _refuse(path, line, "a trace must be UTF-8 text", f"byte {byte:#04x}")


def _read_csv(path: Path, text: str) -> Trace:
    rows = _csv_rows(path, text)
    line, header = next(rows, (1, []))
    header = [name.strip() for name in header]
    form = _csv_format(path, line, header)
    prompt_at, output_at = header.index(form.prompt_len), header.index(form.output_len)
    time_at = header.index(form.time) if form.time in header else None
    times: list[int] = []
    lens: list[tuple[int, int]] = []
    num_failed = 0
    clock = _Clock(path, form.time)
    with progress(text.count("\n"), "read", "lines") as done:
        for count, (line, row) in enumerate(rows, start=1):
            if count % _BATCH == 0:
                done(_BATCH)
            if len(row) != len(header):
                what = f"a line must have {len(header)} cells, one for each column"
                _refuse(path, line, what, str(len(row)))
            time = 0 if time_at is None else clock.read(line, row[time_at])
            output_len = _count(path, line, form.output_len, row[output_at], form.least_output_len)
            # A failed request may have an empty prompt, too.
            prompt_len = _count(path, line, form.prompt_len, row[prompt_at], min(1, output_len))
            if output_len == 0:
                num_failed += 1
                continue
            times.append(time)
            lens.append((prompt_len, output_len))
    if not lens:
        failed = f" but {num_failed} that failed" if num_failed else ""
        raise InputError(f"{path}: a trace must hold at least one request, got none{failed}")
    prompt_lens, output_lens = np.array(lens, np.int64).T
    arrivals = None if time_at is None else np.array([(time - times[0]) / 10**9 for time in times])
    return Trace(_printable(path.name), arrivals, prompt_lens, output_lens, num_failed=num_failed)


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank, with the number of its first line."""
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            _refuse(path, line, "a line must be well-formed CSV", f"an error: {error}")
        if len(row) > 1 or (row and row[0].strip()):
            yield line, row


def _csv_format(path: Path, line: int, header: list[str]) -> CsvFormat:
    """Return the CSV format whose columns are in a header."""
    for form in (AZURE, BURSTGPT):
        if form.prompt_len in header and form.output_len in header:
            break
    else:
        _refuse(path, line, f"a trace must be {FORMATS}", _shown.repr(header))
    if line > 1:
        _refuse(path, 1, "the header of a CSV trace must be its first line", "a blank line")
    name, count = Counter(header).most_common(1)[0]
    if count > 1:
        _refuse(path, line, "columns must have different names", f"{count} named {_shown.repr(name)}")
    return form


class _Clock:
    """Reader of a trace's times, which must all be of one kind and in order."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.kind, self.last, self.last_text = "", -1, ""

    def read(self, line: int, text: str) -> int:
        """Return a time in nanoseconds since an origin that is the same for all lines."""
        found = _nanoseconds(text.strip())
        if found is None:
            what = f"{self.name} must be a date and time of ISO 8601, or seconds in 0 .. {MOST_SECONDS}"
            _refuse(self.path, line, what, _shown.repr(text))
        kind, time = found
        if self.kind not in ("", kind):
            got = f"{kind}, {_shown.repr(text)}, after {self.kind}, {_shown.repr(self.last_text)}"
            _refuse(self.path, line, f"{self.name} must be of the same kind in all lines", got)
        if time < self.last:
            got = f"{_shown.repr(text)} after {_shown.repr(self.last_text)}"
            _refuse(self.path, line, f"{self.name} must not decrease", got)
        self.kind, self.last, self.last_text = kind, time, text
        return time


def _nanoseconds(text: str) -> tuple[str, int] | None:
    """Return the kind of a time and the nanoseconds since the origin of that kind; None if the text is not a time.

    `datetime.fromisoformat` would not do: before Python 3.11 it refuses Z and fractions of 7 digits.
    """
    if _NUMBER.fullmatch(text):
        number = Decimal(text)
        return ("a number of seconds", int(number.scaleb(9, _EXACT))) if number <= MOST_SECONDS else None
    stamp = _STAMP.fullmatch(text)
    if stamp is None:
        return None
    parts = stamp.groups("0")
    year, _, month, day, hour, _, minute, second, fraction, offset = parts[:10]
    try:
        local = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second))
    except ValueError:
        return None
    total = local.toordinal() * 86_400 + local.hour * 3600 + local.minute * 60 + local.second
    nanoseconds = int(fraction[:9].ljust(9, "0"))
    if offset == "0":
        return "a time without a UTC offset", total * 10**9 + nanoseconds
    hours, minutes, seconds = map(int, parts[11:])
    if hours > 23 or minutes > 59 or seconds > 59:
        return None
    east = hours * 3600 + minutes * 60 + seconds
    total += east if parts[10] == "-" else -east
    return "a time with a UTC offset", total * 10**9 + nanoseconds


def _count(path: Path, line: int, name: str, text: str, least: int) -> int:
    digits = text.strip()
    count = int(digits) if digits.isdecimal() and digits.isascii() and len(digits) < 20 else -1
    if not least <= count <= MOST_TOKENS:
        what = f"{name} must be an integer in {least} .. {MOST_TOKENS}"
        _refuse(path, line, what, _shown.repr(text))
    return count


def _read_mooncake(path: Path, text: str) -> Trace:
    times: list[float] = []
    lens: list[list[int]] = []
    hash_ids: list[Any] = []
    with progress(text.count("\n"), "read", "lines") as done:
        for number, line in enumerate(io.StringIO(text, newline=""), start=1):
            if number % _BATCH == 0:
                done(_BATCH)
            if not line.strip():
                continue
            time, prompt_len, output_len, ids = _record(path, number, line)
            if times and time < times[-1]:
                _refuse(path, number, "timestamp must not decrease", f"timestamp={time} after {times[-1]}")
            times.append(time)
            lens.append([prompt_len, output_len])
            hash_ids.append(np.array(ids, np.int64))
    seconds = (np.array(times, np.float64) - times[0]) / 1000
    prompt_lens, output_lens = np.array(lens, np.int64).T
    return Trace(_printable(path.name), seconds, prompt_lens, output_lens, hash_ids)


def _record(path: Path, number: int, line: str) -> tuple[float, int, int, list[int]]:
    """Return the fields of the request in a line, each checked on its own."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        why = (
            f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        )
        _refuse(path, number, "a line must be a JSON object", f"{_shown.repr(line.strip())}: {why}")
    if not isinstance(record, dict):
        _refuse(path, number, "a line must be a JSON object", _shown.repr(line.strip()))
    try:
        time, prompt_len, output_len, ids = _fields(record)
    except KeyError as error:
        _refuse(path, number, f"a line must have {', '.join(MOONCAKE_FIELDS)}", f"no {error.args[0]}")
    if type(time) not in (int, float) or not 0 <= time <= 1000 * MOST_SECONDS:
        what = f"timestamp must be milliseconds in 0 .. {1000 * MOST_SECONDS}"
        _refuse(path, number, what, f"timestamp={_shown.repr(time)}")
    for name, count in (("input_length", prompt_len), ("output_length", output_len)):
        if type(count) is not int or not 1 <= count <= MOST_TOKENS:
            what = f"{name} must be an integer in 1 .. {MOST_TOKENS}"
            _refuse(path, number, what, f"{name}={_shown.repr(count)}")
    if not isinstance(ids, list) or any(type(n) is not int or not 0 <= n <= MOST_HASH_ID for n in ids):
        what = f"hash_ids must be a list of integers in 0 .. {MOST_HASH_ID}"
        _refuse(path, number, what, f"hash_ids={_shown.repr(ids)}")
    expected = -(-prompt_len // TOKENS_PER_HASH)
    if len(ids) != expected:
        what = f"hash_ids must hold {expected} ids for input_length={prompt_len}, one per {TOKENS_PER_HASH} tokens"
        _refuse(path, number, what, str(len(ids)))
    return time, prompt_len, output_len, ids


def _refuse(path: Path, line: int, requirement: str, got: str) -> NoReturn:
    raise InputError(f"{path}, line {line}: {requirement}, got {got}") from None


def _printable(name: str) -> str:
    """Return a file's name with ``?`` for bytes that are not UTF-8, which no text can hold."""
    return name.encode("utf-8", "replace").decode("utf-8")
