"""`Solved`: a checkpoint of which some tensors were solved for, and lie in a temporary file; the others are another's."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from workbench.checkpoint import Checkpoint
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.files.writing import failing, safetensors_header, write_at
from workbench.errors import MergeError
from workbench.tensors import Part, TensorInfo, rounded

if TYPE_CHECKING:
    import torch


@final
class Solving:
    """A temporary file that tensors are put into as they are found, in float32."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        folder = Path(tempfile.mkdtemp(prefix="workbench-"))
        self._leaving = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._folder, self._path = folder, folder / "solved.safetensors"
        infos = {key: TensorInfo(shape, "F32") for key, shape in shapes.items()}
        header, self._begins = safetensors_header(infos, {})
        with failing(self._path, MergeError), self._path.open("wb") as file:
            file.write(header)
            file.truncate(len(header) + sum(info.nbytes for info in infos.values()))
        self.there: set[str] = set()

    def put(self, key: str, tensor: torch.Tensor) -> None:
        """A tensor that was found."""
        with failing(self._path, MergeError), self._path.open("r+b", buffering=0) as file:
            write_at(file.fileno(), tensor.float().contiguous().reshape(-1).numpy().view("uint8").data, self._begins[key])
        self.there.add(key)

    def over(self, rest: Checkpoint, name: str, notes: tuple[str, ...]) -> Solved:
        """What was found in the place of another checkpoint's tensors. The file goes with the checkpoint."""
        solved = Solved(rest, open_checkpoint(self._path), frozenset(self.there), name, notes)
        self._leaving.detach()
        weakref.finalize(solved, shutil.rmtree, self._folder, ignore_errors=True)
        return solved


@final
class Solved(Checkpoint):
    """The tensors of `rest`, but for those that `found` has. It lies in no file: export it."""

    def __init__(self, rest: Checkpoint, found: Checkpoint, keys: frozenset[str], name: str, notes: tuple[str, ...]) -> None:
        self.name, self.notes, self.metadata, self.space = name, notes, rest.metadata, rest.space
        self.scope = rest.scope
        self._rest, self._found, self._keys = rest, found, keys

    @property
    def entries(self) -> Mapping[str, Any]:
        return self._rest.entries

    def info(self, key: str) -> TensorInfo:
        return self._rest.info(key)

    def read(self, key: str, part: Part = None) -> torch.Tensor:
        return rounded(self.exact(key, part), self.info(key).dtype)

    def exact(self, key: str, part: Part = None) -> torch.Tensor:
        return self._found.read(key, part) if key in self._keys else self._rest.exact(key, part)

    def origin(self, key: str) -> tuple[Checkpoint, str] | None:
        return None if key in self._keys else self._rest.origin(key)

    def fingerprint(self, key: str) -> str:
        return super().fingerprint(key) if key in self._keys else self._rest.fingerprint(key)

    def sources(self) -> tuple[Path, ...]:
        return (*self._rest.sources(), *self._found.sources())

    def replaced(self) -> tuple[Path, ...]:
        return self._rest.replaced()
