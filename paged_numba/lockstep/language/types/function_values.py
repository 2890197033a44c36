"""`FunctionValue`: a function as the value of a variable of a kernel."""

from __future__ import annotations

from typing import Any, NoReturn

from ....errors import KernelError
from ...machine.lanes import source_line
from ...machine.masks import Mask, minus, narrow


class FunctionValue:
    """A function that a variable of a kernel holds.

    Two are equal if they are the same function.

    Parameters
    ----------
    name : str
    key : object
        What is equal for the same function.
    """

    def __init__(self, name: str, key: Any) -> None:
        self.name = name
        self.key = key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FunctionValue) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise KernelError(
            f"a variable must hold the function {self.name} in all threads or in none, {source_line()}"
        )

    def blend(self, mask: Mask, old: Any) -> FunctionValue:
        """Return the value of a variable that held `old` and holds this function in `mask` now."""
        if not isinstance(old, FunctionValue):
            self.__array__()
        return Mixed([(mask, self), *old.parts])

    @property
    def parts(self) -> list[tuple[Mask, FunctionValue]]:
        """The functions with the lanes that hold them; the first one that has a lane counts."""
        return [(True, self)]

    def held(self, mask: Mask) -> FunctionValue:
        """Return the function that the active lanes hold.

        Raises
        ------
        KernelError
            They hold different ones.
        """
        return self


class Mixed(FunctionValue):
    """Different functions in different lanes, which no call may meet."""

    def __init__(self, parts: list[tuple[Mask, FunctionValue]]) -> None:
        super().__init__("a function", object())
        self._parts = parts

    @property
    def parts(self) -> list[tuple[Mask, FunctionValue]]:
        """The functions with the lanes that hold them; the first one that has a lane counts."""
        return self._parts

    def held(self, mask: Mask) -> FunctionValue:
        """Return the function that the active lanes hold."""
        found: list[FunctionValue] = []
        for lanes, function in self._parts:
            here = mask if lanes is True else narrow(mask, lanes)
            if here is not False:
                mask = minus(mask, here)
                found += [] if function in found else [function]
            if mask is False:
                break
        if len(found) > 1:
            held = " and ".join(function.name for function in found)
            raise KernelError(
                f"a variable must hold one function in all threads, got {held}, {source_line()}"
            )
        return found[0]
