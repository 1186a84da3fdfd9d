"""What an export refuses: arguments that cannot be, targets that must not be touched, inputs that have changed. Writes nothing."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.files.temporary import visible
from workbench.engine.quantising.formats import GGUF
from workbench.errors import ExportError
from workbench.merge.node import DTYPES
from workbench.tensors import SavedDtype, Space

if TYPE_CHECKING:
    import torch

_FILES = (".safetensors", GGUF)
_SPARE = 1 << 20  # bytes of free disk that are left alone
_SIZE = re.compile(r"\d+(\.\d+)? ?[KMGT]B", re.IGNORECASE)  # as huggingface writes it: powers of 1000


def check_checkpoint(checkpoint: object) -> None:
    """Raise ExportError for what is no model."""
    if not isinstance(checkpoint, Checkpoint):
        raise ExportError(f"export takes a checkpoint (see workbench.open), got {checkpoint!r}")
    if checkpoint.space is Space.DELTA:
        raise ExportError(
            f"{checkpoint.name} holds changes, not a model: workbench.lora.export writes a LoRA; add_delta adds it to a model"
        )


def check_arguments(path: Path, threads: int | None, max_shard_size: int | str | None) -> None:
    """Raise ExportError for an argument that cannot be."""
    if max_shard_size is None:
        if path.suffix not in _FILES:
            told = "an exported file's name ends in .safetensors or .gguf; for a folder of shards, give max_shard_size"
            raise ExportError(f"{path}: {told}")
    elif path.suffix in _FILES:
        raise ExportError(f"{path}: with max_shard_size a folder is written; leave {path.suffix} off, or max_shard_size out")
    elif not _is_size(max_shard_size):
        raise ExportError(f"{path}: max_shard_size must be bytes, or text like '5GB' (KB, MB, GB, TB), got {max_shard_size!r}")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise ExportError(f"{path}: threads must be a whole number of 1 or more, got {threads!r}")


def checked_dtype(path: Path, given: str | torch.dtype | None) -> SavedDtype | None:
    """The dtype by its name. Raises ExportError for one that nothing is written in."""
    dtype = None if given is None else str(given).removeprefix("torch.")
    if dtype not in DTYPES:
        raise ExportError(f"{path}: dtype must be one of {', '.join(map(repr, DTYPES[1:]))}, got {dtype!r}")
    return dtype


def _is_size(given: object) -> bool:
    if isinstance(given, str):
        return _SIZE.fullmatch(given) is not None
    return isinstance(given, int) and not isinstance(given, bool) and given > 0


def checked_bytes(path: Path, given: int | str | None) -> int | None:
    """`max_bytes` as a number. Raises ExportError for what is no size."""
    if given is None:
        return None
    if not _is_size(given):
        raise ExportError(f"{path}: max_bytes must be bytes, or text like '6.5GB' (KB, MB, GB, TB), got {given!r}")
    if isinstance(given, int):
        return given
    return int(float(given[:-2]) * 1000 ** (1 + "KMGT".index(given[-2].upper())))


def check_device(path: Path, device: str) -> None:
    """Raise ExportError for a device that is not to be had."""
    import torch

    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ExportError(f"{path}: device {device!r} is not to be had here: {str(error).splitlines()[0]}") from error


def check_sources(path: Path, checkpoint: Checkpoint) -> None:
    """Raise ExportError for an input that has changed: the header is to name what was read, and it has another sha256 now."""
    for source in checkpoint.replaced():
        raise ExportError(f"{path}: {source} was changed or replaced after it was opened; open it again")


def check_target(path: Path, checkpoint: Checkpoint, overwrite: bool, folder: bool) -> None:
    """Raise ExportError for a file or `folder` that holds an input, or is there and not to be replaced."""
    for source in checkpoint.sources():
        if path.is_file() and source.exists() and path.samefile(source):
            raise ExportError(f"{path}: is one of the inputs; give the result another name")
        if folder and any(place.is_relative_to(path.resolve()) for place in (source.absolute(), source.resolve())):
            raise ExportError(f"{path}: the input {source} lies in it; give the result a folder of its own")
    if folder and path.exists() and not path.is_dir():
        raise ExportError(f"{path}: is a file; with max_shard_size a folder is written, give it another name")
    if not folder and path.is_dir():
        raise ExportError(f"{path}: is a folder; give the name of a file")
    there = bool(visible(path)) if path.is_dir() else os.path.lexists(path)
    if there and not overwrite:
        what = "is not empty" if folder else "is there already"
        raise ExportError(f"{path}: {what}; give another name, or overwrite=True (--overwrite)")


def check_disk(path: Path, size: int) -> None:
    """Raise ExportError where there is no folder, or no room for `size` bytes."""
    if not path.parent.is_dir():
        raise ExportError(f"{path}: there is no folder {path.parent}; make it first")
    free = shutil.disk_usage(path if path.is_dir() else path.parent).free  # a folder may be a disk of its own
    if free < size + _SPARE:
        raise ExportError(f"{path}: needs {size / 1e6:.1f} MB, and {free / 1e6:.1f} MB of disk are free; nothing was written")


def check_places(path: Path, places: Iterable[Path]) -> None:
    """Raise ExportError where a file of a folder to be written can have no place: something else has it, or another disk begins there."""
    for place in places:
        for above in [above for above in place.parents if above.parts and os.path.lexists(path / above)]:
            if not (path / above).is_dir():
                raise ExportError(f"{path / above}: is a file where a folder is to be; move it away, or give another name")
            if not (path / above).is_symlink() and (path / above).stat().st_dev != path.stat().st_dev:
                raise ExportError(f"{path / above}: is another disk inside {path}; unmount it, or give another name")
        if (path / place).is_dir():
            raise ExportError(f"{path / place}: is a folder where a file is to be; move it away, or give another name")
