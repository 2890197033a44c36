"""Tokenizers: text back from tokens, streams of whole characters, and control tokens that no text can write."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

gguf = pytest.importorskip("gguf")
pytest.importorskip("tokenizers")

import gguf_files as small  # noqa: E402

from paged_numba.models.gguf_file import GGUFFile  # noqa: E402
from paged_numba.models.gguf_tokenizer import PRE_TOKENIZERS, GGUFTokenizer  # noqa: E402
from paged_numba.serving.text import AnswerText  # noqa: E402

TEXTS = st.text(st.characters(codec="utf-8")) | st.lists(
    st.sampled_from(["hello", " world", "12", "é", "\n", " ", "##", "##mark##", "<|im_end|>", "🧀", "x"])
).map("".join)


def tokenizer_of(folder, **metadata):
    path = folder / "tokenizer.gguf"
    small.write(path, {"unused": np.ones(1, np.float32)}, small.metadata_of(small.CONFIG) | metadata)
    return GGUFTokenizer(GGUFFile(path))


@pytest.fixture(scope="module", params=PRE_TOKENIZERS)
def tokenizer(request, tmp_path_factory):
    return tokenizer_of(tmp_path_factory.mktemp("tokenizer"), **{"tokenizer.ggml.pre": request.param})


@given(text=TEXTS)
def test_text_comes_back_from_its_tokens(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(map(tokenizer.piece, ids)) == text.encode()


@given(text=TEXTS)
def test_no_text_becomes_a_control_token(tokenizer, text):
    plain = tokenizer.encode("")
    for extra in (text, f"{text}<|im_end|>{text}"):
        assert not set(tokenizer.encode(extra)[len(plain) :]) & set(range(len(small.CONTROL)))


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_a_word_that_is_written_like_a_control_token_is_text(tmp_path, pre):
    # Llama 3 takes a word that is a whole token without merging; here the word PAD is a control token.
    tokens = ["PAD", *small.TOKENS[1:]]
    tokenizer = tokenizer_of(tmp_path, **{"tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens})
    assert [tokens[number] for number in tokenizer.encode("PAD")][-3:] == ["P", "A", "D"]


def streamed(tokenizer, ids):
    """Return the texts that an engine shows after each token, and at the end."""
    text = AnswerText()
    yield text.shown
    for token_id in ids:
        text = text.push(tokenizer.piece(token_id), stop=())
        yield text.shown
    yield text.finish(stop=()).shown


@given(ids=st.lists(st.integers(0, len(small.TOKENS) - 1)))
def test_a_stream_joins_to_the_decoded_text_and_never_splits_a_character(tokenizer, ids):
    texts = [*streamed(tokenizer, ids)]
    assert texts[-1] == tokenizer.decode(ids)
    # A text that ended within a character would show U+FFFD, or lack it later.
    assert all(longer.startswith(shorter) for shorter, longer in pairwise(texts))


def test_a_character_of_four_bytes_comes_with_its_last(tokenizer):
    ids = [tokenizer.encode(character)[-1] for character in "ab"]
    cheese = [small.TOKENS.index(character) for character in "ðŁ§Ģ"]  # F0 9F A7 80 in GPT-2's characters
    texts = [*streamed(tokenizer, [ids[0], *cheese, ids[1], cheese[0]])]
    assert texts == ["", "a", "a", "a", "a", "a🧀", "a🧀b", "a🧀b", "a🧀b\ufffd"]


def test_words_are_split_as_each_pre_tokenizer_splits_them(tmp_path):
    tokens = small.TOKENS
    by_name = {
        name: tokenizer_of(tmp_path, **{"tokenizer.ggml.pre": name, "tokenizer.ggml.add_bos_token": False})
        for name in PRE_TOKENIZERS
    }
    split = {
        name: [tokens[number] for number in found.encode("hello world 12")] for name, found in by_name.items()
    }
    assert split == {
        "gpt-2": ["hello", "Ġworld", "Ġ", "12"],
        "smollm": ["hello", "Ġworld", "Ġ", "1", "2"],  # digits one by one
        "llama-bpe": ["hello", "Ġworld", "Ġ", "12"],
    }
    # The line ends of an empty line are one word of Llama 3 only.
    assert [[tokens[number] for number in found.encode("x\n\nx")] for found in by_name.values()] == [
        ["x", "Ċ", "Ċ", "x"],
        ["x", "Ċ", "Ċ", "x"],
        ["x", "ĊĊ", "x"],
    ]


def test_first_and_last_tokens_are_those_of_the_file(tmp_path):
    plain = tokenizer_of(tmp_path)
    assert plain.encode("x") == [small.TOKENS.index("x")]
    assert plain.end_tokens == {0, 2}  # <|endoftext|>, and eos_token_id
    first = tokenizer_of(tmp_path, **{"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.eot_token_id": 3})
    assert first.encode("x") == [1, small.TOKENS.index("x")]
    assert first.end_tokens == {0, 2, 3}
    assert first.decode(first.encode("x")) == "x"


def test_a_token_that_the_file_defines_for_users_is_one_token(tmp_path):
    tokenizer = tokenizer_of(tmp_path)
    assert tokenizer.encode("x##mark##x")[1] == small.TOKENS.index("##mark##")
    assert tokenizer.piece(small.TOKENS.index("##mark##")) == b"##mark##"


def test_a_byte_without_a_token_is_left_out(tmp_path):
    tokens = ["(none)" if token == "x" else token for token in small.TOKENS]
    tokenizer = tokenizer_of(tmp_path, **{"tokenizer.ggml.tokens": tokens})
    assert tokenizer.decode(tokenizer.encode("hexllo")) == "hello"


def test_half_a_surrogate_pair_and_unknown_tokens_are_refused(tokenizer):
    with pytest.raises(
        ValueError, match=r"text must not hold a half of a surrogate pair, got text='\\ud83e'"
    ):
        tokenizer.encode("\ud83e")
    with pytest.raises(TypeError, match="text must be a str, got text=b'x'"):
        tokenizer.encode(b"x")
    with pytest.raises(ValueError, match=r"token_id must lie in 0 \.\. \d+, got token_id=-1"):
        tokenizer.piece(-1)


MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXTS}),
    min_size=1,
)
SYSTEM = "You help."
WITH_SYSTEM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n" + SYSTEM + "<|im_end|>\n' }}{% endif %}" + small.TEMPLATE.partition("%}")[2]
)


@given(messages=MESSAGES)
@pytest.mark.parametrize("system", [None, SYSTEM])
def test_a_conversation_is_written_in_chatml(tmp_path_factory, messages, system):
    template = small.TEMPLATE if system is None else WITH_SYSTEM
    tokenizer = tokenizer_of(tmp_path_factory.mktemp("chat"), **{"tokenizer.chat_template": template})
    ids = tokenizer.chat(messages)
    if system is not None and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    # Control tokens are written as such, and those in a message are text.
    start, end = small.CONTROL.index("<|im_start|>"), small.CONTROL.index("<|im_end|>")
    expected = []
    for message in messages:
        expected += [start, *tokenizer.encode(f"{message['role']}\n{message['content']}"), end]
        expected += tokenizer.encode("\n")
    assert ids == [*expected, start, *tokenizer.encode("assistant\n")]
    assert ids.count(end) == len(messages)


def test_messages_are_checked(tmp_path):
    tokenizer = tokenizer_of(tmp_path)
    with pytest.raises(ValueError, match="messages must hold at least one message, got messages=\\[\\]"):
        tokenizer.chat([])
    with pytest.raises(TypeError, match=r"messages\[0\] must be a dict with 'role' and 'content', got 'hi'"):
        tokenizer.chat(["hi"])
    with pytest.raises(TypeError, match=r"messages\[1\]\['content'\] must be a str"):
        tokenizer.chat([{"role": "user", "content": "x"}, {"role": "user", "content": None}])


@pytest.mark.parametrize(
    "template",
    [None, "{{ messages }}", small.TEMPLATE.replace("message['content']", "message['content'] | trim"), 7],
)
def test_another_template_is_no_chat(tmp_path, template):
    metadata = {} if template is None else {"tokenizer.chat_template": template}
    path = tmp_path / "tokenizer.gguf"
    keys = small.metadata_of(small.CONFIG)
    del keys["tokenizer.chat_template"]
    small.write(path, {"unused": np.ones(1, np.float32)}, keys | metadata)
    assert GGUFTokenizer(GGUFFile(path)).chat([{"role": "user", "content": "x"}]) is None
