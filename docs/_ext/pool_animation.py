"""The moving picture of the start page: the requests of lesson 00 in blocks and, in the same memory, in reservations.

``python docs/_ext/pool_animation.py`` prints the figure.
"""

import ast
from dataclasses import dataclass, field
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import paged_numba as pn
from paged_numba.draw.svg import COLOURS

LESSON = Path(__file__).parents[2] / "tutorials" / "00_see_it_work.py"
NUM_SLOTS, BLOCK_SIZE, RESERVATION = 256, 16, 128
FILLS = (*COLOURS, "#9a9a9a")
SECONDS_PER_STEP = 0.4
STEPS_OF_REST = 6
CELL, ROW, LEFT = 50, 40, 1  # pixels: a block's width, a row's height, the margin


def requests_of_lesson() -> dict[str, tuple[int, int, int]]:
    """Return, by name, the step in which a request comes and the tokens of its prompt and of its answer."""
    for node in ast.parse(LESSON.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "requests":
            return ast.literal_eval(node.value)
    raise ValueError(f"{LESSON.name} must assign `requests`")


@dataclass
class Piece:
    """Memory that one request holds for some steps.

    Attributes
    ----------
    place : int
        Number of the piece in the pool.
    owner : str
        Name of the request.
    start : int
        The first step in which the request holds the piece.
    tokens : list of int
        Tokens in the piece at the end of this step and of the following ones.
    """

    place: int
    owner: str
    start: int
    tokens: list[int] = field(default_factory=list)

    @property
    def stop(self) -> int:
        """The step in which the piece is free again."""
        return self.start + len(self.tokens)


def served(requests, piece_size: int, num_steps: int | None = None) -> tuple[list[Piece], list[str]]:
    """Serve the requests from a pool of pieces; return who held each piece when, and the counts of each step as text.

    A request that finds no room waits, as those do that come after it. The steps are as many as it takes, or
    `num_steps`.
    """
    pool = pn.BlockAllocator(NUM_SLOTS // piece_size, piece_size)
    names, ends, open_pieces, pieces, counts = list(requests), {}, {}, [], []
    while len(counts) != num_steps and not (num_steps is None and len(ends) == len(names) and not len(pool)):
        step = len(counts)
        for name in [name for name in pool if step > ends[name]]:
            pool.free(name)
        for name in pool:
            pool.append(name)
        for name in names[len(ends) :]:
            arrival, prompt, answer = requests[name]
            if arrival > step or not pool.can_allocate(prompt):
                break
            pool.add(name, prompt)
            ends[name] = step + answer
        held = {}
        for name in pool:
            for index, block in enumerate(pool.block_table(name).tolist()):
                tokens = min(piece_size, pool.seq_len(name) - index * piece_size)
                piece = open_pieces.get(block)
                if piece is None or piece.owner != name:
                    piece = Piece(block, name, step)
                    pieces.append(piece)
                piece.tokens.append(tokens)
                held[block] = piece
        open_pieces = held
        waiting = sum(arrival <= step for arrival, _, _ in requests.values()) - len(ends)
        counts.append(f"{len(pool)} running, {waiting} waiting, {len(ends) - len(pool)} done")
    return pieces, counts


class Clock:
    """Makes CSS animations of steps; those that are equal share their keyframes."""

    def __init__(self, num_steps: int, still: int) -> None:
        self.num_steps, self.still = num_steps, still
        self._names: dict[str, str] = {}

    def _animation(self, frames: str, timing: str) -> str:
        name = self._names.setdefault(frames, f"pool{len(self._names)}")
        return f"animation:{name} var(--loop) {timing} infinite"

    def _percent(self, step: int) -> str:
        return f"{100 * step / (self.num_steps + STEPS_OF_REST):.3g}%"

    def shown(self, start: int, stop: int) -> str:
        """Return the style of what is seen from one step to another; to the end, it stays for the rest."""
        frames = "0%{opacity:0}" if start else ""
        frames += f"{self._percent(start)}{{opacity:1}}"
        if stop < self.num_steps:
            frames += f"{self._percent(stop)}{{opacity:0}}"
        seen = int(start <= self.still < stop)
        return f"opacity:{seen};{self._animation(frames, 'step-end')}"

    def filled(self, piece: Piece, size: int) -> str:
        """Return the style of a bar that grows with the tokens of a piece."""
        tokens, frames = piece.tokens, ""
        for i, now in enumerate(tokens):
            even = 0 < i < len(tokens) - 1 and tokens[i + 1] - now == now - tokens[i - 1]
            if not even:
                frames += f"{self._percent(piece.start + i)}{{transform:scaleX({now / size:.3g})}}"
        still = tokens[min(max(self.still - piece.start, 0), len(tokens) - 1)] / size
        return f"transform:scaleX({still:.3g});{self._animation(frames, 'linear')}"

    def css(self) -> str:
        """Return the keyframes, and what holds for the whole picture."""
        loop = (self.num_steps + STEPS_OF_REST) * SECONDS_PER_STEP
        frames = "".join(f"@keyframes {name}{{{frames}}}" for frames, name in self._names.items())
        return (
            f".pool-animation{{--loop:{loop:g}s}}{frames}"
            "@media(prefers-reduced-motion:reduce){.pool-animation *{animation:none!important}"
            ".pool-animation label{display:none}}"
        )


def drawn(clock: Clock, top: int, title: str, size: int, pieces: list[Piece], counts: list[str]) -> str:
    """Return a pool as SVG: a row for each 128 slots, the pieces of memory in it, and counts above."""
    fills = dict(zip(sorted({piece.owner for piece in pieces}), FILLS, strict=False))
    parts = [f'<text x="{LEFT}" y="{top + 14}" class="title">{title}</text>']
    since = 0
    for step in range(1, len(counts) + 1):
        if step == len(counts) or counts[step] != counts[since]:
            where = f'x="{LEFT + 8 * CELL}" y="{top + 14}" class="count"'
            parts.append(f'<text {where} style="{clock.shown(since, step)}">{counts[since]}</text>')
            since = step
    per_row, width = RESERVATION // size, CELL * size // BLOCK_SIZE

    def box(place: int) -> str:
        x, y = LEFT + place % per_row * width, top + 22 + place // per_row * ROW
        return f'x="{x + 1.5}" y="{y}" width="{width - 3}" height="{ROW - 6}" rx="3"'

    parts += [f'<rect {box(place)} class="free"/>' for place in range(NUM_SLOTS // size)]
    for piece in pieces:
        x, y = LEFT + piece.place % per_row * width, top + 22 + piece.place // per_row * ROW
        parts.append(
            f'<g style="{clock.shown(piece.start, piece.stop)}"><rect {box(piece.place)} class="held"/>'
            f'<rect {box(piece.place)} fill="{fills[piece.owner]}" class="bar" style="{clock.filled(piece, size)}"/>'
            f'<text x="{x + 14}" y="{y + 23}" class="name">{piece.owner}</text></g>'
        )
    return "".join(parts)


def figure() -> str:
    """Return the figure as HTML."""
    requests = requests_of_lesson()
    in_blocks, block_counts = served(requests, BLOCK_SIZE)
    num_steps = len(block_counts)
    reserved, reserved_counts = served(requests, RESERVATION, num_steps)
    busiest = max(range(num_steps), key=lambda step: int(block_counts[step].split()[0]))
    clock = Clock(num_steps, busiest)
    first = drawn(clock, 0, f"In blocks of {BLOCK_SIZE} tokens", BLOCK_SIZE, in_blocks, block_counts)
    second = drawn(clock, 116, f"Reserved, {RESERVATION} tokens each", RESERVATION, reserved, reserved_counts)
    most, most_reserved = (
        max(int(c.split()[0]) for c in counts) for counts in (block_counts, reserved_counts)
    )
    done = reserved_counts[-1].split(", ")[-1].removesuffix(" done")
    caption = (
        f"Eight requests in memory for {NUM_SLOTS} tokens. In blocks, up to {most} run at once, and all are done "
        f"after {num_steps} steps. Reserved at their greatest length, {most_reserved} run at once, the others wait, "
        f"and {done} are done by then."
    )
    label = f"Two pools of the same size over {num_steps} steps. {caption}"
    return (
        f'<figure class="pool-animation"><style>{clock.css()}</style>'
        f'<svg viewBox="0 0 {2 * LEFT + 8 * CELL} 222" role="img" aria-label="{label}">{first}{second}</svg>'
        f"<figcaption>{caption} The requests are those of lesson 00.</figcaption>"
        '<label><input type="checkbox"> Pause</label></figure>'
    )


class PoolAnimation(SphinxDirective):
    """``pool-animation``: the figure."""

    def run(self) -> list[nodes.Node]:
        """Return the figure as HTML."""
        self.env.note_dependency(str(LESSON))
        return [nodes.raw("", figure(), format="html")]


def setup(app: Sphinx):
    """Register the directive."""
    app.add_directive("pool-animation", PoolAnimation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    print(figure())
