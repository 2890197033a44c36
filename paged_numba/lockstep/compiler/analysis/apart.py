"""Loops whose lanes run apart: no lane of them waits for another one, or asks which others are there."""

from __future__ import annotations

import ast
from collections.abc import Iterable

from ....errors import UnsupportedConstructError
from ...language.intrinsics import DECLARATIONS
from ..names import Names, decorated_function
from ..source import Source
from .waiting import wait

_BY_LANE = ("cuda.grid", "cuda.gridsize", "cuda.nanosleep", "cuda.ld", "cuda.threadfence")
"""Paths, or their beginnings, of intrinsics that need the machine and are computed lane by lane."""

_BUILTINS = (divmod, print)


def runs_apart(statements: Iterable[ast.stmt], names: Names) -> bool:
    """Tell whether the lanes of some statements, and of the device functions that they call, run apart.

    They do if the statements call only functions of a single lane, memory operations and device functions that do the
    same, declare no arrays, and contain no loop that waits for memory to change.
    """
    return _apart(statements, names, {names.source})


def _apart(statements: Iterable[ast.stmt], names: Names, asked: set[Source]) -> bool:
    for node in (part for statement in statements for part in ast.walk(statement)):
        if isinstance(node, ast.Call):
            if not _call_runs_apart(node, names, asked):
                return False
        elif isinstance(node, ast.While):
            if wait(node, names.atomic, names.device) is not None:
                return False
        elif isinstance(node, (ast.FunctionDef, ast.Lambda)):
            return False
    return True


def _call_runs_apart(node: ast.Call, names: Names, asked: set[Source]) -> bool:
    found = names.static(node.func)
    if found is None or found.path in DECLARATIONS:
        return False
    if names.device(node) is Ellipsis:
        return False
    if names.device(node) is not None:
        return _function_runs_apart(decorated_function(found.value), asked)
    intrinsic = names.intrinsic(node.func)
    if intrinsic is None or not intrinsic.masked or intrinsic.kind in ("store", "atomic"):
        # Not an intrinsic: `range`, `zip`, a named tuple, or what the machine refuses.
        return intrinsic is not None or isinstance(found.value, type) or found.value is enumerate
    if intrinsic.kind:
        return False
    return any(found.value is known for known in _BUILTINS) or (found.path or "").startswith(_BY_LANE)


def _function_runs_apart(function: object, asked: set[Source]) -> bool:
    try:
        source = Source.of(function)
    except UnsupportedConstructError:
        return False
    if source in asked:
        return True
    asked.add(source)
    return _apart(source.definition.body, Names(source), asked)
