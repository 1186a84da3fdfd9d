"""Times the hyper-merge of five SD 1.5-sized models, and the published loop on a slice of the same layers.

python -m benchmarks.hyper [--folder out/benchmarks]
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch

import workbench as wb
from benchmarks.arguments import asked
from benchmarks.models import sd15_tensors, write_noise
from benchmarks.processes import run_python
from tests.hyper_merge_loop import published_loop
from workbench.lora.formats import lora_of
from workbench.lora.targets import factored

_RANKS, _ITERATIONS, _MODELS = (128, 64, 32), 6, 5
_SHARED, _OWN = 96, 48  # directions of what the models have in common, and of what each has for itself
_SLICE = 16  # of so many layers, the loop is timed on one
_MERGE = """import sys, workbench as wb
wb.lora.hyper_merge([wb.open(path) for path in sys.argv[1:]], ranks={ranks}, iterations={iterations})
"""


def planted(base: wb.Checkpoint, rank: int, seed: int, folder: Path) -> wb.Checkpoint:
    """A LoRA file that changes every layer, with singular values that fall slowly, a tenth as large as the weights."""
    generator, pairs = torch.Generator().manual_seed(seed), {}
    for key in sorted(factored(base, "benchmark")):
        rows, others = _sides(base, key)
        values = torch.arange(1, min(rows, others, rank) + 1) ** -0.7
        values *= 0.002 * math.sqrt(rows * others) / values.norm()
        up, down = torch.randn(rows, len(values), generator=generator), torch.randn(len(values), others, generator=generator)
        pairs[key] = (up * (values / math.sqrt(rows * others)), down)
    path = folder / f"planted-{seed}.safetensors"
    return wb.open(wb.lora.export(lora_of(pairs, {}, path.stem, base), path, overwrite=True))


def write_models(paths: list[Path]) -> None:
    """Models that are a base, three changes in common with multipliers of their own, and one change of their own. They stay."""
    if all(path.exists() for path in paths):
        return
    base_path = paths[0].with_name("a.safetensors")
    if not base_path.exists():
        write_noise(base_path, sd15_tensors(), 0)
    base = wb.open(base_path)
    shared = [planted(base, _SHARED, seed, base_path.parent) for seed in (1, 2, 3)]
    strengths = torch.randn(len(paths), len(shared), generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 0.7, 0.5])
    for number, (path, row) in enumerate(zip(paths, strengths.tolist(), strict=True)):
        own = planted(base, _OWN, 100 + number, base_path.parent)
        wb.export(wb.operators.add_delta(base, [*shared, own], strengths=[*row, 0.3]), path, overwrite=True)


def sliced(paths: list[Path]) -> tuple[list[str], float]:
    """Layers of every size, and what share of all elements they are."""
    model = wb.open(paths[0])
    keys = sorted(factored(model, "benchmark"), key=lambda key: model.info(key).numel)
    chosen = keys[_SLICE // 2 :: _SLICE]
    return chosen, sum(model.info(key).numel for key in chosen) / sum(model.info(key).numel for key in keys)


def loop(paths: list[Path], keys: list[str]) -> tuple[float, list[float]]:
    """Seconds of the loop's arithmetic on some layers, which are in memory already, and the mean squared residual after each LoRA."""
    models = [wb.open(path) for path in paths]
    layers = [torch.stack([model.read(key).float().flatten(1) for model in models]) for key in keys]
    torch.manual_seed(0)
    began = time.monotonic()
    losses = published_loop(layers, _RANKS, _ITERATIONS)
    return time.monotonic() - began, losses


def ours(paths: list[Path], keys: list[str]) -> list[float]:
    """The mean squared residual after each LoRA on the same layers alone."""
    made = wb.lora.hyper_merge([_only(wb.open(path), keys) for path in paths], ranks=_RANKS, iterations=_ITERATIONS)
    return made.losses.groupby("loras")["mean_squared_residual"].mean().tolist()[1:]


def _only(model: wb.Checkpoint, keys: list[str]) -> wb.Checkpoint:
    from workbench.checkpoint.views.in_memory import InMemory

    return InMemory({key: model.read(key) for key in keys}, model.name)


def _sides(model: wb.Checkpoint, key: str) -> tuple[int, int]:
    shape = model.info(key).shape
    return shape[0], math.prod(shape[1:])


def main() -> None:
    folder: Path = asked(__doc__).folder
    paths = [folder / f"hyper-{number}.safetensors" for number in range(_MODELS)]
    write_models(paths)
    keys, share = sliced(paths)
    start = run_python(["-c", "import torch, pandas, workbench.lora"])[0]
    seconds, peak = run_python(["-c", _MERGE.format(ranks=list(_RANKS), iterations=_ITERATIONS), *map(str, paths)])
    seconds -= start
    print(f"hyper_merge: {seconds:.0f} s without starting ({start:.0f} s), peak {peak:.0f} MB anonymous", flush=True)
    looped, theirs = loop(paths, keys)
    print(
        f"the loop: {looped:.0f} s on {len(keys)} layers, {share:.1%} of the elements, so about {looped / share:.0f} s on all", flush=True
    )
    print(f"ratio {looped / share / seconds:.1f}")
    ratios = ", ".join(f"{own / other:.3f}" for own, other in zip(ours(paths, keys), theirs, strict=True))
    print(f"mean squared residual on these layers after each LoRA, over the loop's: {ratios}")


if __name__ == "__main__":
    main()
