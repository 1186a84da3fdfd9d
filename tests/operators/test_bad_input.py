"""What methods refuse, and say, of inputs that they cannot work on."""

from __future__ import annotations

import math

import pytest
import torch
from held import Held

import workbench as wb

ops = wb.operators


def held(*numbers: float, name: str = "m") -> Held:
    return Held({"x": torch.tensor(numbers, dtype=torch.float32).reshape(2, -1)}, name)


A, B, C = held(1, 2, 3, 4, name="a"), held(2, 2, 1, 0, name="b"), held(0, 1, 0, 1, name="c")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: ops.nuslerp([A]), "nuslerp: takes two models, got 1"),
        (lambda: ops.nuslerp([A, B, C]), "nuslerp: takes two models, got 3"),
        (lambda: ops.delta_nuslerp(A, [B]), "delta_nuslerp: takes two models, got 1"),
        (lambda: ops.model_stock(A, [B]), "model_stock: takes two models or more"),
        (lambda: ops.consensus(A, [B, C], threshold=3), "consensus: threshold must be at most the number of models, 2, got 3"),
        (lambda: ops.karcher_mean([A, B], weights=[1, -1]), "weights must not sum to 0"),
        (lambda: ops.truncate_rank(A, B, rank=0), r"truncate_rank: rank must be in \[1, 65536\], got 0"),
        (lambda: ops.della(A, [B], density=0.9), "density - epsilon and density"),
        (lambda: ops.geometric_sum(A, B, t=1.5), r"geometric_sum: t must be in \[0, 1\], got 1.5"),
        (lambda: ops.slerp(A, B, t=3), r"slerp: t must be in \[-1, 2\], got 3"),
    ],
)
def test_it_is_refused_before_anything_is_read(make, told):
    with pytest.raises(wb.errors.OptionError, match=told):
        make()
    assert not A.reads


@pytest.mark.parametrize(
    "make",
    [
        lambda bad: ops.tsv_merge(A, [B, bad]),
        lambda bad: ops.iso_c(A, [B, bad]),
        lambda bad: ops.iso_cts(A, [B, bad]),
        lambda bad: ops.svc(A, bad, [B, C]),
        lambda bad: ops.truncate_rank(A, bad),
        lambda bad: ops.rotate(A, bad),
    ],
)
def test_a_tensor_with_nan_is_named_by_methods_that_need_its_singular_vectors(make):
    merge = make(held(math.nan, 1, 2, 3, name="bad"))
    with pytest.raises(wb.errors.MergeError, match="'x': a model holds NaN or infinity there"):
        merge["x"]


@pytest.mark.parametrize("shape", [(3,), (3, 2, 1, 1), (2, 2, 3, 3), ()])
@pytest.mark.parametrize("method", ["tsv_merge", "iso_c", "iso_cts", "truncate_rank", "svc", "rotate", "slerp", "crossover"])
def test_vectors_and_convolutions_have_an_answer_in_methods_for_matrices(method, shape):
    draw = lambda seed: torch.randn(shape, generator=torch.Generator().manual_seed(seed))  # noqa: E731
    declaration = ops.find(method).declaration
    given = [[draw(i), draw(i + 9)] if slot.many else draw(i) for i, slot in enumerate(declaration.inputs)]
    found = ops.find(method).function(*given)
    assert found.shape == shape
    assert found.isfinite().all()
