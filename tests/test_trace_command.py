"""``paged-numba trace``: what it writes, what it refuses, and that it ends as its siblings do."""

import json

import pytest

from paged_numba import lockstep
from paged_numba.commands import main as cli

PROGRAM = """
import sys
import numpy as np
from numba import cuda

@cuda.jit
def add(x):
    i = cuda.grid(1)
    if i < x.size:
        x[i] += 1

@cuda.jit
def double(x):
    x[cuda.grid(1)] *= 2

def both():
    x = np.zeros(100, np.float32)
    add[4, 32](x)
    double[1, 32](x)

def fails():
    double[4, 32](np.zeros(100, np.float32))

def exits():
    both()
    sys.exit(3)

def interrupted():
    both()
    raise KeyboardInterrupt

def idle():
    pass

def large():
    add[100_000, 32](np.zeros(100, np.float32))
"""


@pytest.fixture
def trace(tmp_path, monkeypatch, capsys):
    """Return a function that runs the command on a function of the program: status, stdout, stderr, page, JSON."""
    pytest.importorskip("numba")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "f.py").write_text(PROGRAM, encoding="utf-8")

    def run(function, *words):
        words = words or ("--html", "page.html", "--json", "counts.json")
        what = function if "::" in function or "_" in function else f"f.py::{function}"
        status = cli.main(["trace", what, *words])
        page, counts = tmp_path / "page.html", tmp_path / "counts.json"
        return (
            status,
            *capsys.readouterr(),
            page.read_text(encoding="utf-8") if page.exists() else None,
            json.loads(counts.read_text(encoding="utf-8")) if counts.exists() else None,
        )

    return run


def test_all_launches_are_written(trace):
    status, out, err, page, made = trace("both")
    assert (status, err) == (0, "")
    assert out == (
        "2 launches, 3 thread blocks, 7 steps\n"
        "2 of 5 thread blocks are not recorded: of each launch, the first and the last one are\n"
    )
    kernels = [made["functions"][track["kernel"]]["name"] for track in made["tracks"]]
    assert kernels == ["add", "add", "double"]
    assert "<title>add, double, in lockstep</title>" in page
    inside = page.split('id="recording">')[1].split("</script>")[0]
    assert json.loads(inside) == made


def test_a_failing_kernel_is_recorded_up_to_its_error(trace):
    status, _, err, page, made = trace("fails")
    assert status == 1
    assert err.startswith("paged-numba trace: the kernel failed: x[100] out of bounds for shape (100,)")
    assert "x[100] out of bounds" in made["tracks"][0]["error"]
    assert "x[100] out of bounds" in page


@pytest.mark.parametrize(("function", "status"), [("exits", 2), ("interrupted", 130)])
def test_files_are_written_unless_interrupted(trace, function, status):
    ended, out, _, page, made = trace(function)
    assert ended == status
    assert out.startswith("2 launches")
    assert (page is None, made is None) == (status == 130, status == 130)


@pytest.mark.parametrize(
    ("function", "words", "message"),
    [
        ("both", ("--shape",), "expected at least one argument"),
        ("idle", (), "f.py::idle must launch a kernel, got no launch"),
        ("none", (), "none must be a host function in f.py that launches kernels, got no function"),
        ("add", (), "got a kernel"),
        ("::both", (), "FILE.py::function must name a file and a function, got '::both'"),
        ("g.py::both", (), "g.py must be a Python file, got no such file"),
        ("both", ("--html", "-"), "--html: must name a file, got -"),
        ("both", ("--json", "f.py"), "--json must not name the file that is read, f.py, got --json f.py"),
        ("both", ("--json", "a", "--html", "a"), "--json and --html must name different files"),
        (
            "both",
            ("--algorithm", "tile", "--html", "page.html"),
            "--algorithm applies only to paged_attention",
        ),
    ],
)
def test_what_it_refuses(trace, function, words, message):
    status, out, err, page, made = trace(function, *words)
    assert (status, out, page, made) == (2, "", None, None)
    assert message in err


def test_it_needs_a_file_to_write(trace, tmp_path, capsys):
    assert cli.main(["trace", "f.py::both"]) == 2
    assert "trace: error: --html or --json must name a file to write, got neither" in capsys.readouterr().err


def test_a_large_launch_is_no_larger_record(trace):
    status, out, _, _, made = trace("large")
    assert status == 0
    assert [len(track["steps"]) for track in made["tracks"]] == [3, 2]
    assert "99,998 of 100,000 thread blocks are not recorded" in out


def test_it_records_operations(trace):
    status, out, _, _, made = trace("write_kv", "--shape", "seq_len=5", "--json", "counts.json")
    assert status == 0
    assert {made["functions"][track["kernel"]]["name"] for track in made["tracks"]} == {"write_kv_kernel"}
    assert out.startswith("2 launches, ")


def test_a_page_needs_nothing_but_itself():
    with lockstep.recording() as recorded:
        pass
    assert recorded.left_out() == []
    assert "src=" not in recorded.page()
    assert repr(recorded) == "Recording(0 launches, 0 thread blocks, 0 steps)"
