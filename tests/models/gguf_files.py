"""Small GGUF files, written by the package gguf from the weights of a `Llama`."""

from pathlib import Path

import gguf
import numpy as np

from paged_numba.models import LlamaConfig, random_llama
from paged_numba.models.llama import Layer, Llama, Weights

MERGES = [
    "h e",
    "l l",
    "he ll",
    "hell o",
    "Ġ w",
    "Ġw o",
    "r l",
    "Ġwo rl",
    "Ġworl d",
    "1 2",
    "Ã ©",
    "Ċ Ċ",
    "# #",
]
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER_DEFINED = "##mark##"
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'"
    " + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_tokens():
    """Return the characters that stand for the bytes 0 .. 255, by way of the package tokenizers."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


TOKENS = [*CONTROL, USER_DEFINED, *byte_tokens(), *(merge.replace(" ", "") for merge in MERGES)]
CONFIG = LlamaConfig(
    num_layers=2,
    hidden_size=64,
    intermediate_size=96,
    vocab_size=len(TOKENS),
    num_q_heads=4,
    num_kv_heads=2,
    head_dim=32,  # not hidden_size / num_q_heads
    max_positions=64,
    rope_base=500.0,
    norm_eps=2.0**-17,  # a float32, as in the file
)
QUANTISATIONS = [
    gguf.GGMLQuantizationType[name] for name in "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 TQ1_0 TQ2_0".split()
]


def model(seed=0):
    """Return a model whose norms have weights other than 1."""
    plain = random_llama(CONFIG, seed)
    rng = np.random.default_rng(seed)

    def norm():
        return rng.uniform(0.5, 1.5, CONFIG.hidden_size).astype(np.float32)

    layers = [layer._replace(attention_norm=norm(), ffn_norm=norm()) for layer in plain.weights.layers]
    return Llama(CONFIG, plain.weights._replace(layers=layers, output_norm=norm()))


def neighbours(matrix):
    """Reorder the columns of a query or key matrix, as GGUF has them: i and i + c / 2 become 2 i and 2 i + 1."""
    half = CONFIG.head_dim // 2
    order = [place for i in range(half) for place in (i, i + half)]
    heads = np.split(matrix, matrix.shape[1] // CONFIG.head_dim, axis=1)
    return np.concatenate([head[:, order] for head in heads], axis=1)


def tensors_of(llama):
    """Return the tensors of a file by name, [outputs, inputs]."""
    weights, sizes = llama.weights, llama.config
    q, kv = sizes.num_q_heads * sizes.head_dim, sizes.num_kv_heads * sizes.head_dim
    tensors = {"token_embd": weights.embedding, "output_norm": weights.output_norm}
    if not np.shares_memory(weights.embedding, weights.unembedding):
        tensors["output"] = weights.unembedding.T
    for number, layer in enumerate(weights.layers):
        query, key, value = np.split(layer.qkv, [q, q + kv], axis=1)
        gate, up = np.split(layer.gate_up, 2, axis=1)
        tensors |= {
            f"blk.{number}.{name}": array
            for name, array in {
                "attn_norm": layer.attention_norm,
                "attn_q": neighbours(query).T,
                "attn_k": neighbours(key).T,
                "attn_v": value.T,
                "attn_output": layer.output.T,
                "ffn_norm": layer.ffn_norm,
                "ffn_gate": gate.T,
                "ffn_up": up.T,
                "ffn_down": layer.down.T,
            }.items()
        }
    return {f"{name}.weight": np.ascontiguousarray(array) for name, array in tensors.items()}


def metadata_of(config):
    return {
        "llama.block_count": config.num_layers,
        "llama.context_length": config.max_positions,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_q_heads,
        "llama.attention.head_count_kv": config.num_kv_heads,
        "llama.attention.key_length": config.head_dim,
        "llama.attention.value_length": config.head_dim,
        "llama.rope.freq_base": config.rope_base,
        "llama.attention.layer_norm_rms_epsilon": config.norm_eps,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3] * len(CONTROL) + [4] + [1] * (len(TOKENS) - len(CONTROL) - 1),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": TEMPLATE,
    }


def write(
    path, tensors, metadata, quantisation=gguf.GGMLQuantizationType.F32, architecture="llama", **options
):
    """Write a file. Vectors stay float32; an array of bytes is written as it is, in its own quantisation."""
    writer = gguf.GGUFWriter(path, architecture, **options)
    for key, value in metadata.items():
        add = {
            int: writer.add_uint32,
            float: writer.add_float32,
            str: writer.add_string,
            bool: writer.add_bool,
        }
        add.get(type(value), writer.add_array)(key, value)
    for name, array in tensors.items():
        if isinstance(array, tuple):
            writer.add_tensor(name, array[0], raw_dtype=array[1])
        elif array.ndim == 1 or quantisation == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quantize(array, quantisation), raw_dtype=quantisation)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)


def rounded(llama, quantisation):
    """Return the model that a file in a quantisation holds: each matrix rounded in the order of the file."""
    sizes = llama.config

    def round_(matrix, reorder=False):
        if quantisation == gguf.GGMLQuantizationType.F32:
            return matrix
        stored = np.ascontiguousarray((neighbours(matrix) if reorder else matrix).T)
        back = gguf.dequantize(gguf.quantize(stored, quantisation), quantisation).T
        if not reorder:
            return np.ascontiguousarray(back)
        order = np.argsort(neighbours(np.arange(matrix.shape[1])[None])[0])
        return np.ascontiguousarray(back[:, order])

    def layer_of(layer):
        q, kv = sizes.num_q_heads * sizes.head_dim, sizes.num_kv_heads * sizes.head_dim
        query, key, value = np.split(layer.qkv, [q, q + kv], axis=1)
        gate, up = np.split(layer.gate_up, 2, axis=1)
        qkv = [round_(query, True), round_(key, True), round_(value)]
        return Layer(
            layer.attention_norm,
            np.concatenate(qkv, axis=1),
            round_(layer.output),
            layer.ffn_norm,
            np.concatenate([round_(gate), round_(up)], axis=1),
            round_(layer.down),
        )

    weights = llama.weights
    unembedding = round_(weights.unembedding)
    tied = np.shares_memory(weights.embedding, weights.unembedding)
    return Llama(
        sizes,
        Weights(
            unembedding.T if tied else round_(weights.embedding.T).T,
            [layer_of(layer) for layer in weights.layers],
            weights.output_norm,
            unembedding,
            weights.rope_frequencies,
        ),
    )
