"""`GGUFFile`: the metadata and the tensors of a GGUF file.

The package gguf has a reader too. It takes seconds for a vocabulary of 49,152 tokens, and it trusts the counts in a
file: it goes on past the end for an array that claims 2**40 elements. So the header is read here, and only what the
tensors hold is left to the package: `gguf.dequantize` turns every quantisation into float32.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


class Tensor(NamedTuple):
    """Where a tensor stands in a file."""

    shape: tuple[int, ...]  # the first dimension varies slowest, as in NumPy
    quantisation: Any  # gguf.GGMLQuantizationType
    start: int  # in bytes
    num_bytes: int


class GGUFFile:
    """A GGUF file, versions 2 and 3, little-endian.

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
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, Tensor] = {}
        with path.open("rb") as file:
            magic = file.read(4)
            if magic != b"GGUF":
                raise InputError(f"{path}: a GGUF file must begin with the bytes b'GGUF', got {magic!r}")
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._place = 4
        try:
            self._read_header()
        except UnicodeDecodeError as error:
            raise self.error(f"must hold texts in UTF-8, got {error}") from None

    def error(self, what: str) -> InputError:
        """Return an error whose message begins with the name of this file."""
        return InputError(f"{self.path}: the file {what}")

    def read(self, name: str) -> Any:
        """Return a tensor as float32 in NumPy's order of dimensions; it may be a view of the file."""
        from gguf import dequantize

        tensor = self.tensors[name]
        stored = np.frombuffer(self._bytes, np.uint8, tensor.num_bytes, tensor.start)
        rows = stored.reshape(*tensor.shape[:-1], -1)
        return dequantize(rows, tensor.quantisation).reshape(tensor.shape)

    def _read_header(self) -> None:
        version = self._scalar("I")
        if version not in (2, 3):
            big = " (a big-endian file)" if version in (2 << 24, 3 << 24) else ""
            raise self.error(f"must have GGUF version 2 or 3, got {version}{big}")
        num_tensors, num_values = self._scalar("Q"), self._scalar("Q")
        for _ in range(self._count(num_values, 13)):
            key = self._text()
            if key in self.metadata:
                raise self.error(f"must hold each key once, got {key!r} twice")
            self.metadata[key] = self._value(self._scalar("I"))
        found = [self._tensor() for _ in range(self._count(num_tensors, 24))]
        align = self.metadata.get("general.alignment", 32)
        if not isinstance(align, int) or align < 1:
            raise self.error(f"must have a positive general.alignment, got {align!r}")
        start = -(-self._place // align) * align
        for name, tensor in found:
            tensor = tensor._replace(start=start + tensor.start)
            if name in self.tensors:
                raise self.error(f"must hold each tensor once, got {name!r} twice")
            if tensor.start + tensor.num_bytes > len(self._bytes):
                raise self.error(
                    f"must hold {tensor.start + tensor.num_bytes:,} bytes for the tensor {name!r}, "
                    f"got {len(self._bytes):,}"
                )
            self.tensors[name] = tensor

    def _tensor(self) -> tuple[str, Tensor]:
        """Read the description of a tensor; its `start` counts from where the tensors begin."""
        name = self._text()
        num_dims = self._scalar("I")
        if not 1 <= num_dims <= 4:
            raise self.error(f"must hold tensors of 1 to 4 dimensions, got {num_dims} for {name!r}")
        shape = tuple(reversed([self._scalar("Q") for _ in range(num_dims)]))
        if 0 in shape:
            raise self.error(f"must hold no empty tensor, got the shape {shape} for {name!r}")
        quantisation, per_block, block_bytes = self._quantisation(name, self._scalar("I"))
        start = self._scalar("Q")
        if shape[-1] % per_block:
            raise self.error(
                f"must hold {name!r} in rows of whole blocks of {per_block} numbers, got rows of {shape[-1]}"
            )
        return name, Tensor(shape, quantisation, start, math.prod(shape) // per_block * block_bytes)

    def _quantisation(self, name: str, number: int) -> tuple[Any, int, int]:
        """Return a quantisation, how many numbers its blocks hold, and their bytes."""
        try:
            from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
        except ImportError:
            raise ImportError("GGUF files need the package gguf: pip install gguf") from None
        names = {kind.value: kind.name for kind in GGMLQuantizationType}
        supported = {name for name in names.values() if name in ("F32", "F16") or hasattr(quants, name)}
        if names.get(number) not in supported:
            raise self.error(
                f"must be quantised as {', '.join(sorted(supported))}, "
                f"got {names.get(number, f'type {number}')} for {name!r}"
            )
        kind = GGMLQuantizationType(number)
        return kind, *GGML_QUANT_SIZES[kind]

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text()
        if kind in _SCALARS:
            return self._scalar(_SCALARS[kind])
        if kind != _ARRAY:
            raise self.error(f"must hold values of the types 0 to 12, got {kind}")
        item, length = self._scalar("I"), self._scalar("Q")
        if item == _STRING:
            return [self._text() for _ in range(self._count(length, 8))]
        if item not in _SCALARS:
            raise self.error(f"must hold lists of numbers or texts, got a list of type {item}")
        code = f"<{self._count(length, struct.calcsize(_SCALARS[item]))}{_SCALARS[item]}"
        return list(struct.unpack_from(code, self._bytes, self._take(struct.calcsize(code))))

    def _count(self, number: int, least_bytes: int) -> int:
        """Return a count of things of at least so many bytes each, if the rest of the file can hold them."""
        left = len(self._bytes) - self._place
        if number * least_bytes > left:
            raise self.error(
                f"must hold what it announces: {number:,} parts are announced, {left:,} bytes follow"
            )
        return number

    def _take(self, num_bytes: int) -> int:
        """Return the place in the file, and step over so many bytes."""
        place = self._place
        self._place += self._count(num_bytes, 1)
        return place

    def _scalar(self, code: str) -> Any:
        return struct.unpack_from("<" + code, self._bytes, self._take(struct.calcsize(code)))[0]

    def _text(self) -> str:
        length = self._scalar("Q")
        place = self._take(length)
        return self._bytes[place : place + length].decode()
