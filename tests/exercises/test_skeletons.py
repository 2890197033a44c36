"""Marks divide a file into the learner's part and the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paged_numba.exercises.skeletons import lines_to_write, skeleton_of, solution_of

MARKED = """\
def f(x):
    # >>> Your code: one line.
    return x + 1
    # <<<


# >>> Your code: the class Pool.
class Pool:
    # its blocks
    pass
# <<<


def g(x):
    # >>> Mend this: it is off by one.
    return x

    # ---
    # if x:
    #     return x + 1
    #
    # <<<
"""


def test_marks_divide_a_file():
    assert (
        solution_of(MARKED)
        == """\
def f(x):
    return x + 1


class Pool:
    # its blocks
    pass


def g(x):
    return x

"""
    )
    assert (
        skeleton_of(MARKED)
        == """\
def f(x):
    # Your code: one line.
    pass


# Your code: the class Pool.


def g(x):
    # Mend this: it is off by one.
    if x:
        return x + 1

"""
    )
    assert lines_to_write(MARKED) == 4


@pytest.mark.parametrize(
    "wrong",
    ["# >>> what\nx = 1\n", "x = 1\n# <<<\n", "# ---\n", "# >>> what\n  # <<<\n", "# >>>\nx = 1\n# <<<\n"],
)
def test_marks_that_do_not_match_are_refused(wrong):
    with pytest.raises(ValueError, match="marks of a solution must come as"):
        solution_of(wrong)


lines = st.lists(st.sampled_from(["x = 1", "# why", "", "if x:"]), max_size=4)


@given(st.lists(st.tuples(lines, lines, st.sampled_from(["", "    "])), max_size=3))
def test_what_is_outside_the_marks_is_in_both(parts):
    marked, outside = "", []
    for before, inside, indent in parts:
        outside += before
        region = ["# >>> Your code.", *inside, "# <<<"]
        marked += "".join(f"{line}\n" for line in before)
        marked += "".join(f"{indent}{line}".rstrip() + "\n" for line in region)
    kept = [line for line in skeleton_of(marked).splitlines() if line.strip() not in ("# Your code.", "pass")]
    assert kept == outside
    assert len(solution_of(marked).splitlines()) == sum(
        len(before) + len(inside) for before, inside, _ in parts
    )
