"""Times the similarity of three SD 1.5-sized checkpoints, each with each, against reading the three files once: from disk, and from memory.

python -m benchmarks.similarity [--folder out/benchmarks] [--rounds 3]
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from benchmarks.arguments import asked
from benchmarks.models import sd15_tensors, write_tuned
from benchmarks.processes import run_python

_CHUNK = 4 << 20
_MEASURE = """import sys, workbench as wb
from workbench.analysis import similarity
metrics, *paths = sys.argv[1:]
similarity([wb.open(path) for path in paths], by="block", metric=metrics.split(","), progress=False)
"""
_START = "import numpy, torch, workbench.analysis"
_METRICS = {"products": "cosine,distance,norm_ratio,scale", "products and signs": "cosine,distance,norm_ratio,scale,sign_agreement"}


def reading(paths: list[Path]) -> float:
    """Seconds to read the files into one small buffer."""
    began = time.monotonic()
    buffer = memoryview(bytearray(_CHUNK))
    for path in paths:
        with path.open("rb", buffering=0) as source:
            while source.readinto(buffer):
                pass
    return time.monotonic() - began


def forget(paths: list[Path]) -> None:
    """Have the kernel drop what it remembers of the files, so that they are read from disk."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main() -> None:
    arguments = asked(__doc__, rounds=3)
    folder: Path = arguments.folder
    paths = [folder / name for name in ("a.safetensors", "tuned-1.safetensors", "tuned-2.safetensors")]
    write_tuned(paths, sd15_tensors())
    start = run_python(["-c", _START])[0]
    ratios: dict[str, list[float]] = {}
    peaks = []
    for _ in range(arguments.rounds):
        for name, metrics in _METRICS.items():
            for where in ("disk", "memory"):
                if where == "disk":
                    forget(paths)
                floor = reading(paths)
                if where == "disk":
                    forget(paths)
                seconds, peak = run_python(["-c", _MEASURE, metrics, *map(str, paths)])
                ratios.setdefault(f"{name}, from {where}", []).append((seconds - start) / floor)
                peaks.append(peak)
                print(f"{name}, from {where}: reading {floor:.1f} s, similarity {seconds - start:.1f} s", flush=True)
    for name, values in ratios.items():
        print(f"{name}: {statistics.median(values):.2f} times as long as reading, median of {len(values)}")
    print(f"peak {max(peaks):.0f} MB anonymous")


if __name__ == "__main__":
    main()
