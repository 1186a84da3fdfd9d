"""Times a weighted average of two SD 1.5-sized checkpoints against reading both and writing one, side by side.

python -m benchmarks.merge [--folder out/benchmarks] [--rounds 5]
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from benchmarks.arguments import asked
from benchmarks.models import sd15_tensors, write_noise
from benchmarks.processes import run_python

_CHUNK = 4 << 20
_RECIPE = """workbench: 1
models: {a: a.safetensors, b: b.safetensors}
merge: {operator: weighted_average, inputs: {models: [a, b]}, options: {weights: [0.3, 0.7]}}
"""


def floor(written: list[Path], read: list[Path], out: Path) -> float:
    """Seconds to read all inputs into one buffer, and to write some of them to a new file and fsync it."""
    out.unlink(missing_ok=True)
    began = time.monotonic()
    buffer = memoryview(bytearray(_CHUNK))
    with out.open("wb", buffering=0) as target:
        for path in [*written, *read]:
            with path.open("rb", buffering=0) as source:
                while count := source.readinto(buffer):
                    if path in written:
                        target.write(buffer[:count])
        os.fsync(target.fileno())
    return time.monotonic() - began


def merge(folder: Path, out: Path, cache: Path) -> tuple[float, float]:
    """Seconds of the whole `workbench merge` process to a new file, and the peak of its anonymous memory in MB."""
    out.unlink(missing_ok=True)
    return run_python(["-m", "workbench", "merge", str(folder / "recipe.yaml"), "--out", str(out)], XDG_CACHE_HOME=str(cache))


def starting_torch() -> float:
    """Seconds of a process that does nothing but import torch."""
    return run_python(["-c", "import torch"])[0]


def main() -> None:
    arguments = asked(__doc__, rounds=5)
    folder: Path = arguments.folder
    inputs = [folder / "a.safetensors", folder / "b.safetensors"]
    for seed, path in enumerate(inputs):
        if not path.exists():
            write_noise(path, sd15_tensors(), seed)
    (folder / "recipe.yaml").write_text(_RECIPE)
    rows = []
    for number in range(arguments.rounds):
        cache = folder / f"cache-{number}-{os.getpid()}"
        reading = floor(inputs[:1], inputs[1:], folder / "floor.bin")
        first, peak = merge(folder, folder / "merged.safetensors", cache)
        again, _ = merge(folder, folder / "merged.safetensors", cache)
        torch = starting_torch()
        rows.append([first / reading, again / reading, torch / reading, peak])
        print(
            f"floor {reading:.2f} s; first {first:.2f} s, again {again:.2f} s, starting torch {torch:.2f} s; peak {peak:.0f} MB", flush=True
        )
    first, again, torch, _ = (statistics.median(column) for column in zip(*rows, strict=True))
    peak = max(row[3] for row in rows)
    print(f"median of {len(rows)}, over the floor: first {first:.2f}, again {again:.2f}, starting torch {torch:.2f}")
    print(f"peak {peak:.0f} MB anonymous")


if __name__ == "__main__":
    main()
