"""`load` and `find`: checkpoints by name, where they are installed, or from a file."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from .glassllm import load as load_glassllm
from .llama import Llama
from .tokenizers import Tokenizer


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

    Examples
    --------
    >>> import paged_numba as pn
    >>> for known in pn.models.find():
    ...     print(known.name, known.licence, known.install, sep=", ")
    glassllm, MIT, pip install glassllm
    """
    return [
        Known(
            "glassllm",
            _installed("glassllm", "glassllm/weights/en.npz"),
            "pip install glassllm",
            "MIT",
            "https://github.com/Oseiasdfarias/glassllm, trained on books by Lewis Carroll",
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
        One of the names of `find`.

    Raises
    ------
    ImportError
        The checkpoint of this name is not installed.
    InputError
        A file is damaged.

    Examples
    --------
    >>> import paged_numba as pn
    >>> checkpoint = pn.models.load("glassllm")
    >>> checkpoint.tokenizer.encode("Alice was")
    [494, 160]
    """
    known = {known.name: known for known in find()}
    if name_or_path not in known:
        raise InputError(f"name_or_path must be one of {', '.join(known)}, got name_or_path={name_or_path!r}")
    found = known[str(name_or_path)]
    if found.path is None:
        raise ImportError(f"the model {found.name} is not installed: {found.install}")
    model, tokenizer = load_glassllm(found.path, found.path.with_suffix(".tokenizer.json"))
    return Checkpoint(model, tokenizer, found.name, found.licence, found.source)
