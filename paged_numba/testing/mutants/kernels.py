"""Deliberately wrong kernels: a property test that misses one of them proves nothing."""

from __future__ import annotations

from .attention import ATTENTION_MUTANTS
from .kernel_mutant import KernelMutant, build, installed

__all__ = ["KERNEL_MUTANTS", "KernelMutant", "build", "installed", "kernel"]

KERNEL_MUTANTS = (
    *ATTENTION_MUTANTS,
    KernelMutant("splits weigh the same", "merge_splits",
                 "weight = split_total * math.exp(split_state[row, q_head] - largest) / total", "weight = float32(1)",
                 "attend", "split"),
    KernelMutant("sum of a split forgotten", "merge_splits", "weight = split_total * math.exp(", "weight = math.exp(",
                 "attend", "split"),
    KernelMutant("splits merged by their LSEs", "merge_splits",
                 "weight = split_total * math.exp(split_state[row, q_head] - largest)",
                 "weight = math.exp(split_state[row, q_head] + math.log(split_total) - largest)", "large scores"),
    KernelMutant("block leaves its LSE to the merge", "attention_block", "            lse[row, q_head] = largest\n",
                 "            lse[row, q_head] = largest + math.log(total)\n", "large scores"),
    KernelMutant("block leaves no sum to the merge", "attention_block", "lse[row, num_q_heads + q_head] = total",
                 "lse[row, num_q_heads + q_head] = float32(1)", "large scores"),
    KernelMutant("sum of the splits forgotten", "merge_splits", "- largest) / total", "- largest)", "attend", "split"),
    KernelMutant("largest score of the last split", "merge_splits", "largest = max(largest, split_state[row, q_head])",
                 "largest = split_state[row, q_head]", "large scores"),
    KernelMutant("split without keys counted", "merge_splits", "if split_total != 0:  # a", "if True:  # a",
                 "attend infinite", "split"),
    KernelMutant("split without keys multiplied", "merge_splits", "if split_total != 0:\n", "if True:\n",
                 "attend infinite", "split"),
    KernelMutant("last split left out", "merge_splits", "for row in range(first, end):\n        split_total",
                 "for row in range(first, end - 1):\n        split_total", "attend", "split"),
    KernelMutant("sink of the splits forgotten", "merge_splits",
                 "total = math.exp(sink - largest) if sink > NEG_INF else float32(0)", "total = float32(0)",
                 "attend", "split"),
    KernelMutant("sink counted once a split", "merge_splits",
                 "    total = math.exp(sink - largest) if sink > NEG_INF else float32(0)\n"
                 "    for row in range(first, end):\n",
                 "    total = float32(0)\n    for row in range(first, end):\n"
                 "        total += math.exp(sink - largest) if sink > NEG_INF else float32(0)\n",
                 "attend", "split"),
    KernelMutant("LSE of the merge in base 2", "merge_states", "largest + math.log(total)",
                 "largest + math.log2(total)", "merge"),
    KernelMutant("LSE of the merge is the larger one", "merge_states", "largest + math.log(total)", "largest", "merge"),
    KernelMutant("-inf less -inf", "merge_states",
                 "weight_a = math.exp(of_a - largest) if of_a != NEG_INF else float32(0)",
                 "weight_a = math.exp(of_a - largest)", "merge"),
    KernelMutant("empty sets multiply NaN", "merge_states", "if weight_a != 0:", "if True:", "merge"),
    KernelMutant("slot -1 wraps to the last block", "write_kv", "if slot < 0:", "if slot < -1:", "write"),
    KernelMutant("slot 0 skipped", "write_kv", "if slot < 0:", "if slot <= 0:", "write"),
    KernelMutant("off by one at a block boundary", "write_kv", "slot % block_size", "(slot + 1) % block_size", "write"),
    KernelMutant("every thread block writes to the first KV heads", "write_kv",
                 "key_cache[kv_block, offset, kv_head, dim] =", "key_cache[kv_block, offset, cuda.threadIdx.y, dim] =",
                 "write"),
    KernelMutant("key written as value", "write_kv", "= value[token, kv_head, dim]", "= key[token, kv_head, dim]",
                 "write"),
    KernelMutant("last KV head left out", "write_kv", "kv_head >= key.shape[1]", "kv_head >= max(1, key.shape[1] - 1)",
                 "write"),
    KernelMutant("last dimension left out", "write_kv", "if dim < key.shape[2]", "if dim < key.shape[2] - 1", "write"),
    KernelMutant("as many dimensions of a value as of a key", "write_kv", "if dim < value.shape[2]",
                 "if dim < min(key.shape[2], value.shape[2])", "write"),
    KernelMutant("as many dimensions of a value as of a key", "write_kv_packed", "if dim < value.shape[2]",
                 "if dim < min(key.shape[2], value.shape[2])", "write"),
    KernelMutant("as many dimensions of a value as of a key", "gather_kv", "if dim < value.shape[2]",
                 "if dim < min(key.shape[2], value.shape[2])", "gather"),
    KernelMutant("as many dimensions of a value as of a key", "gather_kv_packed", "if dim < value.shape[2]",
                 "if dim < min(key.shape[2], value.shape[2])", "gather packed"),
    KernelMutant("as many dimensions of a value as of a key", "copy_blocks", "if dim < value_cache.shape[3]",
                 "if dim < min(key_cache.shape[3], value_cache.shape[3])", "copy"),
    KernelMutant("slots count up from the first", "write_kv", "slot_mapping[token]", "slot_mapping[0] + token",
                 "write"),
    KernelMutant("blocks in physical order", "gather_kv", "block_table[position // block_size]",
                 "block_table[0] + position // block_size", "gather"),
    KernelMutant("off by one at a block boundary", "gather_kv", "block_table[position // block_size]",
                 "block_table[max(0, position - 1) // block_size]", "gather"),
    KernelMutant("slot -1 wraps to the last block", "write_kv_packed", "if slot < 0:", "if slot < -1:", "write"),
    KernelMutant("token and piece swapped", "write_kv_packed", "dim // piece_size, offset, dim % piece_size]",
                 "offset % key_cache.shape[2], offset, dim % piece_size]", "write"),
    KernelMutant("numbers of a piece taken for pieces", "write_kv_packed",
                 "dim // piece_size, offset, dim % piece_size]",
                 "dim % key_cache.shape[2], offset, dim // key_cache.shape[2]]", "write"),
    KernelMutant("values taken from the key", "write_kv_packed", "= value[token, kv_head, dim]",
                 "= key[token, kv_head, dim]", "write"),
    KernelMutant("blocks in physical order", "gather_kv_packed", "block_table[position // block_size]",
                 "block_table[0] + position // block_size", "gather packed"),
    KernelMutant("last dimension left out", "gather_kv_packed", "if dim < key.shape[2]",
                 "if dim < key.shape[2] - 1", "gather packed"),
    KernelMutant("numbers of a piece reversed", "gather_kv_packed", "offset, dim % piece_size",
                 "offset, piece_size - 1 - dim % piece_size", "gather packed"),
    KernelMutant("source and destination swapped", "copy_blocks",
                 "src = block_pairs[pair, 0]\n    dst = block_pairs[pair, 1]",
                 "src = block_pairs[pair, 1]\n    dst = block_pairs[pair, 0]", "copy"),
    KernelMutant("values not copied", "copy_blocks",
                 "value_cache[dst, offset, kv_head, dim] = value_cache[src, offset, kv_head, dim]", "pass", "copy"),
)  # fmt: skip


def kernel(module: str, name: str) -> KernelMutant:
    """Return the mutant with this name of a kernel.

    Parameters
    ----------
    module : str
        Module of ``paged_numba.kernels`` that holds the kernel.
    name : str
        What is wrong.

    Raises
    ------
    ValueError
        There is none, or more than one.
    """
    found = [mutant for mutant in KERNEL_MUTANTS if (mutant.module, mutant.name) == (module, name)]
    if len(found) != 1:
        names = [mutant.name for mutant in KERNEL_MUTANTS if mutant.module == module]
        raise ValueError(f"name must be one of {names}, got module={module!r}, name={name!r}")
    return found[0]
