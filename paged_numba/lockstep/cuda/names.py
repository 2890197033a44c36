"""`DeviceName`: names of ``cuda`` that have a meaning only inside kernels."""

from __future__ import annotations

from typing import Any


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
