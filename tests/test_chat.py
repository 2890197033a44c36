"""The commands ``chat`` and ``generate``, with a small random model and bytes as tokens."""

import io
import json
import re
import sys

import pytest

import paged_numba as pn
from paged_numba import models, targets
from paged_numba.commands import main as cli
from paged_numba.commands.serving import setup
from paged_numba.commands.serving.chat import Chat
from paged_numba.models import Checkpoint, LlamaConfig, random_llama
from paged_numba.serving import Engine

USER, END, ANSWER = 256, 257, 258
CONFIG = LlamaConfig(
    num_layers=2, hidden_size=32, intermediate_size=48, vocab_size=259, num_q_heads=4, num_kv_heads=2,
    head_dim=8, max_positions=256,
)  # fmt: skip


class Bytes:
    """Bytes as tokens, and three control tokens for turns."""

    end_tokens = frozenset([END])

    def __init__(self, has_turns=True):
        self.has_turns = has_turns

    def encode(self, text):
        return [*text.encode()]

    def piece(self, token_id):
        return bytes([token_id]) if token_id < 256 else b""

    def decode(self, token_ids):
        return b"".join(map(self.piece, token_ids)).decode(errors="replace")

    def chat(self, messages):
        if not self.has_turns:
            return None
        tokens = []
        for message in messages:
            role = ANSWER if message["role"] == "assistant" else USER
            tokens += [role, *message["content"].encode(), END]
        return [*tokens, ANSWER]


def checkpoint(has_turns=True):
    return Checkpoint(random_llama(CONFIG), Bytes(has_turns), "small", "MIT", "nowhere")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setenv(targets.ENVIRONMENT, "lockstep")
    monkeypatch.setattr(models, "load", lambda name: checkpoint())


def run(capsys, *words):
    return cli.main(words), *capsys.readouterr()


def chat(monkeypatch, capsys, lines, *words):
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    return run(capsys, "chat", "--model", "small", *words)


def expected(tokens, max_tokens):
    """Return the greedy answer that a model gives which keeps no cache."""
    made = checkpoint()
    cache = pn.PagedKVCache(64, 4, 2, 8, num_layers=2, target="lockstep")
    engine = Engine(made.model, cache, tokenizer=made.tokenizer)
    engine.add_request(tokens, pn.serving.SamplingParams(max_tokens), request_id=0)
    return engine.run()[0].answers[0]


def test_generate_answers_every_paragraph(small, tmp_path, capsys):
    prompts = ["How many blocks?", "Two lines,\none prompt."]
    path = tmp_path / "prompts.txt"
    path.write_text("\n\n".join(prompts), encoding="utf-8")
    words = ("generate", "--model", "small", "--prompts", str(path), "--max-tokens", "7")
    status, out, err = run(capsys, *words, "--json")
    assert (status, err) == (0, "")
    record = json.loads(out)
    for prompt, answer in zip(prompts, record["answers"], strict=True):
        right = expected(Bytes().chat([{"role": "user", "content": prompt}]), 7)
        assert answer["prompt"] == prompt
        assert (answer["text"], answer["token_ids"]) == (right.text, [*right.token_ids])
        assert answer["num_prompt_tokens"] == len(prompt) + 3
        assert (answer["finish_reason"], answer["error"]) == (right.finish_reason, None)
    assert record["sampling"]["max_tokens"] == 7
    assert record["counters"]["num_generated_tokens"] == 14

    status, out, err = run(capsys, *words)
    assert (status, err) == (0, "")
    assert "> How many blocks?\n" in out
    assert "14 tokens in " in out


def test_generate_reads_standard_input(small, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Hé?\r\n\r\nHo".encode())))
    status, out, _ = run(
        capsys, "generate", "--model", "small", "--prompts", "-", "--json", "--max-tokens", "1"
    )
    assert status == 0
    assert [answer["prompt"] for answer in json.loads(out)["answers"]] == ["Hé?", "Ho"]


def test_generate_names_the_prompt_that_is_too_long_and_answers_the_others(small, tmp_path, capsys):
    path = tmp_path / "prompts.txt"
    path.write_text("a" * 300 + "\n\nshort", encoding="utf-8")
    status, out, _ = run(
        capsys, "generate", "--model", "small", "--prompts", str(path), "--json", "--max-tokens", "3"
    )
    long, short = json.loads(out)["answers"]
    assert status == 1
    assert long["finish_reason"] == "error"
    assert "context of 256 tokens, got 303" in long["error"]
    assert len(short["token_ids"]) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--temperature", "-1"), "--temperature: temperature must not be negative"),
        (("--top-p", "1.5"), "--top-p: top_p must"),
        (("--seed", "-1"), "--seed: seed must"),
        (("--prompts", "/nowhere"), "No such file"),
    ],
)
def test_options_out_of_range_are_named(small, tmp_path, capsys, words, message):
    path = tmp_path / "prompts.txt"
    path.write_text("x", encoding="utf-8")
    status, out, err = run(capsys, "generate", "--model", "small", "--prompts", str(path), *words)
    assert (status, out) == (2, "")
    assert message in err


def test_without_a_model_the_error_says_how_to_get_one(monkeypatch, capsys):
    missing = [known._replace(path=None) for known in models.find()]
    monkeypatch.setattr(models, "find", lambda: missing)
    status, _, err = run(capsys, "chat")
    assert status == 2
    assert "no model is installed" in err
    assert all(known.install in err for known in missing)


def test_a_turn_finds_the_turns_before_it_in_the_prefix_cache(small, monkeypatch, capsys):
    status, out, err = chat(
        monkeypatch, capsys, "What is a block?\nAnd a slot?\n/quit\nnever\n", "--max-tokens", "20", "--pool"
    )
    assert (status, err) == (0, "")
    first = Bytes().chat([{"role": "user", "content": "What is a block?"}])
    answer = expected(first, 20)
    assert answer.text in out
    assert "never" not in out
    cached = [
        int(line.split("; ")[1].split()[0]) for line in out.splitlines() if "prompt tokens from" in line
    ]
    assert cached[0] == 0
    # All full blocks of the first turn, but for its last token, which is never written.
    assert cached[1] >= (len(first) + 19) // 16 * 16 - 16 > 0
    assert "0 |11" in out
    assert "2" in next(line for line in out.splitlines()[::-1] if line.startswith(" 0 |"))


def test_a_new_conversation_forgets_the_old_one(small, monkeypatch, capsys):
    _, out, _ = chat(monkeypatch, capsys, "Hello\n/new\nHello\n/help\n", "--max-tokens", "5")
    answer = expected(Bytes().chat([{"role": "user", "content": "Hello"}]), 5).text
    assert out.count(answer) == 2
    assert out.count("/new begins") == 2


def test_the_oldest_turns_are_dropped_when_the_context_is_full(small, monkeypatch, capsys):
    lines = f"{'a' * 100}\n{'b' * 100}\n{'c' * 100}\n"
    status, out, err = chat(monkeypatch, capsys, lines, "--max-tokens", "10")
    assert (status, err) == (0, "")
    assert "[forgot the oldest 2 turns: a conversation has 256 tokens at most]" in out


def test_after_turns_were_dropped_the_next_one_finds_its_prefix(small, capsys):
    made = checkpoint()
    conversation = Chat(made, setup.engine_for(made, 512, "lockstep"), pn.serving.SamplingParams(10))
    found = []
    for number in range(12):
        messages = [message["content"] for message in conversation.messages]
        spoken = conversation.answer(f"{number:02} {'a' * 30}")
        was_dropped = [message["content"] for message in conversation.messages][: len(messages)] != messages
        assert spoken.num_prompt_tokens + 10 <= 256
        found.append((was_dropped, spoken.num_cached_tokens))
    assert 0 < sum(was_dropped for was_dropped, _ in found) < 4
    # Where turns were dropped, the conversation begins anew; else all its full blocks are there.
    assert all(was_dropped == (cached < 16) for was_dropped, cached in found[1:])


def test_a_message_that_is_too_long_is_refused_and_forgotten(small, monkeypatch, capsys):
    lines = f"Hello\n{'a' * 400}\nAgain\n"
    status, out, err = chat(monkeypatch, capsys, lines, "--max-tokens", "5", "--pool")
    assert status == 0
    assert "context of 256 tokens" in err
    messages = [{"role": "user", "content": "Hello"}]
    messages.append({"role": "assistant", "content": expected(Bytes().chat(messages), 5).text})
    messages.append({"role": "user", "content": "Again"})  # the turn before the long message is not forgotten
    assert expected(Bytes().chat(messages), 5).text in out
    assert re.findall(r"\[turn (\d): 5 tokens, the first after", out) == ["1", "2"]
    assert "forgot" not in out


def test_an_answer_says_where_it_was_cut(small, monkeypatch, capsys):
    _, out, _ = chat(monkeypatch, capsys, f"Hello\n{'a' * 240}\n", "--max-tokens", "20")
    assert " [cut: after 20 tokens]\n" in out
    assert " [cut: all 256 tokens are used]\n" in out


def test_a_closed_input_is_named(small, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    for words in (("chat",), ("generate", "--prompts", "-")):
        status, _, err = run(capsys, *words, "--model", "small")
        assert (status, err) == (
            2, f"paged-numba {words[0]}: error: standard input must be open, got a closed one\n"
        )  # fmt: skip


def test_bytes_that_are_no_text_are_replaced(small, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\xffb\n"), "utf-8"))
    status, out, err = run(capsys, "chat", "--model", "small", "--max-tokens", "5")
    assert (status, err) == (0, "")
    assert expected(Bytes().chat([{"role": "user", "content": "a\ufffdb"}]), 5).text in out


@pytest.mark.parametrize("where", ["nowhere.gguf", "."])
def test_a_model_that_is_no_file_is_named(monkeypatch, tmp_path, capsys, where):
    status, _, err = run(capsys, "chat", "--model", str(tmp_path / where))
    assert status == 2
    assert "--model: name_or_path must be one of glassllm, smollm2, or the path of a GGUF file, got " in err


def test_ctrl_c_stops_an_answer_and_frees_its_blocks(small, capsys):
    made = checkpoint()
    engine = setup.engine_for(made, 128, "lockstep")
    conversation = Chat(made, engine, pn.serving.SamplingParams(50))
    step, calls = engine.step, []

    def interrupted():
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return step()

    engine.step = interrupted
    spoken = conversation.answer("Hello")
    assert spoken.num_tokens == 3
    assert "[stopped]" in capsys.readouterr().out
    assert spoken.report().startswith("[turn 1: 3 tokens, the first after ")
    assert engine.cache.allocator.num_free_blocks == engine.cache.allocator.num_blocks
    assert conversation.answer("Again").num_tokens > 0


def test_ctrl_c_before_the_first_token_and_after_the_last(small, capsys):
    made = checkpoint()
    conversation = Chat(made, setup.engine_for(made, 128, "lockstep"), pn.serving.SamplingParams(1))
    step = conversation.engine.step

    def interrupted(is_before):
        conversation.engine.step = step
        if not is_before:
            step()
        raise KeyboardInterrupt

    for turn, is_before in enumerate((True, False), 1):
        conversation.engine.step = lambda is_before=is_before: interrupted(is_before)
        spoken = conversation.answer("Hello")
        assert spoken.report().startswith(f"[turn {turn}: 0 tokens; 0 of ")
    assert not conversation.engine.has_unfinished
    assert "error" not in capsys.readouterr().err


def test_a_model_without_chat_goes_on_with_each_text(monkeypatch, capsys):
    monkeypatch.setenv(targets.ENVIRONMENT, "lockstep")
    monkeypatch.setattr(models, "load", lambda name: checkpoint(has_turns=False))
    status, out, _ = chat(monkeypatch, capsys, "One\nTwo\n", "--max-tokens", "4")
    assert status == 0
    assert "has no chat template that is known here" in out
    for text in ("One", "Two"):
        assert expected(Bytes().encode(text), 4).text in out
