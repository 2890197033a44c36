"""Write the tables of ``docs/conformance.md`` from ``docs/results/conformance.json``."""

import json
import re
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "conformance.md"
RESULTS = ROOT / "docs" / "results" / "conformance.json"
BEGINNING = "the lockstep machine does not run "
FAILURES = ("differs", "refused", "wrong", "raw")


def rendered(text, results):
    """Return the page with each part between its marks made anew."""
    for name, part in PARTS.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end of {name} -->)", re.S)
        if len(marked.findall(text)) != 1:
            raise ValueError(f"the page must have the marks of {name!r} once")
        made = part(results)
        text = marked.sub(lambda found, made=made: f"{found[1]}\n{made}\n{found[2]}", text)
    return text


def summary(results):
    """Return the sentences that say which versions were tried, and how many tests pass."""
    counts, versions = Counter(results["counts"]), results["versions"]
    needed = counts["pass"] + sum(counts[outcome] for outcome in FAILURES)
    share = int(1000 * counts["pass"] / needed) / 10
    return _filled(
        f"numba-cuda {versions['numba-cuda']} has {counts.total():,} tests in `cudapy` and `doc_examples`. "
        f"{needed:,} of them run kernels or host code and need neither a compiler nor a driver. Of these, "
        f"{counts['pass']:,} pass ({share:g} %), {_are(counts['refused'])} refused by name, and "
        f"{counts['differs']} fail because lockstep differs on purpose. "
        f"{_tests(counts['wrong'])} a wrong result, and {_few(counts['raw'])} ended in an error of Python or "
        f"NumPy. The tests ran on {results['date']} with numba {versions['numba']}, NumPy {versions['numpy']} "
        f"and Python {results['python']}. `docs/results/conformance.json` has the outcome of each test."
    )


def features(results):
    """Return a table of the tests of each feature that need neither a compiler nor a driver."""
    shown = [name for name in FAILURES if name in ("differs", "refused") or name in results["counts"]]

    def row(name, counts):
        tests = counts.get("pass", 0) + sum(counts.get(failure, 0) for failure in FAILURES)
        cells = (counts.get(outcome) for outcome in ("pass", *shown))
        return [name, f"{tests:,}", *(f"{count:,}" if count else "" for count in cells)]

    rows = [row(name, counts) for name, counts in results["features"].items()]
    rows = [cells for cells in rows if cells[1] != "0"]
    return _table(
        [["feature", "tests", "pass", *shown], *rows, row("all", results["counts"])], "lrr" + len(shown) * "r"
    )


def refused(results):
    """Return a table of the messages with which tests are refused, without the words with which they begin."""
    found = {}
    for test_id, test in results["tests"].items():
        if test["outcome"] == "refused":
            found.setdefault(_message(test["reason"]).removeprefix(BEGINNING), []).append(_name(test_id))
    return _table([["message", "tests"], *([m, ", ".join(names)] for m, names in found.items())], "ll")


def differs(results):
    """Return a table of the tests that fail because lockstep differs."""
    found = {}
    for test_id, test in results["tests"].items():
        if test["outcome"] == "differs":
            found.setdefault(test["reason"], []).append(_name(test_id))
    return _table(
        [["how lockstep differs", "tests"], *([how, ", ".join(names)] for how, names in found.items())], "ll"
    )


def outside(results):
    """Return a table of what the tests outside look at."""
    found = {}
    for test_id, test in results["tests"].items():
        if test["outcome"] == "outside":
            found.setdefault(test["reason"], Counter())[test_id.split(".")[1]] += 1
    rows = [
        [why, f"{counts.total()}", ", ".join(f"`{module}`" for module, _ in counts.most_common(8))]
        for why, counts in sorted(found.items(), key=lambda item: -item[1].total())
    ]
    return _table([["such a test", "tests", "in"], *rows], "lrl")


PARTS = {"summary": summary, "features": features, "refused": refused, "differs": differs, "outside": outside}


def _are(count):
    return f"{_few(count)} {'is' if count == 1 else 'are'}"


def _tests(count):
    return "No test gave" if count == 0 else f"{count:,} {'test' if count == 1 else 'tests'} gave"


def _few(count):
    return "none" if count == 0 else f"{count:,}"


def _name(test_id):
    """Return a test as its module and its method."""
    parts = test_id.split(".")
    return f"`{parts[1].removeprefix('test_')}: {parts[-1].removeprefix('test_')}`"


def _message(reason):
    """Return the message of a refusal, without the parameters of a subtest, the class and the place."""
    text = re.sub(r"^(\(.*?\): |\[.*?\] ?(\(.*?\))?: |a script: )*", "", reason)
    text = re.sub(r"^[\w.]*Error: ", "", text)
    text = re.sub(r"(, \S+\.py:\d+|, <string>:\d+)…?$", "", text)
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _table(rows, align):
    rules = {"l": "---", "r": "---:"}
    head, *body = rows
    lines = [head, [rules[column] for column in align], *body]
    return "\n".join(re.sub("  +", " ", f"| {' | '.join(line)} |") for line in lines)


def _filled(text, width=120):
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


if __name__ == "__main__":
    page = rendered(PAGE.read_text(encoding="utf-8"), json.loads(RESULTS.read_text(encoding="utf-8")))
    PAGE.write_text(page, encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
