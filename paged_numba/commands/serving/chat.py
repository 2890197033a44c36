"""``paged-numba chat``: talks with a model, whose answers are printed while they are written."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from typing import Any

from ...draw.text import block_map, plural
from ...errors import InputError
from ...models import Checkpoint
from ...serving import Engine, SamplingParams
from . import setup

HELP = "/new begins a new conversation, /quit ends; Ctrl-C stops an answer"
TURNS = "0123456789abcdefghijklmnopqrstuvwxyz"
"""Marks of turns in the picture of the pool."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``paged-numba chat``."""
    setup.add_arguments(parser, max_tokens=256)
    parser.add_argument(
        "--pool", action="store_true",
        help="after each answer, show the blocks of the pool, the prefix hits and the tokens a second",
    )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Read lines and answer each, until the input ends; return 0."""
    params = setup.sampling(options)
    loaded = setup.checkpoint(options)
    # Room for two conversations of full length: the one that goes on, and the prefixes of the one before.
    engine = setup.engine_for(loaded, 2 * loaded.model.config.max_positions, options.target)
    chat = Chat(loaded, engine, params)
    setup.introduce(loaded, engine)
    if not chat.has_turns:
        print(
            f"{loaded.name} has no chat template that is known here: it goes on with each text that you write"
        )
    print(HELP)
    for line in _lines():
        if line == "/quit":
            break
        if line == "/new":
            chat.forget()
            print("[new conversation]")
        elif line.startswith("/"):
            print(HELP)
        elif line:
            answer = chat.answer(line)
            if options.pool and answer is not None:
                print(answer.report())
                print(chat.pool_map())
    return 0


def _lines() -> Iterator[str]:
    """Iterate over the lines of standard input, without white space around them; prompt for each on a terminal."""
    if sys.stdin is None:
        raise InputError("standard input must be open, got a closed one")
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    prompt = "\n> " if sys.stdin.isatty() else ""
    if prompt:
        with suppress(ImportError):
            import readline  # noqa: F401 (its import lets `input` edit lines)
    with suppress(EOFError):
        while True:
            yield input(prompt).strip()
    print()


@dataclass
class Spoken:
    """An answer, and how it came about.

    Attributes
    ----------
    turn : int
        Its number, from 1.
    text : str
    num_prompt_tokens, num_cached_tokens, num_tokens : int
        Tokens of the whole conversation before the answer, those of them that the prefix cache held, and tokens of the
        answer.
    first, rest : float
        Seconds until the first token, and from there to the last.
    """

    turn: int
    text: str = ""
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_tokens: int = 0
    first: float = 0.0
    rest: float = 0.0

    def report(self) -> str:
        """Return a line of figures."""
        first = f", the first after {self.first:.1f} s" if self.num_tokens else ""
        speed = f", then {(self.num_tokens - 1) / self.rest:.1f} a second" if self.rest else ""
        return (
            f"[turn {self.turn}: {plural(self.num_tokens, 'token')}{first}{speed}; "
            f"{self.num_cached_tokens} of {plural(self.num_prompt_tokens, 'prompt token')} from the prefix cache]"
        )


class Chat:
    """A conversation with a model, one answer at a time.

    Parameters
    ----------
    loaded : Checkpoint
    engine : Engine
    params : SamplingParams
    """

    def __init__(self, loaded: Checkpoint, engine: Engine, params: SamplingParams) -> None:
        self.loaded, self.engine, self.params = loaded, engine, params
        self.messages: list[dict[str, str]] = []
        self.num_turns = 0
        # The turn that filled each block, and how often the block had been handed out by then.
        self._filled: dict[int, tuple[int, int]] = {}

    @property
    def has_turns(self) -> bool:
        """Whether the model was trained to chat; if not, each line is a text of its own."""
        return self.loaded.tokenizer.chat([{"role": "user", "content": "Hello"}]) is not None

    def forget(self) -> None:
        """Begin a new conversation."""
        self.messages.clear()

    def answer(self, text: str) -> Spoken | None:
        """Answer a line of the user, and print the answer while it is written; None if the line cannot be answered."""
        messages = [*(self.messages if self.has_turns else ()), {"role": "user", "content": text}]
        try:
            kept, tokens = self._prompt(messages)
            request = self.engine.add_request(tokens, self.params)
        except ValueError as error:  # a line that is too long by itself, for example
            print(f"[error: {error}]", file=sys.stderr)
            return None
        if len(kept) < len(messages):
            dropped = (len(messages) - len(kept)) // 2
            print(
                f"[forgot the oldest {plural(dropped, 'turn')}: a conversation has {self.room} tokens at most]"
            )
        self.num_turns += 1
        spoken = Spoken(self.num_turns, num_prompt_tokens=len(tokens))
        self._speak(request, spoken)
        self.messages = [*kept, {"role": "assistant", "content": spoken.text}]
        return spoken

    @property
    def room(self) -> int:
        """Most tokens of a conversation."""
        pool = self.engine.cache.allocator
        return min(self.loaded.model.config.max_positions, pool.num_blocks * pool.block_size)

    def _prompt(self, messages: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[int]]:
        """Return the messages of a conversation without the oldest turns if there are too many, and their tokens."""
        tokens = self.loaded.tokenizer.chat(messages)
        if tokens is None:
            return messages, self.loaded.tokenizer.encode(messages[-1]["content"])
        if len(tokens) + min(self.params.max_tokens, self.room // 2) > self.room:
            # What follows is computed anew, since its prefix is another. With half of the room left, that is seldom.
            while len(tokens) > self.room // 2 and len(messages) > 1:
                messages = messages[2:]
                tokens = self.loaded.tokenizer.chat(messages) or []
        return messages, tokens

    def _speak(self, request: Hashable, spoken: Spoken) -> None:
        began = time.perf_counter()
        try:
            while self.engine.has_unfinished:
                outputs = self.engine.step()
                self._note_blocks(request)
                for output in outputs:
                    self._show(output, spoken, time.perf_counter() - began)
        except KeyboardInterrupt:
            with suppress(ValueError):  # it may have ended just now
                self.engine.cancel(request)
            for output in self.engine.stream():
                self._show(output, spoken, time.perf_counter() - began)
            print(" [stopped]", end="")
        print(flush=True)

    def _show(self, output: Any, spoken: Spoken, seconds: float) -> None:
        print(output.text, end="", flush=True)
        if output.error is not None:
            print(f"[error: {output.error}]", file=sys.stderr)
        spoken.text += output.text
        spoken.num_tokens += len(output.token_ids)
        spoken.num_cached_tokens = output.num_cached_tokens
        if output.token_ids:
            spoken.first = spoken.first or seconds
            spoken.rest = seconds - spoken.first
        if output.finish_reason == "length":
            at_limit = spoken.num_tokens == self.params.max_tokens
            why = (
                f"after {plural(spoken.num_tokens, 'token')}"
                if at_limit
                else f"all {self.room} tokens are used"
            )
            print(f" [cut: {why}]", end="")

    # The pool.

    def _note_blocks(self, request: Hashable) -> None:
        """Note the turn in which each block of the answer was filled."""
        pool = self.engine.cache.allocator
        for seq_id in pool:
            if seq_id[0] == request:  # type: ignore[index]
                for block in pool.held_blocks(seq_id).tolist():
                    generation = pool.generation(block)
                    if self._filled.get(block, (0, -1))[1] != generation:
                        self._filled[block] = self.num_turns, generation

    def pool_map(self) -> str:
        """Return the pool as text: for each block the turn that filled it, if it is still in the prefix cache."""
        pool = self.engine.cache.allocator
        cells = ["."] * pool.num_blocks
        for block, (turn, generation) in self._filled.items():
            if pool.is_cached(block) and pool.generation(block) == generation:
                cells[block] = TURNS[turn % len(TURNS)]
        cached = sum(cell != "." for cell in cells)
        # The rest of the pool was never touched, or not lately.
        last = max((block for block, cell in enumerate(cells) if cell != "."), default=0)
        shown = min(pool.num_blocks, 64 * (last // 64 + 1))
        more = f"; blocks {shown:,} to {pool.num_blocks - 1:,} are empty" if shown < pool.num_blocks else ""
        return (
            f"The pool: each character is a block of {pool.block_size} tokens, named after the turn that filled it; "
            f". is empty.\n{block_map(cells[:shown])}\n"
            f"Kept for later turns: {cached:,} of {plural(pool.num_blocks, 'block')}{more}."
        )
