"""`post_hoc_ema`: the moving average of a training run that nobody kept, from its checkpoints. No operator is here."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np

from workbench.checkpoint import Checkpoint
from workbench.checkpoint import open as open_checkpoint
from workbench.errors import InputError
from workbench.merge import Merge
from workbench.operators.averages import weighted_average


def post_hoc_ema(
    checkpoints: Sequence[Checkpoint | str | os.PathLike[str]],
    steps: Sequence[float],
    *,
    sigma_rel: float,
    kept_with: float | Sequence[float] | None = None,
    at: float | None = None,
) -> Merge:
    """The average of a run's checkpoints that comes nearest to an exponential moving average of another length: a weighted average.

    `steps` is how far training was at each checkpoint, above 0; `sigma_rel` the wanted length as a share of the training, and `at` the step
    it is wanted for, by default the last. `kept_with` is the length of the averages that the checkpoints are themselves (EDM2 keeps two,
    0.05 and 0.10), one or one for each: then weights are solved for by least squares. None says that they are plain
    weights: then each stands for the steps around it, with what the average's profile has there.

    Source: Karras et al. 2024, arXiv:2312.02696, section 3 and appendix C. Raises InputError for steps and lengths that are none.
    """
    models = [one if isinstance(one, Checkpoint) else open_checkpoint(one) for one in checkpoints]
    times = np.asarray(steps, dtype=np.float64)
    if not models or times.shape != (len(models),) or not (np.isfinite(times).all() and (times > 0).all()):
        raise InputError(f"post_hoc_ema: steps must be one number above 0 for each of the {len(models)} checkpoints, got {list(steps)}")
    end = float(times.max() if at is None else at)
    if not 0 < end <= times.max():
        raise InputError(f"post_hoc_ema: at must be above 0 and no later than the last checkpoint, {times.max():g}, got {at!r}")
    wanted = _exponent(sigma_rel)
    if kept_with is None:
        weights = _shares(times, end, wanted)
    else:
        each = [kept_with] * len(models) if isinstance(kept_with, (int, float)) else list(kept_with)
        if len(each) != len(models):
            raise InputError(f"post_hoc_ema: kept_with must be one length or {len(models)}, got {len(each)}")
        weights = _solved(times, np.array([_exponent(one) for one in each]), end, wanted)
    return weighted_average(models, weights=[float(weight) for weight in weights])


def _exponent(sigma_rel: float) -> float:
    """The exponent of a power function whose width, over its end, is that (equation 17)."""
    if isinstance(sigma_rel, bool) or not isinstance(sigma_rel, (int, float)) or not 0 < sigma_rel < 1 / math.sqrt(12):
        raise InputError(f"post_hoc_ema: a length must be above 0 and below {1 / math.sqrt(12):.3f}, got {sigma_rel!r}")
    width = sigma_rel**-2
    return float(np.roots([1, 7, 16 - width, 12 - width]).real.max())


def _solved(times: np.ndarray, exponents: np.ndarray, end: float, wanted: float) -> np.ndarray:
    """Weights of averages with these profiles whose sum has a profile nearest to the wanted one (algorithm 3)."""
    product = _product(times[:, None], exponents[:, None], times[None, :], exponents[None, :])
    found: np.ndarray = np.linalg.lstsq(product, _product(times, exponents, end, wanted), rcond=None)[0]
    found /= found.sum()
    return found


def _product(one: np.ndarray, exponent: np.ndarray, other: np.ndarray | float, wanted: np.ndarray | float) -> np.ndarray:
    """The inner product of two profiles that end at these steps."""
    ratio = np.asarray(one / other)
    power = np.where(ratio < 1, wanted, -np.asarray(exponent))
    found: np.ndarray = (exponent + 1) * (wanted + 1) * ratio**power / ((exponent + wanted + 1) * np.maximum(one, other))
    return found


def _shares(times: np.ndarray, end: float, wanted: float) -> np.ndarray:
    """How much of the profile lies nearest to each checkpoint, up to the end."""
    order = np.argsort(times)
    ordered = times[order]
    bounds = np.concatenate([[0], (ordered[1:] + ordered[:-1]) / 2, [np.inf]]).clip(max=end)
    found = np.empty(len(times))
    found[order] = np.diff((bounds / end) ** (wanted + 1))
    return found
