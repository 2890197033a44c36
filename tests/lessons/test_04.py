"""Lesson 04: its numbers, its allocator, and what its stateful test finds."""

import ast
import runpy
from contextlib import nullcontext

import pytest
from hypothesis import given, settings, stateful
from hypothesis import strategies as st
from reading import lesson

import paged_numba as pn

LESSON = lesson(4)


def fault_of(pool_class):
    """Return what the lesson's test reports of a class of pools; None if it passes."""
    made = LESSON.run()
    try:
        stateful.run_state_machine_as_test(lambda: made["PoolTest"](pool_class), settings=made["quick"])
    except AssertionError as fault:
        return "\n".join(fault.__notes__)
    return None


def lines_of(name):
    """Return the number of lines of a class of the lesson, without blank ones."""
    [node] = [
        node for node in ast.parse(LESSON.text).body if isinstance(node, ast.ClassDef) and node.name == name
    ]
    return sum(bool(line.strip()) for line in LESSON.text.splitlines()[node.lineno - 1 : node.end_lineno])


def test_numbers_in_the_prose():
    made = LESSON.run()
    pool = pn.BlockAllocator(num_blocks=8, block_size=4)
    pool.add("ours", 6)
    pool.add("theirs", 7)
    pool.append("ours", 5)
    entry, slot = pool.block_table("ours").tolist()[2], pool.slots("ours", 9, 10)[0]
    assert f"4 * 4 + 1 = {slot}" in LESSON.output, "the picture draws the token of the question"
    [freed_twice] = made["pool"].tables["over"]
    LESSON.check_numbers(
        claims={
            "in 16 lines": lines_of("Pool"),
            "9 // 4 = 2 and 9 % 4 = 1": (9, 4, 9 // 4, 9, 4, 9 % 4),
            "logical block 2, offset 1.": (9 // 4, 9 % 4),
            "Entry 2 of the table is block 4": (9 // 4, entry),
            "slot 4 * 4 + 1 = 17": (entry, 4, 9 % 4, slot),
            "block 0 is on the free list twice": freed_twice,
            "a pool of 64 blocks": len(made["PoolTest"]().pool.free_list),
            "have 6 blocks, not 64": ("6", len(made["PoolTest"]().pool.free_list)),
        },
        given=[
            "entry 2 of the block table is the physical block of logical block 2",
            "with 4 to a block, block 1 has slots 4 to 7",
            "a block holds 4 tokens",
            "token 9 of",
            "the first is token 0",
            "a logical block 0",
        ],
    )


def test_three_calls_break_the_first_pool():
    fault = fault_of(LESSON.run()["Pool"])
    calls = [line.partition(".")[2].partition("(")[0] for line in fault.splitlines()]
    assert [call for call in calls if call in ("write", "free")] == ["write", "free", "free"]


def test_page_shows_what_hypothesis_reports():
    _, report = LESSON.output.split("a block is lost, or has two places\n")
    assert report.count("state.free(") == 2
    assert report.count("state.write(") == 1


def test_two_users_get_the_block_that_was_freed_twice():
    pool = LESSON.run()["pool"]
    picture = pn.draw.BlockTables(8, 4, pool.tables, pool.lens)
    assert picture.owners(0) == ["over", "you", "me"]
    assert sum(bool(picture.owners(block)) for block in range(8)) == 2


def test_mended_pool_passes_and_refuses_to_free_twice():
    mended = LESSON.run()["MendedPool"]
    assert fault_of(mended) is None
    pool = mended(8, 4)
    pool.add("a", 4)
    pool.free("a")
    with pytest.raises(KeyError):
        pool.free("a")


def test_same_calls_give_the_tables_of_the_package():
    *_, ours, theirs = LESSON.output.splitlines()
    assert ours[5:].strip() == theirs[5:] == "{'b': [2, 3, 0], 'c': [1, 4, 5]}"


def mutants():
    """Yield pools that are wrong in other ways."""
    mended = LESSON.run()["MendedPool"]

    class ForgetsTheLastBlock(mended):
        def free(self, seq):
            self.tables[seq] = self.tables[seq][:-1]
            super().free(seq)

    class FreesAMultipleTwice(mended):
        def free(self, seq):
            table = self.tables[seq]
            twice = [] if self.lens[seq] % self.block_size else table[-1:]
            super().free(seq)
            self.free_list += twice

    class TakesOneTooMany(mended):
        def _grow(self, seq, table, seq_len):
            super()._grow(seq, table, seq_len)
            if seq_len % self.block_size == 0:
                self.tables[seq].append(self.free_list.pop())

    class LeavesTheBlockInTheList(mended):
        def _grow(self, seq, table, seq_len):
            super()._grow(seq, table, seq_len)
            self.free_list.append(self.tables[seq][-1])

    class ForgetsEarlierTokens(mended):
        def append(self, seq, tokens):
            self._grow(seq, self.tables[seq], tokens)

    class GivesAllTheSameBlock(mended):
        def _grow(self, seq, table, seq_len):
            super()._grow(seq, table, seq_len)
            self.tables[seq] = [self.tables[seq][0]] * len(self.tables[seq])

    yield from (ForgetsTheLastBlock, FreesAMultipleTwice, TakesOneTooMany)
    yield from (LeavesTheBlockInTheList, ForgetsEarlierTokens, GivesAllTheSameBlock)


@pytest.mark.parametrize("place", range(6))
def test_stateful_test_finds_other_faults(place):
    assert fault_of([*mutants()][place]) is not None


def test_stateful_test_does_not_see_what_is_lost_when_the_pool_runs_out():
    class TakesOneByOne(LESSON.run()["MendedPool"]):
        """The pool of the third question."""

        def _grow(self, seq, table, seq_len):
            taken = []
            while len(table) + len(taken) < -(-seq_len // self.block_size):
                if not self.free_list:
                    raise MemoryError
                taken.append(self.free_list.pop())
            self.tables[seq], self.lens[seq] = table + taken, seq_len

    assert fault_of(TakesOneByOne) is None
    pool = TakesOneByOne(6, 4)
    with pytest.raises(MemoryError):
        pool.add("a", 28)
    assert (pool.free_list, pool.tables) == ([], {})


@pytest.mark.parametrize("num_blocks", [6, 64])
def test_a_small_pool_runs_out(num_blocks, tmp_path, monkeypatch):
    # "Try next", with the fix in the first pool.
    text = LESSON.text.replace("num_blocks=64", f"num_blocks={num_blocks}")
    text = text.replace("range(64)", f"range({num_blocks})")
    text = text.replace("reversed(self.tables[seq])", "reversed(self.tables.pop(seq))")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "lesson.py"
    path.write_text(text[: text.index("# Hypothesis has shrunk")], encoding="utf-8")
    with pytest.raises(MemoryError) if num_blocks == 6 else nullcontext():
        runpy.run_path(str(path))


def outcome(pool, name, seq, tokens):
    """Return what a call raises, as a kind of error."""
    try:
        getattr(pool, name)(seq, *([tokens] if tokens else []))
    except (MemoryError, LookupError) as error:
        return next(kind for kind in (MemoryError, LookupError) if isinstance(error, kind))
    return None


calls = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), max_size=12)


@settings(deadline=None)
@given(calls=calls)
def test_mended_pool_does_what_the_package_does(calls):
    ours, theirs = LESSON.run()["MendedPool"](6, 4), pn.BlockAllocator(6, 4)
    for seq, tokens in calls:  # without tokens, the sequence is over
        name = "free" if not tokens else "append" if seq in theirs else "add"
        assert outcome(ours, name, seq, tokens) == outcome(theirs, name, seq, tokens)
        assert ours.tables == {seq: theirs.block_table(seq).tolist() for seq in theirs}
        assert ours.lens == {seq: theirs.seq_len(seq) for seq in theirs}
        assert len(ours.free_list) == theirs.num_free_blocks
