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

from .transactions import RECOUNT, UndoLog

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

    def __init__(self, num_blocks: int, undo: UndoLog) -> None:
        self.num_evictions = 0
        self._undo = undo
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
        replaced: list[int] = []
        placed: list[tuple[int, int, int]] = []
        left = max(0, len(self._vacant) - len(blocks))
        vacant = [(node, self._parents[node]) for node in self._vacant[left:]]
        self._undo.append((self._uninsert, blocks, placed, left, vacant, len(self._keys)))
        found, block_of, node_of, uses, key_of = (
            self._found, self._blocks, self._nodes, self._uses, self._key
        )  # fmt: skip
        for ids, block in zip(blocks_of_ids, blocks, strict=True):
            key = key_of(node, ids, salt)
            child = found.get(key)
            if child is None:
                child = self._new_node(key, node)
                found[key], uses[node] = child, uses[node] + 1
                if block != NONE and node_of[block] == NONE:
                    block_of[child], node_of[block], uses[child] = block, child, 1
            elif block != NONE and node_of[block] == NONE:
                known = block_of[child]
                placed.append((block, child, known))
                node_of[block] = child
                uses[child] += 1
                if known != NONE and not self.is_idle(known):
                    self._twins.setdefault(child, {})[block] = None
                else:
                    if known != NONE:
                        self.remove_idle([known])
                        self._forget([known])
                        replaced.append(known)
                    block_of[child] = block
            node = child
        return node, replaced

    def ids(self, node: int) -> list[bytes]:
        """Return the token ids of each block on the path from the root to a node."""
        blocks_of_ids = []
        while node not in (ROOT, NONE):
            blocks_of_ids.append(self._ids_of(node))
            node = self._parents[node]
        return blocks_of_ids[::-1]

    def ancestor(self, node: int, steps: int) -> tuple[int, bytes]:
        """Return the node some steps above a node, and the token ids of the block after it on the path."""
        child = node
        for _ in range(steps):
            child, node = node, self._parents[node]
        return node, self._ids_of(child)

    def use(self, node: int) -> None:
        """Increment the uses of a node, for a sequence that continues from it; ignore NONE."""
        if node != NONE:
            self._undo.append(RECOUNT)
            self._uses[node] += 1

    def drop(self, node: int) -> None:
        """Decrement the uses of a node; remove it if they reach 0, and then its parent likewise."""
        if node == NONE:
            return
        if self._uses[node] > 1:
            self._undo.append(RECOUNT)
            self._uses[node] -= 1
            return
        removed: list[tuple[int, Any]] = []
        self._undo.append((self._unremove, removed, len(self._vacant)))
        self._drop(node, removed)

    # Idle blocks, in order of eviction: the order in which they were freed, but a chain's tail always before its head.

    def is_idle(self, block: int) -> bool:
        """Tell whether a block holds a prefix and no sequence holds it."""
        return self._next[block] != NONE

    def is_below_a_block(self, block: int) -> bool:
        """Tell whether `find` can reach a block: it is a first block, or the block before it is cached."""
        node = self._nodes[block]
        parent = NONE if node == NONE else self._parents[node]
        return parent == ROOT or (parent != NONE and self._blocks[parent] != NONE)

    def keep(self, blocks: Sequence[int], findable: bool) -> list[int]:
        """Keep blocks whose last owner left; forget those that are not worth keeping.

        A block is not worth keeping if `find` cannot reach it, or if a twin holds the same tokens.

        Parameters
        ----------
        blocks : sequence of int
            Blocks of a chain, the last first.
        findable : bool
            Whether `find` can reach the chain.

        Returns
        -------
        list of int
            The blocks that hold no prefix now, in the order of `blocks`.
        """
        node_of, twins = self._nodes, self._twins
        idle, others, forgotten = [], [], []
        for block in blocks:
            node = node_of[block]
            if node != NONE and findable and node not in twins:
                idle.append(block)
            else:
                others.append(block)
                if node != NONE:
                    forgotten.append(block)
        if forgotten:
            self._forget(forgotten)
        if idle:
            self.add_idle(idle[::-1])
        return others

    def add_idle(self, blocks: Sequence[int]) -> None:
        """Add blocks of a chain, head first, to the ring of idle blocks."""
        nodes, parents, block_of, following, before = (
            self._nodes, self._parents, self._blocks, self._next, self._before
        )  # fmt: skip
        self._undo.append((self._unlink_again, blocks, [before[block] for block in blocks], self.num_idle))
        right = len(nodes)
        for block in blocks:
            head = block_of[parents[nodes[block]]]
            if head != NONE and following[head] != NONE:
                right = head
            left = before[right]
            following[left], before[right], before[block], following[block] = block, block, left, right
            right = block
        self.num_idle += len(blocks)

    def remove_idle(self, blocks: Sequence[int]) -> None:
        """Remove blocks from the ring of idle blocks."""
        following, before = self._next, self._before
        self._undo.append((self._link_again, blocks, self.num_idle))
        for block in blocks:
            left, right = before[block], following[block]
            following[left], before[right], following[block] = right, left, NONE
        self.num_idle -= len(blocks)

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
        self.remove_idle(idle)
        self.add_idle(idle[::-1])

    def evict(self, count: int) -> list[int]:
        """Evict the least recently used idle blocks, and return them."""
        following = self._next
        block, blocks = len(self._nodes), []
        for _ in range(count):
            block = following[block]
            blocks.append(block)
        self._undo.append((self._unevict, blocks, self.num_evictions))
        self.num_evictions += count
        self.remove_idle(blocks)
        self._forget(blocks)
        return blocks

    def give_up(self, block: int) -> None:
        """Forget a block in use, whose only sequence will overwrite it; counts as an eviction."""
        self._undo.append((self._unevict, [block], self.num_evictions))
        self.num_evictions += 1
        self._forget([block])

    def evicted(self) -> list[int]:
        """Return the blocks that were evicted since the log began."""
        entries = [entry for entry in self._undo if entry[0] == self._unevict]
        return [block for _, blocks, _ in entries for block in blocks]

    def clear(self) -> list[int]:
        """Forget everything; return the blocks that were idle. No sequence may continue from a node afterwards."""
        idle = self.idle_blocks()
        self._undo.append((self.__dict__.update, self.__dict__.copy()))
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

    def _ids_of(self, node: int) -> bytes:
        key = self._keys[node]
        ids: bytes = key[1] if isinstance(key, tuple) else key[NODE_BYTES:]
        return ids

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

    def _forget(self, blocks: Sequence[int]) -> None:
        """Forget that blocks hold prefixes; a twin takes a block's place."""
        node_of, block_of, twins_of = self._nodes, self._blocks, self._twins
        forgotten: list[tuple[int, int, int, tuple[int, ...]]] = []
        removed: list[tuple[int, Any]] = []
        self._undo.append((self._remember, forgotten))
        self._undo.append((self._unremove, removed, len(self._vacant)))
        for block in blocks:
            node = node_of[block]
            known, twins = block_of[node], twins_of.get(node)
            if twins is None:
                forgotten.append((block, node, known, ()))
                block_of[node] = NONE
            else:
                forgotten.append((block, node, known, tuple(twins)))
                if known == block:
                    block_of[node] = twins.popitem()[0]
                else:
                    del twins[block]
                if not twins:
                    del twins_of[node]
            node_of[block] = NONE
            self._drop(node, removed)

    def _drop(self, node: int, removed: list[tuple[int, Any]]) -> None:
        """Do the work of `drop`, and add the removed nodes and their keys to `removed`."""
        uses, keys = self._uses, self._keys
        uses[node] -= 1
        while not uses[node]:
            key = keys[node]
            removed.append((node, key))
            self._vacant.append(node)
            del self._found[key]
            keys[node] = None
            node = self._parents[node]
            uses[node] -= 1

    # Undoing changes. The uses of nodes need no log: `recount` counts them again.

    def count_uses(self, in_use: Iterable[int]) -> list[int]:
        """Return how many children, blocks and sequences each node has.

        Parameters
        ----------
        in_use : iterable of int
            Nodes that sequences continue from, one for each sequence; NONE for none.
        """
        uses = [0] * len(self._keys)
        # The root is never removed.
        uses[ROOT] = 1
        for node in in_use:
            if node != NONE:
                uses[node] += 1
        for node in self._found.values():
            uses[self._parents[node]] += 1
        for node in self._nodes:
            if node != NONE:
                uses[node] += 1
        return uses

    def recount(self, in_use: Iterable[int]) -> None:
        """Set the uses of all nodes to what `count_uses` returns."""
        self._uses[:] = array("i", self.count_uses(in_use))

    def _uninsert(
        self,
        blocks: Sequence[int],
        placed: list[tuple[int, int, int]],
        left: int,
        vacant: list[tuple[int, int]],
        num_nodes: int,
    ) -> None:
        reused = vacant[len(self._vacant) - left :]
        new = {*(node for node, _ in reused), *range(num_nodes, len(self._keys))}
        for node in new:
            key = self._keys[node]
            if key is not None and self._found.get(key) == node:
                del self._found[key]
        for block in blocks:
            if block != NONE and self._nodes[block] in new:
                self._nodes[block] = NONE
        for block, child, known in reversed(placed):
            self._nodes[block], self._blocks[child] = NONE, known
            twins = self._twins.get(child, {})
            twins.pop(block, None)
            if not twins:
                self._twins.pop(child, None)
        for node, parent in reused:
            # A removed node may be put back later, below its former parent.
            self._keys[node], self._blocks[node], self._parents[node] = None, NONE, parent
        self._vacant[left:] = array("i", (node for node, _ in vacant))
        for by_node in (self._keys, self._parents, self._blocks, self._uses):
            del by_node[num_nodes:]

    def _unremove(self, removed: list[tuple[int, Any]], num_vacant: int) -> None:
        for node, key in removed:
            self._keys[node] = key
            self._found[key] = node
        del self._vacant[num_vacant:]

    def _remember(self, forgotten: list[tuple[int, int, int, tuple[int, ...]]]) -> None:
        for block, node, known, twins in reversed(forgotten):
            self._nodes[block], self._blocks[node] = node, known
            if twins:
                self._twins[node] = dict.fromkeys(twins)

    def _unevict(self, blocks: list[int], num_evictions: int) -> None:
        self.num_evictions = num_evictions

    def _link_again(self, blocks: Sequence[int], num_idle: int) -> None:
        following, before = self._next, self._before
        for block in reversed(blocks):
            if following[block] == NONE:
                # A removed block still has its left neighbour, which by now has its right neighbour again.
                left = before[block]
                right = following[left]
                following[left], before[right], following[block] = block, block, right
        self.num_idle = num_idle

    def _unlink_again(self, blocks: Sequence[int], lefts: list[int], num_idle: int) -> None:
        following, before = self._next, self._before
        for block, old in zip(reversed(blocks), reversed(lefts), strict=True):
            if following[block] != NONE:
                left, right = before[block], following[block]
                following[left], before[right], following[block] = right, left, NONE
            before[block] = old
        self.num_idle = num_idle
