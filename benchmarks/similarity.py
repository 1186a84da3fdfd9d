"""Times the similarity of three SD 1.5-sized checkpoints, each with each, against reading the three files once.

python -m benchmarks.similarity [--folder out/benchmarks] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("out/benchmarks"))
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("a.safetensors", "tuned-1.safetensors", "tuned-2.safetensors")]
    write_tuned(paths, sd15_tensors())
    ratios: dict[str, list[float]] = {name: [] for name in _METRICS}
    peaks = []
    for _ in range(arguments.rounds):
        floor, start = reading(paths), run_python(["-c", _START])[0]
        told = []
        for name, metrics in _METRICS.items():
            seconds, peak = run_python(["-c", _MEASURE, metrics, *map(str, paths)])
            ratios[name].append((seconds - start) / floor)
            peaks.append(peak)
            told.append(f"{name} {seconds - start:.1f} s")
        print(f"reading {floor:.1f} s; starting {start:.1f} s; {', '.join(told)}", flush=True)
    told = ", ".join(f"{name} {statistics.median(values):.1f}" for name, values in ratios.items())
    print(f"median of {arguments.rounds}, over reading: {told}; peak {max(peaks):.0f} MB anonymous")


if __name__ == "__main__":
    main()
