"""Functions inside a kernel: their variables, what they capture, and names that are unique in the whole kernel.

Python gives each function variables of its own. `unique` renames those of inner functions and lambdas that have the
name of another one, so that a name means one variable in the whole syntax tree and each analysis can go by names.
"""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Iterator
from typing import Any

Function = ast.FunctionDef | ast.Lambda


def parameters(function: Function) -> list[str]:
    """Return the names of a function's parameters, in order."""
    return [argument.arg for argument in arguments(function)]


def arguments(function: Function) -> list[ast.arg]:
    """Return a function's parameters, in order; ``*args`` comes before keyword-only parameters."""
    given = function.args
    stars = [] if given.vararg is None else [given.vararg]
    return [*given.posonlyargs, *given.args, *stars, *given.kwonlyargs]


def given_name(argument: ast.arg) -> str:
    """Return the name by which calls give a parameter of an inner function."""
    return str(getattr(argument, "given", argument.arg))


def defaults(function: Function) -> dict[str, ast.expr]:
    """Return the default values of a function's parameters."""
    given = function.args
    places = [*given.posonlyargs, *given.args]
    pairs = [*zip(reversed(places), reversed(given.defaults), strict=False)]
    pairs += [(a, d) for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True) if d is not None]
    return {argument.arg: default for argument, default in pairs}


def own_nodes(function: Function) -> list[ast.AST]:
    """Return the nodes in a function's body that run in its own scope, inner functions without their bodies."""
    found: list[ast.AST] | None = getattr(function, "own_nodes", None)
    if found is None:
        found = list(function.body) if isinstance(function.body, list) else [function.body]
        for node in found:  # which grows
            if isinstance(node, (ast.FunctionDef, ast.Lambda)):
                found.extend(defaults(node).values())
            else:
                found.extend(ast.iter_child_nodes(node))
        function.own_nodes = found  # type: ignore[union-attr]
    return found


def inner_functions(function: Function) -> list[Function]:
    """Return the functions and lambdas in a function's body, without those that are inside them."""
    return [node for node in own_nodes(function) if isinstance(node, (ast.FunctionDef, ast.Lambda))]


def all_inner(function: Function) -> list[Function]:
    """Return all functions and lambdas inside a function, outer ones first."""
    found = inner_functions(function)
    for inner in list(found):
        found += all_inner(inner)
    return found


def variables(function: Function) -> set[str]:
    """Return the names that a function binds in its own scope, its parameters included."""
    bound = set(parameters(function))
    outside: set[str] = set()
    for node in own_nodes(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
        elif isinstance(node, ast.FunctionDef):
            bound.add(node.name)
        elif isinstance(node, ast.Nonlocal):
            outside.update(node.names)
    return bound - outside


def captured(function: Function) -> set[str]:
    """Return the names that the functions inside a function use and do not bind."""
    return set().union(*map(captured_by, inner_functions(function)))


def captured_by(inner: Function) -> set[str]:
    """Return the names that an inner function, or one inside it, uses and does not bind."""
    used = {node.id for node in own_nodes(inner) if isinstance(node, ast.Name)} | outer_names(inner)
    return (used | captured(inner)) - variables(inner)


def outer_names(inner: Function) -> set[str]:
    """Return the names that an inner function declares ``nonlocal``."""
    return {name for node in own_nodes(inner) if isinstance(node, ast.Nonlocal) for name in node.names}


def signature_of(inner: Function) -> inspect.Signature:
    """Return the parameters of an inner function, by the names that calls use; a default tells that there is one."""
    given = inner.args
    positional = {*given.posonlyargs}
    named = {*given.kwonlyargs}
    found = []
    for argument in arguments(inner):
        kind: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD
        if argument is given.vararg:
            kind = inspect.Parameter.VAR_POSITIONAL
        elif argument in positional:
            kind = inspect.Parameter.POSITIONAL_ONLY
        elif argument in named:
            kind = inspect.Parameter.KEYWORD_ONLY
        default = None if argument.arg in defaults(inner) else inspect.Parameter.empty
        found.append(inspect.Parameter(given_name(argument), kind, default=default))
    return inspect.Signature(found)


def as_definition(function: Function) -> ast.FunctionDef:
    """Return a lambda as the ``def`` that does the same, and a ``def`` as it is."""
    if isinstance(function, ast.FunctionDef):
        return function
    made: ast.FunctionDef | None = getattr(function, "definition", None)
    if made is None:
        body = ast.copy_location(ast.Return(function.body), function.body)
        made = ast.FunctionDef("lambda_", function.args, [body], [])
        ast.copy_location(made, function)
        function.definition = made  # type: ignore[attr-defined]
    return made


def unique(definition: ast.FunctionDef) -> ast.FunctionDef:
    """Return a function in which no two scopes have a variable of the same name: a copy, if it has inner functions.

    The parameters of an inner function keep the names by which calls give them, as ``given``; the function keeps the
    names that its source has for the renamed variables, as ``given_names``.
    """
    if not inner_functions(definition):
        return definition
    definition = copy.deepcopy(definition)
    for inner in all_inner(definition):
        for argument in arguments(inner):
            argument.given = argument.arg  # type: ignore[attr-defined]
    definition.given_names = {}  # type: ignore[attr-defined]
    taken = {name for node in ast.walk(definition) for name in _names_in(node)}
    for inner in all_inner(definition):
        inside = set(_scope_nodes(inner))
        outside = {name for node in ast.walk(definition) if node not in inside for name in _names_in(node)}
        for name in sorted(variables(inner) & outside):
            number = 1
            while f"{name}_{number}" in taken:
                number += 1
            new = f"{name}_{number}"
            taken.add(new)
            given = definition.given_names  # type: ignore[attr-defined]
            given[new] = given.get(name, name)
            _rename(inner, name, new)
    return definition


def _scope_nodes(function: Function) -> Iterator[ast.AST]:
    """Yield the nodes inside a function, its parameters and the functions inside it included."""
    yield from arguments(function)
    for node in function.body if isinstance(function.body, list) else [function.body]:
        yield from ast.walk(node)


def _names_in(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    return list(node.names) if isinstance(node, ast.Nonlocal) else []


def _rename(function: Function, name: str, new: str) -> None:
    """Rename a variable of a function, also in the functions inside it that capture it."""
    for argument in arguments(function):
        if argument.arg == name:
            argument.arg = new
    for node in own_nodes(function):
        if isinstance(node, ast.Name) and node.id == name:
            node.id = new
        elif isinstance(node, ast.FunctionDef) and node.name == name:
            node.name = new
        elif isinstance(node, ast.Nonlocal):
            node.names = [new if one == name else one for one in node.names]
    for inner in inner_functions(function):
        if name not in variables(inner):
            _rename(inner, name, new)


def named_inner(definition: ast.FunctionDef) -> dict[str, list[Function]]:
    """Return the inner functions that each variable may hold, as far as ``def`` and ``f = lambda …`` tell."""
    found: dict[str, list[Function]] = {}
    for node in ast.walk(definition):
        if isinstance(node, ast.FunctionDef) and node is not definition:
            found.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Lambda):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, []).append(node.value)
    return found


def flows(definition: ast.FunctionDef) -> Iterator[tuple[str, ast.expr]]:
    """Yield where calls of inner functions carry values: a parameter and an argument, a function and its result."""
    inner = named_inner(definition)
    for name, functions in inner.items():
        for function in functions:
            if isinstance(function, ast.Lambda):
                yield name, function.body
            for node in own_nodes(function):
                if isinstance(node, ast.Return) and node.value is not None:
                    yield name, node.value
    for node in ast.walk(definition):
        if not isinstance(node, ast.Call):
            continue
        called: list[Function] = [node.func] if isinstance(node.func, ast.Lambda) else []
        called += inner.get(node.func.id, []) if isinstance(node.func, ast.Name) else []
        for function in called:
            yield from passed(arguments(function), node)


def passed(parameters: list[ast.arg], node: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    """Yield the name of a parameter and an argument that a call may give to it."""
    for place, argument in enumerate(node.args):
        starred = any(isinstance(one, ast.Starred) for one in node.args[: place + 1])
        for parameter in parameters[place:] if starred else parameters[min(place, len(parameters) - 1) :][:1]:
            yield parameter.arg, argument
    for keyword in node.keywords:
        for parameter in parameters:
            if keyword.arg in (None, given_name(parameter)):
                yield parameter.arg, keyword.value
