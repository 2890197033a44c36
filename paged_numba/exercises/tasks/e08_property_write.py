"""Exercise 08: a property that finds wrong writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ... import lockstep
from ...kernels import write_kv
from ...testing.mutants.kernel_mutant import KernelMutant, installed
from ...testing.mutants.kernels import KERNEL_MUTANTS
from ..checker.property_task import OwnInputs, Subject
from ..checker.task import Wrong
from ..checker.values import Mistake, difference, shown_list

NAMES = "key", "value", "key_cache", "value_cache", "slot_mapping"


def write(key: Any, value: Any, key_cache: Any, value_cache: Any, slot_mapping: Any) -> None:
    """Write each token to its slot, by the kernel of this package."""
    slot_mapping = _slots(slot_mapping)
    _check(key, value, key_cache, value_cache, slot_mapping)
    num_tokens, num_heads, head_dim = key.shape
    if key.size:
        kernel = lockstep.jit(write_kv.write_kv_kernel)
        # A thread block for each head, so that kernels show what they do with several.
        kernel[(num_tokens, num_heads), (head_dim, 1)](key, value, key_cache, value_cache, slot_mapping)


def write_in_numpy(key: Any, value: Any, key_cache: Any, value_cache: Any, slot_mapping: Any) -> None:
    """Write each token to its slot, all at once."""
    slot_mapping = _slots(slot_mapping)
    _check(key, value, key_cache, value_cache, slot_mapping)
    tokens = np.flatnonzero(slot_mapping >= 0)
    blocks, offsets = np.divmod(slot_mapping[tokens], key_cache.shape[1])
    key_cache[blocks, offsets] = key[tokens]
    value_cache[blocks, offsets] = value[tokens]


def _slots(slot_mapping: Any) -> Any:
    """Return a slot mapping as an array; NumPy takes the items of an empty list for floats."""
    return np.asarray(slot_mapping) if np.size(slot_mapping) else np.zeros(np.shape(slot_mapping), np.int64)


def _check(*arrays: Any) -> None:
    for name, array in zip(NAMES, arrays, strict=True):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} must be a NumPy array, got {type(array).__name__}")
    key, value, key_cache, value_cache, slot_mapping = arrays
    if key.ndim != 3:
        raise ValueError(f"key must be float32[num_tokens, num_heads, head_dim], got shape {key.shape}")
    if key_cache.ndim != 4 or key_cache.shape[2:] != key.shape[1:]:
        right = f"float32[num_blocks, block_size, {key.shape[1]}, {key.shape[2]}]"
        raise ValueError(f"key_cache must be {right}, as key has it, got shape {key_cache.shape}")
    same = (("value", value, key.shape), ("value_cache", value_cache, key_cache.shape))
    for name, array, shape in (*same, ("slot_mapping", slot_mapping, (len(key),))):
        if array.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    slots = key_cache.shape[0] * key_cache.shape[1]
    if slot_mapping.dtype.kind != "i":
        raise TypeError(f"slot_mapping must be int64[num_tokens], got {slot_mapping.dtype}")
    if ((slot_mapping < -1) | (slot_mapping >= slots)).any():
        raise ValueError(f"slot_mapping must hold slots from -1 to {slots - 1}, got {slot_mapping.tolist()}")
    named = slot_mapping[slot_mapping >= 0]
    if len(set(named.tolist())) < len(named):
        raise ValueError(f"slot_mapping must name each slot once, got {slot_mapping.tolist()}")


@contextmanager
def _installed(mutant: KernelMutant) -> Iterator[Callable[..., None]]:
    with installed(mutant):
        yield write


def _arrays(num_heads: int, head_dim: int, slots: list[int]) -> tuple[Any, ...]:
    shape = len(slots), num_heads, head_dim
    key = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
    caches = np.zeros((2, 2, 2, num_heads, head_dim), np.float32)
    return key, key + 50, caches[0], caches[1], np.array(slots, np.int64)


class PropertyWrite(OwnInputs):
    """The learner draws tokens and their slots, and compares all of the caches."""

    answer = "check_write"
    lesson = "05_scattered_writes"
    hints = (
        "Look at the input on which the first wrong function that you miss goes wrong. Does your test use an input "
        "like it?",
        "A write to one slot too many shows only if you compare the whole caches, and if they held something before.",
        "Scatter the slots (a permutation), include slot 0 and -1, and use several heads and dimensions.",
        "Copy the caches, go through the tokens in Python, and for each slot >= 0 set [slot // block_size, slot % "
        "block_size] of the copy. Then call write, and compare with assert_array_equal.",
    )
    wrong = (
        Wrong("compares no values", "assert_array_equal(caches, right)", "assert_array_equal(caches[0], right[0])",
              "kills", "this one passes: key written as value"),
        Wrong("no padding", "< 0.3", "< 0", "kills", "this one passes: slot -1 wraps to the last block"),
        Wrong("compares the first blocks", "assert_array_equal(caches, right)",
              "assert_array_equal(caches[:, :2], right[:, :2])", "kills",
              "this one passes: slot -1 wraps to the last block"),
        Wrong("one head", "num_heads=strategies.integers(1, 3)", "num_heads=strategies.just(1)", "kills",
              "last KV head left out                           NOT FOUND"),
        Wrong("slots one after the other, and no padding",
              "rng.permutation(3 * block_size)[:num_tokens]\n        slot_mapping[rng.random(num_tokens) < 0.3] = -1",
              "np.arange(num_tokens)", "kills", "slots count up from the first                   NOT FOUND"),
        Wrong("expects slot -1 to be the last one", "            if slot >= 0:", "            if True:", "right",
              "refuses the write of this package, which is right"),
        Wrong("the same slot for two tokens", "rng.permutation(3 * block_size)[:num_tokens]",
              "rng.integers(0, 3 * block_size, num_tokens)", "runs", "slot_mapping must name each slot once"),
        Wrong("returns whether it is right", "    writes()\n", "    return True\n", "right", "never calls"),
        Wrong("returns a truth value", "    writes()\n", "    writes()\n    return True\n", "right",
              "returns True, and nobody looks at that"),
        Wrong("the test is not called", "    writes()\n", "    writes\n", "right", "never calls"),
    )  # fmt: skip

    def right_subjects(self) -> Sequence[Subject]:
        """Return the kernel, and NumPy."""
        return (
            Subject("the write of this package", partial(nullcontext, write)),
            Subject("the write in NumPy", partial(nullcontext, write_in_numpy)),
        )

    def wrong_subjects(self) -> Sequence[Subject]:
        """Return the mutants of the kernel; here a value has as many dimensions as a key."""
        mutants = [
            one
            for one in KERNEL_MUTANTS
            if (one.module, one.operation) == ("write_kv", "write") and "dimensions" not in one.name
        ]
        return [Subject(one.name, partial(_installed, one)) for one in mutants]

    def inputs(self) -> st.SearchStrategy[tuple[Any, ...]]:
        """Return what draws tokens for two empty blocks of two slots."""
        slots = st.lists(st.integers(-1, 3), min_size=1, max_size=3, unique=True)
        return st.builds(_arrays, st.integers(1, 2), st.integers(1, 2), slots)

    def compared(self, subject: Any, given: tuple[Any, ...]) -> Mistake | None:
        """Return the caches beside what they should hold."""
        got, right = ([array.copy() for array in given] for _ in range(2))
        subject(*got)
        write_in_numpy(*right)
        found = (difference(name, a, b) for name, a, b in zip(NAMES[2:4], got[2:4], right[2:4], strict=True))
        return next((one for one in found if one is not None), None)

    def describe_input(self, given: tuple[Any, ...]) -> str:
        """Return the arrays."""
        return "\n".join(f"{name} = {shown_list(array)}" for name, array in zip(NAMES, given, strict=True))


TASK = PropertyWrite()
