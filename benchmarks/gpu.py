"""Merges on a GPU beside the CPU: whether they are the same, how long an export takes, and how fast models that lie on the card merge.

python -m benchmarks.gpu [--folder out/benchmarks] [--rounds 3]

It needs CUDA, 32 GB of disk, and `tests/golden` of the clone.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

import workbench as wb
from benchmarks.arguments import asked
from benchmarks.models import sd15_tensors, sdxl_tensors, write_noise, write_tuned
from benchmarks.side_by_side.floor import floor
from workbench.checkpoint import Checkpoint
from workbench.operators import own
from workbench.render.residents import Residents
from workbench.tensors import Calculation, rounded

_GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"
_GPU = "cuda"


def main() -> None:
    arguments = asked(__doc__, rounds=3)
    if not torch.cuda.is_available():
        raise SystemExit("there is no CUDA here")
    print(f"{torch.cuda.get_device_name()}, {os.cpu_count()} cores, torch {torch.__version__}", flush=True)
    paths = [arguments.folder / name for name in ("a.safetensors", "tuned-1.safetensors", "tuned-2.safetensors")]
    write_tuned(paths, sd15_tensors())
    base, *models = map(wb.open, paths)
    _contract(arguments.folder)
    _exports(base, models, paths, arguments.rounds)
    large = [arguments.folder / f"sdxl-{number}.safetensors" for number in range(3)]
    for seed, path in enumerate(large):
        if not path.exists():
            write_noise(path, sdxl_tensors(), seed)
    base, *models = map(wb.open, large)
    _previews(base, models, arguments.rounds)


def _merges(base: Checkpoint, models: list[Checkpoint]) -> dict[str, Checkpoint]:
    operators = wb.operators
    return {
        "weighted_average": operators.weighted_average(models, weights=[0.3, 0.7]),
        "task_arithmetic": operators.task_arithmetic(base, models, weights=[0.6, 0.6]),
        "slerp": operators.slerp(*models),
        "ties": operators.ties(base, models, density=0.5),
        "dare_ties": operators.dare_ties(base, models, density=0.5),
        "fft_blend": operators.fft_blend(*models, coefficients=[0.5, -0.5, 0.25]),
    }


def _contract(folder: Path) -> None:
    """Every operator's golden recipe on both: how many units in the last place of float16 results are apart at most."""
    apart = {}
    for name in own():
        made = wb.Recipe.load(_GOLDEN / f"{name}.yaml").build().with_dtype("float16")
        found = [
            wb.export(made, folder / f"golden-{one}.safetensors", device=one, overwrite=True, progress=False).open()
            for one in ("cpu", _GPU)
        ]
        apart[name] = max(_ulps(found[0][key], found[1][key]) for key in found[0])
    print("float16 results apart, in units of the last place:", {name: most for name, most in apart.items() if most} or "none", flush=True)


def _ulps(one: torch.Tensor, other: torch.Tensor) -> int:
    if not one.is_floating_point() or not one.numel():
        return 0 if one.equal(other) else 1 << 15
    places = [torch.where(bits < 0, -32768 - bits, bits) for bits in (tensor.view(torch.int16).int() for tensor in (one, other))]
    return int((places[0] - places[1]).abs().max())


def _previews(base: Checkpoint, models: list[Checkpoint], rounds: int) -> None:
    """Merges of models that lie on the card, as a panel makes them: bytes of inputs and results a second, over those of a copy.

    And what a move of a slider takes that way, planning and all, until the pipeline is there to draw.
    """
    source = torch.empty(1 << 30, dtype=torch.uint8, device=_GPU)
    copying = 2 * source.nbytes / _fastest(lambda: source.clone(), 10)
    print(f"a copy moves {copying / 1e12:.2f} TB/s, counting what is read and written")
    renderer = wb.Renderer(base)
    for name, merge in _merges(base, models).items():
        residents = Residents(torch.device(_GPU), 40 << 30)
        calculation = Calculation("float32", _GPU, kept=residents)
        keys = [key for key in merge if key.startswith("model.diffusion_model.")]
        moved = sum(merge.info(key).nbytes for key in keys) * (1 + len({*merge.parents}))

        def load(merge: Checkpoint = merge, keys: list[str] = keys, calculation: Calculation = calculation) -> None:
            for key in keys:
                rounded(merge.calculate(key, None, calculation), torch.float16, _GPU)

        seconds = _fastest(load, rounds)
        residents.clear()
        print(f"{name}: calculated in {seconds:.3f} s, {moved / seconds / copying:.1%} of a copy's bandwidth", flush=True)
    for name, moves in _moves(base, models).items():

        def move(moves: Iterator[Checkpoint] = moves) -> None:
            renderer.load(next(moves), progress=False)

        print(f"{name}: a move of a slider {_fastest(move, rounds):.3f} s, until the pipeline is there to draw", flush=True)


def _moves(base: Checkpoint, models: list[Checkpoint]) -> dict[str, Iterator[Checkpoint]]:
    """Merges as they follow each other while a slider is moved."""
    operators, places = wb.operators, [0.3 + number / 100 for number in range(40)]
    return {
        "weighted_average": (operators.weighted_average(models, weights=[1 - place, place]) for place in places),
        "ties": (operators.ties(base, models, density=place) for place in places),
        "dare_ties": (operators.dare_ties(base, models, density=place) for place in places),
        "fft_blend": (operators.fft_blend(*models, coefficients=[0.5, -0.5, place]) for place in places),
    }


def _fastest(work: Callable[[], object], times: int) -> float:
    """Seconds of the fastest of several goes, after one that is not counted."""
    found = []
    for _ in range(times + 1):
        torch.cuda.synchronize()
        began = time.monotonic()
        work()
        torch.cuda.synchronize()
        found.append(time.monotonic() - began)
    return min(found[1:])


def _exports(base: Checkpoint, models: list[Checkpoint], paths: list[Path], rounds: int) -> None:
    """Exports on both, in turns with the floor: reading the other inputs, and copying one into a new file that has its size already."""
    out = paths[0].with_name("out.safetensors")
    for name, merge in _merges(base, models).items():
        inputs = [path for path in paths if path in set(merge.sources())]
        rows = []
        for _ in range(rounds):
            least = floor(inputs[:1], inputs[1:], out)
            rows.append([_export(merge, out, device) / least for device in ("cpu", _GPU)])
        cpu, gpu = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"export of {name}, over the floor ({least:.2f} s): CPU {cpu:.2f}, GPU {gpu:.2f}", flush=True)


def _export(merge: Checkpoint, out: Path, device: str) -> float:
    out.unlink(missing_ok=True)
    os.sync()
    began = time.monotonic()
    wb.export(merge, out, device=device, progress=False)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
