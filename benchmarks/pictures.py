"""From a slider to a picture with SDXL-sized models, on whatever device there is: seconds, and memory on the device.

`python -m benchmarks.pictures --rounds 5` writes two random models of SDXL's size (2 x 6.9 GB, in float16) and draws through the panel's
path: the first picture of the first merge, then moves of a weight. `--small` does the same at SD 1.5's size and 512 pixels.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

import workbench as wb
from workbench.checkpoint.views.in_memory import InMemory
from workbench.render.vocabulary import SHIPPED

_SPREAD = 0.02  # of random weights: what keeps activations of an untrained network in float16's range


def write_random(kind: str, path: Path, seed: int) -> Path:
    """A whole single file of the published size and names (`"sd1"`, `"sdxl"`), its weights drawn at random."""
    from safetensors.torch import save_file

    shapes = {}
    for part, module in _modules(kind).items():
        shapes |= {f"{part}.{name}": (tuple(one.shape), name) for name, one in module.state_dict().items()}
    draws = torch.Generator().manual_seed(seed)
    tensors = {name: _drawn(shape, rest, draws) for name, (shape, rest) in shapes.items()}
    file = wb.in_layout(InMemory(tensors, path.stem), "LDM")
    save_file({key: file.read(key).contiguous() for key in file}, path, metadata={"format": "pt"})
    return path


def _drawn(shape: tuple[int, ...], name: str, draws: torch.Generator) -> torch.Tensor:
    if len(shape) > 1:
        return (torch.randn(shape, generator=draws) * _SPREAD).half()
    return torch.full(shape, float(name.endswith("weight")), dtype=torch.float16)


def _modules(kind: str) -> dict[str, torch.nn.Module]:
    """The parts of a pipeline, without weights."""
    from workbench.render.assembly import build_pipeline, read_blueprint

    blueprint = read_blueprint(SHIPPED / kind)
    pipeline = build_pipeline(blueprint)
    return {part: pipeline.components[part] for part in blueprint.weighted}


def measure(folder: Path, edge: int, rounds: int, steps: int) -> dict[str, object]:
    """Seconds from each move of a weight to the picture, and the most memory that the device held."""
    panel = wb.MergePanel(folder)
    state = panel.state.with_wanted(prompts=["a lighthouse in a storm"], steps=steps, width=edge, height=edge)
    times = []
    for number in range(rounds + 1):
        share = number / (rounds + 1)
        began = time.perf_counter()
        panel.show(state.with_option("weights", [1 - share, share]))
        panel.wait()
        times.append(time.perf_counter() - began)
    said, sizes = panel._pictures.status.value, [image.size for image in panel.images["result"]]
    peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else None
    panel.close()
    return {"first": times[0], "median": statistics.median(times[1:]), "all": times, "peak_gb": peak, "sizes": sizes, "said": said}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--small", action="store_true", help="SD 1.5 at 512 pixels")
    parser.add_argument("--folder", type=Path, help="where the models go, and stay; else they are removed at the end")
    given = parser.parse_args()
    kind, edge = ("sd1", 512) if given.small else ("sdxl", 1024)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        for seed, name in enumerate(("one", "two")):
            if not (folder / f"{name}.safetensors").exists():
                write_random(kind, folder / f"{name}.safetensors", seed)
        print(json.dumps(measure(folder, edge, given.rounds, given.steps), indent=1, default=str))


if __name__ == "__main__":
    main()
