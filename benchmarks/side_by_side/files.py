"""The checkpoints that everything is measured on: which sizes there are, which tensors, and what disk they need."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.models import flux_tensors, sd15_tensors, sdxl_tensors, write_tuned, z_image_tensors
from workbench.tensors import TensorInfo

MODELS = ("base", "first", "second")
_SETS = ("large", "small", "light", "tiny")
_ONE = 1 << 30  # every so many-th of each shape: the first alone
_TINY, _LIGHT = 1 << 16, 1 << 20  # elements of a tensor, at most
_OUTPUTS = 3  # of the large files: the merge, the floor's, and what a peer keeps beside its own


@dataclass(frozen=True)
class Size:
    """A model by its names and shapes; large and small files have every so many-th tensor of each shape, and so the same mixture."""

    title: str
    tensors: Callable[[], dict[str, TensorInfo]]
    large: int
    small: int

    def quick(self) -> Size:
        """With one tensor of each shape."""
        return Size(f"{self.title}, one tensor of each shape", self.tensors, _ONE, _ONE)

    @cached_property
    def _infos(self) -> dict[str, TensorInfo]:
        return self.tensors()

    def infos(self, files: str) -> dict[str, TensorInfo]:
        """What is in the `large`, `small`, `light` or `tiny` files."""
        if files in ("light", "tiny"):
            most = _LIGHT if files == "light" else _TINY
            return {name: info for name, info in thinned(self._infos, _ONE).items() if info.numel <= most}
        return thinned(self._infos, self.large if files == "large" else self.small)


# Large files: as much of a model as three of them and a result leave in the page cache of 24 GB
SIZES: Mapping[str, Size] = {
    "sd15": Size("SD 1.5", sd15_tensors, 1, 6),
    "sdxl": Size("SDXL", sdxl_tensors, 2, 18),
    "flux": Size("Flux", lambda: flux_tensors(19, 38, guidance=True), 6, 60),
    "z-image": Size("Z-Image", z_image_tensors, 3, 30),
}


def thinned(infos: Mapping[str, TensorInfo], every: int) -> dict[str, TensorInfo]:
    """Of each shape and dtype the first tensor and every so many-th after it, in the order of the model."""
    of_shape: dict[TensorInfo, list[str]] = defaultdict(list)
    for name, info in infos.items():
        of_shape[info].append(name)
    kept = {name for names in of_shape.values() for name in names[::every]}
    return {name: info for name, info in infos.items() if name in kept}


@dataclass(frozen=True)
class Files:
    """Where the files of a size lie."""

    folder: Path
    size: Size

    def path(self, files: str, model: str) -> Path:
        """`model` is one of MODELS."""
        return self.folder / f"{files}-{model}.safetensors"

    def make(self) -> None:
        """Write what is not there. Raises SystemExit where there is no room."""
        self._check_disk()
        for files in _SETS:
            write_tuned([self.path(files, model) for model in MODELS], self.size.infos(files))

    def _check_disk(self) -> None:
        nbytes = {files: sum(info.nbytes for info in self.size.infos(files).values()) for files in _SETS}
        missing = sum(nbytes[files] for files in _SETS for model in MODELS if not self.path(files, model).exists())
        needed, free = missing + _OUTPUTS * nbytes["large"], shutil.disk_usage(self.folder).free
        if free < needed:
            raise SystemExit(
                f"{self.folder}: {self.size.title} needs {needed / 1e9:.0f} GB of free disk, and there are {free / 1e9:.0f}; "
                "give another --folder, or --quick"
            )
