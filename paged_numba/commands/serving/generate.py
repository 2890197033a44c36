"""``paged-numba generate``: answers the prompts of a file in one batch."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...draw.text import plural
from ...progress import progress
from ...serving import Engine, Output, SamplingParams
from ...serving.prompts import paragraphs, read_text
from . import setup


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``paged-numba generate``."""
    parser.add_argument(
        "--prompts", type=Path, required=True, metavar="FILE",
        help="answer the prompts in FILE, separated by blank lines; - reads them from standard input",
    )  # fmt: skip
    setup.add_arguments(parser, max_tokens=64)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(options: argparse.Namespace) -> int:
    """Answer all prompts and print the answers, or JSON; return 0, or 1 if a prompt could not be answered."""
    params = setup.sampling(options)
    source = "standard input" if str(options.prompts) == "-" else str(options.prompts)
    prompts = paragraphs(read_text(options.prompts), source)
    loaded = setup.checkpoint(options)
    tokens = [setup.tokens_of(loaded, prompt) for prompt in prompts]
    # Whole blocks for each prompt, so that none is preempted if the pool may be so large.
    room = sum(-(-(len(ids) + options.max_tokens) // setup.BLOCK_SIZE) * setup.BLOCK_SIZE for ids in tokens)
    engine = setup.engine_for(loaded, room, options.target)
    if not options.json:
        setup.introduce(loaded, engine)

    answers: dict[Any, dict[str, Any]] = {
        number: _added(engine, number, prompt, ids, params)
        for number, (prompt, ids) in enumerate(zip(prompts, tokens, strict=True))
    }
    began = time.perf_counter()
    with progress(len(tokens) * options.max_tokens, "generate", "tokens") as done:
        for output in engine.stream():
            _add(answers[output.request_id], output)
            done(len(output.token_ids))
    seconds = time.perf_counter() - began
    counters = asdict(engine.counters)
    if options.json:
        record = {
            "model": loaded.name,
            "licence": loaded.licence,
            "source": loaded.source,
            "target": engine.cache.target,
            "sampling": asdict(params),
            "answers": [*answers.values()],
            "counters": counters,
            "seconds": seconds,
        }
        print(json.dumps(record, indent=1))
    else:
        for answer in answers.values():
            print(f"\n> {answer['prompt']}\n{answer['text'].strip()}")
            if answer["finish_reason"] == "error":
                print(f"[error: {answer['error']}]", file=sys.stderr)
        count = counters["num_generated_tokens"]
        print(
            f"\n{plural(count, 'token')} in {seconds:.1f} s ({count / seconds:.1f} tokens a second), "
            f"{plural(counters['num_steps'], 'step')}, {plural(counters['num_preemptions'], 'preemption')}"
        )
    return 1 if any(answer["finish_reason"] == "error" for answer in answers.values()) else 0


def _added(
    engine: Engine, number: int, prompt: str, tokens: list[int], params: SamplingParams
) -> dict[str, Any]:
    """Add a request to the engine; return its answer, which is empty as yet, or an error."""
    answer: dict[str, Any] = {
        "prompt": prompt,
        "num_prompt_tokens": len(tokens),
        "num_cached_tokens": 0,
        "text": "",
        "token_ids": [],
        "finish_reason": None,
        "error": None,
    }
    try:
        engine.add_request(tokens, params, request_id=number)
    except ValueError as error:
        answer |= {"finish_reason": "error", "error": str(error)}
    return answer


def _add(answer: dict[str, Any], output: Output) -> None:
    answer["text"] += output.text
    answer["token_ids"] += output.token_ids
    for name in ("finish_reason", "error", "num_cached_tokens"):
        answer[name] = getattr(output, name)
