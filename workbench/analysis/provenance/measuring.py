"""What `recover` proposes as the parents of a file whose header is silent: measured, and so no more than a proposal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workbench.analysis.recovery import Recovery, recover
from workbench.checkpoint import Checkpoint
from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.files import hashing
from workbench.checkpoint.files.catalogue import Catalogue, Mark
from workbench.checkpoint.views.placing import ALL
from workbench.errors import WorkbenchError

_MOST = 16  # candidates: all are read at once
_LEAST = 0.005  # a ratio that counts
_ALIKE = 0.5  # share of the file's tensors that a candidate must have, in the same shapes
_SILENT = "its header says nothing of its parents"


@dataclass(frozen=True)
class Proposal:
    """Files with their ratios, how well they fit, and what to know of it; no files where none fit."""

    note: str
    weights: Mapping[Path, str] = field(default_factory=dict)
    method: str = ""
    told_by: str = ""
    residual: float = math.nan


def proposed(path: Path, catalogue: Catalogue, parents: Callable[[Path], tuple[Mark, ...]], *, progress: bool = True) -> Proposal:
    """Which of a folder's files the file at `path` is a weighted sum of; `parents` says what a file's header names.

    Files of another kind are no candidates, nor are copies, and those that name the file among their ancestors: numbers cannot
    tell which of two was first. Files that are merges themselves only are where the others do not make it: with their own
    parents beside them, nothing tells how much of which there is.
    """
    unknown = f"parents unknown: {_SILENT}"
    try:
        model = open_checkpoint(path)
        candidates = _distinct(path, model, catalogue, parents)
        if not candidates:
            return Proposal(f"{unknown}, and {catalogue.folder.name} holds no other model of its kind that it may be made of")
        first = {place: one for place, one in candidates.items() if not parents(place)}
        for asked in (first, candidates) if 0 < len(first) < len(candidates) else (candidates,):
            if len(asked) > _MOST:
                return Proposal(
                    f"{unknown}, and {catalogue.folder.name} holds {len(asked)} models of its kind; give a folder of at most {_MOST}"
                )
            names = {str(place.relative_to(catalogue.folder)): place for place in asked}
            found = _of(recover(model, {name: asked[place] for name, place in names.items()}, progress=progress), names)
            if found.weights:
                break
    except WorkbenchError as error:
        return Proposal(f"{unknown}, and nothing could be measured: {error}")
    return found


def _distinct(path: Path, model: Checkpoint, catalogue: Catalogue, parents: Callable[[Path], tuple[Mark, ...]]) -> dict[Path, Checkpoint]:
    """The candidates, each content once."""
    own = hashing.sha256(path)
    found, seen = {}, {own}
    for place, other in _candidates(model, catalogue):
        sha256 = hashing.sha256(place)
        if sha256 not in seen and not any(mark.sha256 and own.startswith(mark.sha256) for mark in parents(place)):
            found[place] = other
        seen.add(sha256)
    return found


def _of(found: Recovery, places: Mapping[str, Path]) -> Proposal:
    whole = found.rows[ALL]
    residual = whole.relative("left")
    parts = [row for place, row in found.rows.items() if place != ALL and row.fit is not None]
    by_block = bool(parts) and all(row.fit is not None and row.fit.rest.fits for row in parts)
    if whole.fit is None or not (whole.fit.rest.fits or by_block):
        return Proposal(f"parents unknown: {_SILENT}, and measured, {found.headline}", residual=residual)
    frame = found.ratios.drop(index=ALL) if not whole.fit.rest.exact and by_block and len(parts) > 1 else found.ratios.loc[[ALL]]
    weights = {}
    for name in frame:
        ratios = frame[name].dropna()
        if len(ratios) and ratios.abs().max() >= _LEAST:  # what cannot be told from others is said, and no parent
            low, high = f"{ratios.min():.3f}", f"{ratios.max():.3f}"
            weights[places[str(name)]] = low if low == high else f"{low} to {high}"
    if not weights:
        return Proposal(f"parents unknown: {_SILENT}, and nothing tells them apart: {found.headline}", residual=residual)
    apart = f"; {whole.note}" if whole.note else ""
    caution = "numbers say what a file is a sum of, not which was made first"
    note = f"{_SILENT}; measured, not told: {found.headline}{apart}; {caution}"
    return Proposal(note, weights, "a weighted sum, measured", "recover (measured)", residual)


def _candidates(model: Checkpoint, catalogue: Catalogue) -> Iterator[tuple[Path, Checkpoint]]:
    """The folder's files that hold the same kind of model."""
    for place in catalogue.files:
        try:
            other = open_checkpoint(place)
            shared = sum(key in other and other.info(key).shape == model.info(key).shape for key in model)
        except WorkbenchError:
            continue
        if (other.architecture, other.space) == (model.architecture, model.space) and shared >= _ALIKE * max(1, len(model)):
            yield place, other
