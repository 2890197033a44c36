"""Run numba-cuda's own tests on lockstep: ``python tests/conformance/run.py [PATTERN ...]``.

A pattern is the name of a module or of a test, such as ``cudapy.test_sync`` or ``*test_atomic_add*``.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import tempfile
import time
import zlib
from collections import Counter
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path

import processes
import tables

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PREFIX = "numba.cuda.tests."
PACKAGES = ("numba-cuda", "numba", "numpy", "llvmlite", "cuda-bindings")


def quarter_of(test_id):
    """Return the quarter, 0 .. 3, of a test: always the same."""
    return zlib.crc32(test_id.encode()) % 4


def modules():
    """Return the names of numba-cuda's test modules, such as ``cudapy.test_sync``."""
    import numba_cuda

    tests = Path(numba_cuda.__file__).parent / "numba" / "cuda" / "tests"
    return [
        f"{part}.{path.stem}"
        for part in ("cudapy", "doc_examples")
        for path in sorted((tests / part).glob("test_*.py"))
    ]


def wanted(patterns):
    """Return functions that tell of the name of a module and of a test's id whether patterns choose it."""

    def chooses_test(test_id):
        return not patterns or any(fnmatchcase(test_id, p) or test_id.startswith(f"{p}.") for p in patterns)

    def chooses_module(name):
        return not patterns or any(fnmatchcase(name, p) or p.startswith((f"{name}.", "*")) for p in patterns)

    return chooses_module, chooses_test


def run(patterns=(), quarter=None, job_count=2, limit=300.0, log=os.devnull, show=lambda record: None):
    """Run tests in an empty working directory; return the results as a dictionary."""
    chooses_module, chooses_test = wanted(patterns)

    def selected(test_id):
        return chooses_test(test_id) and quarter in (None, quarter_of(test_id))

    # Before NumPy is imported; for the scripts that tests start, too.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    os.environ["PAGED_NUMBA_TARGET"] = "lockstep"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "start"), str(ROOT)])
    sys.path.insert(0, str(ROOT))
    tests = {}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["NUMBA_CACHE_DIR"] = scratch
        os.chdir(scratch)
        # Once, before the processes are forked.
        from paged_numba import lockstep

        lockstep.install()
        importlib.import_module("numba.cuda.testing")
        names = [name for name in modules() if chooses_module(name)]
        for record in processes.run(
            names, selected, prefix=PREFIX, processes=job_count, limit=limit, log=log
        ):
            test_id = record["id"]
            outcome, reason = tables.judged(test_id, record["outcome"], record["reason"])
            tests[test_id] = {"outcome": outcome, "reason": reason, "subtests": record["subtests"]}
            show({**record, **tests[test_id]})
        os.chdir(HERE)
    return results_of(tests)


def results_of(tests):
    """Return the results that are saved: versions, counts by feature, and each test in the order of ids."""
    features = {feature: Counter() for feature in tables.FEATURES}
    for test_id, test in tests.items():
        features[tables.feature_of(test_id)][test["outcome"]] += 1
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "counts": dict(sorted(Counter(test["outcome"] for test in tests.values()).items())),
        "features": {name: dict(sorted(counts.items())) for name, counts in features.items()},
        "tests": {
            test_id: {key: value for key, value in test.items() if value}
            for test_id, test in sorted(tests.items())
        },
    }


def main():
    """Run tests, print those that do not pass and the counts by feature, and save the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "patterns", nargs="*", metavar="PATTERN", help="names of modules or tests, all by default"
    )
    parser.add_argument("--quarter", type=int, choices=range(4), help="one of four fixed parts of the tests")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the results")
    parser.add_argument("--processes", type=int, default=2, help="modules that run at a time (2)")
    parser.add_argument("--limit", type=float, default=300.0, metavar="SECONDS", help="time of a test (300)")
    parser.add_argument("--log", default=os.devnull, metavar="FILE", help="append what the tests print")
    options = parser.parse_args()
    file, log = options.json and options.json.absolute(), str(Path(options.log).absolute())
    took, seconds = time.monotonic(), Counter()

    def show(record):
        seconds[".".join(record["id"].split(".")[:2])] += record["seconds"]
        if record["outcome"] in ("refused", "wrong", "raw"):
            print(f"{record['outcome']:8} {record['id']}\n         {record['reason']}", flush=True)

    results = run(options.patterns, options.quarter, options.processes, options.limit, log, show)
    for feature, counts in results["features"].items():
        if counts:
            print(f"{feature:36}", ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    print(f"{'all':36}", ", ".join(f"{count} {outcome}" for outcome, count in results["counts"].items()))
    slowest = ", ".join(f"{name} {s:.0f} s" for name, s in seconds.most_common(5))
    print(f"{time.monotonic() - took:.0f} s; the longest: {slowest}")
    if file:
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 1 if results["counts"].get("wrong") or results["counts"].get("raw") else 0


if __name__ == "__main__":
    sys.exit(main())
