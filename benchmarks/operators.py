"""Streams a merge of SD 1.5-shaped files by every operator: its time over the floor, and the peak of its anonymous memory.

python -m benchmarks.operators [--folder out/benchmarks] [--operators ties slerp ...]

The slow ones merge files that have one tensor of each shape that SD 1.5 has: memory is measured truly, and time is counted up. What was
measured is kept in `operators.json` in the folder, operator by operator: the command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

import workbench as wb
from benchmarks.merge import floor
from benchmarks.models import sd15_tensors, write_tuned
from benchmarks.processes import run_python
from workbench.checkpoint import Checkpoint
from workbench.checkpoint.files import hashing
from workbench.operators import own
from workbench.sweeps.by_method import placed

_FILES = {"base": "a.safetensors", "first": "tuned-1.safetensors", "second": "tuned-2.safetensors"}  # the same as those of `ties`
_BY_SHAPE = "by-shape-"  # before the names of files that have one tensor of each shape
_FLOAT32 = 4  # bytes
# What sorts whole tensors, iterates, or needs their singular vectors: minutes for a whole file
_SLOW = (
    {"sce", "della", "della_linear", "geometric_median", "rotate", "top_k_tensor_sum"}
    | {"tsv_merge", "iso_c", "iso_cts", "svc", "truncate_rank"}
)  # fmt: skip

# Defaults that leave out what costs, or that do not exist
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "sce": {"density": 0.5},  # at 1 nothing is selected
    "fft_blend": {"coefficients": [0.5, -0.5, 0.25]},
}
# Inputs that a method's name does not place: what corrects a merge gets a model instead of one, so that one operator is measured,
# and a median of two has nothing to look for
_INPUTS: Mapping[str, Mapping[str, Any]] = {
    "clamp": {"model": "base", "bounds": ["first", "second"]},
    "svc": {"base": "base", "merged": "first", "models": ["first", "second"]},
    "truncate_rank": {"base": "base", "tuned": "first"},
    "geometric_median": {"models": ["base", "first", "second"]},
}


@dataclass(frozen=True)
class Case:
    """An operator as it is measured."""

    operator: str
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or self.operator

    @property
    def inputs(self) -> dict[str, Any]:
        """Which model goes into which input, by name."""
        if self.operator in _INPUTS:
            return dict(_INPUTS[self.operator])
        return placed(own()[self.operator].declaration, "base", ["first", "second"])  # it only deals them out

    @property
    def models(self) -> list[str]:
        """Every input's, also twice where it goes into two."""
        return [name for given in self.inputs.values() for name in ([given] if isinstance(given, str) else given)]

    @property
    def slow(self) -> bool:
        return self.operator in _SLOW

    def files(self, folder: Path, before: str = "") -> dict[str, Path]:
        """Of each model that it takes."""
        return {name: folder / f"{before}{_FILES[name]}" for name in dict.fromkeys(self.models)}

    def recipe(self, folder: Path) -> str:
        """Without the rules that some operators have by default, so that every tensor is calculated."""
        merge = {"operator": self.operator, "inputs": self.inputs, "options": dict(self.options), "rules": []}
        files = {name: path.name for name, path in self.files(folder, _BY_SHAPE if self.slow else "").items()}
        return yaml.safe_dump({"workbench": 1, "models": files, "merge": merge}, sort_keys=False)


def cases() -> list[Case]:
    """Every operator, and those that can look at the whole model also so."""
    found = []
    for name, operator in own().items():
        found.append(Case(name, _OPTIONS.get(name, {})))
        if operator.declaration.prepare is not None:
            found.append(Case(name, {"over": "model"}, f'{name}, over="model"'))
    return found


def measured(case: Case, folder: Path) -> dict[str, float]:
    """Seconds of the floor and, right after it, of the whole merge to a new file, with its peak of anonymous memory in MB."""
    files = list(case.files(folder).values())
    recipe, out, written = folder / "operator.yaml", folder / "operator.safetensors", folder / "floor.bin"
    recipe.write_text(case.recipe(folder), encoding="utf-8")
    out.unlink(missing_ok=True)
    try:
        reading = floor(files[:1], files[1:], written)
        written.unlink()
        arguments = ["-m", "workbench", "merge", str(recipe), "--out", str(out)]
        seconds, peak = run_python(arguments)
        if case.slow:
            starting, _ = run_python([*arguments, "--overwrite", "--dry-run"])
            seconds = starting + (seconds - starting) * _times_as_much(wb.Recipe.load(recipe).build())
    finally:
        for path in (recipe, out, written):
            path.unlink(missing_ok=True)
    return {"floor": reading, "seconds": seconds, "peak": peak, "inputs": len(case.models)}


def _times_as_much(merge: Checkpoint) -> float:
    """How much more CPU time than this merge of one tensor of each shape all of SD 1.5's take, by how many there are of each shape."""
    counts = Counter(info.shape for info in sd15_tensors().values())

    def seconds(key: str) -> float:
        torch.set_num_threads(1)  # of this thread, as in an export
        began = time.thread_time()
        merge[key]
        return time.thread_time() - began

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        each = dict(zip(merge, pool.map(seconds, merge), strict=True))
    return sum(each[key] * counts[merge.info(key).shape] for key in merge) / sum(each.values())


def table(results: Mapping[str, Mapping[str, float]], largest: int) -> str:
    """Markdown, in the order of the registry."""
    rows = ["| operator | time over the floor | peak, MB | over its inputs' largest tensors |", "| --- | --- | --- | --- |"]
    for case in (case for case in cases() if case.name in results):
        one = results[case.name]
        bound, counted = one["peak"] * 1e6 / (largest * one["inputs"]), ", counted up" * case.slow
        rows.append(f"| `{case.name}` | {one['seconds'] / one['floor']:.1f}{counted} | {one['peak']:.0f} | {bound:.1f} |")
    return "\n".join(rows)


def _made(folder: Path) -> int:
    """Write the files that are not there, and hash them, so that no merge has to: bytes of their largest tensor in float32."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str((folder / "cache").absolute())
    infos = sd15_tensors()
    by_shape = {info.shape: name for name, info in reversed(infos.items())}  # the first name of each shape
    write_tuned([folder / name for name in _FILES.values()], infos)
    for name in _FILES.values():
        few = folder / f"{_BY_SHAPE}{name}"
        if not few.exists():
            whole = wb.open(folder / name)
            save_file({key: whole[key] for key in by_shape.values()}, few)
        for path in (folder / name, few):
            hashing.sha256(path)
    return _FLOAT32 * max(math.prod(info.shape) for info in infos.values())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/benchmarks"))
    parser.add_argument("--operators", nargs="*", choices=list(own()), metavar="NAME", help="these alone; all without it")
    given = parser.parse_args(arguments)
    largest = _made(given.folder)
    kept = given.folder / "operators.json"
    results = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for case in cases():
        if case.name in results or (given.operators and case.operator not in given.operators):
            continue
        one = results[case.name] = measured(case, given.folder)
        kept.write_text(json.dumps(results, indent=1), encoding="utf-8")
        print(f"{case.name}: floor {one['floor']:.2f} s, merge {one['seconds']:.2f} s, peak {one['peak']:.0f} MB", flush=True)
    print(table(results, largest))


if __name__ == "__main__":
    main()
