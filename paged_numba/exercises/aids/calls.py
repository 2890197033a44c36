"""Cases that are calls of an object: plays them, and writes them as code."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..checker.values import plain

Call = tuple[Any, ...]
"""Name of a method, and its arguments."""


@dataclass(frozen=True)
class Step:
    """A call, and what was observed.

    Attributes
    ----------
    call : Call
    returned : Any
        In Python's own types; None after an error.
    error : Exception or None
    state : dict
        Attributes after the call, by name.
    """

    call: Call
    returned: Any
    error: Exception | None
    state: dict[str, Any]


def play(
    subject: Any, calls: Sequence[Call], names: Sequence[str], errors: type[Exception] | tuple[()] = ()
) -> list[Step]:
    """Make calls on an object, and return what was observed.

    Parameters
    ----------
    subject : Any
    calls : sequence of Call
    names : sequence of str
        Attributes to look at.
    errors : type of Exception
        Errors that a call may raise; others are the caller's.
    """
    steps = []
    for name, *arguments in calls:
        returned, error = None, None
        try:
            returned = plain(getattr(subject, name)(*copy.deepcopy(arguments)))
        except errors as raised:
            error = raised
        state = {key: copy.deepcopy(getattr(subject, key)) for key in names}
        steps.append(Step((name, *arguments), returned, error, state))
    return steps


def shown_call(call: Call) -> str:
    """Return a call as code, such as ``add('a', 3)``."""
    return f"{call[0]}({', '.join(map(repr, call[1:]))})"


def code(made: str, calls: Sequence[Call], variable: str) -> str:
    """Return calls as lines of code, the first of which makes the object."""
    return "\n".join([f"{variable} = {made}", *(f"{variable}.{shown_call(call)}" for call in calls)])
