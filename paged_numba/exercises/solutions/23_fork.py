"""
23 · Fork, and copy on write
============================

Write the methods ``fork``, ``append`` and ``free`` of this pool. A fork has its own block table, which holds the
parent's blocks, and takes no new block. Several tables may hold the same block: ``refs`` says how many. A block that
no table holds any more goes back to ``free_blocks``.

``append(seq)`` makes room for one more token and returns ``(copies, slot)``: a list of pairs, each a block and its
copy, and the slot of the token. The keys and values of the blocks in ``copies`` are copied before the token is
written. A token goes into the last block unless that block is full. A block that another sequence also holds must not
be written: the sequence first takes a copy in its place. If no block is free, ``take`` raises MemoryError, and
``append`` must have changed nothing.

A parent of 3 tokens in blocks of 2, and its fork; both append::

    call               table of parent   table of child   returned          refs of blocks 0 1 2
    add("parent", 3)   0 1               -                                  1 1 0
    fork(...)          0 1               0 1                                2 2 0
    append("child")    0 1               0 2              [(1, 2)], 5       2 1 1
    append("parent")   0 1               0 2              [], 3             2 1 1

Example: the child's token goes to offset 1 of the copy, block 2, so its slot is ``2 * 2 + 1 = 5``.
"""


class Pool:
    def __init__(self, num_blocks, block_size):
        self.block_size = block_size
        self.free_blocks = list(range(num_blocks))
        self.refs = [0] * num_blocks
        self.tables = {}  # of each sequence, the list of its blocks
        self.lens = {}  # of each sequence, the number of its tokens

    def take(self):
        if not self.free_blocks:
            raise MemoryError("no block is free")
        block = self.free_blocks.pop(0)
        self.refs[block] = 1
        return block

    def add(self, seq, tokens):
        needed = -(-tokens // self.block_size)
        if needed > len(self.free_blocks):
            raise MemoryError("too few blocks are free")
        self.tables[seq] = [self.take() for _ in range(needed)]
        self.lens[seq] = tokens

    def fork(self, parent, child):
        # >>> Your code: the child's table and length, and the reference counts (4 lines).
        self.tables[child] = list(self.tables[parent])
        self.lens[child] = self.lens[parent]
        for block in self.tables[child]:
            self.refs[block] += 1
        # <<<

    def append(self, seq):
        # >>> Your code: a new block, a copy, or neither; then the length and the slot (10 lines).
        table, offset, copies = self.tables[seq], self.lens[seq] % self.block_size, []
        if offset == 0:
            table.append(self.take())
        elif self.refs[table[-1]] > 1:
            copy = self.take()
            copies.append((table[-1], copy))
            self.refs[table[-1]] -= 1
            table[-1] = copy
        self.lens[seq] += 1
        return copies, table[-1] * self.block_size + offset
        # <<<

    def free(self, seq):
        # >>> Your code: end the sequence, and free the blocks that only it held (5 lines).
        for block in self.tables.pop(seq):
            self.refs[block] -= 1
            if self.refs[block] == 0:
                self.free_blocks.append(block)
        del self.lens[seq]
        # <<<
