"""Tries faults in bulk and prints a table: `python -m tests.faults --crash-points 400 --signals 64 --fuzzed 20000 --seed 1`."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

OPTIONS = {"crash-points": 400, "disk-errors": 400, "interrupts": 200, "signals": 64, "pairs": 100, "fuzzed": 20_000}


def main() -> int:
    asked = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    for name, count in OPTIONS.items():
        asked.add_argument(f"--{name}", type=int, default=count, help=f"how many of them (default: {count})")
    asked.add_argument("--seed", type=int, default=1, help="the same seed tries the same cases")
    asked.add_argument("--only", default="", help="the scenes that have this in their name")
    given = asked.parse_args()
    place = Path(tempfile.mkdtemp(prefix="faults-"))
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(place / "cache")}
    warnings.simplefilter("ignore")
    from .table import table

    try:
        rows = list(_rows(given, place))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print("\n".join(table(rows)))
    return int(any(row.problems for row in rows))


def _rows(given: argparse.Namespace, place: Path) -> Iterator:
    from .exports import crash_points, disk_errors, interrupts, pairs, signals
    from .fuzzing import fuzzed
    from .scenes import scenes
    from .table import Row

    all_scenes = [scene for scene in scenes(place / "sources") if given.only in scene.name]
    kinds = {
        "crash-points": ("killed before a call of the file system", crash_points),
        "disk-errors": ("the disk fails, or is full", disk_errors),
        "interrupts": ("Ctrl-C and SIGTERM before a call", interrupts),
        "signals": ("signals at any moment", signals),
        "pairs": ("two processes, one name", pairs),
    }
    for option, (told, cases) in kinds.items():
        if count := getattr(given, option.replace("-", "_")):
            yield Row(told).take(cases(all_scenes, place / "case", count, random.Random(given.seed)))
    if given.fuzzed:
        yield from fuzzed(place / "fuzzed", given.fuzzed, given.seed)


if __name__ == "__main__":
    sys.exit(main())
