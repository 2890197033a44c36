"""A kernel's lines run under a tracer exactly if a lane runs them: what coverage.py and debuggers count on."""

import contextlib
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_random_programs import DATA, OneThread, load, programs, run_lockstep

from paged_numba import lockstep
from paged_numba.lockstep.compiler.statements import Statements
from paged_numba.lockstep.observe.observer import Observer, observing


@contextlib.contextmanager
def traced(lines):
    """Add to `lines` each line of a random program that runs in this thread, those of ``def`` apart."""

    def trace(frame, event, argument):
        code = frame.f_code
        if not code.co_filename.startswith("random_program") or code.co_name == "<module>":
            return None
        if event == "line" and frame.f_lineno != code.co_firstlineno:
            lines.add(frame.f_lineno)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def lines_one_by_one(source, threads):
    """Return the lines that plain Python runs, thread after thread; None if a thread fails."""
    cuda = OneThread()
    module = load(source, cuda)
    out = np.zeros((threads, 3), int)
    lines = set()
    for cuda.thread in range(threads):
        try:
            with traced(lines):
                module.kernel(out, DATA)
        except UnboundLocalError:
            return None
    return lines


def lines_on_lockstep(source, blocks, threads):
    lines = set()
    with traced(lines):
        run_lockstep(source, blocks, threads, DATA)
    return lines


@settings(max_examples=150)
@given(source=programs(), observed=st.booleans())
def test_lines_that_run_are_the_lines_that_a_lane_runs(source, observed):
    expected = lines_one_by_one(source, 10)
    if expected is None:
        return
    with observing(Observer()) if observed else contextlib.nullcontext():
        assert lines_on_lockstep(source, 2, 5) == expected, source
