"""`merge` and `resize`: LoRAs from LoRAs, exact in the directions they have, and then cut. Methods beside the sum are in `core_space`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.layouts import like
from workbench.checkpoint.views.low_rank import LowRank
from workbench.engine.pool import Done, run
from workbench.errors import InputError, MergeError, OptionError
from workbench.families import GENERIC
from workbench.lora.checking import check_architectures, check_by_itself, check_finite, check_lora
from workbench.lora.choosing import LoraLimit
from workbench.lora.core_space import LINEAR, Method, in_core_space, method_named
from workbench.lora.decomposition import Decomposed, decompose, decompose_product, energy
from workbench.lora.formats import in_memory
from workbench.lora.gathering import Gathered
from workbench.lora.laying import laid
from workbench.lora.one_change import directions, squares
from workbench.tensors import SavedDtype
from workbench.wording import listed

if TYPE_CHECKING:
    import torch

_ROUNDING = 1e-12  # of the squares of what is added: a sum below is float32's rounding


def merge(
    loras: Sequence[LowRank],
    strengths: float | Sequence[float] = 1.0,
    *,
    method: str = LINEAR,
    rank: int | None = None,
    target_error: float | None = None,
    max_bytes: int | None = None,
    dtype: SavedDtype = "float16",
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> LowRank:
    """One LoRA that changes a model as several together do: strength * change of each, merged by `method`.

    `"linear"` is their sum. Any operator that merges changes into a base is a method too, with its own `options`: `"ties"`,
    `"dare_linear"`, `"dare_ties"`, `"magnitude_prune"`, `"breadcrumbs"`, `"tsv_merge"`, `"iso_c"`, and those defined elsewhere. They work
    on matrices as small as the LoRAs' ranks together, their cores in the common space (see `core_space.in_core_space`), whatever ranks,
    alphas and kinds the LoRAs have. For sums, `tsv_merge` and `iso_c` (with `convolutions="matrix"`) that is what the operator
    gives on the whole matrices. Methods that choose elements (`ties`, `dare_...`, `breadcrumbs`, `magnitude_prune`) choose elements of
    the cores, as the paper defines it, which is not the same as choosing elements of the weights. `seed` is for the random ones. A
    LoRA without a tensor changes nothing of it.

    Without a limit the result is exact: for a sum the ranks add up, less what is in several. With one, as for `extract` (a `rank`, a
    `target_error` of each tensor, `max_bytes` of the file in `dtype`), the strongest directions of each tensor are kept, and
    `.report` tells ranks and errors. The tensors are those of all, named as in the first; what one of them changes as a whole
    (`diff`, also of norms and biases) is merged whole, by the same method, and stays whole.

    Raises InputError for what is no list of LoRAs, OptionError for strengths, limits, a method or options that make no sense, MergeError
    for LoRAs of different models, or that come to nothing. Source: Panariello et al. 2025, arXiv:2509.17786.
    """
    who = "merge"
    if isinstance(loras, str | Checkpoint) or not isinstance(loras, Sequence) or not loras:
        raise InputError(f"{who} takes one or more LoRAs in a list, got {loras!r}")
    for lora in loras:
        check_lora(lora, who)
        check_by_itself(lora, who)
    numbers = _strengths(strengths, len(loras), who)
    wanted = LoraLimit(rank, target_error, max_bytes, dtype)
    wanted.check(who, needed=False)
    found = method_named(method, options, seed, len(loras), who)
    return _combined(loras, numbers, wanted, "+".join(dict.fromkeys(lora.name for lora in loras)), progress, who, found)


def resize(
    lora: LowRank,
    *,
    rank: int | None = None,
    target_error: float | None = None,
    max_bytes: int | None = None,
    dtype: SavedDtype = "float16",
    progress: bool = True,
) -> LowRank:
    """The same LoRA in fewer directions, the strongest of each tensor; `.report` tells what is missed.

    Exactly one limit is given, as for `extract`: a `rank`, a `target_error` of each tensor, or `max_bytes` of the file in `dtype`.
    Whole changes (`diff`) stay as they are.

    Raises InputError for what is no LoRA, OptionError for a limit that makes no sense.
    """
    who = "resize"
    check_lora(lora, who)
    check_by_itself(lora, who)
    wanted = LoraLimit(rank, target_error, max_bytes, dtype)
    wanted.check(who)
    return _combined([lora], [1.0], wanted, lora.name, progress, who)


@dataclass(frozen=True)
class _Sum:
    """A tensor of the result, under the first LoRA's name, and what it is made of: LoRAs, its name there, and strengths.

    `places` says which of all LoRAs those are.
    """

    key: str
    shape: tuple[int, ...]
    terms: list[tuple[LowRank, str, float]]
    places: list[int]

    @property
    def nbytes(self) -> int:
        return 4 * math.prod(self.shape)

    @property
    def held(self) -> int:
        """Bytes that it takes, at most about: the change in float64 and some more of it; if it is merged whole, those of all."""
        return (4 + self.is_whole * len(self.terms)) * self.nbytes

    @property
    def is_whole(self) -> bool:
        """Whether it has no directions, or one LoRA holds it whole; what is made of smaller parts, of whatever kind, has directions."""
        return len(self.shape) < 2 or any(lora.kind(name) == "full" for lora, name, _ in self.terms)

    def added(self) -> torch.Tensor:
        """The change itself, in float32."""
        return sum(lora.read(name).double() * strength for lora, name, strength in self.terms).float()  # type: ignore[union-attr]

    def energy(self) -> float:
        """The squares of all terms: what cancels leaves nothing of them but rounding."""
        return sum(strength**2 * squares(lora, name) for lora, name, strength in self.terms)

    def apart(self) -> Decomposed | None:
        """All directions of the change, of the factors of all LoRAs side by side; None where it is zero."""
        import torch

        pairs = [lora.factors(name) for lora, name, _ in self.terms]
        if any(pair is None for pair in pairs):  # a middle is between them
            change = self.added()
            return decompose(self.key, change, total) if (total := energy(change)) else None
        up = torch.cat([pair[0] * strength for pair, (_, _, strength) in zip(pairs, self.terms, strict=True)], 1)  # type: ignore[index]
        return decompose_product(self.key, self.shape, up, torch.cat([pair[1] for pair in pairs]))  # type: ignore[index]

    def merged(self, method: Method) -> torch.Tensor:
        """The whole changes, merged, in float32; a LoRA that has none is zero."""
        import torch

        changes = [torch.zeros(self.shape) for _ in range(method.count)]
        for place, (lora, name, strength) in zip(self.places, self.terms, strict=True):
            changes[place] = lora.read(name).float() * strength
        return method.merged(self.key, changes, min(self.shape[0], math.prod(self.shape[1:])) if self.shape else 1)

    def in_core_space(self, method: Method) -> Decomposed | None:
        """All directions of the changes, merged; None where that is zero. What has strength 0 has no say in the directions."""
        changes: list[Decomposed | None] = [None] * method.count
        strengths = [0.0] * method.count
        for place, (lora, name, strength) in zip(self.places, self.terms, strict=True):
            if strength:
                changes[place], strengths[place] = directions(lora, name), strength
        return in_core_space(self.key, self.shape, changes, strengths, method)


def _combined(
    loras: Sequence[LowRank],
    strengths: Sequence[float],
    wanted: LoraLimit,
    name: str,
    progress: bool,
    who: str,
    method: Method | None = None,
) -> LowRank:
    sums = _sums(loras, strengths, who)
    known = (lora for lora in loras if lora.structure.family is not GENERIC)
    gathered = Gathered(wanted, _outline(sums, name, next(known, loras[0])))

    def work(one: _Sum, done: Done) -> None:
        for lora, key, _ in one.terms:
            check_finite(lora, key, who)
        if one.is_whole:
            change = one.merged(method) if method else one.added()
            if (total := energy(change)) > _ROUNDING * one.energy():
                gathered.keep(one.key, change, total)
        elif (found := one.in_core_space(method) if method else one.apart()) and found.total > _ROUNDING * one.energy():
            gathered.add(found)
        done(one.nbytes)

    run(sums, work, total=sum(one.nbytes for one in sums), title=who, delay=2, progress=progress)
    if not gathered.totals:
        raise MergeError(f"{who}: {name} changes nothing: everything in it is zero, or cancels")
    keys = [one.key for one in sums]
    return gathered.lora(name, keys, tuple(_notes(keys, gathered, method)), who)


def _notes(keys: Sequence[str], gathered: Gathered, method: Method | None) -> Iterator[str]:
    """How it was merged, and what of it came to nothing, in words."""
    if method:
        yield f"merged by {method.told} in the core space"
    if nothing := [key for key in keys if not gathered.totals.get(key)]:
        yield f"{len(nothing)} changes come to nothing ({listed(nothing)})"


def _outline(sums: Sequence[_Sum], name: str, model: Checkpoint) -> LowRank:
    """The names and shapes of the result: a LoRA of rank 1 without memory. `model` tells what they are parts of."""
    import torch

    one = torch.zeros(1)
    pairs = {
        each.key: (one.expand(each.shape[0], 1), one.expand(1, math.prod(each.shape[1:])), each.shape) for each in sums if not each.is_whole
    }
    return in_memory(pairs, {each.key: one.expand(each.shape) for each in sums if each.is_whole}, name, model)


def _sums(loras: Sequence[LowRank], strengths: Sequence[float], who: str) -> list[_Sum]:
    """Each tensor that any of the LoRAs changes, once. Raises MergeError for LoRAs of different models."""
    check_architectures(loras, who)
    found: dict[str, _Sum] = {}
    strange = []
    viewed = [laid(lora, like(lora, loras[0])) for lora in loras]
    for place, (lora, strength) in enumerate(zip(viewed, strengths, strict=True)):
        for key in lora:
            shape = lora.info(key).shape
            known = found.setdefault(key, _Sum(key, shape, [], []))
            known.terms.append((lora, key, strength))
            known.places.append(place)
            if shape != known.shape:
                strange.append(f"{known.key!r} is {list(known.shape)} in {known.terms[0][0].name}, {list(shape)} in {lora.name}")
    if strange:
        raise MergeError(f"{who}: these LoRAs are of different models: {'; '.join(strange[:3])}{'; ...' * (len(strange) > 3)}")
    return list(found.values())


def _strengths(given: float | Sequence[float], count: int, who: str) -> list[float]:
    """One number for each LoRA. Raises OptionError."""
    many = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given] * count
    if len(many) != count:
        raise OptionError(f"{who}: strengths needs one number or {count}, one per LoRA, got {len(many)}: {many}")
    for number in many:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise OptionError(f"{who}: strengths must be finite numbers, got {number!r}")
    return many
