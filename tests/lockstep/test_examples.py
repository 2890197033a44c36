"""Each public name of lockstep has an example; tests/test_doctests.py runs them."""

import doctest

import pytest

from paged_numba import lockstep
from paged_numba.lockstep.cuda import facade
from paged_numba.lockstep.profiler import GPU, Report
from paged_numba.lockstep.sanitizer import Findings

PUBLIC = [getattr(lockstep, name) for name in lockstep.__all__]
PUBLIC += [Report, GPU, Findings, facade.jit, facade.Kernel]
PUBLIC += [facade.DeviceArray, facade.device_array, facade.to_device, facade.vectorize, facade.guvectorize]
PUBLIC += [facade.Reduce, facade.random.init_xoroshiro128p_states]


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_public_names_have_an_example(thing):
    [own, *_] = doctest.DocTestFinder(recurse=False).find(thing, thing.__name__, globs={})
    assert own.examples
    assert not any(doctest.SKIP in example.options for example in own.examples)
