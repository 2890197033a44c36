"""`Tokenizer`: what every tokenizer here does, and `TextStream`, which turns tokens into text as they come."""

from __future__ import annotations

import codecs
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


class TextStream:
    """The text of an answer while its tokens come, in whole characters.

    A character may take several tokens. Its bytes wait here until the last of them has come.

    Parameters
    ----------
    tokenizer : Tokenizer
        Gives the bytes of each token.

    See Also
    --------
    paged_numba.models.Tokenizer : Its `decode` returns the same text at once.

    Examples
    --------
    >>> import paged_numba as pn
    >>> class Bytes:
    ...     def piece(self, token_id):
    ...         return bytes([token_id])
    >>> stream = pn.models.TextStream(Bytes())
    >>> [stream.push(token_id) for token_id in "né!".encode()], stream.finish()
    (['n', '', 'é', '!'], '')
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Take the next token, and return the characters that it completes.

        Parameters
        ----------
        token_id : int
            The next token of the answer.

        Returns
        -------
        str
            Whole characters; empty if the token completes none.
        """
        return self._decoder.decode(self._tokenizer.piece(token_id))

    def finish(self) -> str:
        """Return what is left of a character whose last bytes have not come, as U+FFFD; else an empty text.

        Returns
        -------
        str
            U+FFFD or nothing.
        """
        return self._decoder.decode(b"", final=True)
