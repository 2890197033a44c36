"""The shape of the project: import directions, light imports, public names."""

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import paged_numba

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "paged_numba"

# The parts that each part of the package may import. A part is a module or folder at the root of paged_numba.
ALWAYS = {"errors", "arguments", "files", "progress"}
BELOW_CACHE = {
    "allocator",
    "arrays",
    "draw",
    "lockstep",
    "ops",
    "reference",
    "targets",
    "tolerances",
    "traces",
}
BELOW_COMMANDS = BELOW_CACHE | {"cache", "kernels", "models", "replay", "serving", "timing"}
MAY_IMPORT = {
    "errors": set(),
    "arguments": set(),
    "files": set(),
    "progress": set(),
    "draw": set(),
    "reference": {"draw"},
    "tolerances": {"draw"},
    "traces": {"draw"},
    "allocator": {"arrays", "draw"},
    "lockstep": {"draw"},
    "arrays": {"lockstep"},
    "targets": {"lockstep"},
    "timing": {"draw", "lockstep", "targets"},
    "kernels": {"targets"},
    "ops": {"arrays", "kernels", "targets"},
    # Its debug mode reads columns of the kernels' arguments.
    "cache": BELOW_CACHE | {"kernels"},
    "models": set(),
    "serving": BELOW_COMMANDS,
    "replay": BELOW_COMMANDS,
    "testing": BELOW_COMMANDS,
    # A learner's file imports the package itself.
    "exercises": BELOW_COMMANDS | {"testing", "__init__"},
    "commands": BELOW_COMMANDS | {"exercises"},
    "__init__": {
        "allocator",
        "arrays",
        "cache",
        "draw",
        "exercises",
        "kernels",
        "lockstep",
        "models",
        "ops",
        "reference",
        "serving",
        "targets",
        "timing",
    },
    "__main__": {"commands"},
}
# The same inside lockstep.
LOCKSTEP_MAY_IMPORT = {
    "machine": set(),
    "language": {"machine"},
    "compiler": {"machine", "language"},
    "observe": {"machine", "language", "compiler"},
    "failures": {"machine", "language"},
    "numba_typing": {"machine", "language", "compiler"},
    "launch": {"machine", "language", "compiler", "observe", "failures", "numba_typing"},
    "profiler": {"machine", "language", "compiler", "observe", "launch"},
    "sanitizer": {"machine", "language", "compiler", "observe", "launch"},
    "cuda": {"machine", "language", "compiler", "observe", "failures", "launch", "numba_typing"},
    "tracer": {"machine", "compiler", "observe", "launch", "profiler"},
    "__init__": {
        "machine",
        "compiler",
        "observe",
        "numba_typing",
        "launch",
        "profiler",
        "sanitizer",
        "tracer",
        "cuda",
    },
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported_files(path):
    """Return the files of the package that a file imports, wherever the import stands in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in getattr(node, "names", ()) if isinstance(alias, ast.alias)]
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1]
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "paged_numba":
            folder = ROOT
        elif isinstance(node, ast.Import):
            targets = [
                ROOT.joinpath(*name.split(".")) for name in names if name.split(".")[0] == "paged_numba"
            ]
            found |= {module_file(target) for target in targets}
            continue
        else:
            continue
        target = folder.joinpath(*(node.module or "").split("."))
        found |= {module_file(target / name) or module_file(target) for name in names}
    return found - {path}


def module_file(target):
    """Return the file of a module or package, None if there is none."""
    for file in (target.with_name(f"{target.name}.py"), target / "__init__.py"):
        if file.is_file():
            return file
    return None


def part_of(path, folder):
    return path.relative_to(folder).parts[0].removesuffix(".py")


def test_every_import_of_the_package_is_read():
    assert all(None not in imported_files(path) for path in FILES)
    assert imported_files(PACKAGE / "targets.py") >= {
        PACKAGE / "errors.py",
        PACKAGE / "lockstep" / "__init__.py",
        PACKAGE / "lockstep" / "cuda" / "facade.py",
    }


@pytest.mark.parametrize(("folder", "may_import"), [("", MAY_IMPORT), ("lockstep", LOCKSTEP_MAY_IMPORT)])
def test_imports_flow_downward(folder, may_import):
    house = PACKAGE / folder
    files = [path for path in FILES if path.is_relative_to(house)]
    assert {part_of(path, house) for path in files} == set(may_import)
    for path in files:
        own = part_of(path, house)
        imported = {part_of(other, house) for other in imported_files(path) if other.is_relative_to(house)}
        assert imported <= may_import[own] | {own} | (set() if folder else ALWAYS), path


def test_files_of_kernels_import_kernels_only():
    for path in (PACKAGE / "kernels").glob("*.py"):
        others = {other for other in imported_files(path) if other.parent != path.parent}
        assert others <= (
            {PACKAGE / "errors.py", PACKAGE / "targets.py"} if path.name == "__init__.py" else set()
        ), path


def test_no_circle_of_files():
    imports = {path: imported_files(path) for path in FILES}
    done, stack = set(), []

    def visit(path):
        assert path not in stack, (
            f"a circle: {[str(p.relative_to(PACKAGE)) for p in stack[stack.index(path) :]]}"
        )
        if path not in done:
            stack.append(path)
            for other in imports[path]:
                visit(other)
            done.add(stack.pop())

    for path in FILES:
        visit(path)


def test_folders_are_small_enough_to_look_through():
    def rooms(folder):
        return [p for p in folder.iterdir() if (p.is_dir() and p.name != "__pycache__") or p.suffix == ".py"]

    assert len(rooms(PACKAGE)) <= 24
    numbered = {PACKAGE / "exercises" / name for name in ("solutions", "tasks")}
    for folder in {path.parent for path in FILES} - {PACKAGE, PACKAGE / "kernels"} - numbered:
        assert len(rooms(folder)) <= 12, folder


def test_hypothesis_is_imported_only_where_tests_need_it():
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^\s*(from|import) hypothesis", path.read_text(encoding="utf-8"), re.M)
    }
    machines = {f"testing/machines/{name}.py" for name in ("allocator", "cache", "pick", "prefix")}
    users = {
        name for name in users if not re.match(r"exercises/(checker|aids|process|tasks|solutions)/", name)
    }
    assert users == machines | {
        f"testing/{name}.py" for name in ("large_scores", "serving/engine", "serving/toy", "strategies")
    }


def run_fresh(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize(
    "module", ["reference", "allocator", "lockstep", "lockstep.cuda.facade", "ops.checks", "errors"]
)
def test_light_module_imports_without_numba(module):
    done = run_fresh(
        f"import sys; sys.modules['numba'] = None; import paged_numba.{module}; assert 'tqdm' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_lockstep_runs_a_kernel_without_numba():
    script = ROOT / "tests" / "lockstep" / "without_numba.py"
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.strip() == "[0. 2. 4.]", done.stderr


def test_importing_the_package_is_light():
    done = run_fresh("import sys, paged_numba; print([m for m in ('numba', 'numpy') if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_public_names_exist():
    assert paged_numba.__all__ == sorted(paged_numba.__all__, key=paged_numba.__all__.index)
    assert len(set(paged_numba.__all__)) == len(paged_numba.__all__)
    for name in paged_numba.__all__:
        assert getattr(paged_numba, name) is not None
    assert sorted(paged_numba.__all__) == dir(paged_numba)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = paged_numba.nothing


def test_the_citation_names_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", text, re.M) == [paged_numba.__version__]


def lines_of_code(text):
    """Return the lines that hold code: no blank ones, comments or docstrings."""
    tree = ast.parse(text)
    docstrings = set()
    for node in ast.walk(tree):
        for statement in getattr(node, "body", ()) if isinstance(getattr(node, "body", ()), list) else ():
            if isinstance(statement, ast.Expr) and isinstance(getattr(statement.value, "value", None), str):
                docstrings |= set(range(statement.lineno, statement.end_lineno + 1))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    empty = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines = (range(t.start[0], t.end[0] + 1) for t in tokens if t.type not in empty)
    return len({line for part in lines for line in part} - docstrings)


def test_lines_of_code_are_counted():
    assert (
        lines_of_code(
            '"""Doc.\n\nMore."""\n\n# why\nx = 1  # what\ny = """a\nb"""\n\ndef f():\n    """Doc."""\n'
        )
        == 4
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_every_module_says_what_it_is_and_is_short(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), path
    assert lines_of_code(text) <= 320, path
