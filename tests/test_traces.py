"""Trace files: requests written in every format and style read back the same; an error names its line."""

import contextlib
import csv
import gzip
import inspect
import io
import json
import os
import re
import sys
import types
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from paged_numba import traces
from paged_numba.commands import main as cli
from paged_numba.errors import InputError

DATA = Path(__file__).parents[2] / "shared" / "data"
AZURE, MOONCAKE = DATA / "azure_llm_2023_conv.csv", DATA / "mooncake_conversation.jsonl"
needs_data = pytest.mark.skipif(
    not DATA.exists(), reason="needs the Azure and Mooncake traces, which are not part of the package"
)

PIECE = 4
"""Tokens that a hash id stands for in drawn traces."""


LONGEST_FIELD = 1000
"""Limit of the csv module in these tests."""


@pytest.fixture(autouse=True)
def small_limits():
    limit = csv.field_size_limit(LONGEST_FIELD)
    with mock.patch.object(traces, "TOKENS_PER_HASH", PIECE):
        yield
    csv.field_size_limit(limit)


# Files drawn at random. A file is a list of lines that are rows or blank; a row says what the reader must find in it.

COLUMNS = {
    "azure": ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    "burstgpt": ("Timestamp", "Request tokens", "Response tokens"),
}
NEWLINES = ("\n", "\r\n", "\r")
EPOCH = datetime(2024, 2, 28, 23, 59, 59)


def times(least):
    """Draw nanoseconds in order, with few or many digits after the second."""
    return st.sampled_from((1, 100, 10**3, 10**6, 10**9)).flatmap(
        lambda unit: st.lists(
            st.integers(0, 10**14 // unit).map(lambda n: n * unit), min_size=least, max_size=6
        ).map(sorted)
    )


def fraction(draw, nanoseconds):
    """Return a fraction of a second as text: empty if it is 0, and sometimes with more digits than needed."""
    digits = f"{nanoseconds:09d}".rstrip("0") + "0" * draw(st.sampled_from((0, 0, 2, 12)))
    return draw(st.sampled_from(".,")) + digits if digits else ""


@st.composite
def stamps(draw, nanoseconds, aware):
    """Return the ISO 8601 date and time of `EPOCH` plus a number of nanoseconds."""
    seconds, rest = divmod(nanoseconds, 10**9)
    offset = draw(st.integers(-14 * 60, 14 * 60)) * aware
    local = EPOCH + timedelta(seconds=seconds, minutes=offset)
    date, time = draw(st.sampled_from(("%Y-%m-%d", "%Y%m%d"))), draw(st.sampled_from(("%H:%M:%S", "%H%M%S")))
    zone = ""
    if aware:
        hours, minutes = divmod(abs(offset), 60)
        zone = f"{'-' if offset < 0 else '+'}{hours:02d}{draw(st.sampled_from((':', '')))}{minutes:02d}"
        if minutes == 0:
            zone = draw(st.sampled_from((zone, zone[:3], "Z" if offset == 0 else zone)))
    text = local.strftime(f"{date}{draw(st.sampled_from('T '))}{time}")
    return text + fraction(draw, rest) + zone


@st.composite
def seconds(draw, nanoseconds):
    """Return a number of seconds as text."""
    exact = Decimal(nanoseconds).scaleb(-9)
    return draw(st.sampled_from((f"{exact:f}", f"{exact:E}", f"{nanoseconds}e-9", f"0{exact:f}")))


@st.composite
def csv_files(draw, form=None, least=1):
    """Return column names, rows, and the requests in them: (ns, prompt, output)."""
    form = form or draw(st.sampled_from(sorted(COLUMNS)))
    kind = draw(st.sampled_from(("naive", "aware", "seconds")))
    requests, rows = [], []
    names = list(draw(st.permutations([*COLUMNS[form], "Model", "Total tokens"])))
    for time in draw(times(least)):
        failed = form == "burstgpt" and draw(st.integers(0, 3)) == 0
        output = 0 if failed else draw(st.integers(1, traces.MOST_TOKENS))
        prompt = draw(st.integers(int(not failed), traces.MOST_TOKENS))
        stamp = draw(seconds(time) if kind == "seconds" else stamps(time, kind == "aware"))
        cells = dict(zip(COLUMNS[form], (stamp, prompt, output), strict=True))
        cells |= {"Model": draw(st.sampled_from(("GPT-4", 'a "quote"', "two\nlines", ""))), "Total tokens": 7}
        rows.append([cells[name] for name in names])
        if not failed:
            requests.append((time, prompt, output))
    return names, rows, requests


@st.composite
def written(draw, names, rows):
    """Return the content of a CSV file as text, and the number of the first line of each row."""
    newline = draw(st.sampled_from(NEWLINES))
    # The writer would not quote a line feed where lines end in a carriage return.
    quoting = csv.QUOTE_ALL if newline == "\r" else draw(st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)))
    text, lines = "", []
    for row in [names, *rows]:
        lines.append(len(re.findall(r"\r\n|\r|\n", text)) + 1)
        out = io.StringIO(newline="")
        csv.writer(out, quoting=quoting, lineterminator=newline).writerow(row)
        text += out.getvalue() + newline * draw(st.sampled_from((0, 0, 0, 1, 2)))
    if draw(st.booleans()):
        text = text.rstrip("\r\n")
    return text, lines[1:]


@st.composite
def mooncake_files(draw):
    """Return lines of JSON, blank ones among them, and requests (ns, prompt, output, hash ids)."""
    requests, lines = [], []
    for time in sorted(draw(st.lists(st.integers(0, 10**7), min_size=1, max_size=6))):
        prompt, output = draw(st.integers(1, 5 * PIECE)), draw(st.integers(1, traces.MOST_TOKENS))
        count = -(-prompt // PIECE)
        ids = draw(st.lists(st.integers(0, traces.MOST_HASH_ID), min_size=count, max_size=count))
        values = (time, prompt, output, ids)
        fields = dict(zip(traces.MOONCAKE_FIELDS, values, strict=True)) | {"more": None}
        order = draw(st.permutations(sorted(fields)))
        lines += [json.dumps({name: fields[name] for name in order}), *draw(st.sampled_from(([], [], [""])))]
        requests.append((time * 10**6, prompt, output, ids))
    return lines, requests


@st.composite
def contents(draw):
    """Return the bytes of a file, and the requests in it."""
    if draw(st.integers(0, 2)):
        names, rows, requests = draw(csv_files())
        text, _ = draw(written(names, rows))
    else:
        lines, requests = draw(mooncake_files())
        text = draw(st.sampled_from(NEWLINES)).join(lines)
        rows = requests
    content = draw(st.sampled_from((b"", b"\xef\xbb\xbf"))) + text.encode()
    return (gzip.compress(content) if draw(st.booleans()) else content), requests, len(rows) - len(requests)


def read_bytes(content, reader=traces):
    """Return the trace that a file of this content holds."""
    with mock.patch.object(Path, "read_bytes", return_value=content):
        return reader.read(Path("some/file"))


def reads_back(file, reader=traces):
    content, requests, num_failed = file
    if not requests:
        with pytest.raises(InputError, match=rf"at least one request, got none but {num_failed} that failed"):
            read_bytes(content, reader)
        return
    trace = read_bytes(content, reader)
    start = requests[0][0]
    assert trace.name == "file"
    assert trace.arrivals is not None
    assert trace.arrivals.tolist() == [(time - start) / 10**9 for time, *_ in requests]
    assert trace.prompt_lens.tolist() == [prompt for _, prompt, *_ in requests]
    assert trace.output_lens.tolist() == [output for _, _, output, *_ in requests]
    assert {a.dtype.name for a in (trace.prompt_lens, trace.output_lens)} == {"int64"}
    assert trace.num_failed == num_failed
    ids = None if trace.hash_ids is None else [chain.tolist() for chain in trace.hash_ids]
    assert ids == ([request[3] for request in requests] if len(requests[0]) == 4 else None)


@given(contents())
def test_requests_read_back_from_every_format_and_style(file):
    reads_back(file)


# Malformed files: one row of a sound file is spoilt, and its line must be named.

BAD_TIMES = (
    "yesterday", "", "nan", "inf", "-1", "1_0", "1e99", "1e9999", "10000000001", "2024-02-30 00:00:00", "0000-01-01",
    "2023-13-16 18:15:46", "2023-11-16 24:00:00", "2023-11-16 18:15:60", "2023-11-16T18:1", "2023-1116 18:15:46",
    "2023-11-16 18:15:46+24:00", "2023-11-16 18:15:46+01:60", "2023-11-16 18:15:46.", "2023-11-16+01:00", "1.2.3",
)  # fmt: skip
BAD_COUNTS = ("x", "", "-1", "1.5", "10000001", "1_0", "9" * 30, "\u0663", "1 2")


@st.composite
def malformed_csv(draw):
    """Return bytes of a file, the line that is wrong, and a pattern of the message."""
    fault = draw(st.sampled_from(("time", "count", "zero", "cells", "overlong", "quote", "falls", "kind")))
    later = fault in ("falls", "kind")
    form = "azure" if fault == "zero" else draw(st.sampled_from(sorted(COLUMNS)))
    names, rows, _ = draw(csv_files(form, least=1 + later))
    time, prompt, output = (names.index(name) for name in COLUMNS[form])
    place = draw(st.integers(int(later), len(rows) - 1))
    row = rows[place]
    if fault == "time":
        row[time] = draw(st.sampled_from(BAD_TIMES))
        message = f"{names[time]} must be a date and time of ISO 8601, or seconds in 0 .. 10000000000, got '"
    elif fault in ("count", "zero"):
        column = output if fault == "zero" else draw(st.sampled_from((prompt, output)))
        row[column] = "0" if fault == "zero" else draw(st.sampled_from(BAD_COUNTS))
        message = f"{names[column]} must be an integer in "
    elif fault == "cells":
        if draw(st.booleans()):
            row.append("more")
        else:
            row.pop()
        message = f"a line must have {len(names)} cells, one for each column, got {len(row)}"
    elif fault == "overlong":
        row[names.index("Model")] = "x" * (LONGEST_FIELD + 1)
        message = "a line must be well-formed CSV, got an error: field larger than field limit"
    elif fault == "quote":
        message = "a line must be well-formed CSV, got an error: "
    else:
        # Equal times, which are valid, are followed by an earlier time or by a time of another kind.
        before, after = "2200-01-01T00Z", "2199-12-31T23:59:59.999999999Z"
        if fault == "kind":
            after = draw(st.sampled_from(("2200-01-02T00:00", "9999999999")))
        for sound in rows[:place]:
            sound[time] = before
        row[time] = after
        message = f"{names[time]} must not decrease, got '{after}' after '{before}'"
        if fault == "kind":
            message = f"{names[time]} must be of the same kind in all lines, got a "
    text, lines = draw(written(names, rows))
    if fault == "quote":
        # An opening quote that nothing closes: the row and all after it are one field.
        starts = [0, *(match.end() for match in re.finditer(r"\r\n|\r|\n", text))]
        text = text[: starts[lines[place] - 1]] + '"' + "x,1\r\n" * 3
    return text.encode(), lines[place], message


@st.composite
def malformed_json(draw):
    """Return bytes of a file, the line that is wrong, and a pattern of the message."""
    lines, _ = draw(mooncake_files())
    lines = [line for line in lines if line]
    place = draw(st.integers(0, len(lines) - 1))
    bad, message = draw(
        st.sampled_from(
            (
                (
                    {"timestamp": -1},
                    "timestamp must be milliseconds in 0 .. 10000000000000, got timestamp=-1",
                ),
                (
                    {"timestamp": "0"},
                    "timestamp must be milliseconds in 0 .. 10000000000000, got timestamp='0'",
                ),
                ({"input_length": 0}, "input_length must be an integer in 1 .. 10000000, got input_length=0"),
                (
                    {"output_length": 1.5},
                    "output_length must be an integer in 1 .. 10000000, got output_length=1.5",
                ),
                (
                    {"hash_ids": [-1]},
                    "hash_ids must be a list of integers in 0 .. 1099511627776, got hash_ids=[-1]",
                ),
                ({"hash_ids": []}, "hash_ids must hold "),
            )
        )
    )
    lines[place] = json.dumps(json.loads(lines[place]) | bad)
    blanks = draw(st.lists(st.integers(0, len(lines)), max_size=3))
    for blank in sorted(blanks, reverse=True):
        lines.insert(blank, "")
    place += sum(blank <= place for blank in blanks)
    return draw(st.sampled_from(NEWLINES)).join(lines).encode(), place + 1, message


@st.composite
def not_text(draw):
    """Return a sound file with a byte that is not UTF-8."""
    names, rows, _ = draw(csv_files())
    text, _ = draw(written(names, rows))
    place = draw(st.integers(0, len(text)))
    before, byte = text[:place], draw(st.sampled_from((b"\xff", b"\x80")))
    line = len(re.findall(r"\r\n|\r|\n", before)) + 1
    content = draw(st.sampled_from((b"", b"\xef\xbb\xbf"))) + before.encode() + byte + text[place:].encode()
    return content, line, f"a trace must be UTF-8 text, got byte 0x{byte.hex()}"


@st.composite
def bad_headers(draw):
    """Return a file whose header is repeated in part, or stands below blank lines."""
    names, rows, _ = draw(csv_files())
    if draw(st.booleans()):
        again = draw(st.integers(0, len(names) - 1))
        names.append(names[again])
        message = f"columns must have different names, got 2 named '{names[again]}'"
        return draw(written(names, [[*row, 1] for row in rows]))[0].encode(), 1, message
    blank = draw(st.sampled_from(("\n", "\r\n\r\n", "\r", "  \n")))
    content = (blank + draw(written(names, rows))[0]).encode()
    return content, 1, "the header of a CSV trace must be its first line, got a blank line"


malformed = st.one_of(malformed_csv(), malformed_csv(), malformed_json(), not_text(), bad_headers())


def line_is_named(file, compressed=False, reader=traces):
    content, line, message = file
    with pytest.raises(InputError) as caught:
        read_bytes(gzip.compress(content) if compressed else content, reader)
    assert str(caught.value).startswith(f"some/file, line {line}: {message}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@given(malformed, st.booleans())
def test_an_error_names_the_line(file, compressed):
    line_is_named(file, compressed)


@given(contents(), st.data())
def test_a_damaged_gzip_file_is_named(file, data):
    assume(file[1])
    content = gzip.compress(gzip.decompress(file[0]) if file[0][:2] == b"\x1f\x8b" else file[0])
    cut = data.draw(st.integers(2, len(content) - 1))
    with pytest.raises(InputError, match=r"^some/file: a gzip file must be complete and undamaged, got: "):
        read_bytes(content[:cut])
    # A flipped bit is found, or it has no meaning: it lies in the time in the header, or in padding.
    place, bit = data.draw(st.integers(3, len(content) - 1)), data.draw(st.integers(0, 7))
    damaged = bytearray(content)
    damaged[place] ^= 1 << bit
    try:
        reads_back((bytes(damaged), *file[1:]))
    except InputError as error:
        assert re.match(r"some/file: a gzip file must be complete and undamaged, got: ", str(error))  # noqa: PT017


# By hand.

GOOD = '{"timestamp": 0, "input_length": 5, "output_length": 2, "hash_ids": [0, 7]}'
CSV = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,40,3\n"


def test_traces_by_hand(tmp_path):
    path = tmp_path / "trace"
    path.write_text(CSV + "2023-11-16 18:15:47.1805900,17,9\n", encoding="utf-8")
    trace = traces.read(path)
    assert trace.arrivals.tolist() == [0, 0.5]
    assert (trace.prompt_lens.tolist(), trace.output_lens.tolist()) == ([40, 17], [3, 9])
    assert (trace.final_lens.tolist(), trace.hash_ids) == ([42, 25], None)
    # Azure's trace of 2024: offsets, and no fraction where it is 0.
    stamps = "2024-05-10 00:00:00.009930+00:00,5,6", "2024-05-10 00:00:12+00:00,7,8"
    path.write_bytes(gzip.compress("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *stamps]).encode()))
    assert traces.read(path).arrivals.tolist() == [0, 11.99007]
    path.write_text(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,0,472,Conversation log\n"
        "45,ChatGPT,1087,230,1317,Conversation log\n"
        "118.25,GPT-4,417,276,693,API log\n",
        encoding="utf-8",
    )
    trace = traces.read(path)
    assert trace.arrivals.tolist() == [0, 73.25]
    assert (trace.prompt_lens.tolist(), trace.output_lens.tolist()) == ([1087, 417], [230, 276])
    assert (len(trace), trace.num_failed) == (2, 1)
    assert (len(trace.first(1)), trace.first(1).num_failed) == (1, 1)
    path.write_text("GeneratedTokens,ContextTokens\n3,40\n", encoding="utf-8")
    trace = traces.read(path)
    assert (trace.arrivals, trace.prompt_lens.tolist(), trace.output_lens.tolist()) == (None, [40], [3])
    second = GOOD.replace('"timestamp": 0', '"timestamp": 1500, "more": null')
    path.write_bytes(b"\xef\xbb\xbf" + f"{GOOD}\r\n\n{second}".encode())
    trace = traces.read(path)
    assert trace.arrivals.tolist() == [0, 1.5]
    assert [ids.tolist() for ids in trace.hash_ids] == [[0, 7], [0, 7]]
    # Hash ids 0 and 7 of PIECE 4: tokens 0 .. 3, then 28; generated ones are beyond (7 + 1) * 4, and differ.
    assert trace.token_ids(0, 0, 5).tolist() == trace.token_ids(1, 0, 5).tolist() == [0, 1, 2, 3, 28]
    assert trace.token_ids(0, 3, 5).tolist() == [3, 28]
    generated = [*trace.token_ids(0, 5, 8).tolist(), *trace.token_ids(1, 5, 8).tolist()]
    assert len(set(generated)) == 6
    assert min(generated) >= 32


def changed(**fields):
    return GOOD + "\n" + json.dumps({**json.loads(GOOD), **fields})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a trace must hold at least one request, got nothing but white space"),
        (" \n\n", "got nothing but white space"),
        ("\nhello\n", "line 2: a trace must be CSV with .*, or JSON lines with timestamp, .* got .'hello'.$"),
        ("[1, 2]", "line 1: a trace must be .* or JSON lines .* got .'.1', '2.'.$"),
        (b"a\n\x1f\x8b\x00", "line 2: a trace must be UTF-8 text, got byte 0x8b"),
        (f"{GOOD}\n{{", "line 2: a line must be a JSON object, got '{': Expecting property name .* at column 2"),
        (f"{GOOD}\n\n[]", r"line 3: a line must be a JSON object, got '\[\]'"),
        (f"{GOOD}\n{'[' * 100_000}", r"line 2: a line must be a JSON object, got '\[\[\[.*recursion"),
        (f'{GOOD}\n{{"timestamp": 1}}', "line 2: a line must have timestamp, .* hash_ids, got no input_length"),
        (changed(timestamp="0"), r"line 2: timestamp must be milliseconds in 0 \.\. 10*, got timestamp='0'"),
        (changed(timestamp=-1), "line 2: timestamp must be .* got timestamp=-1"),
        (changed(timestamp=float("nan")), "line 2: timestamp must be .* got timestamp=nan"),
        (changed(timestamp=1e300), r"line 2: timestamp must be .* got timestamp=1e\+300"),
        (changed(timestamp=True), "line 2: timestamp must be .* got timestamp=True"),
        (changed(timestamp=9) + "\n" + GOOD, "line 3: timestamp must not decrease, got timestamp=0 after 9"),
        (changed(input_length=0), r"line 2: input_length must be an integer in 1 \.\. 10000000, got input_length=0"),
        (changed(output_length=-3), "line 2: output_length must be .* got output_length=-3"),
        (changed(output_length=2.0), "line 2: output_length must be .* got output_length=2.0"),
        (changed(output_length=10**30), "line 2: output_length must be .* got output_length=10*"),
        (changed(hash_ids=7), "line 2: hash_ids must be a list of integers in 0 .. .*, got hash_ids=7"),
        (changed(hash_ids=[0, -1]), r"line 2: hash_ids must be a list .* got hash_ids=\[0, -1\]"),
        (changed(hash_ids=[0, "7"]), "line 2: hash_ids must be a list"),
        (changed(hash_ids=[0]), "line 2: hash_ids must hold 2 ids for input_length=5, one per 4 tokens, got 1"),
        (changed(input_length=9), "line 2: hash_ids must hold 3 ids for input_length=9, one per 4 tokens, got 2"),
        ("TIMESTAMP,ContextTokens\n1,2", "line 1: .* CSV with TIMESTAMP, ContextTokens, .* got .'TIMESTAMP', "),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "a trace must hold at least one request, got none$"),
        ('""\n', r"line 1: a trace must be .* got \[\]"),
        ("TIMESTAMP," + CSV, "line 1: columns must have different names, got 2 named 'TIMESTAMP'"),
        (f"{'x' * 999},{'x' * 999},{CSV}", r"line 1: columns must have different names, got 2 named 'x+\.\.\.x+'"),
        (CSV + "yesterday,1,2\n", "line 3: TIMESTAMP must be a date and time of ISO 8601, or .* 'yesterday'"),
        (CSV + "2023-13-16 18:15:46,1,2\n", "line 3: TIMESTAMP must be a date and time .* got '2023-13-16 18:15:46'"),
        (CSV + "2023-11-16 18:15:45,1,2\n", "line 3: TIMESTAMP must not decrease, got '2023-11-16 18:15:45' after '20"),
        (CSV + "2023-11-16 18:15:47,-1,2\n", r"line 3: ContextTokens must be an integer in 1 \.\. 10000000, got '-1'"),
        (CSV + "2023-11-16 18:15:47,1\n", "line 3: a line must have 3 cells, one for each column, got 2$"),
        (CSV + "2023-11-16 18:15:47,1,2,\n", "line 3: a line must have 3 cells, one for each column, got 4$"),
        (CSV + '"' + "x" * 2000, "line 3: a line must be well-formed CSV, got .* field larger than field limit"),
    ],
)  # fmt: skip
def test_what_is_no_trace_is_named_by_line(tmp_path, content, message):
    path = tmp_path / "bad"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        traces.read(path)
    assert str(caught.value).startswith(f"{path}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@needs_data
def test_traces_are_as_the_reader_says():
    with mock.patch.object(traces, "TOKENS_PER_HASH", 512):
        mooncake, azure = traces.read(MOONCAKE), traces.read(AZURE)
        assert (len(mooncake), len(azure)) == (12_031, 19_366)
        one_by_one = np.arange(len(mooncake))
        assert mooncake.unbounded_hit_rate(128, one_by_one) == pytest.approx(0.3736, abs=1e-4)
    # An id always stands for the same piece after the same prefix.
    parents = {}
    for ids in mooncake.hash_ids:
        for parent, number in zip([-1, *ids.tolist()], ids.tolist(), strict=False):
            assert parents.setdefault(number, parent) == parent
    assert azure.hash_ids is None


# Wrong readers, which the properties must notice: as in test_mutants.py, with far more examples than one release of
# Hypothesis needs, since another draws others.

hunt = settings(
    max_examples=10_000, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
)  # fmt: skip

MISREAD = {
    "none": ("The reader recognises a format", "The reader recognises a format"),
    "offsets the wrong way": ('parts[10] == "-"', 'parts[10] == "+"'),
    "minutes of an offset forgotten": ("hours * 3600 + minutes * 60", "hours * 3600"),
    "short fractions": ('.ljust(9, "0")', ""),
    "seconds to the microsecond": ("int(number.scaleb(9, _EXACT))", "int(number.scaleb(6, _EXACT)) * 1000"),
    "columns by place": ("header.index(form.prompt_len)", "1"),
    "failures are requests": ("if output_len == 0:", "if False:"),
    "failures not counted": ("num_failed += 1", "pass"),
    "a byte order mark is text": ('"utf-8-sig"', '"utf-8"'),
    "no gzip": (r'b"\x1f\x8b"', 'b"none"'),
}
"""Readers that misread sound files: the text of the module to replace, and its replacement."""

MISREPORT = {
    "failures of Azure": ('"GeneratedTokens", 1', '"GeneratedTokens", 0'),
    "times may fall": ("if time < self.last:", "if False:"),
    "times of any kind": ('if self.kind not in ("", kind):', "if False:"),
    "last line of a row": ("yield line, row", "yield reader.line_num, row"),
    "last line of an error": ('line, "a line must be well', 'reader.line_num, "a line must be well'),
    "quotes may stay open": ("strict=True)\n    while", "strict=False)\n    while"),
    "columns twice": ("if count > 1:", "if count > 2:"),
    "header anywhere": ("if line > 1:", "if False:"),
    "lines by line feeds": (r'rb"\r\n|\r|\n"', r'rb"\n"'),
    "blank lines do not count": (
        'io.StringIO(text, newline=""), start',
        "filter(str.strip, io.StringIO(text)), start",
    ),
}
"""Readers that accept malformed files, or name another line."""


@pytest.mark.parametrize("name", [*MISREAD, *MISREPORT])
def test_wrong_reader_is_noticed(name):
    text, other = {**MISREAD, **MISREPORT}[name]
    files, holds = (contents(), reads_back) if name in MISREAD else (malformed, line_is_named)
    source = inspect.getsource(traces)
    assert source.count(text) == 1, f"{text!r} must occur once in the source, got {source.count(text)}"
    wrong = types.ModuleType("paged_numba.wrong_traces")
    wrong.__package__ = traces.__package__
    with mock.patch.dict(sys.modules, {wrong.__name__: wrong}):
        exec(compile(source.replace(text, other), str(traces.__file__), "exec"), wrong.__dict__)
        wrong.TOKENS_PER_HASH = PIECE

        @settings(hunt, max_examples=20 if name == "none" else hunt.max_examples)
        @given(files)
        def run(file):
            holds(file, reader=wrong)

        expected = (AssertionError, pytest.fail.Exception, ValueError)
        with contextlib.nullcontext() if name == "none" else pytest.raises(expected):
            run()


# What the commands do with them.

BURSTGPT = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "0.5,ChatGPT,40,3,43,API log\n1,ChatGPT,472,0,472,API log\n2,GPT-4,17,9,26,API log\n"
)
FILES = {
    "azure": CSV.encode() + b"2023-11-16 18:15:47.1805900,17,9\n",
    "azure 2024": CSV.replace("900,", "90+00:00,").encode() + b"2024-05-10 00:00:00.009930+00:00,17,9\n",
    "burstgpt": BURSTGPT.encode(),
    "mooncake": GOOD.encode(),
    "gzip": gzip.compress(BURSTGPT.encode()),
}


def run(capsys, *words):
    """Return the exit status, stdout and stderr of a command."""
    status = cli.main([str(word) for word in words])
    return status, *capsys.readouterr()


@pytest.mark.parametrize("form", FILES)
def test_tour_and_replay_take_every_format(capsys, tmp_path, form):
    path = tmp_path / "trace"
    path.write_bytes(FILES[form])
    count = 1 if form == "mooncake" else 2
    failed = form in ("burstgpt", "gzip")
    status, out, err = run(capsys, "tour", "--trace", path, "--target", "lockstep")
    assert (status, err) == (0, "")
    assert ("2. The requests: the trace trace, without the 1 that failed." in out) == failed
    assert f"All {count} requests of the trace" in out
    status, out, err = run(capsys, "replay", path)
    assert (status, err) == (0, "")
    assert out.startswith(f"trace: {count} request")
    assert ("\nFailed requests, left out: 1.\n" in out) == failed


def test_a_trace_without_times_is_for_the_tour_alone(capsys, tmp_path):
    path = tmp_path / "lengths.csv"
    path.write_text("ContextTokens,GeneratedTokens\n40,3\n", encoding="utf-8")
    assert run(capsys, "tour", "--trace", path, "--target", "lockstep")[0] == 0
    status, out, err = run(capsys, "replay", path)
    assert (status, out) == (2, "")
    assert (
        f"{path}: a trace to replay must have a column of times, TIMESTAMP (Azure) or Timestamp (BurstGPT), got none"
        in err
    )


@pytest.mark.parametrize("words", [["tour", "--trace"], ["replay"]])
def test_both_commands_name_the_file_and_line_of_an_error(capsys, tmp_path, words):
    path = tmp_path / "bad.csv"
    path.write_text(CSV + "\n2023-11-16 18:15:47,1,x\n", encoding="utf-8")
    status, out, err = run(capsys, *words, path)
    assert (status, out) == (2, "")
    expected = f"{path}, line 4: GeneratedTokens must be an integer in 1 .. 10000000, got 'x'"
    assert err == f"paged-numba {words[0]}: error: {expected}\n"


@pytest.mark.parametrize("command", ["tour", "replay"])
def test_help_says_which_formats_a_trace_may_have(capsys, command):
    assert cli.main([command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in ("Azure", "BurstGPT", "Mooncake", "gzip", "GeneratedTokens", "Response tokens", "hash_ids"):
        assert name in text


@pytest.mark.skipif(os.name == "nt", reason="file names are Unicode on Windows")
def test_a_file_name_that_is_no_text_is_shown_with_question_marks(tmp_path):
    path = tmp_path / os.fsdecode(b"b\xffd.csv")
    try:
        path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n0,10,5\n", encoding="utf-8")
    except OSError:
        pytest.skip("this file system takes no such name")
    assert traces.read(path).name == "b?d.csv"
