"""`Tokenizer`: what every tokenizer here does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """Turns text into token ids, and token ids into text.

    Attributes
    ----------
    end_tokens : frozenset of int
        Tokens that end an answer.
    """

    @property
    def end_tokens(self) -> frozenset[int]: ...  # noqa: D102 (described above)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a prompt, after the token with which the model's prompts begin, if it has one.

        No text becomes a control token: ``<|im_end|>`` in it is ordinary characters.

        Parameters
        ----------
        text : str
            Any text.
        """

    def piece(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for: perhaps a part of a character, and none for a control token.

        Parameters
        ----------
        token_id : int
            A token of the vocabulary.
        """

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens; bytes that are not UTF-8 become U+FFFD.

        Parameters
        ----------
        token_ids : sequence of int
            Tokens of the vocabulary.
        """

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int] | None:
        """Return the token ids of a conversation, up to where the next answer begins; None for a model without chat.

        Parameters
        ----------
        messages : sequence of dict
            Each has a ``"role"``, such as ``"user"``, and a ``"content"``.
        """
