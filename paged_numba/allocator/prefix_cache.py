"""Which blocks hold which prefix: what the allocator serves again instead of having it computed.

A tree: a node is a full block of tokens after those of its parent. It is found in one dictionary, by its parent
and the bytes of its token ids (by the salt, for the first block). Equal hashes are not enough there, the bytes
themselves are compared, and a parent's number stands for one prefix as long as anything is below it: no collision
can serve other keys. A node may outlive its block, so that what is below it is found again once the block is
written again. Sequences computed side by side may hold equal blocks: one of them is found, and when it goes, the next.
Source: vLLM, "Automatic Prefix Caching"; Zheng et al., "SGLang: Efficient Execution of Structured
Language Model Programs" (RadixAttention), 2024.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

ROOT = 0
NONE = -1
NODE_BYTES = 4


class PrefixCache:
    """Blocks by what they hold, and those that nobody holds by when they were last used.

    Attributes
    ----------
    num_idle : int
        Blocks that hold a prefix and belong to no sequence.
    num_evictions : int
        Blocks that were given up for other tokens so far.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_evictions = 0
        self._start(num_blocks)

    def _start(self, num_blocks: int) -> None:
        self.num_idle = 0
        self._found: dict[Hashable, int] = {}
        # By node. Uses: its children, its block, and the sequences whose last known node it is.
        self._keys: list[Any] = [None]
        self._parents = array("i", [NONE])
        self._blocks = array("i", [NONE])
        self._uses = array("i", [1])
        self._vacant = array("i")
        # Blocks in use that hold the same tokens as a node's block: one of them takes its place when it goes.
        self._twins: dict[int, dict[int, None]] = {}
        # By block; and idle blocks as a ring, the least recently used after the sentinel `num_blocks`.
        self._nodes = array("i", [NONE]) * num_blocks
        self._next = array("i", [NONE]) * num_blocks
        self._before = array("i", [NONE]) * num_blocks
        self._next.append(num_blocks)
        self._before.append(num_blocks)

    def __contains__(self, block: int) -> bool:
        return self._nodes[block] != NONE

    def find(self, blocks_of_ids: Iterable[bytes], salt: Hashable) -> tuple[list[int], int]:
        """Return the blocks of the longest prefix that is here, and the node of the last."""
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
        """Make written blocks of a sequence findable below a node.

        Parameters
        ----------
        node : int
        blocks_of_ids : iterable of bytes
        blocks : sequence of int
            NONE for one that is no more.
        salt : hashable

        Returns
        -------
        node : int
            Of the last.
        replaced : list of int
            Idle blocks that held the same tokens.
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
                        self.wake(known)
                        self._forget(known)
                        replaced.append(known)
                    block_of[child] = block
            node = child
        return node, replaced

    def ids(self, node: int) -> list[bytes]:
        """Return the token ids of the blocks down to a node."""
        blocks_of_ids = []
        while node not in (ROOT, NONE):
            key = self._keys[node]
            blocks_of_ids.append(key[1] if isinstance(key, tuple) else key[NODE_BYTES:])
            node = self._parents[node]
        return blocks_of_ids[::-1]

    def use(self, node: int) -> None:
        """Keep a node, for a sequence that goes on from it; NONE is no node."""
        if node != NONE:
            self._uses[node] += 1

    def drop(self, node: int) -> None:
        """Take back a use; a node that has none goes, and so may its parent."""
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

    # Idle blocks, in the order in which they were freed, but a chain's tail always before its head, without which it
    # could not be found.

    def is_idle(self, block: int) -> bool:
        """Tell whether a block holds a prefix and belongs to no sequence."""
        return self._next[block] != NONE

    def is_below_a_block(self, block: int) -> bool:
        """Tell whether the block before one of a prefix is there; what comes after one that is gone is not found."""
        node = self._nodes[block]
        parent = NONE if node == NONE else self._parents[node]
        return parent == ROOT or (parent != NONE and self._blocks[parent] != NONE)

    def keep(self, block: int, findable: bool) -> bool:
        """Tell whether a block that no sequence has any more is kept; another that holds the same will do, too."""
        node = self._nodes[block]
        if node == NONE:
            return False
        if findable and node not in self._twins:
            return True
        self._forget(block)
        return False

    def rest(self, blocks: Iterable[int]) -> None:
        """Note that no sequence has some blocks of a chain any more, given from its head on."""
        nodes, parents, block_of, following = self._nodes, self._parents, self._blocks, self._next
        right = len(nodes)
        for block in blocks:
            head = block_of[parents[nodes[block]]]
            if head != NONE and following[head] != NONE:
                right = head
            self._insert(block, right)
            right = block

    def wake(self, block: int) -> None:
        """Note that a sequence has an idle block."""
        following, before = self._next, self._before
        left, right = before[block], following[block]
        following[left], before[right] = right, left
        following[block] = NONE
        self.num_idle -= 1

    def renew(self, node: int) -> None:
        """Have the idle blocks down to a node that can be found given up after all others."""
        idle: list[int] = []
        while node not in (ROOT, NONE):
            block = self._blocks[node]
            if block == NONE:
                idle.clear()
            elif self.is_idle(block):
                idle.append(block)
            node = self._parents[node]
        for block in idle:
            self.wake(block)
            self._insert(block, len(self._nodes))

    def evict(self, count: int) -> list[int]:
        """Forget the idle blocks that were used least recently, and return them."""
        end, freed = len(self._nodes), []
        for _ in range(count):
            block = self._next[end]
            self.wake(block)
            self._forget(block)
            freed.append(block)
        self.num_evictions += count
        return freed

    def clear(self) -> list[int]:
        """Forget everything; return the blocks that were idle. No sequence may go on from a node."""
        idle = self.idle()
        self._start(len(self._nodes))
        return idle

    def idle(self) -> list[int]:
        """Return the idle blocks, the least recently used first."""
        end = len(self._nodes)
        block, blocks = self._next[end], []
        while block != end:
            blocks.append(block)
            block = self._next[block]
        return blocks

    # Pieces.

    def _key(self, parent: int, ids: bytes, salt: Hashable) -> Hashable:
        """Return what a node is found by."""
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
        """Put a block into the ring, before another."""
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
