"""Types and signatures of the facade as Numba has them, for what asks Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..signatures import VOID, ArrayType, Scalar, Signature, TupleType, Type


def is_ours(given: Any) -> bool:
    """Tell whether a signature is written with the facade's types."""
    return isinstance(given, (Signature, list)) or (
        isinstance(given, tuple) and any(isinstance(item, Type) for item in given)
    )


def as_numba(given: Any) -> Any:
    """Return a type of the facade as Numba's."""
    from numba import types
    from numba.np import numpy_support

    from_dtype: Callable[[Any], Any] = numpy_support.from_dtype
    if given is VOID:
        return types.none
    if isinstance(given, Scalar):
        return from_dtype(given.dtype)
    if isinstance(given, ArrayType):
        return types.Array(from_dtype(given.dtype), given.ndim, given.layout, readonly=not given.mutable)
    if isinstance(given, TupleType):
        return types.BaseTuple.from_types(tuple(map(as_numba, given.items)))
    return getattr(types, str(given)) if isinstance(given, Type) else given


def for_numba_signature(given: Any) -> Any:
    """Return a signature, or a list of them, as Numba takes it."""
    if isinstance(given, list):
        return [for_numba_signature(one) for one in given]
    if isinstance(given, str) or not isinstance(given, tuple):
        return given
    result = getattr(given, "result", None)
    types = tuple(map(as_numba, getattr(given, "args", given)))
    return types if result is None else as_numba(result)(*types)
