"""Calls of every public function with hostile arguments: each ends in a clear error, or in the right result.

A test takes a valid call from `hostile_calls.py`, spoils one or two of its arguments with values from
`paged_numba.testing.hostile`, and runs it within bounds of time and memory. An error must come from a check of this
package, name an argument, and leave everything unchanged. A result must be that of the plain values that the hostile
values stand for. A long run of some 30,000 calls::

    python -m pytest tests/test_hostile_calls.py --hypothesis-profile=thorough
"""

import ast
import collections
import contextlib
import functools
import inspect
import io
import re
import signal
import sys
import threading
import traceback
import types
from array import array
from pathlib import Path

import numpy as np
import pytest
from hostile_calls import CALLS, UNCHECKED, Call, public_callables
from hypothesis import event, given, note, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.testing.hostile import VALUES, HostileError, twisted
from paged_numba.testing.meanings import MeaninglessError, plain

PACKAGE = Path(pn.__file__).parent

SECONDS, MORE_MEMORY = 20, 2 * 2**30
"""Bounds of one call: processor time, and bytes of memory beyond those that the process holds."""

LONGEST_MESSAGE = 1000


def test_every_public_callable_has_a_call_or_a_reason_to_have_none():
    named = public_callables()
    assert sorted(named - CALLS.keys() - UNCHECKED.keys()) == []
    assert UNCHECKED.keys() <= named
    assert not CALLS.keys() & UNCHECKED.keys()


@pytest.fixture(scope="module", autouse=True)
def full_tracebacks():
    """Keep the frames that the errors of launches hide, since they tell which line raised the error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAGED_NUMBA_FULL_TRACEBACK", "1")
        yield


# Whole states.


def state(thing, above=()):
    """Return all that a thing holds, as nested tuples that compare equal if nothing has changed."""
    kind = type(thing)
    if id(thing) in above:
        return "above", kind.__name__
    above = (*above, id(thing))
    if kind.__module__ == "paged_numba.testing.hostile" and not isinstance(thing, np.ndarray):
        return kind.__name__, id(thing)
    if isinstance(thing, np.ma.MaskedArray):
        return "masked", state(np.asarray(thing), above), state(np.ma.getmaskarray(thing), above)
    if isinstance(thing, np.ndarray):
        items = thing.ravel().tolist() if thing.dtype.hasobject else None
        whole = thing[tuple(slice(0, 1) if not step else slice(None) for step in thing.strides)]
        content = state(items, above) if items is not None else whole.tobytes()
        return "array", str(thing.dtype), thing.shape, content
    if kind is array:
        return "array.array", thing.typecode, thing.tobytes()
    if isinstance(thing, (str, bytes, bytearray, int, type(None))):
        return kind.__name__, thing
    if isinstance(thing, (float, complex, np.generic)):
        return kind.__name__, str(thing)  # NaN is not equal to itself
    if isinstance(thing, (dict, types.MappingProxyType)):
        return kind.__name__, tuple((state(k, above), state(v, above)) for k, v in thing.items())
    if isinstance(thing, (list, tuple, collections.deque)):
        return kind.__name__, tuple(state(item, above) for item in thing)
    if isinstance(thing, (set, frozenset)):
        return kind.__name__, frozenset(state(item, above) for item in thing)
    if not kind.__module__.startswith("paged_numba") or inspect.isroutine(thing) or kind is type:
        return kind.__name__, id(thing)
    names = [name for one in kind.__mro__ for name in getattr(one, "__slots__", ())]
    held = {name: getattr(thing, name) for name in names if hasattr(thing, name)} | getattr(
        thing, "__dict__", {}
    )
    return kind.__name__, tuple((name, state(value, above)) for name, value in held.items())


# Bounds.


@contextlib.contextmanager
def bounded():
    """Fail if the body runs for long or takes much memory."""
    with contextlib.ExitStack() as bounds:
        if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():

            def too_long(*_):
                raise AssertionError(f"the call ran for more than {SECONDS} s")

            old = signal.signal(signal.SIGPROF, too_long)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            bounds.callback(signal.signal, signal.SIGPROF, old)
            bounds.callback(signal.setitimer, signal.ITIMER_PROF, 0)
        if Path("/proc/self/statm").exists():
            import resource

            held = (
                int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
            )
            soft, hard = resource.getrlimit(resource.RLIMIT_AS)
            resource.setrlimit(resource.RLIMIT_AS, (held + MORE_MEMORY, hard))
            bounds.callback(resource.setrlimit, resource.RLIMIT_AS, (soft, hard))
        yield


# Errors.


@functools.cache
def lines_that_raise(file):
    """Return the lines of a file that belong to a ``raise`` statement with an exception of its own."""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    raises = (
        node for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
    )
    return {line for node in raises for line in range(node.lineno, node.end_lineno + 1)}


DIMENSIONS = {
    "num_blocks",
    "block_size",
    "num_q_heads",
    "num_kv_heads",
    "head_dim",
    "num_layers",
    "seq_id",
    "shape",
}
DIMENSIONS |= {"blocks_per_grid", "threads_per_block", "shared_bytes"}
"""What messages name beside the arguments: sizes, one of several ids, a launch configuration."""


def complaint(error, call):
    """Return what is wrong with an error, as text; None if it is clear."""
    if isinstance(error, OSError) and call.arguments.keys() & {"path", "name_or_path"}:
        return None
    if not isinstance(error, (TypeError, ValueError, MemoryError, pn.errors.PagedNumbaError)):
        return f"{type(error).__name__} is not among the errors that calls may raise"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if not Path(frame.filename).is_relative_to(PACKAGE):
        return "it was raised outside of the package"
    if frame.lineno not in lines_that_raise(frame.filename):
        return "no raise statement raised it"
    text = str(error)
    if len(text) > LONGEST_MESSAGE:
        return f"its message has {len(text)} characters"
    names = {*call.arguments, *inspect.signature(call.function).parameters, *DIMENSIONS}
    if isinstance(error, pn.errors.PagedNumbaError) and not isinstance(error, pn.errors.LaunchError):
        return None
    if not any(re.search(rf"\b{re.escape(name.strip('*'))}\b", text) for name in names if name.strip("*")):
        return "its message names no argument"
    if not re.search(r"\b(must|needs|take)\b", text):
        return "its message does not say what must be"
    return None


# Attempts.


class Picks:
    """A function that picks one of several options, and can pick the same ones again."""

    def __init__(self, pick, log=()):
        self.pick, self.log, self.made = pick, list(log), []

    def __call__(self, options):
        options = list(options)
        index = self.log.pop(0) if self.log else self.pick(range(len(options)))
        self.made.append(index)
        return options[index]

    def again(self):
        return Picks(self.pick, self.made)


def check_objects(call):
    for thing in call.objects:
        for checked in (thing, getattr(thing, "allocator", None)):
            if isinstance(checked, pn.BlockAllocator):
                checked.check()


def attempt(name, pick):
    """Make a call of a public callable with one or two hostile arguments; return its outcome, or fail."""
    picks = Picks(pick)
    call = CALLS[name](picks)
    spoilable = [one for one in call.arguments if one != "*"]
    makers = {}
    for _ in range(pick((1, 1, 2)) if spoilable else 0):
        spoiled = pick(spoilable)
        relatives = twisted(call.arguments[spoiled])
        makers[spoiled] = pick(relatives if relatives and pick((True, False)) else VALUES)
    note(f"{name}: {', '.join(f'{one} is a {type(make()).__name__}' for one, make in makers.items())}")
    return judge(name, call, makers, lambda: CALLS[name](picks.again()))


def judge(name, call, makers, make_twin):
    """Make a call with hostile arguments; return its outcome, or fail.

    `makers` holds functions that make the arguments, by name; `make_twin` makes the valid call once more.
    """
    hostile = {one: make() for one, make in makers.items()}
    arguments = {**call.arguments, **hostile}
    before = state([arguments, call.objects])
    try:
        with bounded(), contextlib.redirect_stdout(io.StringIO()):
            result = call.run(arguments)
    except HostileError:
        # An exception of the caller's own object may pass through.
        assert state([arguments, call.objects]) == before, "the failed call changed something"
        return "own exception"
    except Exception as error:
        wrong = complaint(error, call)
        if wrong is not None:
            raise AssertionError(f"{wrong}: {type(error).__name__}: {str(error)[:300]}") from error
        outcome = type(error)
    else:
        outcome = None
    check_objects(call)
    if outcome is not None:
        # A kernel that fails has stored what it has stored, as on a GPU.
        if not issubclass(outcome, pn.errors.KernelError) or issubclass(outcome, pn.errors.LaunchError):
            assert state([arguments, call.objects]) == before, (
                f"the call failed ({outcome}) and changed something"
            )
        return outcome.__name__
    if not hostile:
        return "no arguments"
    with bounded():
        return compare_with_plain(name, call, makers, make_twin(), arguments, result)


def compare_with_plain(name, call, makers, twin, arguments, result):
    """Make the call with the plain values that the hostile values stand for; both must do the same."""
    standing = {}
    for one, make in makers.items():
        value = make()
        try:
            standing[one] = plain(call.kind(one), value)
        except MeaninglessError:
            raise AssertionError(
                f"{name} took {one}, a {type(value).__name__}: {str(value)[:80]!r}"
            ) from None
    if any(call.kind(one) in ("any", "id") for one in makers):
        return "taken"
    given = {**twin.arguments, **standing}
    expected = twin.run(given)
    assert content(result) == content(expected), f"{name} gave another result than with plain values"
    for one in ("key_cache", "value_cache", "out"):
        if given.get(one) is not None:
            assert content(arguments[one]) == content(given[one]), f"{name} left something else in {one}"
    assert [content(thing) for thing in call.objects] == [content(thing) for thing in twin.objects]
    return "right"


def content(thing):
    """Return what a result or an object says, whatever holds it: arrays by shape and numbers."""
    if isinstance(thing, (list, tuple)):
        return [content(item) for item in thing]
    if isinstance(thing, (pn.BlockAllocator, pn.PagedKVCache)):
        pool = getattr(thing, "allocator", thing)
        stored = [] if thing is pool else [thing.key_caches, thing.value_caches]
        return [
            state(pool.stats()),
            {seq_id: pool.block_table(seq_id).tolist() for seq_id in pool},
            content(stored),
        ]
    thing = getattr(thing, "__lockstep_array__", thing)
    if isinstance(thing, (np.ndarray, np.generic)) or hasattr(thing, "__array_interface__"):
        found = np.asarray(thing)
        return [found.shape, found.tolist() if found.dtype.kind == "O" else str(found.ravel().tolist())]
    if isinstance(thing, (float, complex)):
        return str(thing)
    return thing if isinstance(thing, (int, str, bytes, type(None))) else type(thing).__name__


@pytest.mark.parametrize("name", sorted(CALLS))
@settings(max_examples=max(8, settings.default.max_examples // 4))
@given(data=st.data())
def test_hostile_call_ends_in_a_clear_error_or_the_right_result(name, data):
    outcome = attempt(name, lambda options: data.draw(st.sampled_from(list(options))))
    event(outcome)


# The judge itself: each fault, and a near-identical function without it.


class Holder:
    def __init__(self):
        self.counts = []

    def good(self, count):
        if type(count) is not int:
            raise TypeError(f"count must be an integer, got {type(count).__name__}")
        self.counts.append(count)
        return count

    def raises_raw(self, count):
        return self.good([5][count] if type(count) is float else count)

    def raises_another_kind(self, count):
        if type(count) is not int:
            raise KeyError("count must be an integer")

    def names_nothing(self, count):
        if type(count) is not int:
            raise TypeError("it must be an integer")

    def says_not_what_must_be(self, count):
        if type(count) is not int:
            raise TypeError("count is bad")

    def says_too_much(self, count):
        if type(count) is not int:
            raise TypeError(f"count must be an integer, got {'x' * 1000}")

    def changes_and_raises(self, count):
        self.counts.append(1)
        return self.good(count)

    def takes_all(self, count):
        return 0

    def tells_integers_apart(self, count):
        return type(count).__name__ if isinstance(count, int) else self.good(count)

    def takes_long(self, count):
        while type(count) is not int:
            pass

    def takes_memory(self, count):
        return len(bytes(2**32 if type(count) is not int else 1))


FAULTS = {
    "raises_raw": "no raise statement raised it",
    "raises_another_kind": "KeyError is not among the errors",
    "names_nothing": "its message names no argument",
    "says_not_what_must_be": "its message does not say what must be",
    "says_too_much": "its message has 1030 characters",
    "changes_and_raises": "changed something",
    "takes_all": "took count, a float: '1.5'",
    "tells_integers_apart": "gave another result than with plain values",
    "takes_long": "the call ran for more than",
    "takes_memory": "no raise statement raised it: MemoryError",
}


def judged(method, value):
    def make():
        holder = Holder()
        return Call(getattr(holder, method), {"count": 3}, [holder])

    return judge(method, make(), {"count": lambda: value}, make)


@pytest.fixture
def judge_this_file(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", Path(__file__).parent)
    monkeypatch.setattr(sys.modules[__name__], "SECONDS", 0.2)
    monkeypatch.setattr(Holder, "__module__", "paged_numba")


@pytest.mark.parametrize(("method", "fault"), FAULTS.items())
def test_the_judge_sees(method, fault, judge_this_file):
    if method == "takes_memory" and not Path("/proc/self/statm").exists():
        pytest.skip("the system does not bound memory")
    value = signal.SIGINT if method == "tells_integers_apart" else 1.5  # an int of a subclass
    with pytest.raises(AssertionError, match=fault):
        judged(method, value)
    assert judged(method, 4) == "right"


def test_the_judge_takes_what_is_right(judge_this_file):
    assert judged("good", 1.5) == "TypeError"
    assert judged("good", 4) == "right"


# Calls that went wrong before.


def prefix_cached():
    return pn.BlockAllocator(4, 4, prefix_caching=True)


def cache(**options):
    return pn.PagedKVCache(4, 4, 1, 2, target="lockstep", **options)


def tokens(count):
    return np.ones((2, count, 1, 2), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: pn.BlockAllocator(4, 4).add("a", [[1, 2, 3]]), TypeError, r"tokens\[0\] must be an integer"),
        (
            lambda: pn.BlockAllocator(4, 4).add("a", ["x"]),
            TypeError,
            r"tokens\[0\] must be an integer, got .*'x'",
        ),
        (
            lambda: pn.BlockAllocator(4, 4).add("a", [True]),
            TypeError,
            r"tokens\[0\] must be an integer, got .*True",
        ),
        (
            lambda: pn.BlockAllocator(4, 4).add("a", [1.0]),
            TypeError,
            r"tokens\[0\] must be an integer, got .*1.0",
        ),
        (
            lambda: prefix_cached().add("a", [np.timedelta64(3, "s")]),
            TypeError,
            r"tokens\[0\] must be an integer",
        ),
        (
            lambda: prefix_cached().add("a", np.ma.array([1, 2], mask=[0, 1])),
            TypeError,
            "tokens must .* no mask",
        ),
        (
            lambda: pn.BlockAllocator(4, 4).add("a", np.timedelta64(3, "s")),
            TypeError,
            "tokens must be an integer",
        ),
        (lambda: pn.BlockAllocator(4, 4).add("a", 10**5000), ValueError, "tokens must fit int64"),
        (
            lambda: pn.BlockAllocator(4, 4).add("a", range(10**12)),
            pn.OutOfBlocksError,
            "needs 250000000000 blocks",
        ),
        (lambda: pn.BlockAllocator(4, 4, watermark=10**400), ValueError, "watermark must lie in 0 .. 1"),
        (lambda: [] in pn.BlockAllocator(4, 4), TypeError, r"seq_id must be hashable, got seq_id=\[\]"),
        (lambda: pn.BlockAllocator(4, 4).fork([], "b"), TypeError, "parent_id must be hashable"),
        (lambda: cache().reserve([], 3), TypeError, r"seq_id must be hashable, got seq_id=\[\]"),
        (lambda: cache().attend(5, tokens(1)), TypeError, "seq_ids must be a sequence of ids, got seq_ids=5"),
        (lambda: cache().attend([], tokens(0)[0], layout="NHD"), TypeError, "layout must not be given"),
        (
            lambda: cache().attend([], tokens(0)[0], windw=3),
            TypeError,
            "windw must not be given: attend takes scale",
        ),
        (
            lambda: cache().block_tables("ab"),
            TypeError,
            "seq_ids must be a sequence of ids, got seq_ids='ab'",
        ),
        (lambda: cache().block_tables({"a", "b"}), TypeError, "seq_ids must be a sequence of ids"),
        (
            lambda: cache().add("a", *tokens(1), np.array(3)),
            TypeError,
            "token_ids must be token ids in order",
        ),
        (lambda: cache().add("a", *tokens(1), [[1, 2, 3]]), TypeError, r"token_ids\[0\] must be an integer"),
        (lambda: cache().add("a", *tokens(1), ["x"]), TypeError, r"token_ids\[0\] must be an integer"),
        (
            lambda: cache(num_layers=2**63),
            MemoryError,
            "num_layers=9223372036854775808 layers.* must fit into memory",
        ),
        (
            lambda: cache(num_layers=10**5000),
            MemoryError,
            "an int of 16610 bits layers.* must fit into memory",
        ),
        (lambda: pn.BlockAllocator(2**31 - 1, 2**17, prefix_caching=3), TypeError, "prefix_caching must be"),
    ],
)
def test_what_went_wrong_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()


@given(st.integers(1, 40), st.sampled_from((0.1, 0.25, 0.5)))
def test_the_error_says_what_is_needed_and_what_the_watermark_keeps(blocks, watermark):
    pool = pn.BlockAllocator(40, 4, watermark=watermark)
    kept = round(40 * watermark)
    if blocks + kept <= 40:
        pool.add("a", 4 * blocks)
        return
    with pytest.raises(
        pn.OutOfBlocksError, match=f"needs {blocks} blocks? above a watermark of {kept},"
    ) as info:
        pool.add("a", 4 * blocks)
    assert (info.value.needed, info.value.free) == (blocks, 40)
