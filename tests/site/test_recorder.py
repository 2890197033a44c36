"""Recordings of pools: their sentences and events by hand, and that their calls make what they show."""

import numpy as np
import pytest
from recorded_pools import GAPS, SERVED, TIGHT, Batch, Recorder, batches, pools, state_of

import paged_numba as pn

needs_model = pytest.mark.skipif(pn.models.find()[0].path is None, reason="glassllm is not installed")


@pytest.fixture(scope="module")
def made():
    return batches()


def test_a_fork_by_hand():
    pool = pn.BlockAllocator(6, 4)
    recorder = Recorder(pool)
    recorder.mark(say="The pool is empty.")
    pool.add("A", 6)
    recorder.mark()
    pool.fork("A", "B")
    recorder.mark()
    # Block 1 has 2 of 4 tokens, and both hold it: whoever writes first gets a copy.
    pool.append("B")
    pool.append("A", 3)
    recorder.mark([("C", 9, "new")])
    pool.free("A")
    recorder.mark([("C", 9, "new")])
    assert [step["say"] for step in recorder.steps] == [
        "The pool is empty.",
        "A joins: its 6 tokens take blocks 0 and 1.",
        "A was forked into B: nothing is copied, both hold blocks 0 and 1.",
        "B got one more token; A got 3 more tokens. Block 1 was copied to block 2 for B, because A holds it, too. "
        "A took block 3.",
        "A is done: blocks 1 and 3 are free; B still holds block 0.",
    ]
    assert [step["events"] for step in recorder.steps] == [
        {},
        {0: ["taken", None], 1: ["taken", None]},
        {0: ["shared", None], 1: ["shared", None]},
        {2: ["copied", 1], 3: ["taken", None]},
        {1: ["freed", None], 3: ["freed", None]},
    ]
    assert [step["calls"] for step in recorder.steps][2:4] == [
        ["fork('A', 'B')"],
        ["append('B')", "append('A', 3)"],
    ]
    assert [step["sequences"] for step in recorder.steps] == [
        {},
        {"A": [6, [0, 1]]},
        {"B": [6, [0, 1]]},
        {"A": [9, [0, 1, 3]], "B": [7, [0, 2]]},
        {"A": None},
    ]
    assert [step.get("waiting") for step in recorder.steps] == [[], None, None, [["C", 9, "new"]], None]


def test_a_prefix_by_hand():
    pool = pn.BlockAllocator(4, 2, prefix_caching=True)
    recorder = Recorder(pool)
    for name, ids in (("A", [1, 2, 3, 4, 5]), ("B", [1, 2, 9]), ("C", [7, 8, 9])):
        pool.add(name, ids)
        pool.commit(name)
        recorder.mark()
        if name != "C":
            pool.free(name)
            recorder.mark()
    assert [step["say"] for step in recorder.steps] == [
        "A joins: its 5 tokens take blocks 0 to 2.",
        "A is done: block 2 is free; blocks 0 and 1 stay in the prefix cache until needed.",
        "B joins: the prefix cache has its first 2 tokens, in block 0; the other token takes block 2.",
        "B is done: block 2 is free; block 0 stays in the prefix cache until needed.",
        "C joins: its 3 tokens take blocks 2 and 3.",
    ]
    pool.append("C", [1, 2, 3])
    recorder.mark()
    # No other block is free. Of A's prefix the end, block 1, is evicted before the beginning. C's first block is full.
    assert recorder.steps[-1]["say"] == (
        "C got 3 more tokens. C took block 1; block 1 was evicted from the prefix cache for it."
    )
    assert recorder.steps[-1]["events"] == {1: ["evicted", None]}
    assert recorder.steps[-1]["cached"] == [0, 2]


def test_preemption_and_window_by_hand():
    pool = pn.BlockAllocator(4, 2)
    recorder = Recorder(pool)
    pool.add("A", 5)
    recorder.mark()
    pool.swap_out("A")
    recorder.mark()
    pool.swap_in("A")
    recorder.mark()
    pool.release("A", 2)
    recorder.mark()
    pool.preempt("A")
    recorder.mark([("A", 5, "preempted")])
    assert [step["say"] for step in recorder.steps[1:]] == [
        "A is swapped out to host memory: blocks 0 to 2 are free.",
        "A is swapped in: its tokens go to blocks 0 to 2.",
        "A no longer sees block 0: block 0 is free.",
        "A is preempted: blocks 1 and 2 are free.",
    ]
    assert [step["sequences"] for step in recorder.steps[1:]] == [
        {"A": [5, None]},
        {"A": [5, [0, 1, 2]]},
        {"A": [5, [-1, 1, 2]]},
        {"A": None},
    ]
    kinds = [{kind for kind, _ in step["events"].values()} for step in recorder.steps[1:]]
    assert kinds == [{"swapped out"}, {"swapped in"}, {"freed"}, {"freed"}]


def test_what_the_cache_undoes_is_not_recorded():
    cache = pn.PagedKVCache(3, 2, num_kv_heads=1, head_dim=1, target="lockstep")
    recorder = Recorder(cache.allocator)
    for name in "AB":
        cache.reserve(name, 2)
    recorder.mark()
    with pytest.raises(pn.OutOfBlocksError), recorder.attempt():
        cache.reserve_batch({"A": 1, "B": 1})  # A takes block 2, and none is left for B
    recorder.mark()
    assert len(recorder.steps) == 1
    with recorder.attempt():
        cache.reserve_batch({"B": 1})
    recorder.mark()
    assert recorder.steps[1]["say"] == "B got one more token. B took block 2."
    assert recorder.steps[1]["events"] == {2: ["taken", None]}
    assert recorder.made[1] == [("append", "B", (1,), {})]


def test_a_step_in_which_nothing_happened_is_none():
    recorder = Recorder(pn.BlockAllocator(4, 2))
    recorder.mark()
    assert recorder.steps == []


@needs_model
@pytest.mark.parametrize("name", ["fork", "recompute", "swap", "window"])
def test_the_recorded_calls_make_the_recorded_pool(made, name):
    recording, states = made[name]
    pool = pn.BlockAllocator(recording["num_blocks"], recording["block_size"])
    for step, state in zip(recording["steps"], states, strict=True):
        for call in step["calls"]:
            eval(f"pool.{call}", {"pool": pool})
        tables = {seq: [pool.seq_len(seq), pool.block_table(seq).tolist()] for seq in pool}
        assert tables == state["tables"]
        assert [(event, at) for at, (event, _) in step["events"].items() if event == "copied"] == [
            ("copied", at) for at in step["events"] if f"copied to block {at} " in step["say"]
        ]


@needs_model
@pytest.mark.parametrize("name", ["tour", "fork", "recompute", "swap", "system_prompt", "window"])
def test_the_calls_with_their_token_ids_make_the_recorded_pool(made, name):
    recording, states = made[name]
    for pool, step, state in zip(pools(name), recording["steps"], states, strict=True):
        assert state_of(pool) == state
        assert {seq for seq, now in step["sequences"].items() if now is None} <= {
            call.split("'")[1] for call in step["calls"] if call.startswith(("free(", "preempt("))
        }


@needs_model
def test_each_recording_shows_what_it_is_for(made):
    kinds = {
        name: {kind for step in recording["steps"] for kind, _ in step["events"].values()}
        for name, (recording, _) in made.items()
    }
    assert kinds["tour"] == {"taken", "shared", "copied", "found", "evicted", "kept", "freed"}
    assert kinds["fork"] == {"taken", "shared", "copied", "freed"}
    assert kinds["recompute"] == {"taken", "freed"}
    assert kinds["swap"] == {"taken", "freed", "swapped out", "swapped in"}
    assert kinds["system_prompt"] == {"taken", "found", "evicted", "kept", "freed"}
    assert kinds["window"] == {"taken", "freed"}
    preempted = [step for step in made["recompute"][0]["steps"] if "preempted" in str(step.get("waiting"))]
    assert len(preempted) >= 3


@needs_model
def test_a_window_of_8_needs_three_blocks_of_4(made):
    recording, states = made["window"]
    assert (recording["window"], recording["block_size"]) == (8, 4)
    held = [sum(block >= 0 for block in table) for state in states for _, table in state["tables"].values()]
    assert max(held) == 3
    assert max(len(table) for state in states for _, table in state["tables"].values()) > 6


@needs_model
def test_preemption_changes_no_answer():
    answers = []
    for num_blocks, swap in ((16, False), (7, False), (7, True)):
        batch = Batch(TIGHT, num_blocks, 4, swap=swap)
        batch.serve()
        answers.append(batch.answers)
        assert batch.pool.stats().num_preemptions == (0 if num_blocks == 16 else 3)
    assert answers[0] == answers[1] == answers[2]
    assert {name: len(answer) for name, answer in answers[0].items()} == {"A": 6, "B": 9, "C": 5, "D": 8}


@needs_model
@pytest.mark.parametrize("name", ["fork", "recompute", "swap", "system_prompt", "window"])
def test_the_answers_are_those_of_the_model_without_a_cache(made, name):
    batch = SERVED[name]
    assert {name: len(answer) for name, answer in batch.answers.items()} == {
        name: request.num_new for name, request in batch.requests.items()
    }

    def attend(layer, query, key, value):
        return pn.reference.attention(query, key, value, window=batch.window).astype(np.float32)

    for number, (seq, answer) in enumerate(batch.answers.items()):
        begin = len(batch.prompts[seq])
        tokens = np.array(batch.prompts[seq] + answer)
        logits = batch.model.forward(tokens, np.arange(len(tokens)), attend)[begin - 1 : -1]
        ranked = np.argsort(-logits, axis=1)
        assert answer[0] == ranked[0, number if name == "fork" else 0]
        assert answer[1:] == ranked[1:, 0].tolist()


@needs_model
def test_the_launch_is_the_one_that_the_cache_makes(made):
    assert {tuple(recording["launch"].items()) for recording, _ in made.values()} == {
        (("kernel", "attention_block_kernel"), ("threads", 64), ("num_q_heads", 4), ("head_dim", 32))
    }


@needs_model
def test_rounding_decides_about_no_token(made):
    # The order of a sum changes logits by 1e-5. Of the tour, the numbers of tokens matter, and not the tokens.
    gaps = {name: gap for name, gap in GAPS.items() if name != "tour"}
    assert len(gaps) == 5
    assert all(0.01 < gap < np.inf for gap in gaps.values())
