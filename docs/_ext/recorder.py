"""Recorder of a pool: what each call of its allocator did, step by step, as JSON for the page that plays it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import paged_numba as pn
from paged_numba.allocator import Allocation

WATCHED = ("add", "append", "commit", "fork", "free", "preempt", "release", "swap_in", "swap_out")
"""The methods that change a pool."""

TAKEN, SHARED, COPIED, FOUND, EVICTED, SWAPPED_IN, SWAPPED_OUT, KEPT, FREED = (
    "taken", "shared", "copied", "found", "evicted", "swapped in", "swapped out", "kept", "freed"
)  # fmt: skip
"""What can happen to a block in a step: it is

- taken from the free blocks, copied from another block, or evicted from the prefix cache, then taken;
- shared by a fork, or found by the prefix cache;
- swapped in or out;
- freed, or kept by the prefix cache when its last sequence left it.
"""


MOST_NAMED = 8
"""Of more sequences that grew in a step, the sentence gives the number."""


def listed(items: Iterable[Any]) -> str:
    """Return items as a list in words.

    >>> listed("A"), listed("AB"), listed("ABC")
    ('A', 'A and B', 'A, B and C')
    """
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last


def blocks(numbers: Iterable[int]) -> str:
    """Return blocks in words; three or more that follow one another as a range.

    >>> blocks([7]), blocks([3, 1]), blocks([0, 1, 2, 3, 6])
    ('block 7', 'blocks 1 and 3', 'blocks 0 to 3 and 6')
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = [
        word
        for run in runs
        for word in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else [str(number) for number in run])
    ]
    return f"block{'s' * (sum(map(len, runs)) > 1)} {listed(words)}" if words else "no block"


def tokens(count: int) -> str:
    """Return a number of tokens in words."""
    return f"{count} token{'s' * (count != 1)}"


class Recorder:
    """Watches the calls that change a pool, and records its state after each step.

    A step is what happens between two calls of `mark`.

    Parameters
    ----------
    pool : paged_numba.BlockAllocator
        An empty pool, as of a cache. Its methods are replaced by ones that report to the recorder. A sequence is
        recorded under its id as text.

    Attributes
    ----------
    steps : list of dict
        For each step: ``say``, the sentence that says what happened; ``calls``; ``events``, what happened to which
        block, ``[kind, block that it was copied from or None]``; and what changed since the step before:
        ``sequences``, their lengths and, where it changed, block tables (None for a sequence that is gone, and as the
        table of one that is swapped out); ``cached``, all blocks in the prefix cache; ``waiting``.
    made : list of list of tuple
        For each step the calls themselves, those that show nothing, too: method, sequence, arguments, options.
    """

    def __init__(self, pool: pn.BlockAllocator) -> None:
        self.pool = pool
        self.steps: list[dict[str, Any]] = []
        self.made: list[list[tuple[str, str, tuple[Any, ...], dict[str, Any]]]] = []
        self._made: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = []
        self._calls: list[str] = []
        self._events: dict[int, list[Any]] = {}
        self._parts: list[str] = []
        self._grown: dict[int, list[str]] = {}
        self._sequences: dict[Any, Any] = {}
        self._cached: list[int] = []
        self._waiting: Any = None
        for name in WATCHED:
            setattr(pool, name, self._watched(name, getattr(pool, name)))

    def mark(self, waiting: Iterable[tuple[str, int, str]] = (), say: str = "") -> None:
        """End a step; do nothing if nothing happened and there is nothing to say.

        Parameters
        ----------
        waiting : iterable of tuple
            Requests that wait: name, number of tokens, and ``new`` or ``preempted``.
        say : str
            A sentence to begin with.
        """
        if not self._calls and not say:
            return
        self._end_growth()
        sequences = {name: [self.pool.seq_len(name), self._table(name)] for name in self.pool}
        sequences |= {
            name: [self.pool.seq_len(name), None] for name in self._sequences if self.pool.is_swapped(name)
        }
        changed = {name: now for name, now in sequences.items() if self._sequences.get(name) != now}
        for name, (length, table) in changed.items():
            if table is not None and self._sequences.get(name, [0, None])[1] == table:
                changed[name] = [length]
        changed |= {name: None for name in self._sequences if name not in sequences}
        step: dict[str, Any] = {
            "say": " ".join(
                [*([say] if say else []), *(f"{part[:1].upper()}{part[1:]}." for part in self._parts)]
            ),
            "calls": self._calls,
            "events": self._events,
            "sequences": {str(name): now for name, now in changed.items()},
        }
        if (cached := self._in_cache()) != self._cached:
            step["cached"] = self._cached = cached
        if (now := [list(request) for request in waiting]) != self._waiting:
            step["waiting"] = self._waiting = now
        self.steps.append(step)
        self.made.append(self._made)
        self._sequences = sequences
        self._calls, self._events, self._parts, self._made = [], {}, [], []

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Forget what happened within if the pool has too few blocks: the cache undoes it."""
        before = [*self._calls], {**self._events}, [*self._parts], [*self._made]
        grown = {count: [*names] for count, names in self._grown.items()}
        try:
            yield
        except pn.OutOfBlocksError:
            self._calls, self._events, self._parts, self._made = before
            self._grown = grown
            raise

    def _table(self, name: Any) -> list[int]:
        return self.pool.block_table(name).tolist()

    def _in_cache(self) -> list[int]:
        if not self.pool.prefix_caching:
            return []
        return [block for block in range(self.pool.num_blocks) if self.pool.is_cached(block)]

    def _watched(self, method: str, original: Any) -> Any:
        tell = getattr(self, f"_{method}")

        def call(seq_id: Any, *args: Any, **options: Any) -> Any:
            before = self._table(seq_id) if seq_id in self.pool else []
            cached = self._in_cache()
            result = original(seq_id, *args, **options)
            if method == "fork":
                args = (str(args[0]),)
            options = {name: value for name, value in options.items() if value is not None}
            shown = [
                repr(arg) if isinstance(arg, int | str) else f"{len(arg)} id{'s' * (len(arg) != 1)}"
                for arg in args
            ]
            shown += [f"{name}={value!r}" for name, value in options.items()]
            self._calls.append(f"{method}({', '.join([repr(str(seq_id)), *shown])})")
            self._made.append((method, str(seq_id), args, options))
            tell(seq_id, args, before, cached, result)
            return result

        return call

    def _happens(self, kind: str, numbers: Iterable[int], source: int | None = None) -> None:
        for number in numbers:
            self._events[number] = [kind, source]

    def _take(self, numbers: list[int], cached: list[int], kind: str = TAKEN) -> str:
        """Record that blocks were taken; return in words which of them were evicted from the prefix cache."""
        evicted = [number for number in numbers if number in cached]
        self._happens(kind, numbers)
        self._happens(EVICTED, evicted)
        if not evicted:
            return ""
        return f"; {blocks(evicted)} {'was' if len(evicted) == 1 else 'were'} evicted from the prefix cache for it"

    def _left(self, numbers: list[int], kind: str) -> str:
        """Record that a sequence left blocks; return in words what became of them."""
        numbers = [number for number in numbers if number >= 0]  # -1 in the places of released blocks
        held = [number for number in numbers if self.pool.ref_count(number)]
        kept = [number for number in numbers if number not in held and self.pool.is_cached(number)]
        free = [number for number in numbers if number not in held and number not in kept]
        self._happens(kind, free)
        self._happens(KEPT, kept)
        words = []
        if free:
            words.append(f"{blocks(free)} {'is' if len(free) == 1 else 'are'} free")
        if kept:
            words.append(f"{blocks(kept)} stay{'s' * (len(kept) == 1)} in the prefix cache until needed")
        if held:
            owners = self._owners(held)
            words.append(f"{listed(owners)} still hold{'s' * (len(owners) == 1)} {blocks(held)}")
        return "; ".join(words) or "it held no block"

    def _owners(self, numbers: Iterable[int]) -> list[str]:
        return [name for name in self.pool if {*numbers} & {*self._table(name)}]

    # What each method did.

    def _add(self, name: str, args: Any, before: list[int], cached: list[int], result: Allocation) -> None:
        table, length, found = self._table(name), self.pool.seq_len(name), result.num_cached_tokens
        hits = found // self.pool.block_size
        hit, new = table[:hits], table[hits:]
        self._happens(FOUND, hit)
        evicted = self._take(new, cached)
        rest = length - found
        verb = "takes" if rest == 1 else "take"
        if hit:
            self._parts.append(
                f"{name} joins: the prefix cache has its first {tokens(found)}, in {blocks(hit)}; "
                f"the other {'token' if rest == 1 else rest} {verb} {blocks(new)}{evicted}"
            )
        else:
            self._parts.append(f"{name} joins: its {tokens(length)} {verb} {blocks(new)}{evicted}")

    def _append(self, name: str, args: Any, before: list[int], cached: list[int], result: Allocation) -> None:
        if not self._grown:
            self._parts.append("")  # filled in by `_end_growth`
        self._grown.setdefault(result.slots.size, []).append(name)
        table = self._table(name)
        for source, copy in result.copies.tolist():
            owners = self._owners([source])
            evicted = self._take([copy], cached)
            self._happens(COPIED, [copy], source)
            self._parts.append(
                f"block {source} was copied to block {copy} for {name}, because {listed(owners)} "
                f"hold{'s' * (len(owners) == 1)} it, too{evicted}"
            )
        if new := table[len(before) :]:
            self._parts.append(f"{name} took {blocks(new)}{self._take(new, cached)}")

    def _end_growth(self) -> None:
        """Say which sequences grew in the step, before what else is said of it."""
        if self._grown:
            growth = []
            for count, names in self._grown.items():
                who = listed(names) if len(names) <= MOST_NAMED else f"{len(names)} sequences"
                what = "one more token" if count == 1 else f"{count} more tokens"
                growth.append(f"{who} got {what}{' each' * (len(names) > 1)}")
            self._parts[self._parts.index("")] = "; ".join(growth)
            self._grown = {}

    def _commit(self, name: str, args: Any, before: list[int], cached: list[int], result: None) -> None:
        self._calls.pop()  # nothing that can be seen, except in the prefix cache, whose blocks are recorded

    def _fork(self, name: str, args: Any, before: list[int], cached: list[int], result: None) -> None:
        held = [block for block in before if block >= 0]
        self._happens(SHARED, held)
        self._parts.append(f"{name} was forked into {args[0]}: nothing is copied, both hold {blocks(held)}")

    def _free(self, name: str, args: Any, before: list[int], cached: list[int], result: None) -> None:
        self._parts.append(f"{name} is done: {self._left(before, FREED)}")

    def _preempt(self, name: str, args: Any, before: list[int], cached: list[int], result: None) -> None:
        self._parts.append(f"{name} is preempted: {self._left(before, FREED)}")

    def _swap_out(self, name: str, args: Any, before: list[int], cached: list[int], result: None) -> None:
        self._parts.append(f"{name} is swapped out to host memory: {self._left(before, SWAPPED_OUT)}")

    def _swap_in(
        self, name: str, args: Any, before: list[int], cached: list[int], result: Allocation
    ) -> None:
        table = self._table(name)
        hits = result.num_cached_tokens // self.pool.block_size
        found = [block for block in table[:hits] if block >= 0]
        self._happens(FOUND, found)
        evicted = self._take(table[hits:], cached, SWAPPED_IN)
        where = f"the prefix cache still has {blocks(found)}, and the other" if found else "its"
        self._parts.append(f"{name} is swapped in: {where} tokens go to {blocks(table[hits:])}{evicted}")

    def _release(self, name: str, args: Any, before: list[int], cached: list[int], result: int) -> None:
        left = [old for old, now in zip(before, self._table(name), strict=True) if old != now]
        if left:
            self._parts.append(f"{name} no longer sees {blocks(left)}: {self._left(left, FREED)}")
        else:
            self._calls.pop()
