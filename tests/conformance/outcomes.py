"""Outcomes of numba-cuda's tests on lockstep: what each test did, and why."""

import re
import traceback
import unittest
import warnings

# From the best to the worst; the outcome of a test is the worst of its subtests and of its own.
ORDER = ["pass", "skipped", "outside", "differs", "refused", "wrong", "raw"]
"""Outcomes.

``pass``
    The test passed.
``skipped``
    numba-cuda skips the test itself.
``outside``
    The test needs the compiler or the driver, as `tables.OUTSIDE` says.
``differs``
    Lockstep differs from a GPU on purpose, as `tables.DIFFERS` says.
``refused``
    An error of paged_numba that names what the lockstep machine does not do.
``wrong``
    An assertion of the test failed.
``raw``
    Any other error; the test did not end; its process ended.
"""

REFUSALS = {"UnsupportedConstructError", "LaunchError"}
# What a name of numba.cuda that lockstep lacks says when it is used.
ABSENT = re.compile(r"\blockstep (facade|machine)\b")
LONGEST_REASON = 300


def classify(error):
    """Return the outcome and the reason of an exception that ended a test."""
    if type(error).__name__ == "Skipped":  # by pytest.importorskip
        return "skipped", str(error)
    if _is_refusal(error):
        return "refused", reason_of(error)
    failed = isinstance(error, AssertionError) or type(error).__name__ == "Failed"  # by pytest.raises
    return "wrong" if failed else "raw", reason_of(error)


def _is_refusal(error):
    """Tell whether the error, or one that it was raised from or while handling, refuses a construct by name.

    A test that runs a script in a process of its own has the error as text.
    """
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        if any(
            base.__module__.startswith("paged_numba") and base.__name__ in REFUSALS
            for base in type(error).__mro__
        ):
            return True
        if ABSENT.search(str(error)) and not isinstance(error, AssertionError):
            return True
        printed = f"{error}\n{_text(getattr(error, 'stderr', ''))}"
        if re.search(rf"^paged_numba\.errors\.({'|'.join(REFUSALS)}): ", printed, re.M):
            return True
        error = error.__cause__ or error.__context__
    return False


def _text(printed):
    """Return what a process printed as text."""
    return printed.decode(errors="replace") if isinstance(printed, bytes) else printed or ""


def reason_of(error):
    """Return the type and the message of an exception, without what differs from run to run."""
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    printed = _text(getattr(error, "stderr", ""))
    if printed:
        # Of a script that failed: its error stands in the last line.
        text = f"a script: {printed.strip().rpartition(chr(10))[2]}"
    text = re.sub(r"0x[0-9a-fA-F]{6,}", "0x…", text)
    text = re.sub(r"(/[\w.+-]+)+/(?=[\w.+-]+)", "", text)
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"


class Outcomes(unittest.TestResult):
    """Collects the outcome of each test.

    Parameters
    ----------
    begun, ended : callable
        Called with the test before it runs; with the test, its outcome, its reason and the outcomes of its subtests
        (a dictionary of counts) after it has run.
    """

    def __init__(self, begun, ended):
        super().__init__()
        self.begun, self.ended = begun, ended
        self.found = None

    def startTest(self, test):
        super().startTest(test)
        self.found, self.subtests = [], []
        # Each test sees the warnings that Python shows by default.
        self.filters = warnings.catch_warnings()
        self.filters.__enter__()
        warnings.simplefilter("default")
        self.begun(test)

    def stopTest(self, test):
        super().stopTest(test)
        self.filters.__exit__(None, None, None)
        outcome, reason = worst(self.found + self.subtests)
        counts = {}
        for kind, _ in self.subtests:
            counts[kind] = counts.get(kind, 0) + 1
        self.found = None
        self.ended(test, outcome, reason, counts)

    def addSuccess(self, test):
        self.found.append(("pass", ""))

    def addError(self, test, err):
        if self.found is None:
            # setUpClass or setUpModule failed: no test of it runs.
            self.begun(test)
            self.ended(test, *classify(err[1]), {})
        else:
            self.found.append(classify(err[1]))

    def addFailure(self, test, err):
        self.addError(test, err)

    def addSkip(self, test, reason):
        if self.found is None:
            self.begun(test)
            self.ended(test, "skipped", reason, {})
        else:
            self.found.append(("skipped", reason))

    def addSubTest(self, test, subtest, err):
        kind, reason = ("pass", "") if err is None else classify(err[1])
        self.subtests.append((kind, reason and f"{_parameters(subtest)}: {reason}"))

    def addExpectedFailure(self, test, err):
        # numba-cuda expects it to fail on a GPU as well.
        self.found.append(("pass", ""))

    def addUnexpectedSuccess(self, test):
        self.found.append(("wrong", "numba-cuda expects this test to fail, and it passed"))


def _parameters(subtest):
    return re.sub(r"0x[0-9a-fA-F]{6,}", "0x…", subtest._subDescription())[:100]


def worst(found):
    """Return the worst of outcomes with its reason; a test that has subtests may have passed in those only."""
    return max(found, key=lambda pair: ORDER.index(pair[0]), default=("pass", ""))
