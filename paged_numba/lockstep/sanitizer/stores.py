"""Source analysis: finds the arrays that a kernel may store into; no others can race."""

from __future__ import annotations

import ast
import inspect
import weakref
from collections.abc import Iterator
from typing import Any

from ...errors import UnsupportedConstructError
from ..compiler.analysis import scopes
from ..compiler.names import Names, decorated_function
from ..compiler.source import Source

_known: weakref.WeakKeyDictionary[Source, frozenset[str]] = weakref.WeakKeyDictionary()


def stored_parameters(function: Any) -> frozenset[str]:
    """Return the parameters that a kernel, or a device function that it calls, may store into.

    If the source leaves open whether an array is stored into, the array counts as stored into.
    """
    source = Source.of(function)
    if source not in _known:
        _known[source] = frozenset()  # for recursive calls
        _known[source] = _stored(source)
    return _known[source]


def _stored(source: Source) -> frozenset[str]:
    names = Names(source)
    stored: set[str] = set()
    origins = [(name, set(_bases(value))) for name, value in scopes.flows(source.definition)]
    for node in ast.walk(source.definition):
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr, ast.For)):
            value = node.iter if isinstance(node, ast.For) else node.value
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                for part in ast.walk(target):
                    if isinstance(part, (ast.Subscript, ast.Attribute)) and isinstance(part.ctx, ast.Store):
                        stored |= set(_bases(part))
                    elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store) and value is not None:
                        origins.append((part.id, set(_bases(value))))
        elif isinstance(node, ast.Call):
            stored |= _stored_by_call(node, names)
    # A store into a view is a store into its array.
    size = -1
    while len(stored) != size:
        size = len(stored)
        for name, bases in origins:
            if name in stored:
                stored |= bases
    return frozenset(stored & set(scopes.parameters(source.definition)))


def _bases(node: ast.AST) -> Iterator[str]:
    """Yield the names of the arrays that an expression may stand for, or be a view of."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, (ast.Subscript, ast.Attribute, ast.Starred, ast.NamedExpr)):
        yield from _bases(node.value)
    elif isinstance(node, (ast.Tuple, ast.List)):
        for element in node.elts:
            yield from _bases(element)
    elif isinstance(node, ast.IfExp):
        yield from _bases(node.body)
        yield from _bases(node.orelse)
    elif isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute):
            yield from _bases(node.func.value)
        elif isinstance(node.func, ast.Lambda):
            yield from _bases(node.func.body)
        elif isinstance(node.func, ast.Name):
            yield node.func.id  # an inner function, whose result may be a view of what it captures
        for argument in node.args:
            yield from _bases(argument)


def _stored_by_call(node: ast.Call, names: Names) -> set[str]:
    try:
        found, intrinsic = names.static(node.func), names.intrinsic(node.func)
    except UnsupportedConstructError:
        return set()  # the call, if it is reached, raises the error
    if intrinsic is not None and intrinsic.kind in ("store", "atomic"):
        return {name for argument in node.args[:1] for name in _bases(argument)}
    if found is None:
        inner = isinstance(node.func, ast.Lambda) or (
            isinstance(node.func, ast.Name) and node.func.id in scopes.named_inner(names.source.definition)
        )
        return set() if inner or isinstance(node.func, ast.Attribute) else _all_bases(node)
    function = decorated_function(found.value)
    if function is None:
        unknown = intrinsic is None and inspect.isfunction(found.value)
        return _all_bases(node) if unknown else set()
    called = Source.of(function)
    inside = stored_parameters(function)
    passed = scopes.passed(scopes.arguments(called.definition), node)
    return {name for parameter, argument in passed if parameter in inside for name in _bases(argument)}


def _all_bases(node: ast.Call) -> set[str]:
    """Return the arrays that a call passes to a function that only the run knows."""
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    return {name for argument in given for name in _bases(argument)}
