"""`Dequantised`: a file's tensors as what they stand for. How each is stored, its encoding knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, final

from workbench.checkpoint.base import Checkpoint, hashed
from workbench.checkpoint.stored.encoding import Encoding
from workbench.tensors import Part, Storage, TensorInfo

if TYPE_CHECKING:
    import torch


@final
class Dequantised(Checkpoint):
    """The tensors of `holder` without what is `beside` them, those with an encoding decoded.

    They are decoded in float32 when they are read, part by part; they read in the encoding's dtype, and a merge has them unrounded.
    """

    def __init__(self, holder: Checkpoint, encodings: Mapping[str, Encoding], beside: Collection[str], metadata: Mapping[str, str]) -> None:
        self.name, self.path, self.metadata = holder.name, holder.path, metadata
        self._holder = holder
        names = {encoding.key: name for name, encoding in encodings.items()}  # a stored tensor may have another name
        shown = [key for key in holder if key in names or key not in beside]
        self._encodings = {names.get(key, key): encodings.get(names.get(key, key)) for key in shown}
        self.notes = holder.notes
        if encodings:
            self.notes += (_told(encodings.values(), len(self._encodings)),)

    @property
    def entries(self) -> Mapping[str, Encoding | None]:
        return self._encodings

    def info(self, key: str) -> TensorInfo:
        encoding = self.entry(key)
        return self._holder.info(key) if encoding is None else TensorInfo(encoding.shape, encoding.code)

    def storage(self, key: str) -> Storage:
        encoding = self.entry(key)
        return self._holder.storage(key) if encoding is None else Storage(encoding.kind, encoding.nbytes)

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        encoding = self.entry(key)
        return self._holder.read(key, part) if encoding is None else encoding.values(part, self.info(key).dtype)

    def exact(self, key: str, part: Part = None) -> torch.Tensor:
        import torch

        encoding = self.entry(key)
        return self._holder.read(key, part) if encoding is None else encoding.values(part, torch.float32)

    def origin(self, key: str) -> tuple[Checkpoint, str] | None:
        return None if self.entry(key) else (self, key)

    def fingerprint(self, key: str) -> str:
        encoding = self.entry(key)
        if encoding is None:
            return self._holder.fingerprint(key)
        return hashed(encoding.kind, *map(self._holder.fingerprint, (encoding.key, *encoding.beside)))

    def sources(self) -> tuple[Path, ...]:
        return self._holder.sources()

    def replaced(self) -> tuple[Path, ...]:
        return self._holder.replaced()


def _told(encodings: Collection[Encoding], total: int) -> str:
    kinds = ", ".join(f"{kind} {count}" for kind, count in Counter(one.kind for one in encodings).most_common())
    dtypes = " and ".join(sorted({TensorInfo((), one.code).dtype_name for one in encodings}))
    return f"{len(encodings)} of {total} tensors are quantised ({kinds}), and are read as what they stand for, in {dtypes}"
