"""The shape of the project: import directions, light imports, public names, and what the README shows."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import paged_numba
from paged_numba import cli

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "paged_numba"

# Which parts a part may import. A part is a module or package at the top of paged_numba.
CORE = {
    "arrays",
    "attention",
    "cache_watch",
    "accounts",
    "allocation",
    "block_pool",
    "plan",
    "prefix_cache",
    "errors",
    "arguments",
    "layouts",
    "reference",
    "allocator",
    "lockstep",
    "validation",
    "kernels",
    "sequence_state",
    "target",
    "token_ids",
    "ops",
    "cache",
}
MAY_IMPORT = {
    "errors": set(),
    "lockstep": {"errors"},
    "reference": {"errors"},
    "prefix_cache": set(),
    "allocation": set(),
    "block_pool": {"prefix_cache"},
    "arguments": set(),
    "token_ids": {"arguments"},
    "sequence_state": {"prefix_cache", "token_ids"},
    "accounts": {"allocation", "block_pool", "errors", "arguments", "prefix_cache", "sequence_state"},
    "allocator": {
        "accounts",
        "allocation",
        "errors",
        "arguments",
        "prefix_cache",
        "sequence_state",
        "token_ids",
    },
    "layouts": set(),
    "validation": {"arguments", "errors", "layouts"},
    "kernels": set(),
    "arrays": {"lockstep"},
    "target": {"arrays", "errors", "lockstep"},
    "plan": {"arguments"},
    "attention": {"arrays", "plan", "target", "kernels"},
    "ops": {"arrays", "attention", "layouts", "plan", "validation", "target", "kernels"},
    "cache_watch": {"allocator", "errors", "lockstep"},
    "cache": {
        "allocation",
        "arguments",
        "arrays",
        "allocator",
        "cache_watch",
        "layouts",
        "ops",
        "target",
        "validation",
    },
    "testing": CORE,
}


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path):
    """Return the parts of the package that a file imports."""
    depth = len(path.relative_to(PACKAGE).parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module.startswith("paged_numba"):
            found |= set(node.module.split(".")[1:2]) or {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.split(".")[1] for alias in node.names if alias.name.startswith("paged_numba.")
            }
    return found - {part_of(path)}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_flow_downward(part):
    files = [path for path in PACKAGE.rglob("*.py") if part_of(path) == part]
    assert files
    for path in files:
        assert imported_parts(path) <= MAY_IMPORT[part], path


def test_the_core_imports_nothing_above_it():
    above = {part_of(path) for path in PACKAGE.rglob("*.py")} - CORE - {"__init__"}
    assert {"tour", "cli", "testing"} <= above
    for path in PACKAGE.rglob("*.py"):
        if part_of(path) in CORE:
            assert not imported_parts(path) & above, path


def test_hypothesis_is_imported_only_where_tests_need_it():
    users = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^\s*(from|import) hypothesis", path.read_text(encoding="utf-8"), re.M)
    }
    machines = {f"testing/machines/{name}.py" for name in ("allocator", "cache", "pick", "prefix")}
    assert users == machines | {"testing/strategies.py"}


def run_fresh(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.parametrize(
    "module", ["reference", "allocator", "lockstep", "lockstep.facade", "validation", "errors"]
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


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_every_module_says_what_it_is_and_is_short(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), path
    assert len(text.splitlines()) <= 450, path


def readme_blocks(language):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def test_readme_has_exactly_two_commands():
    assert len(readme_blocks("sh")) == 2


@pytest.mark.parametrize("algorithm", ["block", "tile"])
def test_readme_shows_what_profile_prints(algorithm, capsys):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = readme.split(f"--algorithm {algorithm}`")[1].split("```")[1]
    shown = [line.split("|", 1) for line in text.strip().splitlines()[1:]]
    assert cli.main(["profile", "paged_attention", "--shape", "seq_len=256", "--algorithm", algorithm]) == 0
    printed = [line.split("|", 1) for line in capsys.readouterr().out.splitlines() if "|" in line]
    printed = [(counts.split(), source.strip()) for counts, source in printed]
    assert len(shown) == 2
    for counts, source in shown:
        assert (counts.split(), source.strip()) in printed


def test_readme_examples_do_what_it_says(tmp_path):
    outputs = []
    for i, code in enumerate(readme_blocks("python")):
        script = tmp_path / f"example_{i}.py"
        script.write_text(code, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(script)],
            capture_output=True,
            text=True,
            env={"PATH": "", "PYTHONPATH": str(ROOT), "PAGED_NUMBA_TARGET": "lockstep"},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.strip())
    assert outputs == ["[0 1 2] [0 1 3]", "", "load 4.0 100.0\nstore 32.0 12.5"]
    assert "It prints `[0 1 2] [0 1 3]`." in (ROOT / "README.md").read_text(encoding="utf-8")
