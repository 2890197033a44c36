"""GGUF files: every quantisation, what is refused, and damaged files."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

gguf = pytest.importorskip("gguf")
pytest.importorskip("tokenizers")

import gguf_files as small  # noqa: E402

import paged_numba as pn  # noqa: E402
from paged_numba.errors import InputError  # noqa: E402
from paged_numba.models.gguf_file import GGUFFile  # noqa: E402

IDS = np.array([3, 1, 250, 17, 80, 5, 260, 9, 9])
POSITIONS = np.arange(len(IDS))


def logits(model):
    return model.forward(IDS, POSITIONS, pn.models.DenseAttention())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file that loads, and its bytes."""
    model = small.model()
    path = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    small.write(path, small.tensors_of(model), small.metadata_of(model.config))
    return path


def changed(path, *, metadata=(), tensors=(), **options):
    """Write a file with other metadata and tensors; None removes one."""
    model = small.model()
    keys = small.metadata_of(model.config) | dict(metadata)
    arrays = small.tensors_of(model) | dict(tensors)
    keys = {key: value for key, value in keys.items() if value is not None}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    return small.write(path, arrays, keys, **options)


@pytest.mark.parametrize("quantisation", small.QUANTISATIONS[:8], ids=lambda kind: kind.name)
@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_the_model_that_was_written(tmp_path, quantisation, tied):
    model = small.model()
    if not tied:
        other = np.random.default_rng(1).normal(0, 1, model.weights.unembedding.shape).astype(np.float32)
        model = pn.models.Llama(model.config, model.weights._replace(unembedding=other))
    path = tmp_path / "model.gguf"
    small.write(path, small.tensors_of(model), small.metadata_of(model.config), quantisation)
    found = pn.models.load(path)
    assert found.model.config == model.config
    expected = logits(small.rounded(model, quantisation))
    np.testing.assert_allclose(logits(found.model), expected, rtol=0, atol=1e-5 * abs(expected).max())
    # The rounding of the quantisation itself is no part of the comparison above.
    assert (abs(expected - logits(model)).max() > 1e-5) == (quantisation.name != "F32")


@pytest.mark.parametrize("kind", gguf.GGMLQuantizationType, ids=lambda kind: kind.name)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # random bytes hold scales that are infinite or NaN
def test_every_quantisation_is_read_as_gguf_reads_it_or_refused_by_name(tmp_path, kind):
    per_block, num_bytes = gguf.GGML_QUANT_SIZES[kind]
    stored = np.random.default_rng(0).integers(0, 256, (6, 2 * num_bytes), dtype=np.uint8)
    before = np.ones(3, np.float32)
    small.write(tmp_path / "one.gguf", {"before": before, "kept": (stored, kind)}, {"some.key": 1})
    reader = gguf.GGUFReader(tmp_path / "one.gguf")
    try:
        expected = gguf.dequantize(reader.tensors[1].data, kind)
    except NotImplementedError:
        with pytest.raises(
            InputError, match=rf"one\.gguf: the file must be quantised as .*, got {kind.name} for 'kept'"
        ):
            GGUFFile(tmp_path / "one.gguf")
        return
    file = GGUFFile(tmp_path / "one.gguf")
    np.testing.assert_array_equal(file.read("kept"), expected.reshape(6, 2 * per_block))
    np.testing.assert_array_equal(file.read("before"), before)


def test_metadata_is_read_as_gguf_reads_it(whole):
    reader, file = gguf.GGUFReader(whole), GGUFFile(whole)
    theirs = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert file.metadata == theirs
    assert {tensor.name: tuple(reversed(tensor.shape)) for tensor in reader.tensors} == {
        name: tensor.shape for name, tensor in file.tensors.items()
    }


def test_divisors_of_rope_are_applied(tmp_path, whole):
    divisors = np.linspace(1, 8, small.CONFIG.head_dim // 2, dtype=np.float32)
    path = changed(tmp_path / "rope.gguf", tensors={"rope_freqs.weight": divisors})
    model = pn.models.load(path).model
    plain = pn.models.load(whole).model
    np.testing.assert_allclose(model.weights.rope_frequencies, plain.weights.rope_frequencies / divisors)
    assert abs(logits(model) - logits(plain)).max() > 0.1


def test_head_dim_follows_from_the_sizes_where_it_is_not_given(tmp_path):
    # 64 / 4 = 16, but the tensors have heads of 32.
    keys = dict.fromkeys(["llama.attention.key_length", "llama.attention.value_length"])
    path = changed(tmp_path / "no_key_length.gguf", metadata=keys)
    with pytest.raises(
        InputError, match=r"must hold 'blk\.0\.attn_q\.weight' in the shape \(64, 64\), got \(128, 64\)"
    ):
        pn.models.load(path)


VECTOR = np.ones(small.CONFIG.hidden_size, np.float32)
REFUSED = {
    "experts": ({"llama.expert_count": 8}, {}, "must have 'llama.expert_count' 0, got 8"),
    "rope scaling": (
        {"llama.rope.scaling.type": "yarn"},
        {},
        "must have 'llama.rope.scaling.type' 'none', got 'yarn', which is not supported",
    ),
    "part of a head rotated": (
        {"llama.rope.dimension_count": 16},
        {},
        "must have 'llama.rope.dimension_count' 32, got 16",
    ),
    "other values": ({"llama.attention.value_length": 64}, {}, "'llama.attention.value_length' 32, got 64"),
    "unknown key": (
        {"llama.attention.sliding_window": 512},
        {},
        "must hold no key with an unknown effect, got 'llama.attention.sliding_window'",
    ),
    "no layers": ({"llama.block_count": None}, {}, "must hold the key 'llama.block_count'"),
    "layers as text": ({"llama.block_count": "2"}, {}, "a positive integer as 'llama.block_count', got '2'"),
    "more layers": ({"llama.block_count": 2**30}, {}, r"must hold the tensor 'blk\.2\.attn_norm\.weight'"),
    "no epsilon": (
        {"llama.attention.layer_norm_rms_epsilon": float("nan")},
        {},
        "a positive number as 'llama.attention.layer_norm_rms_epsilon', got nan",
    ),
    "heads": (
        {"llama.attention.head_count_kv": 3},
        {},
        "must describe a Llama: num_q_heads must be a multiple of num_kv_heads, got num_q_heads=4, num_kv_heads=3",
    ),
    "bias": ({}, {"blk.1.attn_q.bias": VECTOR}, r"of a Llama and no others, got also 'blk\.1\.attn_q\.bias'"),
    "missing": ({}, {"blk.1.ffn_up.weight": None}, r"must hold the tensor 'blk\.1\.ffn_up\.weight'"),
    "no embedding": ({}, {"token_embd.weight": None}, r"must hold the tensor 'token_embd\.weight'"),
    "shape": (
        {},
        {"output_norm.weight": VECTOR[1:]},
        r"'output_norm\.weight' in the shape \(64,\), got \(63,\)",
    ),
    "tokenizer": (
        {"tokenizer.ggml.model": "llama"},
        {},
        r"must have a tokenizer of the kind 'gpt2' \(byte-level BPE\), got 'llama'",
    ),
    "pre-tokenizer": (
        {"tokenizer.ggml.pre": "qwen2"},
        {},
        "must have one of the pre-tokenizers gpt-2, smollm, llama-bpe, got 'qwen2'",
    ),
    "tokens": (
        {"tokenizer.ggml.tokens": [*small.TOKENS, "more"], "tokenizer.ggml.token_type": None},
        {},
        f"as many tokens as its embedding has rows, {len(small.TOKENS)}, got {len(small.TOKENS) + 1}",
    ),
    "merges": (
        {"tokenizer.ggml.merges": ["q z"]},
        {},
        "must hold merges of tokens in its vocabulary, got: .*qz",
    ),
    "merge of three": ({"tokenizer.ggml.merges": ["h e l"]}, {}, "merges of two tokens each"),
    "token as number": ({"tokenizer.ggml.tokens": [1, 2]}, {}, "a list of str as 'tokenizer.ggml.tokens'"),
    "last token": ({"tokenizer.ggml.eos_token_id": 10**6}, {}, "must name tokens of its vocabulary"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name(tmp_path, name):
    metadata, tensors, message = REFUSED[name]
    path = changed(tmp_path / "other.gguf", metadata=metadata, tensors=tensors)
    with pytest.raises(InputError, match=rf"other\.gguf: the file .*{message}"):
        pn.models.load(path)


def test_other_architectures_and_byte_orders_are_refused(tmp_path):
    path = changed(tmp_path / "other.gguf", architecture="qwen2")
    with pytest.raises(
        InputError, match=r"other\.gguf: the file must have the architecture 'llama', got 'qwen2'"
    ):
        pn.models.load(path)
    changed(path, endianess=gguf.GGUFEndian.BIG)
    with pytest.raises(InputError, match=r"byte order of this machine, .* \(a big-endian file\)"):
        pn.models.load(path)


@pytest.mark.parametrize("content", [b"", b"GG", b"a text, no model", b"ggml", b"\x00" * 100])
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"notes\.txt: a GGUF file must begin with the bytes b'GGUF', got"):
        pn.models.load(path)


HEADER = struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q3s", 3, b"key")
ANNOUNCED = {
    "nothing": b"GGUF\n",
    "values": struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**62),
    "tensors": struct.pack("<4sIQQ", b"GGUF", 3, 2**62, 0),
    "text": struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", 2**63) + b"x" * 20,
    "list": HEADER + struct.pack("<IIQ", 9, 0, 2**40) + b"x" * 20,
    "list of texts": HEADER + struct.pack("<IIQ", 9, 8, 2**60) + b"x" * 20,
}


@pytest.mark.parametrize("name", ANNOUNCED)
def test_a_huge_count_ends_at_once(tmp_path, name):
    path = tmp_path / "huge.gguf"
    path.write_bytes(ANNOUNCED[name])
    with pytest.raises(
        InputError, match=r"huge\.gguf: the file must be a whole GGUF file: it ends at byte \d+, and"
    ):
        pn.models.load(path)


def test_lists_in_lists_without_end_are_refused(tmp_path):
    path = tmp_path / "lists.gguf"
    path.write_bytes(HEADER + struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 9, 1) * 5000)
    with pytest.raises(InputError, match="must be a whole GGUF file: maximum recursion depth"):
        pn.models.load(path)


@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused(tmp_path_factory, whole, cut):
    content = whole.read_bytes()
    last = max(tensor.start + tensor.num_bytes for tensor in GGUFFile(whole).tensors.values())
    path = tmp_path_factory.mktemp("cut") / "cut.gguf"
    path.write_bytes(content[: int(cut * last)])
    with pytest.raises(InputError, match=r"cut\.gguf: "):
        pn.models.load(path)


@given(data=st.data())
def test_a_damaged_file_loads_or_is_refused(tmp_path_factory, whole, data):
    content = bytearray(whole.read_bytes())
    header = min(tensor.start for tensor in GGUFFile(whole).tensors.values())
    place = data.draw(st.integers(0, header - 1), "place")
    damage = data.draw(st.binary(min_size=1, max_size=8), "damage")
    content[place : place + len(damage)] = damage
    path = tmp_path_factory.mktemp("damaged") / "damaged.gguf"
    path.write_bytes(content)
    try:
        loaded = pn.models.load(path)
    except InputError as error:
        assert "damaged.gguf: " in str(error)  # noqa: PT017
    else:
        assert len(loaded.model.weights.layers) == loaded.model.config.num_layers


def test_weights_that_do_not_fit_into_memory_are_refused(monkeypatch, whole):
    monkeypatch.setattr("paged_numba.arguments._SMALL", 0)
    monkeypatch.setattr("paged_numba.arguments._memory_left", lambda: 1000)
    with pytest.raises(MemoryError, match=r"whole\.gguf: the weights in float32 must fit into memory"):
        pn.models.load(whole)


def test_a_directory_or_no_file_is_an_error_of_the_system(tmp_path):
    with pytest.raises(OSError, match=r"directory|denied"):
        pn.models.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="name_or_path must be one of glassllm, smollm2, or the path"):
        pn.models.load("glasslm")
