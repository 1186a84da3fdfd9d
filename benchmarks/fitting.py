"""Measures what one step of fitting a hypernetwork takes at the size of SD 1.5: memory, and time beside a step without a merge.

python -m benchmarks.fitting [--folder out/benchmarks] [--batch 1]

A batch is the lessons of a step, at 512x512 pixels.
"""

from __future__ import annotations

import json

from benchmarks.arguments import asked
from benchmarks.models import sd15_tensors, write_tuned
from benchmarks.processes import run_python

_UNET = {"cross_attention_dim": 768, "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280], "sample_size": 64}
_STEP = """import json, sys, torch, workbench as wb
from diffusers import UNet2DConditionModel
from workbench.conditioning.steered import Steered
from workbench.operators import fft_blend
from workbench.render.fitting import Fitting
from workbench.render.denoising import Denoiser
from accelerate import init_empty_weights

first, second, merged, batch, config = *sys.argv[1:3], *map(json.loads, sys.argv[3:])
with init_empty_weights():
    unet = UNet2DConditionModel(**config).requires_grad_(False)
class Pipeline: pass
pipeline = Pipeline()
pipeline.unet, pipeline.__class__.__name__ = unet, "StableDiffusionPipeline"
pipeline.scheduler = Pipeline()
pipeline.scheduler.config = {}
denoiser = Denoiser(pipeline, Fitting(pipeline), None, torch.empty(0))
models = [wb.open(path) for path in (first, second)]
merge = fft_blend(*models, coefficients=[0.0], smooth=True, over="row", entanglement_strength=1.0, decoherence_factor=0.0)
coefficients = torch.zeros(len(merge.depth.names) + 1, 16, requires_grad=merged)
noisy, times, asked = torch.randn(batch, 4, 64, 64, requires_grad=not merged), torch.full((batch,), 500), torch.randn(batch, 77, 768)
model = Steered(merge, coefficients, merge.depth.names) if merged else models[0]
denoiser.predict(model, noisy, times, asked).square().mean().backward()
assert (coefficients if merged else noisy).grad.abs().sum() > 0
"""


def main() -> None:
    given = asked(__doc__, batch=1)
    paths = [given.folder / f"{name}.safetensors" for name in ("a", "t")]
    write_tuned(paths, sd15_tensors())
    seconds = {}
    for name, merged in (("one model", False), ("the merge", True)):
        seconds[name], peak = run_python(["-c", _STEP, *map(str, paths), json.dumps(merged), str(given.batch), json.dumps(_UNET)])
        print(f"a step through {name}: {seconds[name]:.0f} s, {peak / 1e3:.1f} GB of anonymous memory")
    print(f"the merge takes {seconds['the merge'] / seconds['one model']:.2f} times as long")


if __name__ == "__main__":
    main()
