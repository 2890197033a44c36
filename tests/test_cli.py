"""The command line as its users meet it: output, JSON, exit status, errors."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from paged_numba import models, targets
from paged_numba.commands import main as cli
from paged_numba.serving.toy.requests import from_text, from_trace
from paged_numba.testing.mutants import kernels
from paged_numba.traces import Trace

TRACE = Path(__file__).parents[2] / "shared" / "data" / "azure_llm_2023_conv.csv"


@pytest.fixture(autouse=True)
def on_lockstep(monkeypatch):
    monkeypatch.setenv(targets.ENVIRONMENT, "lockstep")


def run(capsys, *words):
    """Return the exit status, stdout and stderr of a command."""
    return cli.main(words), *capsys.readouterr()


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text(
        "How many blocks do 34 bytes need?\n\nTwo lines,\none prompt.\n \nThe third one.\n", encoding="utf-8"
    )
    return path


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "trace.csv"
    stamp = "2024-05-10 00:00:00.009930+00:00"
    path.write_text(
        f"TIMESTAMP,ContextTokens,GeneratedTokens\n{stamp},40,3\n{stamp},17,9\n{stamp},100,1\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def without_models(monkeypatch):
    """Let no model be installed: the tour then serves the toy model."""
    missing = [known._replace(path=None) for known in models.find()]
    monkeypatch.setattr(models, "find", lambda: missing)


needs_model = pytest.mark.skipif(models.find()[0].path is None, reason="glassllm is not installed")


@needs_model
def test_tour_serves_a_real_model(capsys):
    status, out, err = run(capsys, "tour")
    assert status == 0
    assert err == ""
    for passage in (
        "on the target lockstep",
        "The model is glassllm (MIT): 4 layers",
        "is forked into A/1",
        "copy-on-write",
        "Waiting: C, G.",
        "C, G begin like a prompt of this step; once its blocks are computed, they can be shared.",
        "The prefix cache already held 32 tokens of C: their blocks are shared.",
        "gives up its blocks and waits",
        "G writes: ",
        "All 184 tokens were compared",
        "Passed.",
        "128 tokens reserved each",
    ):
        assert passage in out
    assert max(map(len, out.splitlines())) <= 110


@needs_model
def test_tour_serves_a_text_with_a_real_model(capsys, prompts):
    status, out, _ = run(capsys, "tour", "--text", str(prompts), "--requests", "2", "--json")
    record = json.loads(out)
    assert status == 0
    assert record["model"]["licence"] == "MIT"
    assert {name: len(answer["token_ids"]) for name, answer in record["answers"].items()} == {
        "A": 24, "A/1": 24, "B": 8,
    }  # fmt: skip
    assert record["checks"]["tokens"] == 24 + 24 + 8
    assert record["checks"]["compared"] == 3
    assert 0 < record["checks"]["max_error"] < 1e-5
    kinds = [event["kind"] for event in record["events"]]
    assert (kinds.count("admit"), kinds.count("fork"), kinds.count("copy"), kinds.count("free")) == (
        1,
        1,
        1,
        3,
    )


@needs_model
@pytest.mark.parametrize("name", ["all zeros", "last token missed"])
def test_tour_of_a_real_model_with_a_wrong_kernel_fails(capsys, prompts, name):
    (mutant,) = [m for m in kernels.KERNEL_MUTANTS if m.name == name and m.module == "attention_block"]
    with kernels.installed(mutant):
        status, out, _ = run(capsys, "tour", "--text", str(prompts), "--requests", "1")
    assert status == 1
    assert "The check FAILED." in out
    assert "layer 1: keys or values are off by" in out
    assert "of the answer is" in out


def test_tour_tells_the_whole_story(capsys, without_models):
    status, out, err = run(capsys, "tour")
    assert status == 0
    assert err == ""
    for passage in (
        "on the target lockstep",
        "the text that comes with the package",
        "To serve a real model: pip install glassllm, then take the tour again.",
        "block table",
        "is forked into A'",
        "copy-on-write",
        "Largest error",
        "Passed.",
        "tokens reserved each",
    ):
        assert passage in out
    assert max(map(len, out.splitlines())) <= 100


def test_tour_is_what_runs_without_a_command(capsys, prompts):
    status, out, _ = run(capsys, "--text", str(prompts))
    assert status == 0
    assert "1. The kernels run" in out


def test_tour_on_a_text(capsys, prompts, without_models):
    status, out, _ = run(capsys, "tour", "--text", str(prompts), "--json")
    record = json.loads(out)
    assert status == 0
    assert [request["prompt_tokens"] for request in record["requests"]] == [33, 22, 14]
    assert record["target"] == "lockstep"
    checks = record["checks"]
    assert checks["passed"]
    assert checks["failures"] == []
    # One output a token: 24, 8 and 32 for the prompts, 24 again for the fork of the first.
    assert checks["outputs"] == 24 + 8 + 32 + 24
    assert checks["gathered"] == 4
    assert 0 < checks["max_error"] < 1e-4
    assert 0 < checks["max_error_over_tolerance"] < 1


def test_tour_counts_memory(capsys, trace):
    _, out, _ = run(capsys, "tour", "--trace", str(trace), "--json", "--requests", "2")
    record = json.loads(out)
    assert len(record["requests"]) == 2
    # 43, 26 and 101 tokens: 3 + 2 + 7 blocks of 16; a token is K and V of 2 heads x 64 floats, 1,024 bytes.
    assert record["trace_memory"] == {
        "num_requests": 3,
        "max_len": 101,
        "stored_bytes": 170 * 1024,
        "paged_bytes": 12 * 16 * 1024,
        "reserved_bytes": 303 * 1024,
    }
    kinds = [event["kind"] for event in record["events"]]
    assert kinds.count("fork") == 1
    assert kinds.count("copy") == 1
    assert kinds.count("free") == 3


@pytest.mark.skipif(not TRACE.exists(), reason="needs the Azure trace, which is not part of the package")
def test_tour_on_the_azure_trace(capsys):
    status, out, _ = run(capsys, "tour", "--trace", str(TRACE))
    assert status == 0
    assert "All 19,366 requests" in out
    assert "Answers are cut to 32 tokens." in out


@pytest.mark.parametrize(("generated", "cut"), [(32, False), (33, True)])
def test_tour_says_so_where_it_cuts_answers(capsys, tmp_path, generated, cut):
    path = tmp_path / "trace.csv"
    path.write_text(f"ContextTokens,GeneratedTokens\n9,{generated}\n9,500\n", encoding="utf-8")
    status, out, _ = run(capsys, "tour", "--trace", str(path), "--requests", "1")
    assert status == 0
    assert ("Answers are cut to 32 tokens." in out) == cut


@pytest.mark.parametrize(
    "words",
    [
        ("bench", "lockstep", "--json"),
        ("profile", "--json"),
        ("profile", "--html"),
        ("sanitize", "--json"),
        ("replay", "trace", "--json"),
        ("replay", "trace", "--plot"),
    ],
)
def test_a_dash_is_no_file_to_write(capsys, words):
    status, _, err = run(capsys, *words, "-")
    assert status == 2
    assert f"{words[-1]}: must name a file, got -" in err


@pytest.mark.parametrize("name", ["all zeros", "last token missed"])
def test_tour_with_a_wrong_kernel_fails(capsys, prompts, name, without_models):
    (mutant,) = [m for m in kernels.KERNEL_MUTANTS if m.name == name and m.module == "attention_block"]
    with kernels.installed(mutant):
        status, out, _ = run(capsys, "tour", "--text", str(prompts))
    assert status == 1
    assert "The check FAILED." in out
    assert "times what rounding explains" in out


def test_tour_with_a_wrong_write_fails(capsys, prompts, without_models):
    (mutant,) = [m for m in kernels.KERNEL_MUTANTS if m.name == "key written as value"]
    with kernels.installed(mutant):
        status, out, _ = run(capsys, "tour", "--text", str(prompts), "--json")
    assert status == 1
    assert "A: the gathered keys or values differ from those written" in json.loads(out)["checks"]["failures"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "a trace must hold at least one request, got nothing but white space"),
        (
            "a,b\n1,2\n",
            "line 1: a trace must be CSV with TIMESTAMP, ContextTokens, GeneratedTokens (Azure) or ",
        ),
        ("a,b\n1,2\n", "got ['a', 'b']"),
        ("ContextTokens,GeneratedTokens\n", "a trace must hold at least one request, got none"),
        (
            "ContextTokens,GeneratedTokens\n5,5\n5,x\n",
            "line 3: GeneratedTokens must be an integer in 1 .. 10000000, got 'x'",
        ),
        (
            "ContextTokens,GeneratedTokens\n5,99999999\n",
            "line 2: GeneratedTokens must be an integer in 1 .. 1",
        ),
        (
            "ContextTokens,GeneratedTokens\n0,5\n",
            "line 2: ContextTokens must be an integer in 1 .. 10000000, got '0'",
        ),
        (
            "ContextTokens,GeneratedTokens\n5\n",
            "line 2: a line must have 2 cells, one for each column, got 1",
        ),
        (
            "ContextTokens,GeneratedTokens\n5,5\n5,5,5\n",
            "line 3: a line must have 2 cells, one for each column, got 3",
        ),
        (
            '\n{"timestamp": 0, "input_length": 5}',
            "line 2: a line must have timestamp, input_length, output_length, hash_ids, got no output_length",
        ),
    ],
)
def test_bad_trace_is_named_by_line(capsys, tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_text(content, encoding="utf-8")
    status, out, err = run(capsys, "tour", "--trace", str(path))
    assert status == 2
    assert out == ""
    assert message in err
    assert "bad.csv" in err


def test_bad_text_is_named(capsys, tmp_path):
    path = tmp_path / "prompts.txt"
    for content, message in (
        (b" \n\n ", "at least one prompt"),
        (b"ok \xff", "UTF-8 text, got byte 0xff at 3"),
    ):
        path.write_bytes(content)
        status, _, err = run(capsys, "tour", "--text", str(path))
        assert status == 2
        assert message in err
    status, _, err = run(capsys, "tour", "--text", str(tmp_path / "absent.txt"))
    assert status == 2
    assert "No such file" in err


@pytest.mark.parametrize(
    "words",
    [["nonsense"], ["tour", "--requests", "0"], ["tour", "--target", "gpu"], ["bench"], ["tour", "more"]],
)
def test_bad_usage_exits_with_2(capsys, words):
    status, out, err = run(capsys, *words)
    assert status == 2
    assert out == ""
    assert "error" in err


def test_unknown_target_in_the_environment_is_an_error_in_one_line(capsys, monkeypatch):
    monkeypatch.setenv(targets.ENVIRONMENT, "gpu")
    status, _, err = run(capsys, "tour")
    assert status == 2
    assert err.splitlines() == [
        "paged-numba tour: error: PAGED_NUMBA_TARGET must be one of auto, cuda, lockstep, cudasim, "
        "got PAGED_NUMBA_TARGET='gpu'"
    ]


def test_prompt_does_not_command_the_terminal(capsys, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xef\xbb\xbfred \x1b[31m bell \x07")
    status, out, _ = run(capsys, "tour", "--text", str(path))
    assert status == 0
    assert "red ?[31m bell ?" in out
    assert "\x1b" not in out


def test_help_names_the_commands(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    for command in cli.COMMANDS:
        assert command in out


def test_doctor_says_which_target_runs_and_why(capsys):
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    assert "Kernels run on the target lockstep, because PAGED_NUMBA_TARGET=lockstep is set." in out
    assert 'pip install ".[cuda13]"' in out
    status, out, _ = run(capsys, "doctor", "--json")
    assert json.loads(out)["target"] == "lockstep"


def test_doctor_with_a_target_that_cannot_run_exits_with_1(capsys, monkeypatch):
    monkeypatch.setenv(targets.ENVIRONMENT, "cudasim")
    status, out, _ = run(capsys, "doctor")
    assert status == 1
    assert "The cudasim target must be chosen before Numba is imported" in out


@pytest.mark.skipif(targets.cuda_unavailable_reason() is None, reason="this machine has a GPU")
def test_without_a_gpu_commands_that_need_one_say_so(capsys):
    status, _, err = run(capsys, "bench", "gpu")
    assert status == 2
    assert f"bench gpu needs a GPU, and {targets.cuda_unavailable_reason()}." in err
    status, _, err = run(capsys, "tour", "--target", "cuda")
    assert status == 2
    assert "the cuda target cannot run" in err


def test_module_runs_and_a_closed_pipe_is_no_traceback(prompts):
    command = [sys.executable, "-m", "paged_numba", "tour", "--text", str(prompts)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        assert process.stdout.readline().startswith("1. The kernels run")
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def test_requests_are_paragraphs_of_bytes():
    requests = from_text("one\n\n\ntwo\nlines\n", "here", (3, 4), 10)
    assert [bytes(request.prompt) for request in requests] == [b"one", b"two\nli"]
    assert [request.max_new_tokens for request in requests] == [3, 4]
    assert requests[0].final_length == 5
    # The second prompt is cut to 10 - 4 bytes, and so are prompts of a trace.
    assert bytes(requests[1].prompt) == b"two\nli"
    assert len(from_trace(Trace("", None, np.array([100]), np.array([50])), 4, 10)[0].prompt) == 6


MINE = """
import numpy as np
from numba import cuda, float32


@cuda.jit
def reverse(source, target):
    tile = cuda.shared.array(64, float32)
    thread = cuda.threadIdx.x
    tile[thread] = source[thread]
    cuda.syncthreads()
    target[thread] = tile[63 - thread]


@cuda.jit
def reverse_too_early(source, target):
    tile = cuda.shared.array(64, float32)
    thread = cuda.threadIdx.x
    tile[thread] = source[thread]
    target[thread] = tile[63 - thread]


@cuda.jit
def beyond(target):
    target[cuda.grid(1)] = 1


def right():
    source = cuda.to_device(np.arange(64, dtype=np.float32))
    target = cuda.device_array_like(source)
    reverse[1, 64](source, target)
    assert target.copy_to_host()[0] == 63


def wrong():
    source = cuda.to_device(np.arange(64, dtype=np.float32))
    reverse_too_early[1, 64](source, cuda.device_array_like(source))


def worse():
    beyond[1, 64](cuda.device_array(60, np.float32))


def scaled(factor):
    pass
"""


@pytest.fixture
def mine(tmp_path):
    pytest.importorskip("numba")
    path = tmp_path / "mine.py"
    path.write_text(MINE, encoding="utf-8")
    return path


def test_profile_shows_operations_line_by_line(capsys, tmp_path):
    page, counts = tmp_path / "page.html", tmp_path / "counts.json"
    status, out, err = run(
        capsys, "profile", "paged_attention", "--shape", "num_seqs=1", "seq_len=32", "--gpu", "A100",
        "--html", str(page), "--json", str(counts),
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "attention_tile_kernel: 1 launch of 1 x 2 thread blocks of 64 threads" in out
    assert "Roofline for A100" in out
    # Keys come in whole sectors: 8 neighbouring threads load 8 neighbouring floats.
    line = next(line for line in out.splitlines() if "|" in line and "float32(source[" in line)
    assert re.search(r" 4\.0 +100% ", line), line
    assert "Roofline for A100" in page.read_text(encoding="utf-8")
    assert json.loads(counts.read_text(encoding="utf-8"))["kernels"][0]["kernel"] == "attention_tile_kernel"
    status, out, _ = run(capsys, "profile", "paged_attention", "--algorithm", "naive")
    assert "attention_naive_kernel" in out


@pytest.mark.parametrize("operation", ["write_kv", "gather_kv", "copy_blocks", "paged_attention"])
def test_sanitize_finds_nothing_in_operations(capsys, operation):
    pytest.importorskip("numba")
    status, out, err = run(capsys, "sanitize", operation, "--shape", "seq_len=21", "head_dim=40")
    assert (status, err) == (0, "")
    assert out.endswith("on the lockstep machine: no findings\n")
    assert not out.startswith("0 ")


def test_profile_and_sanitize_run_functions_of_files_that_import_numba(capsys, mine, tmp_path):
    status, out, err = run(capsys, "profile", f"{mine}::right")
    assert (status, err) == (0, "")
    assert "reverse: 1 launch of 1 thread block of 64 threads" in out
    assert run(capsys, "sanitize", f"{mine}::right")[0] == 0
    findings = tmp_path / "findings.json"
    status, out, _ = run(capsys, "sanitize", f"{mine}::wrong", "--json", str(findings))
    assert status == 1
    assert "data race: tile[" in out
    assert json.loads(findings.read_text(encoding="utf-8"))["findings"][0]["kind"] == "data race"
    import numba.cuda

    assert numba.cuda.__name__ == "numba.cuda"


def test_profile_says_where_a_kernel_fails_and_sanitize_goes_on(capsys, mine):
    status, _, err = run(capsys, "profile", f"{mine}::worse")
    assert status == 1
    assert err.startswith("paged-numba profile: the kernel failed: target[60] out of bounds for shape (60,)")
    status, out, _ = run(capsys, "sanitize", f"{mine}::worse")
    assert status == 1
    assert "out of bounds: target[60] out of bounds for shape (60,)" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["nothing"],
            "OPERATION must be one of write_kv, gather_kv, copy_blocks, paged_attention, or FILE.py::function",
        ),
        (["write_kv", "--shape", "seq_len=0"], "--shape seq_len must be a positive integer, got 'seq_len=0'"),
        (["write_kv", "--shape", "len=3"], "--shape takes num_seqs, seq_len, .*, got 'len=3'"),
        (["write_kv", "--shape", "head_dim=1025"], "head_dim must lie in 1 .. 1024"),
        (["write_kv", "--shape", "num_q_heads=3"], "num_q_heads must be a multiple of num_kv_heads=2, got 3"),
        (["none.py::main"], "none.py must be a Python file, got no such file"),
        (
            ["{mine}::main"],
            "main must be a host function in .* got no function; functions in the file: right, wrong, worse, scaled",
        ),
        (["{mine}::reverse"], "that launches kernels, got a kernel; functions in the file"),
        (["{mine}::scaled"], "scaled must have no parameters, got scaled.factor."),
        (["{mine}::right", "--shape", "seq_len=3"], "--shape applies only to operations"),
    ],
)
def test_profile_and_sanitize_say_what_they_can_run(capsys, mine, words, message):
    for command in ("profile", "sanitize"):
        status, out, err = run(capsys, command, *(word.format(mine=mine) for word in words))
        assert (status, out) == (2, "")
        assert re.search(message, err), err


def test_profile_and_sanitize_need_a_launch_and_count_none_of_the_import(capsys, tmp_path):
    pytest.importorskip("numba")
    file = tmp_path / "by_itself.py"
    file.write_text(
        "import numpy as np\n"
        "from numba import cuda\n"
        "@cuda.jit\n"
        "def one(x):\n"
        "    x[cuda.grid(1)] = 1\n"
        "one[1, 32](np.zeros(32))\n"
        "def again():\n"
        "    one[1, 32](np.zeros(32))\n"
        "def nothing():\n"
        "    pass\n",
        encoding="utf-8",
    )
    assert "one: 1 launch of" in run(capsys, "profile", f"{file}::again")[1]
    for command in ("profile", "sanitize"):
        status, out, err = run(capsys, command, f"{file}::nothing")
        assert (status, out) == (2, "")
        assert "nothing must launch a kernel, got no launch" in err
        status, _, err = run(capsys, command, "write_kv", "--algorithm", "block")
        assert status == 2
        assert "--algorithm applies only to paged_attention, got write_kv" in err
