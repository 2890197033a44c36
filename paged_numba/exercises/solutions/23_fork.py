"""
23 · Fork, and copy on write
============================

Write the methods ``fork``, ``append`` and ``free`` of this pool. A fork has the parent's blocks in a block table of
its own, and takes no block. Several tables may hold a block: ``refs`` says how many, and a block that no table holds
any more goes back to ``free_blocks``.

``append(seq)`` makes room for one more token and returns ``(copies, slot)``: pairs of a block and its copy, and the
slot of the token. The keys and values of ``copies`` are copied before the token is written. A token goes into the
last block unless that is full, and a block that another sequence holds as well must not be written: the sequence
takes a copy in its place first. If no block is free for it, ``append`` raises MemoryError, which ``take`` does, and
changes nothing.

A parent of 3 tokens and its fork in blocks of 2, which both append::

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
        # >>> Your code: a new block, a copy, or neither; then the length and the slot (about 11 lines).
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
        # >>> Your code: the sequence ends, and with it what only it held (5 lines).
        for block in self.tables.pop(seq):
            self.refs[block] -= 1
            if self.refs[block] == 0:
                self.free_blocks.append(block)
        del self.lens[seq]
        # <<<
