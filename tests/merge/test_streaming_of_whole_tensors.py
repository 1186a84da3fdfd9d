"""Methods that must see a whole tensor, and do not hold it: what they find out of it comes first, and then part after part."""

from __future__ import annotations

import pytest
import torch
from held import Held

import workbench as wb
from workbench.errors import NonFiniteWarning
from workbench.merge import Flag, OneOf, Random
from workbench.operators import own
from workbench.tensors import PIECE, Calculation, Flat, Rows, Scope, Space, elements

STREAMED = [name for name, one in own().items() if one.declaration.grain_for({}) < one.declaration.scope_for({})]
SHAPE = (3, PIECE)


def _tensors(seed: int = 0) -> list[torch.Tensor]:
    """A base and models that changed half of it."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(SHAPE, generator=generator)
    changes = [torch.randn(SHAPE, generator=generator) * (torch.rand(SHAPE, generator=generator) < 0.5) for _ in range(2)]
    return [base, *(base + 0.1 * change for change in changes)]


OTHERWISE = {"sce": {"density": 0.5}, "breadcrumbs": {"density": 0.5, "gamma": 0.2}, "breadcrumbs_ties": {"density": 0.8, "gamma": 0.2}}


def _merge(name: str, models: list[Held], **options: object) -> wb.Merge:
    inputs = own()[name].declaration.inputs
    chosen = (models[1:] if slot.many else models[i] for i, slot in enumerate(inputs))
    return own()[name](*chosen, rules=[], **OTHERWISE.get(name, {}) | options)


def _whole(name: str, tensors: list[torch.Tensor], **options: object) -> torch.Tensor:
    base, *tuned = tensors
    inputs = own()[name].declaration.inputs
    given = [
        ([one - base for one in tuned] if slot.space is Space.DELTA else tuned) if slot.many else tensors[i]
        for i, slot in enumerate(inputs)
    ]
    drawn = {name: Random(0, "x") for name, asked in own()[name].declaration.asks.items() if asked is Random}
    return own()[name].function(*given, **OTHERWISE.get(name, {}) | options | drawn)


def test_those_that_the_time_of_a_merge_hangs_on_are_streamed():
    assert {"ties", "delta_merge", "magnitude_prune", "slerp", "model_stock", "weighted_similarity", "breadcrumbs"} <= set(STREAMED)
    assert {"nuslerp", "delta_nuslerp", "karcher_mean", "della", "della_linear"} <= set(STREAMED)
    assert {"breadcrumbs_ties", "add_perpendicular", "ram_plus", "arcee_fusion", "sce", "add_cosine_a", "add_cosine_b"} <= set(STREAMED)


@pytest.mark.parametrize("name", STREAMED)
def test_streamed_and_whole_are_the_same_bits(name):
    tensors = _tensors()
    models = [Held({"x": one}) for one in tensors]
    merge, expected = _merge(name, models), _whole(name, tensors)
    assert torch.equal(merge["x"], expected)
    reads = [elements(part, SHAPE) for _, part in models[1].reads]
    assert len(reads) > 3
    assert max(last - first for first, last in reads) <= PIECE
    again = _merge(name, models)
    assert torch.equal(again.read("x", Rows(1, 2)), expected[1:2])
    assert torch.equal(again.read("x", Flat(PIECE - 5, PIECE + 5)), expected.reshape(-1)[PIECE - 5 : PIECE + 5])


CHOICES = [
    pytest.param(name, option.name, choice, id=f"{name}-{option.name}-{choice}")
    for name in STREAMED
    for option in own()[name].declaration.options.values()
    if isinstance(option.constraint, OneOf | Flag)
    for choice in (option.constraint.choices if isinstance(option.constraint, OneOf) else (True, False))
]


@pytest.mark.parametrize(("name", "option", "choice"), CHOICES)
def test_and_with_every_choice(name, option, choice):
    """One may need less of a tensor than another: rows, whose shares are their own."""
    tensors = [one.reshape(4 * 3, PIECE // 4) for one in _tensors()]
    models = [Held({"x": one}) for one in tensors]
    merge = _merge(name, models, **{option: choice})
    if merge.own_scope < Scope.MODEL:
        assert torch.equal(merge["x"], _whole(name, tensors, **{option: choice}))


@pytest.mark.parametrize("name", STREAMED)
def test_a_long_vector_is_merged_as_it_is_whole(name):
    tensors = [one.reshape(-1)[: PIECE + 1000] for one in _tensors()]
    assert torch.equal(_merge(name, [Held({"x": one}) for one in tensors])["x"], _whole(name, tensors))


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("otherwise", [{"device": "cuda"}, {"precision": "float64"}])
def test_nothing_is_prepared_for_loops_that_cannot_be_used(name, otherwise):
    models = [Held({"x": one}) for one in _tensors()]
    assert _merge(name, models).fused("x", Flat(0, PIECE), Calculation(**otherwise), torch.float32) is None
    assert not any(model.reads for model in models)


@pytest.mark.parametrize("inner", ["ties", "slerp", "sce", "delta_nuslerp"])
@pytest.mark.parametrize("outer", ["ties", "breadcrumbs", "sce"])
def test_streamed_merges_nest_with_each_other_and_with_those_that_hold_whole_tensors(outer, inner):
    base, first, second = (Held({"x": one}) for one in _tensors())
    merged = _merge(inner, [base, first, second])
    middle = Held({"x": merged["x"]})
    assert torch.equal(_merge(outer, [base, first, merged])["x"], _merge(outer, [base, first, middle])["x"])


@pytest.mark.parametrize("name", STREAMED)
def test_nan_anywhere_in_a_tensor_is_an_inputs_and_not_the_calculations(name, tmp_path):
    tensors = _tensors()
    tensors[1][-1, -1] = torch.nan
    merge = _merge(name, [Held({"x": one}, f"model-{i}") for i, one in enumerate(tensors)])
    if own()[name].declaration.scope_for({}) is Scope.TENSOR:
        merge["x"]  # what is kept of it is told again
    with pytest.warns(NonFiniteWarning) as told:
        wb.export(merge, tmp_path / "out.safetensors", progress=False)
    assert len(told) == 1
    assert "model-1" in str(told[0].message)
