"""Raises an exception at a chosen line of code, and returns the whole state of a pool to compare afterwards."""

import inspect
import sys
from pathlib import Path

from paged_numba import allocator
from paged_numba.allocator import transactions

ALLOCATOR = str(Path(allocator.__file__).parent)
SOURCE, FIRST = inspect.getsourcelines(transactions.UndoLog.run)
ROLL_BACK = FIRST + [line.strip() for line in SOURCE].index("except BaseException:")


class Injected(BaseException):
    """Stands for Ctrl-C, a MemoryError and everything else that may be raised at any line."""


class Inject:
    """Raises `Injected` once, at a line of the code below some folders, and traces nothing afterwards."""

    def __init__(self, at, folders=(ALLOCATOR,)):
        self.left, self.folders, self.place = at, folders, None

    def __call__(self, frame, event, _):
        if not frame.f_code.co_filename.startswith(self.folders):
            return None
        if event == "line":
            if frame.f_lineno == ROLL_BACK and frame.f_code.co_filename == transactions.__file__:
                # The call failed by itself. What happens during a roll-back is not promised.
                self.left = -1
            if self.left == 0:
                self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                self.left = -1
                sys.settrace(None)
                raise Injected(self.place)
            self.left -= 1
        return self

    def run(self, call):
        """Call; return the result, or None if the exception was raised: then `place` says where."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            return call()
        except Injected:
            return None
        finally:
            sys.settrace(before)


def pool_state(pool):
    """Return everything that a pool holds."""
    inner, prefixes = pool._pool, pool._prefixes
    held = {
        "sequences": [(name, described(sequence)) for name, sequence in pool._sequences.items()],
        "swapped": {name: described(sequence) for name, sequence in pool._swapped.items()},
        "stats": pool.stats(),
        "references": inner.refs.tolist(),
        "generations": inner.generations.tolist(),
        "free": (inner._free.tolist(), inner._fresh),
        "log": list(pool._undo),
        "locked": "count=0" not in repr(pool._undo.lock),
    }
    if prefixes is not None:
        held["prefixes"] = (
            prefixes._found.copy(),
            list(prefixes._keys),
            # The parent of a vacant node means nothing.
            [
                parent
                for parent, key in zip(prefixes._parents, prefixes._keys, strict=True)
                if key is not None
            ],
            prefixes._blocks.tolist(),
            prefixes._uses.tolist(),
            prefixes._vacant.tolist(),
            {node: list(twins) for node, twins in prefixes._twins.items()},
            prefixes._nodes.tolist(),
            prefixes.idle_blocks(),
            [block for block in range(pool.num_blocks) if prefixes.is_idle(block)],
        )
    return held


def described(sequence):
    return (
        sequence.table.tolist(), sequence.length, sequence.salt, sequence.node,
        list(sequence.unwritten), sequence.part, sequence.num_released, sequence.num_written,
    )  # fmt: skip
