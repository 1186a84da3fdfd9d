"""Times the average of two Flux-shaped GGUF files against reading both and writing as much as they have: Q8_0, then other types, small.

First it says how much float32 is decoded from each type in a second of one core.

By default at half depth, 6.5 GB each, and so 26 GB of disk while it runs; all of it is deleted after.

python -m benchmarks.quantised [--folder out/benchmarks] [--rounds 1] [--doubles 10] [--singles 19]
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import torch

from benchmarks.arguments import asked
from benchmarks.models import flux_tensors
from benchmarks.processes import run_python
from benchmarks.side_by_side.floor import floor
from workbench.checkpoint.files.ggml_types import decoded, ggml_types
from workbench.engine.pool import run
from workbench.tensors import PIECE, TensorInfo

_TYPES = gguf.GGMLQuantizationType
_SMALL = (_TYPES.Q6_K, _TYPES.Q5_K, _TYPES.Q4_K, _TYPES.Q4_0, _TYPES.IQ4_XS)
_NOISE = 1 << 17  # blocks of noise
_RECIPE = """workbench: 1
models: {a: a.gguf, b: b.gguf}
merge: {operator: weighted_average, inputs: {models: [a, b]}, options: {weights: [0.3, 0.7]}}
"""


def main() -> None:
    arguments = asked(__doc__, rounds=1, doubles=10, singles=19)
    print("MB of float32 in a second of one core: " + ", ".join(f"{name} {rate:.0f}" for name, rate in _rates().items()), flush=True)
    plans = [(_TYPES.Q8_0, arguments.doubles, arguments.singles), *((kind, 1, 1) for kind in _SMALL)]
    for kind, doubles, singles in plans:
        infos = flux_tensors(doubles, singles, guidance=True)
        needed = 4.2 * sum(info.numel for info in infos.values())
        if shutil.disk_usage(arguments.folder).free < needed:
            raise SystemExit(f"{arguments.folder}: needs {needed / 1e9:.0f} GB of free disk; give fewer --doubles and --singles")
        with tempfile.TemporaryDirectory(prefix="quantised-", dir=arguments.folder) as found:
            folder = Path(found)
            for seed, name in enumerate(("a.gguf", "b.gguf")):
                _write(folder / name, infos, kind, seed)
            (folder / "recipe.yaml").write_text(_RECIPE)
            size = (folder / "a.gguf").stat().st_size
            print(f"{kind.name}, {doubles} double and {singles} single blocks: {size / 1e9:.1f} GB each", flush=True)
            for number in range(arguments.rounds):
                _round(folder, number)


def _rates() -> dict[str, float]:
    """Of each type, in pieces as a merge reads them; in time of the processor, which other programs do not slow down as much."""
    run([], lambda job, done: None, total=0, title="", delay=1, progress=False)  # memory is kept, as in a merge
    torch.set_num_threads(1)
    rates, times = {}, 10
    for kind in (kind for kind in ggml_types() if kind.code is None):
        blocks = torch.randint(0, 64, (PIECE // kind.block * kind.nbytes,), dtype=torch.uint8)
        decoded(blocks, kind)
        began = time.process_time()
        for _ in range(times):
            decoded(blocks, kind)
        rates[kind.name] = times * PIECE * 4 / (time.process_time() - began) / 1e6
    return rates


def _write(path: Path, infos: Mapping[str, TensorInfo], kind: gguf.GGMLQuantizationType, seed: int) -> None:
    """A file of these tensors: matrices of random blocks, the same over and over, and zeros in float32."""
    size, nbytes = gguf.constants.GGML_QUANT_SIZES[kind]
    noise = np.random.default_rng(seed).integers(0, 256, _NOISE * nbytes, dtype=np.uint8) & np.uint8(0xBB)  # no scale is large, or NaN
    writer = gguf.GGUFWriter(path, "flux")
    quantised = {name: info.numel // size * nbytes for name, info in infos.items() if len(info.shape) == 2 and info.shape[1] % size == 0}
    for name, info in infos.items():
        raw = kind if name in quantised else _TYPES.F32
        writer.add_tensor_info(name, info.shape, np.dtype(np.float32), quantised.get(name, 4 * info.numel), raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, info in infos.items():
        writer.write_tensor_data(np.resize(noise, quantised[name]) if name in quantised else np.zeros(info.shape, np.float32))
    writer.close()


def _round(folder: Path, number: int) -> None:
    """One measurement, printed: the floor, and whole `workbench merge` processes, the first of which hashes its parents too."""
    reading = floor([folder / "a.gguf", folder / "b.gguf"], [], folder / "floor.bin")
    print(f"floor {reading:.1f} s")
    (folder / "original.yaml").write_text(_RECIPE.replace("merge: {", "merge: {layout: original, "))  # GGUF has the authors' names
    for name, recipe, more in (("merged.safetensors", "recipe", []), ("merged.gguf", "original", ["--quantise", "Q8_0"])):
        out = folder / name
        command = ["-m", "workbench", "merge", str(folder / f"{recipe}.yaml"), "--out", str(out), *more]
        seconds, peak = run_python(command, XDG_CACHE_HOME=str(folder / f"cache-{number}"))
        size = out.stat().st_size
        out.unlink()
        told = f"{name}: {seconds:.1f} s, {size / 1e9:.1f} GB, {seconds / reading:.2f} times the floor"
        print(f"{told}; peak {peak:.0f} MB anonymous", flush=True)


if __name__ == "__main__":
    main()
