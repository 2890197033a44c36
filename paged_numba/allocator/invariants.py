"""Invariants of a pool, its sequences and its prefix cache: what `BlockAllocator.check` verifies.

Each function raises AssertionError with a message that names the broken invariant and the sequence, block or node.
`check_prefixes` reads the private arrays of `PrefixCache`, since it verifies them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from .block_pool import BlockPool
from .prefix_cache import NONE, ROOT, PrefixCache
from .sequence import SequenceState


def check_sequences(
    sequences: Mapping[Hashable, SequenceState], num_blocks: int, block_size: int
) -> list[int]:
    """Verify that each block table has the length that its sequence needs, and holds blocks of the pool at most once.

    Returns
    -------
    list of int
        Number of tables that hold each block.
    """
    held = [0] * num_blocks
    for seq_id, sequence in sequences.items():
        table, expected = sequence.table.tolist(), -(-sequence.length // block_size)
        if len(table) != expected:
            raise AssertionError(
                f"sequence {seq_id!r} of {sequence.length} tokens needs {expected} blocks, has {table}"
            )
        released, kept = table[: sequence.num_released], table[sequence.num_released :]
        if released != [NONE] * sequence.num_released:
            raise AssertionError(f"sequence {seq_id!r} holds released blocks: {table}")
        if len(set(kept)) != len(kept):
            raise AssertionError(f"sequence {seq_id!r} holds a block twice: {table}")
        for block in kept:
            if not (0 <= block < num_blocks):
                raise AssertionError(f"sequence {seq_id!r} holds block {block}, not in the pool")
            held[block] += 1
    return held


def check_counts(
    sequences: Mapping[Hashable, SequenceState],
    swapped: Mapping[Hashable, SequenceState],
    block_size: int,
    num_tokens: int,
    num_empty_slots: int,
) -> None:
    """Verify the counts of tokens and of empty slots."""
    both = sequences.keys() & swapped.keys()
    if both:
        raise AssertionError(f"sequences {both} are both in the pool and swapped out")
    tokens = sum(sequence.length for sequence in sequences.values())
    if tokens != num_tokens:
        raise AssertionError(f"sequences have {tokens} tokens, {num_tokens} are counted")
    empty = count_empty_slots(sequences, block_size)
    if empty != num_empty_slots:
        raise AssertionError(f"{empty} slots are empty, {num_empty_slots} are counted")


def count_empty_slots(sequences: Mapping[Hashable, SequenceState], block_size: int) -> int:
    """Return how many slots of used blocks hold no token."""
    filled: dict[int, int] = {}
    for sequence in sequences.values():
        for place, block in enumerate(sequence.held(), sequence.num_released):
            inside = min(block_size, sequence.length - place * block_size)
            filled[block] = max(inside, filled.get(block, 0))
    return sum(block_size - count for count in filled.values())


def check_pool(pool: BlockPool, prefixes: PrefixCache | None, held: Sequence[int]) -> None:
    """Verify reference counts, and that each block is either used, empty or idle.

    Parameters
    ----------
    pool : BlockPool
    prefixes : PrefixCache or None
    held : sequence of int
        Number of tables that hold each block.
    """
    for block, (count, refs) in enumerate(zip(held, pool.refs, strict=True)):
        if count != refs:
            raise AssertionError(f"block {block} is in {count} tables, its reference count is {refs}")
    free = pool.empty_blocks()
    if len(set(free)) != len(free):
        raise AssertionError(f"a block is free twice: {sorted(free)}")
    for block in free:
        if held[block] != 0:
            raise AssertionError(f"block {block} is free and in {held[block]} tables")
    idle = [] if prefixes is None else prefixes.idle_blocks()
    for block in idle:
        if held[block] != 0:
            raise AssertionError(f"block {block} is idle and in {held[block]} tables")
    if set(free) & set(idle):
        raise AssertionError(f"blocks {set(free) & set(idle)} are empty and idle")
    used = sum(count > 0 for count in held)
    if used + len(free) + len(idle) != pool.num_blocks:
        raise AssertionError(
            f"{used} used, {len(idle)} idle and {len(free)} empty blocks do not make {pool.num_blocks}"
        )
    shared = sum(count > 1 for count in held)
    if shared != pool.num_shared:
        raise AssertionError(f"{shared} blocks are shared, {pool.num_shared} are counted")


def check_prefixes(prefixes: PrefixCache, in_use: Sequence[int]) -> None:
    """Verify that the tree, its maps and the list of idle blocks agree.

    Parameters
    ----------
    prefixes : PrefixCache
    in_use : sequence of int
        Nodes that sequences continue from, one for each sequence; NONE for none.
    """
    nodes, blocks = prefixes._nodes, prefixes._blocks
    for node in in_use:
        if node not in (ROOT, NONE) and prefixes._keys[node] is None:
            raise AssertionError(f"a sequence continues from node {node}, which was removed")
    for key, node in prefixes._found.items():
        if prefixes._keys[node] != key:
            raise AssertionError(f"node {node} is found by a wrong key")
    for node, block in enumerate(blocks):
        if block != NONE and nodes[block] != node:
            raise AssertionError(f"node {node} has block {block}, which has node {nodes[block]}")
    twins = {block for same in prefixes._twins.values() for block in same}
    for block, node in enumerate(nodes):
        if node != NONE:
            if block not in twins and blocks[node] != block:
                raise AssertionError(f"block {block} has node {node}, which has block {blocks[node]}")
            if block in twins and block not in prefixes._twins.get(node, ()):
                raise AssertionError(f"block {block} has node {node}, but is a twin of another node's block")
        if block in twins and prefixes.is_idle(block):
            raise AssertionError(f"block {block} is idle and a twin")
    uses = prefixes.count_uses(in_use)
    for node, count in enumerate(uses):
        if prefixes._uses[node] != count:
            raise AssertionError(f"node {node} has {count} uses, {prefixes._uses[node]} are counted")
    if len(prefixes._found) + len(prefixes._vacant) + 1 != len(uses):
        raise AssertionError("a node is neither found, nor vacant, nor the root")
    idle = prefixes.idle_blocks()
    if len(idle) != prefixes.num_idle:
        raise AssertionError(f"{len(idle)} blocks are idle, {prefixes.num_idle} are counted")
    places = {block: place for place, block in enumerate(idle)}
    for block, place in places.items():
        if nodes[block] == NONE:
            raise AssertionError(f"block {block} is idle and holds no prefix")
        head = blocks[prefixes._parents[nodes[block]]]
        if places.get(head, place) < place:
            raise AssertionError(
                f"block {head} is evicted before block {block}, which comes after it in a prefix"
            )
