"""Which tensor of a checkpoint is written as what: what was asked for, what a format can hold, and what has to stay precise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.names.buffers import is_marker
from workbench.engine.quantising.formats import WrittenFormat, cuts, written_format
from workbench.engine.quantising.quantiser import Plain, Quantiser
from workbench.errors import ExportError
from workbench.tensors import TensorInfo

_FEW = 1024  # elements of a tensor that is too small to be worth it
_OPTIONS = ("default", "blocks", "keep")


@dataclass(frozen=True)
class Quantise:
    """What was asked for: a type, types by block, and patterns of names that stay precise; None is the family's list."""

    default: str | None
    blocks: Mapping[str, str]
    keep: tuple[str, ...] | None

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*([self.default] if self.default else []), *self.blocks.values()]))

    def as_data(self) -> dict[str, Any]:
        """What goes into the header."""
        keep = {} if self.keep is None else {"keep": list(self.keep)}
        return {"default": self.default, "blocks": dict(self.blocks), **keep}


@dataclass(frozen=True)
class QuantisedPlan:
    """How each tensor is written, by its name in the checkpoint, and what to know of it."""

    quantisers: Mapping[str, Quantiser]
    note: str

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors in the file."""
        return sum(one.nbytes for one in self.quantisers.values())


def checked_quantise(path: Path, given: object) -> Quantise | None:
    """What `quantise` asks for; of a GGUF file that it does not. Raises ExportError."""
    if given is None:
        return None
    data = {"default": given} if isinstance(given, str) else given
    if not isinstance(data, Mapping) or not data or not set(data) <= set(_OPTIONS):
        raise ExportError(f"{path}: quantise must be a type, or a mapping with some of {', '.join(map(repr, _OPTIONS))}, got {given!r}")
    default, blocks, keep = (data.get(name) for name in _OPTIONS)
    if blocks is not None and not (isinstance(blocks, Mapping) and all(isinstance(one, str) for one in blocks)):
        raise ExportError(f"{path}: quantise's 'blocks' must map patterns of blocks to types, got {blocks!r}")
    if keep is not None and (isinstance(keep, str) or not all(isinstance(one, str) for one in keep)):
        raise ExportError(f"{path}: quantise's 'keep' must be a list of patterns of names, got {keep!r}")
    asked = Quantise(default, dict(blocks or {}), None if keep is None else tuple(keep))
    if not asked.types:
        raise ExportError(f"{path}: quantise names no type; give 'default' or 'blocks' one of {_allowed(path)}")
    for kind in asked.types:
        if kind not in written_format(path).types():
            raise ExportError(f"{path}: quantise has {kind!r}, which is not written here; allowed are {_allowed(path)}")
    return asked


def _allowed(path: Path) -> str:
    form = written_format(path)
    return f"{', '.join(form.types())}{form.hint}"


def quantised_plan(
    path: Path, checkpoint: Checkpoint, infos: Mapping[str, TensorInfo], asked: Quantise | None, dtype: str | None
) -> QuantisedPlan:
    """A quantiser for each tensor. Raises ExportError where nothing would be quantised, or something cannot be in the file."""
    form = written_format(path)
    if asked is None:
        return QuantisedPlan({key: form.plain(path, key, info, dtype) for key, info in infos.items()}, "")
    _check_patterns(path, checkpoint, asked)
    found: dict[str, Quantiser] = {}
    kept: Counter[str] = Counter()
    for key, info in infos.items():
        made = _quantised(form, checkpoint, key, info, asked)
        if isinstance(made, str):
            kept[made] += 1
            made = form.plain(path, key, info, dtype)
        found[key] = made
    told = "; ".join(f"{count} {why}" for why, count in kept.most_common())
    written = Counter(one.kind for one in found.values() if not isinstance(one, Plain))
    if len(found) == kept.total():
        raise ExportError(f"{path}: quantise={asked.as_data()} leaves every tensor as it is ({told}); give 'keep' other patterns")
    kinds = ", ".join(f"{kind} {count}" for kind, count in written.items())
    note = f"quantised {len(found) - kept.total()} of {len(found)} tensors" + (f" ({kinds})" if kinds else "")
    return QuantisedPlan(found, f"{note}; kept: {told}" if told else note)


def _quantised(form: WrittenFormat, checkpoint: Checkpoint, key: str, info: TensorInfo, asked: Quantise) -> Quantiser | str:
    """How a tensor is quantised, or why it is not."""
    location = checkpoint.structure.location(key)
    kind = next((kind for pattern, kind in asked.blocks.items() if location.matches(pattern)), None)
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
    for pattern in asked.blocks:
        if not any(location.matches(pattern) for location in locations):
            blocks = ", ".join(sorted({location.block.name for location in locations if location.block})) or "none"
            raise ExportError(f"{path}: quantise's block pattern {pattern!r} matches nothing in {checkpoint.name}; its blocks are {blocks}")
    for pattern in asked.keep or ():
        if not any(fnmatchcase(name, pattern) for key in checkpoint for name in structure.spellings(key)):
            raise ExportError(f"{path}: quantise's keep pattern {pattern!r} matches no tensor of {checkpoint.name}")
