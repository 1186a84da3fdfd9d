"""Every declaration becomes controls, without a browser."""

from __future__ import annotations

from typing import Annotated, Literal

import ipywidgets as widgets
import pytest

import workbench as wb
from workbench.merge import Flag, OneOf, PerModel, Random, Range, operator
from workbench.merge.constraints import Vector
from workbench.merge.schedules import Depth
from workbench.operators import find, own
from workbench.panels.controls import ByBlockControl, option_control, seed_control, slot_control
from workbench.places import DATA
from workbench.tensors import Scope, Weight, Weights

MODELS = ("heart", "moon")


@pytest.fixture(scope="module")
def depth() -> Depth:
    base = wb.open(DATA / "shapes-sd" / "base.safetensors")
    return Depth.of(base.structure.location(key) for key in base)


def option(name: str, of: str = "delta_merge"):
    return find(of).declaration.options[name]


def control(name: str, depth: Depth, of: str = "delta_merge", value=...):
    found = option(name, of)
    return option_control(found, found.default if value is ... else value, MODELS, depth)


def field(made: widgets.Widget) -> widgets.Widget:
    return made.children[0] if isinstance(made, ByBlockControl) else made


@pytest.mark.parametrize("name", own())
def test_every_option_of_every_operator_has_a_control_that_shows_its_default(name, depth):
    for found in find(name).declaration.options.values():
        begins = {"constant": 0.0} if found.required else found.default
        made = option_control(found, begins, MODELS, depth)
        assert made.value == begins
        made.close()


def test_a_range_is_a_slider_with_its_bounds_step_and_help(depth):
    made = field(control("density", depth))
    assert isinstance(made, widgets.FloatSlider)
    assert (made.min, made.max, made.step, made.value) == (0, 1, 0.01, 0.5)
    assert made.readout_format == ".2f"
    assert made.tooltip == "share of each delta that is kept"
    assert not made.continuous_update


def test_whole_numbers_are_an_int_slider_and_many_of_them_are_typed(depth):
    assert isinstance(control("dim", depth, "fft_blend"), widgets.IntSlider)
    _, typed = control("chunk_size", depth, "fft_blend").children
    assert isinstance(typed, widgets.BoundedIntText)


def test_a_choice_is_a_menu_and_a_flag_a_checkbox(depth):
    assert control("combine", depth).options == ("disjoint", "sum", "mean")
    assert isinstance(control("smooth", depth, "fft_blend"), widgets.Checkbox)


def test_none_is_automatic(depth):
    made = control("rescale", depth)
    automatic, flag = made.children
    assert made.value is None
    assert automatic.value
    automatic.value = False
    assert made.value is False
    flag.value = True
    assert made.value is True
    automatic.value = True
    assert made.value is None


def test_an_option_per_model_has_a_slider_for_each(depth):
    made = control("weights", depth, value=[1.0, 0.25])
    seen = []
    made.observe(lambda change: seen.append(change["new"]), "value")
    sliders = [row.children[1] for row in field(made).children]
    assert [slider.value for slider in sliders] == [1.0, 0.25]
    sliders[0].value = 0.5
    assert made.value == [0.5, 0.25]
    assert seen == [[0.5, 0.25]]


def test_setting_all_models_tells_once(depth):
    made = control("weights", depth)
    seen = []
    made.observe(lambda change: seen.append(change["new"]), "value")
    made.value = [0.1, 0.2]
    assert seen == [[0.1, 0.2]]


def test_the_switch_shows_the_blocks_and_turning_it_off_gives_one_value(depth):
    made = control("density", depth, value={"ramp": {"start": 0, "end": 1, "elsewhere": 0.25}})
    assert made.switch.value
    (editor,) = made.children
    assert editor.blocks == [block.name for block in depth.blocks]
    assert editor.rows[0][0] == 0
    assert editor.rows[0][-1] == 1
    made.switch.value = False
    assert made.value == 0.25
    assert field(made).value == 0.25


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"kind": "painted", "series": 0, "values": [0.1] * 9, "elsewhere": 0.1}, 0.1),
        ({"kind": "ramp", "series": 0, "ends": [8, 0], "values": [1, 0]}, "ramp"),
        ({"kind": "preset", "series": 0, "name": "hill"}, "blocks"),
    ],
)
def test_what_is_drawn_in_the_browser_becomes_a_value(depth, said, told):
    made = control("density", depth)
    made.switch.value = True
    (editor,) = made.children
    editor._handle_custom_msg(said, [])
    assert made.value == told or set(made.value) == {told}


def test_bars_painted_alike_stay_bars_but_one_value_to_be_shown_is_a_slider(depth):
    made = control("density", depth)
    made.switch.value = True
    (editor,) = made.children
    editor._handle_custom_msg({"kind": "preset", "series": 0, "name": "hill"}, [])
    editor._handle_custom_msg({"kind": "preset", "series": 0, "name": "flat"}, [])
    assert made.value == 0.5
    assert made.children == (editor,)
    made.value = 0.3
    assert field(made).value == 0.3
    assert not made.switch.value


def test_blocks_are_not_offered_where_there_are_none():
    assert not isinstance(control("density", Depth(())), ByBlockControl)


@pytest.mark.parametrize(
    ("source", "text", "value"),
    [
        ("numbers", "0.5, -1", [0.5, -1]),
        ("numbers", "[1, 2]", [1, 2]),
        ("constant", "0.5", {"constant": 0.5}),
        ("seed", "7", {"seed": 7}),
        ("curve", "[[0, 1], [1, -1]]", {"curve": [[0, 1], [1, -1]]}),
        ("prompt", '{"prompt": "a heart", "encoder": "m.safetensors"}', {"prompt": "a heart", "encoder": "m.safetensors"}),
    ],
)
def test_a_vector_is_typed_or_comes_from_a_source(depth, source, text, value):
    made = control("coefficients", depth, "fft_blend", value={"constant": 0.0})
    menu, typed = made.children
    menu.value = source
    typed.value = text
    assert made.value == value
    again = control("coefficients", depth, "fft_blend", value=value)
    assert [part.value for part in again.children] == [source, text.strip("[]") if source == "numbers" else text]


def test_a_slot_is_a_menu_or_tags():
    base, many = find("ties").declaration.inputs
    assert slot_control(base, MODELS, ("moon",)).value == "moon"
    assert slot_control(base, MODELS, ()).value == ""
    made = slot_control(many, ("base", *MODELS), MODELS)
    tags, menu = made.children
    assert menu.options == (("add …", ""), ("base", "base"))
    menu.value = "base"
    assert made.value == (*MODELS, "base")
    tags.value = ["base", "heart"]
    assert made.value == ("base", "heart")


def test_only_what_draws_random_numbers_has_a_seed():
    assert seed_control(find("ties").declaration, 0) is None
    assert seed_control(find("dare_ties").declaration, 3).value == 3


def test_an_operator_of_ones_own_has_controls_too(depth):
    @operator(scope=Scope.ELEMENT, keys="union", source="a test")
    def mine(
        models: Weights,
        *,
        count: Annotated[PerModel[int], Range(0, 8, 1, "how many", per_block=True)] = 2,
        kind: Annotated[Literal["a", "b"] | None, OneOf("which")] = None,
        vector: Annotated[list, Vector("what")] = (1.0,),
        on: Annotated[bool, Flag("whether")] = True,
        random: Random = Random(),
    ) -> Weight:
        """Of a test."""

    declaration = mine.declaration
    values = [option_control(found, found.default, MODELS, depth).value for found in declaration.options.values()]
    assert values == [2, None, (1.0,), True]
