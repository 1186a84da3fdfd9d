"""`export`: writes a checkpoint, merged or not, as a safetensors or GGUF file or a folder of shards; whole or not at all."""

from __future__ import annotations

import functools
import html
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, final

from workbench.checkpoint import Checkpoint
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.files import hashing
from workbench.checkpoint.files.folders import METADATA, PIPELINE
from workbench.checkpoint.files.stopping import held_back
from workbench.checkpoint.files.writing import failing, replacing, replacing_folder
from workbench.engine.budget import Budget, uniform_plans, within
from workbench.engine.checks import (
    check_arguments,
    check_checkpoint,
    check_device,
    check_disk,
    check_places,
    check_sources,
    check_target,
    checked_bytes,
    checked_dtype,
)
from workbench.engine.containers import in_gguf, in_safetensors, names_in_gguf
from workbench.engine.costs import Cost, TypeChoice, as_html, by_block, by_choice, cost_plot, costs, in_words
from workbench.engine.files import File, Hashes, Known, Writing
from workbench.engine.folder_plan import FolderPlan, as_json, plan_folder, stale_in
from workbench.engine.header import QUANTISE, homeless, metadata
from workbench.engine.pool import usual_threads
from workbench.engine.quantising.asking import Quantise, Scaled, asked_for
from workbench.engine.quantising.choosing import QuantisedPlan, plain_plan, quantised_plan
from workbench.engine.quantising.formats import GGUF
from workbench.engine.quantising.losses import Loss
from workbench.engine.streaming import Findings
from workbench.errors import ExportError, MergeWarning, NonFiniteWarning, warn
from workbench.recipe import preflight
from workbench.tensors import Calculation, TensorInfo

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go
    import torch


@final
@dataclass(frozen=True)
class Exported:
    """A file or folder that was written: where, how many bytes of tensors and headers, in how many seconds, and what to know of it.

    `kept` is the share of a merge's change that is left after rounding to 8 bits or less; None where nothing was rounded so. `costs` has
    what that loses of every tensor that is written so, `choices` what types within `max_bytes` and each type alone would lose, estimated.
    """

    path: Path
    nbytes: int
    seconds: float
    note: str = ""
    kept: float | None = None
    costs: tuple[Cost, ...] = ()
    choices: tuple[TypeChoice, ...] = ()

    @property
    def loss(self) -> Loss:
        """What is lost of all tensors together: `.error`, `.kept`, `.change_error`."""
        return sum((one.loss for one in self.costs), Loss())

    def frame(self) -> pd.DataFrame:
        """What quantising costs, by block: `error` relative to the unquantised numbers; of what the merge changed `kept`, the share that
        is left along the change, and `change error`, relative to it, in which the noise is as well.
        """
        return by_block(self.costs)

    def choices_frame(self) -> pd.DataFrame:
        """The same of the types that were chosen within `max_bytes`, and of each type alone, with the megabytes of the file."""
        return by_choice(self.choices)

    def plot(self) -> go.Figure:
        """What quantising costs, by block."""
        return cost_plot(self.costs, self.path.name)

    def open(self) -> Checkpoint:
        """What was written as a checkpoint."""
        return open_checkpoint(self.path)

    def __str__(self) -> str:
        rate = self.nbytes / 1e6 / max(self.seconds, 1e-9)
        told = f"{self.path}: {self.nbytes / 1e6:.1f} MB in {self.seconds:.1f} s ({rate:.0f} MB/s)"
        return f"{told}; {self.note}" if self.note else told

    def _repr_html_(self) -> str:
        said = f"<code>{html.escape(str(self))}</code>"
        return said + "".join(as_html(frame) for frame in (self.choices_frame(), self.frame()) if len(frame))


def export(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    *,
    dtype: str | torch.dtype | None = None,
    scaled: Scaled = False,
    quantise: str | Mapping[str, Any] | None = None,
    max_bytes: int | str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    max_shard_size: int | str | None = None,
    strict: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Exported:
    """Write a checkpoint as a safetensors or GGUF file, or with `max_shard_size` as a folder that diffusers loads, tensor by tensor.

    `dtype` is float32, float16, bfloat16, float8_e4m3fn or float8_e5m2 (integers and markers keep theirs); by default each
    tensor has the dtype that `checkpoint.info` says. Values are rounded to the nearest; what lies beyond the largest of float8
    becomes that, with a warning of how many. Memory is bounded by half a gigabyte, or by the largest tensor, and the bytes do not
    depend on `threads` (default: the cores, at most 8). The recipe and the parents' sha256 go into the header (of a merge with
    tensors that lie in no file there is no recipe, which `.note` says).

    `scaled` writes float8 with a scale for each tensor, as ComfyUI reads it, or with `"row"` for each row, and leaves what has to stay
    precise as it is. `quantise` names such types, and then `dtype` is of what stays unquantised: of a file whose name ends in .gguf
    GGUF's (`"Q8_0"`, `"Q5_0"`, `"Q4_0"`, `"BF16"`, ...); of safetensors ComfyUI's (`"float8_e4m3fn"`, `"int8_tensorwise"`, `"nvfp4"`). Or a
    mapping: `{"default": "Q5_0", "blocks": {"double_blocks.*": "Q8_0"}, "keep": ["*.img_mod.*"]}`. What lies in no block, what the family's
    declaration names, and what has one dimension or is small stays unquantised; `keep` replaces the first two, and `[]` keeps neither.
    With `max_bytes` of the file (bytes, or `"6.5GB"`) each tensor gets the type with which the squared error of all is least, measured
    beforehand; `quantise` may still have `blocks` and `keep`. A denoiser alone becomes a GGUF as ComfyUI-GGUF writes it, a whole model one
    as stable-diffusion.cpp does. `.note` counts the types, `.frame()` has the error of each block and the share of the change that is left.

    `max_shard_size`, bytes or "5GB", fills shards in the order of the tensors; a larger tensor has one of its own. `config.json`
    is the first input's, corrected to the tensors that are written. When the first input is a pipeline, so is the folder:
    components that rules take whole from it are linked, the small files copied. `overwrite` replaces an older file, or the
    older model in a folder with all its shards; other files there are not touched. Without it nothing is replaced, not even what
    appears meanwhile.

    NaN or infinity in an input is a NonFiniteWarning, with `strict` a NonFiniteError; a change that float8 swallows is a MergeWarning.
    Raises MergeError if preflight finds an error, and ExportError if it cannot be written; then, as at Ctrl-C and SIGTERM, nothing is
    left behind and what was there is as it was. What a killed export left in the folder is removed first.
    """
    began = time.monotonic()
    check_checkpoint(checkpoint)
    path = Path(path).expanduser()
    saved = checked_dtype(path, dtype)
    check_arguments(path, threads, max_shard_size)
    asked = asked_for(path, quantise, saved, scaled, checked_bytes(path, max_bytes))
    saved = None if scaled else saved
    if asked and max_shard_size is not None:
        raise ExportError(f"{path}: diffusers loads no folder with scales beside weights; leave max_shard_size out, or write one file")
    with failing(path):  # a name that is too long, a folder that may not be read
        check_target(path, checkpoint, overwrite, folder=max_shard_size is not None)
    check_sources(path, checkpoint)
    source = checkpoint  # what is rounded no more lies where its configs lie
    checkpoint = checkpoint.with_dtype(saved) if saved else checkpoint
    judged = preflight(checkpoint)
    judged.raise_errors()
    for text in judged.warnings:
        warn(text, MergeWarning)
    infos = {key: checkpoint.info(key) for key in checkpoint}
    plan = None if max_shard_size is None else plan_folder(source, infos, max_shard_size)
    quantisers = plain_plan(path, infos, checkpoint.rounding)
    findings = Findings(strict, asked.told, "a type of more bits") if asked else Findings(strict)
    title = path.stem if plan is None else path.resolve().name
    with _hashing(checkpoint.sources() if checkpoint.parents else ()) as hashes:
        check_device(path, device)

        @functools.cache
        def said(folder: Path, known: Known) -> dict[str, str]:
            quantised = {QUANTISE: json.dumps(asked.as_data())} if asked else {}
            return {**metadata(checkpoint, folder, title, dict(known)), **quantised}

        calculation = Calculation(checkpoint.precision, device, findings.nonfinite)
        container = in_gguf(checkpoint) if path.suffix == GGUF else in_safetensors
        writing = Writing(checkpoint, quantisers, said, hashes, calculation, findings, threads, progress, container)
        chosen, choices = _chosen(path, writing, infos, asked) if asked else (None, ())
        writing = replace(writing, quantisers=chosen.quantisers) if chosen else writing
        nbytes = _write_file(path, writing, overwrite) if plan is None else _write_folder(path.resolve(), writing, plan, overwrite)
    for text in findings.texts():
        warn(text, NonFiniteWarning)
    for text in findings.swallowed():
        warn(text, MergeWarning)
    notes = [
        *_notes(source, checkpoint),
        *([chosen.note, in_words(findings.total)] if chosen else []),
        *(plan.notes if plan else ()),
        *findings.swallowed(),
    ]
    cost = costs(checkpoint, writing.quantisers, findings)
    return Exported(path, nbytes, time.monotonic() - began, "; ".join(notes), findings.total.kept, cost, choices)


def _chosen(path: Path, writing: Writing, infos: Mapping[str, TensorInfo], asked: Quantise) -> tuple[QuantisedPlan, tuple[TypeChoice, ...]]:
    """Which tensor is quantised as what, and what else a budget could have chosen."""
    dtype = writing.checkpoint.rounding
    if asked.max_bytes is None:
        return quantised_plan(path, writing.checkpoint, infos, asked, dtype), ()
    plans = uniform_plans(path, writing.checkpoint, infos, asked, dtype)
    return within(Budget(writing, _file(path, writing.checkpoint), plans), asked.max_bytes)


def _notes(source: Checkpoint, written: Checkpoint) -> Iterator[str]:
    if not written.parents:
        if written is not source and source.recipe and not written.recipe:
            yield f"without a recipe, for that of {source.name} is rounded already: to have one, build it and export that"
    elif names := homeless(written):
        lies = f"{' and '.join(names)} {'lies' if len(names) == 1 else 'lie'} in no file"
        yield f"without a recipe, for {lies}: to have one, export that first, and merge what `open` gives"


@contextmanager
def _hashing(parents: Sequence[Path]) -> Iterator[Hashes]:
    """The parents' sha256, in the making on a thread for each file, as far as there are cores: beside the first read."""
    stop, pool = Event(), ThreadPoolExecutor(usual_threads())
    try:
        with held_back():
            hashes = {parent: pool.submit(hashing.sha256, parent, stop) for parent in parents}
        yield hashes
    finally:
        with held_back():
            stop.set()
            pool.shutdown()


def _write_file(path: Path, writing: Writing, overwrite: bool) -> int:
    """Write one file; its bytes."""
    file = _file(path, writing.checkpoint)
    size = writing.size(file)
    with failing(path):
        check_disk(path, size)
        with replacing(path, overwrite) as temporary:
            writing.write({temporary: file})
            check_sources(path, writing.checkpoint)
    return size


def _file(path: Path, checkpoint: Checkpoint) -> File:
    """The one file that holds all tensors."""
    return File(path, names_in_gguf(checkpoint) if path.suffix == GGUF else {key: key for key in checkpoint})


def _write_folder(path: Path, writing: Writing, plan: FolderPlan, overwrite: bool) -> int:
    """Write a folder; the bytes of its new files of tensors."""
    files = [File(path / file.place, file.names) for file in plan.files]
    size = sum(map(writing.size, files))
    places = [*(file.place for file in plan.files), *plan.links, *plan.copies, *plan.texts]

    def stale() -> Iterable[Path]:
        return stale_in(path) if path.is_dir() else ()

    with failing(path):
        check_disk(path, size)
        check_places(path, [*places, *([Path(PIPELINE)] if plan.pipeline is not None else [])])
        list(stale())  # an index that cannot be read is to be known now
    with failing(path), replacing_folder(path, stale, overwrite) as folder:
        for place in places:
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
        for place, source in plan.copies.items():
            shutil.copyfile(source, folder / place)
        known = writing.write({folder / planned.place: file for planned, file in zip(plan.files, files, strict=True)})
        for place, source in plan.links.items():  # now that it is hashed: a new name counts as a change of the file
            _link(source, folder / place)
        check_sources(path, writing.checkpoint)
        texts = dict(plan.texts)
        if plan.pipeline is not None:
            texts[Path(PIPELINE)] = as_json(plan.pipeline | {METADATA: dict(writing.metadata(path, known))})
        for place, text in texts.items():
            (folder / place).write_text(text, encoding="utf-8")
    return size


def _link(source: Path, target: Path) -> None:
    """A second name for a file of weights; a copy on another disk, or one without links."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
