"""Fields of records that are not aligned, which Numba refuses only when it generates code."""

from __future__ import annotations

from typing import Any


def check_alignment(state: Any) -> None:
    """Refuse fields of a record that are not aligned, as Numba does when it generates code."""
    types = state.typemap
    for block in state.func_ir.blocks.values():
        for statement in block.body:
            kind = type(statement).__name__
            place: Any = getattr(statement, "value", None)
            if kind in ("SetAttr", "StaticSetItem"):
                holder, name = statement.target, statement.attr if kind == "SetAttr" else statement.index
            elif getattr(place, "op", None) in ("getattr", "static_getitem"):
                holder, name = place.value, place.attr if place.op == "getattr" else place.index
            else:
                continue
            if type(types[holder.name]).__name__ == "Record" and isinstance(name, str):
                state.targetctx.sentry_record_alignment(types[holder.name], name)
