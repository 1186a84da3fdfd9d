"""Writes LoRAs in the formats that programs read. How modules are called there is in `module_names`; reading lies in `checkpoint`."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.files.writing import failing, replacing, write_safetensors
from workbench.checkpoint.views.in_memory import InMemory
from workbench.checkpoint.views.layouts import spelled
from workbench.checkpoint.views.low_rank import Factors, LowRank
from workbench.errors import ExportError, MergeWarning, warn
from workbench.families import GENERIC
from workbench.lora.header import metadata
from workbench.lora.laying import laid
from workbench.lora.module_names import Format, module_name, naming, unread
from workbench.tensors import SavedDtype
from workbench.wording import listed

if TYPE_CHECKING:
    import torch

    from workbench.figures.results import Result

_READERS = {
    "kohya": "kohya's tools do not load",
    "peft": "transformers' text encoder does not have",
    "original": "have no name there",
}


def export(
    lora: LowRank,
    path: str | os.PathLike[str],
    *,
    format: Format = "kohya",
    dtype: SavedDtype = "float16",
    base: Checkpoint | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a LoRA to a `.safetensors` file, and return where it lies; it is either whole or not there.

    - `kohya`: what sd-scripts and musubi-tuner write and load (`lora_unet_..., lora_te_...`, an alpha beside each pair). All programs
      read it for SD and Flux: the one to share. Modules that kohya's tools do not load are left out.
    - `peft`: diffusers' modules in PEFT's names (`unet....lora_A.weight`) and its settings in the header, for `pipe.load_lora_weights`.
      ComfyUI reads it for transformers; of U-Nets it loses all attention but for a line on the console.
    - `comfy`: every module as ComfyUI has it (`diffusion_model....lora_A.weight`), which ai-toolkit writes too.
    - `original`: the modules of the authors' own files in PEFT's names, for their code.

    Changes are cut and joined as the format's layout has the tensors: of Flux, kohya's queries, keys and values are one change, with
    the ranks of all three; of OpenCLIP they are three in every format. Scales are multiplied into the factors; in `kohya` all pairs have
    the one alpha that most of them had. Whole
    changes (`diff`, `diff_b`) are read by A1111, Forge and ComfyUI alone, and only `kohya` and `comfy` can hold them. `base` is a
    model that the LoRA is for, where its own names and header do not tell its architecture.

    Raises ExportError for a target that is there already (unless `overwrite`), for what the names cannot hold, and for an
    unknown format or dtype, and CheckpointError for a layout that its model cannot be put into. Nothing is written then. Warns
    (MergeWarning) of the modules that are left out.

    Source: kohya-ss/sd-scripts, networks/lora.py; diffusers, loaders/lora_base.py; ComfyUI, comfy/lora.py.
    """
    path = Path(path)
    if not isinstance(lora, LowRank):
        raise ExportError(f"{path}: a LoRA is written here, got {lora!r}; workbench.export writes models")
    if path.suffix != ".safetensors":
        raise ExportError(f"{path}: a LoRA's name ends in .safetensors")
    for name, given, allowed in (("format", format, Format), ("dtype", dtype, SavedDtype)):
        if given not in get_args(allowed):
            raise ExportError(f"{path}: {name} must be one of {', '.join(map(repr, get_args(allowed)))}, got {given!r}")
    if os.path.lexists(path) and not overwrite:
        raise ExportError(f"{path}: is there already; choose another name or overwrite=True")
    if path.resolve() in {source.resolve() for source in lora.sources()}:
        raise ExportError(f"{path}: is the LoRA itself; choose another name")
    lora = lora if base is None else lora.for_model(base)
    _check_kinds(lora, path, format)
    lora = _laid(lora, path, format)
    modules = _modules(lora, path, format)
    alpha = _alpha(lora, modules)
    tensors = dict(_tensors(lora, modules, alpha, path, format, dtype))
    with failing(path), replacing(path, overwrite) as temporary:
        write_safetensors(temporary, tensors, metadata(lora, modules, path.stem, format, alpha))
    return path


def lora_of(
    pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]], whole: Mapping[str, torch.Tensor], name: str, model: Checkpoint
) -> LowRank:
    """A LoRA in memory, for tensors of a model under its own names.

    `pairs` holds matrices up (rows x rank) and down (rank x the rest, flat) whose product is the change of a `.weight`;
    `whole` the whole change of a `.weight` or `.bias`.
    """
    return in_memory({key: (*pair, model.info(key).shape) for key, pair in pairs.items()}, whole, name, model)


def in_memory(
    pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor, tuple[int, ...]]],
    whole: Mapping[str, torch.Tensor],
    name: str,
    model: Checkpoint,
    report: Result | None = None,
) -> LowRank:
    """As `lora_of`, with each change's shape beside its factors; `report` is what there is to say of it."""
    tensors = {}
    for key, (up, down, shape) in pairs.items():
        module = key.removesuffix(".weight")
        tensors[f"{module}.lora_up.weight"] = up.reshape(*up.shape, *[1] * (len(shape) - 2))
        tensors[f"{module}.lora_down.weight"] = down.reshape(len(down), *shape[1:])
    for key, change in whole.items():
        tensors[f"{key.removesuffix('.bias')}.diff_b" if key.endswith(".bias") else f"{key.removesuffix('.weight')}.diff"] = change
    return LowRank(InMemory(tensors, name), report, model)


def _laid(lora: LowRank, path: Path, format: Format) -> LowRank:
    """The LoRA in the layout that a format has for its model; of U-Nets tensors are neither cut nor joined, only named otherwise."""
    structure = lora.structure
    if structure.family is GENERIC and structure.denoiser != "unet" and structure.denoiser in lora.components:
        written_so = "kohya" if any(key.startswith("lora_") for key in lora.holder) else "peft"
        if written_so == format:
            return lora  # it has this format's names already
        told = f"the names in {lora.name} ({next(iter(lora))!r}, ...) do not tell which model it is for, and so what {format!r} calls them"
        raise ExportError(f"{path}: {told}; give base=, a model that it fits")
    return laid(lora, spelled(lora, naming(structure, format)))


def _check_kinds(lora: LowRank, path: Path, format: Format) -> None:
    """Raise ExportError for changes that the names cannot hold; warn of those that are written in another kind than they are."""
    kinds = {key: lora.kind(key) for key, entry in lora.entries.items() if not isinstance(entry, Factors)}
    if kinds and format not in ("kohya", "comfy"):
        key, kind = next(iter(kinds.items()))
        told = "is changed as a whole" if kind == "full" else f"is changed by a {kind}"
        raise ExportError(f"{path}: {key!r} {told}, which {format!r} names cannot hold; choose format='kohya' or 'comfy'")
    if others := {kind: key for key, kind in kinds.items() if kind != "full"}:
        told = f"the changes of {' and '.join(others)} ({listed(others.values())}) are written whole, as they are"
        warn(f"{path}: {told}, which A1111, Forge and ComfyUI read and kohya's tools and diffusers do not", MergeWarning)


def _modules(lora: LowRank, path: Path, format: Format) -> dict[str, str]:
    """The name in the file of each tensor's module; warns of those that the format's readers do not have, which are left out."""
    structure = lora.structure
    names = {key: module_name(structure, key, format, path) for key in lora}
    left = [key for key, entry in lora.entries.items() if isinstance(entry, Factors) and unread(structure, key, format)]
    if len(left) == len(names):
        raise ExportError(f"{path}: {lora.name} changes only modules that {_READERS[format]} ({listed(left)}); choose format='comfy'")
    if left:
        told = f"{len(left)} tensors are left out, of modules that {_READERS[format]}: {listed([names[key] for key in left], len(left))}"
        warn(f"{path}: {told}; format='comfy' holds all of them", MergeWarning)
    return {key: name for key, name in names.items() if key not in left}


def _alpha(lora: LowRank, modules: Mapping[str, str]) -> float:
    """The one alpha of all pairs in a kohya file: what most of them have.

    diffusers takes it for the attention of U-Nets whatever the pairs' own alphas are (`_get_alpha_name` loses their names).
    """
    pairs = [entry for key in modules if isinstance(entry := lora.entries[key], Factors)]
    alphas = Counter(entry.scale * entry.rank for entry in pairs if entry.scale)
    return alphas.most_common(1)[0][0] if alphas else 0.0


def _tensors(
    lora: LowRank, modules: Mapping[str, str], alpha: float, path: Path, format: Format, dtype: str
) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    kind = getattr(torch, dtype)
    for key, module in modules.items():
        entry = lora.entries[key]
        if isinstance(entry, Factors):
            yield from _pair(lora, path, key, entry, module, alpha, format, kind)
        else:
            yield f"{module}.{'diff_b' if key.endswith('.bias') else 'diff'}", _finite(path, key, lora.read(key), kind)


def _pair(
    lora: LowRank, path: Path, key: str, entry: Factors, module: str, alpha: float, format: Format, kind: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    up, down = (lora.holder.read(name).float() for name in (entry.up, entry.down))
    mid = None if entry.mid is None else lora.holder.read(entry.mid).float()
    left = entry.scale if format != "kohya" else entry.scale * entry.rank / alpha if alpha else 1.0  # of the scale, for the factors
    up, down = (up, down) if left == 1 else _balanced(up * left, down)
    if format == "kohya":
        yield f"{module}.lora_up.weight", _finite(path, key, up, kind)
        yield f"{module}.lora_down.weight", _finite(path, key, down, kind)
        if mid is not None:
            yield f"{module}.lora_mid.weight", _finite(path, key, mid, kind)
        yield f"{module}.alpha", torch.tensor(alpha)
        return
    if mid is not None:  # two convolutions, one after the other, are one
        down = torch.einsum("rshw,si->rihw", mid, down.flatten(1))
    yield f"{module}.lora_B.weight", _finite(path, key, up, kind)
    yield f"{module}.lora_A.weight", _finite(path, key, down, kind)


def _balanced(up: torch.Tensor, down: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two matrices with the same product that are about as large as each other, so that half precision holds both.

    They are multiplied by a power of two, which rounds nothing.
    """
    large, other = float(up.abs().max()), float(down.abs().max())
    if not (0 < large < math.inf and 0 < other < math.inf):
        return up, down
    step = 2.0 ** round(math.log2(large / other) / 2)
    return up / step, down * step


def _finite(path: Path, key: str, tensor: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    import torch

    small = tensor.to(kind).contiguous()
    if not torch.isfinite(small.float()).all():
        raise ExportError(f"{path}: the factors of {key!r} are beyond {kind}, or NaN; choose dtype='float32'")
    return small
