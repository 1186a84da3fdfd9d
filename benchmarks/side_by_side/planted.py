"""Models whose changes have singular values that fall slowly, as a LoRA's error needs them. Other models are in `files`."""

from __future__ import annotations

import math
from pathlib import Path

import torch

import workbench as wb
from benchmarks.models import write_noise
from benchmarks.side_by_side.files import Files
from workbench.lora.formats import lora_of
from workbench.lora.targets import factored

_PLANTED = 160  # directions of the change of one model, the k-th k**-0.7 as strong as the first
_SHARED, _OWN = 96, 48  # of what several models have in common, and of what each has for itself
FAMILY = 3  # models


def planted(base: wb.Checkpoint, rank: int, seed: int, out: Path) -> wb.Checkpoint:
    """A LoRA file that changes every layer, a tenth as large as the weights."""
    generator, pairs = torch.Generator().manual_seed(seed), {}
    for key in sorted(factored(base, "benchmark")):
        rows, *others = base.info(key).shape
        columns = math.prod(others)
        values = torch.arange(1, min(rows, columns, rank) + 1) ** -0.7
        values *= 0.002 * math.sqrt(rows * columns) / values.norm()
        up, down = torch.randn(rows, len(values), generator=generator), torch.randn(len(values), columns, generator=generator)
        pairs[key] = (up * (values / math.sqrt(rows * columns)), down)
    return wb.open(wb.lora.export(lora_of(pairs, {}, out.stem, base), out, overwrite=True))


def pair(where: Files) -> tuple[Path, Path]:
    """A model with planted changes and a hundredth of the way to other noise, and its base. Files that are there stay."""
    base, tuned = where.path("small", "base"), where.path("small", "planted")
    if not tuned.exists():
        noise, lora = where.folder / "noise.safetensors", where.folder / "changes.safetensors"
        write_noise(noise, where.size.infos("small"), 200)
        change = planted(wb.open(base), _PLANTED, 1, lora)
        moved = wb.operators.weighted_average([wb.open(base), wb.open(noise)], weights=[0.99, 0.01])
        wb.export(wb.lora.apply(moved, [(change, 1.0)]), tuned, progress=False)
        noise.unlink()
        lora.unlink()
    return tuned, base


def family(where: Files) -> list[Path]:
    """Models that are a base, changes in common with multipliers of their own, and one change of their own. They stay."""
    paths = [where.path("small", f"related-{number}") for number in range(FAMILY)]
    if not all(path.exists() for path in paths):
        base = wb.open(where.path("small", "base"))
        loras = [where.folder / f"change-{number}.safetensors" for number in range(3 + FAMILY)]
        shared = [planted(base, _SHARED, 1 + number, lora) for number, lora in enumerate(loras[:3])]
        strengths = torch.randn(FAMILY, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 0.7, 0.5])
        for number, (path, row) in enumerate(zip(paths, strengths.tolist(), strict=True)):
            own = planted(base, _OWN, 100 + number, loras[3 + number])
            made = wb.operators.add_delta(base, [*shared, own], strengths=[*row, 0.3])
            wb.export(made, path, overwrite=True, progress=False)
        for lora in loras:
            lora.unlink()
    return paths
