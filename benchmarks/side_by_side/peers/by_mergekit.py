"""`mergekit-pytorch` with the options that mean what is asked; it writes a folder."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from mergekit.scripts.merge_raw_pytorch import main as mergekit


def described(operation: str, paths: list[str]) -> dict[str, object]:
    first, *others = paths
    if operation == "average":
        weighted = [{"model": path, "parameters": {"weight": weight}} for path, weight in zip(paths, (0.3, 0.7), strict=True)]
        return {"merge_method": "linear", "models": weighted}
    if operation == "slerp":
        return {"merge_method": "slerp", "base_model": first, "models": [{"model": path} for path in paths], "parameters": {"t": 0.5}}
    tuned = [{"model": path, "parameters": {"weight": 1.0, "density": 0.5}} for path in others]
    return {"merge_method": operation, "base_model": first, "models": tuned, "parameters": {"normalize": True}}


def main(operation: str, out: str, *paths: str) -> None:
    config = Path(out).with_suffix(".yaml")
    config.write_text(yaml.safe_dump(described(operation, list(paths))), encoding="utf-8")
    mergekit([str(config), out], standalone_mode=False)
    config.unlink()


if __name__ == "__main__":
    main(*sys.argv[1:])
