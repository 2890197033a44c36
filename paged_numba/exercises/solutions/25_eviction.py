"""
25 · Evict what nobody needs
============================

Write the function ``evict``. A prefix cache holds blocks that no request uses any more, and must give up ``count`` of
them. Return their numbers as a list, in the order in which they go. The next block to go is

- never a block that a request uses,
- never a block that another cached block follows, since that block could not be found without it, and
- of the others, the one least recently used. If several were last used in the same step, any of them will do.

Once a block has gone, the block before it may be next. If fewer than ``count`` blocks can go, return all that can.

Shapes::

    parents     list of int: for each block, the block before it in its prefix, or -1 if it is the first
    refs        list of int: for each block, how many requests use it
    last_used   list of int: for each block, the step in which a request last used it
    count       int, 0 or more

Five cached blocks: two prefixes that begin with the same block, and one that shares nothing. No block is in use::

    block       0    1    2    3    4          0 -> 1 -> 2
    parents    -1    0    1    0   -1          0 -> 3
    refs        0    0    0    0    0          4
    last_used   9    7    7    9    8

Example: ``evict(parents, refs, last_used, 4)`` returns ``[2, 1, 4, 3]``. Blocks 1 and 2 were used least recently.
Block 2 follows block 1, so block 2 goes first.
"""


def evict(parents, refs, last_used, count):
    # >>> Your code: choose the next block to go, until there are enough (10 lines).
    cached, gone = set(range(len(parents))), []
    while len(gone) < count:
        followed = {parents[block] for block in cached}
        can_go = [block for block in cached if block not in followed and refs[block] == 0]
        if not can_go:
            break
        oldest = min(can_go, key=lambda block: last_used[block])
        cached.remove(oldest)
        gone.append(oldest)
    return gone
    # <<<
