"""`export`: writes a checkpoint, merged or not, as one safetensors file; whole or not at all."""

from __future__ import annotations

import html
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, final

from workbench.checkpoint import Checkpoint, hashing
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.architecture import is_marker
from workbench.checkpoint.writing import replacing, safetensors_header, write_at
from workbench.engine.header import homeless, metadata
from workbench.engine.parts import jobs
from workbench.engine.streaming import Findings, stream
from workbench.errors import ExportError, MergeWarning, NonFiniteWarning, warn
from workbench.merge.node import DTYPES, merge_in, with_dtype
from workbench.recipe import preflight
from workbench.tensors import Calculation, Space, TensorInfo

if TYPE_CHECKING:
    import torch

Infos = Mapping[str, TensorInfo]
Hashes = Mapping[Path, Future[str]]

_SPARE = 1 << 20  # bytes of free disk that are left alone


@final
@dataclass(frozen=True)
class Exported:
    """A file that was written: where, how many bytes, in how many seconds, and what to know of it."""

    path: Path
    nbytes: int
    seconds: float
    note: str = ""

    def open(self) -> Checkpoint:
        """The file as a checkpoint."""
        return open_checkpoint(self.path)

    def __str__(self) -> str:
        rate = self.nbytes / 1e6 / max(self.seconds, 1e-9)
        told = f"{self.path}: {self.nbytes / 1e6:.1f} MB in {self.seconds:.1f} s ({rate:.0f} MB/s)"
        return f"{told}; {self.note}" if self.note else told

    def _repr_html_(self) -> str:
        return f"<code>{html.escape(str(self))}</code>"


def export(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    *,
    dtype: str | torch.dtype | None = None,
    device: str = "cpu",
    threads: int | None = None,
    strict: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Exported:
    """Write a checkpoint as a safetensors file, tensor by tensor.

    `dtype` is float32, float16, bfloat16, float8_e4m3fn or float8_e5m2 (integers and markers keep theirs); by default each
    tensor has the dtype that `checkpoint.info` says. Values are rounded to the nearest; what lies beyond the largest of float8
    becomes that, with a warning of how many. Memory is bounded by half a gigabyte, or by the largest tensor, and the bytes do not
    depend on `threads` (default: the cores, at most 8). The recipe and the parents' sha256 go into the header (of a merge with
    tensors that lie in no file there is no recipe, which `.note` says). NaN or infinity
    in an input is a NonFiniteWarning, with `strict` a NonFiniteError. Raises MergeError if preflight finds an error, and
    ExportError if the file cannot be written; then, as at Ctrl-C, nothing is left behind and an older file is as it was.
    """
    if not isinstance(checkpoint, Checkpoint):
        raise ExportError(f"export takes a checkpoint (see workbench.open), got {checkpoint!r}")
    if checkpoint.space is Space.DELTA:
        raise ExportError(
            f"{checkpoint.name} holds changes, not a model: workbench.lora.export writes a LoRA; add_delta adds it to a model"
        )
    path = Path(path).expanduser()
    began = time.monotonic()
    dtype = str(dtype).removeprefix("torch.") if dtype is not None else None
    _check_arguments(path, dtype, threads)
    _check_target(path, checkpoint, overwrite)
    _check_sources(path, checkpoint)
    judged = preflight(checkpoint)
    judged.raise_errors()
    for text in judged.warnings:
        warn(text, MergeWarning)
    precision = "float32"
    if (merge := merge_in(checkpoint)) is not None:
        checkpoint = with_dtype(checkpoint, dtype) if dtype else checkpoint
        precision = merge.settings.precision
    infos = {key: checkpoint.info(key) for key in checkpoint}
    if dtype:
        infos = {key: info if is_marker(key) else info.with_dtype(dtype) for key, info in infos.items()}
        if checkpoint.structure.scaled:
            raise ExportError(f"{path}: the fp8 weights are scaled, and their scales are not understood; copy them without dtype")
    findings = Findings(strict)
    with _hashing(checkpoint.sources() if merge is not None else ()) as hashes:
        _check_device(path, device)
        _write(checkpoint, path, infos, Calculation(precision, device, findings.nonfinite), findings, hashes, threads, progress)
    for text in findings.texts():
        warn(text, NonFiniteWarning)
    return Exported(path, path.stat().st_size, time.monotonic() - began, _note(checkpoint))


def _note(checkpoint: Checkpoint) -> str:
    names = homeless(checkpoint) if merge_in(checkpoint) else []
    if not names:
        return ""
    lies = f"{' and '.join(names)} {'lies' if len(names) == 1 else 'lie'} in no file"
    return f"without a recipe, for {lies}: to have one, export that first, and merge what `open` gives"


@contextmanager
def _hashing(parents: Sequence[Path]) -> Iterator[Hashes]:
    """The parents' sha256, in the making on a thread of their own: beside the first read, and while torch is loaded."""
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        try:
            yield {parent: pool.submit(hashing.sha256, parent, stop) for parent in parents}
        finally:
            stop.set()


def _write(
    checkpoint: Checkpoint,
    path: Path,
    infos: Infos,
    calculation: Calculation,
    findings: Findings,
    hashes: Hashes,
    threads: int | None,
    progress: bool,
) -> None:
    # every sha256 has the same length, so the size of the header is known before they are
    header, begins = safetensors_header(infos, metadata(checkpoint, path, {file: f"{i:064}" for i, file in enumerate(hashes)}))
    size = len(header) + sum(info.nbytes for info in infos.values())
    _check_disk(path, size)
    try:
        with replacing(path) as temporary, temporary.open("r+b", buffering=0) as file:
            _reserve(file.fileno(), size)

            def write(key: str, first: int, data: memoryview) -> None:
                write_at(file.fileno(), data, begins[key] + first * infos[key].itemsize)

            work = jobs(checkpoint, [(key, infos[key]) for key in begins])
            stream(checkpoint, work, calculation, findings, write, threads=threads, progress=progress)
            known = {file: hashed.result() for file, hashed in hashes.items()}
            _check_sources(path, checkpoint)
            final, _ = safetensors_header(infos, metadata(checkpoint, path, known), len(header))
            write_at(file.fileno(), memoryview(final), 0)
    except OSError as error:
        raise ExportError(f"{path}: could not be written: {error.strerror or error}; nothing was left behind") from error


def _check_arguments(path: Path, dtype: str | None, threads: int | None) -> None:
    """Raise ExportError for an argument that cannot be."""
    if path.suffix != ".safetensors":
        raise ExportError(f"{path}: an exported file's name ends in .safetensors")
    if dtype not in DTYPES:
        raise ExportError(f"{path}: dtype must be one of {', '.join(map(repr, DTYPES[1:]))}, got {dtype!r}")
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise ExportError(f"{path}: threads must be a whole number of 1 or more, got {threads!r}")


def _check_device(path: Path, device: str) -> None:
    import torch

    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ExportError(f"{path}: device {device!r} is not to be had here: {str(error).splitlines()[0]}") from error


def _check_sources(path: Path, checkpoint: Checkpoint) -> None:
    """The header is to name what was read: a file that has changed since has another sha256."""
    for source in checkpoint.replaced():
        raise ExportError(f"{path}: {source} was changed or replaced after it was opened; open it again")


def _check_target(path: Path, checkpoint: Checkpoint, overwrite: bool) -> None:
    for source in checkpoint.sources():
        if path.exists() and source.exists() and path.samefile(source):
            raise ExportError(f"{path}: is one of the inputs; give the result another name")
    if path.is_dir():
        raise ExportError(f"{path}: is a folder; give the name of a file")
    if path.exists() and not overwrite:
        raise ExportError(f"{path}: is there already; give another name, or overwrite=True (--overwrite)")


def _check_disk(path: Path, size: int) -> None:
    if not path.parent.is_dir():
        raise ExportError(f"{path}: there is no folder {path.parent}; make it first")
    free = shutil.disk_usage(path.parent).free
    if free < size + _SPARE:
        raise ExportError(f"{path}: needs {size / 1e6:.1f} MB, and {free / 1e6:.1f} MB of disk are free; nothing was written")


def _reserve(handle: int, size: int) -> None:
    """Take the disk space now: a full disk shows before an hour of work, and the file lies in one piece."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.truncate(handle, size)
