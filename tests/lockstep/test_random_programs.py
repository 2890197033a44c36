"""Random programs with nested control flow: lockstep against plain Python, one thread at a time.

Some variables have no first value: lockstep must raise where Python raises UnboundLocalError. Programs shrink
towards a single assignment. All values stay below 97, so that both sides compute the same.
"""

import itertools
import linecache
import re
import traceback
import types
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paged_numba import lockstep
from paged_numba.errors import KernelError
from paged_numba.lockstep.compiler.shortcuts import compaction
from paged_numba.lockstep.compiler.translate import FunctionWriter
from paged_numba.lockstep.observe.observer import Observer, observing
from paged_numba.lockstep.tracer.packing import unpacked

NAMES = ("a", "b", "c")
UNSET_NAMES = ("d", "e")
TARGETS = (*NAMES, *UNSET_NAMES)
NUM_SLOTS = 3
counter = itertools.count()

# A variable that may have no value is read more seldom than it is assigned, so that many programs go on.
atoms = st.sampled_from((*(*NAMES, "t", "0", "1", "2", "5") * 3, *UNSET_NAMES))
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*"), inner),
        st.builds("({} {} 3)".format, inner, st.sampled_from(("%", "//"))),
        st.builds("min({}, {})".format, inner, inner),
        st.builds("({} if {} < {} else {})".format, inner, inner, inner, inner),
        st.builds("device({}, {})".format, inner, inner),
        st.builds("(lambda p: p + {})({})".format, inner, inner),
        st.builds("data[t % 4, {} % 3]".format, inner),
        st.builds("row[{} % 3]".format, inner),
    ),
    max_leaves=4,
)
comparisons = st.builds("{} {} {}".format, expressions, st.sampled_from(("<", "<=", "==", "!=")), expressions)
conditions = st.one_of(
    comparisons,
    st.builds("{} and {}".format, comparisons, comparisons),
    st.builds("{} or not ({})".format, comparisons, comparisons),
    st.builds("{} < {} <= {}".format, atoms, expressions, atoms),
    st.builds(
        "{} != 0 and data[t % 4, 7 // {} % 3] > 2".format, st.sampled_from(NAMES), st.just("max(1, t)")
    ),
)


@st.composite
def statements(draw, depth=0, in_loop=False, in_function=False):
    """Draw the lines of a block of statements."""
    lines = []
    for _ in range(draw(st.integers(1, 3))):
        kinds = ["assign", "augment", "swap"] + ([] if in_function else ["store"])
        if depth < 3:
            kinds += ["if", "ifelse", "for", "while", "if", "for", "each"]
        if in_loop:
            kinds += ["break", "continue"]
        if depth:
            kinds += ["return"]
        kind = draw(st.sampled_from(kinds))
        name = draw(st.sampled_from(NAMES if kind in ("augment", "swap") else TARGETS))

        def inner(loop=in_loop):
            body = draw(statements(depth + 1, loop, in_function))
            return ["    " + line for line in body]

        if kind == "assign":
            lines.append(f"{name} = ({draw(expressions)}) % 97")
        elif kind == "augment":
            lines.append(f"{name} += {draw(expressions)}")
            lines.append(f"{name} %= 97")
        elif kind == "swap":
            lines.append(f"{name}, t2 = {draw(expressions)} % 97, {name}")
            lines.append(f"{draw(st.sampled_from(TARGETS))} = t2")
        elif kind == "store":
            slot = draw(st.one_of(st.integers(0, NUM_SLOTS - 1), expressions.map("({}) % 3".format)))
            lines.append(f"out[t, {slot}] = {draw(expressions)}")
        elif kind == "if":
            lines += [f"if {draw(conditions)}:", *inner()]
        elif kind == "ifelse":
            lines += [f"if {draw(conditions)}:", *inner()]
            if draw(st.booleans()):
                lines += [f"elif {draw(conditions)}:", *inner()]
            lines += ["else:", *inner()]
        elif kind == "for":
            bounds = draw(st.sampled_from(("{} % 4", "{} % 3, 5", "6, {} % 5, -2", "3", "1, 4")))
            index = draw(st.sampled_from((*TARGETS, "i", f"i{depth}")))
            lines += [f"for {index} in range({bounds.format(draw(atoms))}):", *inner(True)]
            if draw(st.integers(0, 4)) == 4:
                lines += ["else:", "    " + f"{name} = ({draw(expressions)}) % 97"]
        elif kind == "each":
            items = ["row", "(2, {0}, 1)"] + (
                [] if in_function else ["row[{0} % 3 :]", "data[t % 4, : {0} % 4]"]
            )
            loops = ("{1} in {0}", "i, {1} in enumerate({0})", "{1}, i in zip({0}, (3, t))")
            index, given = draw(st.sampled_from(TARGETS)), draw(st.sampled_from(items)).format(draw(atoms))
            lines += [f"for {draw(st.sampled_from(loops)).format(given, index)}:", *inner(True)]
        elif kind == "while":
            fuel = f"w{depth}"
            lines += [f"{fuel} = {draw(atoms)} % 5", f"while {fuel} > 0:", f"    {fuel} -= 1", *inner(True)]
            if draw(st.integers(0, 4)) == 4:
                lines += ["else:", "    " + f"{name} = ({draw(expressions)}) % 97"]
        elif kind == "return":
            lines.append(f"return {draw(atoms)}" if in_function else "return")
        else:
            lines.append(kind)
    return lines


@st.composite
def programs(draw):
    """Draw the source of a kernel and of a device function that it calls."""
    device = [
        "def device(a, b):",
        "    c = 1",
        "    t = 2",
        "    if t == 99:",
        "        d = e = 0",
        *(line.replace("data[t % 4,", "tuple3[").replace("row", "tuple3") for line in _indented(
            draw(statements(1, in_function=True)))),
        "    return (a + b + c) % 97",
    ]  # fmt: skip
    # Device functions neither call themselves nor see the kernel's arrays.
    device = [line.replace("device(", "min(") if i else line for i, line in enumerate(device)]
    kernel = [
        "def kernel(out, data):",
        "    t = cuda.grid(1)",
        "    row = data[t % 4]",
        "    a = data[t % 4, 0] + t",
        "    b = data[t % 4, 1]",
        "    c = 3",
        "    i = 0",
        "    if t == 99:",
        "        d = e = 0",
        *_indented(draw(inner_functions())),
        *_indented(draw(statements())),
        *(f"    out[t, {slot}] = {name}" for slot, name in enumerate(NAMES)),
    ]
    inner = "def inner" in "".join(kernel)
    start = next((i for i, line in enumerate(kernel) if line.startswith("    # inner")), 0)
    for place, line in enumerate(kernel):
        if inner and place > start and draw(st.booleans()):
            kernel[place] = line.replace("device(", "inner(")
    return "\n".join([*device, "", "", *kernel, ""])


@st.composite
def inner_functions(draw):
    """Draw the lines of a function inside the kernel, or none."""
    if not draw(st.booleans()):
        return []
    outer = draw(st.lists(st.sampled_from(TARGETS), unique=True, max_size=2))
    lines = [
        "def inner(p, q):",
        *(["    nonlocal " + ", ".join(outer)] if outer else []),
        "    if p == 1000:",
        "        a = b = c = d = e = 0",
        *_indented(draw(statements(1, in_function=True))),
        *(["    out[t, (p + q) % 3] = p * 5 + q"] if draw(st.booleans()) else []),
        f"    return (p + {draw(expressions)}) % 97",
    ]
    return [*lines, "# inner ends"]


def _indented(lines):
    return ["    " + line for line in lines]


def load(source, cuda):
    """Return the module that `source` makes, with `cuda` among its globals."""
    file = f"random_program_{next(counter)}.py"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    module = types.ModuleType(file)
    module.cuda = cuda
    module.tuple3 = (4, 1, 6)
    exec(compile(source, file, "exec"), vars(module))
    return module


class OneThread:
    """Stand-in for ``cuda`` in plain Python, which runs one thread."""

    def __init__(self):
        self.thread = 0

    def grid(self, ndim):
        """Return the thread that runs."""
        return np.int64(self.thread)


def run_one_by_one(source, threads, data):
    """Run the program in plain Python, thread after thread.

    Returns `out`, and for each thread that read a variable without a value, the variable and the line.
    """
    cuda = OneThread()
    module = load(source, cuda)
    out = np.full((threads, NUM_SLOTS), -1)
    failed = {}
    for cuda.thread in range(threads):
        try:
            module.kernel(out, data)
        except NameError as error:  # noqa: PERF203 (each thread goes its own way)
            line = traceback.extract_tb(error.__traceback__)[-1].lineno
            failed[cuda.thread] = re.search("'(.*?)'", str(error))[1], line
    return out, failed


def run_lockstep(source, blocks, threads, data, **options):
    """Run the program on the lockstep machine."""
    from paged_numba.lockstep.cuda import facade

    module = load(source, facade)
    module.device = facade.jit(device=True)(module.device)
    out = np.full((blocks * threads, NUM_SLOTS), -1)
    with lockstep.options(**options):
        lockstep.launch(module.kernel, blocks, threads, out, data)
    return out


DATA = np.array([[3, 1, 4], [1, 5, 9], [2, 6, 5], [0, 0, 2]])
UNASSIGNED = re.compile(r"'(\w+)' is read before it is assigned, thread (\d) of thread block (\d), .*:(\d+)")


def check_lockstep(source, expected, failed, **options):
    """Check that the machine computes `expected`, or raises for one of the threads that failed."""
    if not failed:
        np.testing.assert_array_equal(run_lockstep(source, 2, 5, DATA, **options), expected, err_msg=source)
        return
    with pytest.raises(KernelError) as raised:
        run_lockstep(source, 2, 5, DATA, **options)
    named = UNASSIGNED.fullmatch(str(raised.value))
    assert named, f"{raised.value}\n{source}"
    name, thread, thread_block, line = named[1], *map(int, named.groups()[1:])
    expected_name, expected_line = failed.get(thread_block * 5 + thread, ("", 0))
    # CPython 3.11 runs a store and the load after it as one instruction, which has the line of the store.
    assert name == expected_name, f"{raised.value}, not {failed}\n{source}"
    assert line - expected_line in (0, 1), f"{raised.value}, not {failed}\n{source}"


def stored(recorded):
    """Return `out` as the stores of a recording leave it."""
    out = np.full(10 * NUM_SLOTS, -1)
    for one in recorded["tracks"]:
        for access in (access for step in one["steps"] for access in step.get("accesses", ())):
            if access["kind"] == "store" and one["arrays"][access["array"]]["name"] == "out":
                lanes = lanes_of(one["masks"][access["lanes"]])
                places = np.array(unpacked(access["bytes"], len(lanes))) // out.itemsize
                out[places] = unpacked(access["values"], len(lanes))
    return out.reshape(10, NUM_SLOTS)


def lanes_of(mask):
    """Return the lanes of a mask such as ``0-2 4``."""
    ends = (list(map(int, part.split("-"))) for part in mask.split())
    return [lane for pair in ends for lane in range(pair[0], pair[-1] + 1)]


def compacting():
    """Compact each loop in every iteration that some lanes have left."""
    return mock.patch.multiple(compaction, EVERY=1, LEAST_LANES=0, MOST_LEFT=1)


@settings(max_examples=200)
@given(
    source=programs(),
    other=st.sampled_from(
        "batches,forward,reverse,observed,observed reverse,recorded,recorded forward".split(",")
        + ["compacted", "compacted reverse"] * 2
    ),
)
def test_random_program_computes_what_python_computes(source, other):
    expected, failed = run_one_by_one(source, 10, DATA)
    check_lockstep(source, expected, failed)
    if "observed" in other:
        order = "reverse" if "reverse" in other else "together"
        with observing(Observer()):
            check_lockstep(source, expected, failed, order=order)
    elif "compacted" in other:
        order = "reverse" if "reverse" in other else "together"
        with compacting():
            check_lockstep(source, expected, failed, order=order)
    elif "recorded" in other:
        order = "forward" if "forward" in other else "together"
        with lockstep.recording() as recorded:
            check_lockstep(source, expected, failed, order=order)
        if not failed:
            np.testing.assert_array_equal(stored(recorded.to_dict()), expected, err_msg=source)
    else:
        options = {"max_lanes": 5} if other == "batches" else {"order": other}
        check_lockstep(source, expected, failed, **options)


def test_fuzz_would_notice_a_machine_that_ignores_divergence(monkeypatch):
    source = "\n".join([
        "def device(a, b):", "    return a", "", "",
        "def kernel(out, data):", "    t = cuda.grid(1)", "    a = 1", "    if t % 2 == 0:", "        a = 7",
        "    out[t, 0] = a", "",
    ])  # fmt: skip
    expected, _ = run_one_by_one(source, 10, DATA)
    np.testing.assert_array_equal(run_lockstep(source, 2, 5, DATA), expected)
    monkeypatch.setitem(FunctionWriter.vocabulary, "blend", lambda mask, new, old: new)
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(run_lockstep(source, 2, 5, DATA), expected)


UNASSIGNED_IN_SOME = "\n".join([
    "def device(a, b):", "    return a", "", "",
    "def kernel(out, data):", "    t = cuda.grid(1)", "    for i in range(3):", "        if t == 7 and i == 2:",
    "            out[t, 0] = d", "        if t != 7:", "            d = i", "    if t < 3:", "        d = 2",
    "    out[t, 1] = d", "",
])  # fmt: skip


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("assigned", lambda machine, mask, lanes, value, name: value),
        ("union", lambda a, b: True),
    ],
)
def test_fuzz_would_notice_a_machine_that_forgets_who_has_assigned(monkeypatch, name, wrong):
    expected, failed = run_one_by_one(UNASSIGNED_IN_SOME, 10, DATA)
    assert failed == {7: ("d", 9)}
    check_lockstep(UNASSIGNED_IN_SOME, expected, failed)
    monkeypatch.setitem(FunctionWriter.vocabulary, name, wrong)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check_lockstep(UNASSIGNED_IN_SOME, expected, failed)
