"""Writes a hyper-model, its LoRAs, multipliers and a page about them into a folder, which is whole or not there."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from workbench.engine import export as export_model
from workbench.errors import ExportError
from workbench.lora.formats import export as export_lora
from workbench.lora.hyper_model import rank_of
from workbench.tensors import SavedDtype

if TYPE_CHECKING:
    from workbench.lora.hyper_model import HyperModel

_PAGE, _TABLE, _PROMPTS = "README.md", "multipliers.csv", "prompts.txt"
_MARK = "Made by `workbench.lora.hyper_merge`."


def write(model: HyperModel, folder: Path, dtype: str) -> Path:
    """What `HyperModel.export` promises."""
    _check(model, folder, dtype)
    files = {name: f"{folder.name}-{name.removeprefix('lora-')}" for name in model.multipliers.columns}
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        for lora, name in zip(model.loras, files.values(), strict=True):
            export_lora(lora, temporary / f"{name}.safetensors", dtype=dtype)
        export_model(model.average, temporary / f"{folder.name}.safetensors", dtype=dtype)
        model.multipliers.rename(columns=files).to_csv(temporary / _TABLE, float_format="%.6f", lineterminator="\n")
        (temporary / _PROMPTS).write_text("".join(f"{name}: {line}\n" for name, line in _prompts(model, files).items()), encoding="utf-8")
        sizes = {path.stem: path.stat().st_size for path in temporary.glob("*.safetensors")}
        (temporary / _PAGE).write_text(_page(model, folder.name, files, sizes), encoding="utf-8")
        temporary.chmod(0o755)
        _replace(folder, temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def _replace(folder: Path, by: Path) -> None:
    """Put a folder in the place of another, which is there until the new one is."""
    if not folder.exists():
        by.replace(folder)
        return
    old = by.with_suffix(".old")
    folder.replace(old)
    try:
        by.replace(folder)
    except OSError:
        old.replace(folder)
        raise
    shutil.rmtree(old)


def _check(model: HyperModel, folder: Path, dtype: str) -> None:
    """Raise ExportError for what cannot be written, before anything is."""
    if dtype not in get_args(SavedDtype):
        raise ExportError(f"{folder}: dtype must be one of {', '.join(map(repr, get_args(SavedDtype)))}, got {dtype!r}")
    if not folder.name or not folder.parent.is_dir():
        raise ExportError(f"{folder}: there is no folder {folder.parent}; make it first")
    if folder.is_file():
        raise ExportError(f"{folder}: is a file; give the name of a folder")
    if any(folder.resolve() in source.resolve().parents for source in model.average.sources()):
        raise ExportError(f"{folder}: holds one of the models; choose another folder")
    if folder.is_dir() and any(folder.iterdir()) and not _ours(folder):
        raise ExportError(f"{folder}: holds other things than a hyper-merge; choose a new folder")


def _ours(folder: Path) -> bool:
    """Whether an export wrote the folder, and nothing else has come into it."""
    page = folder / _PAGE
    if not page.is_file() or _MARK not in page.read_text(encoding="utf-8", errors="replace"):
        return False
    known = {_PAGE, _TABLE, _PROMPTS}
    return all(path.name in known or (path.suffix == ".safetensors" and path.stem.startswith(folder.name)) for path in folder.iterdir())


def _prompts(model: HyperModel, files: dict[str, str]) -> dict[str, str]:
    """For each model, the LoRAs as A1111 and Forge take them in a prompt."""
    return {
        str(name): " ".join(f"<lora:{files[lora]}:{value:.4f}>" for lora, value in row.items())
        for name, row in model.multipliers.iterrows()
    }


def _page(model: HyperModel, name: str, files: dict[str, str], sizes: dict[str, int]) -> str:
    """What the folder holds, how to use it, and how near it comes."""
    count, numbers = len(model.multipliers), len(model.loras)
    errors = model.losses.pivot(index="model", columns="loras", values="relative_error").loc[list(model.multipliers.index)]
    head = ["model", *(f"+ rank {rank_of(lora)}" for lora in files), "LoRAs in the prompt"]
    prompts = _prompts(model, files)
    rows = [[str(one), *(f"{value:.2%}" for value in row.iloc[1:]), f"`{prompts[str(one)]}`"] for one, row in errors.iterrows()]
    lines = [
        f"# {name}",
        "",
        f"{count} models as one and {numbers} LoRA{'s' * (numbers > 1)}: model = average + sum of multiplier * LoRA. {_MARK}",
        "",
        *(f"- `{stem}.safetensors` ({size / 1e6:.1f} MB): {what}" for stem, size, what in _described(name, files, sizes)),
        f"- `{_TABLE}`, `{_PROMPTS}`: the multipliers, as a table and as A1111 and Forge take them.",
        "",
        "Relative error: what is left, over the model's difference from the average, after each LoRA was found.",
        "",
        *(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]),
        "",
    ]
    return "\n".join(lines)


def _described(name: str, files: dict[str, str], sizes: dict[str, int]) -> list[tuple[str, int, str]]:
    loras = [(file, sizes[file], f"a LoRA of rank {rank_of(lora)} (kohya).") for lora, file in files.items()]
    return [(name, sizes[name], "the average, which is a model of its own."), *loras]
