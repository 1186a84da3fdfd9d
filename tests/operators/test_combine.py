"""`task_arithmetic`: the numbers by hand, MergeFlux's own numbers, and what a missing tensor means."""

from __future__ import annotations

from pathlib import Path

import torch
from held import Held

import workbench as wb

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "mergeflux"
task_arithmetic = wb.operators.task_arithmetic


def test_two_by_two_by_hand():
    base = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    deltas = [torch.tensor([[1.0, 0.0], [0.0, -2.0]]), torch.tensor([[0.0, 4.0], [0.0, 2.0]])]
    result = task_arithmetic.function(base, deltas, weights=[1.0, 0.5])
    assert torch.equal(result, torch.tensor([[2.0, 4.0], [3.0, 3.0]]))


def test_deltas_are_what_the_models_changed_of_the_base():
    base, tuned = Held({"x": torch.tensor([1.0, 2.0])}, "base"), Held({"x": torch.tensor([3.0, 2.0])}, "tuned")
    assert torch.equal(task_arithmetic(base, [tuned], weights=0.5)["x"], torch.tensor([2.0, 2.0]))


def test_weighted_sum_of_deltas_as_in_mergeflux():
    base, b, c = (wb.open(VECTORS / f"{name}.safetensors") for name in ("a", "b_prefixed", "c"))
    merge = task_arithmetic(base, [b, c], weights=[0.4, 0.6])
    expected = wb.open(VECTORS / "expected_none_sum_weights.safetensors")
    assert set(merge) == set(expected)
    for key in expected:
        torch.testing.assert_close(merge[key], expected[key], rtol=1e-6, atol=1e-6)


def test_a_model_without_a_tensor_did_not_change_it():
    base = Held({"x": torch.ones(2), "y": torch.ones(2)}, "base")
    merge = task_arithmetic(base, [Held({"x": torch.zeros(2)}, "tuned")])
    assert torch.equal(merge["y"], torch.ones(2))
    (note,) = wb.preflight(merge).notes
    assert note.startswith("task_arithmetic: 'y' is not in tuned and counts as unchanged there; ")
