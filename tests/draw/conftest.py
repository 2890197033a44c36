"""A small pool that two sequences share."""

import pytest

import paged_numba as pn


@pytest.fixture
def pool():
    """Blocks of 4: "a" has 6 tokens in 0 and 1; "b" shares 0 and has its own copy, 2, of the second."""
    made = pn.BlockAllocator(4, 4)
    made.add("a", 6)
    made.fork("a", "b")
    made.append("b", 1)
    return made
