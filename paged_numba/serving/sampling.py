"""Sampling: how the next token is chosen from logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arguments import finite, fraction, integer, listed, not_negative, positive, shown, truth


@dataclass(frozen=True)
class SamplingParams:
    """How the answers to a prompt are generated, in the names of vLLM.

    Parameters
    ----------
    max_tokens : int
        Most tokens of an answer.
    temperature : float
        0 takes the most likely token (greedy). Else logits are divided by it before softmax.
    top_k : int, optional
        Only the `top_k` most likely tokens can be drawn.
    top_p : float, optional
        Only the most likely tokens whose probabilities add up to `top_p` can be drawn; applied after `top_k`.
    seed : int
        Of the random numbers. Equal requests with equal seeds get equal answers, whatever else is served.
    n : int
        Number of answers. The prompt is computed once for all of them.
    stop : str or sequence of str
        Texts that end an answer. The answer ends before the text; no part of it is shown.
    stop_token_ids : sequence of int
        Tokens that end an answer.
    ignore_eos : bool
        Whether an answer goes on after the tokens that end a text for the tokenizer.

    Raises
    ------
    TypeError, ValueError
        A number is out of its range, or of a wrong type.

    See Also
    --------
    Engine.add_request : Takes the parameters.

    Examples
    --------
    >>> import paged_numba as pn
    >>> pn.serving.SamplingParams(max_tokens=32, temperature=0.8, top_p=0.95, seed=7).top_p
    0.95
    """

    max_tokens: int
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    n: int = 1
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        temperature = finite("temperature", self.temperature)
        if temperature < 0:
            raise ValueError(f"temperature must not be negative, got temperature={temperature}")
        top_p = None if self.top_p is None else fraction("top_p", self.top_p)
        if top_p == 0:
            raise ValueError("top_p must be positive, got top_p=0.0")
        stop = [self.stop] if isinstance(self.stop, str) else listed("stop", self.stop, "texts")
        for text in stop:
            if not isinstance(text, str) or not text:
                raise ValueError(f"stop must hold texts that are not empty, got {shown(text)}")
        token_ids = listed("stop_token_ids", self.stop_token_ids, "token ids")
        checked = {
            "max_tokens": positive("max_tokens", self.max_tokens),
            "temperature": temperature,
            "top_k": None if self.top_k is None else positive("top_k", self.top_k),
            "top_p": top_p,
            "seed": not_negative("seed", self.seed),
            "n": positive("n", self.n),
            "stop": tuple(stop),
            "stop_token_ids": tuple(integer("stop_token_ids", token_id) for token_id in token_ids),
            "ignore_eos": truth("ignore_eos", self.ignore_eos),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def next_token(logits: Any, params: SamplingParams, index: int, place: int) -> int:
    """Choose a token.

    The random number depends on `params.seed`, `index` and `place` alone. So an answer does not depend on what else is
    in the batch, and one that is preempted goes on as it would have, without a state to keep.

    Parameters
    ----------
    logits : float32[vocab_size]
    params : SamplingParams
    index : int
        Which of the answers to its prompt.
    place : int
        Which of the answer's tokens, from 0.

    Examples
    --------
    >>> next_token(np.array([0.0, 3.0, 1.0]), SamplingParams(max_tokens=1), index=0, place=0)
    1
    """
    if params.temperature == 0:
        return int(logits.argmax())
    # The probabilities, laid side by side on a line: the token on whose stretch the random number falls.
    cumulative = np.cumsum(probabilities(logits, params))
    drawn = np.random.default_rng([params.seed, index, place]).random()
    return int(np.searchsorted(cumulative, drawn * cumulative[-1], side="right"))


def what_is_wrong(logits: Any) -> str:
    """Return what a model's logits hold that no token can be sampled from; empty if they are right.

    A logit of -inf is right: its token is never drawn.

    >>> what_is_wrong(np.array([0.0, -np.inf])), what_is_wrong(np.array([0.0, np.nan]))
    ('', 'NaN')
    """
    highest = logits.max()  # NaN if one of them is
    if np.isnan(highest):
        return "NaN"
    if highest == np.inf:
        return "infinity"
    return "only -infinity" if highest == -np.inf else ""


def probabilities(logits: Any, params: SamplingParams) -> Any:
    """Return how likely each token is to be drawn, float64[vocab_size].

    `top_k` and `top_p` keep the likeliest tokens, and with the last of these all that are equally likely.

    Parameters
    ----------
    logits : float32[vocab_size]
    params : SamplingParams
        With a positive temperature.

    Examples
    --------
    >>> logits = np.log([0.5, 0.3, 0.1, 0.1])
    >>> params = SamplingParams(max_tokens=1, temperature=1.0, top_p=0.7)
    >>> probabilities(logits, params).round(3).tolist()
    [0.625, 0.375, 0.0, 0.0]
    """
    # The maximum is subtracted first: a low temperature then gives exp(-inf) = 0, never inf - inf.
    with np.errstate(over="ignore"):
        weights = np.exp((logits.astype(np.float64) - logits.max()) / params.temperature)
    if params.top_k is not None and params.top_k < weights.size:
        # partition puts the k largest last, the smallest of them first.
        weights[weights < np.partition(weights, -params.top_k)[-params.top_k]] = 0
    if params.top_p is not None:
        falling = np.sort(weights)[::-1]
        sums = np.cumsum(falling)
        weights[weights < falling[np.searchsorted(sums, params.top_p * sums[-1])]] = 0
    return weights / weights.sum()
