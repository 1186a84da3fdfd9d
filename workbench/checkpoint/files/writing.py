"""Writes files and folders that are either whole or not there: under a temporary name, fsynced, renamed. Also safetensors headers."""

from __future__ import annotations

import errno
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from workbench.checkpoint.files.journal import JOURNAL, NEW, discard, exchange, settle, take_all_back, take_back
from workbench.checkpoint.files.leftovers import clear
from workbench.checkpoint.files.stopping import stoppable
from workbench.checkpoint.files.temporary import create_locked, create_locked_folder, flush, folder_locked, hidden_beside, visible
from workbench.errors import ExportError, WorkbenchError
from workbench.tensors import TensorInfo, dtype_code

if TYPE_CHECKING:
    import torch

_ALIGNMENT = 8
_PREFIX = 8  # bytes of the header's length
_SEEKING = Lock()


@contextmanager
def replacing(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well and vanishes when it does not.

    Without `overwrite` it takes no place that is somebody's, even if only since the block began: ExportError. What killed processes
    have left in the folder is removed first.
    """
    if not path.parent.is_dir():
        raise ExportError(f"{path}: there is no folder {path.parent}; make it first")
    clear(path.parent)
    temporary = hidden_beside(path, path.parent)
    with stoppable(), _vanishing(path, partial(temporary.unlink, missing_ok=True)), create_locked(temporary) as lock:
        yield temporary
        flush(temporary)
        if os.name == "nt":  # an open file keeps its name there
            lock.close()
        if overwrite:
            temporary.replace(path)
        else:
            with _refusing(path):
                settle(temporary, path)
    flush(path.parent)


@contextmanager
def replacing_folder(path: Path, stale: Callable[[], Iterable[Path]], overwrite: bool = True) -> Iterator[Path]:
    """A temporary folder, whose files take their places in `path` when the block ends well, and which vanishes when it does not.

    Of what lies in `path`, the `stale` files and those that the new one has too are replaced; nothing else is moved. A process that
    is killed while they are exchanged leaves a journal, with which `heal` puts the old ones back.
    """
    clear(path.parent)
    clear(path)
    stage = hidden_beside(path, path if path.is_dir() else path.parent)
    with stoppable(), _vanishing(path, partial(discard, stage)), create_locked_folder(stage) as lock:
        new = stage / NEW
        new.mkdir()
        yield new
        for folder, names in _contents(new).items():
            for file in [folder / name for name in names]:
                if file.stat().st_nlink == 1:  # what a link leads to is on the disk already
                    flush(file)
            flush(folder)
        if stage.parent == path:
            with folder_locked(path):
                _exchange(stage, stale, overwrite)
        else:
            with _refusing(path):
                new.rename(path)  # whole at once; it replaces nothing but an empty folder
        if os.name == "nt":
            lock.close()
    flush(path.parent)


def _exchange(stage: Path, stale: Callable[[], Iterable[Path]], overwrite: bool) -> None:
    """Put the new files into their folder, as it is by now."""
    folder, staged = stage.parent, stage / NEW
    take_all_back(folder)
    if not overwrite and visible(folder):
        raise ExportError(_appeared(folder))
    new = [(above / name).relative_to(staged) for above, names in _contents(staged).items() for name in names]
    old = {*(file.relative_to(folder) for file in stale()), *_in_the_way(folder, new)}
    try:
        exchange(stage, old, new)
    except BaseException:
        if os.path.lexists(stage / JOURNAL):
            take_back(stage)
        raise


def _contents(folder: Path) -> dict[Path, list[str]]:
    """The names of all files in a folder and the folders inside. Raises OSError, where `rglob` would leave out what it cannot see."""

    def fail(error: OSError) -> None:
        raise error

    return {Path(above): names for above, _, names in os.walk(folder, onerror=fail)}


def _in_the_way(folder: Path, places: Iterable[Path]) -> Iterator[Path]:
    """What has the place of a new file; or the link to a folder elsewhere, through which nothing is written."""
    for place in places:
        if links := [above for above in place.parents if (folder / above).is_symlink() and above.parts]:
            yield links[-1]
        elif os.path.lexists(folder / place):
            yield place


@contextmanager
def _vanishing(path: Path, remove: Callable[[], None]) -> Iterator[None]:
    """Remove what is hidden when the block has ended, however it ends; and say where that cannot be done."""
    try:
        yield
        with suppress(OSError):  # the next export tries again
            remove()
    except BaseException as error:
        try:
            remove()
        except OSError as problem:
            if isinstance(error, OSError | WorkbenchError):
                told = f"{_reason(error)}; and what is hidden beside or inside could not be removed, or put back: {_reason(problem)}"
                raise ExportError(f"{path}: could not be written: {told}; the next export into the folder tries again") from error
        raise


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise ExportError(_appeared(path)) from None
    except OSError as error:
        raise ExportError(_appeared(path)) if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR) else error from None


def _appeared(path: Path) -> str:
    return f"{path}: has appeared while this was written, and is not replaced; give another name, or overwrite=True (--overwrite)"


@contextmanager
def failing(path: Path, kind: type[WorkbenchError] = ExportError) -> Iterator[None]:
    """Say of an OSError in the block that `path` could not be written; `kind` is the error that says it."""
    try:
        yield
    except OSError as error:
        raise kind(f"{path}: could not be written: {_reason(error)}; nothing was left behind") from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


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


def write_safetensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors that are in memory; the same bytes each time, which the library's own order of metadata is not."""
    import torch

    infos = {key: TensorInfo(tuple(tensor.shape), dtype_code(tensor.dtype)) for key, tensor in tensors.items()}
    header, begins = safetensors_header(infos, metadata)
    with path.open("wb") as file:
        file.write(header)
        for key in sorted(begins, key=begins.__getitem__):
            file.write(tensors[key].contiguous().reshape(-1).view(torch.uint8).numpy().data)


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
