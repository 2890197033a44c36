"""What a server is asked: prompts from a text, or the lengths of real requests from a trace."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from ..errors import InputError

SHIPPED_TEXT = "prompts.txt"


@dataclass(frozen=True, eq=False)
class Request:
    """One prompt and how many tokens are to be generated.

    Attributes
    ----------
    name : str
        A letter, or letters.
    prompt : uint8[num_prompt_tokens]
        Byte tokens, the first of them where it was too long.
    max_new_tokens : int
    """

    name: str
    prompt: Any
    max_new_tokens: int

    @property
    def final_length(self) -> int:
        """Tokens in the cache at the end: the last one generated is never written."""
        return len(self.prompt) + self.max_new_tokens - 1


def shipped_text() -> str:
    """Return the prompts that come with the package."""
    return (resources.files(__package__) / SHIPPED_TEXT).read_text(encoding="utf-8")


def from_text(text: str, source: str, new_tokens: Sequence[int], max_len: int) -> list[Request]:
    """Return a request for each paragraph of a text.

    Parameters
    ----------
    text : str
        Prompts, with blank lines between.
    source : str
        Where it comes from, for the error.
    new_tokens : sequence of int
        Tokens to generate, for one prompt after the other, then from the start again.
    max_len : int
        Bound of prompt and generated tokens together: a longer prompt is cut.

    Raises
    ------
    InputError
        Nothing but white space.
    """
    prompts = [paragraph.strip("\n") for paragraph in re.split(r"\n[ \t]*\n", text) if paragraph.strip()]
    if not prompts:
        raise InputError(f"{source} must hold at least one prompt, got nothing but white space")
    return [
        _request(i, np.frombuffer(prompt.encode(), np.uint8), new_tokens[i % len(new_tokens)], max_len)
        for i, prompt in enumerate(prompts)
    ]


def from_lengths(lengths: Any, max_new_tokens: int, max_len: int) -> list[Request]:
    """Return requests of the given lengths, with random byte tokens from a fixed seed.

    Parameters
    ----------
    lengths : int64[num_requests, 2]
        As `read_trace` returns them.
    max_new_tokens : int
        Bound of the generated tokens.
    max_len : int
        Bound of prompt and generated tokens together: a longer prompt is cut.
    """
    rng = np.random.default_rng(0)
    return [
        _request(
            i,
            rng.integers(0, 256, min(prompt, max_len), np.uint8),
            min(int(generated), max_new_tokens),
            max_len,
        )
        for i, (prompt, generated) in enumerate(lengths)
    ]


def _request(number: int, prompt: Any, new_tokens: int, max_len: int) -> Request:
    return Request(name_of(number), prompt[: max_len - new_tokens], new_tokens)


def name_of(number: int) -> str:
    """Return A .. Z, AA, AB, … for 0, 1, ….

    >>> [name_of(n) for n in (0, 25, 26, 51, 52)]
    ['A', 'Z', 'AA', 'AZ', 'BA']
    """
    letters = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        letters = chr(ord("A") + digit) + letters
    return letters
