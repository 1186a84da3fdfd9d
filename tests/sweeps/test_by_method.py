"""A sweep over methods: which model goes into which input, options of each method, and what cannot be made is told in its cell."""

from __future__ import annotations

import pytest

import workbench as wb
from workbench.errors import InputError, SweepError, UnknownOperatorError
from workbench.operators import own
from workbench.sweeps.by_method import by_method, placed


def inputs(name, models):
    """By input, the names of the checkpoints in it."""
    found = placed(wb.operators.find(name).declaration, models["base"], [models["heart"], models["moon"]])
    return {slot: [one.name for one in given] if isinstance(given, list) else given.name for slot, given in found.items()}


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("ties", {"base": "base", "models": ["heart", "moon"]}),
        ("weighted_average", {"models": ["heart", "moon"]}),
        ("slerp", {"first": "heart", "second": "moon"}),
        ("weighted_similarity", {"a": "heart", "b": "moon"}),
        ("add_difference", {"base": "heart", "tuned": "moon", "original": "base"}),
        ("nearest", {"anchor": "base", "first": "heart", "second": "moon"}),
        ("add_dissimilarity", {"base": "base", "first": "heart", "second": "moon"}),
        ("arcee_fusion", {"base": "heart", "tuned": "moon"}),
        ("clamp", {"model": "task_arithmetic", "bounds": ["heart", "moon"]}),
        ("svc", {"base": "base", "merged": "task_arithmetic", "models": ["heart", "moon"]}),
        ("truncate_rank", {"base": "base", "tuned": "task_arithmetic"}),
    ],
)
def test_each_model_goes_into_the_input_that_means_it(method, expected, models):
    assert inputs(method, models) == expected


def test_every_method_makes_a_merge_of_two_models(models):
    needed = {"fft_blend": {"coefficients": {"constant": 0.0}}}
    for name in own():
        made = by_method(name, base=models["base"], models=[models["heart"], models["moon"]], **needed.get(name, {}))
        assert wb.preflight(made).ok, name


def test_a_method_of_two_models_refuses_three(models):
    with pytest.raises(InputError, match="slerp takes two models tuned from a base, got 3: heart, moon, heart"):
        by_method("slerp", base=models["base"], models=[models["heart"], models["moon"], models["heart"]])
    with pytest.raises(UnknownOperatorError, match="did you mean 'slerp'"):
        by_method("slurp", base=models["base"], models=[models["heart"], models["moon"]])


def test_methods_are_swept_over_with_options_of_each(models, short):
    given = {"base": models["base"], "models": [models["heart"], models["moon"]]}
    cells = [{"method": "ties", "density": 0.2}, {"method": "weighted_average"}, {"method": "weighted_average", "t": 0.3}]
    found = wb.sweep(over=cells, inputs=given, **short)
    assert [cell.drawn for cell in found.cells] == [True, True, False]
    assert found.cells[0].recipe.build().recipe.to_dict()["merge"]["options"] == {"density": 0.2}
    assert "there is no option 't'" in found.cells[2].problem
    named = wb.sweep(over={"method": ["ties", "weighted_average"]}, inputs=given, **short)
    assert named.frame()["method"].tolist() == ["ties", "weighted_average"]
    assert named.drawn == 1  # the average is there already


def test_a_sweep_over_methods_says_what_it_needs(models, short):
    with pytest.raises(SweepError, match=r"over names the method of each cell, as in over=\{\"method\""):
        wb.sweep(over={"density": [0.2, 0.5]}, inputs={"base": models["base"], "models": [models["heart"]]}, **short)
    with pytest.raises(SweepError, match=r"takes inputs=.*got first, second"):
        wb.sweep(over={"method": ["slerp"]}, inputs={"first": models["heart"], "second": models["moon"]}, **short)
    with pytest.raises(SweepError, match="got none"):
        wb.sweep(over={"method": ["slerp"]}, **short)
    with pytest.raises(SweepError, match="over is empty"):
        wb.sweep(inputs={}, **short)
