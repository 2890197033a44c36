"""``paged-numba doctor`` reports packages that are broken, old or missing, and never fails over them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from paged_numba import lockstep, targets
from paged_numba.commands import doctor
from paged_numba.commands.doctor import packages
from paged_numba.commands.main import main

ROOT = Path(__file__).parents[1]

# Imports a module for the command line as a broken installation does; prints what each command returns.
BREAK = """
import contextlib, io, json, sys

class Broken:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise eval(sys.argv[2])

sys.meta_path.insert(0, Broken())
from paged_numba.commands.main import main

results = {}
for command in ("--version", "doctor", "doctor --json", "tour --text prompt.txt"):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            status = main(command.split())
        except SystemExit as stop:
            status = stop.code
    results[command] = status, out.getvalue(), err.getvalue()
print(json.dumps(results))
"""


@pytest.mark.parametrize(
    ("module", "error", "name", "stops"),
    [
        ("numpy", "ImportError('no wheel')", "numpy", True),
        ("ml_dtypes", "AttributeError('no attribute')", "ml_dtypes", True),
        ("tqdm", "SyntaxError('invalid syntax')", "tqdm", False),
        ("numba", "SystemExit(3)", "numba", True),
        ("numba.cuda", "OSError('libcuda.so.1: cannot open')", "numba-cuda", True),
    ],
)
def test_a_broken_package_is_a_finding(module, error, name, stops, tmp_path):
    (tmp_path / "prompt.txt").write_text("one prompt", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", BREAK, module, error],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    kind, message = re.fullmatch(r"(\w+)\('?(.*?)'?\)", error).groups()
    assert results["--version"][0] == 0
    status, out, err = results["doctor"]
    assert (status, err) == (1, "")
    assert re.search(rf"^  {name}: .*\bimport {module} fails: {kind}: {message}$", out, re.M)
    assert re.search(rf'\n  pip install --force-reinstall .*"{name.replace("_", "[-_]")}', out)
    if module != "ml_dtypes":  # numba-cuda imports it, Numba does not
        assert ("No target can run the kernels of paged_numba: " in out) == stops
    assert json.loads(results["doctor --json"][1])["problems"][name].endswith(f"{kind}: {message}")
    # Other commands say what is missing, or do without.
    status, out, err = results["tour --text prompt.txt"]
    assert status == (2 if stops else 0)
    assert ("doctor says what" in err) == stops


def installed(folder, name, version, *lines):
    """Make a package look installed in a folder, as far as its metadata go."""
    metadata = folder / f"{name}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    text = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines])
    metadata.write_text(text + "\n", encoding="utf-8")


def test_versions_that_are_not_declared_are_findings(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    installed(
        tmp_path, "paged_numba", "1", "Requires-Dist: numpy<2.5,>=2.0", "Requires-Dist: ml-dtypes>=0.4",
        "Requires-Dist: numba-cuda>=0.27; sys_platform == 'linux'",
        "Requires-Dist: tqdm>=9; extra == 'bar'",
    )  # fmt: skip
    installed(tmp_path, "numba_cuda", "0.20.0")
    installed(tmp_path, "ml_dtypes", "0.4.0")
    installed(tmp_path, "numpy", "2.5.0")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "  numba-cuda: version 0.20.0 is not supported, numba-cuda>=0.27 is" in out
    assert "  numpy: version 2.5.0 is not supported, numpy<2.5,>=2.0 is\n" in out
    assert "  ml_dtypes: " not in out
    assert "  tqdm: " not in out
    assert '\n  pip install --force-reinstall "numpy<2.5,>=2.0" "ml-dtypes>=0.4" "numba-cuda>=0.27"\n' in out


def test_a_source_checkout_that_is_not_installed_declares_nothing(monkeypatch):
    def requires(name):
        raise packages.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.importlib.metadata, "requires", requires)
    assert all(package.problem is None for package in packages.examine().values())
    assert packages.remedy(["numba"]) == 'pip install --force-reinstall "numba"'


numbers = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))


@given(
    st.lists(st.tuples(st.sampled_from(sorted(packages._COMPARISONS)), numbers), min_size=1, max_size=2),
    numbers,
)
def test_versions_are_compared_as_pip_compares_them(bounds, version):
    requirement = ",".join(sign + bound for sign, bound in bounds)
    assert packages._allows(f"name{requirement}", version) == SpecifierSet(requirement).contains(version)


def test_the_minimum_that_ci_tests_is_the_one_that_is_declared():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    declared = re.search(r"^dependencies = .*?^dev = ", project, re.M | re.S)[0]
    declared = re.sub(r"^ *#.*", "", declared, flags=re.M)
    bounds = {
        (re.sub(r"\[.*", "", name), bound)
        for name, bound in re.findall(r'"([\w-]+(?:\[\w+\])?)[^">]*>=([\d.]+)', declared)
    }
    minimum = (ROOT / ".ci" / "minimum.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)$", minimum, re.M))
    assert len(pins) == sum(not line.startswith("#") for line in minimum.splitlines())
    # One bound for each package, also where extras name it again.
    assert {name for name, _ in bounds} == set(pins)
    assert len(bounds) == len(pins)
    for name, bound in bounds:
        assert packages._numbers(bound) == packages._numbers(pins[name])


def test_the_report_says_what_stands_in_the_place_of_numba_cuda(monkeypatch):
    monkeypatch.delenv("PAGED_NUMBA_INSTALL", raising=False)
    monkeypatch.delenv("PAGED_NUMBA_TARGET", raising=False)
    if not targets.simulator_enabled():
        assert "itself (PAGED_NUMBA_INSTALL=1 puts lockstep in its place)" in doctor.report(doctor.diagnose())
        with lockstep.installed():
            monkeypatch.setenv("PAGED_NUMBA_INSTALL", "1")
            text = doctor.report(doctor.diagnose())
        assert "lockstep stands in its place (PAGED_NUMBA_INSTALL=1)" in text
        assert "run on the target lockstep, because lockstep stands in the place of numba.cuda." in text
