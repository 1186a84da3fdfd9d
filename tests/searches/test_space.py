"""The space of a search: what a point means, what a coarse grid is, and what is refused."""

from __future__ import annotations

import pytest

import workbench as wb
from workbench.errors import SearchError
from workbench.searches.space import space_of

TIES = wb.operators.ties
BOTH = ["heart", "moon"]
UNET = ["IN00", "IN01", "MID", "OUT00"]


def test_options_are_numbers_choices_and_one_number_for_each_model():
    space = space_of({"density": (0.1, 0.9), "weights": {"each": "model"}, "majority_sign": ["total", "frequency"]}, TIES, BOTH)
    assert [one.name for one in space.dimensions] == ["density", "weights[heart]", "weights[moon]", "majority_sign"]
    point = {"density": 0.3, "weights[heart]": 1.0, "weights[moon]": 0.5, "majority_sign": "total"}
    assert space.options(point) == {"density": 0.3, "weights": [1.0, 0.5], "majority_sign": "total"}


def test_models_of_one_name_are_numbered():
    names = [one.name for one in space_of({"weights": {"each": "model"}}, TIES, ["heart", "heart"]).dimensions]
    assert names == ["weights[0]", "weights[1]"]


@pytest.mark.parametrize(
    ("blocks", "names", "value"),
    [
        ("all", ["density"], 0.25),
        ("ramp", ["density.start", "density.end"], {"ramp": {"start": 0.25, "end": 0.25}}),
        ("parts", ["density.in", "density.mid", "density.out"], {"blocks": dict.fromkeys(UNET, 0.25)}),
        ("every", [f"density.{block}" for block in UNET], {"blocks": dict.fromkeys(UNET, 0.25)}),
        (["MID", "OUT*"], ["density.MID", "density.OUT*"], {"blocks": {"MID": 0.25, "OUT*": 0.25}}),
    ],
)
def test_an_option_that_goes_per_block_has_as_few_dimensions_as_are_asked_for(blocks, names, value):
    space = space_of({"density": {"low": 0.1, "high": 0.9, "blocks": blocks}}, TIES, BOTH, UNET)
    assert [one.name for one in space.dimensions] == names
    assert space.options(dict.fromkeys(names, 0.25)) == {"density": value}


def test_parts_are_by_stack_in_a_unet_and_thirds_of_the_depth_in_other_models():
    parts = {"weight": {"low": 0.0, "high": 1.0, "blocks": "parts"}}
    point = {"weight.in": 0.1, "weight.mid": 0.2, "weight.out": 0.3}
    unet = space_of(parts, None, [], UNET).options(point)
    assert unet == {"weight": {"blocks": {"IN00": 0.1, "IN01": 0.1, "MID": 0.2, "OUT00": 0.3}}}
    flux = space_of(parts, None, [], ["double_blocks.0", "double_blocks.1", "single_blocks.0", "single_blocks.1"]).options(point)
    assert list(flux["weight"]["blocks"].values()) == [0.1, 0.2, 0.2, 0.3]
    assert list(space_of(parts, None, [], ["layers.0"]).options({"weight.mid": 0.5})["weight"]["blocks"].values()) == [0.5]


def test_where_nothing_is_varied_is_known_from_the_declaration_alone():
    known = space_of({"density": {"blocks": "ramp"}, "weights": {"each": "model"}, "majority_sign": ["frequency", "total"]}, TIES, BOTH)
    assert known.default == {"density.start": 0.5, "density.end": 0.5, "weights[heart]": 1, "weights[moon]": 1, "majority_sign": "total"}
    assert space_of({"density": (0.6, 0.9)}, TIES, BOTH).default is None  # 0.5 is not within
    assert space_of({"density": (0.1, 0.9)}, None).default is None


def test_without_a_space_it_is_the_operators_declaration():
    space = space_of(None, TIES, BOTH)
    names = [one.name for one in space.dimensions]
    assert {"density", "weights[heart]", "weights[moon]", "majority_sign", "normalize", "strength", "over"} == set(names)
    assert next(one for one in space.dimensions if one.name == "density").high == 1


def test_a_coarse_grid_has_as_many_levels_as_there_is_room_for():
    space = space_of({"density": (0, 1), "strength": (0, 2)}, TIES, BOTH)
    found = list(space.grid(10))
    assert len(found) == 9
    assert found[0] == {"density": 0, "strength": 0}
    assert found[4] == {"density": 0.5, "strength": 1}


def test_where_two_levels_of_each_are_too_many_a_grid_goes_from_the_middle_one_dimension_at_a_time():
    space = space_of({"density": (0, 1), "strength": (0, 2), "weights": {"each": "model"}}, TIES, [*BOTH, "stripes"])
    found = list(space.grid(8))
    assert len(found) == 8
    middle = found[0]
    assert all(sum(one[name] != middle[name] for name in middle) == 1 for one in found[1:])


def test_steps_and_whole_numbers_are_kept():
    (one,) = space_of({"iterations": {"low": 1, "high": 10}}, wb.operators.karcher_mean, BOTH).dimensions
    assert one.fitted(3.4) == 3
    (one,) = space_of({"density": {"low": 0, "high": 1, "step": 0.25}}, TIES, BOTH).dimensions
    assert one.fitted(0.4) == 0.5


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "space is empty"),
        ({"density": (0.5, 0.5)}, "low must be below high"),
        ({"density": (0.9, 0.1)}, "low must be below high"),
        ({"density": (0.1, 2.0)}, r"density must be in \[0, 1\]"),
        ({"density": {"low": 0, "high": 1, "log": True}}, "log needs low above 0"),
        ({"density": {"low": 0, "high": 1, "step": 2}}, "step must be above 0"),
        ({"density": []}, "choices must be a list"),
        ({"density": {"choices": "total"}}, "choices must be a list"),
        ({"density": {"blocks": []}}, "blocks must be one of"),
        ({"density": {"blocks": "every"}}, "needs inputs= with models that have blocks"),
        (["density"], "space must be a mapping"),
        ({"density": "0..1"}, r"must be \(low, high\)"),
        ({"density": {"lo": 0}}, "has no 'lo'"),
        ({"weights": {"each": "block"}}, "each must be 'model'"),
        ({"density": {"blocks": "some"}}, "blocks must be one of"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(given, told):
    with pytest.raises(SearchError, match=told):
        space_of(given, TIES, BOTH)
