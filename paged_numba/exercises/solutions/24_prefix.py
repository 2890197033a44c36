"""
24 · Find a cached prefix
=========================

Write the methods ``insert`` and ``find`` of a prefix cache. ``insert(tokens, table, num_written)`` is called when the
keys and values of the first ``num_written`` of these tokens are in the blocks of ``table``. From then on, each full
block of written tokens can be found. If the cache already has a block with the same tokens after the same earlier
tokens, it keeps that block.

``find(tokens)`` returns the list of cached blocks that hold the longest possible prefix of a prompt. The key and
value of a token depend on all tokens before it: a block can be used only if its own tokens and all tokens before it
are those of the prompt. The list starts with the first block of the prompt and has no gaps. At least one token of the
prompt must be left to compute, since the model needs its query: for a prompt of 4 tokens in blocks of 2, ``find``
returns 1 block even if both are cached.

Shapes::

    tokens        list of int, token ids of a prompt
    table         list of int, the block table
    num_written   int, at most len(tokens)

Blocks of 2, after ``insert([5, 6, 7, 8, 9], [3, 0, 4], 5)`` and ``insert([1, 2, 7, 8], [6, 2], 4)``::

    5 6 -> block 3        7 8 after 5 6 -> block 0        9: not full
    1 2 -> block 6        7 8 after 1 2 -> block 2

Example: ``find([5, 6, 7, 8, 4])`` returns ``[3, 0]``, and ``find([1, 2, 7, 8])`` returns ``[6]``.
"""


class PrefixCache:
    def __init__(self, block_size):
        self.block_size = block_size
        # >>> Your code: what the cache stores (1 line).
        self.blocks = {}  # by the block before it and the token ids in it
        # <<<

    def insert(self, tokens, table, num_written):
        # >>> Your code: store each full block that is written (4 lines).
        before = None
        for place in range(num_written // self.block_size):
            ids = tuple(tokens[place * self.block_size : (place + 1) * self.block_size])
            before = self.blocks.setdefault((before, ids), table[place])
        # <<<

    def find(self, tokens):
        # >>> Your code: follow the prompt from block to block (8 lines).
        found, before = [], None
        for place in range((len(tokens) - 1) // self.block_size):
            ids = tuple(tokens[place * self.block_size : (place + 1) * self.block_size])
            before = self.blocks.get((before, ids))
            if before is None:
                break
            found.append(before)
        return found
        # <<<
