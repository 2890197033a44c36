"""Requests to serve: the prompts of a text, or random prompts of the lengths in a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from ...traces import Trace
from ..prompts import paragraphs

SHIPPED_TEXT = "prompts.txt"


@dataclass(frozen=True, eq=False)
class Request:
    """A prompt, and the number of tokens to generate after it.

    Attributes
    ----------
    name : str
        One letter or more.
    prompt : uint8[num_prompt_tokens]
        Byte tokens; a prompt that is too long is cut.
    max_new_tokens : int
    """

    name: str
    prompt: Any
    max_new_tokens: int

    @property
    def final_length(self) -> int:
        """Tokens in the cache when the request ends: its last token is never written."""
        return len(self.prompt) + self.max_new_tokens - 1


def shipped_text() -> str:
    """Return the prompts that come with the package."""
    return (resources.files(__package__) / SHIPPED_TEXT).read_text(encoding="utf-8")


def from_text(text: str, source: str, new_tokens: Sequence[int], max_len: int) -> list[Request]:
    """Return a request for each paragraph of a text.

    Parameters
    ----------
    text : str
        Prompts, with blank lines between them.
    source : str
        Name of the text's source, for the error message.
    new_tokens : sequence of int
        Tokens to generate for each prompt in turn; the sequence repeats if there are more prompts.
    max_len : int
        Most tokens of a prompt and its answer together. Longer prompts are cut.

    Raises
    ------
    InputError
        The text is nothing but white space.
    """
    return [
        _request(i, np.frombuffer(prompt.encode(), np.uint8), new_tokens[i % len(new_tokens)], max_len)
        for i, prompt in enumerate(paragraphs(text, source))
    ]


def from_trace(trace: Trace, max_new_tokens: int, max_len: int) -> list[Request]:
    """Return requests of the lengths in a trace, with random byte tokens from a fixed seed.

    Parameters
    ----------
    trace : Trace
    max_new_tokens : int
        Most tokens to generate for a request. Longer answers are cut.
    max_len : int
        Most tokens of a prompt and its answer together. Longer prompts are cut.
    """
    rng = np.random.default_rng(0)
    return [
        _request(
            i,
            rng.integers(0, 256, min(prompt_len, max_len), np.uint8),
            min(output_len, max_new_tokens),
            max_len,
        )
        for i, (prompt_len, output_len) in enumerate(
            zip(trace.prompt_lens.tolist(), trace.output_lens.tolist(), strict=True)
        )
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
