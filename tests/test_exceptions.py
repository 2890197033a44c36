"""Exceptions of the package survive copying and pickling, as in a process pool."""

import copy
import pickle

import pytest

import paged_numba as pn
from paged_numba import errors


def subclasses(kind):
    return [kind, *(below for one in kind.__subclasses__() for below in subclasses(one))]


EXAMPLES = {
    errors.OutOfBlocksError: errors.OutOfBlocksError(3, 2, "add of 33 tokens"),
    errors.SynchronizationError: errors.SynchronizationError(
        "threads 0 to 3 do not reach it", "cuda.syncthreads()"
    ),
}
ALL = [
    EXAMPLES.get(kind) or kind("what happened")
    for kind in dict.fromkeys(
        [*subclasses(errors.PagedNumbaError), errors.InputError, errors.TargetNameError]
    )
    if kind.__module__.startswith("paged_numba.")
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, *(lambda e, p=p: pickle.loads(pickle.dumps(e, p)) for p in range(6))],
)
def test_an_error_survives(error, duplicate):
    error.add_note("a note") if hasattr(error, "add_note") else None
    other = duplicate(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)
    assert other.args == error.args


def test_every_error_is_tested():
    ours = {
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)
    }
    assert ours <= {type(error) for error in ALL}


def test_out_of_blocks_says_what_is_needed():
    with pytest.raises(
        errors.OutOfBlocksError, match="add of 33 tokens needs 3 blocks, 2 are free"
    ) as caught:
        pn.BlockAllocator(2, 16).add("a", 33)
    assert (caught.value.needed, caught.value.free) == (3, 2)
