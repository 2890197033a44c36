"""`GGUFFile`: the metadata and the tensors of a GGUF file, as the package gguf reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError


class Tensor(NamedTuple):
    """A tensor of a file."""

    shape: tuple[int, ...]  # the first dimension varies slowest, as in NumPy
    quantisation: Any  # gguf.GGMLQuantizationType
    start: int  # in bytes
    num_bytes: int
    stored: Any  # a view of the file


class GGUFFile:
    """A little-endian GGUF file.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    metadata : dict of str
        Numbers, texts and lists of them.
    tensors : dict of str
        A `Tensor` for each name.

    Raises
    ------
    ImportError
        The package gguf is not installed.
    InputError
        The file is no GGUF file, is damaged, or has a quantisation that is not supported.
    OSError
        The file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            magic = file.read(4)
        if magic != b"GGUF":
            raise InputError(f"{path}: a GGUF file must begin with the bytes b'GGUF', got {magic!r}")
        try:
            reader = _open(path)
            self.metadata: dict[str, Any] = {
                name: field.contents()
                for name, field in reader.fields.items()
                if not name.startswith("GGUF.")
            }
        except (
            ArithmeticError,
            LookupError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:  # whatever it raises
            raise self.error(f"must be a whole GGUF file: {error}") from None
        if reader.byte_order != "I":
            raise self.error("must have the byte order of this machine, got the other (a big-endian file)")
        supported = _supported()
        self.tensors: dict[str, Tensor] = {}
        for tensor in reader.tensors:
            shape = tuple(reversed(tensor.shape.tolist()))
            kind = tensor.tensor_type
            if kind.name not in supported:
                raise self.error(
                    f"must be quantised as {', '.join(sorted(supported))}, got {kind.name} for {tensor.name!r}"
                )
            if not shape or 0 in shape:
                raise self.error(f"must hold no empty tensor, got the shape {shape} for {tensor.name!r}")
            place = int(tensor.data_offset)
            self.tensors[tensor.name] = Tensor(shape, kind, place, int(tensor.n_bytes), tensor.data)

    def error(self, what: str) -> InputError:
        """Return an error whose message begins with the name of this file."""
        return InputError(f"{self.path}: the file {what}")

    def read(self, name: str) -> Any:
        """Return a tensor as float32 in NumPy's order of dimensions; it may be a view of the file."""
        from gguf import dequantize

        tensor = self.tensors[name]
        return dequantize(tensor.stored, tensor.quantisation).reshape(tensor.shape)


def _open(path: Path) -> Any:
    """Return the reader of the package gguf."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise ImportError("GGUF files need the package gguf: pip install gguf") from None

    class Reader(GGUFReader):
        """Raises an error where a file ends too early; the package reads on for as long as a count says."""

        def _get(self, offset: int, dtype: Any, count: Any = 1, override_order: Any = None) -> Any:
            if int(offset) + np.dtype(dtype).itemsize * int(count) > len(self.data):
                raise ValueError(f"it ends at byte {len(self.data):,}, and announces more")
            return super()._get(offset, dtype, count, override_order)

    return Reader(path)


def _supported() -> set[str]:
    """Return the names of the quantisations that the package turns into float32."""
    from gguf import GGMLQuantizationType, quants

    return {
        kind.name
        for kind in GGMLQuantizationType
        if kind.name in ("F32", "F16") or hasattr(quants, kind.name)
    }
