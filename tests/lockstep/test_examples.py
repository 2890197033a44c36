"""The examples in the docstrings of lockstep run, and each public name has an example."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

from paged_numba import lockstep
from paged_numba.lockstep.cuda import device_array, facade
from paged_numba.lockstep.profiler import GPU, Report
from paged_numba.lockstep.sanitizer import Findings

NAMES = [name for _, name, _ in pkgutil.walk_packages(lockstep.__path__, "paged_numba.lockstep.")]
MODULES = [lockstep, *map(importlib.import_module, NAMES)]
WITH_EXAMPLES = [module for module in MODULES if ">>> " in inspect.getsource(module)]
PUBLIC = [getattr(lockstep, name) for name in lockstep.__all__]
PUBLIC += [Report, GPU, Findings, facade.jit, facade.Kernel]
PUBLIC += [device_array.DeviceArray, device_array.device_array, device_array.to_device]


@pytest.mark.parametrize("module", WITH_EXAMPLES, ids=lambda module: module.__name__)
def test_examples_run(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_public_names_have_an_example(thing):
    [own, *_] = doctest.DocTestFinder(recurse=False).find(thing, thing.__name__, globs={})
    assert own.examples
    assert not any(doctest.SKIP in example.options for example in own.examples)
