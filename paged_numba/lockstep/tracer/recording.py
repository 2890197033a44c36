"""`Recording`: launches to step through, statement by statement; `record` and `recording` make them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from ...draw.text import plural
from ..launch import launch
from ..observe.observer import observing, unseen
from .page import page_html
from .recorder import MOST_LAUNCHES, Recorder
from .track import MOST_NUMBERS, MOST_STEPS


class Recording:
    """What the threads of recorded launches did, step by step; a step is a statement that threads run together.

    `record` and `recording` make recordings. Of each launch they hold the first and the last thread block, and of a
    thread block at most 4,000 steps or 250,000 numbers; launches after the eighth are only counted. `left_out` says
    what is missing.

    See Also
    --------
    paged_numba.lockstep.record : Records a single launch.
    paged_numba.lockstep.recording : Records all launches in a ``with`` statement.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def add_one(values):
    ...     i = cuda.grid(1)
    ...     if i < values.size:
    ...         values[i] += 1
    >>> recorded = lockstep.record(add_one, 3, 4, np.zeros(9, np.float32))
    >>> recorded
    Recording(1 launch, 2 thread blocks, 6 steps)
    >>> recorded.left_out()
    ['1 of 3 thread blocks is not recorded: of each launch, the first and the last one are']
    >>> last = recorded.to_dict()["tracks"][-1]
    >>> [(step["line"], last["masks"][step["lanes"]]) for step in last["steps"]]
    [(3, '0-3'), (4, '0-3'), (5, '0')]
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __repr__(self) -> str:
        return f"Recording({self.summary()})"

    def summary(self) -> str:
        """Return in a line what the recording holds."""
        found = self._recorder
        steps = sum(len(track.steps) for track in found.tracks)
        launches = "1 launch" if found.num_launches == 1 else f"{found.num_launches:,} launches"
        return f"{launches}, {plural(len(found.tracks), 'thread block')}, {plural(steps, 'step')}"

    @property
    def num_launches(self) -> int:
        """The number of launches, recorded or not."""
        return self._recorder.num_launches

    @property
    def num_unseen(self) -> int:
        """The number of launches of other threads that were not seen."""
        return self._recorder.num_unseen

    def left_out(self) -> list[str]:
        """Return a sentence about each thing that is not in the recording."""
        found, sentences = self._recorder, []
        beyond = found.num_launches - MOST_LAUNCHES
        if beyond > 0:
            sentences.append(
                f"{_of(beyond, found.num_launches, 'launch', 'launches')}: the first {MOST_LAUNCHES} are"
            )
        others = found.num_thread_blocks - len(found.tracks)
        if others:
            what = _of(others, found.num_thread_blocks, "thread block", "thread blocks")
            sentences.append(f"{what}: of each launch, the first and the last one are")
        for track in found.tracks:
            if track.left_out:
                name = found.functions.described[track.described["kernel"]]["name"]
                where = (
                    f"thread block {track.described['thread_block']} of launch {track.described['launch']}"
                )
                what = _of(track.left_out, track.left_out + len(track.steps), "step", "steps")
                limits = (
                    f"a thread block's record ends after {MOST_STEPS:,} steps or {MOST_NUMBERS:,} numbers"
                )
                sentences.append(f"{name}, {where}: {what}, since {limits}")
        if found.num_unseen:
            sentences.append(unseen(found.num_unseen, "recorded"))
        return sentences

    def to_dict(self) -> dict[str, Any]:
        """Return the recording as JSON-compatible data; ``docs/recordings.md`` explains it."""
        found = self._recorder
        return {
            "format": 1,
            "functions": found.functions.described,
            "tracks": [{**track.described, "left_out": track.left_out} for track in found.tracks],
            "left_out": self.left_out(),
        }

    def json(self) -> str:
        """Return the recording as JSON."""
        return json.dumps(self.to_dict(), separators=(",", ":"), allow_nan=False) + "\n"

    def page(self) -> str:
        """Return a self-contained HTML page that plays the recording: source, lanes, variables and accesses."""
        names = [function["name"] for function in self._recorder.functions.described]
        kernels = dict.fromkeys(names[track.described["kernel"]] for track in self._recorder.tracks)
        return page_html(self.json(), escape(f"{', '.join(kernels)}, in lockstep"))


def _of(count: int, of: int, one: str, many: str) -> str:
    return f"{count:,} of {of:,} {many} {'is' if count == 1 else 'are'} not recorded"


@contextmanager
def recording() -> Iterator[Recording]:
    """Record the lockstep launches in a ``with`` statement, to step through them.

    Yields
    ------
    Recording
        Grows with each launch.

    See Also
    --------
    record : Records a single launch.
    tracing : Records the accesses of one thread block, as input for pictures.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def double(x):
    ...     x[cuda.grid(1)] *= 2
    >>> with lockstep.recording() as recorded:
    ...     lockstep.launch(double, 1, 32, np.ones(32, np.float32))
    >>> (step,) = recorded.to_dict()["tracks"][0]["steps"]
    >>> [(access["kind"], access["text"], access["costs"]["sectors"]) for access in step["accesses"]]
    [('load', 'x[cuda.grid(1)]', [4]), ('store', 'x[cuda.grid(1)]', [4])]
    """
    recorder = Recorder()
    with observing(recorder):
        yield Recording(recorder)


def record(
    kernel: Any, blocks_per_grid: Any, threads_per_block: Any, *args: Any, shared_bytes: int = 0
) -> Recording:
    """Run a kernel as `launch` does, and record each step of its first and its last thread block.

    Parameters
    ----------
    kernel : function
        The kernel, decorated or not.
    blocks_per_grid, threads_per_block : int or tuple of int
        The launch configuration, as in `paged_numba.lockstep.launch`.
    *args : object
        The kernel's arguments.
    shared_bytes : int
        Bytes of dynamic shared memory.

    Returns
    -------
    Recording
        To save as a page that plays it.

    Raises
    ------
    LaunchError, KernelError, UnsupportedConstructError
        For the reasons given in `launch`. To keep the steps before an error, use `recording`.

    See Also
    --------
    recording : Records all launches in a ``with`` statement.
    trace : Records the accesses of one thread block, as input for pictures.
    profile : Counts what a kernel does.

    Examples
    --------
    >>> import numpy as np
    >>> from paged_numba import cuda, lockstep
    >>> @cuda.jit
    ... def double(x):
    ...     x[cuda.grid(1)] *= 2
    >>> recorded = lockstep.record(double, 1, 32, np.ones(32, np.float32))
    >>> recorded.page().startswith("<!doctype html>")
    True
    """
    with recording() as recorded:
        launch(kernel, blocks_per_grid, threads_per_block, *args, shared_bytes=shared_bytes)
    return recorded
