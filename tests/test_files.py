"""Output files: whole or not at all, never over an input or one another."""

import io
import os
import stat
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paged_numba import files, traces
from paged_numba.commands import main as cli

posix = pytest.mark.skipif(os.name == "nt", reason="needs symbolic links, modes and devices of POSIX")


@given(st.text(st.characters(codec=None)))
def test_any_text_is_written_and_nothing_else_stays(text):
    # Standard output that is no file, as in a notebook.
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(sys, "stdout", io.StringIO()):
        path = Path(folder) / "out"
        files.write(path, text)
        written = text.encode("utf-8", "backslashreplace").replace(b"\n", os.linesep.encode())
        assert path.read_bytes() == written
        assert os.listdir(folder) == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError(28, "No space left on device")])
@pytest.mark.parametrize("place", ["open", "os.chmod", "os.replace"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, error, place):
    path = tmp_path / "out"
    path.write_text("old", encoding="utf-8")
    where = {"open": "builtins.open"}.get(place, place)
    with (
        mock.patch(where, side_effect=error),
        pytest.raises((KeyboardInterrupt, MemoryError, OSError)) as caught,
    ):
        files.write(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["out"]
    if isinstance(error, OSError):
        assert caught.value.filename == str(path)


@posix
def test_mode_and_links_stay(tmp_path):
    path, link, dangling = (tmp_path / name for name in ("out", "link", "dangling"))
    files.write(path, "one")
    plain = tmp_path / "plain"
    plain.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    path.chmod(0o640)
    link.symlink_to(path.name)
    files.write(link, "two")
    assert link.is_symlink()
    assert path.read_text(encoding="utf-8") == "two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    dangling.symlink_to("new")
    files.write(dangling, "three")
    assert (tmp_path / "new").read_text(encoding="utf-8") == "three"


@posix
def test_what_cannot_be_replaced_is_written_in_place(tmp_path):
    files.write(os.devnull, "text")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    reader, writer = os.pipe()
    files.write(f"/dev/fd/{writer}", "text")
    assert os.read(reader, 9) == b"text"
    os.close(reader)
    os.close(writer)
    # The folder takes no new file.
    path = tmp_path / "out"
    path.write_text("a longer old text", encoding="utf-8")
    with mock.patch("os.open", side_effect=PermissionError(13, "Permission denied")):
        files.write(path, "new")
        with pytest.raises(PermissionError) as caught:
            files.write(tmp_path / "other", "new")
    assert path.read_text(encoding="utf-8") == "new"
    assert caught.value.filename == str(tmp_path / "other")
    with pytest.raises(FileNotFoundError) as caught:
        files.write("absent/out", "new")
    assert caught.value.filename == "absent/out"
    for error in (PermissionError(1, "Operation not permitted"), OSError(16, "Device or resource busy")):
        with mock.patch("os.replace", side_effect=error):
            files.write(path, str(error))
        assert path.read_text(encoding="utf-8") == str(error)
    assert os.listdir(tmp_path) == ["out"]
    with mock.patch("os.access", return_value=False), pytest.raises(PermissionError):
        files.write(path, "newer")
    assert path.read_text(encoding="utf-8") != "newer"


@posix
@pytest.mark.parametrize("content", ["text\n", b"text\n"])
@pytest.mark.parametrize("name", ["/dev/stdout", "out"])
def test_a_file_that_is_standard_output_gets_both(tmp_path, monkeypatch, name, content):
    path = tmp_path / "out"
    with path.open("w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        print("before")
        with mock.patch("os.stat", return_value=path.stat()):
            files.write(path if name == "out" else name, content)
        print("after")
    assert path.read_text(encoding="utf-8") == "before\ntext\nafter\n"


@posix
def test_names_of_one_file_are_noticed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("a", "b"):
        (tmp_path / name).touch()
    os.link("a", "hard")
    os.symlink("a", "soft")
    os.symlink("new", "dangling")
    os.symlink("folder", "folder2")
    same = [
        ("a", "a"), ("a", "./folder/../a"), ("a", "hard"), ("soft", "hard"), ("a", str(tmp_path / "a")),
        ("new", "new"), ("new", "dangling"), ("folder/new", "folder2/new"),
    ]  # fmt: skip
    different = [("a", "b"), ("a", "new"), ("new", "new2"), ("A2", "a2"), (os.devnull, os.devnull)]
    assert [pair for pair in same if not files.same_file(*pair)] == []
    assert [pair for pair in different if files.same_file(*pair)] == []
    # Where a folder has its name in the other case, too, so have its files.
    with mock.patch.object(files, "_ignores_case", return_value=True):
        assert files.same_file("A2", "a2")


TRACE = "TIMESTAMP,ContextTokens,GeneratedTokens\n0,40,3\n1,50,4\n"


@posix
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("replay t.csv --json t.csv", "--json must not name the file that is read, t.csv, got --json t.csv"),
        ("replay t.csv --json link", "--json must not name the file that is read, t.csv, got --json link"),
        ("replay link --json hard", "--json must not name the file that is read, link, got --json hard"),
        ("replay t.csv --plot t.svg", "--plot must not name the file that is read, t.csv, got --plot t.svg"),
        ("replay t.csv --json x.svg --plot x.svg", "--json and --plot must name different files"),
        ("replay t.csv --json ./x.svg --plot dangling.svg", "--json and --plot must name different files"),
        ("profile write_kv --json x --html x", "--json and --html must name different files"),
        ("profile f.py::f --html f.py", "--html must not name the file that is read, f.py, got --html f.py"),
        ("sanitize f.py::f --json f.py", "--json must not name the file that is read, f.py, got --json f.py"),
        ("bench lockstep --json folder", "argument --json: must name a file, got a directory, folder"),
        ("bench lockstep --json new/", "argument --json: must name a file, got a directory, new/"),
        ("bench lockstep --json t.csv/x", "argument --json: must name a file in a directory that exists, got t.csv/x"),
        (f"bench lockstep --json {'x' * 999}", "--json: must name a file, got 'xxxxxxxxxxxx...xxxxxxxxxxxxx': File n"),
    ],
)  # fmt: skip
def test_outputs_that_would_be_lost_are_refused_before_work(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(TRACE, encoding="utf-8")
    Path("f.py").write_text("raise AssertionError('too late')", encoding="utf-8")
    os.symlink("t.csv", "link")
    os.symlink("t.csv", "t.svg")
    os.symlink("x.svg", "dangling.svg")
    os.link("t.csv", "hard")
    Path("folder").mkdir()
    before = {name: Path(name).read_bytes() for name in ("t.csv", "f.py")}
    with mock.patch.object(traces, "read", side_effect=AssertionError("too late")):
        assert cli.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert {name: Path(name).read_bytes() for name in before} == before


@posix
def test_a_file_without_permission_is_refused_before_work(tmp_path, monkeypatch, capsys):
    with mock.patch("os.access", return_value=False):
        assert cli.main(["bench", "lockstep", "--json", str(tmp_path / "x")]) == 2
    assert "argument --json: must name a file that can be written, got " in capsys.readouterr().err


def test_an_output_that_fails_does_not_keep_the_rest_back(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(TRACE, encoding="utf-8")
    write = files.write

    def fail(path, text):
        if path.suffix == ".json":
            raise OSError(28, "No space left on device", str(path))
        write(path, text)

    monkeypatch.setattr(files, "write", fail)
    assert cli.main(["replay", "t.csv", "--json", "x.json", "--plot", "x.svg"]) == 2
    out, err = capsys.readouterr()
    assert out.startswith("t.csv: 2 requests")
    assert err == "paged-numba replay: error: [Errno 28] No space left on device: 'x.json'\n"
    assert "<svg" in Path("x.svg").read_text(encoding="utf-8")
