"""`Track`: what one thread block of one launch does, step by step, as JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ..observe.code import CodeFunction, CodeLine
from .packing import amount, packed, ranges
from .sources import SourceText

MOST_STEPS = 4_000
"""Steps that are kept of a thread block."""

MOST_NUMBERS = 250_000
"""Numbers that are kept of a thread block: values of variables, addresses, elements."""


class Functions:
    """The functions of a recording, in the order in which they are first met."""

    def __init__(self) -> None:
        self.texts: list[SourceText] = []
        self.described: list[dict[str, Any]] = []
        self._numbers: dict[tuple[str, int, str], int] = {}

    def number(self, function: CodeFunction) -> int:
        """Return the number of a function, a new one if it has none."""
        key = function.file, function.first, function.name
        if key not in self._numbers:
            self._numbers[key] = len(self.described)
            self.texts.append(SourceText(function))
            self.described.append(
                {
                    "name": function.name,
                    "file": function.short_file,
                    "first": function.first,
                    "lines": list(function.source),
                    "docstring": self.texts[-1].docstring,
                }
            )
        return self._numbers[key]


class Track:
    """The steps of one thread block of one launch. A step is one statement that some of its threads run together.

    Parameters
    ----------
    functions : Functions
        Those of the recording.
    described : dict
        What is known of the thread block before it runs.

    Attributes
    ----------
    described : dict
        The track as JSON; `add_step` and the other methods fill it.
    left_out : int
        Steps beyond the limits.
    """

    def __init__(self, functions: Functions, described: dict[str, Any]) -> None:
        self.functions = functions
        self.steps: list[dict[str, Any]] = []
        self.masks: list[str] = []
        self.described = {
            **described,
            "arrays": [],
            "variables": [],
            "masks": self.masks,
            "steps": self.steps,
        }
        self.left_out = 0
        self.epoch = 0
        self.line: CodeLine | None = None
        self.lanes: Any = None
        self._numbers = 0
        self._known: dict[str, dict[Any, int]] = {"arrays": {}, "variables": {}, "masks": {}}
        self._arrivals: dict[int, dict[str, Any]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._parameters: list[tuple[CodeFunction, str, str, Any, Any]] = []

    @property
    def step(self) -> dict[str, Any] | None:
        """The current step, None if it is beyond the limits."""
        return None if self.left_out or not self.steps else self.steps[-1]

    def runs(self, line: CodeLine, lanes: Any) -> bool:
        """Tell whether the current step is of this line and has these lanes; beyond the limits, all steps are one."""
        return bool(
            self.left_out or (self.line is line and np.isin(lanes, self.lanes, assume_unique=True).all())
        )

    def mask(self, lanes: Any) -> int:
        """Return the number of a set of lanes among `masks`."""
        text = ranges(lanes)
        return self._number("masks", text, text)

    def _number(self, what: str, key: Any, value: Any) -> int:
        known = self._known[what]
        if key not in known:
            known[key] = len(known)
            self.described[what].append(value)
        return known[key]

    def begin(self, line: CodeLine, lanes: Any, *, resumed: bool = False) -> None:
        """Begin a step.

        Parameters
        ----------
        line : CodeLine
        lanes : int64[n]
            The threads that run the statement.
        resumed : bool
            Whether the statement has begun in an earlier step, and called a function since.
        """
        self.line, self.lanes = line, lanes
        if self.left_out or len(self.steps) >= MOST_STEPS or self._numbers >= MOST_NUMBERS:
            self.left_out += 1
            return
        function = self.functions.number(line.function)
        step: dict[str, Any] = {"function": function, "line": line.number}
        step |= {"lanes": self.mask(lanes), "epoch": self.epoch}
        kind = self.functions.texts[function].kind(line.number)
        if kind in ("if", "while", "for", "return"):
            step["kind"] = kind
        if resumed:
            step["resumed"] = True
        else:
            self._counts.clear()
        self.steps.append(step)
        for warp in {int(lane) // 32 for lane in lanes}:
            self._arrivals[warp] = step
        parameters, self._parameters = self._parameters, []
        for parameter in parameters:
            self.assign(*parameter)

    def parameter(self, function: CodeFunction, name: str, dtype: str, lanes: Any, values: Any) -> None:
        """Add a parameter of a function that begins: it is assigned in the function's first step."""
        self._parameters.append((function, name, dtype, lanes, values))

    def assign(self, function: CodeFunction, name: str, dtype: str, lanes: Any, values: Any) -> None:
        """Add an assignment: `values` is an array with a number for each lane, or a text."""
        step = self.step
        if step is not None:
            number = self.functions.number(function)
            variable = {"function": number, "name": name, "dtype": dtype}
            value = values if isinstance(values, str) else packed(values)
            item = [self._number("variables", (number, name), variable), self.mask(lanes), value]
            step.setdefault("set", []).append(item)
            self._numbers += amount(value)

    def access(self, array: dict[str, Any], kind: str, lanes: Any, **what: Any) -> dict[str, Any] | None:
        """Add an access, and return it so that its values can be added; the items of `what` are packed."""
        step = self.step
        if step is None or self.line is None:
            return None
        nth = self._counts[array["name"], kind]
        self._counts[array["name"], kind] += 1
        text = self.functions.texts[step["function"]].subscript(self.line.number, array["name"], kind, nth)
        number = self._number("arrays", repr(array), array)
        found = {"array": number, "kind": kind, "lanes": self.mask(lanes), "text": text, **what}
        step.setdefault("accesses", []).append(found)
        self._numbers += sum(map(amount, what.values()))
        return found

    def cooperate(self, kind: str, lanes: Any) -> None:
        """Add a barrier, at which `lanes` have arrived, or an operation of a warp."""
        step = self.step
        if kind not in ("block", "grid"):
            if step is not None:
                step["joins"] = kind
            return
        self.epoch += 1
        if step is not None:
            step["opens"] = self.epoch
            for warp in {int(lane) // 32 for lane in lanes}:
                if warp in self._arrivals:
                    self._arrivals[warp]["arrives"] = self.epoch

    def branch(self, held: Any) -> None:
        """Add for which lanes the test of the current step holds."""
        if self.step is not None:
            self.step["held"] = self.mask(held)
