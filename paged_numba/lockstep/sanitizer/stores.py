"""Source analysis: finds the arrays that a kernel may store into; no others can race."""

from __future__ import annotations

import ast
import inspect
import weakref
from collections.abc import Iterator
from typing import Any

from ...errors import UnsupportedConstructError
from ..compiler.analysis import syntax
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
    origins: list[tuple[str, set[str]]] = []
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
    return frozenset(stored & set(syntax.parameters(source.definition)))


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
        for argument in node.args:
            yield from _bases(argument)


def _stored_by_call(node: ast.Call, names: Names) -> set[str]:
    try:
        found, intrinsic = names.static(node.func), names.intrinsic(node.func)
    except UnsupportedConstructError:
        return set()  # the call, if it is reached, raises the error
    if intrinsic is not None and intrinsic.kind in ("store", "atomic"):
        return {name for argument in node.args[:1] for name in _bases(argument)}
    function = None if found is None else decorated_function(found.value)
    if function is None:
        return set()
    parameters = list(inspect.signature(function).parameters)
    passed = [*zip(parameters, node.args, strict=False), *((k.arg, k.value) for k in node.keywords)]
    inside = stored_parameters(function)
    return {name for parameter, argument in passed if parameter in inside for name in _bases(argument)}
