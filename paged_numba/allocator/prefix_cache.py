"""Prefix cache: finds blocks that already hold the keys and values of a prompt's first tokens.

The cache is a tree. A node stands for a full block of tokens that follows the tokens of its parent. One dictionary maps
the parent's number and the bytes of the token ids to the node; for a first block, it maps the salt and the bytes. The
dictionary compares the bytes, not only their hashes, and a parent keeps its number while it has children, so a hash
collision cannot serve the keys of other tokens. A node may outlive its block: its children can be found again once a
sequence commits the same block again. Sequences that are computed at the same time may hold equal blocks: the node
keeps one of these blocks, and the others, its twins, can replace it.

A cached block that no sequence holds is idle. The least recently used idle block is evicted first, except that the end
of a prefix is evicted before its beginning, since a block is found only through the blocks before it.

Source: vLLM, "Automatic Prefix Caching"; Zheng et al., "SGLang: Efficient Execution of Structured
Language Model Programs" (RadixAttention), 2024.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

ROOT = 0
"""Number of the tree's root."""

NONE = -1
"""Marks a missing node or a missing block."""

NODE_BYTES = 4
"""Bytes of a node's number in its children's keys."""


class PrefixCache:
    """A tree of full blocks keyed by their token ids, and an LRU list of the blocks that no sequence holds.

    Attributes
    ----------
    num_idle : int
        Blocks that hold a prefix and that no sequence holds.
    num_evictions : int
        Blocks evicted so far.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_evictions = 0
        self._reset(num_blocks)

    def _reset(self, num_blocks: int) -> None:
        self.num_idle = 0
        self._found: dict[Hashable, int] = {}
        # Indexed by node; `_vacant` holds the numbers of removed nodes. `_uses` counts a node's children, its blocks,
        # and the sequences whose last committed block it stands for.
        self._keys: list[Any] = [None]
        self._parents = array("i", [NONE])
        self._blocks = array("i", [NONE])
        self._uses = array("i", [1])
        self._vacant = array("i")
        # Indexed by node: blocks in use that hold the same tokens as the node's block. One of them replaces the block
        # when the block is forgotten.
        self._twins: dict[int, dict[int, None]] = {}
        # Indexed by block: its node, and its neighbours in a ring of idle blocks. The block to evict first comes after
        # the sentinel `num_blocks`.
        self._nodes = array("i", [NONE]) * num_blocks
        self._next = array("i", [NONE]) * num_blocks
        self._before = array("i", [NONE]) * num_blocks
        self._next.append(num_blocks)
        self._before.append(num_blocks)

    def __contains__(self, block: int) -> bool:
        return self._nodes[block] != NONE

    def find(self, blocks_of_ids: Iterable[bytes], salt: Hashable) -> tuple[list[int], int]:
        """Return the blocks of the longest cached prefix, and the node of the last of them."""
        node, blocks = ROOT, []
        found, block_of, key = self._found, self._blocks, self._key
        for ids in blocks_of_ids:
            child = found.get(key(node, ids, salt))
            if child is None or block_of[child] == NONE:
                break
            node = child
            blocks.append(block_of[node])
        return blocks, node

    def insert(
        self, node: int, blocks_of_ids: Iterable[bytes], blocks: Sequence[int], salt: Hashable
    ) -> tuple[int, list[int]]:
        """Insert written blocks of a sequence below a node, so that `find` returns them.

        Parameters
        ----------
        node : int
        blocks_of_ids : iterable of bytes
            Token ids of each block.
        blocks : sequence of int
            The blocks; NONE for a block that was released.
        salt : hashable

        Returns
        -------
        node : int
            Node of the last block.
        replaced : list of int
            Idle blocks that held the same tokens; the cache has forgotten them.
        """
        replaced = []
        found, block_of, node_of, uses, key_of = (
            self._found, self._blocks, self._nodes, self._uses, self._key
        )  # fmt: skip
        for ids, block in zip(blocks_of_ids, blocks, strict=True):
            key = key_of(node, ids, salt)
            child = found.get(key)
            if child is None:
                found[key] = child = self._new_node(key, node)
                uses[node] += 1
            if block != NONE and node_of[block] == NONE:
                node_of[block] = child
                uses[child] += 1
                known = block_of[child]
                if known != NONE and not self.is_idle(known):
                    self._twins.setdefault(child, {})[block] = None
                else:
                    if known != NONE:
                        self.remove_idle(known)
                        self._forget(known)
                        replaced.append(known)
                    block_of[child] = block
            node = child
        return node, replaced

    def ids(self, node: int) -> list[bytes]:
        """Return the token ids of each block on the path from the root to a node."""
        blocks_of_ids = []
        while node not in (ROOT, NONE):
            key = self._keys[node]
            blocks_of_ids.append(key[1] if isinstance(key, tuple) else key[NODE_BYTES:])
            node = self._parents[node]
        return blocks_of_ids[::-1]

    def use(self, node: int) -> None:
        """Increment the uses of a node, for a sequence that continues from it; ignore NONE."""
        if node != NONE:
            self._uses[node] += 1

    def drop(self, node: int) -> None:
        """Decrement the uses of a node; remove it if they reach 0, and then its parent likewise."""
        if node == NONE:
            return
        uses = self._uses
        uses[node] -= 1
        while not uses[node]:
            del self._found[self._keys[node]]
            self._keys[node] = None
            self._vacant.append(node)
            node = self._parents[node]
            uses[node] -= 1

    # Idle blocks, in order of eviction: the order in which they were freed, but a chain's tail always before its head.

    def is_idle(self, block: int) -> bool:
        """Tell whether a block holds a prefix and no sequence holds it."""
        return self._next[block] != NONE

    def is_below_a_block(self, block: int) -> bool:
        """Tell whether `find` can reach a block: it is a first block, or the block before it is cached."""
        node = self._nodes[block]
        parent = NONE if node == NONE else self._parents[node]
        return parent == ROOT or (parent != NONE and self._blocks[parent] != NONE)

    def keep_or_forget(self, block: int, findable: bool) -> bool:
        """Decide whether a block whose last owner left stays cached, and forget it if not; return the decision.

        A block is not worth keeping if `find` cannot reach it, or if a twin holds the same tokens.
        """
        node = self._nodes[block]
        if node == NONE:
            return False
        if findable and node not in self._twins:
            return True
        self._forget(block)
        return False

    def add_idle(self, blocks: Iterable[int]) -> None:
        """Add blocks of a chain, head first, to the ring of idle blocks."""
        nodes, parents, block_of, following = self._nodes, self._parents, self._blocks, self._next
        right = len(nodes)
        for block in blocks:
            head = block_of[parents[nodes[block]]]
            if head != NONE and following[head] != NONE:
                right = head
            self._insert(block, right)
            right = block

    def remove_idle(self, block: int) -> None:
        """Remove a block from the ring of idle blocks."""
        following, before = self._next, self._before
        left, right = before[block], following[block]
        following[left], before[right] = right, left
        following[block] = NONE
        self.num_idle -= 1

    def renew(self, node: int) -> None:
        """Mark as most recently used the idle blocks that `find` can reach on the path to a node."""
        idle: list[int] = []
        while node not in (ROOT, NONE):
            block = self._blocks[node]
            if block == NONE:
                idle.clear()
            elif self.is_idle(block):
                idle.append(block)
            node = self._parents[node]
        for block in idle:
            self.remove_idle(block)
            self._insert(block, len(self._nodes))

    def evict(self, count: int) -> list[int]:
        """Evict the least recently used idle blocks, and return them."""
        end, freed = len(self._nodes), []
        for _ in range(count):
            block = self._next[end]
            self.remove_idle(block)
            self._forget(block)
            freed.append(block)
        self.num_evictions += count
        return freed

    def clear(self) -> list[int]:
        """Forget everything; return the blocks that were idle. No sequence may continue from a node afterwards."""
        idle = self.idle_blocks()
        self._reset(len(self._nodes))
        return idle

    def idle_blocks(self) -> list[int]:
        """Return the idle blocks in order of eviction."""
        end = len(self._nodes)
        block, blocks = self._next[end], []
        while block != end:
            blocks.append(block)
            block = self._next[block]
        return blocks

    # Helpers.

    def _key(self, parent: int, ids: bytes, salt: Hashable) -> Hashable:
        """Return the key of a node in the dictionary."""
        return (salt, ids) if parent == ROOT else parent.to_bytes(NODE_BYTES, "little") + ids

    def _new_node(self, key: Hashable, parent: int) -> int:
        if self._vacant:
            node = self._vacant.pop()
            self._keys[node], self._parents[node] = key, parent
            return node
        self._keys.append(key)
        self._parents.append(parent)
        self._blocks.append(NONE)
        self._uses.append(0)
        return len(self._keys) - 1

    def _insert(self, block: int, right: int) -> None:
        """Insert a block into the ring of idle blocks, before another."""
        left = self._before[right]
        self._next[left] = self._before[right] = block
        self._before[block], self._next[block] = left, right
        self.num_idle += 1

    def _forget(self, block: int) -> None:
        node = self._nodes[block]
        twins = self._twins.get(node, {})
        if self._blocks[node] == block:
            self._blocks[node] = twins.popitem()[0] if twins else NONE
        else:
            del twins[block]
        if not twins:
            self._twins.pop(node, None)
        self._nodes[block] = NONE
        self.drop(node)
