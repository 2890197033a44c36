"""Reader of glassllm's checkpoints: an .npz file of weights and a JSON file with the merges of its tokenizer.

Nothing of glassllm is imported. Its format, as far as it differs from ours: W1 is the gate, W2 the way down, W3 the way
up; weights are float16; RoPE rotates neighbours; the embedding is also the output matrix.
"""

from __future__ import annotations

import io
import json
import re
import unicodedata
import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .. import arguments
from ..errors import InputError
from .llama import Layer, Llama, LlamaConfig, Weights, halves, rope_frequencies

SPACE = "\u2581"
"""The character that stands for a space."""

CONTROL = ["<pad>", "<unk>", "<bos>", "<eos>"]
"""The first tokens. Of these, text produces only ``<unk>``, for a character outside the alphabet."""


class GlassTokenizer:
    """Byte-pair encoding of characters.

    Parameters
    ----------
    alphabet : sequence of str
        The characters that have a token.
    merges : sequence of (str, str)
        Pairs of tokens that become one, the first to be merged first.
    """

    end_tokens = frozenset({CONTROL.index("<eos>")})

    def __init__(self, alphabet: Sequence[str], merges: Sequence[Sequence[str]]) -> None:
        self.vocabulary = [*CONTROL, *alphabet, *(first + second for first, second in merges)]
        self._ids = {token: number for number, token in enumerate(self.vocabulary) if number >= len(CONTROL)}
        self._ranks = {(first, second): rank for rank, (first, second) in enumerate(merges)}
        self._merged = lru_cache(maxsize=2**16)(self._merge)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text, which is first brought into Unicode's form NFC."""
        spaced = unicodedata.normalize("NFC", arguments.text("text", text)).replace(" ", SPACE)
        # No token crosses the border of a line or of a word; the spaces before a word belong to it.
        words = re.findall(rf"\n|{SPACE}*[^{SPACE}\n]+|{SPACE}+", spaced)
        return [
            self._ids.get(token, CONTROL.index("<unk>")) for word in words for token in self._merged(word)
        ]

    def _merge(self, word: str) -> list[str]:
        """Split a word into tokens: merge all occurrences of the pair with the lowest rank, and again."""
        tokens = list(word)
        while True:
            pairs = set(pairwise(tokens)) & self._ranks.keys()
            if not pairs:
                return tokens
            first, second = min(pairs, key=self._ranks.__getitem__)
            merged: list[str] = []
            for token in tokens:
                merged.append(token)
                if merged[-2:] == [first, second]:
                    merged[-2:] = [first + second]
            tokens = merged

    def piece(self, token_id: int) -> bytes:
        """Return the bytes of a token; those of U+2047, a double question mark, for ``<unk>``."""
        token = self.vocabulary[arguments.between("token_id", token_id, 0, len(self.vocabulary) - 1)]
        if token in CONTROL:
            return "\u2047".encode() if token == "<unk>" else b""
        return token.replace(SPACE, " ").encode()

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens."""
        return b"".join(map(self.piece, token_ids)).decode(errors="replace")

    def chat(self, messages: Sequence[Mapping[str, str]]) -> None:
        """Return None: the model goes on with a text, and answers nobody."""


def load(weights: Path, tokenizer: Path) -> tuple[Llama, GlassTokenizer]:
    """Read a checkpoint.

    Parameters
    ----------
    weights, tokenizer : Path
        An ``.npz`` file and a ``.tokenizer.json`` file.

    Raises
    ------
    InputError
        A file is damaged or does not have glassllm's format.
    """
    try:
        # From memory, since NumPy leaves a damaged file open.
        with np.load(io.BytesIO(weights.read_bytes()), allow_pickle=False) as file:
            model = _model(file)
        vocabulary = json.loads(tokenizer.read_bytes())
        reader = GlassTokenizer(vocabulary["alphabet"], vocabulary["merges"])
    except (ValueError, TypeError, LookupError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{weights.parent}: a checkpoint must have the format of glassllm 0.1, got {error!r}"
        ) from None
    if len(reader.vocabulary) != model.config.vocab_size:
        raise InputError(
            f"{tokenizer}: the vocabulary must have {model.config.vocab_size} tokens as the weights have, "
            f"got {len(reader.vocabulary)}"
        )
    return model, reader


def _model(file: Mapping[str, Any]) -> Llama:
    sizes = json.loads(str(file["__config__"]))
    config = LlamaConfig(
        num_layers=sizes["n_layers"],
        hidden_size=sizes["d_model"],
        intermediate_size=file["blocks.0.ffn.W1"].shape[1],
        vocab_size=sizes["vocab_size"],
        num_q_heads=sizes["n_heads"],
        num_kv_heads=sizes["n_kv_heads"],
        head_dim=sizes["d_model"] // sizes["n_heads"],
        max_positions=sizes["max_len"],
        rope_base=sizes["rope_base"],
        norm_eps=sizes["eps"],
    )
    d, f = config.hidden_size, config.intermediate_size
    q, kv = config.num_q_heads * config.head_dim, config.num_kv_heads * config.head_dim

    def array(name: str, *shape: int) -> Any:
        found = file[name].astype(np.float32)
        if found.shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, got {found.shape}")
        return found

    def layer(number: int) -> Layer:
        prefix = f"blocks.{number}"
        query = array(f"{prefix}.attn.W_Q", d, q)
        key = array(f"{prefix}.attn.W_K", d, kv)
        value = array(f"{prefix}.attn.W_V", d, kv)
        gate_up = [array(f"{prefix}.ffn.{name}", d, f) for name in ("W1", "W3")]
        return Layer(
            array(f"{prefix}.norm1.gamma", d),
            np.concatenate([halves(query, config.head_dim), halves(key, config.head_dim), value], axis=1),
            array(f"{prefix}.attn.W_O", q, d),
            array(f"{prefix}.norm2.gamma", d),
            np.concatenate(gate_up, axis=1),
            array(f"{prefix}.ffn.W2", f, d),
        )

    embedding = array("E", config.vocab_size, d)
    layers = [layer(number) for number in range(config.num_layers)]
    weights = Weights(embedding, layers, array("norm_f.gamma", d), embedding.T, rope_frequencies(config))
    return Llama(config, weights)
