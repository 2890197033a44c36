"""Waiting loops: loops that end only when memory changes, such as ``while cuda.atomic.cas(lock, 0, 0, 1): pass``.

A loop waits if its end does not depend on a variable that an earlier iteration has changed. If an iteration of such a
loop changes no memory and no lane leaves, the loop never ends: `Patience` notices this. If another thread block, such
as the owner of a lock, must change the memory, the thread blocks run one after the other.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from .syntax import leaves

_SIZES = ("shape", "size")
"""Attributes of arrays that no iteration changes."""

_UNCHANGED = ("cas", "compare_and_swap", "exch", "and_", "or_", "max", "min", "nanmax", "nanmin")
"""Atomic operations that change nothing more if they are repeated."""


class Wait(NamedTuple):
    """A waiting loop.

    Attributes
    ----------
    for_others : bool
        Whether it may wait for another thread block.
    """

    for_others: bool


def wait(
    loop: ast.While,
    atomic: Callable[[ast.Call], str | None],
    device: Callable[[ast.Call], Any],
) -> Wait | None:
    """Return what a loop waits for, or None if its iterations differ or it reads no memory and no size of an array.

    Parameters
    ----------
    loop : ast.While
    atomic : callable
        Returns the name of the atomic operation that an expression calls, else None.
    device : callable
        Returns the device function that an expression calls, or the syntax tree of an inner function, or
        ``Ellipsis`` if only the run knows the function; else None.
    """
    decisive = _decisive(loop)
    called = [device(node) for node in ast.walk(loop) if isinstance(node, ast.Call)]
    inner = [function for function in called if isinstance(function, ast.AST)]
    if decisive is None or any(isinstance(part, ast.Nonlocal) for node in inner for part in ast.walk(node)):
        return None
    stored = _stored([loop, *inner], lambda call: atomic(call) is not None or device(call) is not None)
    reads = for_others = False
    for node in (part for expression in decisive for part in ast.walk(expression)):
        if isinstance(node, ast.Attribute) and node.attr in _SIZES:
            reads = True
        elif isinstance(node, ast.Subscript) and not (
            isinstance(node.value, ast.Attribute) and node.value.attr in _SIZES
        ):
            reads = True
            for_others |= not any(
                isinstance(part, ast.Name) and part.id in stored for part in ast.walk(node.value)
            )
        elif isinstance(node, ast.Call):
            name, function = atomic(node), device(node)
            reads |= name is not None or function is not None
            for_others |= name is not None and (name in _UNCHANGED or _adds_zero(node))
            for_others |= function is not None and _locks(function)
    return Wait(for_others) if reads else None


def _decisive(loop: ast.While) -> list[ast.expr] | None:
    """Return the expressions that decide whether the loop ends; None if one depends on an earlier iteration."""
    sources: dict[str, list[ast.expr]] = {}
    ends: list[ast.expr] = [loop.test]

    def visit(statements: Sequence[ast.stmt], tests: list[ast.expr], inner: bool) -> None:
        for statement in statements:
            if isinstance(statement, ast.Return) or (isinstance(statement, ast.Break) and not inner):
                ends.extend(tests)
            for name, value in _assignments(statement):
                sources.setdefault(name, []).extend((value, *tests))
            if isinstance(statement, ast.If):
                visit(statement.body, [*tests, statement.test], inner)
                visit(statement.orelse, [*tests, statement.test], inner)
            elif isinstance(statement, (ast.For, ast.While)):
                test = statement.iter if isinstance(statement, ast.For) else statement.test
                visit(statement.body, [*tests, test], True)
                visit(statement.orelse, [*tests, test], inner)
            if leaves([statement]) & {"break", "continue"} and isinstance(statement, ast.If):
                # What follows runs only in the lanes that stayed.
                tests = [*tests, statement.test]

    visit(loop.body, [], False)
    decisive: list[ast.expr] = []
    done: set[str] = set()

    def follow(expressions: Sequence[ast.expr], path: frozenset[str]) -> bool:
        """Collect the expressions and their sources; return whether none depends on itself."""
        for expression in expressions:
            decisive.append(expression)
            for node in ast.walk(expression):
                if isinstance(node, ast.Name) and node.id in sources:
                    if node.id in path:
                        return False
                    if node.id not in done:
                        if not follow(sources[node.id], path | {node.id}):
                            return False
                        done.add(node.id)
        return True

    return decisive if follow(ends, frozenset()) else None


def _assignments(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that a statement assigns, without the statements inside it, and their values."""
    targets: list[ast.expr] = []
    value: ast.expr | None = None
    if isinstance(statement, ast.Assign):
        targets, value = statement.targets, statement.value
    elif isinstance(statement, (ast.AugAssign, ast.AnnAssign)):
        targets, value = [statement.target], statement.value
    elif isinstance(statement, ast.For):
        targets, value = [statement.target], statement.iter
    for target in targets:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and value is not None:
                yield node.id, value
                if isinstance(statement, ast.AugAssign):
                    yield node.id, ast.Name(node.id, ast.Load())


def _stored(trees: Sequence[ast.AST], stores: Callable[[ast.Call], bool]) -> set[str]:
    """Return the names of the arrays that the loop, or an inner function that it calls, may store into."""
    names: set[str] = set()
    for node in (part for tree in trees for part in ast.walk(tree)):
        if isinstance(node, (ast.Subscript, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            names |= {part.id for part in ast.walk(node.value) if isinstance(part, ast.Name)}
        elif isinstance(node, ast.Call) and stores(node):
            names |= {
                part.id for given in node.args for part in ast.walk(given) if isinstance(part, ast.Name)
            }
    return names


def _adds_zero(node: ast.Call) -> bool:
    return bool(node.args) and isinstance(node.args[-1], ast.Constant) and node.args[-1].value == 0


def _locks(function: Any) -> bool:
    """Tell whether a device function calls an atomic operation that may fail and be repeated."""
    if function is Ellipsis:
        return True
    try:
        tree = (
            function
            if isinstance(function, ast.AST)
            else ast.parse(textwrap.dedent(inspect.getsource(function)))
        )
    except (OSError, TypeError, SyntaxError):
        return False
    return any(
        isinstance(node, ast.Attribute) and node.attr in ("cas", "compare_and_swap", "exch")
        for node in ast.walk(tree)
    )
