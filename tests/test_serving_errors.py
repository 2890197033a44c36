"""The engine's errors: each names what was wrong, and costs no block."""

import numpy as np
import pytest

import paged_numba as pn
from paged_numba.cache.step_plan import StepPlan
from paged_numba.serving import Engine, Recording, SamplingParams
from paged_numba.serving import engine as engines
from paged_numba.serving.answers import Answer
from paged_numba.testing.serving.engine import CONFIG, MODEL, Pieces

ONE = SamplingParams(max_tokens=1)


def cache(num_blocks=8, block_size=4, **options):
    sizes = {
        "num_kv_heads": CONFIG.num_kv_heads,
        "head_dim": CONFIG.head_dim,
        "num_layers": CONFIG.num_layers,
    }
    return pn.PagedKVCache(num_blocks, block_size, **sizes | options)


def assert_all_free(engine):
    engine.cache.allocator.check()
    assert engine.cache.allocator.num_free_blocks == engine.cache.allocator.num_blocks
    assert not engine.has_unfinished


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_layers": 3}, "cache must have the model's num_layers=2, got num_layers=3"),
        ({"num_kv_heads": 2}, "cache must have the model's num_kv_heads=1, got num_kv_heads=2"),
        ({"head_dim": 4}, "cache must have the model's head_dim=8, got head_dim=4"),
        ({"value_head_dim": 4}, "cache must have the model's head_dim=8, got head_dim=4"),
    ],
)
def test_a_cache_that_does_not_fit_the_model_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        Engine(MODEL, cache(**sizes))


def test_objects_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="cache must be a PagedKVCache, got cache=1"):
        Engine(MODEL, 1)
    with pytest.raises(TypeError, match="model must have a config and a method forward"):
        Engine(object(), cache())
    with pytest.raises(TypeError, match="params must be SamplingParams, got params=7"):
        Engine(MODEL, cache()).add_request([1], 7)
    with pytest.raises(ValueError, match="max_sequences must be at most token_budget=2"):
        Engine(MODEL, cache(), token_budget=2, max_sequences=3)


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        ([], ONE, "prompt must hold at least one token"),
        ([1, 24], ONE, r"prompt must hold token ids in 0 .. 23, got 24"),
        ([-1], ONE, r"prompt must hold token ids in 0 .. 23, got -1"),
        ([1.5], ONE, "prompt must be an integer"),
        ([1] * 40, ONE, "prompt must be shorter than the model's context of 40 tokens, got 40 tokens"),
        ([1] * 33, ONE, "prompt must fit into the pool: 32 tokens in 8 blocks, got 33 tokens"),
        ("a", ONE, "prompt must be token ids: the engine has no tokenizer, got prompt='a'"),
        ([1], SamplingParams(1, n=65), "params.n must be at most max_sequences=64, got n=65"),
        ([1], SamplingParams(1, stop="a"), "params.stop needs an engine with a tokenizer"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused(prompt, params, message):
    engine = Engine(MODEL, cache())
    with pytest.raises((TypeError, ValueError), match=message):
        engine.add_request(prompt, params)
    assert_all_free(engine)


def test_the_watermark_counts_when_a_prompt_is_refused():
    engine = Engine(MODEL, cache(watermark=0.25))
    with pytest.raises(ValueError, match="24 tokens in 8 blocks above a watermark of 2, got 25 tokens"):
        engine.add_request([1] * 25, ONE)
    engine.add_request([1] * 24, ONE)
    engine.run()
    assert_all_free(engine)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be positive, got max_tokens=0"),
        ({"temperature": -1}, "temperature must not be negative"),
        ({"top_k": 0}, "top_k must be positive"),
        ({"top_p": 0}, "top_p must be positive"),
        ({"top_p": 1.5}, r"top_p must lie in 0 .. 1"),
        ({"n": 0}, "n must be positive"),
        ({"seed": -1}, "seed must not be negative"),
        ({"stop": [""]}, "stop must hold texts that are not empty, got ''"),
    ],
)
def test_parameters_out_of_range_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        SamplingParams(**{"max_tokens": 1, **given})


def test_an_id_is_taken_until_its_request_has_ended():
    engine = Engine(MODEL, cache())
    assert [engine.add_request([1], ONE), engine.add_request([1], ONE)] == ["0", "1"]
    with pytest.raises(ValueError, match="a request waits or runs under '1'"):
        engine.add_request([1], ONE, request_id="1")
    engine.add_request([1], ONE, request_id="3")
    assert [engine.add_request([1], ONE) for _ in range(2)] == ["4", "5"]
    assert [*engine.run()] == ["0", "1", "3", "4", "5"]
    engine.add_request([1], ONE, request_id="1")
    engine.run()
    assert_all_free(engine)


def test_an_unknown_request_cannot_be_cancelled():
    with pytest.raises(ValueError, match="request_id must be that of a request that waits or runs, got 'x'"):
        Engine(MODEL, cache()).cancel("x")


def test_an_answer_ends_where_the_context_or_the_pool_does():
    engine = Engine(MODEL, cache(num_blocks=20))
    a = engine.add_request([1] * 30, SamplingParams(max_tokens=99, ignore_eos=True))
    assert len(engine.run()[a].answers[0].token_ids) == CONFIG.max_positions - 30
    engine = Engine(MODEL, cache(num_blocks=2))
    a = engine.add_request([1] * 5, SamplingParams(max_tokens=99, ignore_eos=True))
    (answer,) = engine.run()[a].answers
    # 8 slots; the last token is never written.
    assert (len(answer.token_ids), answer.finish_reason, answer.error) == (4, "length", None)
    assert_all_free(engine)


class Failing:
    """A model that fails while `why` is set: by an exception, or by wrong logits of token 7."""

    config = CONFIG
    why = None

    def forward(self, token_ids, positions, attend, rows):
        if isinstance(self.why, BaseException):
            MODEL.forward(token_ids, positions, attend, rows)
            raise self.why
        logits = MODEL.forward(token_ids, positions, attend, rows)
        if self.why is not None:
            logits[np.asarray(token_ids)[rows] == 7, slice(3, 4 if self.why > 0 else None)] = self.why
            logits[np.asarray(token_ids)[rows] == 7, :3] = -np.inf
        return logits


@pytest.mark.parametrize(
    "why", [RuntimeError("out of luck"), KeyboardInterrupt("Ctrl-C")], ids=["error", "Ctrl-C"]
)
@pytest.mark.parametrize("prefix_caching", [False, True])
def test_a_step_that_fails_is_made_again(why, prefix_caching):
    def served(fails_at):
        model = Failing()
        engine = Engine(model, cache(prefix_caching=prefix_caching), token_budget=4)
        for first in (3, 4):
            engine.add_request([first, *range(6)], SamplingParams(max_tokens=4, temperature=1.0, n=2))
        for step in range(5):
            if step == fails_at:
                model.why = why
                with pytest.raises(type(why), match=str(why)):
                    engine.step()
                engine.cache.allocator.check()
                model.why = None
            engine.step()
        answers = [answer.token_ids for result in engine.run().values() for answer in result.answers]
        assert_all_free(engine)
        return answers

    expected = served(None)
    for step in range(5):
        assert served(step) == expected


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    ("logit", "name"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "only -infinity")]
)
def test_a_request_with_wrong_logits_ends_with_an_error_and_others_go_on(logit, name, temperature):
    model = Failing()
    model.why = logit
    engine = Engine(model, cache())
    bad = engine.add_request([1, 7], SamplingParams(max_tokens=3, n=2, temperature=temperature))
    good = engine.add_request([1, 2], ONE)
    results = engine.run()
    for answer in results[bad].answers:
        assert (answer.finish_reason, answer.token_ids) == ("error", ())
        assert answer.error == f"the model returned {name} for the logits of the next token"
    assert results[good].answers[0].finish_reason == "length"
    assert_all_free(engine)


def test_a_request_that_others_leave_no_room_for_ends_with_an_error():
    engine = Engine(MODEL, cache(num_blocks=2))
    engine.cache.reserve("not of this engine", 4)
    name = engine.add_request([1] * 8, ONE)
    (answer,) = engine.run()[name].answers
    assert answer.finish_reason == "error"
    assert answer.error == (
        "the pool has no room for 8 tokens: sequences that are not of this engine leave 1 of its 2 blocks free"
    )


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_all_answers_to_a_prompt_without_room_end_at_once(preemption):
    engine = Engine(MODEL, cache(num_blocks=2), token_budget=3, preemption=preemption)
    engine.cache.reserve("not of this engine", 4)
    engine.add_request([1] * 8, SamplingParams(max_tokens=2, n=3))
    assert engine.step() == []  # 3 tokens of the prompt are computed; the next 3 find no block
    assert [(output.index, output.finish_reason) for output in engine.step()] == [
        (index, "error") for index in range(3)
    ]
    engine.cache.free("not of this engine")
    assert_all_free(engine)


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_the_answer_ends_that_grew_out_of_the_pool_and_not_one_that_waits(preemption):
    engine = Engine(MODEL, cache(prefix_caching=True), token_budget=5, preemption=preemption)
    engine.cache.reserve("not of this engine", [0] * 12)
    common = [*range(1, 9)]
    engine.add_request(common, ONE)
    # Held back until the blocks of the first are there; then it needs all blocks but those of "not of this engine".
    waits = engine.add_request([*common, *[9] * 12], ONE)
    grows = engine.add_request([9], SamplingParams(max_tokens=30, ignore_eos=True))  # overtakes
    results = engine.run()
    assert [results[name].answers[0].finish_reason for name in (waits, grows)] == ["length", "error"]
    assert len(results[grows].answers[0].token_ids) == 20
    engine.cache.free("not of this engine")
    assert_all_free(engine)


def test_two_engines_share_a_cache():
    def add(engine, first):
        params = SamplingParams(max_tokens=6, temperature=2.0, ignore_eos=True)
        return engine.add_request([first, 2, 3, 4, 5, 6], params)

    def alone(first):
        engine = Engine(MODEL, cache())
        add(engine, first)
        return engine.run()["0"].answers[0].token_ids

    shared = cache()
    engines = [Engine(MODEL, shared), Engine(MODEL, shared)]
    tokens = [[], []]
    assert [add(engine, first) for first, engine in enumerate(engines, 7)] == ["0", "0"]
    while any(engine.has_unfinished for engine in engines):
        for engine, its in zip(engines, tokens, strict=True):
            its.extend(token for output in engine.step() for token in output.token_ids)
            shared.allocator.check()
    assert [tuple(its) for its in tokens] == [alone(7), alone(8)]
    assert_all_free(engines[0])


def test_all_time_of_a_step_is_counted(monkeypatch):
    clock = [0.0]

    def takes(seconds, function):
        def slow(*arguments, **options):
            clock[0] += seconds
            return function(*arguments, **options)

        return slow

    monkeypatch.setattr(engines, "perf_counter", lambda: clock[0])
    engine = Engine(MODEL, cache())
    engine._next_token = takes(1, engine._next_token)
    engine.scheduler.schedule = takes(10, engine.scheduler.schedule)
    engine.cache.plan = takes(100, engine.cache.plan)
    monkeypatch.setattr(StepPlan, "write", takes(1000, StepPlan.write))  # in each of 2 layers
    monkeypatch.setattr(StepPlan, "attend", takes(10000, StepPlan.attend))
    monkeypatch.setattr(MODEL, "forward", takes(100000, MODEL.forward))
    engine.add_request([1, 2], SamplingParams(max_tokens=3, ignore_eos=True))
    engine.run()
    found = engine.counters
    assert (found.host_seconds, found.write_seconds) == (3 * 111, 3 * 2000)
    assert (found.attention_seconds, found.model_seconds) == (3 * 20000, 3 * 100000)


def test_a_stream_that_is_left_loses_no_output():
    engine = Engine(MODEL, cache())
    for _ in range(3):
        engine.add_request([1], SamplingParams(max_tokens=2, ignore_eos=True))
    seen = []
    while engine.has_unfinished:
        seen.append(next(engine.stream()).request_id)
    assert seen == ["0", "1", "2"] * 2
    assert_all_free(engine)


def test_a_step_does_not_look_at_requests_that_wait(monkeypatch):
    seen = []
    output = Answer.output
    monkeypatch.setattr(Answer, "output", lambda answer: seen.append(answer.id) or output(answer))
    engine = Engine(MODEL, cache(), max_sequences=2)
    names = [engine.add_request([1], ONE) for _ in range(20)]
    engine.step()
    assert {answer.request_id for answer in seen} == set(names[:2])
    engine.run()
    assert_all_free(engine)


def test_only_an_engine_with_a_recording_keeps_its_steps():
    with pytest.raises(TypeError, match="recording must be a Recording or None, got recording=True"):
        Engine(MODEL, cache(), recording=True)
    engine = Engine(MODEL, cache())
    assert engine.recording is None
    engine.add_request([1, 2], SamplingParams(max_tokens=3, ignore_eos=True))
    engine.step()
    engine.recording = Recording()  # from here on
    engine.run()
    assert engine.recording.schedule.states == {"0": ["running", "running"]}
    assert len(engine.recording.pool.steps) == 2


@pytest.mark.parametrize("preemption", ["recompute", "swap"])
def test_a_request_is_cancelled_wherever_it_is(preemption):
    engine = Engine(MODEL, cache(num_blocks=4), token_budget=3, preemption=preemption)
    long = SamplingParams(max_tokens=9, ignore_eos=True)
    for name in "abcd":
        engine.add_request([1] * 7, long, request_id=name)
    ended = []
    while not any(answer.num_preemptions for answer in engine.scheduler.waiting):
        ended += engine.step()
    engine.cancel("b")  # preempted
    engine.cancel("d")  # waiting
    assert [(o.request_id, o.token_ids, o.finish_reason) for o in engine.step() if o.finish_reason] == [
        ("b", [], "cancelled"),
        ("d", [], "cancelled"),
    ]
    engine.cancel("a")  # running
    engine.step()
    engine.cancel("c")  # its prompt is half computed
    engine.step()
    assert_all_free(engine)


def test_text_comes_in_whole_characters_and_without_stop_strings():
    # e acute is two tokens; the Euro sign two of which the last never comes.
    engine = Engine(MODEL, cache(), tokenizer=Pieces())
    tokens = iter([6, 1, 2, 7, 8, 6, 3, 0])
    engine._next_token = lambda answer, logits: next(tokens)
    engine.add_request("ab", SamplingParams(max_tokens=9, stop=["bcd"]))
    assert [output.text for output in engine.stream()] == ["a", "", "é", "", "", "bca", "", "\ufffd"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "float8_e4m3fn"])
@pytest.mark.parametrize("layout", ["NHD", "HND"])
def test_a_cache_with_scales_serves_the_same_answer(dtype, layout):
    def first_logits(**options):
        engine = Engine(MODEL, cache(dtype=dtype, layout=layout, **options))
        seen = []
        engine._next_token = lambda answer, logits: seen.append(logits) or 5
        engine.add_request([1, 2, 3, 4], ONE)
        engine.run()
        return seen[0]

    # A power of two changes the digits of the smallest numbers alone; a scale that is forgotten moves logits by 1.
    np.testing.assert_allclose(first_logits(k_scale=0.5, v_scale=[0.25]), first_logits(), atol=1e-2)


def test_an_interrupted_request_is_served_in_the_next_step():
    engine = Engine(MODEL, cache())
    add, engine.scheduler.add = engine.scheduler.add, lambda answer: 1 / 0
    with pytest.raises(ZeroDivisionError):
        engine.add_request([1], ONE)
    engine.scheduler.add = add
    assert [len(result.answers[0].token_ids) for result in engine.run().values()] == [1]
    assert_all_free(engine)


def test_a_tokenizer_that_fails_ends_the_answer_it_fails_for():
    class Holey(Pieces):
        def piece(self, token_id):
            if token_id == bad:
                raise KeyError(token_id)
            return super().piece(token_id)

    bad = None
    whole = Engine(MODEL, cache(), tokenizer=Holey())
    for name, prompt in (("a", [5, 9, 3]), ("b", [7, 7, 2])):
        whole.add_request(prompt, SamplingParams(6, ignore_eos=True), request_id=name)
    right = whole.run()
    a, b = (right[name].answers[0] for name in "ab")
    place, bad = next((n, token) for n, token in enumerate(a.token_ids) if token not in b.token_ids)

    engine = Engine(MODEL, cache(), tokenizer=Holey())
    for name, prompt in (("a", [5, 9, 3]), ("b", [7, 7, 2])):
        engine.add_request(prompt, SamplingParams(6, ignore_eos=True), request_id=name)
    results = engine.run()
    failed = results["a"].answers[0]
    assert (failed.finish_reason, failed.token_ids) == ("error", a.token_ids[:place])
    assert failed.error == f"the tokenizer raised KeyError for token {bad}: {bad}"
    assert results["b"].answers[0] == b
    assert_all_free(engine)
