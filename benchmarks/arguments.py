"""What benchmarks take on their command lines: where their files lie, and numbers."""

from __future__ import annotations

import argparse
from pathlib import Path


def asked(about: str | None, **numbers: int) -> argparse.Namespace:
    """`folder`, which is there then, and each of `numbers`, which are given with their defaults."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/benchmarks"))
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    return arguments
