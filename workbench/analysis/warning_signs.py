"""What goes wrong in merges in practice, told from sums over their weights. Measuring them is `movement`'s business."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from workbench.analysis.movement import Movement
from workbench.checkpoint.views.placing import ALL
from workbench.merge import Merge
from workbench.wording import few, listed

Kind = Literal["nan", "saturation", "norm", "collapse", "copy", "vae"]
_SHOWN = 5  # places that a sentence names
_SHRUNK = 0.9  # of the least parent's; averages of two that have nothing in common keep 0.71, of relatives nearly all


@dataclass(frozen=True)
class WarningSign:
    """One thing that looks wrong: where (blocks or components, and tensors), the numbers, and what to do."""

    kind: Kind
    places: tuple[str, ...]
    tensors: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Evidence:
    """What there is to judge: the merge, the parents' names, the tensors of each place, and where NaN or infinity was read.

    `nonfinite` maps a tensor's name to the models that hold it; `result` is what the merge is called there.
    """

    merge: Merge
    result: str
    parents: tuple[str, ...]
    moved: Mapping[str, Mapping[str, Movement]]
    nonfinite: Mapping[str, tuple[str, ...]]

    @property
    def totals(self) -> dict[str, Movement]:
        return {place: Movement.total(list(tensors.values())) for place, tensors in self.moved.items() if place != ALL and tensors}

    @property
    def slot(self) -> str:
        """What a rule calls the first input."""
        return next(iter(self.merge.call.models))


def findings(evidence: Evidence) -> tuple[WarningSign, ...]:
    """Everything that looks wrong, the worst first."""
    return tuple(finding for look in (_nan, _saturation, _norm, _collapse, _vae, _copy) for finding in look(evidence))


def _nan(evidence: Evidence) -> Iterator[WarningSign]:
    keys = [key for key, models in evidence.nonfinite.items() if evidence.result in models]
    if not keys:
        return
    merge = evidence.merge
    places = tuple(dict.fromkeys(merge.block(key) or merge.structure.component(key) for key in keys))
    guilty = [name for name in evidence.parents if any(name in evidence.nonfinite[key] for key in keys)]
    cure = (
        f"{' and '.join(guilty)} holds it already: mend that file, or take these tensors from another by a rule"
        if guilty
        else "no parent does: the merge leaves the range of its dtype; lower the weights, or make it with dtype='bfloat16'"
    )
    text = f"NaN or infinity in {_count(keys, 'tensor')} of {few(places, _SHOWN)} ({listed(keys)}): it draws black or noise; {cure}."
    yield WarningSign("nan", places, tuple(keys), text)


def _saturation(evidence: Evidence) -> Iterator[WarningSign]:
    found = {key: moved.saturated for key, moved in evidence.moved[ALL].items() if moved.saturated}
    if not found:
        return
    places = _places_of(evidence, found)
    dtypes = sorted({evidence.merge.info(key).dtype_name for key in found})
    text = (
        f"{_count(range(sum(found.values())), 'element')} of {few(places, _SHOWN)} ({listed(found)}) at the largest value that "
        f"{' and '.join(dtypes)} holds: what lay beyond was cut off; lower the weights, or make it with dtype='bfloat16'."
    )
    yield WarningSign("saturation", places, tuple(found), text)


def _norm(evidence: Evidence) -> Iterator[WarningSign]:
    shrunk = _shrunk({place: total.values()["norm_ratio"] for place, total in evidence.totals.items()})
    if not shrunk:
        return
    keys = tuple(key for place in shrunk for key in evidence.moved[place])
    text = (
        f"The weights have shrunk: of the smallest parent's norm there is left {_worst(shrunk)}. An average of weights that have little "
        "in common gets smaller, and pictures pale or blurred; for relatives add changes to their common base (task_arithmetic), for "
        "strangers let one model have the block by a rule."
    )
    yield WarningSign("norm", tuple(shrunk), keys, text)


def _collapse(evidence: Evidence) -> Iterator[WarningSign]:
    shrunk = _shrunk({place: total.norm_spread for place, total in evidence.totals.items()})
    if not shrunk:
        return
    keys = tuple(key for place in shrunk for key, moved in evidence.moved[place].items() if np.isfinite(moved.sums["spread"]).any())
    text = (
        f"The gains of normalisation layers ({listed(keys)}) differ less from channel to channel: of the smallest parent's spread there "
        f"is left {_worst(shrunk)}. Channels that every parent tells apart become alike (compare variance collapse, Jordan et al. 2022, "
        f"arXiv:2211.08403); take these tensors from one model by rules, {{'match': NAME, 'take': {evidence.slot!r}}}, or add changes to "
        "a common base."
    )
    yield WarningSign("collapse", tuple(shrunk), keys, text)


def _vae(evidence: Evidence) -> Iterator[WarningSign]:
    total = evidence.totals.get("vae")
    if total is None or not total.differing.any() or (total.sums["equal"] == total.sums["elements"])[total.sums["elements"] > 0].any():
        return
    distance = np.nanmin(total.values()["distance"])
    text = (
        f"The VAE is a mixture: it is {distance:.2%} away from the nearest parent's, and the parents' differ. Mixed VAEs draw washed-out "
        f"or speckled pictures; take one whole: rules=[{{'component': 'vae', 'take': {evidence.slot!r}}}]."
    )
    yield WarningSign("vae", ("vae",), tuple(evidence.moved["vae"]), text)


def _copy(evidence: Evidence) -> Iterator[WarningSign]:
    copied: dict[str, list[str]] = {}
    for place, total in evidence.totals.items():
        entries = [evidence.merge.entry(key) for key in evidence.moved[place]]
        asked = all(entry.take is not None and entry.unasked is None for entry in entries)
        parent = None if asked else _copied(total, len(evidence.parents))
        if parent is not None:
            copied.setdefault(evidence.parents[parent], []).append(place)
    for name, places in copied.items():
        keys = tuple(key for place in places for key in evidence.moved[place])
        text = (
            f"{few(places, _SHOWN)} {'is' if len(places) == 1 else 'are'} {name}'s to the bit, though the parents differ there: nothing "
            "of the others arrived; if it was not meant so, look at the weights of these blocks."
        )
        yield WarningSign("copy", tuple(places), keys, text)


def _copied(total: Movement, count: int) -> int | None:
    """The parent that a place was copied from although another had something to add; None for none.

    Where all the others are equal, only this one had anything to say: its copy is what a merge of changes should give.
    """
    elements = total.sums["elements"]
    there = [i for i in range(count) if elements[i] == elements.max()]
    for parent in there:
        others = [i for i in there if i != parent]
        one_voice = len(others) > 1 and not total.differing[np.ix_(others, others)].any()
        if total.sums["equal"][parent] == elements[parent] and total.differing[parent, others].any() and not one_voice:
            return parent
    return None


def _shrunk(ratios: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The places where a ratio is small for every parent, with the largest of these ratios."""
    found = {place: ratio[np.isfinite(ratio)] for place, ratio in ratios.items()}
    return {place: ratio.max() for place, ratio in found.items() if len(ratio) and ratio.max() < _SHRUNK}


def _worst(shrunk: Mapping[str, float]) -> str:
    """The places, with what is left in each: the least first."""
    return few([f"{left:.0%} in {place}" for place, left in sorted(shrunk.items(), key=lambda pair: pair[1])], _SHOWN)


def _places_of(evidence: Evidence, keys: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(place for place, tensors in evidence.moved.items() if place != ALL and any(key in tensors for key in keys))


def _count(things: Sequence[object], what: str) -> str:
    return f"{len(things)} {what}{'s' if len(things) != 1 else ''}"
