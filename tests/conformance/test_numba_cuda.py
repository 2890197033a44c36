"""numba-cuda's own tests on lockstep have the outcomes of ``docs/results/conformance.json``.

They run if the environment variable NUMBA_CUDA_TESTS is ``quarter``, for a fixed quarter of them, or ``all``; with the
packages of ``.ci/newest.txt``.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import page
import pytest
import run
import tables

ROOT = Path(__file__).parents[2]
SAVED = json.loads((ROOT / "docs" / "results" / "conformance.json").read_text(encoding="utf-8"))
ASKED = os.environ.get("NUMBA_CUDA_TESTS")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    if ASKED not in ("quarter", "all"):
        pytest.skip("numba-cuda's own tests run with NUMBA_CUDA_TESTS=quarter or =all")
    assert version("numba-cuda") == SAVED["versions"]["numba-cuda"], "install the packages of .ci/newest.txt"
    file = tmp_path_factory.mktemp("conformance") / "results.json"
    quarter = ["--quarter", "0"] if ASKED == "quarter" else []
    subprocess.run(
        [sys.executable, run.__file__, "--json", str(file), *quarter],
        stdout=subprocess.DEVNULL,
        check=False,
    )
    return json.loads(file.read_text(encoding="utf-8"))


def test_each_test_has_the_outcome_that_is_saved(results):
    changed = {
        f"{test_id}: {_outcome(SAVED, test_id)} before, now {test['outcome']}, {test.get('reason', '')}"
        for test_id, test in results["tests"].items()
        if test["outcome"] != _outcome(SAVED, test_id)
    }
    assert not changed, "mend these, or save the results anew, as CONTRIBUTING.md says:\n" + "\n".join(
        sorted(changed)
    )


def test_every_test_that_is_saved_ran(results):
    expected = {test_id for test_id in SAVED["tests"] if ASKED == "all" or run.quarter_of(test_id) == 0}
    assert expected == set(results["tests"])


def test_no_test_is_wrong_and_none_fails_by_a_raw_error(results):
    assert not {t: r for t, r in results["tests"].items() if r["outcome"] in ("wrong", "raw")}


def _outcome(results, test_id):
    return results["tests"].get(test_id, {}).get("outcome", "unknown")


# Of the saved results, always.


def test_saved_results_have_no_wrong_test_and_no_raw_error():
    assert not {t: r for t, r in SAVED["tests"].items() if r["outcome"] in ("wrong", "raw")}


def test_99_per_cent_of_the_tests_that_need_no_compiler_pass():
    counts = SAVED["counts"]
    needed = sum(counts.get(outcome, 0) for outcome in ("pass", "differs", "refused"))
    assert counts["pass"] >= 0.99 * needed


def test_saved_counts_are_those_of_the_tests():
    assert SAVED["counts"] == Counter(test["outcome"] for test in SAVED["tests"].values())
    features = {name: Counter() for name in tables.FEATURES}
    for test_id, test in SAVED["tests"].items():
        features[tables.feature_of(test_id)][test["outcome"]] += 1
    assert SAVED["features"] == features


def test_saved_outcomes_are_those_that_the_tables_give():
    for test_id, test in SAVED["tests"].items():
        assert (test["outcome"] == "outside") == (
            tables.outside(test_id) is not None and test["outcome"] != "skipped"
        ), test_id


@pytest.mark.parametrize("pattern", [*tables.OUTSIDE, *tables.DIFFERS])
def test_each_pattern_of_the_tables_is_of_a_test(pattern):
    outcome = {"differs"} if pattern in tables.DIFFERS else {"outside", "skipped"}
    ids = [t for t, r in SAVED["tests"].items() if tables.fnmatchcase(t, pattern.lstrip("!"))]
    assert ids
    assert pattern[0] == "!" or all(
        SAVED["tests"][t]["outcome"] in outcome or tables.outside(t) is None for t in ids
    )


def test_the_saved_versions_are_those_that_ci_installs():
    pins = dict(
        line.split("==") for line in (ROOT / ".ci" / "newest.txt").read_text().split("\n") if "==" in line
    )
    assert {name: pins[name] for name in SAVED["versions"]} == SAVED["versions"]


def test_the_page_says_what_the_saved_results_say():
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.rendered(text, SAVED) == text, "run tests/conformance/page.py"


def test_another_count_changes_the_page():
    text = page.PAGE.read_text(encoding="utf-8")
    for changed in (
        {**SAVED, "counts": {**SAVED["counts"], "pass": 1}},
        {**SAVED, "features": {**SAVED["features"], "records": {"pass": 1}}},
        {
            **SAVED,
            "tests": {**SAVED["tests"], "cudapy.test_x.T.test_y": {"outcome": "refused", "reason": "E: new"}},
        },
    ):
        assert page.rendered(text, changed) != text


def test_a_refusal_is_shown_without_its_place():
    error = "paged_numba.errors.UnsupportedConstructError: the lockstep machine does not run y, z.py:12"
    reason = f"(dtype=<class 'x'>): {error}"
    assert page._message(reason) == "the lockstep machine does not run y"
