"""Lesson 16: what its engine saves and what it does not change, its answers, and the numbers in its prose."""

import re

import numpy as np
import pytest
from reading import lesson

import paged_numba as pn

LESSON = lesson(16)


@pytest.fixture(scope="module")
def made():
    return LESSON.run()


def result(engine, text, **params):
    """Return the result of one request."""
    request_id = engine.add_request(text, pn.serving.SamplingParams(**params))
    return engine.run()[request_id]


def computed_again(made):
    """Return how many tokens a prompt of 72 tokens takes that the prefix cache has seen."""
    engine = made["new_engine"](prefix_caching=True)
    first, again = (result(engine, made["system"] + " “What is", max_tokens=1) for _ in range(2))
    assert len(first.prompt_token_ids) == 72
    return 72 - again.num_cached_tokens


def test_numbers_in_the_prose(made):
    sizes, tokenizer, output = made["sizes"], made["tokenizer"], LESSON.output
    of_prefix = len(tokenizer.encode(made["system"]))
    hits = [tuple(map(int, found)) for found in re.findall(r"^ *(\d+) hits, +(\d+) tokens", output, re.M)]
    assert [found for found, _ in hits] == [0, 0, 0, 0, 68, 68]
    assert all(
        computed == lonely - 68 for (_, computed), (_, lonely) in zip(hits[4:], hits[1:], strict=False)
    )
    assert sorted(text.count("|") for text in made["answers"].values()) == [0, 0, 1, 1]  # two are preempted
    computed = [int(found) for found in re.findall(r": (\d+) tokens computed$", output, re.M)]
    assert computed[0] == computed[1] < computed[2]
    right, runs = made["right"], made["runs"]
    assert made["swapped"].keys() == right.keys()
    assert {name: text.replace("|", "") for name, text in made["swapped"].items()} == right
    most = [-(-(len(tokenizer.encode(text)) + 15) // 4) for text in made["texts"]]
    float32 = runs["float32"]
    equal = {name: np.cumprod(np.equal(tokens, float32[0])).sum() for name, (tokens, _) in runs.items()}
    off = {name: np.abs(logits - float32[1])[: equal[name] + 1].max() for name, (_, logits) in runs.items()}
    assert equal["float16"] == equal["bfloat16"] == 16
    last = made["picture"]
    num_tokens = len(tokenizer.encode(made["texts"][3]))
    blocks = {block for row in last.tables.values() for block in row}
    LESSON.check_numbers(
        claims={
            "A token takes 2,048 bytes": made["bytes_of_token"],
            "4 layers, times a key and a value, times 2 KV heads, times 32 numbers, times 4 bytes": (
                sizes.num_layers,
                sizes.num_kv_heads,
                sizes.head_dim,
                np.dtype("float32").itemsize,
            ),
            "the same 70 tokens, in blocks of 4": (of_prefix, 4),
            "68, in 17 full blocks": (of_prefix // 4 * 4, of_prefix // 4),
            "need 28 blocks, in a pool with 16": (sum(most), 16),
            "a prompt of 10 tokens, in blocks of 4": (num_tokens, 4),
            "6: two that are full": len(blocks),
            "it would be 12": 4 * -(-(num_tokens + 1) // 4),
            "Only float8, after 12 tokens": equal["float8_e4m3fn"],
            "off by 0.002, 0.013 and 0.32": (off["float16"], off["bfloat16"], off["float8_e4m3fn"]),
            "The last 4: the logits": computed_again(made),
        },
        given=[
            "temperature above 0",
            "have 16, the float8 here has 8",
            "A prompt of 72 tokens",
        ],
    )


def test_answers_do_not_hang_on_rounding(made):
    """The largest logit leads the second by more than any two targets differ, also where one of them rounds up."""

    def lead(logits):
        best = np.sort(logits)[:, -2:]
        return (best[:, 1] - best[:, 0]).min()

    for tokens, logits in made["runs"].values():
        assert logits.argmax(axis=1).tolist() == list(tokens)
        assert lead(logits) > 0.02
    engine = made["new_engine"]()
    for name, text in zip("ABCD", made["texts"], strict=True):
        engine.add_request(text, pn.serving.SamplingParams(max_tokens=16), request_id=name)
    for name, served in engine.run().items():
        tokens = [*served.prompt_token_ids, *served.answers[0].token_ids[:-1]]
        logits = made["model"].forward(tokens, np.arange(len(tokens)), pn.models.DenseAttention())[-16:]
        assert (
            served.answers[0].text == made["right"][name] == made["tokenizer"].decode(logits.argmax(axis=1))
        )
        assert lead(logits) > 0.02


def test_a_swap_that_loses_a_block_changes_an_answer(made, monkeypatch):
    swap_in = pn.PagedKVCache.swap_in

    def forgetful(cache, seq_id):
        swap_in(cache, seq_id)
        block = cache.allocator.block_table(seq_id)[1]
        for values in cache.value_caches:
            values[block] = 0

    monkeypatch.setattr(pn.PagedKVCache, "swap_in", forgetful)
    _, answers = made["serve"](16, "swap")
    right = {name: answer.replace("|", "") == made["right"][name] for name, answer in answers.items()}
    assert [right["A"], right["B"]] == [True, True], "these are not preempted"
    assert not all(right.values())


def test_answers_hold(made):
    sampled = {"max_tokens": 8, "temperature": 0.8, "seed": 5}
    alone = [result(made["new_engine"](), text, **sampled).answers[0].token_ids for text in made["texts"]]
    engine = made["new_engine"](12)
    for name, text in zip("ABCD", made["texts"], strict=True):
        engine.add_request(text, pn.serving.SamplingParams(**sampled), request_id=name)
    together = engine.run()
    assert sum(one.answers[0].num_preemptions for one in together.values()) > 0
    assert [one.answers[0].token_ids for one in together.values()] == alone

    with pytest.raises(ValueError, match=r"must fit into the pool: 64 tokens in 16 blocks, got 70 tokens"):
        made["new_engine"](16).add_request(made["system"], pn.serving.SamplingParams(max_tokens=1))

    engine = made["new_engine"](prefix_caching=True)  # "Try next"
    engine = pn.serving.Engine(made["model"], engine.cache, tokenizer=made["tokenizer"], token_budget=8)
    asked = result(engine, made["system"] + " So she", max_tokens=1)
    assert engine.counters.num_steps == -(-len(asked.prompt_token_ids) // 8)
