"""What decides a picture beside its model and what is asked: configs, device and dtype, and the code that draws. Nothing is loaded."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from workbench.checkpoint.base import Checkpoint, hashed
from workbench.render.configs import Configs
from workbench.render.devices import describe

_LIBRARIES = ("torch", "diffusers", "transformers")


def circumstances(checkpoint: Checkpoint, configs: Configs, device: torch.device, dtype: str | None) -> str:
    """Equal ones mean that a model of the same files and recipe draws the same on this machine, today and in another process.

    `dtype` None is the usual one of these configs on that device.
    """
    names = hashed(*((key, repr(checkpoint.info(key))) for key in checkpoint))  # of a view of a file, which its path does not tell
    processor = (torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()) if device.type == "cpu" else ()
    return hashed(names, configs.identity, describe(device), dtype, processor, _code())


@cache
def _code() -> str:
    """What draws and merges: versions, and the files of this package, which a clone may change without another version."""
    root = Path(__file__).parents[1]
    files = [(path.relative_to(root).as_posix(), path.stat()) for path in sorted(root.rglob("*.py"))]
    return hashed(*map(_version, _LIBRARIES), *((name, found.st_size, found.st_mtime_ns) for name, found in files))


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:  # on the path, and not installed
        return ""
