"""Times the extraction of a rank-64 LoRA from an SD 1.5-sized pair beside a loop of `torch.svd_lowrank` over the same tensors.

python -m benchmarks.extraction [--folder out/benchmarks] [--rounds 3]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import torch

import workbench as wb
from benchmarks.arguments import asked
from benchmarks.models import sd15_tensors, write_noise
from benchmarks.processes import run_python
from workbench.checkpoint.views.low_rank import LowRank
from workbench.lora.formats import lora_of

_RANK = 64
_PLANTED = 160  # directions of each change, the k-th k**-0.7 as strong as the first
_EXTRACT = f"""import sys, workbench as wb
wb.lora.extract(*map(wb.open, sys.argv[1:]), rank={_RANK}, progress=False)
"""
_LOOP = f"""import sys, torch
from safetensors import safe_open
tuned, base = (safe_open(path, "pt") for path in sys.argv[1:])
factors = {{}}
for key in base.keys():
    held = key.startswith(("model.diffusion_model.", "cond_stage_model.")) and key.endswith(".weight") and "_embedding." not in key
    if held and len(base.get_slice(key).get_shape()) in (2, 4):
        change = (tuned.get_tensor(key).float() - base.get_tensor(key).float()).flatten(1)
        left, values, right = torch.svd_lowrank(change, q=min({_RANK}, *change.shape), niter=2)
        factors[key] = left * values.sqrt(), right.T * values.sqrt()[:, None]
"""
_START = "import torch, workbench.lora"
_START_LOOP = "import torch, safetensors"
_ERRORS = f"""import json, sys, torch, workbench as wb
tuned, base = map(wb.open, sys.argv[1:])
ours = wb.lora.extract(tuned, base, rank={_RANK}, progress=False).report.frame()
best = wb.lora.error(tuned, base, [{_RANK}], progress=False).frame()
both = ours.merge(best, on="layer", suffixes=("", "_best"))
rows = both[both["relative_error_best"] > 0]
print(json.dumps([(rows["relative_error"] / rows["relative_error_best"]).max(), *both.iloc[-1][["relative_error", "relative_error_best"]]]))
"""


def planted(base: wb.Checkpoint) -> LowRank:
    """Changes whose singular values fall slowly, a tenth as large as the weights, for every matrix and convolution of a LoRA."""
    generator, pairs = torch.Generator().manual_seed(1), {}
    for key in base:
        shape = base.info(key).shape
        if key.endswith(".weight") and len(shape) in (2, 4) and not key.startswith("first_stage_model."):
            rows, others = shape[0], base.info(key).numel // shape[0]
            rank = min(rows, others, _PLANTED)
            values = torch.arange(1, rank + 1) ** -0.7
            values *= 0.002 * (rows * others) ** 0.5 / values.norm()
            up, down = torch.randn(rows, rank, generator=generator), torch.randn(rank, others, generator=generator)
            pairs[key] = up * values / rows**0.5, down / others**0.5
    return lora_of(pairs, {}, "planted", base)


def write_pair(base: Path, tuned: Path) -> None:
    """A base, and the same with planted changes and a hundredth of the way to other noise. Files that are there stay."""
    if not base.exists():
        write_noise(base, sd15_tensors(), 0)
    if not tuned.exists():
        noise, lora = tuned.with_name("noise.safetensors"), tuned.with_name("changes.safetensors")
        write_noise(noise, sd15_tensors(), 100)
        wb.lora.export(planted(wb.open(base)), lora, overwrite=True)
        moved = wb.operators.weighted_average([wb.open(base), wb.open(noise)], weights=[0.99, 0.01])
        wb.export(wb.lora.apply(moved, [(wb.open(lora), 1.0)]), tuned)
        noise.unlink()
        lora.unlink()


def main() -> None:
    arguments = asked(__doc__, rounds=3)
    folder: Path = arguments.folder
    base, tuned = folder / "a.safetensors", folder / "planted.safetensors"
    write_pair(base, tuned)
    paths = [str(tuned), str(base)]
    ratios, peaks = [], []
    for _ in range(arguments.rounds):
        start, start_loop = run_python(["-c", _START])[0], run_python(["-c", _START_LOOP])[0]
        ours, peak = run_python(["-c", _EXTRACT, *paths])
        loop, loop_peak = run_python(["-c", _LOOP, *paths])
        ratios.append((ours - start) / (loop - start_loop))
        peaks.append(peak)
        print(f"extract {ours - start:.1f} s, peak {peak:.0f} MB; loop {loop - start_loop:.1f} s, peak {loop_peak:.0f} MB", flush=True)
    worst, error, best = json.loads(subprocess.check_output([sys.executable, "-c", _ERRORS, *paths]))
    print(f"median of {len(ratios)}: extract takes {statistics.median(ratios):.2f} of the loop's time; peak {max(peaks):.0f} MB anonymous")
    print(f"error {error:.4f}, of the full decomposition {best:.4f}; the worst layer's is {worst:.4f} times the least there could be")


if __name__ == "__main__":
    main()
