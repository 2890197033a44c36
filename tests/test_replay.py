"""Replays of traces: each step compared with a token-by-token simulator, malformed files, the command."""

import contextlib
import inspect
import json
import math
import re
import sys
import types
import xml.etree.ElementTree as ET
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from paged_numba import traces
from paged_numba.allocator.allocator import BlockAllocator
from paged_numba.commands import main as cli
from paged_numba.draw.names import one_line
from paged_numba.errors import PagedNumbaError
from paged_numba.replay import measure, plot, pools, recording, report, simulation

DATA = Path(__file__).parents[2] / "shared" / "data"
AZURE, MOONCAKE = DATA / "azure_llm_2023_conv.csv", DATA / "mooncake_conversation.jsonl"
needs_data = pytest.mark.skipif(
    not DATA.exists(), reason="needs the Azure and Mooncake traces, which are not part of the package"
)

PIECE = 4
"""Tokens that a hash id stands for in drawn traces, so that small prompts share something."""


@pytest.fixture(autouse=True, scope="module")
def small_pieces():
    with mock.patch.object(traces, "TOKENS_PER_HASH", PIECE):
        yield


@st.composite
def drawn_traces(draw):
    """Draw up to 8 requests, close in time; prompts often share a prefix. Shrinks towards few, short and early ones."""
    count = draw(st.integers(1, 8))
    prompts, outputs, gaps = (
        draw(st.lists(st.integers(low, high), min_size=count, max_size=count))
        for low, high in ((1, 24), (1, 20), (0, 4))
    )
    steps = np.cumsum(gaps) - gaps[0]
    pieces = [-(-prompt // PIECE) for prompt in prompts]
    ids = [draw(st.lists(st.sampled_from((0, 0, 0, 1)), min_size=n, max_size=n)) for n in pieces]
    return traces.Trace(
        "drawn",
        steps / simulation.STEPS_PER_SECOND,
        np.array(prompts),
        np.array(outputs),
        [np.array(chain, np.int64) for chain in ids],
    )


# The oracle: every request, every token, every step; memory three ways.


class CountedBlocks:
    """Counts blocks only: a sequence needs its length over the block size, rounded up."""

    def __init__(self, trace, num_slots, block_size):
        self.total, self.block_size, self.lens = num_slots // block_size, block_size, {}
        self.final_lens = trace.final_lens

    def blocks(self, length):
        return -(-length // self.block_size)

    def used(self):
        return sum(map(self.blocks, self.lens.values()))

    def ever_fits(self, request):
        return self.blocks(self.final_lens[request]) <= self.total

    def hold(self, request, length):
        before = self.blocks(self.lens.get(request, 0))
        if self.used() - before + self.blocks(length) > self.total:
            return False
        self.lens[request] = length
        return True

    def written(self, request):
        pass

    def free(self, request):
        del self.lens[request]

    preempt = free

    def room(self, request):
        return self.blocks(self.lens[request]) * self.block_size

    def stored(self):
        return sum(self.lens.values())

    def stranded(self, request):
        return 0


class SharedBlocks(CountedBlocks):
    """The allocator with its prefix cache, called for each token and at the end of each step."""

    def __init__(self, trace, num_slots, block_size):
        super().__init__(trace, num_slots, block_size)
        self.trace = trace
        self.pool = BlockAllocator(self.total, block_size, prefix_caching=True)
        self.found = {}

    def hold(self, request, length):
        if request in self.lens:
            if length > self.room(request) and not self.pool.num_free_blocks:
                return False
            self.pool.append(request, self.trace.token_ids(request, length - 1, length))
        else:
            ids = self.trace.token_ids(request, 0, length)
            if not self.pool.can_allocate(ids):
                return False
            self.found.setdefault(request, self.pool.add(request, ids).num_cached_tokens)
        self.lens[request] = length
        return True

    def written(self, request):
        self.pool.commit(request)

    def free(self, request):
        super().free(request)
        self.pool.free(request)

    def preempt(self, request):
        super().free(request)
        self.pool.preempt(request)

    def stored(self):
        return self.pool.stats().num_stored_tokens


class Reserved(CountedBlocks):
    """Slots as a list of owners; a request takes the first gap that is long enough."""

    def __init__(self, trace, num_slots, needs):
        self.slots, self.needs, self.lens = [None] * num_slots, [int(need) for need in needs], {}

    def ever_fits(self, request):
        return self.needs[request] <= len(self.slots)

    def hold(self, request, length):
        need = self.needs[request]
        if request not in self.lens:
            gaps = [i for i in range(len(self.slots) - need + 1) if self.slots[i : i + need] == [None] * need]
            if not gaps:
                return False
            self.slots[gaps[0] : gaps[0] + need] = [request] * need
        self.lens[request] = length
        return True

    def free(self, request):
        super().free(request)
        self.slots = [None if owner == request else owner for owner in self.slots]

    def room(self, request):
        return self.needs[request]

    def stranded(self, request):
        free = self.slots.count(None)
        return free if free >= self.needs[request] else 0


def token_by_token(trace, memory):
    """Return the state of each step and the refused requests; see the docstring of `simulation` for the rules."""
    prompts, outputs, finals = (a.tolist() for a in (trace.prompt_lens, trace.output_lens, trace.final_lens))
    coming = [(round(t * simulation.STEPS_PER_SECOND), i) for i, t in enumerate(trace.arrivals)]
    waiting, running, refused, generated, steps = [], [], [], [0] * len(trace), []
    while coming or waiting or running:
        while coming and coming[0][0] <= len(steps):
            request = coming.pop(0)[1]
            (waiting if memory.ever_fits(request) else refused).append(request)
        preempted = 0
        for request in sorted(running):
            if request not in running:
                continue
            while not memory.hold(request, prompts[request] + generated[request]):
                victim = max(running)
                memory.preempt(victim)
                running.remove(victim)
                waiting.insert(0, victim)
                preempted += 1
                if victim == request:
                    break
        while (
            waiting and not preempted and memory.hold(waiting[0], prompts[waiting[0]] + generated[waiting[0]])
        ):
            running.append(waiting.pop(0))
        steps.append(
            {
                "tokens": memory.stored(),
                "reserved": sum(min(memory.room(r), finals[r]) - memory.lens[r] for r in running),
                "internal": sum(max(memory.room(r) - finals[r], 0) for r in running),
                "external": memory.stranded(waiting[0]) if waiting else 0,
                "running": len(running),
                "waiting": len(waiting),
                "waiting_running": len(running) if waiting else 0,
                "full": int(bool(waiting)),
                "preemptions": preempted,
            }
        )
        for request in list(running):
            memory.written(request)
            generated[request] += 1
            if generated[request] == outputs[request]:
                memory.free(request)
                running.remove(request)
    while steps and not steps[-1]["running"]:  # the last to come were refused
        steps.pop()
    return steps, refused


WAYS = ("blocks", "shared", *pools.RESERVATIONS)
ways = st.sampled_from(WAYS)


def both(trace, way, num_slots, block_size):
    """Return the pool of a replay and the oracle's."""
    if way == "blocks":
        return pools.PagedPool(trace, num_slots, block_size), CountedBlocks(trace, num_slots, block_size)
    if way == "shared":
        made = pools.PagedPool(trace, num_slots, block_size, share_prefixes=True)
        return made, SharedBlocks(trace, num_slots, block_size)
    needs = pools.RESERVATIONS[way](trace)
    return pools.ContiguousPool(num_slots, needs), Reserved(trace, num_slots, needs)


def replay_agrees_with_the_oracle(trace, way, num_slots, block_size):
    pool, memory = both(trace, way, num_slots, block_size)
    run = simulation.simulate(trace, pool)
    steps, refused = token_by_token(trace, memory)
    assert run.refused == refused
    sums = run.sums(np.arange(len(steps) + 3))
    nothing = dict.fromkeys(sums, 0)
    for number, step in enumerate([*steps, nothing, nothing]):
        assert {name: int(values[number]) for name, values in sums.items()} == step, f"step {number}"
    if way == "shared":
        ours, theirs = pool.allocator.stats(), memory.pool.stats()
        assert ours == theirs
        pool.allocator.check()
        assert pool.num_found_tokens == sum(memory.found.values())
        assert pool.num_prompt_tokens == sum(trace.prompt_lens[request] for request in memory.found)
    assert pool.num_held_slots == 0


block_sizes = st.integers(1, 9)
pool_sizes = st.integers(9, 80)


@given(drawn_traces(), ways, pool_sizes, block_sizes)
def test_replay_by_events_is_the_replay_token_by_token(trace, way, num_slots, block_size):
    replay_agrees_with_the_oracle(trace, way, num_slots, block_size)


@given(drawn_traces(), ways, pool_sizes, block_sizes)
def test_each_request_generates_its_tokens_and_waste_is_a_share(trace, way, num_slots, block_size):
    ended = []
    pool, _ = both(trace, way, num_slots, block_size)
    run = simulation.simulate(trace, pool, ended.append)
    total = run.totals()
    assert sum(ended) == len(trace)
    served = np.delete(trace.output_lens, run.refused)
    assert total["running"] == served.sum()
    each = run.sums(np.arange(run.num_steps + 1))
    assert all((values >= 0).all() for values in each.values())
    share = recording.waste(each)
    assert ((share >= 0) & (share < 1) | np.isnan(share)).all()
    if way in ("blocks", "shared"):
        assert (each["reserved"] + each["internal"] <= (block_size - 1) * each["running"]).all()
        assert total["external"] == 0
    else:
        assert total["preemptions"] == 0


@given(drawn_traces(), st.lists(st.integers(0, 60), min_size=2, max_size=6, unique=True).map(sorted))
def test_sums_over_parts_of_the_time_add_up(trace, edges):
    run = simulation.simulate(trace, pools.PagedPool(trace, 40, 4))
    parts, whole = run.sums(np.array(edges)), run.sums(np.array([edges[0], edges[-1]]))
    each = run.sums(np.arange(edges[0], edges[-1] + 1))
    for name, values in parts.items():
        assert values.sum() == whole[name][0] == each[name].sum()


@given(drawn_traces())
def test_reservations_are_in_order_and_hold_the_request(trace):
    exact, power, most = pools.exact(trace), pools.next_power_of_two(trace), pools.maximum_length(trace)
    assert (trace.final_lens == exact).all()
    assert (exact <= power).all()
    assert (power <= most).all()
    # If each request needs less, at least as many requests, taken in order, fit at once.
    fits = [int((np.cumsum(needs) <= 60).sum()) for needs in (exact, power, most)]
    assert fits == sorted(fits, reverse=True)


@given(drawn_traces(), st.integers(1, 2 * PIECE))
def test_a_pool_for_everything_finds_what_is_found_where_nothing_is_evicted(trace, block_size):
    pool = pools.PagedPool(trace, 10_000, block_size, share_prefixes=True)
    simulation.simulate(trace, pool)
    stats = pool.allocator.stats()
    assert stats.num_evictions == 0
    rate = trace.unbounded_hit_rate(block_size, simulation.arrival_steps(trace))
    assert stats.hit_rate == pytest.approx(rate)


def small_trace(*requests):
    """Return a trace from (step, prompt tokens, output tokens)."""
    steps, prompts, outputs = np.array(requests).T
    return traces.Trace("small", steps / simulation.STEPS_PER_SECOND, prompts, outputs)


def test_a_replay_by_hand():
    # 3 blocks of 2. Request 0 holds 3, 4, 5 tokens in steps 0, 1, 2: 2, 2, 3 blocks. Request 1 comes in step 1 and
    # takes the third block for its token; in step 2, request 0 needs that block: request 1 is preempted, having
    # generated 1 token. It waits through step 2, and is computed again in step 3 with 1 + 1 tokens, 1 block.
    trace = small_trace((0, 3, 3), (1, 1, 2))
    run = simulation.simulate(trace, pools.PagedPool(trace, 6, 2))
    sums = run.sums(np.arange(5))
    assert sums["tokens"].tolist() == [3, 5, 5, 2]
    assert sums["running"].tolist() == [1, 2, 1, 1]
    assert sums["waiting"].tolist() == [0, 0, 1, 0]
    # Step 0: the 4th slot is for later. Step 1: request 1's second slot is. Step 2: request 0 never fills its 6th.
    assert sums["reserved"].tolist() == [1, 1, 0, 0]
    assert sums["internal"].tolist() == [0, 0, 1, 0]
    assert (run.num_preemptions, run.num_steps) == (1, 4)


def test_external_fragmentation_by_hand():
    # 10 slots: [0: 3][1: 2][2: 3] and 2 free. Request 1 ends after step 0 (1 token to generate): gaps of 2 and 2.
    # Request 3 needs 4, of 4 free slots: they are stranded until request 0 or 2 ends, after step 1.
    trace = small_trace((0, 2, 2), (0, 2, 1), (0, 2, 2), (0, 4, 1))
    run = simulation.simulate(trace, pools.ContiguousPool(10, trace.final_lens))
    sums = run.sums(np.arange(4))
    assert sums["external"].tolist() == [0, 4, 0]
    assert sums["running"].tolist() == [3, 2, 1]


def test_a_prompt_is_found_from_the_step_after_it_was_written():
    ids = [np.arange(3, dtype=np.int64)] * 3
    trace = traces.Trace("t", np.array([0, 0, 0.05]), np.full(3, 12), np.full(3, 9), ids)
    pool = pools.PagedPool(trace, 400, 4, share_prefixes=True)
    simulation.simulate(trace, pool)
    # The second came with the first; the third finds all but the last block, in which a token must be computed.
    assert pool.allocator.stats().num_hit_tokens == 8


# Wrong simulations and pools, which the oracle must find: as in test_mutants.py, with far more examples than one
# release of Hypothesis needs, since another draws others.

hunt = settings(
    max_examples=10_000, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
)  # fmt: skip

MUTANTS = {
    "the earliest is preempted": (simulation, "next(reversed(self.running))", "next(iter(self.running))"),
    "admits where it preempted": (simulation, "if not self.num_preemptions:", "if True:"),
    "forgets what was generated": (simulation, "self.lens[latest] = self._length(latest)", "pass"),
    "preempted to the end of the line": (simulation, "waiting.appendleft", "waiting.append"),
    "never tries again": (simulation, "give_back(request)\n        self.retry = True", "give_back(request)"),
    "blind to new prefixes": (simulation, "self.lens[request])\n            self.retry = True", "self.lens[request])"),
    "none": (simulation, "continuous batching", "continuous batching"),
    "prompts are never written": (simulation, "self.pool.commit(request, self.lens[request])", "pass"),
    "a full block is not written": (simulation, "self.pool.commit(request, written)", "pass"),
    "grows a step late": (simulation, "capacities[request] + 1, request)", "capacities[request] + 2, request)"),
    "ends a step early": (simulation, "self.final_lens[request] + 1, request)", "self.final_lens[request], request)"),
    "holes stay apart": (pools, "holes[-1][1] == hole[0]", "False"),
    "last fit": (pools, "enumerate(self._holes)", "reversed(list(enumerate(self._holes)))"),
    "all free is stranded": (pools, "free if free >= self._needs[request] else 0", "free"),
    "reserved for ever": (recording, "running, -running", "running, 0 * running"),
    "internal and reserved": (recording, "useful - length, capacity - useful", "capacity - useful, useful - length"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_replay_is_noticed(name, monkeypatch):
    module, text, other = MUTANTS[name]
    source = inspect.getsource(module)
    assert source.count(text) == 1, f"{text!r} must occur once in the source, got {source.count(text)}"
    wrong = types.ModuleType(module.__name__)
    wrong.__package__ = module.__package__
    monkeypatch.setitem(sys.modules, module.__name__, wrong)
    exec(compile(source.replace(text, other), str(module.__file__), "exec"), wrong.__dict__)
    for user in (simulation, pools):
        for key in ("_Simulation", "PagedPool", "ContiguousPool", "Recording"):
            if key in vars(user) and key in vars(wrong):
                monkeypatch.setattr(user, key, vars(wrong)[key])

    @settings(hunt, max_examples=200 if name == "none" else hunt.max_examples)
    @given(drawn_traces(), ways, pool_sizes, block_sizes)
    def run(trace, way, num_slots, block_size):
        replay_agrees_with_the_oracle(trace, way, num_slots, block_size)

    expected = (AssertionError, LookupError, PagedNumbaError)
    with contextlib.nullcontext() if name == "none" else pytest.raises(expected):
        run()


CSV = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,40,3\n"


# The command.


def run(capsys, *words):
    """Return the exit status, stdout and stderr of a replay."""
    try:
        status = cli.main(["replay", *map(str, words)])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture
def conversation(tmp_path):
    """40 requests; every second request repeats the prompt before it and continues it."""
    path = tmp_path / "conversation.jsonl"
    rng = np.random.default_rng(0)
    lines, first = [], 0
    for i in range(20):
        pieces = int(rng.integers(2, 12))
        for extra in (0, 2):
            ids = list(range(first, first + pieces + extra))
            lines.append(
                {"timestamp": 40 * len(lines), "input_length": PIECE * len(ids) - i % PIECE,
                 "output_length": int(rng.integers(1, 30)), "hash_ids": ids}
            )  # fmt: skip
        first += pieces + 2
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return path


def cells(out, name):
    (line,) = [line for line in out.splitlines() if line.startswith(f"{name}  ")]
    return [cell.strip() for cell in re.split(r" {2,}", line[len(name) :].strip())]


def words_of(plot):
    """Return the texts of an SVG file."""
    root = ET.fromstring(plot.read_text(encoding="utf-8"))
    return [element.text for element in root.iter() if element.tag.endswith("text") and element.text]


def test_table_json_and_plot_say_the_same(capsys, tmp_path, conversation):
    figures, plot = tmp_path / "figures.json", tmp_path / "plot.svg"
    status, out, err = run(
        capsys, conversation, "--pool-tokens", 160, "--block-sizes", 4, 16, "--hit-block-size", 4,
        "--json", figures, "--plot", plot,
    )  # fmt: skip
    assert (status, err) == (0, "")
    record = json.loads(figures.read_text(encoding="utf-8"))
    assert report.text(record) + "\n" == out
    assert max(map(len, out.splitlines())) <= 120
    names = [policy["name"] for policy in record["policies"]]
    assert names == [*pools.RESERVATIONS, "blocks of 4", "blocks of 16"]
    for policy in record["policies"]:
        row = cells(out, policy["name"])
        assert float(row[0].removesuffix(" %")) == pytest.approx(100 * policy["waste"], abs=0.051)
        assert float(row[4]) == pytest.approx(policy["full_batch"], abs=0.051)
        assert row[5:7] == [str(policy["largest_batch"]), str(policy["num_preemptions"])]
        assert sum(policy["shares"].values()) == pytest.approx(1)
        assert 1 - policy["shares"]["tokens"] == pytest.approx(policy["waste"])
        assert sum(policy["preemptions_over_time"]) <= policy["num_preemptions"]
        lengths = {
            len(policy[key]) for key in ("waste_over_time", "running_over_time", "preemptions_over_time")
        }
        assert lengths == {len(record["seconds"])}
    by_name = {policy["name"]: policy for policy in record["policies"]}
    assert by_name["blocks of 4"]["waste"] < by_name["blocks of 16"]["waste"]
    assert by_name["blocks of 4"]["num_preemptions"] > 0
    assert by_name["blocks of 4"]["full_batch"] > by_name["maximum length"]["full_batch"]
    hits = record["prefix_cache"]
    assert [pool["num_slots"] for pool in hits["pools"]] == [40, 160, 640, 2560]
    assert 0 < hits["pools"][-1]["hit_rate"] <= hits["unbounded_hit_rate"]
    assert cells(out, "2,560")[0] == f"{100 * hits['pools'][-1]['hit_rate']:.1f} %"
    said = words_of(plot)
    assert {word for name in names for word in name.split()} <= {
        word for text in said for word in text.split()
    }
    assert f"waste {100 * by_name['blocks of 4']['waste']:.3g} %" in said
    assert "seconds, until paging has served all requests" in said
    titles = ["Waste", "Running", "Preemptions", "Prefix"]
    assert [text for text in said if text.startswith(tuple(titles))] == [
        "Waste, % of the taken slots", "Running requests", "Preemptions so far",
        "Prefix cache: % of prompt tokens found, in blocks of 4",
    ]  # fmt: skip


def test_a_trace_without_ids_has_no_hit_rate(capsys, tmp_path):
    path = tmp_path / "azure.csv"
    path.write_text(CSV + "2023-11-16 18:15:47.1805900,17,9\n", encoding="utf-8")
    figures, plot = tmp_path / "figures.json", tmp_path / "plot.svg"
    status, out, _ = run(capsys, path, "--json", figures, "--plot", plot)
    assert status == 0
    assert "Prefix cache: this trace does not say which prompts share a prefix" in out
    record = json.loads(figures.read_text(encoding="utf-8"))
    assert record["prefix_cache"] is None
    assert record["num_slots"] == 819_200
    assert [policy["full_batch"] for policy in record["policies"]] == [None] * 7
    assert {cells(out, policy["name"])[4] for policy in record["policies"]} == {"all"}
    assert "all: the pool holds all requests at once; compare with a smaller --pool-tokens." in out
    said = words_of(plot)
    assert not [text for text in said if text.startswith(("Prefix", "Preemptions"))]
    assert "blocks of 256" in said
    assert run(capsys, path, "--requests", 1)[1].startswith("azure.csv: 1 request in 0 s")


def test_requests_that_can_never_fit_are_counted(capsys, conversation):
    status, out, _ = run(capsys, conversation, "--pool-tokens", 32, "--block-sizes", 4, "--hit-block-size", 4)
    assert status == 0
    assert "maximum length: 40 of 40 requests were refused: the pool is too small for each of them" in out
    assert re.search(r"blocks of 4: \d+ of 40 requests were refused", out)
    assert cells(out, "maximum length")[:6] == ["-", "-", "-", "-", "-", "0"]
    assert "\n-: no request was running." in out
    assert "all: the pool" not in out
    assert re.search(r"^8 tokens: \d+ of 40 requests were refused", out, re.M)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pool-tokens", "0"], "argument --pool-tokens: must be positive, got 0"),
        (["--pool-tokens", "10" * 9], "--pool-tokens must be at most 100000000, got --pool-tokens 1010101"),
        (["--block-sizes", "16", "x"], "argument --block-sizes: must be a positive integer, got 'x'"),
        (["--block-sizes", "16", "256", "--pool-tokens", "200"], "at most --pool-tokens 200, got --block-sizes 256\n"),
        (["--pool-tokens", "200"], "at most --pool-tokens 200, got --block-sizes 256 (the default)"),
        (["--block-sizes", "16", "32", "16"], "--block-sizes must differ, got --block-sizes 16 32 16"),
        (["--plot", "plot.gif"], "--plot must end in .svg, .png or .pdf, got --plot plot.gif"),
        (["--json", "absent/figures.json"], "argument --json: must name a file in a directory that exists, got absent"),
        (["--plot", "."], "argument --plot: must name a file, got a directory, ."),
    ],
)  # fmt: skip
def test_bad_options_are_refused_before_the_replay(capsys, conversation, words, message):
    with mock.patch.object(traces, "read", side_effect=AssertionError("too late")):
        status, out, err = run(capsys, conversation, *words)
    assert (status, out) == (2, "")
    assert message in err


def test_plot_without_matplotlib_says_what_to_install_before_the_replay(capsys, conversation, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with mock.patch.object(traces, "read", side_effect=AssertionError("too late")):
        status, out, err = run(capsys, conversation, "--plot", "plot.svg")
    assert (status, out) == (2, "")
    assert "--plot needs matplotlib, which cannot be imported" in err
    assert "pip install matplotlib" in err


# Plots of records that no replay has made.

values = st.lists(
    st.none() | st.floats(0, 2) | st.sampled_from([1e9, math.inf, math.nan]), min_size=1, max_size=9
)


def record_of(waste, running, preempted, seconds=None):
    """Return a record of one policy with blocks and one without, which have the same values over time."""
    policy = {
        "name": "blocks of 4", "block_size": 4, "waste": 0.5, "num_preemptions": 1, "waste_over_time": waste,
        "running_over_time": running, "preemptions_over_time": preempted,
    }  # fmt: skip
    return {
        "trace": {"name": "made up"}, "num_slots": 64, "prefix_cache": None,
        "seconds": list(range(len(waste))) if seconds is None else seconds,
        "policies": [policy, {**policy, "name": "exact", "block_size": None, "waste": None}],
    }  # fmt: skip


@settings(max_examples=5)
@given(values)
def test_any_values_are_plotted_on_finite_axes(over_time):
    made = plot.figure(record_of(over_time, over_time, over_time))
    made.draw_without_rendering()
    for chart in made.axes:
        assert np.isfinite([*chart.get_xlim(), *chart.get_ylim()]).all()
    assert b"<svg" in plot.render(record_of(over_time, over_time, over_time), "svg")


def test_a_value_of_1e9_does_not_flatten_the_others_and_is_marked():
    usual = [3.0] * 99
    made = plot.figure(record_of([0.1] * 100, [*usual, 1e9], [0] * 100))
    made.draw_without_rendering()
    running = made.axes[1]
    assert running.get_title(loc="left") == "Running requests"
    assert 3 < running.get_ylim()[1] < 10
    assert [text.get_text() for text in running.texts] == ["1e+09"]
    # All of them as large: they are the usual values.
    assert plot.figure(record_of([0.1] * 9, [1e9] * 9, [0] * 9)).axes[1].get_ylim()[1] > 1e9


def test_values_that_lack_leave_gaps_and_one_between_gaps_is_a_dot():
    made = plot.figure(record_of([0.5, None, 0.5, None, 0.5, 0.5], [1] * 6, [0] * 6))
    steps, dots = made.axes[0].get_lines()
    assert np.isnan(steps.get_ydata()).tolist() == [False, True, False, True, False, False]
    assert dots.get_xdata().tolist() == [0, 2]
    assert steps.get_drawstyle() == "steps-post"


@pytest.mark.parametrize(
    ("seconds", "unit", "last"),
    [
        (599, "seconds", 599),
        (601, "minutes", 601 / 60),
        (7201, "hours", 7201 / 3600),
        (1e9, "days", 1e9 / 86400),
    ],
)
def test_times_have_the_unit_that_suits_them(seconds, unit, last):
    made = plot.figure(record_of([0.5, 0.5], [1, 1], [0, 0], [0, seconds]))
    assert made.axes[0].get_lines()[0].get_xdata()[-1] == last
    assert unit in "".join(text.get_text() for part in made.subfigs for text in part.texts)


@pytest.mark.parametrize("name", ["$x^2_{$", "cost in $ and $", "<i>&\n\x00.csv", "\\alpha"])
def test_any_name_of_a_trace_stands_in_the_title(name):
    record = record_of([0.5], [1], [0])
    record["trace"]["name"] = name
    root = ET.fromstring(plot.render(record, "svg"))
    assert f"{one_line(name)}: a pool" in "".join(root.itertext())


def test_an_ending_may_be_in_capitals(capsys, conversation, tmp_path):
    path = tmp_path / "PLOT.SVG"
    status, _, err = run(
        capsys, conversation, "--pool-tokens", "4096", "--requests", "20", "--plot", str(path)
    )
    assert (status, err) == (0, "")
    assert path.read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize(("file_format", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_the_same_record_gives_the_same_file(file_format, start):
    record = record_of([0.5, None, 0.1], [1, 2, 3], [0, 1, 0])
    written = plot.render(record, file_format)
    assert written.startswith(start)
    assert written == plot.render(record, file_format)


def test_files_that_cannot_be_read_are_named(capsys, tmp_path):
    for path, message in ((tmp_path / "absent", "No such file"), (tmp_path, "Is a directory")):
        status, _, err = run(capsys, path)
        assert status == 2
        assert message in err
    assert run(capsys)[0] == 2


# The traces themselves.


@needs_data
@pytest.mark.parametrize("path", [AZURE, MOONCAKE], ids=["azure", "mooncake"])
def test_paging_wastes_less_than_the_paper_says_on_real_requests(path):
    with mock.patch.object(traces, "TOKENS_PER_HASH", 512):
        trace = traces.read(path).first(400)
        record = measure.measure(trace, 200_000, [16], 512)
    waste = {policy["name"]: policy["waste"] for policy in record["policies"]}
    assert waste["blocks of 16"] < 0.04
    assert waste["blocks of 16"] < waste["exact (oracle)"] < waste["maximum length"]


def test_a_pool_too_small_for_any_request_is_refused(capsys, tmp_path):
    file = tmp_path / "two.csv"
    file.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.0,100,5\n2023-11-16 18:15:47.0,200,5\n",
        encoding="utf-8",
    )
    arguments = ["replay", str(file), "--pool-tokens", "96", "--block-sizes", "16", "--hit-block-size", "16"]
    assert cli.main(arguments) == 2
    assert (
        "--pool-tokens must hold the shortest request, of 104 tokens, got --pool-tokens 96"
        in capsys.readouterr().err
    )
