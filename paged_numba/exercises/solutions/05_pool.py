"""
05 · A pool that loses nothing
==============================

Write the methods ``append`` and ``free`` of the class ``Pool``.

``append(seq, tokens)`` makes room for ``tokens`` more tokens of a sequence; ``tokens`` is 1 or more. If there is no
sequence of this name, ``append`` begins one. Tokens fill the free slots of the sequence's last block before more
blocks are taken. Any free block will do. If too few blocks are free, ``append`` raises MemoryError and changes
nothing.

``free(seq)`` ends a sequence and makes its blocks free again. If there is no sequence of this name, or it has already
ended, ``free`` raises KeyError and changes nothing.

What the pool stores::

    block_size    int: slots of a block
    tables        dict: the block table of each sequence, a list of blocks in logical order
    lens          dict: the number of tokens of each sequence
    free_blocks   list of the blocks that no sequence has, in any order

A pool of 4 blocks of 4 slots, after ``append("a", 5)``, ``append("b", 2)`` and ``append("a", 3)``::

    a   8 tokens   table 0 1       block    0     1     2     3
    b   2 tokens   table 2         slots   aaaa  aaaa  bb..  ....

Example: the last of these calls takes no block, since 5 + 3 tokens fit in 2 blocks: ``lens`` is then
``{"a": 8, "b": 2}``, and ``len(free_blocks)`` is 1. Now ``append("a", 5)`` raises MemoryError: a has 2 blocks and
would need 4, but only 1 is free.
"""


class Pool:
    def __init__(self, num_blocks, block_size):
        self.block_size = block_size
        self.tables, self.lens = {}, {}
        self.free_blocks = list(range(num_blocks))

    # >>> Your code: the methods append and free (10 lines).
    def append(self, seq, tokens):
        table, seq_len = self.tables.get(seq, []), self.lens.get(seq, 0) + tokens
        missing = -(-seq_len // self.block_size) - len(table)
        if missing > len(self.free_blocks):
            raise MemoryError(f"{seq} needs {missing} more blocks, {len(self.free_blocks)} are free")
        self.tables[seq] = table + [self.free_blocks.pop() for _ in range(missing)]
        self.lens[seq] = seq_len

    def free(self, seq):
        self.free_blocks += self.tables.pop(seq)
        del self.lens[seq]

    # <<<
