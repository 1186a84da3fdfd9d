"""`compare`: how like an anchor other models are, block by block, in one pass over their weights."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.analysis.matching import Matched, listed, match, places
from workbench.checkpoint import Checkpoint
from workbench.errors import InputError, MergeError, MergeWarning, NonFiniteWarning
from workbench.merge.call import unique
from workbench.recipe import preflight
from workbench.tensors import PIECE, Flat, Scope

if TYPE_CHECKING:
    import pandas as pd
    import torch

_OVERALL = "all"  # the last block: every tensor compared


@dataclass(frozen=True)
class Sums:
    """Sums over the elements of an anchor's tensor and a candidate's: of squares, products, and squared differences."""

    place: str
    model: str
    anchor: float
    candidate: float
    product: float
    difference: float


def compare(checkpoints: Iterable[Checkpoint] | Mapping[str, Checkpoint], *, progress: bool = True) -> pd.DataFrame:
    """How like the first checkpoint, the anchor, the others are: block by block, and over all.

    Takes checkpoints, merged or not: in a list (named as they are, made unique), or by name. The frame has a row for each
    `block` and `model`: the anchor's blocks by depth; what lies in no block under its component (`unet` is what the U-Net
    has outside its blocks); last `all`. The index keeps that order: `frame["cosine"].unstack()` is a table of blocks and
    models. The columns, numbers without a unit, where a and b are the elements of anchor and candidate, and |a| is the
    root of the sum of their squares:

    - `cosine`: sum(a * b) / (|a| * |b|), from -1 to 1; 1 where b is a at any scale;
    - `distance`: |a - b| / |a|; 0 where b is a;
    - `norm_ratio`: |b| / |a|;
    - `scale`: the s with the least |a - s * b|, which is sum(a * b) / |b|^2: what `nearest` takes as alpha for the first
      candidate, and as beta for the second, to bring it to the anchor's scale;
    - `tensors`: how many were compared.

    What would be divided by a norm of zero is NaN. `frame.attrs["anchor"]` is the anchor's name. Tensors match by name
    without prefix; markers, integers and empty tensors do not count. What only one of two models has, or has in another
    shape, is left out and said in a MergeWarning; NaN and infinity, in a NonFiniteWarning. Each tensor is read once, as
    an export would write it: in parts, or whole where a merge needs it whole. Sums are in float64, and the same to the
    bit on every machine.

    Raises, before a weight is read, InputError for what is no list of two or more checkpoints, and MergeError for a merge
    that cannot be made or a model that shares nothing with the anchor.
    """
    models = _named(checkpoints)
    _check(models)
    matched, left_out = match(models)
    if left_out:
        told = "; ".join(map(str, left_out))
        warnings.warn(f"compare, with {next(iter(models))} as anchor, leaves tensors out: {told}", MergeWarning, stacklevel=2)
    nonfinite: dict[str, list[str]] = {}
    sums = list(_measure(models, matched, nonfinite, progress))
    if nonfinite:
        told = "; ".join(f"{listed(keys)} in {name}" for name, keys in nonfinite.items())
        warnings.warn(f"compare leaves out what holds NaN or infinity: {told}; mend the file", NonFiniteWarning, stacklevel=2)
    compared = {tensor.place for tensor in matched}
    blocks = [place for place in places(next(iter(models.values()))) if place in compared]
    return _frame(list(models), [*blocks, _OVERALL], sums)


def _named(checkpoints: Iterable[Checkpoint] | Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """The models by name, the anchor first."""
    if isinstance(checkpoints, (str, Checkpoint)) or not isinstance(checkpoints, Iterable):
        raise InputError(f"compare takes two or more checkpoints in a list, or a mapping of names to them; got {checkpoints!r}")
    if isinstance(checkpoints, Mapping):
        given = [(str(name), model) for name, model in checkpoints.items()]
    else:
        given = [(getattr(model, "name", ""), model) for model in checkpoints]
    models: dict[str, Checkpoint] = {}
    for name, model in given:
        if not isinstance(model, Checkpoint):
            raise InputError(f"compare takes checkpoints (see workbench.open), got {model!r}")
        models[unique(name, models)] = model
    if len(models) < 2:
        raise InputError(f"compare takes an anchor and at least one candidate, got {', '.join(models) or 'nothing'}")
    return models


def _check(models: Mapping[str, Checkpoint]) -> None:
    """Raise for models whose numbers cannot be had, or mean different things."""
    spaces = {model.space: name for name, model in models.items()}
    if len(spaces) > 1:
        told = " and ".join(f"{name} holds {space.value}s" for space, name in spaces.items())
        raise InputError(f"compare: {told}; compare weights with weights, or changes with changes")
    for name, model in models.items():
        preflight(model).raise_errors()
        if model.structure.scaled:
            raise MergeError(f"compare: {name}: its fp8 weights are scaled, and their scales are not understood; use an fp16 version")


def _measure(
    models: Mapping[str, Checkpoint], matched: Sequence[Matched], nonfinite: dict[str, list[str]], progress: bool
) -> Iterator[Sums]:
    """The sums of every tensor with every candidate that has it; where NaN or infinity is goes into `nonfinite` instead."""
    from tqdm.auto import tqdm

    total = sum(models[model].info(name).nbytes for tensor in matched for model, name in tensor.names.items())
    with tqdm(total=total, unit="B", unit_scale=True, delay=2, leave=False, disable=not progress, desc="compare") as bar:
        for tensor in matched:
            anchor, *candidates = tensor.names
            size, found = _sums([(models[model], name) for model, name in tensor.names.items()], bar.update)
            if not math.isfinite(size):
                nonfinite.setdefault(anchor, []).append(tensor.names[anchor])
                continue
            for model, sums in zip(candidates, found, strict=True):
                if math.isfinite(sum(sums)):
                    yield Sums(tensor.place, model, size, *sums)
                else:
                    nonfinite.setdefault(model, []).append(tensor.names[model])


def _sums(tensors: Sequence[tuple[Checkpoint, str]], done: Callable[[int], object]) -> tuple[float, list[list[float]]]:
    """The anchor's sum of squares; of each candidate those of its squares, its products and its squared differences."""
    import torch

    size, found = 0.0, [[0.0, 0.0, 0.0] for _ in tensors[1:]]
    for parts in zip(*(_parts(*tensor) for tensor in tensors), strict=True):
        mine = parts[0].to(torch.float64)
        size += _total(mine * mine)
        for sums, part in zip(found, parts[1:], strict=True):
            theirs = part.to(torch.float64)
            apart = mine - theirs
            for i, values in enumerate((theirs * theirs, mine * theirs, apart * apart)):
                sums[i] += _total(values)
        done(sum(part.nbytes for part in parts))
    return size, found


def _parts(model: Checkpoint, key: str) -> Iterator[torch.Tensor]:
    """A tensor in flat parts, always the same ones; read whole where a part would cost as much."""
    count = model.info(key).numel
    if count <= PIECE or (model.scope is not Scope.ELEMENT and model.origin(key) is None):
        yield from model.read(key).reshape(-1).split(PIECE)
        return
    for start in range(0, count, PIECE):
        yield model.read(key, Flat(start, min(start + PIECE, count)))


def _total(values: torch.Tensor) -> float:
    """The sum, added up in halves: in an order that no machine changes, as it would that of `Tensor.sum`. Overwrites."""
    while len(values) > 1:
        half = (len(values) + 1) // 2
        values[: len(values) - half] += values[half:]
        values = values[:half]
    return float(values)


def _frame(models: Sequence[str], blocks: Sequence[str], sums: Sequence[Sums]) -> pd.DataFrame:
    """One row for each block and candidate; ordered categories, so that nothing sorts blocks by the alphabet."""
    import pandas as pd

    anchor, *candidates = models
    groups: dict[tuple[str, str], list[Sums]] = {}
    for one in sums:
        for block in (one.place, _OVERALL):
            groups.setdefault((block, one.model), []).append(one)
    levels = [pd.CategoricalIndex(names, names, ordered=True) for names in (blocks, candidates)]
    index = pd.MultiIndex.from_product(levels, names=["block", "model"])
    frame = pd.DataFrame([_row(groups.get(place, [])) for place in index], index)
    frame.attrs["anchor"] = anchor
    return frame


def _row(sums: Sequence[Sums]) -> dict[str, float]:
    """The columns of `compare`; sums are added exactly, whatever the order of the tensors."""
    anchor, candidate, product, difference = (
        math.fsum(getattr(one, name) for one in sums) for name in ("anchor", "candidate", "product", "difference")
    )
    cosine = _over(product, math.sqrt(anchor * candidate))
    return {
        "cosine": math.copysign(1.0, cosine) if abs(cosine) > 1 else cosine,  # rounding must not leave the range
        "distance": math.sqrt(_over(difference, anchor)),
        "norm_ratio": math.sqrt(_over(candidate, anchor)),
        "scale": _over(product, candidate),
        "tensors": len(sums),
    }


def _over(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
