"""
04 · The slots of new tokens
============================

Write the function ``slots``. In one step, each sequence of a batch gets some new tokens. ``slots`` returns where they
go: a list with the slot of each new token, sequence by sequence and in token order. The new tokens are the last
tokens of their sequence, and the block table already has the blocks for them.

Arguments::

    block_tables   a list for each sequence: entry i is the physical block of logical block i
    seq_lens       list of int: tokens of each sequence, the new ones included
    num_new        list of int: new tokens of each sequence, 0 or more
    block_size     int: slots of a block

A block table may be longer than its sequence needs. The entries past the last block are left over from another
sequence and mean nothing. A batch may be empty.

A sequence of 7 tokens in blocks of 4; the last 2 tokens are new::

    token            0   1   2   3    4   5   6
    logical block    0   0   0   0    1   1   1      block table 5 2 9
    physical block   5   5   5   5    2   2   2
    offset           0   1   2   3    0   1   2
    slot            20  21  22  23    8   9  10
                                          new new

Example: ``slots([[5, 2, 9], [0]], [7, 1], [2, 1], 4)`` gives ``[9, 10, 0]``: the sequence with block table [5, 2, 9]
is the one in the picture, and the other sequence has just begun.
"""


def slots(block_tables, seq_lens, num_new, block_size):
    # >>> Your code: the positions of the new tokens, and the slot of each (6 lines).
    found = []
    for table, seq_len, new in zip(block_tables, seq_lens, num_new, strict=True):
        for position in range(seq_len - new, seq_len):
            block = table[position // block_size]
            found.append(block * block_size + position % block_size)
    return found
    # <<<
