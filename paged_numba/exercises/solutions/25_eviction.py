"""
25 · Evict what nobody needs
============================

Write the function ``evict``. A prefix cache holds blocks that no request uses any more, and must give up ``count`` of
them. Return their numbers as a list, in the order in which they go. The next to go is

- never a block that a request uses,
- never a block that another cached block follows: what follows could not be found without it, and
- of the others, the one that was last used the longest time ago. If several were last used at that time, any of them.

When a block has gone, the block before it may be the next. If fewer than ``count`` can go, return all that can.

Shapes::

    parents     list of int: of each block the block before it in its prefix, -1 for a first one
    refs        list of int: of each block how many requests use it
    last_used   list of int: of each block the step in which a request last used it
    count       int, from 0 on

Five cached blocks, two prefixes that begin alike and one of its own. Nothing is in use::

    block       0    1    2    3    4          0 -> 1 -> 2
    parents    -1    0    1    0   -1          0 -> 3
    refs        0    0    0    0    0          4
    last_used   9    7    7    9    8

Example: ``evict(parents, refs, last_used, 4)`` returns ``[2, 1, 4, 3]``. Blocks 1 and 2 are the oldest, and 2 follows
1, so it goes first.
"""


def evict(parents, refs, last_used, count):
    # >>> Your code: the next block to go, and then again (about 9 lines).
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
