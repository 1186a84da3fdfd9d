"""What a tuned model differs by from its base, tensor by tensor: which of them a LoRA can hold, and reading them. No method lives here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.layouts import alike
from workbench.checkpoint.views.matching import LeftOut, match
from workbench.engine.inputs import named
from workbench.engine.pool import Done, run
from workbench.errors import InputError, MergeError, MergeWarning, NonFiniteWarning, warn
from workbench.lora.decomposition import energy
from workbench.lora.targets import Include, LoraForm, about, asked_for, fits, targets
from workbench.tensors import PIECE, Calculation, Flat, Part, Scope
from workbench.wording import listed

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class TensorPair:
    """A tensor that tuned model and base both have, and its name in each."""

    key: str  # the base's
    other: str  # the tuned model's
    place: str
    shape: tuple[int, ...]
    form: LoraForm


@dataclass(frozen=True)
class Side:
    """The two models, checked, by the names that messages give them; the tuned one is viewed in the base's layout."""

    base: str
    tuned: str
    models: dict[str, Checkpoint]

    def change(self, pair: TensorPair, done: Done) -> torch.Tensor:
        """tuned - base in float32; merges unrounded."""
        calculation, base, tuned = Calculation(), self.models[self.base], self.models[self.tuned]
        change = tuned.calculate(pair.other, None, calculation).contiguous()
        done(tuned.info(pair.other).nbytes)
        flat = change.view(-1)
        for part in _parts(base, pair.key):
            read = base.calculate(pair.key, part, calculation).reshape(-1)
            (flat if part is None else flat[part.start : part.stop]).sub_(read)
        done(base.info(pair.key).nbytes)
        return change

    def differ(self, pair: TensorPair, done: Done) -> bool:
        """Whether the two differ anywhere; read piece by piece."""
        import torch

        base, tuned = self.models[self.base], self.models[self.tuned]
        whole = None in (*_parts(base, pair.key), *_parts(tuned, pair.other))
        parts = [None] if whole else list(_parts(base, pair.key))
        names = ((base, pair.key), (tuned, pair.other))
        found = any(not torch.equal(*(model.calculate(key, part, Calculation()) for model, key in names)) for part in parts)
        done(sum(model.info(key).nbytes for model, key in names))
        return found

    def spoilt(self, pair: TensorPair) -> list[str]:
        """The models whose tensor holds NaN or infinity."""
        pairs = ((self.base, pair.key), (self.tuned, pair.other))
        return [name for name, key in pairs if not self.models[name].calculate(key, None, Calculation()).isfinite().all()]


def side_by_side(tuned: Checkpoint, base: Checkpoint, include: Include, whole: bool, who: str) -> tuple[Side, list[TensorPair]]:
    """Both models, and the tensors that are asked for, or that a LoRA of them leaves out; nothing is read.

    `include` is None, a component, a pattern of names, or several of these. A MergeWarning tells what is asked for and in one of
    them only. Raises InputError for what is no checkpoint and for an `include` that fits nothing, MergeError for models that do not
    fit together.
    """
    models = alike(named([base, tuned], who))
    first, second = names = tuple(models)
    side = Side(first, second, models)
    forms = {model: targets(model, include, whole, who) for model in set(models.values())}
    matched, left_out = match(models, who)
    _warn_of(left_out, side, forms, who)
    found = []
    for tensor in matched:
        key, other = (tensor.names[name] for name in names)
        if (form := forms[base].get(key)) is not None:
            found.append(TensorPair(key, other, tensor.place, base.info(key).shape, form))
    for rule in asked_for(base, include, who):
        if not any(fits(rule, base, one.key) for one in found):
            raise InputError(f"{who}: include: {(rule.match or rule.component)!r} fits no tensor that both have; {about(base)}")
    if all(one.form is LoraForm.NOT for one in found):
        raise InputError(f"{who}: include: there is no matrix or convolution that both have and is asked for; {about(base)}")
    return side, found


def streamed(
    side: Side, pairs: Sequence[TensorPair], work: Callable[[TensorPair, torch.Tensor, float], None], *, who: str, progress: bool
) -> tuple[list[TensorPair], list[TensorPair]]:
    """Do `work` on every change that is not zero, and its sum of squares, on threads.

    Returns those that are zero, and those that are not, of which no LoRA can be made. What holds NaN or infinity is left out,
    and a NonFiniteWarning says so. Memory is bounded by the largest tensor.
    """
    equal: set[str] = set()
    lost: set[str] = set()
    spoilt: dict[str, list[str]] = {}

    def one(job: _Job, done: Done) -> None:
        pair = job.pair
        if pair.form is LoraForm.NOT:
            (lost if side.differ(pair, done) else equal).add(pair.key)
            return
        change = side.change(pair, done)
        if not math.isfinite(total := energy(change)):
            spoilt[pair.key] = side.spoilt(pair)
        elif total:
            work(pair, change, total)
        else:
            equal.add(pair.key)

    total = sum(side.models[side.base].info(one.key).nbytes + side.models[side.tuned].info(one.other).nbytes for one in pairs)
    run([_Job(one, _held(side, one)) for one in pairs], one, total=total, title=who, delay=2, progress=progress)
    if spoilt:
        told = [(name, [one.key for one in pairs if name in spoilt.get(one.key, ())]) for name in side.models]
        said = "; ".join(f"{listed(keys)} in {name}" for name, keys in told if keys)
        warn(f"{who} leaves out what holds NaN or infinity: {said}; mend the file", NonFiniteWarning)
    return [one for one in pairs if one.key in equal], [one for one in pairs if one.key in lost]


def nothing(side: Side, who: str) -> MergeError:
    """What to raise when no tensor that is asked for differs."""
    return MergeError(f"{who}: {side.tuned} and {side.base} do not differ in any tensor that is asked for, so there is nothing to take out")


@dataclass(frozen=True)
class _Job:
    pair: TensorPair
    held: int

    @property
    def key(self) -> str:
        return self.pair.key


def _warn_of(left_out: Sequence[LeftOut], side: Side, forms: dict[Checkpoint, dict[str, LoraForm]], who: str) -> None:
    """Tell of tensors that are asked for and cannot be set side by side."""
    told = []
    for one in left_out:
        model = side.models[side.tuned if one.why.endswith("only in") else side.base]
        if keys := tuple(key for key in one.keys if forms[model].get(key, LoraForm.NOT) is not LoraForm.NOT):
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


def _held(side: Side, pair: TensorPair) -> int:
    """Bytes that taking a change apart needs, about: it in float32, half as much for what is made of it, whole tensors of merges."""
    numel = math.prod(pair.shape)
    whole = sum(model.scope is not Scope.ELEMENT for model in side.models.values())
    return (2 * PIECE if pair.form is LoraForm.NOT else numel) * 6 + whole * numel * 8
