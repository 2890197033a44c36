"""Loops of a kernel, translated: all lanes iterate together until the last lane is done.

``_l`` holds the lanes that are still in the loop. Each iteration runs with these lanes as ``_m``; ``break`` takes
lanes out of ``_l``, ``continue`` only out of ``_m``.
"""

from __future__ import annotations

import ast

from .analysis import syntax
from .analysis.syntax import Accumulation, Region
from .analysis.waiting import wait
from .expressions import call
from .statements import Statements


class Loops(Statements):
    """Writer of statements, loops included."""

    def accumulation(self, node: ast.For) -> Accumulation | None:
        """Return the sums of a loop whose iterations may run at once, else None."""
        if any(name in self.expressions.early for name in ast.walk(node)):
            return None  # each iteration checks which lanes have assigned
        return syntax.accumulation(node, lambda function: self.names.dtype(function) is not None)

    def write_For(self, node: ast.For, region: Region) -> None:
        n = self.next_number()
        self.emit(f"_s{n} = _l{n} = _m")
        depth = self.depth
        bounds = self.expressions.range_bounds(node.iter)
        found = None if bounds is None else self.accumulation(node)
        if bounds is None:
            iteration = call("each", "_rt", f"lambda: _l{n}", self.expressions.iterable(node.iter))
        elif found is None:
            iteration = call("trips", "_m", *bounds)
        else:
            self.emit(f"_q{n} = ({', '.join(bounds)},)")
            self.write_at_once(found, n, (*region, node))
            self.emit(f"if _g{n} is None:")
            self.depth += 1
            iteration = call("trips", "_m", f"*_q{n}")
        self.emit(f"for _i{n}, _n{n} in {iteration}:")
        self.depth += 1
        self.emit(f"_m = _l{n} if _n{n} is None else narrow(_l{n}, _n{n})")
        self.emit("if _m is False: break")
        self.begin_iteration(node)
        inner = (*region, node)
        self.enter(inner)
        self.assign(node.target, f"_i{n}")
        self.loop_body(node, n, inner)
        self.depth = depth

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
        self.settle(f"while _l{n} is not False:")
        self.depth += 1
        if waits is not None:
            self.emit(f"_p{n}.check(_rt, _l{n})")
        self.emit(f"_m = _l{n}")
        self.begin_iteration(node)
        self.emit(f"_m = narrow(_m, {self.expressions.text(node.test)})")
        self.branch(f"_l{n}", "_m")
        if node.orelse:
            # Lanes whose condition failed run the `else`; those that broke out do not.
            self.emit(f"_o{n} = union(_o{n}, minus(_l{n}, _m))")
        self.emit(f"_l{n} = _m")
        self.emit("if _m is False: break")
        inner = (*region, node)
        self.enter(inner)
        self.loop_body(node, n, inner)

    def loop_body(self, node: ast.For | ast.While, n: int, inner: Region) -> None:
        """Write the body of a loop, its ``else``, and the mask of the lanes after it."""
        self.loops.append(n)
        self.statements(node.body, inner)
        self.loops.pop()
        self.depth -= 1
        if node.orelse:
            self.settle(f"_m = _o{n}" if isinstance(node, ast.While) else f"_m = _l{n}")
            self.settle("if _m is not False:")
            self.depth += 1
            self.statements(node.orelse, inner[:-1])
            self.settle("pass")
            self.depth -= 1
        after = syntax.leaves(node.orelse) - {"return"}
        if after:
            raise self.unsupported(node, "break or continue in the else of a loop")
        self.settle(f"_m = minus(_s{n}, _r)" if "return" in syntax.leaves([node]) else f"_m = _s{n}")
