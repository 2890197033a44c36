"""`CacheWatch`: checks every access to a cache against its allocator: ``PagedKVCache(..., debug=True)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..allocator.allocator import BlockAllocator
from ..errors import KernelError
from ..kernels.columns import NUM_ROW_COLUMNS, ROW_END, ROW_SEQ
from ..lockstep.observe.allocations import root_of
from ..lockstep.observe.observed_array import ObservedArray
from ..lockstep.observe.observed_machine import ObservedMachine
from ..lockstep.observe.observer import Observer, watch
from ..lockstep.sanitizer import Findings
from ..lockstep.sanitizer.accesses import Accesses, accesses, thread_name
from ..lockstep.sanitizer.findings import Example
from ..lockstep.sanitizer.sanitizer import Sanitizer


class Place(NamedTuple):
    """An entry of a sequence's block table."""

    seq_id: Hashable
    number: int


class CacheWatch(Observer):
    """Observer that checks accesses to a cache against its allocator.

    It observes each lockstep launch that takes the cache's arrays, and records which slots have been written. Faults
    become findings of an enclosing ``lockstep.sanitizing()``; without one, the launch raises KernelError at its end.

    Parameters
    ----------
    allocator : BlockAllocator
    *caches : [num_blocks, block_size, ...]
        Keys and values of every layer, or views of them with these axes first.
    """

    def __init__(self, allocator: BlockAllocator, *caches: Any) -> None:
        self._allocator = allocator
        self._written = {id(root_of(cache)): (cache, np.zeros(cache.shape[:2], bool)) for cache in caches}
        self._owners: dict[int, list[Place]] = {}
        self._generations = np.zeros(allocator.num_blocks, np.int64)
        self._last_owner: dict[int, Place] = {}
        self._allows_unwritten = False
        self._copied: tuple[Any, Accesses, Callable[[], None]] | None = None
        for cache in caches:
            watch(root_of(cache), self)

    def state(self) -> dict[str, Any]:
        """Return a copy of what is recorded of the slots and blocks so far."""
        return {
            "written": [written.copy() for _, written in self._written.values()],
            "generations": self._generations,
            "owners": self._owners,
            "last_owner": self._last_owner.copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state, which may come from a watch on other caches of the same shapes."""
        for (_, written), before in zip(self._written.values(), state["written"], strict=True):
            written[...] = before
        self._generations, self._owners = state["generations"], state["owners"]
        self._last_owner = state["last_owner"].copy()
        self._copied = None

    # Copies in host memory.

    @contextmanager
    def allowing_unwritten(self) -> Iterator[None]:
        """Report no reads of unwritten slots: of a sequence that is copied with all of its slots."""
        self._allows_unwritten = True
        try:
            yield
        finally:
            self._allows_unwritten = False

    def written(self, slots: Any) -> list[Any]:
        """Return for each cache which slots have been written."""
        return [written.reshape(-1)[slots] for _, written in self._written.values()]

    def mark(self, slots: Any, written: list[Any]) -> None:
        """Record for each cache which slots have been written."""
        for (_, recorded), now in zip(self._written.values(), written, strict=True):
            recorded.reshape(-1)[slots] = now

    # Ownership.

    def update_owners(self) -> None:
        """Record the owners of each block; mark what was allocated again or truncated as unwritten."""
        pool = self._allocator
        owners: dict[int, list[Place]] = {}
        self._held = np.zeros((pool.num_blocks, pool.block_size), bool)
        for seq_id in pool:
            blocks, length = pool.held_blocks(seq_id).tolist(), pool.seq_len(seq_id)
            for index, block in enumerate(blocks, pool.num_released_tokens(seq_id) // pool.block_size):
                owners.setdefault(block, []).append(Place(seq_id, index))
                self._held[block, : max(0, length - index * pool.block_size)] = True
        for block, places in self._owners.items():
            if block not in owners:
                self._last_owner[block] = places[0]
        generations = [pool.generation(block) for block in range(pool.num_blocks)]
        changed = np.array(generations) != self._generations
        cached = np.array([pool.is_cached(block) for block in range(pool.num_blocks)])
        truncated = ~self._held & ~cached[:, None]
        for _, written in self._written.values():
            written[changed] = False
            written[truncated] = False
        self._owners, self._generations = owners, np.array(generations)
        self._owned = np.zeros(pool.num_blocks, bool)
        self._owned[list(owners)] = True
        self._shared = np.array([pool.ref_count(block) > 1 for block in range(pool.num_blocks)])

    # Launches.

    def begin_launch(self, machine: ObservedMachine, function: Any, arguments: tuple[Any, ...]) -> None:
        self.update_owners()
        outer = [listener for listener in machine.listeners if isinstance(listener, Sanitizer)]
        self._findings = outer[-1].findings if outer else Findings()
        self._raises = not outer
        given = dict(zip(inspect.signature(function).parameters, arguments, strict=False))
        if "block_tables" in given and "rows" in given:
            tables, rows = (np.asarray(given[name]) for name in ("block_tables", "rows"))
            if tables.ndim == 2 and rows.ndim == 2 and rows.shape[1] == NUM_ROW_COLUMNS:
                lens = np.zeros(len(tables), np.int64)
                np.maximum.at(lens, rows[:, ROW_SEQ], rows[:, ROW_END])
                self._check_tables(machine, tables, lens)

    def end_launch(self, machine: ObservedMachine) -> None:
        # Where something other than the kernel ended the launch, such as Ctrl-C, a statement may be half done.
        half_done = machine.ended_by is not None and not issubclass(machine.ended_by, KernelError)
        if half_done:
            self._copied = None
            return
        self._flush()
        if self._raises and self._findings:
            raise KernelError(
                f"kernels must access the KV cache as its allocator allows, got {self._findings}"
            )

    def load(self, machine: ObservedMachine, array: ObservedArray, mask: Any, position: Any) -> None:
        self._flush()
        if id(array.memory.root) not in self._written:
            return
        made = accesses(machine, array, mask, position)
        cache, written = self._written[id(array.memory.root)]
        block, offset = _slots(cache, made)
        free = ~self._owned[block]
        beyond = ~free & ~self._held[block, offset]
        unwritten = ~free & ~beyond & ~written[block, offset]
        if self._allows_unwritten:
            unwritten[:] = False
        if not (free | beyond | unwritten).any():
            if machine.line.copies:
                self._copied = written, Accesses(made.byte, made.lane), lambda: None
            return
        line = machine.line

        def report() -> None:
            here, machine.line = machine.line, line
            for kind, bad in (
                ("read of a freed block", free),
                ("read past a sequence's end", beyond),
                ("read of an unwritten slot", unwritten),
            ):
                self._report(machine, array, kind, made, block, offset, bad)
            machine.line = here

        # A kernel copies whole blocks, so reading the unwritten slots of a block in order to copy them is no fault.
        if machine.line.copies and not free.any():
            self._copied = written, made, report
        else:
            report()

    def store(
        self, machine: ObservedMachine, array: ObservedArray, mask: Any, position: Any, value: Any
    ) -> None:
        copied, self._copied = self._copied, None
        if id(array.memory.root) not in self._written:
            if copied is not None:
                copied[2]()
            return
        made = accesses(machine, array, mask, position)
        cache, written = self._written[id(array.memory.root)]
        block, offset = _slots(cache, made)
        self._report(machine, array, "write into a freed block", made, block, offset, ~self._owned[block])
        self._report(machine, array, "write into a shared block", made, block, offset, self._shared[block])
        if copied is None or not np.array_equal(copied[1].lane, made.lane):
            written[block, offset] = True
        else:
            written[block, offset] = copied[0][_slots(cache, copied[1])]

    def _flush(self) -> None:
        """Report the pending load of a copying statement, if no store followed it."""
        if self._copied is not None:
            self._copied[2]()
            self._copied = None

    # Findings.

    def _check_tables(self, machine: ObservedMachine, tables: Any, lens: Any) -> None:
        """Report rows of `tables` that match no sequence's block table, or reach past the end of the sequence."""
        pool = self._allocator
        for row, length in enumerate(lens.tolist()):
            used = tables[row, : -(-length // pool.block_size)].tolist()
            if not used:
                continue
            # Released blocks come first, as -1.
            first = next((index for index, block in enumerate(used) if block >= 0), 0)
            starts = [place.seq_id for place in self._owners.get(used[first], ()) if place.number == first]
            if not starts:
                self._report_row(
                    machine, row, f"begins with block {used[first]}, {self._describe(used[first])}"
                )
                continue
            tables_of = {seq_id: pool.block_table(seq_id).tolist() for seq_id in starts}
            seq_id = max(starts, key=lambda one: (_common(tables_of[one], used), pool.seq_len(one)))
            index, own = _common(tables_of[seq_id], used), pool.seq_len(seq_id)
            if length > own:
                text = f"reads tokens {own} to {length - 1} of sequence {seq_id!r}, which has {own} tokens"
                self._report_row(machine, row, text)
            elif index < len(used):
                text = (
                    f"has block {used[index]} for tokens from {index * pool.block_size} on of sequence {seq_id!r}, "
                    f"whose block there is {tables_of[seq_id][index]}: {self._describe(used[index])}"
                )
                self._report_row(machine, row, text)

    def _report_row(self, machine: ObservedMachine, row: int, text: str) -> None:
        what = f"row {row} of block_tables {text}"
        self._findings.add("wrong block table", "block_tables", machine.line, None, 1, lambda: Example(what))

    def _report(
        self,
        machine: ObservedMachine,
        array: ObservedArray,
        kind: str,
        made: Accesses,
        block: Any,
        offset: Any,
        bad: Any,
    ) -> None:
        if not bad.any():
            return
        one = int(np.argmax(bad))

        def example() -> Example:
            me = thread_name(machine, int(made.lane[one]) + machine.first_thread)
            place = f"KV block {block[one]}, offset {offset[one]}"
            where = self._describe(int(block[one]), int(offset[one]))
            return Example(
                f"{array.name}: {me} accesses {place}, {where}", array.memory.element(int(made.byte[one])), me
            )

        self._findings.add(kind, array.name, machine.line, None, int(np.count_nonzero(bad)), example)

    def _describe(self, block: int, offset: int | None = None) -> str:
        """Describe a block, or a slot of it, by the sequence that owns it, or by its last owner if it is free."""
        size = self._allocator.block_size
        if block in self._owners:
            place = self._owners[block][0]
            others = self._owners[block][1:]
            token = f"token {place.number * size + offset}" if offset is not None else f"block {place.number}"
            text = f"{token} of sequence {place.seq_id!r}, which has {self._allocator.seq_len(place.seq_id)} tokens"
            return text + (
                f" and shares the block with {', '.join(repr(o.seq_id) for o in others)}" if others else ""
            )
        if block in self._last_owner:
            place = self._last_owner[block]
            token = f"token {place.number * size + offset}" if offset is not None else f"block {place.number}"
            return f"which is free; it was {token} of sequence {place.seq_id!r}"
        return "which is free and never belonged to a sequence"


def _slots(cache: Any, made: Accesses) -> tuple[Any, Any]:
    """Return the block and the offset of each access."""
    block, rest = np.divmod(made.byte, cache.strides[0])
    return block, rest // cache.strides[1] % cache.shape[1]


def _common(a: list[int], b: list[int]) -> int:
    """Return the number of leading entries that agree."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
