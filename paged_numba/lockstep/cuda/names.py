"""Names of ``cuda`` that are no functions of the host: those for kernels, the types, and those that are absent."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import UnsupportedConstructError
from ..language.signatures import NAMES, Scalar, Type


class DeviceName:
    """A name that has a meaning only inside kernels, such as ``cuda.threadIdx``."""

    def __init__(self, path: str) -> None:
        self.__lockstep_path__ = path

    def __getattr__(self, name: str) -> DeviceName:
        if name.startswith("__"):
            raise AttributeError(name)
        return DeviceName(f"{self.__lockstep_path__}.{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"{self.__lockstep_path__}() runs only inside a kernel")

    def __repr__(self) -> str:
        return f"<{self.__lockstep_path__}, for use in kernels>"


class NumberType(Scalar):
    """The type of a number, such as ``cuda.float32``.

    ``t[:]`` and ``t(t, t)`` make types and signatures as in Numba, ``t(2)`` casts, in kernels too, and NumPy takes
    ``t`` for a dtype.
    """

    def __call__(self, *args: Any) -> Any:
        """Return a number cast to the type, or the signature of a function that returns it."""
        if len(args) == 1 and isinstance(args[0], (bool, int, float, complex, str, np.generic)):
            return self.dtype.type(args[0])
        return super().__call__(*args)

    def __repr__(self) -> str:
        return str(self)


TYPES: dict[str, Any] = {
    name: NumberType(given.dtype) if isinstance(given, Scalar) else given
    for name, given in NAMES.items()
    if isinstance(given, Type)
}
"""The types that ``cuda`` has by name."""


class AbsentError(UnsupportedConstructError, AttributeError):
    """The use of an attribute of what is absent: `hasattr` is False."""


class Absent:
    """A name that needs a GPU or Numba's compiler: it may be imported, and fails when it is used.

    Parameters
    ----------
    path : str
        The name, such as ``cuda.IpcHandle``.
    instead : str
        What to do.
    """

    def __init__(self, path: str, instead: str) -> None:
        self.__dict__["_absent"] = (path, instead)

    def _fail(self, used: str = "") -> UnsupportedConstructError:
        path, instead = self.__dict__["_absent"]
        return refusal(f"{path}{used}", instead)

    def __getattr__(self, name: str) -> Any:
        raise AbsentError(str(self._fail(f".{name}")))

    def __setattr__(self, name: str, value: Any) -> None:
        raise self._fail(f".{name}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise self._fail("()")

    def __getitem__(self, index: Any) -> Any:
        raise self._fail("[]")

    def __iter__(self) -> Any:
        raise self._fail()

    def __len__(self) -> int:
        raise self._fail()

    def __enter__(self) -> Any:
        raise self._fail()

    def __exit__(self, *error: object) -> None:
        raise self._fail()

    def __mro_entries__(self, bases: Any) -> Any:
        raise self._fail()

    def __instancecheck__(self, instance: Any) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<{self.__dict__['_absent'][0]}, absent from lockstep>"


class Namespace:
    """A module of ``numba.cuda`` with the names that the facade has of it; the others are absent.

    Parameters
    ----------
    path : str
        The module, such as ``cuda.cudadrv.driver``.
    **names
        What it holds.
    """

    def __init__(self, path: str, **names: Any) -> None:
        self.__dict__.update(names, _path=path)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return absent(f"{self.__dict__['_path']}.{name}")

    def __repr__(self) -> str:
        return f"<{self.__dict__['_path']} on lockstep>"


def declare_device(name: str, sig: Any = None, *args: Any, **kwargs: Any) -> Absent:
    """Return what stands for a device function in another language: a kernel that calls it is refused."""
    return absent(name, _OTHER_LANGUAGE)


class LinkableCode:
    """Code in another language, such as ``cuda.CUSource``: it may be made, and no kernel can call it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.arguments = args


_OTHER_LANGUAGE = "no code but Python's can be run, so write the function in Python"


class CudaSupportError(ImportError):
    """There is no CUDA; never raised, since there always is lockstep."""


class CudaDriverError(Exception):
    """The CUDA driver failed; never raised, since there is none."""


class CudaAPIError(CudaDriverError):
    """A call of the CUDA driver failed; never raised, since there is none."""


_NO_GPU = "it needs a GPU and its driver, so leave it out or skip it where there is none"


def absent(path: str, instead: str = _NO_GPU) -> Absent:
    """Return what stands for a name that is absent."""
    return Absent(path, instead)


def refusal(path: str, instead: str = _NO_GPU) -> UnsupportedConstructError:
    """Return the error for the use of what is absent."""
    return UnsupportedConstructError(f"the lockstep machine does not run {path}: {instead}")
