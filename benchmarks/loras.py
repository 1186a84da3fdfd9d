"""Opening many LoRAs, and adding them to a model: seconds, and the peak of memory.

`python -m benchmarks.loras --count 200` writes (once) that many LoRAs of SD 1.5's size in kohya's names, rank 4, opens them all, and
calculates the largest tensors of the merge with all of them, part by part as an export does.
"""

from __future__ import annotations

import resource
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

import workbench as wb
from benchmarks.arguments import asked
from workbench.engine.parts import jobs

_BLOCKS = [("down_blocks", level, 2, width) for level, width in enumerate((320, 640, 1280))]
_BLOCKS += [("up_blocks", level + 1, 3, width) for level, width in enumerate((1280, 640, 320))]
_LAYERS = [f"attn{n}.to_{one}" for n in (1, 2) for one in ("q", "k", "v", "out.0")]


def modules() -> dict[str, tuple[int, int]]:
    """Rows and columns of the attention and feed-forward layers of SD 1.5's U-Net."""
    found = {}
    for side, level, count, width in _BLOCKS:
        for attention in range(count):
            block = f"{side}.{level}.attentions.{attention}.transformer_blocks.0."
            found |= {block + layer: (width, 768 if layer in ("attn2.to_k", "attn2.to_v") else width) for layer in _LAYERS}
            found |= {f"{block}ff.net.0.proj": (8 * width, width), f"{block}ff.net.2": (width, 4 * width)}
    return found


def write(folder: Path, count: int, rank: int = 4) -> list[Path]:
    """So many LoRA files."""
    paths = [folder / f"lora-{number:03}.safetensors" for number in range(count)]
    for path in (path for path in paths if not path.exists()):
        tensors = {}
        for module, (rows, columns) in modules().items():
            name = f"lora_unet_{module.replace('.', '_')}"
            tensors |= {
                f"{name}.lora_up.weight": torch.randn(rows, rank).half(),
                f"{name}.lora_down.weight": torch.randn(rank, columns).half(),
            }
            tensors[f"{name}.alpha"] = torch.tensor(1.0)
        save_file(tensors, path)
    return paths


def main() -> None:
    arguments = asked(__doc__, count=200, tensors=2)
    paths = write(arguments.folder, arguments.count)
    base = arguments.folder / "sd15-attention.safetensors"
    if not base.exists():
        shapes = {f"unet.{module}.weight": torch.zeros(shape).half() for module, shape in modules().items()}
        save_file(shapes, base)
    wb.open(paths[0])
    began = time.perf_counter()
    loras = [wb.open(path) for path in paths]
    print(f"{len(loras)} LoRAs of {len(loras[0])} pairs open: {time.perf_counter() - began:.2f} s")
    began = time.perf_counter()
    merge = wb.lora.apply(wb.open(base), [(lora, 0.01) for lora in loras])
    print(f"planned on a model: {time.perf_counter() - began:.2f} s")
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    largest = sorted(merge, key=lambda key: -merge.info(key).numel)[: arguments.tensors]
    for job in jobs(merge, [(key, merge.info(key)) for key in largest]):
        merge.read(job.key, job.part)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = f"{seconds / len(largest):.2f} s each, {(after - before) / 1024:.0f} MB on top of {before / 1024:.0f} MB"
    print(f"the {len(largest)} largest tensors, of {merge.info(largest[0]).numel * 4 / 1e6:.0f} MB in float32: {told}")


if __name__ == "__main__":
    main()
