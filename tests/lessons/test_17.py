"""Lesson 17: what its mistakes write, how far off their logits are, and the numbers in its prose."""

import numpy as np
import pytest
from reading import lesson

import paged_numba as pn

LESSON = lesson(17)


@pytest.fixture(scope="module")
def made():
    return LESSON.run()


def compared(made, answer, logits):
    """Return how many first tokens are right, and how far off the logits are until then."""
    equal = next(
        (i for i, pair in enumerate(zip(answer, made["right"], strict=True)) if len({*pair}) > 1), 20
    )
    return equal, np.abs(logits[: equal + 1] - made["dense"][: equal + 1]).max()


def test_numbers_in_the_prose(made):
    runs = made["runs"]
    found = {name: compared(made, *run) for name, run in runs.items()}
    off = {name: far for name, (_, far) in found.items()}
    same = {name for name, (equal, _) in found.items() if equal == len(made["right"])}
    assert same == {"not causal", "own token unseen", "blocks swapped"}
    assert off["own token unseen"] > max(
        off[name] for name in ("scale left out", "window of 16", "foreign block")
    )
    rounding, smallest, *_ = sorted(off.values())
    assert rounding == off["blocks swapped"] < 1e-3 / 30  # 0.001 is far from both
    assert smallest > 30 * 1e-3
    assert LESSON.output.count("WRONG") == len(runs) - 1
    LESSON.check_numbers(
        claims={
            "the logits of all 20 tokens": len(made["right"]),
            "Not causal: 1.2. Own token unseen: 3.6, more than": (off["not causal"], off["own token unseen"]),
            "Blocks swapped: 0.00001.": off["blocks swapped"],
        },
        given=[
            "reads layer 0 of the cache",
            "the head map and layer 0.",
            "of 16 belongs",
            "logical block 1 is taken from the other, or the logical blocks 0 and 1",
            "The limit of 0.001",
            "wrong by 10 %",
        ],
    )
    assert "what eight mistakes make" in LESSON.prose
    assert len(runs) == 8
    assert "passes three of the eight" in LESSON.prose
    assert len(same) == 3


def test_the_right_answer_does_not_hang_on_rounding(made):
    """The largest logit leads the second by more than any two targets differ."""
    best = np.sort(made["dense"])[:, -2:]
    assert (best[:, 1] - best[:, 0]).min() > 0.05
    assert made["dense"].argmax(axis=1).tolist() == made["right"]


def test_the_answer_is_the_engines(made):
    sizes, params = made["sizes"], pn.serving.SamplingParams(max_tokens=made["num_new"], ignore_eos=True)
    cache = pn.PagedKVCache(64, 4, sizes.num_kv_heads, sizes.head_dim, num_layers=sizes.num_layers)
    engine = pn.serving.Engine(made["model"], cache)
    engine.add_request(made["prompts"]["ours"], params, request_id="ours")
    assert list(engine.run()["ours"].answers[0].token_ids) == made["right"]


def test_each_mistake_is_the_one_that_its_name_says(made):
    """Compare each with dense attention over the tokens that it should see, for a batch of two decodes."""
    rng = np.random.default_rng(17)
    query = rng.standard_normal((2, 4, 8), dtype=np.float32)
    key, value = rng.standard_normal((2, 2, 18, 2, 8), dtype=np.float32)  # [sequence, token, head, dimension]
    cache = pn.PagedKVCache(12, 4, 2, 8, num_layers=2, target="lockstep")
    for name in (0, 1):
        cache.add(name, *(np.stack([part[name], part[name, ::-1]], axis=0) for part in (key, value)))
    batch = {"block_tables": cache.block_tables([0, 1]), "seq_lens": np.array([18, 18])}
    caches = {"key_cache": cache.key_caches[0], "value_cache": cache.value_caches[0]}
    call = {"query": query, **caches, **batch, "cu_seqlens_q": np.array([0, 1, 2])}

    def ours(mistake):
        return pn.paged_attention(**call | mistake(cache, call))[0]

    def dense(keys=key[0], values=value[0], **options):
        return pn.reference.attention(query[:1], keys, values, **options)[0]

    first, mixed = [*range(4)], [*range(4), *range(8, 18)]
    foreign = [np.concatenate([part[0, first], part[1, 4:8], part[0, mixed[4:]]]) for part in (key, value)]
    by_remainder = [part[0][:, [0, 1, 0, 1]] for part in (key, value)]
    swapped = [part[0][[4, 5, 6, 7, 0, 1, 2, 3, *range(8, 18)]] for part in (key, value)]
    expected = {
        "scale left out": dense(scale=1.0),
        "head map by %": dense(*by_remainder),
        "not causal": dense(),
        "own token unseen": dense(key[0, :-1], value[0, :-1]),
        "window of 16": dense(window=16),
        "foreign block": dense(*foreign),
        "blocks swapped": dense(*swapped),
        "always layer 0": dense(),
    }
    mistakes = made["from_the_prompt_on"] | made["in_decode"]
    assert expected.keys() == mistakes.keys()
    for name, mistake in mistakes.items():
        np.testing.assert_allclose(ours(mistake), expected[name], rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(expected["blocks swapped"], dense(), atol=1e-6)
    call |= {"key_cache": cache.key_caches[1], "value_cache": cache.value_caches[1]}
    np.testing.assert_allclose(ours(mistakes["always layer 0"]), dense(), rtol=1e-4, atol=1e-5)
    call |= {"query": query[[0, 0, 1]], **caches, "cu_seqlens_q": np.array([0, 2, 3])}
    np.testing.assert_allclose(ours(mistakes["not causal"]), dense(), rtol=1e-4, atol=1e-5)


def test_answers_hold(made, monkeypatch):
    def run(mistake, first_step):
        return compared(made, *made["generate"](mistake, first_step)[:2])

    def first_and_last(cache, call):
        tables = call["block_tables"].copy()
        for row, seq_len in enumerate(call["seq_lens"]):
            last = (seq_len - 1) // 4
            tables[row, [0, last]] = tables[row, [last, 0]]
        return {"block_tables": tables}

    equal, off = run(made["in_decode"]["blocks swapped"], 0)
    assert equal == len(made["right"])
    assert off > 0.1
    equal, off = run(lambda cache, call: {"scale": 1.1 * made["sizes"].head_dim ** -0.5}, 0)  # "Try next"
    assert equal == len(made["right"])
    assert off > 0.1

    monkeypatch.setitem(made["generate"].__globals__, "num_new", 3)
    assert (len(made["prompts"]["ours"]) + 1) % 4 == 3, "the last block is not full at the first decode"
    with np.errstate(invalid="ignore"):
        _, logits, _ = made["generate"](first_and_last, 1)
    assert np.isnan(logits[1]).any(), "a slot that was never written is read"


def test_with_most_prompts_the_own_token_unseen_makes_another_sentence(made, monkeypatch):
    names, different = made["generate"].__globals__, 0
    prompts = ("Alice was not", "The Mock Turtle said", "She was", "Humpty Dumpty said", "The White Rabbit")
    monkeypatch.setitem(names, "num_new", 4)
    for prompt in prompts:
        tokens = made["tokenizer"].encode(prompt)
        monkeypatch.setitem(names, "prompts", {"ours": tokens, "other": tokens})
        right, _, _ = made["generate"]()
        different += made["generate"](made["in_decode"]["own token unseen"], 1)[0] != right
    assert different > len(prompts) / 2
