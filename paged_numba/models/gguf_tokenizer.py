"""`GGUFTokenizer`: byte-level BPE from the vocabulary of a GGUF file, run by the package `tokenizers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import arguments
from .chat import ChatML
from .gguf_file import GGUFFile

PRE_TOKENIZERS = ("gpt-2", "smollm", "llama-bpe")
"""How text is split into words, which tokens do not cross: the values of ``tokenizer.ggml.pre`` that are supported."""

ENDS = {"<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"}
"""Control tokens that end an answer in any file, beside those that its metadata name."""

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class GGUFTokenizer:
    """Byte-level BPE, as in GPT-2.

    Text is not matched with control tokens, so that none can come from a text. Bytes for which the vocabulary has no
    token are left out, as transformers leaves them out: SmolLM2 lacks some control characters, and planes of Unicode
    that hold no characters so far.

    Parameters
    ----------
    file : GGUFFile

    Raises
    ------
    ImportError
        The package tokenizers is not installed.
    InputError
        The tokenizer is of a kind that is not supported, or its vocabulary is damaged.
    """

    def __init__(self, file: GGUFFile) -> None:
        metadata = file.metadata
        kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
        if kind != "gpt2":
            raise file.error(f"must have a tokenizer of the kind 'gpt2' (byte-level BPE), got {kind!r}")
        if pre not in PRE_TOKENIZERS:
            raise file.error(f"must have one of the pre-tokenizers {', '.join(PRE_TOKENIZERS)}, got {pre!r}")
        tokens = _list(file, "tokens", str)
        kinds = _list(file, "token_type", int, [_NORMAL] * len(tokens))
        merges = [tuple(merge.split(" ")) for merge in _list(file, "merges", str)]
        if len(kinds) != len(tokens) or any(len(merge) != 2 for merge in merges):
            raise file.error("must hold a kind for each token, and merges of two tokens each")
        self._pieces = [_bytes_of(token, kind) for token, kind in zip(tokens, kinds, strict=True)]
        self._bpe = _byte_pairs(file, tokens, kinds, merges, pre)
        self.end_tokens = frozenset(
            number for number, token in enumerate(tokens) if kinds[number] == _CONTROL and token in ENDS
        ) | {
            metadata[f"tokenizer.ggml.{name}_token_id"]
            for name in ("eos", "eot", "eom")
            if f"tokenizer.ggml.{name}_token_id" in metadata
        }
        self._start: list[Any] = []
        if metadata.get("tokenizer.ggml.add_bos_token", pre == "llama-bpe"):
            self._start = [metadata.get("tokenizer.ggml.bos_token_id")]
        ids = [*self.end_tokens, *self._start]
        if not all(type(number) is int and 0 <= number < len(tokens) for number in ids):
            raise file.error(f"must name tokens of its vocabulary as the first and last ones, got {ids!r}")
        control = {tokens[number]: number for number, kind in enumerate(kinds) if kind == _CONTROL}
        self._chat = ChatML.of(metadata.get("tokenizer.chat_template"), control)

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return len(self._pieces)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a prompt, after the token with which the model's prompts begin, if it has one."""
        return self._start + self._encode(text)

    def _encode(self, text: str) -> list[int]:
        text = arguments.text("text", text)
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(
                f"text must not hold a half of a surrogate pair, got text={arguments.shown(text)}"
            )
        return self._bpe.encode(text, add_special_tokens=False).ids

    def piece(self, token_id: int) -> bytes:
        """Return the bytes of a token, none for a control token."""
        return self._pieces[arguments.between("token_id", token_id, 0, len(self._pieces) - 1)]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens; bytes that are not UTF-8 become U+FFFD."""
        return b"".join(map(self.piece, token_ids)).decode(errors="replace")

    def chat(self, messages: Sequence[Mapping[str, str]]) -> list[int] | None:
        """Return the token ids of a conversation, up to where the next answer begins.

        Parameters
        ----------
        messages : sequence of dict
            Each has a ``"role"``, such as ``"user"``, and a ``"content"``.

        Returns
        -------
        list of int, or None
            None if the file's template of a conversation is not ChatML.
        """
        return None if self._chat is None else self._chat.encode(messages, self._encode)


def _list(file: GGUFFile, name: str, kind: type, default: Any = None) -> Any:
    found = file.metadata.get(f"tokenizer.ggml.{name}", default)
    if not isinstance(found, list) or not all(type(item) is kind for item in found):
        raise file.error(f"must hold a list of {kind.__name__} as 'tokenizer.ggml.{name}'")
    return found


def _byte_characters() -> dict[str, int]:
    """Return the byte that each character of a token stands for: those that cannot be seen are written from U+0100."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + n): byte for n, byte in enumerate(unseen)}


BYTES = _byte_characters()


def _bytes_of(token: str, kind: int) -> bytes:
    if kind == _USER_DEFINED:
        return token.encode()
    if kind != _NORMAL:
        return b""
    return bytes(BYTES[character] for character in token) if BYTES.keys() >= set(token) else token.encode()


def _byte_pairs(file: GGUFFile, tokens: list[str], kinds: list[int], merges: list[Any], pre: str) -> Any:
    try:
        from tokenizers import AddedToken, Regex, Tokenizer
        from tokenizers.models import BPE
        from tokenizers.pre_tokenizers import ByteLevel, Digits, Split
        from tokenizers.pre_tokenizers import Sequence as Both
    except ImportError:
        raise ImportError(
            "the tokenizer of a GGUF file needs the package tokenizers: pip install tokenizers"
        ) from None
    vocabulary = {
        token: number for number, token in enumerate(tokens) if kinds[number] in (_NORMAL, _USER_DEFINED)
    }
    try:
        bpe = Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=pre == "llama-bpe"))
    except Exception as error:  # tokenizers raises no narrower class
        raise file.error(f"must hold merges of tokens in its vocabulary, got: {error}") from None
    # The words of GPT-2, and digits one by one; or the words of Llama 3.
    words: Any = ByteLevel(add_prefix_space=False)
    if pre == "smollm":
        words = Both([Digits(individual_digits=True), words])
    elif pre == "llama-bpe":
        words = Both([Split(Regex(_LLAMA3), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])
    bpe.pre_tokenizer = words
    bpe.add_tokens(
        [
            AddedToken(token, normalized=False)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind == _USER_DEFINED
        ]
    )
    return bpe
