"""Which blocks hold which prefix: what the allocator serves again instead of having it computed.

A tree for each salt: a node is a full block of tokens after those of its parent. A step down compares the
token ids themselves, so that no collision of hashes can serve other keys. Source: Zheng et al., "SGLang:
Efficient Execution of Structured Language Model Programs" (RadixAttention), 2024; vLLM, "Automatic Prefix
Caching".
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


class Node:
    """A full block of tokens, after those of its parents."""

    __slots__ = ("alive", "block", "children", "key", "parent")

    def __init__(self, parent: Node | None, key: tuple[int, ...], block: int) -> None:
        self.parent = parent
        self.key = key
        self.block = block
        self.children: dict[tuple[int, ...], Node] = {}
        self.alive = True


class PrefixCache:
    """Blocks by what they hold, and those that nobody holds by when they were last used.

    Attributes
    ----------
    evictions : int
        Blocks that were given up for other tokens so far.
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.evictions = 0
        self._roots: dict[Hashable, Node] = {}
        self._nodes: dict[int, Node] = {}
        # In the order in which they were freed: a sequence's last block first, so that tails go before heads.
        self._idle: dict[int, None] = {}

    def __contains__(self, block: int) -> bool:
        return block in self._nodes

    @property
    def num_idle(self) -> int:
        """Blocks that hold a prefix and belong to no sequence."""
        return len(self._idle)

    def is_idle(self, block: int) -> bool:
        """Tell whether a block holds a prefix and belongs to no sequence."""
        return block in self._idle

    def find(self, tokens: Sequence[int], salt: Hashable) -> list[int]:
        """Return the blocks of the longest known prefix; at least one token is left to compute."""
        node, blocks = self._roots.get(salt), []
        for place in range((len(tokens) - 1) // self.block_size):
            node = None if node is None else node.children.get(self._key(tokens, place))
            if node is None:
                break
            blocks.append(node.block)
        return blocks

    def insert(
        self, table: Sequence[int], tokens: Sequence[int], salt: Hashable, known: Node | None, start: int
    ) -> tuple[Node, int]:
        """Make the full blocks of a sequence findable; one whose tokens another block holds stays unknown.

        Parameters
        ----------
        table, tokens
            The sequence's.
        salt : hashable
        known, start : Node or None, int
            What the last call for this sequence returned.

        Returns
        -------
        Node, int
            Of the last full block, and how many there are.
        """
        node = known
        if node is None or not node.alive:
            node, start = self._roots.setdefault(salt, Node(None, (), -1)), 0
        full = len(tokens) // self.block_size
        for place in range(start, full):
            key = self._key(tokens, place)
            child = node.children.get(key)
            if child is None:
                child = Node(node, key, table[place])
                node.children[key] = self._nodes[table[place]] = child
            node = child
        return node, full

    def hold(self, block: int) -> None:
        """Note that a sequence has a block."""
        self._idle.pop(block, None)

    def rest(self, block: int) -> None:
        """Note that no sequence has a block any more."""
        self._idle[block] = None

    def evict(self) -> list[int]:
        """Forget the idle block that was used least recently; return the blocks that hold nothing now."""
        block = next(iter(self._idle))
        freed = self._unlink(self._nodes[block])
        self.evictions += len(freed)
        return freed

    def clear(self) -> list[int]:
        """Forget everything; return the blocks that were idle."""
        freed = list(self._idle)
        for node in self._nodes.values():
            node.alive = False
        for root in self._roots.values():
            root.alive = False
        self._roots, self._nodes, self._idle = {}, {}, {}
        return freed

    def _unlink(self, node: Node) -> list[int]:
        """Take a node and all below it out of the tree; return the blocks among them that were idle."""
        if node.parent is not None:
            node.parent.children.pop(node.key, None)
        freed, below = [], [node]
        while below:
            gone = below.pop()
            gone.alive = False
            below.extend(gone.children.values())
            del self._nodes[gone.block]
            if gone.block in self._idle:
                del self._idle[gone.block]
                freed.append(gone.block)
        return freed

    def _key(self, tokens: Sequence[int], place: int) -> tuple[int, ...]:
        return tuple(tokens[place * self.block_size : (place + 1) * self.block_size])

    def check(self) -> None:
        """Verify that the tree and the maps agree.

        Raises
        ------
        AssertionError
            Says what does not.
        """
        found: dict[int, Node] = {}
        below = list(self._roots.values())
        while below:
            node = below.pop()
            assert node.alive, f"block {node.block} is in the tree, and forgotten"
            for key, child in node.children.items():
                assert child.parent is node, f"block {child.block} has another parent"
                assert child.key == key, f"block {child.block} is found for tokens that it does not hold"
                assert child.block not in found, f"block {child.block} is in the tree twice"
                found[child.block] = child
                below.append(child)
        assert found.keys() == self._nodes.keys(), "the tree and the map of blocks differ"
        assert self._idle.keys() <= found.keys(), "an idle block holds no prefix"
