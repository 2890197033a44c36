"""Invariants of a pool, its sequences and its prefix cache: what `BlockAllocator.check` verifies.

Each function raises AssertionError with a message that names the broken invariant and the sequence, block or node.
`check_prefixes` reads the private arrays of `PrefixCache`, since it verifies them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

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
        assert len(table) == expected, (
            f"sequence {seq_id!r} of {sequence.length} tokens needs {expected} blocks, has {table}"
        )
        released, kept = table[: sequence.num_released], table[sequence.num_released :]
        assert released == [NONE] * sequence.num_released, (
            f"sequence {seq_id!r} holds released blocks: {table}"
        )
        assert len(set(kept)) == len(kept), f"sequence {seq_id!r} holds a block twice: {table}"
        for block in kept:
            assert 0 <= block < num_blocks, f"sequence {seq_id!r} holds block {block}, not in the pool"
            held[block] += 1
    return held


def check_counts(
    sequences: Mapping[Hashable, SequenceState],
    swapped: Mapping[Hashable, SequenceState],
    block_size: int,
    num_tokens: int,
    num_empty_slots: int,
) -> None:
    """Verify that sequences that share a block fill the same part of it, and the counts of tokens and empty slots."""
    both = sequences.keys() & swapped.keys()
    assert not both, f"sequences {both} are both in the pool and swapped out"
    filled: dict[int, int] = {}
    for sequence in sequences.values():
        for place, block in enumerate(sequence.held(), sequence.num_released):
            inside = min(block_size, sequence.length - place * block_size)
            assert filled.setdefault(block, inside) == inside, (
                f"block {block} holds {inside} tokens of one sequence and {filled[block]} of another"
            )
    tokens = sum(sequence.length for sequence in sequences.values())
    assert tokens == num_tokens, f"sequences have {tokens} tokens, {num_tokens} are counted"
    empty = sum(block_size - count for count in filled.values())
    assert empty == num_empty_slots, f"{empty} slots are empty, {num_empty_slots} are counted"


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
        assert count == refs, f"block {block} is in {count} tables, its reference count is {refs}"
    free = pool.empty_blocks()
    assert len(set(free)) == len(free), f"a block is free twice: {sorted(free)}"
    for block in free:
        assert held[block] == 0, f"block {block} is free and in {held[block]} tables"
    idle = [] if prefixes is None else prefixes.idle_blocks()
    for block in idle:
        assert held[block] == 0, f"block {block} is idle and in {held[block]} tables"
    assert not set(free) & set(idle), f"blocks {set(free) & set(idle)} are empty and idle"
    used = sum(count > 0 for count in held)
    assert used + len(free) + len(idle) == pool.num_blocks, (
        f"{used} used, {len(idle)} idle and {len(free)} empty blocks do not make {pool.num_blocks}"
    )
    shared = sum(count > 1 for count in held)
    assert shared == pool.num_shared, f"{shared} blocks are shared, {pool.num_shared} are counted"


def check_prefixes(prefixes: PrefixCache, in_use: Iterable[int]) -> None:
    """Verify that the tree, its maps and the list of idle blocks agree.

    Parameters
    ----------
    prefixes : PrefixCache
    in_use : iterable of int
        Nodes that sequences continue from, one for each sequence.
    """
    nodes, blocks, uses = prefixes._nodes, prefixes._blocks, [0] * len(prefixes._keys)
    uses[ROOT] = 1
    for node in in_use:
        assert node == ROOT or prefixes._keys[node] is not None, (
            f"a sequence continues from node {node}, which was removed"
        )
        uses[node] += 1
    for key, node in prefixes._found.items():
        assert prefixes._keys[node] == key, f"node {node} is found by a wrong key"
        uses[prefixes._parents[node]] += 1
    for node, block in enumerate(blocks):
        assert block == NONE or nodes[block] == node, (
            f"node {node} has block {block}, which has node {nodes[block]}"
        )
    twins = {block for same in prefixes._twins.values() for block in same}
    for block, node in enumerate(nodes):
        if node != NONE:
            assert block in twins or blocks[node] == block, (
                f"block {block} has node {node}, which has block {blocks[node]}"
            )
            assert block not in twins or block in prefixes._twins.get(node, ()), (
                f"block {block} has node {node}, but is a twin of another node's block"
            )
            uses[node] += 1
        assert block not in twins or not prefixes.is_idle(block), f"block {block} is idle and a twin"
    for node, count in enumerate(uses):
        assert prefixes._uses[node] == count, (
            f"node {node} has {count} uses, {prefixes._uses[node]} are counted"
        )
    assert len(prefixes._found) + len(prefixes._vacant) + 1 == len(uses), (
        "a node is neither found, nor vacant, nor the root"
    )
    idle = prefixes.idle_blocks()
    assert len(idle) == prefixes.num_idle, f"{len(idle)} blocks are idle, {prefixes.num_idle} are counted"
    places = {block: place for place, block in enumerate(idle)}
    for block, place in places.items():
        assert nodes[block] != NONE, f"block {block} is idle and holds no prefix"
        head = blocks[prefixes._parents[nodes[block]]]
        assert places.get(head, place) >= place, (
            f"block {head} is evicted before block {block}, which comes after it in a prefix"
        )
