"""Options that differ by block: which value each block gets, and what is refused."""

from __future__ import annotations

import pytest

from workbench.errors import OptionError
from workbench.families import Location, registry
from workbench.merge import Range, schedules
from workbench.merge.declaration import Option
from workbench.merge.schedules import Depth


def depth_of(family: str, *names: str, modules: tuple[str, ...] = ()) -> Depth:
    """The depth of a model with blocks of these names."""
    blocks = registry()[family].blocks
    locations = [Location(blocks.block(f"{name}.0.x", None)) for name in names]
    return Depth.of([*locations, *(Location(module=module) for module in modules)])


FLUX = depth_of("Flux", *(f"double_blocks.{i}" for i in range(3)), *(f"single_blocks.{i}" for i in range(6)))
SD = depth_of("SD 1.x", *(f"input_blocks.{i}" for i in range(12)), "middle_block", "output_blocks.11", modules=("time_embed", "out"))


def values(given, depth, default=None):
    at = schedules.parse(given, Option("strength", default, Range(-9, 9, 1, "how much"))).bind(depth)
    places = {block.name: Location(block) for block in depth.blocks} | {module: Location(module=module) for module in depth.modules}
    return {name: at(place) for name, place in places.items()} | {None: at(Location())}


def test_a_plain_value_goes_for_every_block():
    assert set(values(0.3, SD).values()) == {0.3}


def test_the_first_pattern_that_matches_decides_and_default_is_for_the_rest():
    found = values({"blocks": {"IN04": 0.1, "IN*": 0.2, "default": 0.9}}, SD)
    assert (found["IN04"], found["IN03"], found["MID"], found[None]) == (0.1, 0.2, 0.9, 0.9)


def test_a_block_can_be_called_by_its_ldm_name():
    found = values({"blocks": {"input_blocks.4": 0.1, "middle_block": 0.2}}, SD, default=1.0)
    assert (found["IN04"], found["MID"], found["OUT11"]) == (0.1, 0.2, 1.0)


def test_a_ramp_is_linear_between_its_ends_and_holds_them_outside():
    found = values({"ramp": {"start": 0.0, "end": 1.0, "first": 2, "last": 6, "elsewhere": 7.0}}, SD)
    assert [found[f"IN{i:02}"] for i in (0, 2, 3, 4, 6, 7)] == [0.0, 0.0, 0.25, 0.5, 1.0, 1.0]
    assert found[None] == 7.0


def test_the_middle_of_sd_is_number_12_and_its_last_output_24():
    found = values({"ramp": {"start": 0.0, "end": 24.0}}, SD)
    assert (found["IN00"], found["MID"], found["OUT11"]) == (0.0, 12.0, 24.0)


def test_whole_numbers_mean_a_blocks_own_number_in_both_stacks_of_flux():
    found = values({"ramp": {"start": 0.0, "end": 5.0}}, FLUX)
    assert found["double_blocks.2"] == found["single_blocks.2"] == 2.0


def test_a_name_means_that_stack_and_the_other_is_before_or_after_it():
    found = values({"ramp": {"start": 0.0, "end": 1.0, "first": "single_blocks.1"}}, FLUX)
    assert [found[f"double_blocks.{i}"] for i in range(3)] == [0.0, 0.0, 0.0]
    assert [found[f"single_blocks.{i}"] for i in range(6)] == [0.0, 0.0, 0.25, 0.5, 0.75, 1.0]
    found = values({"ramp": {"start": 0.0, "end": 1.0, "first": "double_blocks.0"}}, FLUX)
    assert (found["double_blocks.1"], found["double_blocks.2"], found["single_blocks.0"]) == (0.5, 1.0, 1.0)


def test_a_ramp_from_one_stack_into_the_other_counts_through():
    found = values({"ramp": {"start": 0.0, "end": 4.0, "first": "double_blocks.1", "last": "single_blocks.2"}}, FLUX)
    assert (found["double_blocks.2"], found["single_blocks.0"], found["single_blocks.2"]) == (1.0, 2.0, 4.0)


def test_each_model_has_a_ramp_of_its_own():
    found = values({"ramp": {"start": [1, 0], "end": [0, 1], "first": 0, "last": 4}}, SD)
    assert found["IN01"] == [0.75, 0.25]


def test_a_number_beside_a_list_goes_for_every_model():
    assert values({"ramp": {"start": 1, "end": [0, 1], "first": 0, "last": 4}}, SD)["IN02"] == [0.5, 1.0]


def test_a_ramp_of_one_block_is_a_step():
    found = values({"ramp": {"start": 0.0, "end": 1.0, "first": 3, "last": 3}}, SD)
    assert (found["IN03"], found["IN04"]) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ramp": {"start": 0}}, "needs start and end"),
        ({"ramp": {"start": 0, "end": 1, "frist": 2}}, "did you mean 'first'"),
        ({"ramp": {"start": 0, "end": 1, "first": 1.5}}, "number or name, got 1.5"),
        ({"ramp": {"start": 0, "end": 1, "first": True}}, "number or name, got True"),
        ({"ramp": {"start": 0, "end": 1, "first": 1, "last": "MID"}}, "both be numbers or both be names"),
        ({"ramp": {"start": 0, "end": 1, "first": 5, "last": 2}}, "not end before it begins"),
        ({"ramp": {"start": 0, "end": 1, "first": "IN99"}}, "there is no block 'IN99'"),
        ({"slope": 1}, "must be a value"),
        ({"blocks": {"IN*": 1}, "ramp": {}}, "must be a value"),
    ],
)
def test_a_malformed_schedule_says_what_is_wrong(given, said):
    with pytest.raises(OptionError, match=said):
        values(given, SD)


def test_lines_grow_evenly_over_all_blocks_in_depth():
    """LiNeS: alpha + beta l / (L - 1); Flux's stacks are counted through, and tensors in no block have alpha."""
    found = values({"lines": {"alpha": 0.5, "beta": 0.8}}, FLUX)
    assert [round(found[f"double_blocks.{i}"], 6) for i in range(3)] == [0.5, 0.6, 0.7]
    assert [round(found[f"single_blocks.{i}"], 6) for i in (0, 5)] == [0.8, 1.3]
    assert found[None] == 0.5
    of_two = values({"lines": {"alpha": [0.0, 1.0], "beta": 1.0}}, SD)
    assert (of_two["IN00"], of_two["OUT11"], of_two["time_embed"]) == ([0.0, 1.0], [1.0, 2.0], [0.0, 1.0])


def test_lines_are_refused_beyond_the_bounds_and_with_other_names():
    option = Option("strength", 1.0, Range(-2, 2, 1, "how much"))
    assert schedules.values(schedules.parse({"lines": {"alpha": 1, "beta": 5}}, option)) == [1, 6]
    with pytest.raises(OptionError, match=r"'lines': \{alpha, beta\}"):
        schedules.parse({"lines": {"alpha": 1}}, option)
