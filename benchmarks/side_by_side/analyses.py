"""What is measured of what reads models and writes no merge: similarity, extraction of a LoRA, and a hyper-merge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

import workbench as wb
from benchmarks.processes import run_python
from benchmarks.side_by_side import planted
from benchmarks.side_by_side.files import MODELS, Files
from benchmarks.side_by_side.floor import floor, reading
from benchmarks.side_by_side.kernel import Kernel
from benchmarks.side_by_side.ours import version
from benchmarks.side_by_side.store import Job
from benchmarks.side_by_side.tools import ENOUGH, Environment, Tool, run_tool
from workbench.lora.targets import factored

RANK = 64
HYPER = {"ranks": [64, 32], "iterations": 3}
_SHARE = 8  # of so many layers, the published loop is timed on one
_SAMPLED = 16  # layers whose error is measured
_SIMILARITY = """import workbench as wb
from workbench.analysis import similarity
models = [wb.open(path) for path in {paths!r}]
def compared():
    similarity(models, by="block", metric=["cosine", "distance", "norm_ratio", "scale"], progress=False)
"""
_EXTRACT = f"""import sys
import workbench as wb
def extract(tuned, base, out):
    lora = wb.lora.extract(wb.open(tuned), wb.open(base), rank={RANK}, dtype="float16", progress=False)
    wb.lora.export(lora, out, overwrite=True)
"""
_EXTRACT_LOOP = "from benchmarks.side_by_side.peers.by_loop import extract"
_HYPER = f"""import workbench as wb
def merge(paths):
    wb.lora.hyper_merge([wb.open(path) for path in paths], ranks={HYPER["ranks"]}, iterations={HYPER["iterations"]})
"""
_LOOP = f"""import torch, workbench as wb
from tests.hyper_merge_loop import published_loop
models = [wb.open(path) for path in {{paths!r}}]
layers = [torch.stack([model.read(key).float().flatten(1) for model in models]) for key in {{keys!r}}]
torch.manual_seed(0)
def loop():
    published_loop(layers, {tuple(HYPER["ranks"])}, {HYPER["iterations"]})
"""


def jobs(
    where: Files, kernel: Kernel, environment: Environment, tools: Sequence[Tool], installed: Mapping[str, str], rounds: int
) -> Iterator[Job]:
    """Similarity on the large files; extraction, ours and the peers', and the hyper-merge on models made for it."""
    by = version()
    yield Job("analysis/similarity", by, rounds, partial(_similarity, where, kernel))
    yield Job("analysis/extract", by, rounds, partial(_extract, where, kernel))
    for tool in tools:
        if "extract" in tool.operations:
            run = partial(_extract_by, tool, where, environment.python, installed.get(tool.package, ""))
            yield Job(f"peer/extract/{tool.name}", tool.version(installed), rounds, run, ENOUGH)
    yield Job("analysis/hyper_merge", by, rounds, partial(_hyper, where, kernel))


def _similarity(where: Files, kernel: Kernel) -> dict[str, float]:
    """Of three models, each with each, by block, beside reading them once."""
    paths = [where.path("large", model) for model in MODELS]
    reading(paths)  # so that both find them in the page cache, if they fit
    least = min(reading(paths), reading(paths))
    seconds = kernel.seconds(_SIMILARITY.format(paths=list(map(str, paths))), "compared()")
    return {"floor": least, "seconds": seconds}


def _extract(where: Files, kernel: Kernel) -> dict[str, float]:
    """In the kernel (`inside`), where the loop has its turn too, and as a process, whose peak it is."""
    (tuned, base), out = planted.pair(where), where.folder / "lora.safetensors"
    arguments = [str(tuned), str(base), str(out)]  # written by each in turn, last by the process
    least = floor([base], [tuned], where.folder / "floor.bin")
    inside = kernel.seconds(_EXTRACT, f"extract(*{arguments!r})")
    loop = kernel.seconds(_EXTRACT_LOOP, f"extract({str(out)!r}, {str(tuned)!r}, {str(base)!r})")
    seconds, peak = run_python(["-c", f"{_EXTRACT}extract(*sys.argv[1:])", *arguments])
    model = wb.open(base)
    changed = wb.lora.apply(model, [(wb.open(out), 1.0)]).with_dtype("float32")
    error = _error(tuned, base, {key: changed.read(key) - model.read(key).float() for key in _sampled(base)})
    out.unlink()
    return {"floor": least, "inside": inside, "loop": loop, "seconds": seconds, "peak": peak, "error": error}


def _extract_by(tool: Tool, where: Files, python: str, missing: str) -> dict[str, Any]:
    if missing:
        return {"failed": f"cannot be installed here: {missing}"}
    (tuned, base), out = planted.pair(where), where.folder / "by-peer.safetensors"
    least = floor([base], [tuned], where.folder / "floor.bin")
    found = run_tool(tool, "extract", out, [tuned, base], python)
    if "failed" in found:
        return found
    with safe_open(out, "pt") as file:
        factors = {key: (file.get_tensor(f"{key}.up").float(), file.get_tensor(f"{key}.down").float()) for key in _sampled(base)}
    out.unlink()
    changes = {key: up.flatten(1) @ down.flatten(1) for key, (up, down) in factors.items()}
    return {"floor": least, **found, "error": _error(tuned, base, changes)}


def _sampled(base: Path) -> list[str]:
    model = wb.open(base)
    keys = sorted(factored(model, "benchmark"))
    return keys[:: max(1, len(keys) // _SAMPLED)]


def _error(tuned: Path, base: Path, changes: Mapping[str, torch.Tensor]) -> float:
    """What is missed of the changes of some layers, over the changes."""
    missed = total = 0.0
    ours, theirs = wb.open(tuned), wb.open(base)
    for key, change in changes.items():
        true = ours.read(key).double() - theirs.read(key).double()
        missed += float((true - change.reshape(true.shape)).square().sum())
        total += float(true.square().sum())
    return (missed / total) ** 0.5


def _hyper(where: Files, kernel: Kernel) -> dict[str, float]:
    """Ours on all layers; the published loop's arithmetic on some, in memory already, counted up by their share of the elements."""
    paths = planted.family(where)
    model = wb.open(paths[0])
    keys = sorted(factored(model, "benchmark"), key=lambda key: model.info(key).numel)
    chosen = keys[min(_SHARE // 2, len(keys) - 1) :: _SHARE]
    share = sum(model.info(key).numel for key in chosen) / sum(model.info(key).numel for key in keys)
    named = list(map(str, paths))
    seconds = kernel.seconds(_HYPER, f"merge({named!r})")
    loop = kernel.seconds(_LOOP.format(paths=named, keys=chosen), "loop()")
    return {"seconds": seconds, "loop": loop / share, "share": share}
