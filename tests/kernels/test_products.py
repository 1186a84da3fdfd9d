"""Inner products of stored tensors and of their columns, and the lengths, cosines and angles that they tell."""

from __future__ import annotations

import math

import pytest
import torch

from workbench import kernels
from workbench.operators import geometry

compiled = pytest.mark.skipif(not kernels.available(), reason="numba is not installed")
DTYPES = [torch.float16, torch.bfloat16, torch.float32]


def three(shape: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for dtype in DTYPES]


@compiled
@pytest.mark.parametrize("shape", [(1,), (7,), (2048,), (301, 103)])
def test_products_of_pairs_are_those_of_float64(shape):
    from workbench.kernels import products

    base, *others = three(shape)
    wide = torch.stack([one.double().reshape(-1) for one in (base, *others)])
    found = products.inner(None, [base, *others])
    assert found is not None
    expected = [wide[i] @ wide[j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-12)
    changes = torch.stack([(one.float() - base.float()).double().reshape(-1) for one in others] + [torch.zeros(base.numel()).double()])
    found = products.inner(base, [*others, None])  # a model without the tensor did not change it
    assert found is not None
    expected = [changes[i] @ changes[j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-12)


@compiled
@pytest.mark.parametrize("count", [1, 1024, 5000])
def test_products_of_differences_are_those_of_float64_and_what_is_shared_cancels(count):
    from workbench.kernels import products

    one, other, _ = three((count,))
    wide = torch.stack([one.double(), other.double() - one.double(), torch.zeros(count).double()])
    found = products.of_differences([one, other, one])
    assert found is not None
    expected = [wide[i] @ wide[j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-12, atol=1e-12)
    assert found[2] == found[4] == found[5] == 0


@compiled
@pytest.mark.parametrize("shape", [(5, 3), (1, 2000), (40, 1025), (6, 5, 3, 3), (3, 1)])
def test_products_of_columns_are_those_of_float64(shape):
    from workbench.kernels import products

    one, other, _ = three(shape)
    found = products.of_columns(one, other)
    assert found is not None
    wide, apart = one.double(), other.double()
    torch.testing.assert_close(found, torch.stack([(wide * wide).sum(0), (wide * apart).sum(0), (apart * apart).sum(0)]))


@compiled
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 4999, 9999])
def test_what_is_not_finite_has_no_products(value, at):
    from workbench.kernels import products

    one, other, _ = three((100, 100))
    other.view(-1)[at] = value
    assert products.inner(None, [one, other]) is None
    assert products.inner(other, [one]) is None
    assert products.of_columns(one, other) is None
    assert products.of_differences([one.reshape(-1), other.reshape(-1)]) is None


def measured(*vectors: list[float]) -> geometry.Products:
    return geometry.products(geometry.flat_blocks(*[torch.tensor(one) for one in vectors]))


def test_lengths_and_cosines_are_those_worked_out_by_hand():
    found = measured([3.0, 4.0], [4.0, 3.0], [0.0, 0.0])
    assert [found.length(i).item() for i in range(3)] == [5, 5, 0]
    assert [one.item() for one in found.cosines()] == pytest.approx([24 / 25, 0, 0])


@pytest.mark.parametrize(
    ("first", "second", "angle"),
    [
        ([2.0, 0.0], [0.0, 3.0], math.pi / 2),
        ([1.0, 0.0], [1.0, 1.0], math.pi / 4),
        ([1.0, 0.1], [-1.0, -0.1], math.pi),
        ([1.0, 0.1], [2.0, 0.2], 0),
        ([0.0, 0.0], [1.0, 2.0], math.pi / 2),
        ([1.0, 2.0], [0.0, 0.0], math.pi / 2),
        ([0.0, 0.0], [0.0, 0.0], 0),
        ([1.0, 0.0], [1.0, 1e-4], 1e-4),
        ([1e-30, 0.0], [1e-30, 1e-30], math.pi / 4),
    ],
)
def test_angles_are_those_worked_out_by_hand(first, second, angle):
    assert measured(first, second).angle().item() == pytest.approx(angle, rel=1e-6, abs=1e-12)
