"""The options that methods are tried with: the default, and a few values of what decides how much of each model is in the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.operators import own

Options = Mapping[str, Any]

# What methods have, the first that one has is tried: `strength` of a delta method is how much of what was merged is added
_COMMON: Mapping[str, Sequence[Any]] = {"strength": (1.0, 1.5), "weights": (1.0, 1.5)}
# Methods whose options are named otherwise, or whose shares are divided by their sum: there the default alone would be tried
_OWN: Mapping[str, Sequence[Options]] = {
    "weighted_average": [{}],
    "nuslerp": [{}],
    "karcher_mean": [{}],
    "delta_nuslerp": [{}],
    "sce": [{}, {"density": 0.2}],
    "ram_plus": [{}, {"r": 1.0}],
    "consensus": [{}, {"strength": 1.0}],
    "ties": [{}, {"weights": 1.5}, {"weights": 2.0}],
    "della": [{}, {"strength": 1.5}, {"strength": 2.0}],
    "add_delta": [{}],
    "fft_blend": [{"coefficients": {"constant": 0.0}}, {"coefficients": {"constant": 0.0}, "low": 0.1, "high": 0.1}],
    "nearest": [{}],
    "farthest": [{}],
    "rotate": [{}, {"t": 0.5}],
    "weighted_similarity": [{}, {"share": 0.25}],
    "add_cosine_a": [{}, {"share": 0.25}],
    "add_cosine_b": [{}, {"share": 0.25}],
    "svc": [{}, {"alpha": 0.5}],
    "truncate_rank": [{}, {"rank": 32}],
    "nearswap": [{}, {"t": 0.02}],
    "tensor_sum": [{}],
    "top_k_tensor_sum": [{}, {"width": 0.5}],
    "crossover": [{}, {"tilt": 1.0}],
}


def tried(method: str) -> list[Options]:
    """The options to choose from, the default first."""
    declared = own()[method].declaration
    if method in _OWN:
        return list(_OWN[method])
    main = next((name for name in _COMMON if name in declared.options), None)
    if main is None:
        return [{}]
    default = declared.options[main].default
    return [{}, *({main: value} for value in _COMMON[main] if value != default)]
