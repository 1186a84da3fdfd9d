"""What a tuned model differs by from its base, tensor by tensor: which of them a LoRA can hold, and reading them. No method lives here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.matching import LeftOut, listed, match
from workbench.checkpoint.viewing import alike
from workbench.engine.inputs import named
from workbench.engine.pool import Done, run
from workbench.errors import InputError, MergeError, MergeWarning, NonFiniteWarning, warn
from workbench.lora.decomposition import energy
from workbench.merge.rules import COMPONENTS, Rule
from workbench.tensors import PIECE, Calculation, Flat, Part, Scope

if TYPE_CHECKING:
    import torch

Include = str | Sequence[str] | None

_ADAPTED = ("unet", "transformer", "text_encoder", "text_encoder_2")  # what LoRAs are made for
_TABLE = re.compile(r"(token|position)_embedding\.weight$")  # looked up and not multiplied: nothing loads a LoRA of it


class Kind(Enum):
    """How a LoRA holds the change of a tensor: as two factors, whole, or not at all."""

    FACTORS = "factors"
    WHOLE = "whole"
    NOT = "not"


@dataclass(frozen=True)
class Difference:
    """A tensor that tuned model and base both have, and its name in each."""

    key: str  # the base's
    other: str  # the tuned model's
    place: str
    shape: tuple[int, ...]
    kind: Kind


@dataclass(frozen=True)
class Side:
    """The two models, checked, by the names that messages give them; the tuned one is viewed in the base's layout."""

    base: str
    tuned: str
    models: dict[str, Checkpoint]

    def change(self, difference: Difference, done: Done) -> torch.Tensor:
        """tuned - base in float32; merges unrounded."""
        calculation, base, tuned = Calculation(), self.models[self.base], self.models[self.tuned]
        change = tuned.calculate(difference.other, None, calculation).contiguous()
        done(tuned.info(difference.other).nbytes)
        flat = change.view(-1)
        for part in _parts(base, difference.key):
            read = base.calculate(difference.key, part, calculation).reshape(-1)
            (flat if part is None else flat[part.start : part.stop]).sub_(read)
        done(base.info(difference.key).nbytes)
        return change

    def differ(self, difference: Difference, done: Done) -> bool:
        """Whether the two differ anywhere; read piece by piece."""
        import torch

        base, tuned = self.models[self.base], self.models[self.tuned]
        whole = None in (*_parts(base, difference.key), *_parts(tuned, difference.other))
        parts = [None] if whole else list(_parts(base, difference.key))
        names = ((base, difference.key), (tuned, difference.other))
        found = any(not torch.equal(*(model.calculate(key, part, Calculation()) for model, key in names)) for part in parts)
        done(sum(model.info(key).nbytes for model, key in names))
        return found

    def spoilt(self, difference: Difference) -> list[str]:
        """The models whose tensor holds NaN or infinity."""
        pairs = ((self.base, difference.key), (self.tuned, difference.other))
        return [name for name, key in pairs if not self.models[name].calculate(key, None, Calculation()).isfinite().all()]


def side_by_side(tuned: Checkpoint, base: Checkpoint, include: Include, whole: bool, who: str) -> tuple[Side, list[Difference]]:
    """Both models, and the tensors that are asked for, or that a LoRA of them leaves out; nothing is read.

    `include` is None, a component, a pattern of names, or several of these. A MergeWarning tells what is asked for and in one of
    them only. Raises InputError for what is no checkpoint and for an `include` that fits nothing, MergeError for models that do not
    fit together.
    """
    models = alike(named([base, tuned], who))
    names = tuple(models)
    side = Side(*names, models)
    kinds = {model: _kinds(model, include, whole, who) for model in set(models.values())}
    matched, left_out = match(models, who)
    _warn_of(left_out, side, kinds, who)
    found = []
    for tensor in matched:
        key, other = (tensor.names[name] for name in names)
        if (kind := kinds[base].get(key)) is not None:
            found.append(Difference(key, other, tensor.place, base.info(key).shape, kind))
    for rule in _rules(base, include, who):
        if not any(_fits(rule, base, one.key) for one in found):
            raise InputError(f"{who}: include: {(rule.match or rule.component)!r} fits no tensor that both have; {_told(base)}")
    if all(one.kind is Kind.NOT for one in found):
        raise InputError(f"{who}: include: there is no matrix or convolution that both have and is asked for; {_told(base)}")
    return side, found


def streamed(
    side: Side, differences: Sequence[Difference], work: Callable[[Difference, torch.Tensor, float], None], *, who: str, progress: bool
) -> tuple[list[Difference], list[Difference]]:
    """Do `work` on every change that is not zero, and its sum of squares, on threads.

    Returns those that are zero, and those that are not, of which no LoRA can be made. What holds NaN or infinity is left out,
    and a NonFiniteWarning says so. Memory is bounded by the largest tensor.
    """
    equal: set[str] = set()
    lost: set[str] = set()
    spoilt: dict[str, list[str]] = {}

    def one(job: _Job, done: Done) -> None:
        difference = job.difference
        if difference.kind is Kind.NOT:
            (lost if side.differ(difference, done) else equal).add(difference.key)
            return
        change = side.change(difference, done)
        if not math.isfinite(total := energy(change)):
            spoilt[difference.key] = side.spoilt(difference)
        elif total:
            work(difference, change, total)
        else:
            equal.add(difference.key)

    total = sum(side.models[side.base].info(one.key).nbytes + side.models[side.tuned].info(one.other).nbytes for one in differences)
    run([_Job(one, _held(side, one)) for one in differences], one, total=total, title=who, delay=2, progress=progress)
    if spoilt:
        told = [(name, [one.key for one in differences if name in spoilt.get(one.key, ())]) for name in side.models]
        said = "; ".join(f"{listed(keys)} in {name}" for name, keys in told if keys)
        warn(f"{who} leaves out what holds NaN or infinity: {said}; mend the file", NonFiniteWarning)
    return [one for one in differences if one.key in equal], [one for one in differences if one.key in lost]


def nothing(side: Side, who: str) -> MergeError:
    """What to raise when no tensor that is asked for differs."""
    return MergeError(f"{who}: {side.tuned} and {side.base} do not differ in any tensor that is asked for, so there is nothing to take out")


@dataclass(frozen=True)
class _Job:
    difference: Difference
    held: int

    @property
    def key(self) -> str:
        return self.difference.key


def _kinds(model: Checkpoint, include: Include, whole: bool, who: str) -> dict[str, Kind]:
    """How each tensor that is asked for would be held; of those nobody asked for by name, also which cannot be."""
    rules = _rules(model, include, who)
    found: dict[str, Kind] = {}
    for key in model:
        shape = model.info(key).shape
        fitting = [rule for rule in rules if _fits(rule, model, key)]
        if not fitting:
            continue
        named_so = any(rule.match is not None for rule in fitting)
        if key.endswith(".weight") and len(shape) in (2, 4) and (named_so or not _TABLE.search(key)):
            found[key] = Kind.FACTORS
        elif whole and key.endswith((".weight", ".bias")) and len(shape) == 1:
            found[key] = Kind.WHOLE
        else:
            found[key] = Kind.NOT
    return found


def _rules(model: Checkpoint, include: Include, who: str) -> list[Rule]:
    """Which tensors are asked for. Raises InputError for what is no component and fits no name."""
    if include is None:
        adapted = [name for name in _ADAPTED if name in model.components] or list(model.components)
        return [Rule(component=component, merge=True) for component in adapted]
    asked = [include] if isinstance(include, str) else include
    if not isinstance(asked, Sequence) or not asked or not all(isinstance(one, str) for one in asked):
        raise InputError(f"{who}: include takes components or patterns of tensor names, got {include!r}; {_told(model)}")
    return [Rule(component=one, merge=True) if one in COMPONENTS else Rule(match=one, merge=True) for one in asked]


def _fits(rule: Rule, model: Checkpoint, key: str) -> bool:
    return rule.fits(model.structure.spellings(key), model.structure.component(key))


def _told(model: Checkpoint) -> str:
    return f"{model.name} has the components {', '.join(model.components)}, and {next(iter(model), 'no tensor')!r} is its first tensor"


def _warn_of(left_out: Sequence[LeftOut], side: Side, kinds: dict[Checkpoint, dict[str, Kind]], who: str) -> None:
    """Tell of tensors that are asked for and cannot be set side by side."""
    told = []
    for one in left_out:
        model = side.models[side.tuned if one.why.endswith("only in") else side.base]
        if keys := tuple(key for key in one.keys if kinds[model].get(key, Kind.NOT) is not Kind.NOT):
            told.append(str(replace(one, keys=keys)))
    if told:
        warn(f"{who}, with {side.base} as base, leaves tensors out: {'; '.join(told)}", MergeWarning)


def _parts(model: Checkpoint, key: str) -> Iterator[Part]:
    """A tensor in flat parts, or whole where a part would cost as much."""
    count = model.info(key).numel
    if count <= PIECE or (model.scope is not Scope.ELEMENT and model.origin(key) is None):
        yield None
        return
    for start in range(0, count, PIECE):
        yield Flat(start, min(start + PIECE, count))


def _held(side: Side, difference: Difference) -> int:
    """Bytes that taking a change apart needs, about: it in float32, half as much for what is made of it, whole tensors of merges."""
    numel = math.prod(difference.shape)
    whole = sum(model.scope is not Scope.ELEMENT for model in side.models.values())
    return (2 * PIECE if difference.kind is Kind.NOT else numel) * 6 + whole * numel * 8
