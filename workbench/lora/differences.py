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
from workbench.engine.rounding import only_rounded
from workbench.errors import InputError, MergeError, MergeWarning, NonFiniteWarning, warn
from workbench.lora.decomposition import energy
from workbench.lora.laying import apart
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

    def change(self, pair: TensorPair, done: Done) -> torch.Tensor | None:
        """tuned - base in float32; merges unrounded. None where the two differ by rounding alone."""
        calculation, base, tuned = Calculation(), self.models[self.base], self.models[self.tuned]
        change = tuned.calculate(pair.other, None, calculation).contiguous()
        done(tuned.info(pair.other).nbytes)
        flat = change.view(-1)
        dtypes = self._rounded_apart(pair)
        trained = dtypes is None
        for part in _parts(base, pair.key):
            read = base.calculate(pair.key, part, calculation).reshape(-1)
            own = flat if part is None else flat[part.start : part.stop]
            trained = trained or not only_rounded(read, own, dtypes)  # type: ignore[arg-type]
            own.sub_(read)
        done(base.info(pair.key).nbytes)
        return change if trained else None

    def differ(self, pair: TensorPair, done: Done) -> bool | None:
        """Whether the two differ anywhere, None if by rounding alone; read piece by piece."""
        import torch

        base, tuned = self.models[self.base], self.models[self.tuned]
        whole = None in (*_parts(base, pair.key), *_parts(tuned, pair.other))
        parts = [None] if whole else list(_parts(base, pair.key))
        dtypes = self._rounded_apart(pair)
        names = ((base, pair.key), (tuned, pair.other))
        equal = rounded = True
        for part in parts:
            one, other = (model.calculate(key, part, Calculation()) for model, key in names)
            equal = equal and torch.equal(one, other)
            rounded = rounded and (equal or (dtypes is not None and only_rounded(one, other, dtypes)))
            if not rounded:
                break
        done(sum(model.info(key).nbytes for model, key in names))
        return False if equal else None if rounded else True

    def _rounded_apart(self, pair: TensorPair) -> tuple[torch.dtype, torch.dtype] | None:
        """The two dtypes, base and tuned, in which the tensor was stored; None for one dtype, and for what is calculated."""
        found = [self.models[name].origin(key) for name, key in ((self.base, pair.key), (self.tuned, pair.other))]
        if found[0] is None or found[1] is None:
            return None
        first, second = (model.info(key).dtype for model, key in found)  # type: ignore[misc]
        return None if first == second else (first, second)

    def spoilt(self, pair: TensorPair) -> list[str]:
        """The models whose tensor holds NaN or infinity."""
        pairs = ((self.base, pair.key), (self.tuned, pair.other))
        return [name for name, key in pairs if not self.models[name].calculate(key, None, Calculation()).isfinite().all()]


def side_by_side(tuned: Checkpoint, base: Checkpoint, include: Include, whole: bool, who: str) -> tuple[Side, list[TensorPair]]:
    """Both models, and the tensors that are asked for, or that a LoRA of them leaves out; nothing is read.

    OpenCLIP's queries, keys and values are tensors of their own, as LoRAs have them.

    `include` is None, a component, a pattern of names, or several of these. A MergeWarning tells what is asked for and in one of
    them only. Raises InputError for what is no checkpoint and for an `include` that fits nothing, MergeError for models that do not
    fit together.
    """
    first, second = names = tuple(named([base, tuned], who))
    models = alike({first: (base := apart(base)), second: tuned})
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


@dataclass(frozen=True)
class Unlearned:
    """The tensors that are asked for and not worked on: equal ones, those that differ by rounding alone, those that no LoRA can hold."""

    equal: list[TensorPair]
    rounded: list[TensorPair]
    lost: list[TensorPair]


def streamed(
    side: Side, pairs: Sequence[TensorPair], work: Callable[[TensorPair, torch.Tensor, float], None], *, who: str, progress: bool
) -> Unlearned:
    """Do `work` on every change that was learned, and its sum of squares, on threads.

    What holds NaN or infinity is left out, and a NonFiniteWarning says so. Memory is bounded by the largest tensor.
    """
    equal: set[str] = set()
    rounded: set[str] = set()
    lost: set[str] = set()
    spoilt: dict[str, list[str]] = {}

    def one(job: _Job, done: Done) -> None:
        pair = job.pair
        if pair.form is LoraForm.NOT:
            {True: lost, False: equal, None: rounded}[side.differ(pair, done)].add(pair.key)
        elif (change := side.change(pair, done)) is None:
            rounded.add(pair.key)
        elif not math.isfinite(total := energy(change)):
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
    return Unlearned(*([one for one in pairs if one.key in keys] for keys in (equal, rounded, lost)))


def nothing(side: Side, found: Unlearned, who: str) -> MergeError:
    """What to raise when no tensor that is asked for was learned."""
    pair = f"{who}: {side.tuned} and {side.base}"
    if found.rounded and not found.lost:
        one = found.rounded[0]
        dtypes = " and ".join((side.models[side.tuned].info(one.other).dtype_name, side.models[side.base].info(one.key).dtype_name))
        return MergeError(
            f"{pair} differ by nothing but rounding: {len(found.rounded)} tensors are the same numbers in {dtypes}, so nothing was learned "
            "and there is nothing to take out; use the model that was trained, and the one that it was trained from"
        )
    if found.lost:
        told = listed([one.key for one in found.lost])
        return MergeError(f"{pair} differ only in tensors that no LoRA holds as factors ({told}); whole=True keeps norms and biases")
    return MergeError(f"{pair} do not differ in any tensor that is asked for, so there is nothing to take out")


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
