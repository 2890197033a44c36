"""Branches of a function for coverage.py: where lanes go that do not go on to the next line.

coverage.py measures branches as pairs of lines that run one after the other in a call. All lanes run one lane program,
so that the line after an ``if`` follows the test only if no lane has run the body. While a function is traced, a small
function with the two lines runs in addition, whenever some lane goes from one to the other.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from types import CodeType, FunctionType
from typing import Any

EXIT = 0
"""Stands for the end of the function, instead of a line."""


def following(function: ast.FunctionDef) -> dict[ast.stmt, int]:
    """Return, for each statement, the line that a thread runs after it, or `EXIT`."""
    found: dict[ast.stmt, int] = {}

    def walk(body: Sequence[ast.stmt], after: int, start: int = EXIT, end: int = EXIT) -> None:
        """Walk statements that come before the line `after`, in a loop from the line `start` to before `end`."""
        for place, statement in enumerate(body):
            rest = (other.lineno for other in body[place + 1 :] if _runs(other))
            leaves = {ast.Break: end, ast.Continue: start, ast.Return: EXIT}
            found[statement] = leaves.get(type(statement), next(rest, after))
            if isinstance(statement, ast.If):
                walk(statement.body, found[statement], start, end)
            elif isinstance(statement, (ast.For, ast.While)):
                endless = isinstance(statement, ast.While) and isinstance(statement.test, ast.Constant)
                again = statement.body[0].lineno if endless else statement.lineno
                walk(statement.body, again, again, found[statement])
            walk(getattr(statement, "orelse", ()), found[statement], start, end)

    walk(function.body, EXIT)
    return found


def _runs(statement: ast.stmt) -> bool:
    """Tell whether Python has code for a statement."""
    return not isinstance(statement, ast.AnnAssign) or statement.value is not None


def goes(file: str, first: int, line: int, to: int) -> Callable[[], Any]:
    """Return a function that runs two lines of a file, the second unless it is `EXIT`, and then leaves.

    `first` is the first line of the function that they belong to, its decorators included.
    """
    # It does not leave from the second line, which may have a branch that leaves.
    lines = [line] if to == EXIT else [line, to, first]
    program = ast.parse("def goes():\n" + " pass\n" * len(lines))
    for node, number in zip((program.body[0], *program.body[0].body), (first, *lines), strict=True):  # type: ignore[attr-defined]
        node.lineno = node.end_lineno = number
    code = next(one for one in compile(program, file, "exec").co_consts if isinstance(one, CodeType))
    return FunctionType(code, {})
