"""Options and objects that `chat` and `generate` share: the checkpoint, the sampling, the pool, the engine."""

from __future__ import annotations

import argparse

from ... import models, targets
from ...cache import PagedKVCache
from ...errors import InputError
from ...serving import Engine, SamplingParams
from ..options import positive

BLOCK_SIZE = 16

MOST_POOL_BYTES = 256 * 2**20
"""Largest pool: 5,824 tokens of SmolLM2-135M."""


def add_arguments(parser: argparse.ArgumentParser, max_tokens: int) -> None:
    """Declare the options of both commands; `max_tokens` is the default of the option of this name."""
    names = ", ".join(known.name for known in models.find())
    parser.add_argument(
        "--model", metavar="NAME|FILE",
        help=f"a model ({names}) or a GGUF file of the Llama type (default: the largest that is installed)",
    )  # fmt: skip
    parser.add_argument(
        "--max-tokens", type=positive, metavar="N", default=max_tokens,
        help="most tokens of an answer (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--temperature", type=float, metavar="T", default=0.0,
        help="divide logits by T and draw tokens; 0 takes the most likely token (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--top-k",
        type=positive,
        metavar="K",
        help="with a temperature above 0, draw from the K most likely tokens only",
    )
    parser.add_argument(
        "--top-p", type=float, metavar="P",
        help="with a temperature above 0, draw from the most likely tokens only, whose probabilities add up to P",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, metavar="N", default=0, help="seed of the random numbers (default: 0)"
    )
    parser.add_argument("--target", choices=targets.TARGETS, default="auto", help="where the kernels run")


def sampling(options: argparse.Namespace) -> SamplingParams:
    """Return the sampling parameters that the options ask for; raise InputError for a number out of range."""
    try:
        return SamplingParams(
            options.max_tokens,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            seed=options.seed,
        )
    except ValueError as error:
        name = str(error).split(" ", 1)[0]
        raise InputError(f"--{name.replace('_', '-')}: {error}") from None


def checkpoint(options: argparse.Namespace) -> models.Checkpoint:
    """Load the checkpoint that ``--model`` names: by default the largest that is installed."""
    if options.model is not None:
        try:
            return models.load(options.model)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise InputError(f"--model: {error}") from None
    installed = [known.name for known in models.find() if known.path is not None]
    if not installed:
        commands = "\n".join(f"  {known.install}" for known in models.find())
        raise InputError(f"no model is installed; each of these commands installs one:\n{commands}")
    return models.load(installed[-1])


def tokens_of(loaded: models.Checkpoint, text: str) -> list[int]:
    """Return the tokens of a single prompt: a user's message to a model with chat, else a text to continue."""
    in_chat = loaded.tokenizer.chat([{"role": "user", "content": text}])
    return loaded.tokenizer.encode(text) if in_chat is None else in_chat


def engine_for(loaded: models.Checkpoint, num_tokens: int, target: str) -> Engine:
    """Return an engine with a prefix cache, whose pool holds `num_tokens` tokens or has `MOST_POOL_BYTES`."""
    config = loaded.model.config
    sizes = BLOCK_SIZE, config.num_kv_heads, config.head_dim
    most = PagedKVCache.num_blocks_for(MOST_POOL_BYTES, *sizes, num_layers=config.num_layers)
    cache = PagedKVCache(
        min(most, -(-num_tokens // BLOCK_SIZE)),
        *sizes,
        num_layers=config.num_layers,
        prefix_caching=True,
        target=target,
    )
    return Engine(loaded.model, cache, tokenizer=loaded.tokenizer)


def introduce(loaded: models.Checkpoint, engine: Engine) -> None:
    """Print which model is served, from which pool."""
    pool = engine.cache.allocator
    tokens = pool.num_blocks * pool.block_size
    licence = f" ({loaded.licence})" if loaded.licence else ""
    print(
        f"{loaded.name}{licence}: {loaded.model.config.num_layers} layers, "
        f"pool of {pool.num_blocks:,} blocks ({tokens:,} tokens), target {engine.cache.target}"
    )
