"""``paged-numba bench model``: one step of a language model, beside dense NumPy and transformers."""

from __future__ import annotations

import inspect
import io
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ... import models, targets
from ...arrays import to_host
from ...cache import PagedKVCache
from ...draw.text import plural, table
from ...errors import InputError
from ...progress import progress
from ..options import deliver
from .provenance import as_json, provenance

BLOCK_SIZE = 16
REPEATS = 15
PARTS = ("matrix products", "attention", "writes", "host")

SMOLLM2 = models.LlamaConfig(
    num_layers=30,
    hidden_size=576,
    intermediate_size=1536,
    vocab_size=49152,
    num_q_heads=9,
    num_kv_heads=3,
    head_dim=64,
    max_positions=8192,
)
"""The sizes of SmolLM2-135M, for random weights where no checkpoint is installed."""


class Clock:
    """Seconds of a step, by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self.step = 0.0

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Count the time of a ``with`` statement as that of a part."""
        start = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - start

    def run(self, step: Callable[[], Any]) -> Any:
        """Time a whole step; what no part counted is the host's."""
        start = time.perf_counter()
        result = step()
        self.step = time.perf_counter() - start
        self.seconds["host"] += self.step - sum(self.seconds.values())
        return result


class TimedMatrix(np.ndarray):
    """A matrix that counts the time of products ``x @ matrix``."""

    clock: Clock

    def __rmatmul__(self, other: Any) -> Any:
        with self.clock.time("matrix products"):
            return np.matmul(other, self.view(np.ndarray))


def timed(model: models.Llama, clock: Clock) -> models.Llama:
    """Return the same model with views of its weights that count the time of matrix products."""

    def view(matrix: Any) -> Any:
        made = matrix.view(TimedMatrix)
        made.clock = clock
        return made

    weights = model.weights
    names = ("qkv", "output", "gate_up", "down")
    layers = [
        layer._replace(**{name: view(getattr(layer, name)) for name in names}) for layer in weights.layers
    ]
    return models.Llama(model.config, weights._replace(layers=layers, unembedding=view(weights.unembedding)))


def find_model() -> tuple[models.Llama, str, Path | None]:
    """Return the largest checkpoint that is installed, or a model with random weights; its name, and its file."""
    for known in reversed(models.find()):
        if known.path is not None:
            try:
                return models.load(known.name).model, known.name, known.path
            except ImportError:  # a package that reads the file
                continue
    return models.random_llama(SMOLLM2), "random weights in the shape of SmolLM2-135M", None


class Context:
    """The token ids of a sequence, and the keys and values of all but the last, from a dense forward.

    Parameters
    ----------
    model : Llama
    length : int
        Tokens of the sequence.
    """

    def __init__(self, model: models.Llama, length: int) -> None:
        rng = np.random.default_rng(0)
        self.token_ids = rng.integers(3, model.config.vocab_size, length)
        self.keys: list[Any] = []
        self.values: list[Any] = []
        dense = models.DenseAttention()

        def attend(layer: int, query: Any, key: Any, value: Any) -> Any:
            self.keys.append(key)
            self.values.append(value)
            return dense(layer, query, key, value)

        model.forward(self.token_ids[:-1], np.arange(length - 1), attend, rows=[-1])


def paged(model: models.Llama, context: Context, batch: int, target: str) -> Callable[[Clock], Any]:
    """Return a step over `PagedKVCache`, as `paged_numba.serving.Engine` makes it."""
    sizes, length = model.config, len(context.token_ids)
    cache = PagedKVCache(
        batch * -(-length // BLOCK_SIZE), BLOCK_SIZE, sizes.num_kv_heads, sizes.head_dim,
        num_layers=sizes.num_layers, target=target,
    )  # fmt: skip
    names = range(batch)
    for name in names:
        cache.add(name, np.stack(context.keys), np.stack(context.values))
    token_ids, positions = np.full(batch, context.token_ids[-1]), np.full(batch, length - 1)

    def step(clock: Clock) -> Any:
        slots = cache.reserve_batch(dict.fromkeys(names, 1)).slots
        plan = cache.plan(names, sizes.num_q_heads, slots=slots)

        def attend(layer: int, query: Any, key: Any, value: Any) -> Any:
            with clock.time("writes"):
                plan.write(layer, key, value)
            with clock.time("attention"):
                return to_host(plan.attend(layer, query))

        logits = timed(model, clock).forward(token_ids, positions, attend)
        for name in names:
            cache.commit(name)
        return logits

    def run(clock: Clock) -> Any:
        logits = clock.run(lambda: step(clock))
        for name in names:
            cache.truncate(name, length - 1)
        return logits

    return run


def dense(model: models.Llama, context: Context, batch: int) -> Callable[[Clock], Any]:
    """Return a step over keys and values in one array for each layer, attended to by NumPy."""
    sizes, length = model.config, len(context.token_ids)
    k, c = sizes.num_kv_heads, sizes.head_dim
    keys, values = (
        np.zeros((sizes.num_layers, batch, k, length, c), np.float32) for _ in range(2)
    )  # [layers, b, k, n, c]
    for stored, given in ((keys, context.keys), (values, context.values)):
        stored[:, :, :, :-1] = np.stack(given).swapaxes(1, 2)[:, None]
    token_ids, positions = np.full(batch, context.token_ids[-1]), np.full(batch, length - 1)
    scale = np.float32(1 / np.sqrt(c))

    def step(clock: Clock) -> Any:
        def attend(layer: int, query: Any, key: Any, value: Any) -> Any:
            with clock.time("writes"):
                keys[layer, :, :, -1], values[layer, :, :, -1] = key, value
            with clock.time("attention"):
                rows = query.reshape(batch, k, -1, c) * scale  # [b, k, h / k, c]
                scores = rows @ keys[layer].swapaxes(2, 3)  # [b, k, h / k, n]
                weights = np.exp(scores - scores.max(axis=3, keepdims=True))
                out = (weights / weights.sum(axis=3, keepdims=True)) @ values[layer]
                return out.reshape(batch, -1, c)

        return timed(model, clock).forward(token_ids, positions, attend)

    return lambda clock: clock.run(lambda: step(clock))


def transformers(path: Path, context: Context, batch: int) -> Callable[[Clock], Any]:
    """Return a step of transformers, with the same checkpoint in float32."""
    torch, library = import_module("torch"), import_module("transformers")
    # It shows bars while it loads, of which its own switch turns off only one.
    with redirect_stderr(io.StringIO()):
        model = library.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
    # Newer versions warn of the old name.
    cache = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    ids, stored = torch.from_numpy(context.token_ids).repeat(batch, 1), library.DynamicCache()

    def forward(part: Any) -> Any:
        with torch.no_grad():
            return model(part, use_cache=True, **{cache: stored}).logits[:, -1].numpy()

    forward(ids[:, :-1])

    def run(clock: Clock) -> Any:
        logits = clock.run(lambda: forward(ids[:, -1:]))
        stored.crop(-1)  # takes the newest token back
        return logits

    return run


def absent(path: Path | None) -> str:
    """Return why transformers cannot be measured; an empty text if it can."""
    if path is None or path.suffix != ".gguf":
        return "transformers: left out, since it reads only the checkpoint smollm2 here."
    missing = [name for name in ("transformers", "torch", "accelerate", "gguf") if find_spec(name) is None]
    return f"transformers: left out, {' and '.join(missing)} not installed." if missing else ""


def row(name: str, clocks: list[Clock], batch: int, split: bool) -> tuple[list[str], dict[str, float]]:
    """Return a row of the table and its figures: medians over the steps."""
    step = statistics.median(clock.step for clock in clocks)
    figures = {"step_s": step, "tokens_per_s": batch / step}
    cells = [name, f"{step * 1e3:.1f}", f"{batch / step:.2f}"]
    for part in PARTS if split else ():
        seconds = statistics.median(clock.seconds[part] for clock in clocks)
        figures[f"{part.replace(' ', '_')}_s"] = seconds
        cells.append(f"{seconds * 1e3:.1f}")
    return cells + [""] * (3 + len(PARTS) - len(cells)), figures


def run(json_path: Path | None, commit: str | None, *, batch: int, length: int) -> int:
    """Measure, print and write JSON; return the exit status, 1 if two sides disagree."""
    if length < 2:
        raise InputError(f"--context must be at least 2, the computed token and one before it, got {length}")
    model, name, path = find_model()
    target = targets.resolve("auto")
    context = Context(model, length)
    sides = {
        f"paged, {target}": paged(model, context, batch, target),
        "dense NumPy": dense(model, context, batch),
    }
    why_not = absent(path)
    if path is not None and not why_not:
        sides["transformers"] = transformers(path, context, batch)

    clocks: dict[str, list[Clock]] = {side: [] for side in sides}
    logits: dict[str, Any] = {}
    with progress(REPEATS + 1, "bench model", "rounds") as done:
        for turn in range(REPEATS + 1):
            for side, step in sides.items():
                clock = Clock()
                logits[side] = step(clock)
                if turn:  # the first round translates kernels
                    clocks[side].append(clock)
            done(1)

    expected = logits["dense NumPy"]
    errors = {side: float(np.abs(found - expected).max()) for side, found in logits.items()}
    scale = float(np.abs(expected).max())
    agree = all(error <= 1e-3 * scale for error in errors.values())
    rows, figures = [], {}
    for side, taken in clocks.items():
        cells, figures[side] = row(side, taken, batch, split=side != "transformers")
        rows.append(cells)
    header = ["", "step", "tokens/s", *PARTS]
    text = "\n".join([
        f"{name}: a step of {plural(batch, 'sequence')} at context {length}, medians of {REPEATS} steps, in ms",
        table(header, rows),
        *([why_not] if why_not else []),
        f"Logits differ by at most {max(errors.values()):.1e}, at a scale of {scale:.3g}: "
        + ("all sides agree." if agree else "the sides DISAGREE."),
    ])  # fmt: skip
    record = {
        "benchmark": "model", "model": name, "batch": batch, "context": length,
        "rows": [header, *rows], "sides": figures, "logit_errors": errors, "logit_scale": scale,
    }  # fmt: skip
    if not why_not:
        record["versions"] = {package: metadata.version(package) for package in ("transformers", "torch")}
    deliver(text, (json_path, lambda: as_json({**record, "provenance": provenance(commit)})))
    return 0 if agree else 1
