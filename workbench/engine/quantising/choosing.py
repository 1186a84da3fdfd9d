"""Which tensor of a checkpoint is written as what: what was asked for, what a format can hold, and what has to stay precise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.names.buffers import is_marker
from workbench.engine.quantising.asking import Quantise
from workbench.engine.quantising.formats import WrittenFormat, cuts, written_format
from workbench.engine.quantising.quantiser import Quantiser
from workbench.errors import ExportError
from workbench.tensors import TensorInfo

_FEW = 1024  # elements of a tensor that is too small to be worth it


@dataclass(frozen=True)
class QuantisedPlan:
    """How each tensor is written, by its name in the checkpoint, and why those stay unquantised that do, in words."""

    quantisers: Mapping[str, Quantiser]
    kept: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors in the file."""
        return sum(one.nbytes for one in self.quantisers.values())

    @property
    def note(self) -> str:
        """How many tensors are quantised, as what, and why the others are not."""
        kinds = Counter(one.kind for key, one in self.quantisers.items() if key not in self.kept)
        told = f"quantised {kinds.total()} of {len(self.quantisers)} tensors"
        told += f" ({', '.join(f'{kind} {count}' for kind, count in kinds.most_common())})" if kinds else ""
        return f"{told}; kept: {self.told}" if self.kept else told

    @property
    def told(self) -> str:
        """Why tensors stay unquantised, with how many."""
        return "; ".join(f"{count} {why}" for why, count in Counter(self.kept.values()).most_common())


def quantised_plan(
    path: Path, checkpoint: Checkpoint, infos: Mapping[str, TensorInfo], asked: Quantise, dtype: str | None
) -> QuantisedPlan:
    """A quantiser for each tensor. Raises ExportError where nothing would be quantised, or something cannot be in the file."""
    form = written_format(path)
    _check_patterns(path, checkpoint, asked)
    found: dict[str, Quantiser] = {}
    kept: dict[str, str] = {}
    for key, info in infos.items():
        made = _quantised(form, checkpoint, key, info, asked)
        if isinstance(made, str):
            kept[key] = made
            made = form.plain(path, key, info, dtype)
        found[key] = made
    plan = QuantisedPlan(found, kept)
    if len(kept) == len(found):
        raise ExportError(f"{path}: quantise={asked.as_data()} leaves every tensor as it is ({plan.told}); give 'keep' other patterns")
    return plan


def plain_plan(path: Path, infos: Mapping[str, TensorInfo], dtype: str | None) -> dict[str, Quantiser]:
    """Every tensor as it is, or rounded to `dtype`. Raises ExportError for what cannot be in the file."""
    form = written_format(path)
    return {key: form.plain(path, key, info, dtype) for key, info in infos.items()}


def _quantised(form: WrittenFormat, checkpoint: Checkpoint, key: str, info: TensorInfo, asked: Quantise) -> Quantiser | str:
    """How a tensor is quantised, or why it is not."""
    location = checkpoint.structure.location(key)
    kind = next((kind for pattern, kind in (asked.blocks or {}).items() if location.matches(pattern)), None)
    if not info.is_float or is_marker(key):
        return "no weights"
    if len(info.shape) < 2 or info.numel <= _FEW or not key.endswith(".weight"):
        return f"of one dimension, of at most {_FEW} elements, or no layer's weight"
    if kind is None and (why := _precise(checkpoint, key, asked.keep)):
        return why
    chosen = kind or asked.default
    return form.quantised(info, chosen, cuts(checkpoint)) if chosen else "in no block that was asked for"


def _precise(checkpoint: Checkpoint, key: str, keep: tuple[str, ...] | None) -> str:
    """Why a tensor has to stay precise; nothing where it has not."""
    names = checkpoint.structure.spellings(key)
    if keep is not None:
        return "that `keep` names" if any(fnmatchcase(name, pattern) for pattern in keep for name in names) else ""
    if checkpoint.structure.location(key).block is None:
        return "outside the denoiser's blocks"
    declared = checkpoint.structure.family.precise
    return "that the family keeps precise" if any(fnmatchcase(name, pattern) for pattern in declared for name in names) else ""


def _check_patterns(path: Path, checkpoint: Checkpoint, asked: Quantise) -> None:
    """Raise ExportError for a pattern that means nothing in this model."""
    structure = checkpoint.structure
    locations = {structure.location(key) for key in checkpoint}
    for pattern in asked.blocks or ():
        if not any(location.matches(pattern) for location in locations):
            blocks = ", ".join(sorted({location.block.name for location in locations if location.block})) or "none"
            raise ExportError(f"{path}: quantise's block pattern {pattern!r} matches nothing in {checkpoint.name}; its blocks are {blocks}")
    for pattern in asked.keep or ():
        if not any(fnmatchcase(name, pattern) for key in checkpoint for name in structure.spellings(key)):
            raise ExportError(f"{path}: quantise's keep pattern {pattern!r} matches no tensor of {checkpoint.name}")
