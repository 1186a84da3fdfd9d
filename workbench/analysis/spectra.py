"""`spectrum`: how the weights of models spread over frequencies, and what an FFT merge took from whom there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.analysis.bands import BETWEEN, MOVED, SUMS, Transform
from workbench.analysis.spectrum_result import Spectrum
from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.matching import Matched, places
from workbench.engine.inputs import Models, check, matched, named
from workbench.engine.reading import Tensors, measured
from workbench.errors import InputError, OptionError
from workbench.families import Location
from workbench.merge.call import unique
from workbench.tensors import Scope

if TYPE_CHECKING:
    from workbench.merge import Merge
    from workbench.merge.plan import Entry
    from workbench.operators.spectral import Over

_PARTS = {"parts": ("real parts", "imaginary parts"), "polar": ("magnitudes", "phases")}


def spectrum(
    models: Checkpoint | Models,
    *,
    bands: int | Sequence[float] = 16,
    over: Over | None = None,
    dim: int | None = None,
    progress: bool = True,
) -> Spectrum:
    """How much of a model's weights lies at which frequency; and of an FFT merge, what it took from whom.

    Takes an `fft_blend` merge, which is set beside its two models, as far as it transforms tensors and in the transform it
    makes; or checkpoints, one or more, in a list or by name. `over` and `dim` say what is transformed, as in `fft_blend`:
    by default the last dimension of every tensor.

    Frequencies go from 0, the mean, to 1, the highest there is, as `fft_blend` counts them: half a cycle per element is 1;
    over two dimensions a frequency is a radius. `bands` is how many equal bands they are put into, or the bands' edges. Of
    the coefficients X of a model and F, S of the first and second one, in the bands of a block, with both halves of an
    orthonormal transform:

    - `energy`: sum(|X|^2); over all bands the sum of squares of the weights;
    - `amplitude`: the root of the mean of |X|^2: what independent weights of this standard deviation would have everywhere;
    - `share`: of the model's energy in this block, the part that lies in the band;
    - `apart`: the amplitude of X - F, by which the model differs from the first;
    - `coherence`: mean cosine of the angle between X and F, from 1, in phase, over 0, unrelated, to -1;
    - `taken`: sum Re((X - S) (F - S)*) / sum(|F - S|^2): how far X lies from S, 0, to F, 1, at these frequencies.

    Every model is read once, whole tensors in float64; a merge is read as it would be written. The same numbers on any
    number of threads. Raises, before a weight is read: InputError for what is no checkpoint, OptionError for bands that do
    not rise from 0 to 1 or a transform that is not the merge's, MergeError for a merge that cannot be made or models that
    share nothing. Warns (MergeWarning) of tensors that only one model has, and (NonFiniteWarning) of NaN and infinity.
    """
    from workbench.operators import fft_blend

    edges = _edges(bands)
    merge = models.merge if isinstance(models, Checkpoint) else None
    if merge is not None and merge.call.operator.name == "fft_blend":
        return _of_blend(merge, edges, {"over": over, "dim": dim}, progress)
    own: dict[str, Any] = {"over": "dim" if over is None else over, "dim": -1 if dim is None else dim}
    for name, value in own.items():
        fft_blend.declaration.options[name].check("spectrum", value, 1)
    found = named([models] if isinstance(models, Checkpoint) else models, "spectrum", least=1)
    return _measure(found, matched(found, "spectrum"), Transform(**own, edges=edges), progress)


def _of_blend(merge: Merge, edges: np.ndarray, asked: dict[str, Any], progress: bool) -> Spectrum:
    from workbench.operators.spectral import is_blended

    first, second = merge.call.names
    models = {first: merge.call.inputs[0], second: merge.call.inputs[1], unique("result", merge.call.names): merge}
    check(models, "spectrum")
    options = {name: schedule.bind(merge.depth) for name, schedule in merge.schedules.items()}
    own = {name: options[name](Location()) for name in ("over", "dim")}
    for name, value in asked.items():
        if value not in (None, own[name]):
            raise OptionError(f"spectrum: {name} is the blend's own, {own[name]!r}, got {value!r}; for another take [first, second, merge]")
    entries = [entry for entry in merge.plan.entries.values() if entry.take is None and is_blended(entry.key)]
    if not entries:
        raise InputError("spectrum: the merge transforms no tensor: none with 'weight' in its name is left to it by the rules")
    tensors = [_side_by_side(entry, models) for entry in entries]
    transform = Transform(**own, edges=edges)
    asked_for = {tensor.names[first]: _weights(entry, options, transform) for entry, tensor in zip(entries, tensors, strict=True)}
    return _measure(models, tensors, transform, progress, asked_for, _PARTS[options["mix"](Location())])


def _side_by_side(entry: Entry, models: dict[str, Checkpoint]) -> Matched:
    place = entry.component if entry.block is None else entry.block.name
    return Matched(place, dict(zip(models, (*entry.names, entry.key), strict=True)))  # type: ignore[arg-type]


def _weights(entry: Entry, options: dict[str, Any], transform: Transform) -> np.ndarray:
    """The first model's two weights in a tensor's result, summed in every band: 2 x bands."""
    from workbench.operators.spectral import weights

    own = {name: at(entry.location) for name, at in options.items()}
    frequency, times = transform.frequencies(entry.info.shape)
    both = np.stack(weights(frequency, own["coefficients"], own["smooth"], (own["low"], own["high"]))).reshape(2, -1)
    blended = own["entanglement_strength"] * (1 - own["decoherence_factor"])  # the rest is the average
    return transform.in_bands((0.5 + blended * (both - 0.5)) * times, frequency)


def _measure(
    models: dict[str, Checkpoint],
    tensors: list[Matched],
    transform: Transform,
    progress: bool,
    asked: dict[str, np.ndarray] | None = None,
    parts: tuple[str, ...] = (),
) -> Spectrum:
    from workbench.operators import fft_blend

    index = {name: i for i, name in enumerate(models)}

    def work(tensor: Tensors) -> tuple[str, str, np.ndarray]:
        sums = np.full((len(SUMS), len(models), len(transform.edges) - 1), np.nan)
        sums[:, [index[name] for name in tensor.names]] = transform.sums(tensor)
        if len(tensor.names) > 1 and tensor.names[1] != list(models)[1]:
            sums[[MOVED, BETWEEN]] = np.nan  # the second of these is not the second model
        return tensor.place, tensor.key, sums

    by_rows = fft_blend.declaration.scope_for({"over": transform.over, "dim": transform.dim}) is Scope.ROW
    found = measured(models, tensors, work, who="spectrum", copies=1.5 if by_rows else 4, progress=progress)
    blocks, keys = tuple(one[0] for one in found), tuple(one[1] for one in found)
    order = tuple(place for place in places(next(iter(models.values()))) if place in blocks)
    sums = np.reshape([one[2] for one in found], (-1, len(SUMS), len(models), len(transform.edges) - 1))
    weights = np.reshape([asked[key] for key in keys], (-1, 2, sums.shape[-1])) if asked is not None else None
    return Spectrum(tuple(models), transform.edges, order, blocks, keys, sums, weights, parts)


def _edges(bands: int | Sequence[float]) -> np.ndarray:
    """The edges of the bands. Raises OptionError."""
    if isinstance(bands, int) and not isinstance(bands, bool) and bands > 0:
        return np.linspace(0, 1, bands + 1)
    edges = np.asarray(bands, float) if isinstance(bands, Sequence) and not isinstance(bands, str) else np.empty(0)
    if edges.ndim != 1 or len(edges) < 2 or edges[0] != 0 or edges[-1] != 1 or not (np.diff(edges) > 0).all():
        raise OptionError(f"spectrum: bands must be a whole number above 0, or edges that rise from 0 to 1; got {bands!r}")
    return edges
