"""A call that fails changes nothing, wherever it fails: an exception is raised at each line of each call."""

import copy
import signal
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
from fault_injection import Inject, Injected
from fault_injection import pool_state as state
from hypothesis import given, settings
from hypothesis import strategies as st

import paged_numba as pn
from paged_numba.allocator import transactions

BLOCK_SIZE = 2


def outcome(pool, call, inject):
    """Return what a call returns, its arrays as lists; or the text of its error; or None if `inject` ended it."""
    try:
        result = inject.run(lambda: call(pool))
    except pn.errors.PagedNumbaError as error:
        return str(error)
    if isinstance(result, tuple):
        return [part.tolist() if isinstance(part, np.ndarray) else part for part in result]
    return result


def fails_without_a_trace(pool, call, most=10_000):
    """Raise at each line of ``call(pool)`` in turn; return the number of lines."""
    whole = copy.deepcopy(pool)
    expected = outcome(whole, call, Inject(-1))
    before = state(pool)
    for at in range(most):
        inject = Inject(at)
        result = outcome(pool, call, inject)
        if inject.place is None:
            assert result == expected
            assert state(pool) == state(whole)
            return at
        assert state(pool) == before, inject.place
        pool.check()
    raise AssertionError("the call does not end")


def ids(*parts):
    """Return token ids: two blocks for each part, and one token more."""
    return [part * 10 + place for part in parts for place in range(2 * BLOCK_SIZE)] + [999]


def used_pool():
    """Return a pool with a fork, twins, released and swapped sequences, idle blocks, and removed nodes."""
    pool = pn.BlockAllocator(50, BLOCK_SIZE, prefix_caching=True)
    for name, text in {
        "a": ids(1, 2),
        "twin": ids(1, 2),
        "idle": ids(1, 3),
        "gone": ids(5),
        "s": ids(1, 7),
        "c": ids(1, 6),
        "cut": ids(4),
        "grown": ids(3),
    }.items():
        pool.add(name, text)
    for name in ("a", "twin", "idle", "s", "c", "cut", "grown"):
        pool.commit(name)
    pool.fork("a", "b")
    pool.free("idle")
    pool.free("gone")
    pool.swap_out("s")
    pool.release("twin", 3)
    pool.truncate("cut", 3)
    pool.append("grown", ids(3))
    return pool


CALLS = {
    "add, nothing found": lambda pool: pool.add("new", ids(8)),
    "add, found": lambda pool: pool.add("new", ids(1, 2)),
    "add, found idle": lambda pool: pool.add("new", ids(1, 3, 4), salt=None),
    "add, evicting": lambda pool: pool.add("new", range(1000, 1000 + 2 * pool.num_free_blocks)),
    "add, too much": lambda pool: pool.add("new", range(1000, 1001 + 2 * pool.num_free_blocks)),
    "add, empty": lambda pool: pool.add("new", []),
    "append": lambda pool: pool.append("twin", [1, 2, 3]),
    "append, copying": lambda pool: pool.append("b", [1, 2, 3]),
    "append, copying and evicting": lambda pool: pool.append("b", range(2 * pool.num_free_blocks - 1)),
    "append, too much": lambda pool: pool.append("b", range(2 * pool.num_free_blocks)),
    "append after a truncation into a cached block": lambda pool: pool.append("cut", [1, 2]),
    "add, limited": lambda pool: pool.add("new", ids(1, 2, 8), limit=3),
    "truncate": lambda pool: pool.truncate("a", 7),
    "truncate to a shared block": lambda pool: pool.truncate("b", 3),
    "truncate of cached blocks": lambda pool: pool.truncate("c", 5),
    "truncate to nothing": lambda pool: pool.truncate("c", 0),
    "truncate of one that is not committed": lambda pool: pool.truncate("grown", 8),
    "truncate of a released one": lambda pool: pool.truncate("twin", 7),
    "truncate of one truncated before": lambda pool: pool.truncate("cut", 1),
    "free of a truncated one": lambda pool: pool.free("cut"),
    "fork of a truncated one": lambda pool: pool.fork("cut", "new"),
    "commit, nothing": lambda pool: pool.commit("a"),
    "fork": lambda pool: pool.fork("a", "new"),
    "fork of a released one": lambda pool: pool.fork("twin", "new"),
    "free": lambda pool: pool.free("a"),
    "free of a fork": lambda pool: pool.free("b"),
    "free of a released one": lambda pool: pool.free("twin"),
    "free of a swapped one": lambda pool: pool.free("s"),
    "free of cached blocks": lambda pool: pool.free("c"),
    "release": lambda pool: pool.release("b", 1),
    "release of a twin": lambda pool: pool.release("twin", 1),
    "preempt": lambda pool: pool.preempt("a"),
    "swap_out": lambda pool: pool.swap_out("a"),
    "swap_out of a released one": lambda pool: pool.swap_out("twin"),
    "swap_in": lambda pool: pool.swap_in("s"),
    "reset_prefix_cache": lambda pool: pool.reset_prefix_cache(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_an_exception_at_any_line_of_the_allocator_changes_nothing(call):
    assert fails_without_a_trace(used_pool(), call) > 5


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_call_within_a_transaction_that_fails_later_is_taken_back(call):
    pool = used_pool()
    before = state(pool)

    @transactions.transaction
    def call_and_fail(pool):
        call(pool)
        raise Injected

    with pytest.raises((Injected, pn.errors.OutOfBlocksError)):
        call_and_fail(pool)
    assert state(pool) == before
    pool.check()


def grown(pool, name, text):
    pool.append(name, text)
    return pool


def beside_its_equal(*steps):
    """Return a pool with a sequence "b" whose tokens another holds, which was committed and perhaps freed since."""
    pool = used_pool()
    pool.free("b")
    for name in ("equal", "b"):
        pool.add(name, ids(8, 9))
    for step in steps:
        getattr(pool, step)("equal")
    return pool


@pytest.mark.parametrize(
    "pool",
    [
        grown(used_pool(), "b", ids(6)),
        grown(grown(used_pool(), "twin", [1, 2, 3]), "b", [1, 2, 3]),
        beside_its_equal(),
        beside_its_equal("commit"),
        beside_its_equal("commit", "free"),
    ],
)
def test_an_exception_at_any_line_of_a_commit_changes_nothing(pool):
    assert fails_without_a_trace(pool, lambda pool: pool.commit("b")) > 5


class TakesNothingBack(transactions.UndoLog):
    def roll_back(self, begin, owner):
        del self[begin:]


class CountsNothingAnew(transactions.UndoLog):
    def roll_back(self, begin, owner):
        super().roll_back(begin, types.SimpleNamespace(_recount=lambda: None))


class ForgetsTheLastStep(transactions.UndoLog):
    def roll_back(self, begin, owner):
        if self[-1] is not transactions.RECOUNT:
            del self[-1]
        super().roll_back(begin, owner)


@pytest.mark.parametrize("log", [TakesNothingBack, CountsNothingAnew, ForgetsTheLastStep])
def test_a_wrong_undo_log_is_found(log):
    for call in ("add, evicting", "free of cached blocks", "append, copying"):
        pool = used_pool()
        pool._undo = pool._pool._undo = pool._prefixes._undo = log()
        with pytest.raises((AssertionError, IndexError, KeyError, ValueError)):
            fails_without_a_trace(pool, CALLS[call])


TEXTS = st.lists(st.integers(0, 1), max_size=9)


@settings(deadline=None)
@given(data=st.data())
def test_a_pool_that_fails_now_and_then_is_as_one_that_never_fails(data):
    """Random calls; before each succeeds, it fails at a few lines."""
    never = pn.BlockAllocator(
        7, BLOCK_SIZE, prefix_caching=True, watermark=data.draw(st.sampled_from((0, 0.2)))
    )
    often = copy.deepcopy(never)
    for number in range(data.draw(st.integers(1, 12))):
        call = data.draw(calls(sorted(never), sorted(never._swapped), number))
        before = state(often)
        for at in sorted(data.draw(st.sets(st.integers(0, 120), max_size=4))):
            inject = Inject(at)
            result = outcome(often, call, inject)
            if inject.place is None:
                break
            assert state(often) == before
        else:
            result = outcome(often, call, Inject(-1))
        assert result == outcome(never, call, Inject(-1))
        assert state(often) == state(never)
        often.check()


@st.composite
def calls(draw, names, swapped, number):
    """Return a call of a method of a pool that holds these sequences."""
    kinds = ["add", "reset_prefix_cache"] + ["swap_in", "free"] * bool(swapped)
    if names:
        kinds += ["append", "commit", "fork", "free", "release", "preempt", "swap_out", "truncate"]
    kind = draw(st.sampled_from(kinds))
    if kind == "reset_prefix_cache":
        return lambda pool: pool.reset_prefix_cache()
    if kind == "truncate":
        # A share of the tokens that are not released.
        name, share = draw(st.sampled_from(names)), draw(st.sampled_from((0, 0.4, 0.8, 1)))
        return lambda pool: pool.truncate(
            name, (low := pool.num_released_tokens(name)) + int(share * (pool.seq_len(name) - low))
        )
    if kind == "add":
        given = number, draw(TEXTS)
    elif kind == "swap_in":
        given = (draw(st.sampled_from(swapped)),)
    elif kind == "free":
        given = (draw(st.sampled_from(names + swapped)),)
    else:
        name = draw(st.sampled_from(names))
        given = {
            "append": lambda: (name, draw(TEXTS.filter(bool))),
            "fork": lambda: (name, number),
            "release": lambda: (name, draw(st.integers(1, 5))),
        }.get(kind, lambda: (name,))()
    return lambda pool: getattr(pool, kind)(*given)


def test_a_roll_back_that_is_interrupted_is_finished_by_the_next_call():
    pool = used_pool()
    before = state(pool)

    @transactions.transaction
    def call_and_fail(pool):
        CALLS["append, copying and evicting"](pool)
        pool._undo.append((interrupt,))
        raise Injected

    def interrupt():
        pool._undo[-1] = transactions.RECOUNT
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_and_fail(pool)
    pool.commit("a")  # changes nothing by itself
    assert state(pool) == before


class CallAt(Inject):
    """Makes a call at a line instead of raising: stands for a signal handler or a finalizer."""

    def __init__(self, at, call):
        super().__init__(at)
        self.call, self.refused = call, False

    def __call__(self, frame, event, argument):
        try:
            return super().__call__(frame, event, argument)
        except Injected:
            try:
                self.call()
            except pn.errors.PagedNumbaError as error:
                self.refused = "while another call changes the same pool" in str(error)
            return None


@pytest.mark.parametrize(
    "name", ["add, evicting", "append, copying", "free of cached blocks", "swap_out", "fork"]
)
def test_a_call_from_within_a_call_is_refused_or_done(name):
    """Without the refusal, an `add` within an `add` takes its blocks, and the pool never ends to evict."""
    alone = used_pool()
    outcome(alone, CALLS[name], Inject(-1))
    refused = []
    for at in range(10_000):
        pool = used_pool()
        inject = CallAt(at, lambda pool=pool: pool.add("inner", ids(9)))
        try:
            inject.run(lambda pool=pool: CALLS[name](pool))
        except pn.OutOfBlocksError:
            assert "inner" in pool
        if inject.place is None:
            break
        pool.check()
        assert not pool._undo
        assert ("inner" in pool) is not inject.refused
        if inject.refused:
            assert state(pool) == state(alone), inject.place
        refused.append(inject.refused)
    assert any(refused)
    assert not all(refused)


class CallsWhenCompared:
    """An id, or a salt, whose comparison calls the pool."""

    def __init__(self, call):
        self.call = call

    def __hash__(self):
        return 1

    def __eq__(self, other):
        self.call()
        return self is other


@pytest.mark.parametrize("place", ["id", "salt"])
def test_an_id_or_a_salt_that_changes_the_pool_is_refused(place):
    pool = pn.BlockAllocator(6, BLOCK_SIZE, prefix_caching=True)
    first, second = (CallsWhenCompared(lambda: pool.add("inner", [4, 5])) for _ in range(2))
    pool.add(first, [1, 2], salt=first)
    pool.commit(first)
    before = pool.block_table(first).tolist(), pool.stats(), len(pool)
    with pytest.raises(pn.errors.PagedNumbaError, match="add must not be called while another call changes"):
        pool.add(second if place == "id" else "a", [1, 2, 3], salt=second)
    assert before == (pool.block_table(first).tolist(), pool.stats(), len(pool))
    pool.check()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs the timer of a Unix")
def test_a_signal_at_any_moment_leaves_a_call_done_or_not_done():
    def interrupt(*_):
        if armed:
            raise Injected

    random, armed = np.random.default_rng(0), False
    handler = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for call in list(CALLS.values()) * 8:
            pool, whole = used_pool(), used_pool()
            before = state(pool)
            outcome(whole, call, Inject(-1))
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 6e-5))
                armed = True
                call(pool)
                armed = False
            except Injected:
                armed = False
                interrupted += 1
                assert state(pool) in (before, state(whole))
            except pn.errors.OutOfBlocksError:
                armed = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert interrupted > 5


def test_threads_share_a_pool():
    """Threads add, grow and free sequences of one pool; without the lock two tables get one block."""
    pool = pn.BlockAllocator(64, BLOCK_SIZE, prefix_caching=True)
    failures = []

    def work(thread):
        random = np.random.default_rng(thread)
        try:
            for step in range(150):
                name = thread, step
                try:
                    pool.add(name, random.integers(0, 2, random.integers(1, 12)))
                    pool.commit(name)
                    pool.append(name, random.integers(0, 2, 3))
                    pool.fork(name, (*name, "fork"))
                    pool.free((*name, "fork"))
                except pn.errors.OutOfBlocksError:
                    pass
                if name in pool:
                    pool.free(name)
        except BaseException as error:
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failures
    pool.check()
    assert pool.num_free_blocks == 64


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (lambda pool: pool.add("b", 3).slots.tolist(), [4, 5, 6]),
        # NumPy reads a table while `append` cannot resize it, so that it would raise BufferError.
        (lambda pool: pool.block_table("a").tolist(), [0, 1]),
        (lambda pool: pool.slots("a", 0, 3).tolist(), [0, 1, 2]),
        (lambda pool: pool.stats().num_tokens, 3),
    ],
)
def test_a_call_waits_for_the_transaction_of_another_thread(call, result):
    pool = pn.BlockAllocator(8, BLOCK_SIZE)
    entered, leave, done, results = threading.Event(), threading.Event(), threading.Event(), []

    @transactions.transaction
    def slow(pool):
        pool.add("a", 3)
        entered.set()
        leave.wait()

    def run():
        results.append(call(pool))
        done.set()

    threads = [threading.Thread(target=slow, args=(pool,)), threading.Thread(target=run)]
    threads[0].start()
    entered.wait()
    threads[1].start()
    assert not done.wait(0.05)
    leave.set()
    for thread in threads:
        thread.join()
    assert results == [result]


def test_a_pool_may_change_while_its_ids_are_read():
    pool = pn.BlockAllocator(8, BLOCK_SIZE)
    pool.add("a", 3)
    pool.add("b", 3)
    for name in pool:
        pool.free(name)
    assert list(pool) == []


def test_check_is_not_optimised_away():
    code = "import paged_numba as pn; pool = pn.BlockAllocator(2, 2); pool._pool.refs[0] = 1; pool.check()"
    ran = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=False)
    assert "AssertionError: block 0 is in 0 tables, its reference count is 1" in ran.stderr
