"""Picture of split-KV attention: a context cut into splits, and the weight of each split in the merged output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...arguments import between, finite, is_number, listed, shown
from ..letters import text_width
from ..picture import Picture, checked_title
from ..svg import Drawing, look_of, measure
from ..text import plural, table
from .fold import folded, ranges

MOST_SPLITS, MOST_TOKENS, _MOST_ROWS = 1024, 2**63 - 1, 24


@dataclass(frozen=True)
class Splits(Picture):
    """The splits of one query's context, their LSEs, and their weights in the merge.

    Split i attends to the tokens from ``starts[i]`` up to the start of the next split, the last one up to `seq_len`.
    The LSE of a split is the logarithm of the sum of its exponentiated scores; the LSE of the whole context is
    ``log(sum(exp(lse)))``. In the merged output, the output of split i has the weight ``exp(lse[i] - total)``.

    Parameters
    ----------
    starts : list of int
        First token of each split, ascending from 0; at most 1,024. A split that begins where the next one does is
        empty.
    seq_len : int
        Tokens of the context.
    lse : list of float
        LSE of each split, to the base e; ``-inf`` if it is empty.
    title : str, optional
        Heading of the picture.

    Raises
    ------
    TypeError, ValueError
        `starts` is not ascending from 0 to at most `seq_len`; `lse` has another length, is not a number, or is not
        ``-inf`` for an empty split.

    See Also
    --------
    paged_numba.merge_states : Merges attention over parts of a context.

    Examples
    --------
    >>> import math
    >>> import paged_numba as pn
    >>> splits = pn.draw.Splits([0, 4, 8], 10, [0.0, math.log(2), 0.0])
    >>> print(splits)
    10 tokens in 3 splits
    split  tokens  LSE     weight
    -----  ------  ------  ------
    0      0 to 3  0.0000  0.2500
    1      4 to 7  0.6931  0.5000
    2      8 to 9  0.0000  0.2500
    total  0 to 9  1.3863  1.0000
    output = 0.2500 * output of split 0 + 0.5000 * output of split 1 + 0.2500 * output of split 2
    """

    starts: Sequence[int]
    seq_len: int
    lse: Sequence[float]
    title: str = ""

    def __post_init__(self) -> None:
        seq_len = between("seq_len", self.seq_len, 0, MOST_TOKENS)
        starts = listed("starts", self.starts, "integers")
        if len(starts) > MOST_SPLITS:
            raise ValueError(f"starts must hold at most {MOST_SPLITS} splits, got {len(starts)}")
        starts = [between("starts", start, 0, seq_len) for start in starts]
        if not starts or starts[0] != 0 or starts != sorted(starts):
            raise ValueError(f"starts must be ascending from 0, got starts={shown(self.starts)}")
        lse = listed("lse", self.lse, "numbers")
        if len(lse) != len(starts):
            raise ValueError(
                f"lse must have one number for each of {len(starts)} splits, got lse={shown(self.lse)}"
            )
        for start, end, value in zip(starts, [*starts[1:], seq_len], lse, strict=True):
            is_empty = is_number(value) and value == -math.inf
            if start == end and not is_empty:
                raise ValueError(f"lse must be -inf for an empty split, got lse={shown(self.lse)}")
            if not is_empty:
                finite("lse", value)
        title = f"{plural(seq_len, 'token')} in {plural(len(starts), 'split')}"
        title = checked_title(self.title, title)
        of = {"starts": starts, "seq_len": seq_len, "lse": [float(value) for value in lse], "title": title}
        for name, value in of.items():
            object.__setattr__(self, name, value)

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """First token, and the token after the last one, of each split."""
        return list(zip(self.starts, [*self.starts[1:], self.seq_len], strict=True))

    @property
    def total(self) -> float:
        """The LSE of the whole context; ``-inf`` if all splits are empty."""
        most = max(self.lse)
        if most == -math.inf:
            return most
        return most + math.log(math.fsum(math.exp(value - most) for value in self.lse))

    @property
    def weights(self) -> list[float]:
        """The weight of each split in the merged output; they add up to 1, or are all 0 without any token."""
        most = max(self.lse)
        if most == -math.inf:
            return [0.0] * len(self.lse)
        # Not exp(LSE - total): the rounding of a large total would show in all weights.
        weights = [math.exp(value - most) for value in self.lse]
        total = math.fsum(weights)
        return [weight / total for weight in weights]

    @property
    def description(self) -> str:
        weights = self.weights
        empty = sum(start == end for start, end in self.bounds)
        words = f"{plural(self.seq_len, 'token')} in {plural(len(weights), 'split')}"
        if empty:
            words += f", of which {empty} {'is' if empty == 1 else 'are'} empty"
        if not any(weights):
            return f"{words}. No split has a token, so there is nothing to merge."
        largest = max(range(len(weights)), key=weights.__getitem__)
        first, end = self.bounds[largest]
        return (
            f"{words}. A split's weight in the merged output is exp(LSE - {_number(self.total)}). Split {largest}, "
            f"tokens {first} to {end - 1}, weighs most: {weights[largest]:.4f}."
        )

    def text(self) -> str:
        bounds, weights = self.bounds, self.weights
        rows = [
            ["..."] * 4
            if number is None
            else [str(number), _tokens(*bounds[number]), _number(self.lse[number]), f"{weights[number]:.4f}"]
            for number in folded(len(bounds), _MOST_ROWS)
        ]
        total = ["total", _tokens(0, self.seq_len), _number(self.total), f"{sum(weights):.4f}"]
        lines = table(["split", "tokens", "LSE", "weight"], [*rows, total], left=4)
        terms = [
            f"{weight:.4f} * output of split {number}" for number, weight in enumerate(weights) if weight
        ]
        merged = f"output = {' + '.join(terms)}"
        if len(merged) > 100 or not terms:
            merged = "output = the sum of weight * output over the splits"
        return f"{self.heading}\n{lines}\n{merged}"

    def draw(self) -> Drawing:
        """Return the context above, the merged output below, and what each split contributes between them."""
        left, width, top, high, foot = 20, 700, 78, 34, 250
        drawing = Drawing(width + 2 * left, foot + high + 64, self.title)
        scale, weights = width / max(1, self.seq_len), self.weights
        room = scale * max(end - first for first, end in self.bounds) - 4
        names, named = _labels("split", [str(number) for number in range(len(weights))], room, "")
        lses, lse_named = _labels("LSE", [f"{value:.2f}" for value in self.lse], room, "small")
        inside = "" if named and lse_named else " (in the boxes: number of the split, and its LSE)"
        drawing.text(left, top - 26, f"the context: {plural(self.seq_len, 'token')}{inside}", "left")
        drawing.text(left, foot - 10, "the merged output: weights exp(LSE - total)", "left")
        if not self.seq_len:
            drawing.text(left, top + 20, "no token", "left q")
        x, first_free = float(left), 0.0
        for number, ((first, end), weight) in enumerate(zip(self.bounds, weights, strict=True)):
            look, at, wide, share = (
                look_of(number),
                left + first * scale,
                (end - first) * scale,
                weight * width,
            )
            tip = (
                f"split {number}: {_tokens(first, end)}, LSE {_number(self.lse[number])}, weight {weight:.4f}"
            )
            if weight:
                below = foot - 26
                corners = [(at, top + high), (at + wide, top + high), (x + share, below), (x, below)]
                drawing.area(corners, look.colour, css="faint")
            if first < end:
                drawing.rect(at, top, wide, high, look, tip=tip)
                for label, below, css in ((names[number], 15, ""), (lses[number], 29, "small")):
                    if text_width(label, measure(css)) <= wide - 4:
                        drawing.text(at + wide / 2, top + below, label, css, on=look)
                if at >= first_free:
                    drawing.text(at, top - 6, str(first), "small q left")
                    first_free = at + text_width(str(first), 10) + 6
            if weight:
                drawing.rect(x, foot, share, high, look, tip=tip)
                if text_width(f"{weight:.2f}") <= share - 4:
                    drawing.text(x + share / 2, foot + 21, f"{weight:.2f}", on=look)
            x += share
        empty = [number for number, (first, end) in enumerate(self.bounds) if first == end]
        notes = [f"total LSE {_number(self.total)}; the weights add up to {sum(weights):.4g}"]
        if empty:
            notes.append(f"empty, with LSE -inf and weight 0: split {ranges(empty)}")
        for line, note in enumerate(notes):
            drawing.text(left, foot + high + 24 + 18 * line, note, "left")
        return drawing


def _labels(word: str, values: list[str], room: float, css: str) -> tuple[list[str], bool]:
    """Return the values with the word before each if the widest box has room for that, and whether it has."""
    labels = [f"{word} {value}" for value in values]
    fits = max(text_width(label, measure(css)) for label in labels) <= room
    return (labels if fits else values), fits


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1e6 or math.isinf(value) else f"{value:.4g}"


def _tokens(first: int, end: int) -> str:
    return "empty" if first == end else f"{first} to {end - 1}" if end - first > 1 else str(first)
