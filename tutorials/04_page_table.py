"""
04 · The block table is a page table
====================================

**Who decides where a token goes, and how is it found again?** You will see one token's way to its slot, and build
the allocator of lesson 00 in 16 lines. It looks right, and it is not: a test that plays with it finds the fault.
"""

# %%
# To a program, memory is one long row of bytes. In truth it is pages that lie anywhere, and a :term:`page table` says
# where. Paged attention does this with a sequence. It counts its own logical blocks, the pool counts :term:`physical
# blocks <physical block>`; entry 2 of the block table is the physical block of logical block 2. A token's place in a
# block is its :term:`offset`. Slots are counted through the pool: with 4 to a block, block 1 has slots 4 to 7.
#
# .. dropdown:: Predict: a block holds 4 tokens. In which slot lies token 9 of "ours", if the first is token 0?
#
#    9 // 4 = 2 and 9 % 4 = 1: logical block 2, offset 1. Entry 2 of the table is block 4, so slot 4 * 4 + 1 = 17.

from hypothesis import settings, stateful, strategies

import paged_numba as pn

pool = pn.BlockAllocator(num_blocks=8, block_size=4)
pool.add("ours", 6)
pool.add("theirs", 7)
pool.append("ours", 5)  # "theirs" has the blocks beside those of "ours" by now
pn.draw.TokenPath.of(pool, "ours", 9).show("04_token.svg")

# %%
# An allocator from nothing
# -------------------------
# A pool remembers the blocks that nobody holds, its :term:`free list`, and the block table of each sequence. A
# sequence that grows takes blocks from the end of that list. **This allocator is broken.** Do you see where?


class Pool:
    def __init__(self, num_blocks, block_size):
        self.block_size, self.tables, self.lens = block_size, {}, {}
        self.free_list = [*range(num_blocks)][::-1]  # block 0 is the first to be taken

    def add(self, seq, tokens):
        self._grow(seq, [], tokens)

    def append(self, seq, tokens):
        self._grow(seq, self.tables[seq], self.lens[seq] + tokens)

    def _grow(self, seq, table, seq_len):
        missing = -(-seq_len // self.block_size) - len(table)  # -(-a // b) is a / b, rounded up
        if missing > len(self.free_list):
            raise MemoryError(f"{seq} needs {missing} more blocks, {len(self.free_list)} are free")
        self.tables[seq] = table + [self.free_list.pop() for _ in range(missing)]
        self.lens[seq] = seq_len

    def free(self, seq):
        self.free_list += reversed(self.tables[seq])


# %%
# A test that plays
# -----------------
# A property test as in lesson 02 draws one input. But what a call does here depends on the calls before it, so now
# Hypothesis draws whole series of calls: a :term:`stateful test`. A ``rule`` is a call that it may make. After each
# it checks the :term:`invariant`, which must always hold. Ours: the tables and the free list have each block once.
#
# .. dropdown:: Predict: which three calls break it?
#
#    ``add``, ``free`` and ``free`` again: its blocks go back twice. (A user cancels as the answer ends.)


class PoolTest(stateful.RuleBasedStateMachine):
    def __init__(self, make_pool=Pool):
        super().__init__()
        self.pool, self.lens = make_pool(num_blocks=64, block_size=4), {}  # `lens`: what it must hold

    @stateful.rule(seq=strategies.sampled_from("abc"), tokens=strategies.integers(1, 12))
    def write(self, seq, tokens):
        (self.pool.append if seq in self.lens else self.pool.add)(seq, tokens)
        self.lens[seq] = self.lens.get(seq, 0) + tokens
        assert len(self.pool.tables[seq]) == -(-self.lens[seq] // 4)

    @stateful.rule(seq=strategies.sampled_from("abc"))
    def free(self, seq):
        self.lens.pop(seq, None)
        if seq in self.pool.tables:  # also if it is over, but not forgotten
            self.pool.free(seq)

    @stateful.invariant()
    def each_block_has_one_place(self):
        tables = [self.pool.tables[seq] for seq in self.lens]
        assert sorted(sum(tables, self.pool.free_list)) == [*range(64)], "a block is lost, or has two places"


quick = settings(PoolTest.TestCase.settings, stateful_step_count=10, derandomize=True, database=None)
try:
    stateful.run_state_machine_as_test(PoolTest, settings=quick)
except AssertionError as fault:
    print(fault, *fault.__notes__, sep="\n")

# %%
# Hypothesis has shrunk the series to the three calls that matter, a :term:`double free`. Nothing crashes, but block 0
# is on the free list twice. The next two users both get it, and each overwrites keys that the other still reads.

pool = Pool(num_blocks=8, block_size=4)
pool.add("over", 4)
pool.free("over")
pool.free("over")
pool.add("you", 3)
pool.add("me", 6)
pn.draw.BlockTables(8, 4, pool.tables, pool.lens, title="Block 0 has three owners").show("04_double_free.svg")

# %%
# The fix: forget what was given back. The test passes, and the same calls give the tables of ``pn.BlockAllocator``.


class MendedPool(Pool):
    def free(self, seq):
        self.free_list += reversed(self.tables.pop(seq))
        del self.lens[seq]


stateful.run_state_machine_as_test(lambda: PoolTest(MendedPool), settings=quick)
ours, theirs = MendedPool(8, 4), pn.BlockAllocator(8, 4)
for call, *arguments in ("add", "a", 8), ("add", "b", 5), ("free", "a"), ("append", "b", 4), ("add", "c", 9):
    getattr(ours, call)(*arguments)
    getattr(theirs, call)(*arguments)
print("ours", ours.tables, "\npn  ", {seq: theirs.block_table(seq).tolist() for seq in theirs})

# %%
# **In two sentences.** A block table maps the blocks that a sequence counts to blocks of the pool, so one division
# and one look-up find any token. An allocator gives a block to one place at a time; a stateful test holds it to that.
#
# **Check yourself.**
#
# 1. Without the invariant, when would somebody notice the double free?
# 2. Two sequences both have a logical block 0. May it be the same physical block?
# 3. If ``_grow`` took blocks one by one and raised when none is left, what would be lost? Does our test see it?
#
# .. dropdown:: Answers
#
#    1. When one of two users reads what the other wrote: many steps later, as a wrong answer, far from the cause.
#    2. Not here: one would write over the other's keys. Lesson 14 allows it, and ``free`` then has more to do.
#    3. The blocks taken by then: they are in no table. Our test does not: a pool of 64 blocks never runs out in it.
#
# **Try next.** Let the test have 6 blocks, not 64, in both places. It finds a ``MemoryError``. Is that a fault?
#
# **In the engines.** Our rung is ``pn.BlockAllocator`` (``paged_numba/allocator/``). vLLM has its free list in
# ``BlockPool`` (``vllm/v1/core/block_pool.py``) and its tables in ``BlockTable`` (``vllm/v1/worker/block_table.py``).
