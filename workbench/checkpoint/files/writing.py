"""Writes files and folders that are either whole or not there: under a temporary name, fsynced, renamed. Also safetensors headers."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from workbench.errors import ExportError
from workbench.tensors import TensorInfo

_ALIGNMENT = 8
_PREFIX = 8  # bytes of the header's length
_SEEKING = Lock()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well and vanishes when it does not."""
    if not path.parent.is_dir():
        raise ExportError(f"{path}: there is no folder {path.parent}; make it first")
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        _flush(path.parent)


@contextmanager
def replacing_folder(path: Path, stale: Collection[Path]) -> Iterator[Path]:
    """A temporary folder beside `path`, which takes its place when the block ends well and vanishes when it does not.

    Of what lies in an older folder, the `stale` files and those that the new one has too are removed; all else stays.
    """
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        for place in [*temporary.rglob("*"), temporary]:
            if place.is_dir() or place.stat().st_nlink == 1:  # what a link leads to is on the disk already
                _flush(place)
        _exchange(temporary, path, stale)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _exchange(new: Path, path: Path, stale: Collection[Path]) -> None:
    """Put `new` in the place of `path`, and then back what is to stay."""
    if not path.exists() or not any(path.iterdir()):
        if path.exists():
            path.rmdir()
        new.rename(path)
        return
    staying = [file.relative_to(path) for file in _leaves(path) if file not in stale]
    older = new.with_suffix(".old")
    path.rename(older)
    try:
        new.rename(path)
    except BaseException:
        older.rename(path)
        raise
    for place in staying:
        if not os.path.lexists(path / place):
            (path / place).parent.mkdir(parents=True, exist_ok=True)
            (older / place).rename(path / place)
    shutil.rmtree(older)


def _leaves(folder: Path) -> Iterator[Path]:
    """Every file, link and empty folder in a folder."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink() and any(entry.iterdir()):
            yield from _leaves(entry)
        else:
            yield entry


def write_at(handle: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at a place of an open file; several threads may do so at once."""
    while data:
        if hasattr(os, "pwrite"):
            count = os.pwrite(handle, data, offset)
        else:  # Windows has no positional write
            with _SEEKING:
                os.lseek(handle, offset, os.SEEK_SET)
                count = os.write(handle, data)
        data, offset = data[count:], offset + count


def safetensors_header(tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str], length: int = 0) -> tuple[bytes, dict[str, int]]:
    """The bytes before the data (at least `length`), and where in the file each tensor begins.

    Tensors with the largest elements come first, so that all are aligned.
    """
    order = sorted(tensors, key=lambda key: -tensors[key].itemsize)
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    offset, begins = 0, {}
    for key in order:
        begins[key] = offset
        header[key] = {
            "dtype": tensors[key].code,
            "shape": list(tensors[key].shape),
            "data_offsets": [offset, offset + tensors[key].nbytes],
        }
        offset += tensors[key].nbytes
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text = text.ljust(length - _PREFIX) + b" " * (-max(len(text), length - _PREFIX) % _ALIGNMENT)
    start = _PREFIX + len(text)
    return struct.pack("<Q", len(text)) + text, {key: start + begin for key, begin in begins.items()}


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
