"""The examples in docstrings: each prints what it shows, and every public name has an example.

Which names of lockstep must have one is held by tests/lockstep/test_examples.py.
"""

import doctest
import importlib
import inspect
import re
from itertools import pairwise
from pathlib import Path

import pytest

import paged_numba
from paged_numba.allocator import queries

PACKAGE = Path(paged_numba.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
    # Elsewhere the sign is a mark in files of the exercises.
    if re.search(r"^ *>>> ", path.read_text(encoding="utf-8"), re.M)
]
DEFINED = [
    name
    for name in paged_numba.__all__
    if inspect.isclass(getattr(paged_numba, name)) or inspect.isfunction(getattr(paged_numba, name))
]


def import_module(name):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name.startswith("paged_numba"):
            raise
        pytest.skip(f"{error.name} is not installed")


def sections(text):
    """Return the headings of a numpydoc docstring."""
    lines = text.splitlines()
    return {line for line, under in pairwise(lines) if line and under == "-" * len(line)}


def examples_of(thing):
    return [example for test in doctest.DocTestFinder(recurse=False).find(thing) for example in test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_do_what_they_show(name, capsys):
    failed, attempted = doctest.testmod(import_module(name))
    assert failed == 0, capsys.readouterr().out
    assert attempted > 0


def test_wrong_examples_are_noticed(capsys):
    module = type(doctest)("wrong", ">>> 1 + 1\n3\n")
    assert doctest.testmod(module) == (1, 1)


@pytest.mark.parametrize("name", DEFINED)
def test_public_names_have_an_example_and_neighbours(name):
    thing = getattr(paged_numba, name)
    assert {"Examples", "See Also"} <= sections(inspect.getdoc(thing))
    assert examples_of(thing)


def public_methods(cls):
    """Return the public methods that a class defines itself, with their names."""
    members = {name: getattr(cls, name) for name in vars(cls) if not name.startswith("_")}
    return {name: member for name, member in members.items() if inspect.isroutine(member)}


@pytest.mark.parametrize(
    "name", [*public_methods(queries.PoolQueries), *public_methods(paged_numba.BlockAllocator)]
)
def test_methods_of_the_allocator_have_an_example_and_neighbours(name):
    method = getattr(paged_numba.BlockAllocator, name)
    assert {"Examples", "See Also"} <= sections(inspect.getdoc(method))
    assert examples_of(method)


@pytest.mark.parametrize(
    "thing",
    [
        *(getattr(paged_numba.draw, name) for name in paged_numba.draw.__all__),
        paged_numba.reference.attention,
        paged_numba.reference.merge_states,
    ],
    ids=lambda thing: thing.__name__,
)
def test_pictures_and_the_oracle_have_an_example_and_neighbours(thing):
    assert {"Examples", "See Also"} <= sections(inspect.getdoc(thing))
    assert examples_of(thing)
