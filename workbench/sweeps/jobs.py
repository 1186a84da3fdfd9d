"""What is to be drawn for one cell, as data that may travel to another process; and the key under which its pictures are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from workbench.checkpoint import Checkpoint
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.base import tree
from workbench.checkpoint.files import hashing
from workbench.checkpoint.files.hub import located
from workbench.errors import SweepError
from workbench.recipe import Recipe, preflight
from workbench.render.request import Request
from workbench.render.spec import Spec

# Of the key under which pictures are kept. To be raised when this package would make other pictures of the same recipe, files and
# request, which are drawn anew then; not for a release that leaves pictures as they are.
_KEY_VERSION = 2

Files = Mapping[Path, str]  # every file of a checkpoint, by its one true path -> its sha256


@dataclass(frozen=True)
class Job:
    """A checkpoint to draw, as a recipe or the path or address of a file; its files, and the folder that its pictures go into."""

    target: Recipe | Path
    files: Files
    requests: tuple[Request, ...]
    spec: Spec
    folder: Path

    def open(self) -> Checkpoint:
        """The checkpoint. Raises SweepError when one of its files is not what it was, and what opening raises."""
        checkpoint = self.target.build() if isinstance(self.target, Recipe) else open_checkpoint(self.target)
        for path in checkpoint.sources():
            known = self.files.get(path.resolve())  # on another machine what comes from the hub lies elsewhere
            if hashing.sha256(path) not in ([known] if known else self.files.values()):
                raise SweepError(f"{path}: has changed since the sweep began, or is another file here; run the sweep again")
        return checkpoint

    @property
    def count(self) -> int:
        """How many pictures it gives."""
        return sum(len(request.pictures) for request in self.requests)

    @property
    def models(self) -> dict[str, Path | str]:
        """What a merge is made of: the file or address of each model, by its name in the recipe."""
        if not isinstance(self.target, Recipe):
            return {}
        places = {name: located(model.path, self.target.folder) for name, model in self.target.data.models.items()}
        return {name: place.resolve() if isinstance(place, Path) else place for name, place in places.items()}


class Planner:
    """Makes jobs of checkpoints; a file is hashed once."""

    def __init__(self, requests: tuple[Request, ...], spec: Spec, store: Path) -> None:
        self._requests, self._spec, self._store = requests, spec, store
        self._hashes: dict[Path, str] = {}

    def job(self, checkpoint: Checkpoint) -> Job:
        """What is to be drawn. Raises WorkbenchError when that is known to be impossible; no weight is read."""
        preflight(checkpoint).raise_errors()
        lender = self._spec.lender(checkpoint)
        models = [model for model in tree(checkpoint) if not model.parents]  # in the order of its recipe
        files = {path: self._hash(path) for path in checkpoint.sources()}
        target = Recipe.of(checkpoint, files).relative_to(Path.cwd()) if checkpoint.parents else _place(checkpoint)
        lent = [] if lender is None else [self._hash(path) for path in open_checkpoint(lender).sources()]
        key = self._key(target, [[files[path] for path in model.sources()] for model in models], lent, list(_codes(checkpoint)))
        return Job(target, {path.resolve(): digest for path, digest in files.items()}, self._requests, self._spec, self._store / key)

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = hashing.sha256(path)
        return self._hashes[path]

    def _key(self, target: Recipe | Path, models: Sequence[Sequence[str]], lent: Sequence[str], codes: Sequence[str] = ()) -> str:
        """Recipe, inputs, the code of operators from elsewhere, and everything asked of the renderer; not where files lie."""
        recipe = target.to_dict() | {"models": list(target.data.models)} if isinstance(target, Recipe) else None
        asked = [asdict(request) for request in self._requests]
        known = [_KEY_VERSION, recipe, models, lent, asked, self._identity, *codes]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:24]

    @cached_property
    def _identity(self) -> dict[str, str]:
        return self._spec.identity


def _place(checkpoint: Checkpoint) -> Path:
    """The file or address that another process, wherever it stands, opens. Raises SweepError where there is none."""
    if checkpoint.path is None:
        raise SweepError(f"{checkpoint.name!r} lies in no file, so its pictures cannot be kept; export it first")
    return Path(checkpoint.address) if checkpoint.address else checkpoint.path.absolute()


def _codes(checkpoint: Checkpoint) -> Iterator[str]:
    """What the operators do that are not Workbench's own: in a notebook one may be defined anew under its name."""
    if (merge := checkpoint.merge) is not None and (code := merge.call.operator.code):
        yield code
    for model in checkpoint.parents:
        yield from _codes(model)
