"""`project`: one LoRA taken out of the directions that another one works in. Adding both to a model is `applying`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.checkpoint.views.layouts import like
from workbench.checkpoint.views.low_rank import LowRank
from workbench.checkpoint.views.matching import place
from workbench.engine.pool import Done, run
from workbench.errors import MergeError, OptionError
from workbench.lora.checking import check_architectures, check_by_itself, check_finite, check_lora
from workbench.lora.core_space import ROUNDING, basis
from workbench.lora.decomposition import Decomposed, decompose_product, energy
from workbench.lora.formats import in_memory
from workbench.lora.laying import laid
from workbench.lora.one_change import directions
from workbench.lora.report import WHOLE, Layer, Report
from workbench.wording import listed

if TYPE_CHECKING:
    import torch

_WHO = "project"
_ITEMSIZE = 2  # bytes of a number in a file in half precision, which the report counts in
_NOTHING = "nothing is left of it"


def project(subject: LowRank, style: LowRank, *, strength: float = 1.0, progress: bool = True) -> LowRank:
    """The subject without what it does in the directions that the style reads: subject - strength * subject V V^T, tensor by tensor.

    V are the right singular vectors of the style's change, all that it has: the directions of a layer's input that it acts on. With
    `strength` 1 the two act on inputs at right angles, so that in no layer the one changes what the other answers to; 0 leaves
    the subject as it is. To keep clear of the style's strongest directions alone, give `resize(style, rank=...)`.

    Exact, in factors of at most the subject's rank; what it changes whole stays whole. Tensors that the style does not change, and what
    has no directions (norms and biases), stay as they are. `.report` tells how much was taken out of each tensor, over its change
    (`relative_error`). Both are added as `wb.lora.apply(base, [(projected, 1.0), (style, 1.0)])`.

    Raises InputError for what is no LoRA, OptionError for a strength outside [0, 1], MergeError for LoRAs of different models, that
    change no tensor in common, or where nothing of the subject is left. Source: Chen et al. 2025, arXiv:2511.11051 (NP-LoRA), whose soft
    projection has strength = mu / (1 + mu), on the style's k strongest directions.
    """
    for lora in (subject, style):
        check_lora(lora, _WHO)
        check_by_itself(lora, _WHO)
    if isinstance(strength, bool) or not isinstance(strength, int | float) or not 0 <= strength <= 1:
        raise OptionError(f"{_WHO}: strength must be a number in [0, 1], got {strength!r}")
    jobs = _jobs(subject, style, strength)
    done_with: dict[str, _Projected] = {}

    def work(job: _Job, done: Done) -> None:
        done_with[job.key] = job.projected()
        done(job.nbytes)

    run(jobs, work, total=sum(job.nbytes for job in jobs), title=_WHO, delay=2, progress=progress)
    return _result(subject, style, strength, {job.key: done_with[job.key] for job in jobs})


@dataclass(frozen=True)
class _Projected:
    """What a tensor of the subject has become: directions, or whole, or nothing; the squares of what was, and of what was taken out."""

    found: Decomposed | torch.Tensor | None
    total: float
    removed: float


@dataclass(frozen=True)
class _Job:
    """A tensor of the subject; `style` is None where the style does not change it, or it has no directions."""

    key: str
    subject: LowRank
    style: LowRank | None
    strength: float

    @property
    def nbytes(self) -> int:
        return 4 * self.subject.info(self.key).numel

    @property
    def held(self) -> int:
        """Bytes that it takes, at most about: what is whole, in float64 and some more of it."""
        return 4 * self.nbytes

    def projected(self) -> _Projected:
        check_finite(self.subject, self.key, _WHO)
        if self.style is not None:
            check_finite(self.style, self.key, _WHO)
        style = directions(self.style, self.key) if self.style is not None else None
        into = None if style is None else basis([style.down.T])
        return (
            self._whole(into)
            if self.subject.kind(self.key) == "full" or len(self.subject.info(self.key).shape) < 2
            else self._factors(into)
        )

    def _whole(self, into: torch.Tensor | None) -> _Projected:
        change = self.subject.read(self.key).float()
        total = energy(change)
        if into is None:
            return _Projected(change, total, 0.0)
        flat = change.flatten(1)
        taken = self.strength * (flat @ into.float()) @ into.T.float()
        return _Projected((flat - taken).reshape(change.shape), total, energy(taken))

    def _factors(self, into: torch.Tensor | None) -> _Projected:
        own = directions(self.subject, self.key)
        if own is None or into is None:
            return _Projected(own, own.total if own else 0.0, 0.0)
        up, down = own.up.double(), own.down.double()
        inside = self.strength * (down @ into)  # rank x directions of the style
        removed = float((up @ inside).square().sum())
        left = decompose_product(self.key, own.shape, up, down - inside @ into.T)
        if left is None or left.total <= ROUNDING**2 * own.total:
            return _Projected(None, own.total, own.total)
        return _Projected(left, own.total, removed)


def _jobs(subject: LowRank, style: LowRank, strength: float) -> list[_Job]:
    """The subject's tensors, each with the style where the two meet. Raises MergeError where they are of different models."""
    check_architectures([subject, style], _WHO)
    viewed = laid(style, like(style, subject))
    jobs = []
    for key in subject:
        shape = subject.info(key).shape
        meets = key in viewed and len(shape) > 1
        if meets and (other := viewed.info(key).shape) != shape:
            told = f"{key!r} is {list(shape)} in {subject.name}, {list(other)} in {style.name}"
            raise MergeError(f"{_WHO}: these LoRAs are of different models: {told}")
        jobs.append(_Job(key, subject, viewed if meets else None, strength))
    if not any(job.style for job in jobs):
        told = f"no matrix of {subject.name} ({listed(subject)}) is one of {style.name} ({listed(style)})"
        raise MergeError(f"{_WHO}: {told}; there is nothing to keep apart")
    return jobs


def _result(subject: LowRank, style: LowRank, strength: float, found: dict[str, _Projected]) -> LowRank:
    pairs = {key: (one.found.up, one.found.down, one.found.shape) for key, one in found.items() if isinstance(one.found, Decomposed)}
    whole = {key: one.found for key, one in found.items() if one.found is not None and key not in pairs}
    if not pairs and not whole:
        raise MergeError(f"{_WHO}: nothing is left of {subject.name}: {style.name} has all of its directions; give a strength below 1")
    met = [key for key in found if found[key].removed]
    note = f"{strength:g} of what lay in the directions of {style.name} is taken out, in {len(met)} of {len(found)} tensors"
    layers = tuple(_layer(subject, key, one) for key, one in found.items())
    return in_memory(pairs, whole, subject.name, subject, Report(subject.name, subject, layers, (note,)))  # type: ignore[arg-type]


def _layer(subject: LowRank, key: str, one: _Projected) -> Layer:
    where = place(subject, key)
    if one.found is None:
        return Layer(key, where, 0, one.total, one.total, 0, _NOTHING if one.total else "is zero")
    if isinstance(one.found, Decomposed):
        return Layer(key, where, one.found.rank, one.total, one.removed, one.found.rank * one.found.width * _ITEMSIZE)
    return Layer(key, where, 0, one.total, one.removed, math.prod(one.found.shape) * _ITEMSIZE, WHOLE)
