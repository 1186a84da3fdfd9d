"""Writes LoRAs as kohya's tools, A1111, Forge and ComfyUI read them, and as diffusers does. Reading lies in `checkpoint`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.files.writing import failing, replacing, write_safetensors
from workbench.checkpoint.names.components import DENOISER
from workbench.checkpoint.views.in_memory import InMemory
from workbench.checkpoint.views.layouts import in_layout
from workbench.checkpoint.views.low_rank import Factors, LowRank
from workbench.errors import ExportError
from workbench.families import GENERIC, Kohya
from workbench.families.correspondence import ORIGINAL
from workbench.lora.laying import laid
from workbench.tensors import SavedDtype

if TYPE_CHECKING:
    import torch

    from workbench.figures.results import Result

Format = Literal["kohya", "diffusers"]

_KOHYA = Kohya("", {"denoiser": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"})  # of a family that says nothing
_DEV = ("guidance_in.",)  # LoRAs of Flux are called flux-1-dev, whatever they were trained on
_PARTS = {"kohya": ("lora_up.weight", "lora_down.weight", "lora_mid.weight"), "diffusers": ("lora_B.weight", "lora_A.weight", None)}


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

    `kohya` names are those of sd-scripts, with an alpha beside each pair; `diffusers` names are PEFT's, the scale multiplied
    into `lora_B`, read by `pipe.load_lora_weights`. Of Flux, kohya's names are BFL's: there the changes of queries, keys and values
    are one, with the ranks of all three, and in diffusers' names they are cut. Pairs come first, whole changes (`diff`) after;
    these, and changes with a middle, have no place in `diffusers` names. `base` is a model that the LoRA is for, where its own names
    and header do not tell its architecture.

    Raises ExportError for a target that is there already (unless `overwrite`), for what the names cannot hold, and for an
    unknown format or dtype. Nothing is written then.
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
    tensors = dict(_tensors(_laid(lora, path, format), path, format, dtype))
    with failing(path), replacing(path, overwrite) as temporary:
        write_safetensors(temporary, tensors, _metadata(lora, path))
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
    if structure.denoiser == "unet" or structure.denoiser not in lora.components:
        return lora
    if structure.family is GENERIC:
        if any(key.startswith("lora_") for key in lora.holder) == (format == "kohya"):
            return lora  # it has this format's names already
        told = f"the names in {lora.name} ({next(iter(lora))!r}, ...) do not tell which model it is for, and so what {format!r} calls them"
        raise ExportError(f"{path}: {told}; give base=, a model that it fits")
    return laid(lora, in_layout(lora, "diffusers" if format == "diffusers" else "original"))


def _tensors(lora: LowRank, path: Path, format: Format, dtype: str) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    kind = getattr(torch, dtype)
    for key, entry in lora.entries.items():
        module = module_name(lora, path, key, format)
        if not isinstance(entry, Factors):
            if format == "diffusers":
                raise ExportError(f"{path}: {key!r} is changed as a whole, which diffusers' names cannot hold; choose format='kohya'")
            yield f"{module}.{'diff_b' if key.endswith('.bias') else 'diff'}", _finite(path, key, lora.read(key), kind)
            continue
        yield from _pair(lora, path, key, entry, module, format, kind)


def _pair(
    lora: LowRank, path: Path, key: str, entry: Factors, module: str, format: Format, kind: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    up, down, mid = _PARTS[format]
    if entry.mid is not None and mid is None:
        raise ExportError(f"{path}: {key!r} has a middle, which diffusers' names cannot hold; choose format='kohya'")
    scale = entry.scale if format == "diffusers" else 1.0
    yield f"{module}.{up}", _finite(path, key, lora.holder.read(entry.up).float() * scale, kind)
    yield f"{module}.{down}", _finite(path, key, lora.holder.read(entry.down).float(), kind)
    if entry.mid is not None:
        yield f"{module}.{mid}", _finite(path, key, lora.holder.read(entry.mid).float(), kind)
    if format == "kohya":
        yield f"{module}.alpha", torch.tensor(entry.scale * entry.rank)


def _finite(path: Path, key: str, tensor: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    import torch

    small = tensor.to(kind).contiguous()
    if not torch.isfinite(small.float()).all():
        raise ExportError(f"{path}: the factors of {key!r} are beyond {kind}, or NaN; choose dtype='float32'")
    return small


def module_name(lora: Checkpoint, path: object, key: str, format: Format) -> str:
    """The name of the module, as the format writes it: of U-Nets in the layout that kohya's tools have for the family."""
    structure = lora.structure
    family = structure.family
    kohya = family.kohya or _KOHYA
    component, rest = structure.bare(key)
    if component not in kohya.heads:
        raise ExportError(f"{path}: {key!r} belongs to no part of a pipeline that LoRAs change ({', '.join(kohya.heads)})")
    if component == DENOISER and family.denoiser == "unet" and (one := structure.correspondence(component, rest)):
        rest = one.original if format == "kohya" and kohya.layout == ORIGINAL else one.names[0]
    module = rest.rpartition(".")[0]
    if component.startswith("text_encoder") and (component not in family.text_encoders or family.text_encoders[component].clip):
        module = f"text_model.{module}"
    if format == "diffusers":
        return f"{structure.component(key)}.{module}"
    return kohya.heads[component] + module.replace(".", "_")


def _metadata(lora: LowRank, path: Path) -> dict[str, str]:
    """What kohya's tools and A1111 look for, and ModelSpec's name of the kind."""
    ranks = sorted({entry.rank for entry in lora.entries.values() if isinstance(entry, Factors)})
    told = str(ranks[0]) if len(ranks) == 1 else "Dynamic"
    found = {"format": "pt", "ss_network_module": "networks.lora", "ss_network_dim": told, "ss_network_alpha": told}
    family = lora.structure.family
    if family.kohya:
        found["ss_base_model_version"] = family.kohya.version
    if specification := family.specification(_DEV, lora.structure.prediction):
        found |= {
            "modelspec.sai_model_spec": "1.0.1",
            "modelspec.architecture": f"{specification.id}/lora",
            "modelspec.title": path.stem,
        }
    return found
