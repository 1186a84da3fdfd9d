"""`live`: a model as a merge sees it, each tensor once and its positions counted. What training left behind is the plan's matter."""

from __future__ import annotations

from collections.abc import Iterator

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.names.buffers import is_positions
from workbench.checkpoint.views.view import Indices, View
from workbench.errors import CheckpointError
from workbench.tensors import PIECE, Flat, TensorInfo

_same: dict[tuple[str, str], bool] = {}  # whether two tensors hold the same numbers, by fingerprints
_counted: dict[str, bool] = {}  # whether one holds 0, 1, 2 and so on


def live(model: Checkpoint) -> Checkpoint:
    """The model without second names of its tensors, and with whole numbers for broken positions; itself where it has neither."""
    twins, broken = model.structure.twins, dict(_broken_positions(model))
    if not twins and not broken:
        return model
    return View(model, {key: broken.get(key, key) for key in model if key not in twins})


def without_twins(model: Checkpoint) -> Checkpoint:
    """The model without second names of its tensors. Raises CheckpointError where the two hold other numbers."""
    if differing := differing_twin(model):
        told = f"{differing[0]!r} and {differing[1]!r} are two names of one tensor, and hold other numbers"
        raise CheckpointError(f"{model.path or model.name}: {told}; save the model with the right one alone")
    twins = model.structure.twins
    return View(model, {key: key for key in model if key not in twins}) if twins else model


def counted(model: Checkpoint) -> list[str]:
    """The names of the positions that `live` has counted, since the model's own are broken."""
    return [key for key, entry in model.entries.items() if isinstance(entry, Indices)] if isinstance(model, View) else []


def differing_twin(model: Checkpoint) -> tuple[str, str] | None:
    """A tensor that has two names in a model and other numbers under each, which are compared once; None where there is none."""
    for twin, key in model.structure.twins.items():
        prints = (model.fingerprint(twin), model.fingerprint(key))
        if prints not in _same:
            _same[prints] = prints[0] == prints[1] or _equal(model, twin, key)
        if not _same[prints]:
            return twin, key
    return None


def _equal(model: Checkpoint, one: str, other: str) -> bool:
    info = model.info(one)
    if info.shape != model.info(other).shape:
        return False
    parts = (Flat(start, min(start + PIECE, info.numel)) for start in range(0, info.numel, PIECE))
    return all(bool((model.read(one, part).double() == model.read(other, part).double()).all()) for part in parts)


def _broken_positions(model: Checkpoint) -> Iterator[tuple[str, Indices]]:
    """Positions that training in half precision, or a conversion, has made floats or other numbers than 0, 1, 2 and so on."""
    for key in filter(is_positions, model):
        info = model.info(key)
        if info.is_float or not _is_counted(model, key):
            yield key, Indices(TensorInfo(info.shape, "I64"))


def _is_counted(model: Checkpoint, key: str) -> bool:
    """Whether a tensor of a few hundred integers counts from 0; it is read once."""
    import torch

    known = model.fingerprint(key)
    if known not in _counted:
        _counted[known] = torch.equal(model.read(key).reshape(-1).long(), torch.arange(model.info(key).numel))
    return _counted[known]
