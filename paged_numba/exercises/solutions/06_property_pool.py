"""
06 · A property that finds wrong allocators
===========================================

Write the property ``check_pool``. It takes a new, empty pool and a list of calls, makes the calls on the pool, and
raises AssertionError if the pool is wrong. The check draws the calls and runs your property on several pools. The
right ones must pass, and your score is the number of wrong ones that your property finds.

A call is ``("add", seq, tokens)``, ``("append", seq, tokens)`` or ``("free", seq)``. You may use these parts of a
pool::

    pool.add(seq, tokens)      a new sequence; returns the list of the slots of its tokens
    pool.append(seq, tokens)   more tokens for it; returns the list of their slots
    pool.free(seq)             it ends, and its blocks are free
    pool.num_blocks, pool.block_size
    pool.num_free_blocks, pool.sequences, pool.seq_len(seq), pool.block_table(seq)

A sequence of ``n`` tokens holds as few blocks as possible. Any free block will do, and no block is held twice. Token
``t`` lies in slot ``block_table[t // block_size] * block_size + t % block_size``.

The check also draws calls that are not possible. Such a call raises an error and changes nothing: ``add`` of a
sequence that exists raises ValueError, ``append`` and ``free`` of a sequence that does not exist raise KeyError, and
a call that needs more blocks than are free raises MemoryError.

A pool of 3 blocks of 2 tokens::

    call                   block_table     slots returned   num_free_blocks
    ("add", "a", 3)        a: 0 1          0 1 2            1
    ("append", "a", 2)     a: 0 1 2        3 4              0
    ("add", "b", 1)        -               MemoryError      0
    ("free", "a")          -               -                3

Example: after ``[("add", "a", 3)]`` the sequence holds 2 blocks, so 1 is free.
"""


def check_pool(pool, calls):
    # >>> Your code: what the pool must hold; each call; what must be true after the call (22 lines).
    lens = {}

    def blocks(tokens):
        return -(-tokens // pool.block_size)

    for name, seq, *tokens in calls:
        start = lens.get(seq, 0)
        stop = start + tokens[0] if tokens else 0
        possible = (seq in lens) != (name == "add") and blocks(stop) - blocks(start) <= pool.num_free_blocks
        try:
            slots = getattr(pool, name)(seq, *tokens)
        except (KeyError, ValueError, MemoryError):
            assert not possible, "an error, but the call is possible"
        else:
            assert possible, "no error, but the call is not possible"
            lens.pop(seq, None)
            if tokens:
                lens[seq], table = stop, pool.block_table(seq)
                in_order = [b * pool.block_size + i for b in table for i in range(pool.block_size)]
                assert slots == in_order[start:stop], "slots"
        assert {seq: pool.seq_len(seq) for seq in pool.sequences} == lens, "sequences"
        held = [block for seq in lens for block in pool.block_table(seq)]
        assert len(held) == len(set(held)) == sum(map(blocks, lens.values())), "blocks"
        assert pool.num_free_blocks == pool.num_blocks - len(held), "free blocks"
    # <<<
