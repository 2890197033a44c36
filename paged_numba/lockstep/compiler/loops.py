"""Loops of a kernel, translated: all lanes iterate together until the last lane is done.

``_l`` holds the lanes that are still in the loop. Each iteration runs with these lanes as ``_m``; ``break`` takes
lanes out of ``_l``, ``continue`` only out of ``_m``.
"""

from __future__ import annotations

import ast
from typing import ClassVar, NamedTuple

from .analysis import syntax
from .analysis.apart import runs_apart
from .analysis.syntax import Accumulation, Region
from .analysis.waiting import wait
from .expressions import call
from .statements import Statements


class Held(NamedTuple):
    """What the lanes of a loop hold, by the names in the lane program.

    Attributes
    ----------
    values, lanes : str
        Tuples of the values and of the masks that are read or written in the loop.
    ended : str
        The assignment to the variables whose values end with each iteration, empty if there are none.
    """

    values: str
    lanes: str
    ended: str


class Loops(Statements):
    """Writer of statements, loops included."""

    compacts: ClassVar[bool] = True
    """Whether loops may leave out the lanes that are done; see `shortcuts.compaction`."""

    def accumulation(self, node: ast.For) -> Accumulation | None:
        """Return the sums of a loop whose iterations may run at once, else None."""
        early = self.expressions.early
        if self.debugged or (early and any(name in early for name in ast.walk(node))):
            return None  # each iteration checks which lanes have assigned
        return syntax.accumulation(node, lambda function: self.names.dtype(function) is not None)

    def write_For(self, node: ast.For, region: Region) -> None:
        n = self.next_number()
        self.emit(f"_s{n} = _l{n} = _m")
        depth = self.depth
        bounds, held = self.expressions.range_bounds(node.iter), None
        found = None if bounds is None else self.accumulation(node)
        if bounds is None:
            iteration = call("each", "_rt", f"lambda: _l{n}", self.expressions.iterable(node.iter))
        elif found is None:
            iteration = call("Trips", "_m", *bounds)
            held = self.begin_compaction(node, n, (*region, node), iteration)
            if held is not None:
                iteration = f"_x{n}"
        else:
            self.emit(f"_q{n} = ({', '.join(bounds)},)")
            self.write_at_once(found, n, (*region, node))
            self.emit(f"if _g{n} is None:")
            self.depth += 1
            iteration = call("Trips", "_m", f"*_q{n}")
        self.emit(f"for _i{n}, _n{n} in {iteration}:")
        self.depth += 1
        self.emit(f"_m = _l{n} if _n{n} is None else narrow(_l{n}, _n{n})")
        self.emit("if _m is False: break")
        self.compact("_m", n, held)
        self.begin_iteration(node)
        self.step()
        inner = (*region, node)
        self.enter(inner)
        self.assign(node.target, f"_i{n}")
        self.loop_body(node, n, inner, held)
        self.depth = depth
        self.arc(node, f"_l{n} is not False")

    def write_at_once(self, found: Accumulation, n: int, inner: Region) -> None:
        """Write the loop over ``range(*_q)`` with its iterations along a third axis.

        ``_g`` holds the index of all iterations, or None if they must run one by one: then the variables have
        their values from before the loop.
        """
        self.emit(f"_g{n} = at_once(_rt, _m, *_q{n})")
        self.emit(f"if _g{n} is not None:")
        self.depth += 1
        for_line = self.line
        names = [found.variable, *(name for name, _, _ in found.steps)]
        variables = ", ".join(f"v_{name}" for name in names)
        self.emit(f"_k{n} = ({variables},)")
        self.emit("try:")
        self.depth += 1
        self.emit(f"v_{found.variable} = _g{n}")
        results = [f"latest(v_{found.variable})"]
        for i, (name, value, added) in enumerate(found.steps):
            text = self.expressions.text(value)
            self.line = value.lineno
            if added:
                self.emit(f"_a{n}_{i} = accumulate(v_{name}, {text})")
                results.append(f"_a{n}_{i}")
            else:
                self.emit(f"v_{name} = {text}")
                results.append(f"latest(v_{name})")
        self.line = for_line
        temporaries = [f"_f{n}_{i}" for i in range(len(names))]
        self.emit(f"{', '.join(temporaries)}, = {', '.join(results)},")
        self.emit(f"{variables}, = _k{n}")
        self.enter(inner)
        for name, temporary in zip(names, temporaries, strict=True):
            self.assign(ast.Name(name), temporary)
        self.depth -= 1
        self.emit("except (KernelError, NotAtOnceError):")
        self.emit(f" {variables}, = _k{n}")
        self.emit(f" _g{n} = None")
        self.depth -= 1

    def write_While(self, node: ast.While, region: Region) -> None:
        n = self.next_number()
        self.emit(f"_s{n} = _l{n} = _m")
        self.emit(f"_o{n} = False")
        waits = wait(node, self.names.atomic, self.names.device)
        if waits is not None:
            self.waits_for_others |= waits.for_others
            self.emit(f"_p{n} = Patience({waits.for_others})")
        held = self.begin_compaction(node, n, (*region, node))
        if self.arcs:
            self.settle(f"_z{n} = False")
        self.settle(f"while _l{n} is not False:")
        self.depth += 1
        if waits is not None:
            self.emit(f"_p{n}.check(_rt, _l{n})")
        self.compact(f"_l{n}", n, held)
        self.emit(f"_m = _l{n}")
        self.begin_iteration(node)
        self.step()
        self.emit(f"_m = narrow(_m, {self.expressions.text(node.test)})")
        self.branch(f"_l{n}", "_m")
        if self.arcs:
            self.settle(f"_z{n} = _z{n} or _m is not _l{n}")
        if node.orelse:
            # Lanes whose condition failed run the `else`; those that broke out do not.
            self.emit(f"_o{n} = union(_o{n}, minus(_l{n}, _m))")
        self.emit(f"_l{n} = _m")
        self.emit("if _m is False: break")
        inner = (*region, node)
        self.enter(inner)
        self.loop_body(node, n, inner, held)
        self.arc(node, f"_z{n}")

    def begin_compaction(
        self, node: ast.For | ast.While, n: int, inner: Region, trips: str = ""
    ) -> Held | None:
        """Prepare a loop whose lanes run apart for compaction; return what they hold, None for other loops."""
        # An inner function uses the machine of the function around it.
        inside = self.definition is not self.names.source.definition
        if not self.compacts or self.debugged or inside or not runs_apart([node], self.names):
            return None
        if trips:
            self.emit(f"_x{n} = {trips}")
        self.emit(f"_d{n} = Compaction({f'_x{n}' if trips else ''})")
        named = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
        named &= self.variables
        ended = {name for name in named if self.homes[name][: len(inner)] == inner}
        values = [f"v_{name}" for name in sorted(named - ended)] + [f"_i{n}"] * bool(trips)
        lanes = [f"a_{name}" for name in sorted(named & self.questioned)]
        lanes += [f"_l{n}", "_m" if trips else f"_o{n}"]
        if "return" in syntax.leaves([node]):
            values += [] if self.kernel else ["_v"]
            lanes += ["_r", *(f"_l{outer}" for outer in self.loops)] + ["_y"] * self.returns_partly
        held, masks = (f"({', '.join(names)},)" if names else "()" for names in (values, lanes))
        return Held(held, masks, "".join(f"v_{name} = " for name in sorted(ended)) + "UNSET" * bool(ended))

    def compact(self, mask: str, n: int, held: Held | None) -> None:
        """Write the start of an iteration: if few lanes are left in `mask`, the loop continues with them alone."""
        if held is None:
            return
        values, lanes, ended = held
        self.emit(f"if _d{n}.thins(_rt, {mask}):")
        self.emit(f" _rt, {values}, {lanes} = _d{n}.gather(_rt, {mask}, {values}, {lanes})")
        if ended:
            self.emit(f" {ended}")

    def end_compaction(self, n: int, held: Held | None) -> None:
        """Write what comes after a loop: if it was compacted, its variables get back their values in all lanes."""
        if held is None:
            return
        values, lanes, ended = held
        self.settle(f"if _d{n}.levels:")
        self.settle(f" _rt, {values}, {lanes} = _d{n}.scatter({values}, {lanes})")
        if ended:
            self.settle(f" {ended}")

    def loop_body(self, node: ast.For | ast.While, n: int, inner: Region, held: Held | None) -> None:
        """Write the body of a loop, its ``else``, and the mask of the lanes after it."""
        self.loops.append(n)
        self.statements(node.body, inner)
        self.loops.pop()
        if self.arcs:
            self.settle(f"if _l{n} is False: break")
        self.depth -= 1
        self.end_compaction(n, held)
        if node.orelse:
            self.settle(f"_m = _o{n}" if isinstance(node, ast.While) else f"_m = _l{n}")
            self.settle("if _m is not False:")
            self.depth += 1
            self.statements(node.orelse, inner[:-1])
            self.settle("pass")
            self.depth -= 1
        after = syntax.leaves(node.orelse) - {"return"}
        if after:
            raise self.unsupported(node, "break or continue in the else of a loop: set a flag")
        self.settle(f"_m = minus(_s{n}, _r)" if "return" in syntax.leaves([node]) else f"_m = _s{n}")
