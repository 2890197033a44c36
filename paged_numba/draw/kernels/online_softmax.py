"""Picture of online softmax: a running maximum, and the factors that repair the weights when it rises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from ...arguments import finite, listed, shown
from ..picture import Picture, checked_title
from ..svg import COLOURS, Drawing
from ..text import plural, table

MOST_SCORES, LARGEST = 64, 1e6
_OTHER, _RISE = COLOURS[0], COLOURS[1]


@dataclass(frozen=True)
class OnlineSoftmax(Picture):
    """The scores of one query as online softmax meets them, and the weight of each token before and after repair.

    A weight is ``exp(score - maximum)``. When its token comes, the maximum is the largest score so far; each time that
    a larger score follows, all weights so far are multiplied by ``exp(old maximum - new maximum)``.

    Parameters
    ----------
    scores : list of float
        By token: 1 to 64 numbers, of which none is above a million in size.
    title : str, optional
        By default, the number of scores.

    Raises
    ------
    TypeError, ValueError
        `scores` is not such a list.

    See Also
    --------
    paged_numba.draw.Splits : The parts of a context and their weights.

    Examples
    --------
    >>> import paged_numba as pn
    >>> print(pn.draw.OnlineSoftmax([1.0, 3.0, 2.0]))
    3 scores, one by one
    token  score  maximum  factor  weight     sum  weight at the end
    -----  -----  -------  ------  ------  ------  -----------------
    0       1.00     1.00  0.0000  1.0000  1.0000             0.1353
    1       3.00     3.00  0.1353  1.0000  1.1353             1.0000
    2       2.00     3.00  1.0000  0.3679  1.5032             0.3679
    """

    scores: Sequence[float]
    title: str = ""

    def __post_init__(self) -> None:
        scores = [finite("scores", score) for score in listed("scores", self.scores, "numbers")]
        if not 1 <= len(scores) <= MOST_SCORES or not all(abs(score) <= LARGEST for score in scores):
            raise ValueError(
                f"scores must be 1 to {MOST_SCORES} numbers in -{LARGEST:g} .. {LARGEST:g}, "
                f"got scores={shown(self.scores)}"
            )
        object.__setattr__(self, "scores", scores)
        title = checked_title(self.title, f"{plural(len(scores), 'score')}, one by one")
        object.__setattr__(self, "title", title)

    @property
    def maxima(self) -> list[float]:
        """The largest score so far, by token."""
        return list(accumulate(self.scores, max))

    @property
    def factors(self) -> list[float]:
        """By token, what the sum is multiplied by before the token's weight is added; 0 for the first token."""
        return [0.0, *(math.exp(old - new) for old, new in pairwise(self.maxima))]

    @property
    def first_weights(self) -> list[float]:
        """The weight of each token when it comes, relative to the largest score so far."""
        return [math.exp(score - most) for score, most in zip(self.scores, self.maxima, strict=True)]

    @property
    def last_weights(self) -> list[float]:
        """The weight of each token at the end, relative to the largest score."""
        return [math.exp(score - max(self.scores)) for score in self.scores]

    @property
    def rises(self) -> list[int]:
        """The tokens, after the first, that raise the maximum."""
        return [token for token, (old, new) in enumerate(pairwise(self.maxima), 1) if new > old]

    @property
    def description(self) -> str:
        words = (
            f"The scores of {plural(len(self.scores), 'token')} with the largest so far, and below them the weight of "
            "each token when it comes and at the end."
        )
        if not self.rises:
            return f"{words} No score is larger than the first, so no weight is rescaled."
        events = [f"by {self.factors[token]:.2f} at token {token}" for token in self.rises[:4]]
        more = f", and {len(self.rises) - 4} times more" if len(self.rises) > 4 else ""
        return f"{words} All weights so far are multiplied {', '.join(events)}{more}."

    def text(self) -> str:
        rows, total = [], 0.0
        for token, (score, most, factor, first, last) in enumerate(
            zip(self.scores, self.maxima, self.factors, self.first_weights, self.last_weights, strict=True)
        ):
            total = total * factor + first
            numbers = (f"{factor:.4f}", f"{first:.4f}", f"{total:.4f}", f"{last:.4f}")
            rows.append([str(token), f"{score:.2f}", f"{most:.2f}", *numbers])
        header = ["token", "score", "maximum", "factor", "weight", "sum", "weight at the end"]
        return f"{self.heading}\n{table(header, rows)}"

    def draw(self) -> Drawing:
        left, count = 182, len(self.scores)
        across = max(14.0, min(84.0, 590 / count))
        score_y, first_y = 66, 252
        brackets_y = first_y + 36
        last_y = brackets_y + 22 * len(self.rises) + 64
        drawing = Drawing(left + across * count + 60, last_y + 66, self.title, self.description)
        drawing.text(16, 52, "token", "left q")
        for token in range(count):
            if across >= 20 or token % 8 == 0:
                drawing.text(left + across * (token + 0.5), 52, str(token), "q small")
        self._scores(drawing, left, across, score_y)
        for y, weights, name, maximum in (
            (first_y, self.first_weights, "weight when it comes", "maximum so far"),
            (last_y, self.last_weights, "weight at the end", "largest score"),
        ):
            drawing.text(16, y - 26, name, "left")
            drawing.text(16, y - 12, f"relative to the {maximum}", "left q small")
            for token, weight in enumerate(weights):
                x, tip = left + across * token, f"token {token}: {name} {weight:.4g}"
                fill = self._fill(token)
                drawing.rect(x + across * 0.14, y - 52 * weight, across * 0.72, 52 * weight, fill, tip=tip)
                if across >= 34:
                    drawing.text(x + across / 2, y + 14, f"{weight:.2f}", "q small")
            drawing.line(left, y, left + across * count, y, css="edge")
        if self.rises:
            drawing.text(16, brackets_y + 2, "rescaled", "left")
            drawing.text(16, brackets_y + 16, "all weights so far", "left q small")
        for place, token in enumerate(self.rises):
            y, end = brackets_y + 22 * place, left + across * token
            drawing.path([(left + 3, y - 6), (left + 3, y), (end - 3, y), (end - 3, y - 6)], COLOURS[6])
            drawing.text(end + 5, y + 3, f"\N{MULTIPLICATION SIGN} {self.factors[token]:.2f}", "left")
        drawing.legend(left, last_y + 32, [(_RISE, "raises the maximum"), (_OTHER, "does not")])
        return drawing

    def _fill(self, token: int) -> str:
        return _RISE if token in self.rises or token == 0 else _OTHER

    def _scores(self, drawing: Drawing, left: float, across: float, top: float) -> None:
        """Draw the scores as points, and the running maximum as a line of steps."""
        low, high = min(self.scores), max(self.scores)
        scale = 84 / (high - low) if high > low else 0.0

        def y(score: float) -> float:
            return top + 14 + (high - score) * scale

        drawing.text(16, top + 20, "score", "left")
        drawing.text(16, top + 36, "line: the maximum so far", "left q small")
        steps: list[tuple[float, float]] = []
        for token, most in enumerate(self.maxima):
            steps += [(left + across * token, y(most)), (left + across * (token + 1), y(most))]
        drawing.path(steps, COLOURS[6])
        for token, score in enumerate(self.scores):
            x, tip = left + across * (token + 0.5), f"token {token}: score {score:g}"
            drawing.circle(x, y(score), 4.5, self._fill(token), tip=tip)
            if across >= 34:
                drawing.text(x, y(score) + 17, f"{score:.3g}", "small")
