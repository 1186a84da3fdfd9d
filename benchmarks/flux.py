"""Times the schnell/Krea merge of two Flux-shaped models against reading both and writing one, from shards of different boundaries.

By default at half depth, 12 GB each, and so 38 GB of disk while it runs; all of it is deleted after. Before that it times the preflight
of the same merge at Flux's full depth, of models that have shapes and no weights, one in each layout.

python -m benchmarks.flux [--folder out/benchmarks] [--rounds 1] [--doubles 10] [--singles 19]
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import torch

import workbench as wb
from benchmarks.arguments import asked
from benchmarks.models import flux_tensors, write_sharded
from benchmarks.processes import run_python
from benchmarks.side_by_side.floor import floor
from workbench.checkpoint.views.in_memory import InMemory
from workbench.tensors import TensorInfo

_RECIPE = """workbench: 1
models: {schnell: schnell, krea: krea}
merge:
  operator: weighted_average
  inputs: {models: [schnell, krea]}
  rules: [{match: "*guidance*", take: krea}]
"""
_SHARDS = {"schnell": 3, "krea": 5, "merged": 4}  # how many of each, about


def main() -> None:
    arguments = asked(__doc__, rounds=1, doubles=10, singles=19)
    print(f"preflight at full depth (19 double and 38 single blocks): {_preflight():.2f} s", flush=True)
    models = {name: flux_tensors(arguments.doubles, arguments.singles, name == "krea") for name in ("schnell", "krea")}
    size = sum(info.nbytes for info in models["krea"].values())
    if shutil.disk_usage(arguments.folder).free < 3.1 * size:
        raise SystemExit(f"{arguments.folder}: needs {3.1 * size / 1e9:.0f} GB of free disk; give fewer --doubles and --singles")
    with tempfile.TemporaryDirectory(prefix="flux-", dir=arguments.folder) as folder:
        for seed, (name, infos) in enumerate(models.items()):
            write_sharded(Path(folder, name), infos, 100 * seed, size // _SHARDS[name])
        Path(folder, "recipe.yaml").write_text(_RECIPE)
        print(f"{arguments.doubles} double and {arguments.singles} single blocks: {size / 1e9:.1f} GB each", flush=True)
        for number in range(arguments.rounds):
            _round(Path(folder), number, size)


def _preflight() -> float:
    """Seconds from two opened models to the findings: an average along a ramp through both stacks."""
    schnell, krea = (_shapes(name, flux_tensors(19, 38, name == "krea")) for name in ("schnell", "krea"))
    bfl = wb.in_layout(krea, "BFL")
    krea = _shapes("krea", {key: bfl.info(key) for key in bfl})
    began = time.perf_counter()
    weights = {"ramp": {"start": [1, 0], "end": [0, 1], "first": "double_blocks.4", "last": "single_blocks.20"}}
    merge = wb.operators.weighted_average([schnell, krea], weights=weights, rules=[{"match": "*guidance*", "take": "krea"}])
    wb.preflight(merge).raise_errors()
    return time.perf_counter() - began


def _shapes(name: str, infos: Mapping[str, TensorInfo]) -> InMemory:
    return InMemory({key: torch.empty(info.shape, dtype=info.dtype, device="meta") for key, info in infos.items()}, name)


def _round(folder: Path, number: int, size: int) -> None:
    """One measurement, printed: the floor, and a whole `workbench merge` process that hashes its parents too."""
    schnell, krea = (sorted((folder / name).glob("*.safetensors")) for name in ("schnell", "krea"))
    reading = floor(schnell, krea, folder / "floor.bin")
    out = folder / "merged"
    command = ["-m", "workbench", "merge", str(folder / "recipe.yaml"), "--out", str(out)]
    command += ["--max-shard-size", str(size // _SHARDS["merged"])]
    seconds, peak = run_python(command, XDG_CACHE_HOME=str(folder / f"cache-{number}"))
    shutil.rmtree(out)
    print(
        f"floor {reading:.1f} s; merge {seconds:.1f} s, {seconds / reading:.2f} times the floor; peak {peak:.0f} MB anonymous", flush=True
    )


if __name__ == "__main__":
    main()
