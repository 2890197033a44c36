"""Marked solutions: makes the solution without its marks, and the skeleton that the learner gets.

The part of a file that the learner writes stands between two marks, and the skeleton has a comment in its place::

    # >>> Your code: the index of this thread, the guard and the write.
    i = cuda.grid(1)
    if i < x.size:
        out[i] = 2 * x[i]
    # <<<

A part that the learner mends has the lines that the learner gets after a third mark, each as a comment::

    # >>> Mend this: a barrier is missing.
    cuda.syncthreads()
    total[0] = partial[0]
    # ---
    # total[0] = partial[0]
    # <<<
"""

from __future__ import annotations

import re

BEGIN, INSTEAD, END = ">>>", "---", "<<<"
_REGION = re.compile(
    r"^(?P<indent>[ ]*)# >>> (?P<what>[^\n]+)\n(?P<solution>.*?)"
    r"(?:^(?P=indent)# ---\n(?P<instead>.*?))?^(?P=indent)# <<<\n",
    re.M | re.S,
)


def solution_of(marked: str) -> str:
    """Return a marked solution without its marks."""
    return _checked(_REGION.sub(lambda found: found["solution"], marked))


def skeleton_of(marked: str) -> str:
    """Return a marked solution with a comment, and what the learner gets, in place of the solution."""
    return _checked(_REGION.sub(_skeleton, marked))


def lines_to_write(marked: str) -> int:
    """Return how many lines of code stand between the marks."""
    regions = [found["solution"] for found in _REGION.finditer(marked)]
    lines = [line.strip() for region in regions for line in region.splitlines()]
    return sum(bool(line) and not line.startswith("#") for line in lines)


def _skeleton(found: re.Match[str]) -> str:
    indent, instead = found["indent"], found["instead"]
    head = f"{indent}# {found['what']}\n"
    if instead is None:
        # At the left edge, the part holds whole definitions; elsewhere a body must not be empty.
        return head + (f"{indent}pass\n" if indent else "")
    lines = [re.sub(rf"^({indent})# ?", r"\1", line).rstrip() for line in instead.splitlines()]
    return head + "".join(f"{line}\n" for line in lines)


def _checked(text: str) -> str:
    if re.search(rf"^\s*# ({BEGIN}|{INSTEAD}|{END})( |$)", text, re.M):
        raise ValueError(
            "marks of a solution must come as >>>, perhaps ---, and <<<, each with the same indent"
        )
    return text
