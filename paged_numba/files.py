"""Output files: written whole or not at all, and never the same file twice."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import Any


def write(path: str | Path, content: str | bytes) -> None:
    """Write a text, as UTF-8, or bytes to a file; an old file stays as it was until the new one is complete.

    The content goes to a new file in the same folder, which then takes the name; permissions stay, and a symbolic link
    still points to the file. A device or a pipe is written directly, and so is a file that cannot be replaced, such as
    one in a folder where no file can be made. Standard output under a name, such as ``/dev/stdout``, is written through
    ``sys.stdout``.

    Raises
    ------
    OSError
        The file cannot be written; its `filename` is `path`.
    """
    found = _found(path)
    stream = _own_stream(found)
    if stream is not None:
        if isinstance(content, bytes):
            stream.flush()
            stream.buffer.write(content)
        else:
            stream.write(content)
        stream.flush()
        return
    target = os.path.realpath(path)
    if found is not None and not (stat.S_ISREG(found.st_mode) and _found(target)):
        # Neither a device nor a file without a name, such as that of a descriptor, can be replaced.
        _write(path, content)
    elif found is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    else:
        try:
            replaced = _replace(target, content, found)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        if not replaced:
            _write(path, content)


def _own_stream(found: os.stat_result | None) -> Any:
    """Return ``sys.stdout`` or ``sys.stderr`` if it is the file that was found, None otherwise."""

    def opened(stream: Any) -> os.stat_result | None:
        try:
            return os.fstat(stream.fileno())
        except (AttributeError, OSError, ValueError):  # closed, or no file
            return None

    for stream in (sys.stdout, sys.stderr):
        file = opened(stream)
        if found is not None and file is not None and os.path.samestat(file, found):
            return stream
    return None


def _found(path: str | Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _write(path: str | Path, content: str | bytes) -> None:
    if isinstance(content, str):
        # With the line ends of the system. A text may hold surrogates: the bytes of a file name that are not UTF-8.
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(content)
    else:
        Path(path).write_bytes(content)


def _replace(target: str, content: str | bytes, old: os.stat_result | None) -> bool:
    """Write a new file and give it the name `target`; return False if the old file can only be written in place."""
    new = os.path.join(os.path.dirname(target), f".{os.urandom(8).hex()}.tmp")
    try:
        # Not `tempfile`, whose files nobody else may read: the mode is that of any new file.
        handle = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except OSError:
        if old is not None:
            return False
        raise
    try:
        os.close(handle)
        _write(new, content)
        if old is not None:
            os.chmod(new, stat.S_IMODE(old.st_mode))
        os.replace(new, target)
    except BaseException as error:
        os.unlink(new)
        kept = (errno.EPERM, errno.EACCES, errno.EBUSY, errno.EXDEV)
        if old is not None and isinstance(error, OSError) and error.errno in kept:
            return False
        raise
    return True


def same_file(one: str | Path, other: str | Path) -> bool:
    """Tell whether two names mean the same regular file, whether or not it exists; devices and pipes do not count."""
    first, second = _found(one), _found(other)
    if first is not None and second is not None:
        return stat.S_ISREG(first.st_mode) and os.path.samestat(first, second)
    if first is not None or second is not None:
        return False
    a, b = os.path.realpath(one), os.path.realpath(other)
    if os.path.dirname(a) == os.path.dirname(b) and _ignores_case(os.path.dirname(a)):
        a, b = a.casefold(), b.casefold()
    return a == b


def _ignores_case(folder: str) -> bool:
    """Tell whether file names in a folder ignore case: whether its own path in swapped case leads to it."""
    other = folder.swapcase()
    return other != folder and os.path.exists(other) and os.path.samefile(folder, other)
