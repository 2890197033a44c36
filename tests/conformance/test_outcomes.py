"""The classifier of numba-cuda's tests, tried on small tests whose outcomes are known."""

import json
import re
import subprocess
import sys
from pathlib import Path

import outcomes
import pytest
import run
import tables

from paged_numba.errors import KernelError, LaunchError, LaunchTypeError, UnsupportedConstructError

HERE = Path(__file__).parent

TESTS = """
import os, signal, subprocess, sys, time, unittest
import pytest
from paged_numba.errors import KernelError, LaunchError, UnsupportedConstructError

class Made(unittest.TestCase):
    def test_passes(self): pass
    def test_is_wrong(self): self.assertEqual(1, 2)
    def test_is_wrong_by_pytest(self):
        with pytest.raises(ValueError): pass
    def test_is_refused(self): raise UnsupportedConstructError("the lockstep machine does not run a set, a.py:1")
    def test_is_refused_by_launch(self): raise LaunchError("the arguments must be arrays or numbers")
    def test_is_refused_by_name(self): raise AttributeError("cuda.x is not part of the lockstep facade")
    def test_wraps_a_refusal(self):
        try:
            raise UnsupportedConstructError("inside")
        except UnsupportedConstructError as error:
            raise RuntimeError("a wrapper") from error
    def test_runs_a_script_that_is_refused(self):
        code = "from paged_numba.errors import UnsupportedConstructError as E; raise E('in a script')"
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    def test_runs_a_script_that_fails(self):
        subprocess.run([sys.executable, "-c", "1 / 0"], check=True, capture_output=True)
    def test_is_raw(self): {}["absent"]
    def test_is_raw_though_ours(self): raise KernelError("an array has no attribute 'sort' in a kernel")
    def test_raises_what_it_expects(self):
        with self.assertRaises(NotImplementedError): raise UnsupportedConstructError("x")
    def test_catches_everything_and_hangs(self):
        try:
            time.sleep(60)
        except Exception:
            pass
    def test_hangs_for_good(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(60)
    def test_ends_the_process(self): os._exit(3)
    def test_is_killed(self): os.kill(os.getpid(), signal.SIGKILL)
    def test_subtests_pass(self):
        for i in range(3):
            with self.subTest(i=i): pass
    def test_subtests_differ(self):
        for i, error in enumerate([None, UnsupportedConstructError("no"), AssertionError("one"), None]):
            with self.subTest(i=i):
                if error: raise error
    def test_subtests_end_early(self):
        with self.subTest(i=0): pass
        raise KeyError("after the subtests")
    @unittest.skip("needs two GPUs")
    def test_is_skipped(self): pass
    def test_is_skipped_by_pytest(self): pytest.importorskip("no_such_package")
    @unittest.expectedFailure
    def test_fails_as_expected(self): self.fail()
    @unittest.expectedFailure
    def test_passes_unexpectedly(self): pass

class NeverStarts(unittest.TestCase):
    @classmethod
    def setUpClass(cls): raise OSError("no driver")
    def test_nothing(self): pass

def test_function(): assert True
def test_wrong_function(): assert 1 == 2
"""
EXPECTED = {
    "Made.test_passes": ("pass", ""),
    "Made.test_is_wrong": ("wrong", "AssertionError: 1 != 2"),
    "Made.test_is_wrong_by_pytest": ("wrong", "DID NOT RAISE"),
    "Made.test_is_refused": ("refused", "does not run a set"),
    "Made.test_is_refused_by_launch": ("refused", "must be arrays or numbers"),
    "Made.test_is_refused_by_name": ("refused", "not part of the lockstep facade"),
    "Made.test_wraps_a_refusal": ("refused", "a wrapper"),
    "Made.test_runs_a_script_that_is_refused": ("refused", "in a script"),
    "Made.test_runs_a_script_that_fails": ("raw", "ZeroDivisionError"),
    "Made.test_is_raw": ("raw", "KeyError: 'absent'"),
    "Made.test_is_raw_though_ours": ("raw", "has no attribute 'sort'"),
    "Made.test_raises_what_it_expects": ("pass", ""),
    "Made.test_catches_everything_and_hangs": ("raw", "did not end within 0.5 s"),
    "Made.test_hangs_for_good": ("raw", "ended by signal 9"),
    "Made.test_ends_the_process": ("raw", "ended with 3"),
    "Made.test_is_killed": ("raw", "ended by signal 9"),
    "Made.test_subtests_pass": ("pass", ""),
    "Made.test_subtests_differ": ("wrong", r"\(i=2\): AssertionError: one"),
    "Made.test_subtests_end_early": ("raw", "after the subtests"),
    "Made.test_is_skipped": ("skipped", "needs two GPUs"),
    "Made.test_is_skipped_by_pytest": ("skipped", "no_such_package"),
    "Made.test_fails_as_expected": ("pass", ""),
    "Made.test_passes_unexpectedly": ("wrong", "expects this test to fail"),
    "NeverStarts": ("raw", "OSError: no driver"),
    "test_function": ("pass", ""),
    "test_wrong_function": ("wrong", "AssertionError"),
}
COLLECT = """
import json, sys
sys.path[:0] = sys.argv[1:3]
import processes
processes.PATIENCE = 1.0
made = processes.run(["made", "broken", "other"], lambda test_id: "left_out" not in test_id, limit=0.5)
print(json.dumps(list(made)))
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    (folder / "made.py").write_text(TESTS, encoding="utf-8")
    (folder / "broken.py").write_text("raise OSError('this module does not import')\n", encoding="utf-8")
    (folder / "other.py").write_text(
        "def test_one(): print('seen by nobody')\ndef test_left_out(): pass\n", encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, str(HERE), str(folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=HERE.parents[1],
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", EXPECTED)
def test_outcome_and_reason_of_a_test(records, name):
    (record,) = [r for r in records if r["id"] == f"made.{name}"]
    outcome, reason = EXPECTED[name]
    assert record["outcome"] == outcome, record
    assert re.search(reason, record["reason"])


def test_each_test_has_one_record(records):
    assert sorted(r["id"] for r in records) == sorted(
        [f"made.{name}" for name in EXPECTED] + ["broken", "other.test_one"]
    )


def test_a_module_that_cannot_be_imported_is_a_test_that_fails(records):
    (record,) = [r for r in records if r["id"] == "broken"]
    assert (record["outcome"], record["reason"]) == ("raw", "OSError: this module does not import")


def test_subtests_are_counted(records):
    counts = {r["id"]: r["subtests"] for r in records}
    assert counts["made.Made.test_subtests_differ"] == {"pass": 2, "refused": 1, "wrong": 1}
    assert counts["made.Made.test_subtests_pass"] == {"pass": 3}
    assert counts["made.Made.test_passes"] == {}


def test_reasons_are_the_same_in_each_run():
    error = ValueError(f"{object()} in /tmp/abc/def.py\n  at line 1")
    assert outcomes.reason_of(error) == "ValueError: <object object at 0x…> in def.py at line 1"
    assert len(outcomes.reason_of(ValueError("x" * 1000))) == outcomes.LONGEST_REASON


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (UnsupportedConstructError("x"), "refused"),
        (LaunchError("x"), "refused"),
        (LaunchTypeError("x"), "refused"),
        (KernelError("x"), "raw"),
        (AssertionError("x"), "wrong"),
        (AssertionError("a test that expects the words 'the lockstep machine' does not find them"), "wrong"),
        (AssertionError("process failed:\npaged_numba.errors.UnsupportedConstructError: x"), "refused"),
        (AssertionError("it printed paged_numba.errors.UnsupportedConstructError: x"), "wrong"),
    ],
)
def test_an_error_is_a_refusal_only_if_it_names_what_does_not_run(error, outcome):
    assert outcomes.classify(error)[0] == outcome


# The tables.


def test_a_test_outside_is_outside_whether_or_not_it_passes():
    for outcome in ("pass", "refused", "wrong", "raw"):
        assert tables.judged("cudapy.test_inspect.TestInspect.test_monotyped", outcome, "x")[0] == "outside"
    assert tables.judged("cudapy.test_inspect.TestInspect.test_monotyped", "skipped", "why") == (
        "skipped",
        "why",
    )


def test_an_exception_from_a_pattern_is_not_outside():
    assert tables.outside("cudapy.test_debuginfo.TestCudaDebugInfo.test_bool_type")
    assert tables.outside("cudapy.test_debuginfo.TestCudaDebugInfo.test_union_debug") is None


def test_a_test_differs_only_if_it_fails_as_the_table_says(monkeypatch):
    monkeypatch.setattr(
        tables, "DIFFERS", {"cudapy.test_x.T.test_*": ("KernelIndexError", "bounds are checked")}
    )
    judged = [
        tables.judged("cudapy.test_x.T.test_one", outcome, reason)
        for outcome, reason in (("raw", "KernelIndexError: x[9]"), ("raw", "TypeError: x"), ("pass", ""))
    ]
    assert judged == [("differs", "bounds are checked"), ("raw", "TypeError: x"), ("pass", "")]


def test_quarters_are_fixed_and_of_similar_size():
    ids = [f"cudapy.test_x.T.test_{number}" for number in range(1000)]
    quarters = [run.quarter_of(test_id) for test_id in ids]
    assert quarters[:6] == [run.quarter_of(test_id) for test_id in ids[:6]]
    assert all(200 < quarters.count(k) < 300 for k in range(4))
    assert run.quarter_of("cudapy.test_sync.TestCudaSync.test_useful_syncthreads") == 2


def test_patterns_choose_modules_and_tests():
    module, test = run.wanted(["cudapy.test_sync", "*atomic_add*"])
    assert test("cudapy.test_sync.TestCudaSync.test_x")
    assert test("cudapy.test_atomics.T.test_atomic_add2")
    assert not test("cudapy.test_synchronous.T.test_x")
    assert module("cudapy.test_atomics")
    module, test = run.wanted(["cudapy.test_sync.TestCudaSync.test_x"])
    assert module("cudapy.test_sync")
    assert not module("cudapy.test_atomics")
    assert all(chooses("any") for chooses in run.wanted([]))
