"""Writes a hyper-model, its LoRAs, multipliers and a page about them into a folder, which is whole or not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.files.temporary import visible
from workbench.checkpoint.files.writing import failing, replacing_folder
from workbench.checkpoint.views.low_rank import LowRank
from workbench.engine import export as export_model
from workbench.errors import ExportError
from workbench.lora.formats import export as export_lora
from workbench.tensors import SavedDtype

if TYPE_CHECKING:
    import pandas as pd

_PAGE, _TABLE, _PROMPTS = "README.md", "multipliers.csv", "prompts.txt"
_MARK = "Made by `workbench.lora.hyper_merge`."


def write(
    folder: Path, average: Checkpoint, loras: Sequence[LowRank], multipliers: pd.DataFrame, losses: pd.DataFrame, dtype: SavedDtype
) -> Path:
    """What `HyperModel.export` promises of these parts of one."""
    _check(folder, average, dtype)
    multipliers = multipliers.rename(columns=lambda name: f"{folder.name}-{name.removeprefix('lora-')}")
    with failing(folder), replacing_folder(folder, lambda: visible(folder) if _ours(folder) else ()) as temporary:
        for lora, name in zip(loras, multipliers.columns, strict=True):
            export_lora(lora, temporary / f"{name}.safetensors", dtype=dtype)
        export_model(average, temporary / f"{folder.name}.safetensors", dtype=dtype)
        multipliers.to_csv(temporary / _TABLE, float_format="%.6f", lineterminator="\n")
        prompts = _prompts(multipliers)
        (temporary / _PROMPTS).write_text("".join(f"{name}: {line}\n" for name, line in prompts.items()), encoding="utf-8")
        sizes = {path.stem: path.stat().st_size for path in temporary.glob("*.safetensors")}
        (temporary / _PAGE).write_text(_page(folder.name, prompts, losses, list(multipliers), sizes), encoding="utf-8")
    return folder


def rank_of(lora: str) -> int:
    """The rank in a LoRA's name."""
    return int(lora.rpartition("-")[2])


def _check(folder: Path, average: Checkpoint, dtype: str) -> None:
    """Raise ExportError for what cannot be written, before anything is."""
    if dtype not in get_args(SavedDtype):
        raise ExportError(f"{folder}: dtype must be one of {', '.join(map(repr, get_args(SavedDtype)))}, got {dtype!r}")
    if not folder.name or not folder.parent.is_dir():
        raise ExportError(f"{folder}: there is no folder {folder.parent}; make it first")
    if folder.is_file():
        raise ExportError(f"{folder}: is a file; give the name of a folder")
    if any(folder.resolve() in source.resolve().parents for source in average.sources()):
        raise ExportError(f"{folder}: holds one of the models; choose another folder")
    if folder.is_dir() and visible(folder) and not _ours(folder):
        raise ExportError(f"{folder}: holds other things than a hyper-merge; choose a new folder")


def _ours(folder: Path) -> bool:
    """Whether an export wrote the folder, and nothing else has come into it."""
    page = folder / _PAGE
    if not page.is_file() or _MARK not in page.read_text(encoding="utf-8", errors="replace"):
        return False
    known = {_PAGE, _TABLE, _PROMPTS}
    return all(path.name in known or (path.suffix == ".safetensors" and path.stem.startswith(folder.name)) for path in visible(folder))


def _prompts(multipliers: pd.DataFrame) -> dict[str, str]:
    """For each model, the LoRAs as A1111 and Forge take them in a prompt."""
    return {str(name): " ".join(f"<lora:{lora}:{value:.4f}>" for lora, value in row.items()) for name, row in multipliers.iterrows()}


def _page(name: str, prompts: Mapping[str, str], losses: pd.DataFrame, loras: Sequence[str], sizes: Mapping[str, int]) -> str:
    """What the folder holds, how to use it, and how near it comes."""
    errors = losses.pivot(index="model", columns="loras", values="relative_error").loc[list(prompts)]
    head = ["model", *(f"+ rank {rank_of(lora)}" for lora in loras), "LoRAs in the prompt"]
    rows = [[model, *(f"{value:.2%}" for value in row.iloc[1:]), f"`{prompts[model]}`"] for model, row in errors.iterrows()]
    files = {name: "the average, which is a model of its own."}
    files |= {lora: f"a LoRA of rank {rank_of(lora)} (kohya)." for lora in loras}
    lines = [
        f"# {name}",
        "",
        f"{len(prompts)} models as one and {len(loras)} LoRA{'s' * (len(loras) > 1)}: model = average + sum of multiplier * LoRA. {_MARK}",
        "",
        *(f"- `{stem}.safetensors` ({sizes[stem] / 1e6:.1f} MB): {what}" for stem, what in files.items()),
        f"- `{_TABLE}`, `{_PROMPTS}`: the multipliers, as a table and as A1111 and Forge take them.",
        "",
        "Relative error: what is left, over the model's difference from the average, after each LoRA was found.",
        "",
        *(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]),
        "",
    ]
    return "\n".join(lines)
