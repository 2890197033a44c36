"""The pytest plugin, run on small projects."""

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from paged_numba.lockstep.cuda.installation import installed, is_installed

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[1]
PLUGIN = "paged_numba.testing.pytest_plugin"
IS_INSTALLED = bool(importlib.metadata.entry_points(group="pytest11", name="paged_numba"))
HEADER = "paged_numba: numba.cuda is the lockstep machine"

KERNELS = """
    import numpy as np
    import pytest
    import unittest
    from numba import cuda
    from numba.cuda import jit

    @jit
    def copy(x, y, step):
        i = cuda.grid(1)
        y[i] = x[i * step]

    @cuda.jit
    def racy(x):
        x[0] = cuda.threadIdx.x

    @cuda.jit
    def benign(x):
        x[0] = 1

    @cuda.jit
    def stray(x):
        x[cuda.threadIdx.x] = 1

    def run_copy(step=1):
        x, y = np.arange(128 * step, dtype=np.float32), np.zeros(128, np.float32)
        copy[2, 64](x, y, step)
        assert (y == x[::step]).all()

    def run_racy():
        racy[1, 64](np.zeros(1))
"""


def project(pytester, tests, **files):
    """Write a project whose tests use the kernels above."""
    kernels, tests = (re.sub("^    ", "", text, flags=re.M) for text in (KERNELS, tests))
    pytester.makepyfile(test_kernels=kernels + tests, **files)


def run(pytester, *options):
    """Run the project's tests in this process."""
    assert not is_installed()
    result = pytester.runpytest_inprocess(*([] if IS_INSTALLED else ["-p", PLUGIN]), *options)
    assert not is_installed()
    return result


# --lockstep.


def test_lockstep_is_installed_before_conftest_files_are_imported(pytester):
    pytester.makeconftest(
        "from numba.cuda import is_available, jit\nassert is_available()\n@jit\ndef double(x): x[0] *= 2"
    )
    project(
        pytester,
        """
    def test_copy():
        run_copy()

    def test_conftest():
        from conftest import double
        x = cuda.to_device(np.array([3]))
        double[1, 1](x)
        assert x.copy_to_host()[0] == 6
    """,
    )
    result = run(pytester, "--lockstep")
    result.stdout.fnmatch_lines([HEADER])
    result.assert_outcomes(passed=2)


def test_without_its_options_the_plugin_does_nothing(pytester):
    pytester.makepyfile("""
        import sys
        def test_nothing():
            from paged_numba.targets import lockstep_installed
            assert not lockstep_installed()
    """)
    result = run(pytester)
    result.stdout.no_fnmatch_line("*lockstep*")
    result.assert_outcomes(passed=1)


def test_the_header_tells_of_lockstep_that_the_environment_installed(pytester):
    with installed():
        result = pytester.runpytest_inprocess(*([] if IS_INSTALLED else ["-p", PLUGIN]))
    result.stdout.fnmatch_lines([HEADER])


@pytest.mark.parametrize(
    "option", ["--sanitize", "--profile-kernels=new.json", "--traffic-baseline=old.json"]
)
def test_the_other_options_imply_lockstep(pytester, option):
    project(
        pytester,
        """
    def test_copy(): run_copy()
    @pytest.mark.skipif("config.getoption('--lockstep')", reason="needs a GPU")
    def test_gpu(): assert False
    """,
    )
    Path("old.json").write_text('{"format": "paged_numba kernel traffic 1", "tests": {}}')
    result = run(pytester, option)
    result.stdout.fnmatch_lines([HEADER])
    result.assert_outcomes(passed=1, skipped=1)


@pytest.mark.parametrize("style", ["long", "short"])
def test_the_traceback_of_a_kernel_shows_its_lines_and_no_lanes(pytester, style):
    project(
        pytester,
        """
    @cuda.jit(device=True)
    def store(x, i, scale):
        x[i] = scale

    @cuda.jit
    def far(x, scale):
        store(x, cuda.grid(1), scale)

    def test_far():
        far[1, 64](np.zeros(63), 3)
    """,
    )
    printed = run(pytester, "--lockstep", "--showlocals", f"--tb={style}").stdout.str()
    assert "x[63] out of bounds for shape (63,), thread 63 of thread block 0, test_kernels.py:" in printed
    for line in ("far[1, 64](np.zeros(63), 3)", "store(x, cuda.grid(1), scale)", "x[i] = scale"):
        assert line in printed
    for inner in ("_rt", "_m ", "v_x", "v_scale", "LaneArray", "paged_numba/lockstep"):
        assert inner not in printed


# --sanitize.


def test_findings_fail_a_test_and_name_the_line(pytester):
    project(
        pytester,
        """
    def test_clean(): run_copy()
    def test_race(): run_racy()
    def test_benign(): benign[1, 64](np.zeros(1))
    def test_stray(): stray[1, 64](np.zeros(63))
    """,
    )
    result = run(pytester, "--sanitize")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines([
        "*test_race*", "findings of the sanitizer: 1 kind of error", "", "data race: x?0?: thread 0 *",
        "*test_kernels.py:14  x?0? = cuda.threadIdx.x",
        "*test_stray*", "*out of bounds: x?63? out of bounds for shape (63,)*", "*test_kernels.py:22*",
    ])  # fmt: skip
    run(pytester, "--lockstep", "--deselect=test_kernels.py::test_stray").assert_outcomes(
        passed=3, deselected=1
    )


def test_findings_count_in_fixtures_parameters_classes_and_unittest(pytester):
    project(
        pytester,
        """
    @pytest.fixture
    def before():
        run_racy()

    @pytest.fixture
    def after():
        yield
        run_racy()

    def test_setup(before): pass
    def test_teardown(after): pass

    @pytest.mark.parametrize("bad", [0, 1])
    def test_parameter(bad):
        if bad:
            run_racy()

    class TestCase(unittest.TestCase):
        def setUp(self):
            run_copy()

        def test_clean(self): pass
        def test_race(self): run_racy()
        def test_fails(self):
            run_racy()
            self.assertEqual(1, 2)
    """,
    )
    result = run(pytester, "--sanitize")
    result.assert_outcomes(errors=2, failed=3, passed=3)
    result.stdout.fnmatch_lines_random([
        "*ERROR at setup of test_setup*", "*ERROR at teardown of test_teardown*", "*_ test_parameter?1? _*",
        "*_ TestCase.test_race _*", "*_ TestCase.test_fails _*", "E*AssertionError: 1 != 2",
    ])  # fmt: skip


def test_a_test_that_fails_anyway_shows_its_findings_too(pytester):
    project(pytester, "def test_both():\n        run_racy()\n        assert False")
    result = run(pytester, "--sanitize")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E       assert False", "*- findings of the sanitizer -*", "data race: *"])


def test_an_expected_failure_may_be_a_finding(pytester):
    project(
        pytester,
        """
    @pytest.mark.xfail
    def test_expected(): run_racy()

    @pytest.mark.xfail(strict=True)
    def test_strict(): run_racy()

    @pytest.mark.xfail(strict=True)
    def test_clean(): run_copy()
    """,
    )
    run(pytester, "--sanitize").assert_outcomes(xfailed=2, failed=1)


# --profile-kernels and --traffic-baseline.

TRAFFIC_TESTS = """
    import os
    STEP = int(os.environ.get("STEP", 1))

    @cuda.jit
    def transpose(x):
        tile = cuda.shared.array(32 * 33, np.float32)
        lane = cuda.threadIdx.x
        tile[lane * (32 + (STEP == 1))] = x[lane]
        cuda.atomic.add(x, 0, 1)

    @pytest.fixture(scope="module")
    def warm():
        run_copy()

    @pytest.fixture
    def filled():
        run_copy()

    def test_copy(warm): run_copy(STEP)
    def test_both(warm, filled):
        run_copy(STEP)
        transpose[1, 32](np.zeros(32, np.float32))
    def test_nothing(warm): pass
"""


def counts(file):
    return json.loads(Path(file).read_text())["tests"]


def test_traffic_is_saved_by_test_and_kernel(pytester):
    project(pytester, TRAFFIC_TESTS)
    result = run(pytester, "--profile-kernels", "new.json")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["wrote the traffic of 2 tests to *new.json"])
    # 128 floats are loaded and 128 stored: 2 * 128 * 4 / 32 sectors. The fixture `warm` does not count.
    copy = {
        "launches": 1, "global_sectors": 32, "global_bytes": 1024,
        "bank_conflicts": 0, "atomic_turns": 0, "local_bytes": 0,
    }  # fmt: skip
    # 4 sectors of 32 floats, and 1 sector for the atomic addition, in which 32 lanes take turns.
    transpose = copy | {"global_sectors": 5, "global_bytes": 160, "atomic_turns": 32}
    twice = {name: 2 * count for name, count in copy.items()}
    assert counts("new.json") == {
        "test_kernels.py::test_copy": {"test_kernels.copy": copy},
        "test_kernels.py::test_both": {"test_kernels.copy": twice, "test_kernels.transpose": transpose},
    }


def test_growth_fails_a_test_and_a_new_baseline_accepts_it(pytester, monkeypatch):
    project(pytester, TRAFFIC_TESTS)
    run(pytester, "--profile-kernels", "old.json").assert_outcomes(passed=3)
    result = run(pytester, "--traffic-baseline", "old.json")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["the same tests and kernels as in old.json"])
    monkeypatch.setenv("STEP", "8")
    result = run(pytester, "--traffic-baseline", "old.json", "--profile-kernels", "new.json")
    result.assert_outcomes(passed=1, failed=2)
    # 128 loads of a sector each, and 16 sectors stored; test_both launches `copy` twice, once with the step.
    result.stdout.fnmatch_lines([
        "memory traffic of kernels has grown since old.json:",
        "",
        "test_kernels.copy: bytes of global memory moved: 1,024 before, 4,608 now (350 % more)",
        "",
        "If it should, write a new baseline: pytest --profile-kernels old.json",
        "test_kernels.copy: bytes of global memory moved: 2,048 before, 5,632 now (175 % more)",
        "test_kernels.transpose: cycles of shared-memory bank conflicts: 0 before, 31 now (none before)",
    ])  # fmt: skip
    run(pytester, "--traffic-baseline", "new.json").assert_outcomes(passed=3)
    monkeypatch.setenv("STEP", "1")
    run(pytester, "--traffic-baseline", "new.json").assert_outcomes(passed=3)


def test_tests_and_kernels_that_are_new_or_gone_are_named_and_do_not_fail(pytester):
    project(pytester, TRAFFIC_TESTS)
    run(pytester, "--profile-kernels", "old.json")
    tests = counts("old.json")
    tests["test_kernels.py::test_gone"] = tests.pop("test_kernels.py::test_copy")
    both = tests["test_kernels.py::test_both"]
    both["test_kernels.before"] = both.pop("test_kernels.transpose")
    tests["test_kernels.py::test_nothing"] = both
    Path("old.json").write_text(json.dumps({"format": "paged_numba kernel traffic 1", "tests": tests}))
    result = run(pytester, "--traffic-baseline", "old.json")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines([
        "new, not in old.json: test_kernels.py::test_copy",
        "new kernel in test_kernels.py::test_both: test_kernels.transpose",
        "kernel gone from test_kernels.py::test_both: test_kernels.before",
        "all kernels gone from test_kernels.py::test_nothing",
        "in old.json, but did not run: test_kernels.py::test_gone",
    ])  # fmt: skip


def test_workers_of_xdist_run_on_lockstep_count_and_compare(pytester, monkeypatch):
    pytester.makeconftest("from numba.cuda import is_available\nassert is_available()")
    project(pytester, TRAFFIC_TESTS)
    run(pytester, "--profile-kernels", "one.json")
    monkeypatch.setenv("STEP", "8")
    run(pytester, "--profile-kernels", "eight.json")
    result = run(pytester, "--traffic-baseline", "one.json", "--profile-kernels", "two.json", "-n2")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines([HEADER, "*1,024 before, 4,608 now*"])
    assert counts("two.json") == counts("eight.json") != counts("one.json")


def test_failed_tests_are_not_saved(pytester):
    project(
        pytester,
        """
    def test_fails():
        run_copy()
        assert False
    class TestUnittest(unittest.TestCase):
        def test_part_fails(self):
            run_copy()
            with self.subTest():
                assert False
    """,
    )
    result = run(pytester, "--profile-kernels", "new.json")
    result.stdout.fnmatch_lines(["wrote the traffic of 0 tests*", "without 2 tests that failed"])
    assert counts("new.json") == {}


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="pytest has no fixture `subtests`")
def test_a_test_with_a_failed_subtest_is_not_saved(pytester):
    project(
        pytester,
        """
    def test_part_fails(subtests):
        with subtests.test():
            run_copy()
        with subtests.test():
            assert False
        run_copy()
    def test_passes(subtests):
        for _ in range(3):
            with subtests.test():
                run_copy()
    """,
    )
    result = run(pytester, "--profile-kernels", "new.json", "-n2")
    result.stdout.fnmatch_lines(["wrote the traffic of 1 test *", "without 1 test that failed"])
    [(test, kernels)] = counts("new.json").items()
    assert test == "test_kernels.py::test_passes"
    assert kernels["test_kernels.copy"]["launches"] == 3


def test_a_run_of_some_tests_keeps_the_counts_of_the_others(pytester, monkeypatch):
    project(pytester, TRAFFIC_TESTS)
    run(pytester, "--profile-kernels", "old.json")
    before = counts("old.json")
    monkeypatch.setenv("STEP", "8")
    result = run(pytester, "--profile-kernels", "old.json", "-k", "test_copy or test_nothing")
    result.stdout.fnmatch_lines([
        "wrote the traffic of 1 test to *old.json",
        "kept what it held of 1 test that failed or did not run",
    ])  # fmt: skip
    after = counts("old.json")
    assert after["test_kernels.py::test_both"] == before["test_kernels.py::test_both"]
    assert after["test_kernels.py::test_copy"]["test_kernels.copy"]["global_bytes"] == 4608
    project(pytester, "def test_copy():\n        run_copy()\n        assert False\n    def test_both(): pass")
    run(pytester, "--profile-kernels", "old.json")
    assert counts("old.json") == {"test_kernels.py::test_copy": after["test_kernels.py::test_copy"]}


def test_a_file_that_holds_no_traffic_is_not_overwritten(pytester):
    project(pytester, "def test_copy(): run_copy()")
    Path("setup.json").write_text("{}")
    result = run(pytester, "--profile-kernels", "setup.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    message = "--profile-kernels setup.json: the file must have the format"
    assert message in result.stderr.str()
    assert "delete it, or name another file" in result.stderr.str()
    assert Path("setup.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the file cannot be read (No such file or directory)"),
        ("{", "the file is not JSON"),
        ("[]", "the file must have the format 'paged_numba kernel traffic 1'"),
        ('{"format": "other"}', "the file must have the format 'paged_numba kernel traffic 1'"),
    ],
)
def test_a_baseline_that_is_none_is_a_usage_error(pytester, content, message):
    project(pytester, "def test_copy(): run_copy()")
    if content is not None:
        Path("old.json").write_text(content)
    result = run(pytester, "--traffic-baseline", "old.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"--traffic-baseline old.json: {message}" in result.stderr.str()
    assert "--profile-kernels writes it" in result.stderr.str()


@pytest.mark.parametrize("file", [".", "missing/new.json"])
def test_a_profile_that_cannot_be_written_is_a_usage_error(pytester, file):
    project(pytester, "def test_copy(): run_copy()")
    result = run(pytester, "--profile-kernels", file)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"--profile-kernels {file}: must name a file" in result.stderr.str()
    assert "passed" not in result.stdout.str()


# Fixtures.


def test_fixtures_install_lockstep_for_one_test(pytester):
    project(
        pytester,
        """
    from paged_numba.targets import lockstep_installed

    def test_lockstep(lockstep):
        with lockstep.profiling() as report:
            run_copy()
        assert report.memory().sectors == 32

    def test_after():
        assert not lockstep_installed()

    def test_cuda_or_lockstep(cuda_or_lockstep):
        x = cuda_or_lockstep.to_device(np.zeros(128, np.float32))
        copy[2, 64](np.ones(128, np.float32), x, 1)
        assert x.copy_to_host().all()
        assert cuda_or_lockstep is cuda

    def test_after_that():
        assert not lockstep_installed()
    """,
    )
    run(pytester).assert_outcomes(passed=4)
    run(pytester, "--lockstep", "-k", "not after").assert_outcomes(passed=2, deselected=2)


# As an entry point.


@pytest.fixture
def entry_point(tmp_path):
    """Return an environment in which the package is installed, with its entry point."""
    site = tmp_path / "site"
    info = site / "paged_numba-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: paged-numba\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[pytest11]\npaged_numba = {PLUGIN}\n")
    (info / "RECORD").write_text("paged_numba/__init__.py,,\npaged_numba/testing/__init__.py,,\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    environment.pop("PYTHONBREAKPOINT", None)
    return environment


def subprocess_run(environment, *options, text="", imports="sys"):
    command = [sys.executable, "-c", f"import sys, {imports}, pytest; sys.exit(pytest.main(sys.argv[1:]))"]
    return subprocess.run(
        [*command, *options], input=text, capture_output=True, text=True, env=environment, check=False
    )


@pytest.mark.parametrize("imports", ["sys", "paged_numba"])
def test_the_plugin_is_light_and_gives_no_warning(pytester, entry_point, imports):
    pytester.makepyprojecttoml(
        "[tool.pytest.ini_options]\naddopts = '--strict-config --strict-markers -W error'\n"
    )
    pytester.makepyfile("""
        import sys
        def test_light(request):
            assert request.config.pluginmanager.hasplugin("paged_numba")
            assert not {"numpy", "numba", "hypothesis", "paged_numba.lockstep"} & set(sys.modules)
    """)
    done = subprocess_run(entry_point, "-p", "paged_numba", imports=imports)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 1 passed in " in done.stdout  # and no warning
    assert "lockstep" not in done.stdout


def test_the_plugin_can_be_turned_off(pytester, entry_point):
    del entry_point["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
    pytester.makepyfile(
        "def test_off(request): assert not request.config.pluginmanager.hasplugin('paged_numba')"
    )
    done = subprocess_run(entry_point, "-p", "no:paged_numba")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        "unrecognized arguments: --lockstep"
        in subprocess_run(entry_point, "-p", "no:paged_numba", "--lockstep").stderr
    )


def test_a_breakpoint_in_a_kernel_stops_pytest(pytester, entry_point):
    project(
        pytester,
        """
    @cuda.jit
    def stopping(x):
        i = cuda.grid(1)
        breakpoint()
        x[i] = i

    def test_stops():
        stopping[1, 4](np.zeros(4))
    """,
    )
    done = subprocess_run(entry_point, "-p", "paged_numba", "--lockstep", text="p 'i is', i\nn\nc\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r">+ thread 0 of thread block 0, on lockstep >+", done.stdout)
    assert "('i is', np.int64(0))" in done.stdout
    assert "-> x[i] = i" in done.stdout


# The how-to page.

PAGE = (ROOT / "docs" / "ci_without_gpu.md").read_text(encoding="utf-8")
EDITS = {
    "pytest --sanitize": [("        cuda.syncthreads()\n", "")],
    "pytest --traffic-baseline kernel_traffic.json": [
        ("x[cuda.grid(1)]", "x[2 * cuda.grid(1)]"),
        ("np.arange(256,", "np.arange(512,"),
        ("[x[:128].sum(), x[128:].sum()]", "[x[:256:2].sum(), x[256::2].sum()]"),
    ],
}
"""What the page says of the kernels, by the command before which it says so."""


def test_the_page_shows_what_its_commands_print(pytester, monkeypatch):
    shells = re.findall(r"^```sh\n([^\n]*)\n```\n(?:\n```none\n(.*?)^```)?", PAGE, re.M | re.S)
    assert shells[0][0].startswith("pip install")
    assert EDITS.keys() <= {command for command, _ in shells}
    assert PAGE.count("```none\n") == sum(bool(shown) for _, shown in shells) == 5
    project_file = re.search(r"^```python\n(# test_kernels.py\n.*?)^```", PAGE, re.M | re.S)[1]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for command, shown in shells[1:]:
        if command.startswith("coverage") and not importlib.util.find_spec("coverage"):
            continue
        source = project_file
        for old, new in EDITS.get(command, ()):
            assert source.count(old) == 1
            source = source.replace(old, new)
        Path("test_kernels.py").write_text(source)
        program, *options = command.split()
        if program == "pytest":
            done = run(pytester, *options)
            status, printed = done.ret, done.stdout.str()
        else:
            words = [sys.executable, "-m", program, *options]
            if "pytest" in options and not IS_INSTALLED:
                words += ["-p", PLUGIN]
            process = subprocess.run(words, capture_output=True, text=True, check=False)
            status, printed = process.returncode, process.stdout
        assert status == (command in EDITS), printed
        lines = iter(printed.splitlines())
        for line in shown.splitlines():
            assert any(" ".join(line.split()) in " ".join(one.split()) for one in lines), (line, printed)


def test_the_job_of_the_page_runs_its_commands():
    [job] = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)
    runs = re.findall(r"- run: (.*)", job)
    assert runs == ["pip install -e .", "pip install paged-numba pytest", "pytest --lockstep --sanitize"]
    assert runs[1] == re.search(r"^```sh\n(.*)\n```", PAGE, re.M)[1]
