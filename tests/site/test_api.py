"""The list of API pages, docs/api.rst: every public name, once, and none that does not exist."""

import functools
import inspect
import re

import pytest
from site_folder import ROOT

import paged_numba as pn
from paged_numba.lockstep.cuda import facade

LISTED = re.findall(r"^   ([\w.]+)$", (ROOT / "docs" / "api.rst").read_text(encoding="utf-8"), re.M)


def public_names():
    """Yield the full name of everything public, without the package's name."""
    yield from (name for name in pn.__all__ if not inspect.ismodule(getattr(pn, name)))
    for name in ("draw", "exercises", "kernels", "lockstep"):
        yield from (f"{name}.{inside}" for inside in getattr(pn, name).__all__)
    yield from (f"cuda.{name}" for name in facade.__all__)
    for module in (pn.errors, pn.reference):
        for name, thing in vars(module).items():
            own = (
                inspect.isclass(thing) or inspect.isfunction(thing)
            ) and thing.__module__ == module.__name__
            if own and not name.startswith("_") and getattr(pn, name, None) is not thing:
                yield f"{module.__name__.rpartition('.')[2]}.{name}"


def test_every_public_name_is_listed_once():
    assert len(set(LISTED)) == len(LISTED)
    assert set(public_names()) - set(LISTED) == set()


@pytest.mark.parametrize("name", LISTED)
def test_what_is_listed_exists_and_has_a_docstring(name, monkeypatch):
    monkeypatch.setenv("PAGED_NUMBA_TARGET", "lockstep")
    __import__("paged_numba.lockstep.profiler")
    __import__("paged_numba.lockstep.sanitizer")
    __import__("paged_numba.ops.layouts")
    assert inspect.getdoc(functools.reduce(getattr, name.split("."), pn))
