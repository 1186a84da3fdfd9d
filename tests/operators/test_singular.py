"""Sums of deltas in singular vectors: numbers by hand, the published programs' numbers, and changes of low rank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import workbench as wb

ops = wb.operators
VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "methods"
BASE = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
ZERO = torch.zeros(2, 2)
ALL = {
    "breadcrumbs": ("breadcrumbs", 3, {"density": 0.6, "gamma": 0.12, "weights": [1.0, 0.6, 1.3], "strength": 0.9}, 2e-5),
    "breadcrumbs_2": ("breadcrumbs", 2, {"density": 0.85, "gamma": 0.3}, 2e-5),
    "tsv_merge_2_plain": ("tsv_merge", 2, {}, 2e-4),
    "tsv_merge_2_matrix": ("tsv_merge", 2, {"convolutions": "matrix"}, 2e-4),
    "tsv_merge_4_matrix": ("tsv_merge", 4, {"convolutions": "matrix", "strength": 0.8}, 2e-4),
    "iso_c_plain": ("iso_c", 3, {"strength": 0.9}, 2e-4),
    "iso_c_matrix": ("iso_c", 3, {"convolutions": "matrix", "strength": 0.9}, 2e-4),
}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_the_published_programs_answer_the_same_however_small_the_changes(name, size):
    method, count, options, tolerance = ALL[name]
    base, *models = (wb.open(VECTORS / f"{one}.safetensors") for one in ("base", "first", "second", "third", "fourth")[: count + 1])
    expected = wb.open(VECTORS / f"expected_{name}.safetensors")
    for key in expected:
        deltas = [(model[key].double() - base[key].double()) * size for model in models]
        found = ops.find(method).function(torch.zeros_like(deltas[0]), deltas, **options)
        known = (expected[key].double() - base[key].double()) * size
        assert (found - known).abs().max() <= tolerance * size * expected[key].abs().max()


def test_iso_c_by_hand():
    """The sum is diag(6, 2): both directions become 4."""
    deltas = [torch.diag(torch.tensor([5.0, 0.0])), torch.diag(torch.tensor([1.0, 2.0]))]
    torch.testing.assert_close(ops.iso_c.function(BASE, deltas), BASE + torch.diag(torch.tensor([4.0, 4.0])))
    torch.testing.assert_close(ops.iso_c.function(BASE[0], [BASE[0], BASE[1]], strength=0.5), BASE[0] + torch.tensor([1.0, 1.5]))


def test_tsv_merge_by_hand():
    """One direction each: both move the first row; made orthogonal, they are as near to themselves as they can be."""
    first, second = torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    torch.testing.assert_close(ops.tsv_merge.function(BASE, [first, second]), BASE + first + second)  # orthogonal already
    torch.testing.assert_close(ops.tsv_merge.function(BASE, [first, 2 * first]), BASE + 1.5 * first)  # one direction, of two strengths
    torch.testing.assert_close(ops.tsv_merge.function(BASE, [first + second, ZERO]), BASE + first)  # 2 // 2 = 1 direction is kept
    torch.testing.assert_close(ops.tsv_merge.function(BASE, [first + second, ZERO], directions=2), BASE + first + second)


@pytest.mark.parametrize("method", ["tsv_merge", "iso_c"])
def test_directions_without_strength_have_no_say(method):
    """Of changes of low rank the other singular vectors are arbitrary; turning the space turns the answer, and nothing else."""
    deltas = [drawn(9, 2, seed=i) @ drawn(2, 12, seed=i + 9) for i in (1, 2)]
    left, right = (torch.linalg.qr(drawn(n, n))[0] for n in (9, 12))
    found = ops.find(method).function(torch.zeros(9, 12, dtype=torch.float64), deltas)
    turned = ops.find(method).function(torch.zeros(9, 12, dtype=torch.float64), [left @ delta @ right for delta in deltas])
    torch.testing.assert_close(turned, left @ found @ right)
    assert np.linalg.matrix_rank(found.numpy()) == 4


@pytest.mark.parametrize("method", ["tsv_merge", "iso_c"])
def test_a_convolution_is_a_matrix_where_that_is_asked_for_and_averaged_otherwise(method):
    deltas = [drawn(4, 3, 2, 2, seed=i) for i in (1, 2)]
    zero = torch.zeros(4, 3, 2, 2, dtype=torch.float64)
    operator = ops.find(method).function
    torch.testing.assert_close(operator(zero, deltas), (deltas[0] + deltas[1]) / 2)
    flat = operator(zero.flatten(1), [delta.flatten(1) for delta in deltas])
    torch.testing.assert_close(operator(zero, deltas, convolutions="matrix"), flat.reshape(4, 3, 2, 2))
