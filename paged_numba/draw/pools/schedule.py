"""Picture of requests over time: waiting, prefill, running, preempted or finished, and the use of the pool below."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import combinations, groupby, islice

from ...arguments import hashable, listed, shown
from ..letters import text_width
from ..names import cut, names_of
from ..picture import Picture, checked_title, nothing_yet
from ..protocols import Pool, checked_pool, same_size
from ..svg import COLOURS, Drawing, Look
from ..text import over_time, plural, some

WAITING, PREFILL, RUNNING, PREEMPTED, FINISHED = "waiting", "prefill", "running", "preempted", "finished"

_LOOKS = {
    WAITING: Look("#d0d0d0"),
    PREFILL: Look(COLOURS[4]),
    RUNNING: Look(COLOURS[0]),
    PREEMPTED: Look(COLOURS[1], 1),
    FINISHED: Look(COLOURS[2]),
}
_SIGNS = {"": " ", WAITING: ".", PREFILL: "p", RUNNING: "#", PREEMPTED: "x", FINISHED: " "}

MOST_REQUESTS, MOST_STEPS = 48, 310
"""Most requests that are drawn. Of more steps, one of every two, three ... is drawn."""

TOP, WIDTH, POOL_HEIGHT = 60, 620, 96
"""Pixels above the first request; most for all steps; of the pool's curve."""


class Schedule(Picture):
    """The state of each request, step by step, and how many blocks of the pool are used.

    The picture has up to 48 requests; of more than 310 steps it shows one of every two, three or more. It says so.

    Parameters
    ----------
    title : str
        Heading of the picture.

    Attributes
    ----------
    states : dict of str to list of str
        By name of the request, its state at each step: ``waiting``, ``prefill`` (it runs, and its prompt is computed),
        ``running``, ``preempted`` (it ran before, and waits again), ``finished``, or empty before the step at which it
        is first seen.
    used : list of int
        Number of used blocks after each step.
    num_blocks : int
        Number of blocks of the pool.

    See Also
    --------
    PoolHistory : Which sequence holds which block, step by step.

    Examples
    --------
    >>> import paged_numba as pn
    >>> pool, schedule = pn.BlockAllocator(num_blocks=4, block_size=4), pn.draw.Schedule()
    >>> _ = pool.add("a", 7)
    >>> schedule.record(pool, running=["a"], waiting=["b"])
    >>> _ = pool.add("b", 8)
    >>> schedule.record(pool, running=["a", "b"])
    >>> pool.free("b")
    >>> schedule.record(pool, running=["a"], waiting=["b"])
    >>> schedule.states
    {'a': ['running', 'running', 'running'], 'b': ['waiting', 'running', 'preempted']}
    >>> schedule.used, schedule.num_blocks
    ([2, 4, 2], 4)
    >>> print(schedule)
    Requests over time
    step    0
    a       ###
    b       .#x
    . waiting, # running, x preempted
    used 4   #
    used 3   #
    used 2  ###
    used 1  ###
    """

    def __init__(self, *, title: str = "Requests over time") -> None:
        self.title = checked_title(title)
        self._states: dict[Hashable, dict[int, str]] = {}
        """By id, in order of arrival: the state at each step at which it ran or waited."""
        self.used: list[int] = []
        self.num_blocks = 0

    def record(
        self,
        pool: Pool,
        running: Iterable[Hashable] = (),
        waiting: Iterable[Hashable] = (),
        prefill: Iterable[Hashable] = (),
    ) -> None:
        """Record the states after a step.

        Parameters
        ----------
        pool : Pool
            A `paged_numba.BlockAllocator`, or the allocator of a cache.
        running, waiting, prefill : sequence of hashable
            Ids of the requests that run, that wait, and whose prompts are computed. A request that was recorded before
            and is in none has finished.

        Raises
        ------
        ValueError
            A request is in two lists; the pool has another number of blocks than at the first step.
        """
        pool = same_size(checked_pool(pool), self.num_blocks or None)
        given = {"running": running, "waiting": waiting, "prefill": prefill}
        ids = {
            name: [hashable(name, seq_id) for seq_id in listed(name, seq_ids, "ids")]
            for name, seq_ids in given.items()
        }
        for one, other in combinations(ids, 2):
            both = set(ids[one]).intersection(ids[other])
            if both:
                raise ValueError(
                    f"{one} and {other} must have no request in common, got {shown(both.pop())} in both"
                )
        step = len(self.used)
        used = {block for seq_id in pool for block in pool.held_blocks(seq_id).tolist()}
        for state in (RUNNING, PREFILL):
            for seq_id in ids[state]:
                self._states.setdefault(seq_id, {})[step] = state
        for seq_id in ids[WAITING]:
            before = self._states.setdefault(seq_id, {})
            before[step] = WAITING if before.get(step - 1, WAITING) == WAITING else PREEMPTED
        self.used.append(len(used))
        self.num_blocks = pool.num_blocks

    @property
    def states(self) -> dict[str, list[str]]:
        """By name of the request, its state at each step, see the class."""
        states = {}
        for name, known in zip(names_of(self._states), self._states.values(), strict=True):
            arrival = min(known)
            states[name] = [
                known.get(step, FINISHED if step > arrival else "") for step in range(len(self.used))
            ]
        return states

    @property
    def _legend(self) -> list[str]:
        """The states to explain: prefill only where it is recorded."""
        has_prefill = any(PREFILL in known.values() for known in self._states.values())
        return [state for state in _LOOKS if state != PREFILL or has_prefill]

    @property
    def description(self) -> str:
        """What is seen: how many requests run at once, which are preempted, and the use of the pool."""
        states, used = self.states, self.used
        if not used:
            return "No step is recorded yet."
        at_once = max(
            sum(row[step] in (RUNNING, PREFILL) for row in states.values()) for step in range(len(used))
        )
        preempted = [name for name, row in states.items() if PREEMPTED in row]
        done = sum(row[-1] == FINISHED for row in states.values())
        most = max(used)
        sentences = [
            f"{plural(len(states), 'request')} over {plural(len(used), 'step')}: at most {at_once} run at once; "
            f"{done} finished by the end.",
            f"Preempted: {', '.join(some(preempted, 6, '{} more'))}." if preempted else "None is preempted.",
            f"Of the pool's {plural(self.num_blocks, 'block')}, at most {most} are used (step {used.index(most)}).",
        ]
        return " ".join(sentences)

    def text(self) -> str:
        """Return a line for each request and lines for the use of the pool, with a character for each step."""
        rows = [(cut(name, 20), "".join(_SIGNS[state] for state in row)) for name, row in self.states.items()]
        parts = self.num_blocks if self.num_blocks <= 8 else 4
        levels = [-(-self.num_blocks * part // parts) for part in range(parts, 0, -1)]
        width = len(str(self.num_blocks))
        pool = [
            (f"used {level:>{width}}", "".join("#" if used >= level else " " for used in self.used))
            for level in levels
        ]
        key = (", ".join(f"{_SIGNS[state]} {state}" for state in self._legend if _SIGNS[state] != " "), None)
        if not self.used:
            return f"{self.heading}\n{self.description}"
        return "\n".join([self.heading, *over_time([*rows, key, *pool], len(self.used), "lines")])

    def draw(self) -> Drawing:
        """Return a row of bars for each request, and below it the curve of the used blocks."""
        count = len(self.used)
        states = dict(islice(self.states.items(), MOST_REQUESTS))
        left = 28 + max([56.0, *(min(text_width(name), 130.0) for name in states)])
        if not count:
            return nothing_yet(self)
        steps = range(0, count, -(-count // MOST_STEPS))
        notes = []
        if len(states) < len(self._states):
            notes.append(f"{len(states)} of {len(self._states)} requests are drawn.")
        if steps.step > 1:
            notes.append(f"One of every {steps.step} steps is drawn.")
        count = len(steps)
        step, height = min(34.0, WIDTH / count), 22 if len(states) <= 24 else 16
        bottom = TOP + height * len(states) + 16 * bool(notes)
        pool_y = bottom + 40
        drawing = Drawing(max(480, left + step * count + 64), pool_y + POOL_HEIGHT + 40, self.title)
        drawing.text(16, TOP - 10, "request", "left q small")
        for place, (name, row) in enumerate(states.items()):
            y = TOP + height * place
            drawing.text(16, y + height / 2 + 4, name, "left", room=left - 26)
            drawing.line(left, y + height / 2, left + step * count, y + height / 2, css="edge faint")
            start = 0
            for state, run in groupby(row[at] for at in steps):
                length = len(list(run))
                x, first, last = left + step * start, steps[start], steps[start + length - 1]
                when = f"step {first}" if length == 1 else f"steps {first} to {last}"
                if state == FINISHED:
                    drawing.rect(
                        x, y + 3, 4, height - 6, _LOOKS[FINISHED], css="", tip=f"{name}: finished, {when}"
                    )
                elif state:
                    drawing.rect(
                        x, y + 3, step * length, height - 6, _LOOKS[state], tip=f"{name}: {state}, {when}"
                    )
                start += length
        drawing.text(left, bottom - 4, " ".join(notes), "left q small", room=drawing.width - left - 12)
        drawing.legend(left, bottom + 8, [(_LOOKS[state], state) for state in self._legend])
        self._draw_pool(drawing, left, step, pool_y, steps)
        return drawing

    def _draw_pool(self, drawing: Drawing, left: float, step: float, top: float, steps: range) -> None:
        """Draw the number of used blocks at each step as a filled area below the line of the pool's capacity."""
        bottom, right = top + POOL_HEIGHT, left + step * len(steps)
        shown = [self.used[at] for at in steps]
        scale = (POOL_HEIGHT - 12) / self.num_blocks
        heights = [bottom - scale * used for used in shown]
        outline = [(left, bottom)]
        for place, y in enumerate(heights):
            outline += [(left + step * place, y), (left + step * (place + 1), y)]
        drawing.area([*outline, (right, bottom)], COLOURS[0])
        full = bottom - scale * self.num_blocks
        drawing.line(left, full, right, full, colour=COLOURS[6])
        drawing.text(left - 8, full + 4, str(self.num_blocks), "q small right")
        drawing.text(left - 8, bottom, "0", "q small right")
        drawing.text(right + 6, full + 4, "capacity", "q small left")
        drawing.text(16, (full + bottom) / 2 - 2, "blocks", "left q small")
        drawing.text(16, (full + bottom) / 2 + 11, "used", "left q small")
        drawing.line(left, bottom, right, bottom)
        drawing.steps(left, bottom + 14, step, steps, "q small")
        drawing.steps(left, bottom + 28, step, shown, "small")
        drawing.text(16, bottom + 14, "step", "left q small")
        drawing.text(16, bottom + 28, "used", "left small")
