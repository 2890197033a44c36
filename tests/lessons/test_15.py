"""Lesson 15: its server against the dense model, its broken twin, and the numbers in its prose."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import lesson

import paged_numba as pn
from paged_numba.tolerances import attention_tolerance

LESSON = lesson(15)


@pytest.fixture(scope="module")
def made():
    return LESSON.run()


def steps(run):
    return len(run[1].used) - 1  # the last one is recorded after the last step


def test_numbers_in_the_prose(made):
    serve, num_new, prompts = made["serve"], made["num_new"], made["prompts"]
    tokens = sum(num_new.values())
    large, small, right = (serve(blocks, True) for blocks in (16, 5, 7))
    broken_16, broken_7 = (serve(blocks, False) for blocks in (16, 7))
    assert large[0] == small[0] == right[0] == broken_16[0] == made["right"]
    assert {name for name in prompts if broken_7[0][name] != made["right"][name]} == {"B", "D"}
    answer, expected = broken_7[0]["B"], made["right"]["B"]
    assert any(answer == (expected[:k] + expected)[: len(answer)] for k in range(1, 9)), "it begins again"
    assert steps(broken_7) < steps(right)
    full = {name: -(-(len(prompts[name]) + num_new[name] - 1) // 4) for name in prompts}
    LESSON.check_numbers(
        claims={
            "the four requests fit into 16 blocks": sum(full.values()),
            "hold the longest request alone, from 5 blocks on": max(full.values()),
            "the answers have 28 tokens in all": tokens,
            "3.1, for B's 9 tokens take 9 steps": (tokens / steps(large), num_new["B"], steps(large)),
            "1.1, for they take turns": tokens / steps(small),
            "76 tokens are computed, not 60": (small[3], large[3]),
        },
        given=[
            "With 16 and with 7, whose answers",
            "With 16 nobody's: nobody is preempted. With 7, those",
            "How many tokens a step with 16 blocks? How many with 5?",
            "With 7 blocks the broken server",
            "with 4 blocks, too few for A alone",
            "With 10 blocks give the cache",
        ],
    )


def test_answers_do_not_hang_on_rounding(made):
    """The best token leads the second by more than rounding could change, on any target."""
    model = made["model"]
    for name, answer in made["right"].items():
        tokens = made["prompts"][name] + answer[:-1]
        query, key, value = model.project(np.frombuffer(tokens, np.uint8), 0)
        logits = np.sort(model.logits(pn.reference.attention(query, key, value)))[
            len(made["prompts"][name]) - 1 :
        ]
        allowed = attention_tolerance(query, key, value).out * np.abs(model.to_logits).sum(axis=0).max()
        assert (logits[:, -1] - logits[:, -2]).min() > 2 * allowed


@settings(max_examples=10)
@given(num_blocks=st.integers(5, 16), arrivals=st.lists(st.integers(0, 9), min_size=4, max_size=4))
def test_a_server_that_forgets_the_answer_is_wrong_exactly_if_it_preempts(num_blocks, arrivals):
    made = LESSON.run()
    answer, _, preemptions, _ = made["serve"](num_blocks, False, arrivals)
    assert (answer == made["right"]) == (preemptions == 0)


def test_the_property_finds_the_broken_server(made, monkeypatch):
    serve, prop = made["serve"], made["test_answers"]
    monkeypatch.setitem(prop.hypothesis.inner_test.__globals__, "serve", lambda n, _, a: serve(n, False, a))
    with pytest.raises(AssertionError) as caught:
        prop()
    notes = " ".join("".join(caught.value.__notes__).split())
    assert "num_blocks=5, arrivals=[0, 0, 0, 0]" in notes  # what the reader finds who tries it


def test_too_small_a_pool_makes_all_wait_for_ever(made, monkeypatch):
    class Limited(pn.draw.Schedule):
        def record(self, pool, running=(), waiting=()):
            super().record(pool, running, waiting)
            if len(self.used) == 60:
                raise TimeoutError

    schedules = []
    monkeypatch.setattr(
        pn.draw, "Schedule", lambda **given: schedules.append(Limited(**given)) or schedules[-1]
    )
    with pytest.raises(TimeoutError):
        made["serve"](4, True)
    last = {name: states[-1] for name, states in schedules[0].states.items()}
    assert last == {"A": "preempted", "B": "waiting", "C": "waiting", "D": "waiting"}


def test_a_watermark_saves_preemptions_and_costs_steps(made, monkeypatch):
    plain = made["serve"](10, True)
    cache = pn.PagedKVCache
    monkeypatch.setattr(pn, "PagedKVCache", lambda *sizes, **given: cache(*sizes, watermark=0.2, **given))
    marked = made["serve"](10, True)
    assert marked[0] == plain[0] == made["right"]
    assert (plain[2], marked[2]) == (2, 0)
    assert steps(marked) > steps(plain)
