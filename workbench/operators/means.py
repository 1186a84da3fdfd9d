"""Means of weights that are no sums: the geometric mean of two, and the point nearest to several."""

from __future__ import annotations

import math
from typing import Annotated

import torch

from workbench.merge import Missing, Range, operator
from workbench.tensors import Scope, Weight, Weights


@operator(scope=Scope.ELEMENT, keys="first", source="sd-mecha 1.1.8 geometric_sum")
def geometric_sum(
    first: Weight, second: Weight, *, t: Annotated[float, Range(0, 1, 0.01, "share of `second`", per_block=True)] = 0.5
) -> Weight:
    """Average in logarithms, element by element: small where either model is small.

    Re(first^(1 - t) second^t), of complex powers: |first|^(1 - t) |second|^t cos(pi ((1 - t)[first < 0] + t [second < 0])).
    Shapes: both and the result are of one shape.
    """
    turn = (1 - t) * (first < 0).to(first.dtype) + t * (second < 0).to(first.dtype)
    return first.abs() ** (1 - t) * second.abs() ** t * (math.pi * turn).cos_()


@operator(
    scope=Scope.TENSOR,
    keys="union",
    missing=Missing.OMIT,
    source="Vardi and Zhang 2000 (Weiszfeld's algorithm); sd-mecha 1.1.8",
)
def geometric_median(
    models: Weights,
    *,
    iterations: Annotated[int, Range(1, 10000, 1, "steps at most")] = 100,
    epsilon: Annotated[float, Range(0, 1, 1e-6, "a distance counts as no less than that")] = 1e-6,
    tolerance: Annotated[float, Range(0, 1, 1e-6, "relative change of the mean distance that ends it")] = 1e-20,
) -> Weight:
    """Find the point whose distances to the models, whole tensors taken flat, sum to the least: an average that outliers do not move.

    From the mean, again and again the mean with weights 1 / max(distance, epsilon).
    Shapes: the n models and the result are of one shape.
    """
    centre = sum(models[1:], start=models[0]) / len(models)
    before = math.inf
    for _ in range(iterations):
        distances = [torch.linalg.vector_norm(model - centre).item() for model in models]
        mean = sum(distances) / len(distances)
        if abs(before - mean) <= tolerance * mean:
            break
        weights = [1 / max(distance, epsilon or math.ulp(0)) for distance in distances]
        before, total = mean, sum(weights)
        centre = torch.zeros_like(centre)
        for model, weight in zip(models, weights, strict=True):
            centre.add_(model, alpha=weight / total)
    return centre
