"""Reader of Llama-type models from GGUF files: sizes from the metadata, weights in the layout of `Llama`.

What a file has beyond a Llama, such as biases or experts, is refused by name: an answer computed without it would be
fluent and wrong.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..arguments import require_memory
from .gguf_file import GGUFFile
from .llama import Layer, Llama, LlamaConfig, Weights, halves, rope_frequencies

LAYER_TENSORS = "attn_norm attn_q attn_k attn_v attn_output ffn_norm ffn_gate ffn_up ffn_down".split()
"""Each is ``blk.<layer>.<name>.weight``."""

OTHER_TENSORS = ["token_embd.weight", "output_norm.weight", "output.weight", "rope_freqs.weight"]
"""The last two are optional: the unembedding if it is not the embedding, and divisors of RoPE's frequencies."""

# Of the keys "llama.<name>", these say nothing that the tensors do not say, or are checked by `_refuse_variants`.
_WITHOUT_EFFECT = {
    "vocab_size",
    "attention.value_length",
    "rope.dimension_count",
    "rope.scaling.type",
    "expert_count",
}
_WITHOUT_EFFECT |= {"expert_used_count", "tensor_data_layout"}


def load(file: GGUFFile) -> Llama:
    """Return the model of a file.

    Raises
    ------
    InputError
        The model is not of the Llama type, or a tensor is missing or has a wrong shape.
    MemoryError
        The weights do not fit into memory as float32.
    """
    config = _config(file)
    expected = _shapes(file, config)
    for name, shape in expected.items():
        if file.tensors[name].shape != shape:
            raise file.error(f"must hold {name!r} in the shape {shape}, got {file.tensors[name].shape}")
    extra = [name for name in file.tensors if name not in expected]
    if extra:
        raise file.error(
            f"must hold the tensors of a Llama and no others, got also {', '.join(map(repr, extra[:4]))}"
        )
    require_memory(
        f"{file.path}: the weights in float32", 4 * sum(math.prod(shape) for shape in expected.values())
    )
    return Llama(config, _weights(file, config))


def _config(file: GGUFFile) -> LlamaConfig:
    architecture = file.metadata.get("general.architecture")
    if architecture != "llama":
        raise file.error(f"must have the architecture 'llama', got {architecture!r}")
    used = set()

    def value(key: str, default: Any = None) -> Any:
        used.add(key)
        found = file.metadata.get(f"llama.{key}", default)
        if found is None:
            raise file.error(f"must hold the key 'llama.{key}'")
        return found

    def count(key: str, default: int | None = None) -> int:
        found = value(key, default)
        if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found < 2**31:
            raise file.error(f"must hold a positive integer as 'llama.{key}', got {found!r}")
        return found

    def positive(key: str, default: float | None = None) -> float:
        found = value(key, default)
        if not isinstance(found, float) or not 0 < found < math.inf:
            raise file.error(f"must hold a positive number as 'llama.{key}', got {found!r}")
        return found

    num_q_heads, hidden_size = count("attention.head_count"), count("embedding_length")
    if "token_embd.weight" not in file.tensors:
        raise file.error("must hold the tensor 'token_embd.weight'")
    sizes: dict[str, Any] = {
        "num_layers": count("block_count"),
        "hidden_size": hidden_size,
        "intermediate_size": count("feed_forward_length"),
        "vocab_size": file.tensors["token_embd.weight"].shape[0],
        "num_q_heads": num_q_heads,
        "num_kv_heads": count("attention.head_count_kv", num_q_heads),
        "head_dim": count("attention.key_length", hidden_size // num_q_heads),
        "max_positions": count("context_length"),
        "rope_base": positive("rope.freq_base", 10_000.0),
        "norm_eps": positive("attention.layer_norm_rms_epsilon"),
    }
    try:
        config = LlamaConfig(**sizes)
    except ValueError as error:
        raise file.error(f"must describe a Llama: {error}") from None
    _refuse_variants(file, config, used)
    return config


def _refuse_variants(file: GGUFFile, config: LlamaConfig, used: set[str]) -> None:
    """Raise InputError for what would change the model's computation, and is not computed here."""
    for key, wanted in {
        "attention.value_length": config.head_dim,
        "rope.dimension_count": config.head_dim,
        "rope.scaling.type": "none",
        "expert_count": 0,
        "expert_used_count": 0,
        "vocab_size": config.vocab_size,
    }.items():
        found = file.metadata.get(f"llama.{key}", wanted)
        if found != wanted:
            raise file.error(f"must have 'llama.{key}' {wanted!r}, got {found!r}, which is not supported")
    unknown = {key.removeprefix("llama.") for key in file.metadata if key.startswith("llama.")}
    unknown -= used | _WITHOUT_EFFECT
    if unknown:
        raise file.error(f"must hold no key with an unknown effect, got 'llama.{min(unknown)}'")


def _shapes(file: GGUFFile, config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape that each tensor must have, [outputs, inputs] for a matrix; require all to be there."""
    d, f, c, v = config.hidden_size, config.intermediate_size, config.head_dim, config.vocab_size
    q, kv = config.num_q_heads * c, config.num_kv_heads * c
    layer_shapes = [(d,), (q, d), (kv, d), (kv, d), (d, q), (d,), (f, d), (f, d), (d, f)]
    shapes: dict[str, tuple[int, ...]] = {}

    def expect(name: str, shape: tuple[int, ...]) -> None:
        if name not in file.tensors:
            raise file.error(f"must hold the tensor {name!r}")
        shapes[name] = shape

    for layer in range(config.num_layers):
        for name, shape in zip(LAYER_TENSORS, layer_shapes, strict=True):
            expect(f"blk.{layer}.{name}.weight", shape)
    for name, shape in zip(OTHER_TENSORS, [(v, d), (d,), (v, d), (c // 2,)], strict=True):
        if name in file.tensors or name in OTHER_TENSORS[:2]:
            expect(name, shape)
    return shapes


def _weights(file: GGUFFile, config: LlamaConfig) -> Weights:
    def matrices(*names: str) -> Any:
        """Return matrices side by side, [d, outputs of all]; queries and keys reordered for `rotate`."""
        parts = [file.read(f"{name}.weight").T for name in names]
        for number, name in enumerate(names):
            if name.endswith(("attn_q", "attn_k")):
                parts[number] = halves(parts[number], config.head_dim)
        # In C order, which NumPy multiplies with a single row about twice as fast as with the transpose of a matrix.
        side_by_side = np.empty((len(parts[0]), sum(part.shape[1] for part in parts)), np.float32)
        return np.concatenate(parts, axis=1, out=side_by_side)

    def vector(name: str) -> Any:
        return np.array(file.read(f"{name}.weight"))

    def layer(number: int) -> Layer:
        blk = f"blk.{number}."
        return Layer(
            vector(blk + "attn_norm"),
            matrices(blk + "attn_q", blk + "attn_k", blk + "attn_v"),
            matrices(blk + "attn_output"),
            vector(blk + "ffn_norm"),
            matrices(blk + "ffn_gate", blk + "ffn_up"),
            matrices(blk + "ffn_down"),
        )

    frequencies = rope_frequencies(config)
    if "rope_freqs.weight" in file.tensors:
        frequencies = frequencies / vector("rope_freqs")
    tied = "output.weight" not in file.tensors
    unembedding = matrices("token_embd" if tied else "output")
    embedding = unembedding.T if tied else np.array(file.read("token_embd.weight"))
    layers = [layer(number) for number in range(config.num_layers)]
    return Weights(embedding, layers, vector("output_norm"), unembedding, frequencies)
