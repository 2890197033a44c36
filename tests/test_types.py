"""What type checkers see: every public name with its signature, and no name that does not exist."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import paged_numba as pn
from paged_numba import kernels

ROOT = Path(__file__).parents[1]
GOOD, BAD = CLIENTS = [ROOT / "tests" / "typing" / f"client_{name}.py" for name in ("good", "bad")]


def imports_for_type_checkers():
    """Return, by public name, the module and name that a type checker takes it from."""
    tree = ast.parse((ROOT / "paged_numba" / "__init__.py").read_text(encoding="utf-8"))
    (choice,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(choice.test) == "TYPE_CHECKING"
    return {
        alias.asname: (".".join(filter(None, ("paged_numba", statement.module))), alias.name)
        for statement in choice.body
        for alias in statement.names
    }


def imported(module, name):
    """Return what ``from module import name`` imports, without the package's tables of lazy imports."""
    try:
        return importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return getattr(importlib.import_module(module), name)


def test_type_checkers_and_python_find_the_same_names():
    assert sorted(imports_for_type_checkers()) == sorted(pn.__all__)


@pytest.mark.parametrize(("public", "source"), sorted(imports_for_type_checkers().items()))
def test_type_checkers_and_python_find_the_same_object(public, source, monkeypatch):
    monkeypatch.setenv("PAGED_NUMBA_TARGET", "lockstep")  # type checkers see this target's `cuda`
    assert getattr(pn, public) is imported(*source)


def test_type_checkers_see_every_kernel():
    tree = ast.parse(Path(kernels.__file__).read_text(encoding="utf-8"))
    declared = {node.target.id for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)}
    assert declared | {"Kernel"} == set(kernels.__all__)


def announced(client):
    """Return the errors that the comments of a client announce: by line, the code."""
    lines = client.read_text(encoding="utf-8").splitlines()
    found = ((number, re.search(r"# E: ([a-z-]+)$", line)) for number, line in enumerate(lines, start=1))
    return {number: match[1] for number, match in found if match}


def test_the_good_client_announces_no_error_and_the_bad_one_each_kind():
    assert not announced(GOOD)
    assert set(announced(BAD).values()) == {"attr-defined", "call-arg", "arg-type", "assignment"}


@pytest.fixture(scope="module")
def mypy_output(tmp_path_factory):
    pytest.importorskip("mypy", reason="the extra dev brings mypy")
    # As a client's project would: without this project's settings, and silent about files other than its own.
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent"]
    done = subprocess.run(
        [*command, f"--cache-dir={tmp_path_factory.mktemp('mypy')}", *map(str, CLIENTS)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("client", CLIENTS, ids=lambda path: path.stem)
def test_mypy_reports_exactly_the_errors_that_a_client_announces(client, mypy_output):
    pattern = re.compile(rf"^.*{client.name}:(\d+): error: (.*)  \[([a-z-]+)\]$", re.M)
    errors = [(int(line), code, message) for line, message, code in pattern.findall(mypy_output)]
    assert {(line, code) for line, code, _ in errors} == set(announced(client).items()), errors


def test_the_good_client_runs():
    done = subprocess.run(
        [sys.executable, str(GOOD)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PAGED_NUMBA_TARGET": "lockstep"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
