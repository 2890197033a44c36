"""Processes that run test modules: a fork for each, so that imports are paid once and no module changes another's."""

import importlib
import json
import os
import signal
import tempfile
import time
import types
import unittest
from pathlib import Path

import outcomes

# A test that does not end by itself is interrupted; one that cannot be interrupted is killed this much later.
PATIENCE = 10.0


class TimeLimit(BaseException):
    """A test did not end in time. No `except Exception` of a test catches it."""


def tests_of(module):
    """Return the tests of an imported module: methods of TestCase classes, and functions as pytest finds them."""
    found = list(_flat(unittest.defaultTestLoader.loadTestsFromModule(module)))
    for name, value in vars(module).items():
        if (
            isinstance(value, types.FunctionType)
            and name.startswith("test_")
            and value.__module__ == module.__name__
        ):
            found.append(Function(value))
    return found


def _flat(suite):
    for test in suite:
        yield from _flat(test) if isinstance(test, unittest.TestSuite) else (test,)


class Function(unittest.FunctionTestCase):
    """A test that is a plain function."""

    def id(self):
        return f"{self._testFunc.__module__}.{self._testFunc.__name__}"


def run(modules, selected=lambda test_id: True, *, prefix="", processes=2, limit=60.0, log=os.devnull):
    """Run the tests of modules, and yield a record of each as it ends.

    Parameters
    ----------
    modules : list of str
        Names of modules, without the prefix.
    selected : callable
        Tells of a test's id whether the test runs.
    prefix : str
        What stands before the names of modules to import them, and is left out of the ids.
    processes : int
        How many modules run at a time.
    limit : float
        Seconds that a test may take.
    log : str
        A file to which the tests' output is appended.

    Yields
    ------
    record : dict
        `id`, `outcome`, `reason`, `subtests` (counts by outcome) and `seconds`. A test that did not end, or whose
        process did, is ``raw``; the module's other tests run all the same. A module that cannot be imported has one
        record, with the module's name as id.
    """
    waiting, running = [Module(name, prefix) for name in reversed(modules)], []
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < processes:
                module = waiting.pop()
                module.start(Path(folder, module.name), selected, limit, log)
                running.append(module)
            time.sleep(0.02)
            for module in list(running):
                ended = module.has_ended(limit + PATIENCE)
                yield from module.new_records()
                if ended:
                    running.remove(module)
                    yield from module.unfinished()
                    if not module.complete:
                        waiting.append(module)


class Module:
    """A module whose tests run in a process."""

    def __init__(self, name, prefix):
        self.name, self.prefix = name, prefix
        self.done, self.complete = set(), False

    def start(self, file, selected, limit, log):
        """Run what has not run yet, in a fork that writes lines to a file."""
        file.write_text("", encoding="utf-8")
        self.lines = file.open(encoding="utf-8")
        self.current, self.since, self.partial = None, time.monotonic(), ""
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.setsid()
                _redirect(log)
                with file.open("w", encoding="utf-8") as lines:
                    self._run(lines, selected, limit)
                status = 0
            finally:
                os._exit(status)

    def _run(self, lines, selected, limit):
        def write(**record):
            print(json.dumps(record), file=lines, flush=True)

        def interrupt(number, frame):
            raise TimeLimit(f"the test did not end within {limit:g} s")

        signal.signal(signal.SIGALRM, interrupt)
        try:
            tests = tests_of(importlib.import_module(self.prefix + self.name))
        except BaseException as error:
            write(begin=self.name)
            outcome, reason = outcomes.classify(error)
            write(id=self.name, outcome=outcome, reason=reason, subtests={})
            write(complete=True)
            return

        def begun(test):
            write(begin=_id(test, self.prefix))
            signal.setitimer(signal.ITIMER_REAL, limit)

        def ended(test, outcome, reason, subtests):
            signal.setitimer(signal.ITIMER_REAL, 0)
            write(id=_id(test, self.prefix), outcome=outcome, reason=reason, subtests=subtests)

        # A suite, so that setUpClass and setUpModule run.
        ids = ((test, _id(test, self.prefix)) for test in tests)
        chosen = [test for test, test_id in ids if selected(test_id) and test_id not in self.done]
        unittest.TestSuite(chosen).run(outcomes.Outcomes(begun, ended))
        write(complete=True)

    def has_ended(self, limit):
        """Tell whether the process has ended; end one whose test takes too long."""
        if time.monotonic() - self.since > limit and self.current is not None:
            os.killpg(self.pid, signal.SIGKILL)
            _, self.status = os.waitpid(self.pid, 0)
            return True
        pid, self.status = os.waitpid(self.pid, os.WNOHANG)
        return pid != 0

    def new_records(self):
        """Yield the records that the process has written since the last call."""
        while line := self.lines.readline():
            self.partial += line
            if not line.endswith("\n"):
                break
            record, self.partial = json.loads(self.partial), ""
            now = time.monotonic()
            if "begin" in record:
                self.current, self.since = record["begin"], now
            elif "complete" in record:
                self.current, self.complete = None, True
            else:
                self.done.add(record["id"])
                yield {**record, "seconds": now - self.since}
                self.current = None

    def unfinished(self):
        """Yield a record of the test in which the process ended, or of the module if that was in none."""
        self.lines.close()
        if not self.complete:
            name = self.current or self.name
            self.complete = name in self.done or name == self.name
            self.done.add(name)
            signalled = os.WIFSIGNALED(self.status)
            how = (
                f"by signal {os.WTERMSIG(self.status)}"
                if signalled
                else f"with {os.WEXITSTATUS(self.status)}"
            )
            seconds = time.monotonic() - self.since
            yield {
                "id": name,
                "outcome": "raw",
                "reason": f"the test's process ended {how}",
                "subtests": {},
                "seconds": seconds,
            }


def _redirect(log):
    with open(os.devnull) as nothing, open(log, "a") as output:
        os.dup2(nothing.fileno(), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)


def _id(test, prefix):
    """Return the id of a test; of a failed setUpClass, its class."""
    found = test.id()
    if "(" in found:
        found = found.partition("(")[2].rstrip(")")
    return found.removeprefix(prefix)
