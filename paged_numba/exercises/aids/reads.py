"""`reads_of`: which keys a thread block reads, for verdicts on an output that is NaN or 0 and does not show it."""

from __future__ import annotations

import contextvars
from collections.abc import Sequence
from typing import Any

from ... import lockstep

Slot = tuple[int, int]
"""A block and an offset in it."""


def reads_of(launch: Sequence[Any], thread_block: tuple[int, int, int], key_cache: Any) -> list[Slot]:
    """Return the slots of `key_cache` that a thread block loads, in order, each once.

    Parameters
    ----------
    launch : sequence
        Arguments of `lockstep.trace`: kernel, thread blocks, threads, and the kernel's arguments.
    thread_block : tuple of int
    key_cache : float32[num_blocks, block_size, num_kv_heads, head_dim]
    """
    # In a context of its own: a sanitizer that watches the answer must not count this launch, too.
    accesses = contextvars.Context().run(lockstep.trace, *launch, thread_block=thread_block)
    loaded = [one for one in accesses if one.array == "key_cache" and one.kind == "load"]
    slots = (byte // key_cache[0, 0].nbytes for access in loaded for byte in access.bytes)
    return list(dict.fromkeys(divmod(slot, key_cache.shape[1]) for slot in slots))


def what_reads(reads: Sequence[Slot], tables: Any, block_size: int, seq_lens: Sequence[int], seq: int,
               keys: range) -> str:  # fmt: skip
    """Return what is wrong with what a thread block reads, as the end of a sentence; nothing if it is right.

    Parameters
    ----------
    reads : sequence of Slot
        As from `reads_of`.
    tables : int32[num_seqs, columns]
    block_size : int
    seq_lens : sequence of int
    seq : int
        Sequence of the thread block.
    keys : range
        Keys that it must read.
    """
    if not reads:
        return "reads no key"
    owners = {
        (int(tables[other, token // block_size]), token % block_size): (other, token)
        for other, seq_len in enumerate(seq_lens)
        for token in range(seq_len)
    }
    for block, offset in reads:
        owner = owners.get((block, offset))
        if owner is None:
            return f"reads offset {offset} of block {block}, where no token is: its key is NaN"
        if owner[0] != seq:
            return f"reads key {owner[1]} of sequence {owner[0]}"
        if owner[1] not in keys:
            return f"reads key {owner[1]}"
    return ""
