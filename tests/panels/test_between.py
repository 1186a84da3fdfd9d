"""Two models are one slider from the first to the second, which makes the same merge as their weights."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.merge.schedules import Depth, parse
from workbench.operators import find
from workbench.panels.bars import Bars
from workbench.panels.between import Between, as_share, as_weights, share_option
from workbench.panels.controls import option_control
from workbench.panels.fields import Soft
from workbench.places import DATA

WEIGHTS = find("weighted_average").declaration.options["weights"]
MODELS = ("heart", "moon")
base = wb.open(DATA / "shapes-sd" / "base.safetensors")
DEPTH = Depth.of(base.structure.location(key) for key in base)
weight = st.floats(0.1, 5).map(lambda value: round(value, 3))
pairs = st.lists(weight, min_size=2, max_size=2) | weight


def shares(value, option, series: int) -> list[float]:
    """Of each block, of what lies in none, and of each module beside the blocks: how much is the second model's."""
    bars = Bars.of(value, option, DEPTH, series)
    columns = [*zip(*bars.rows, strict=True), bars.elsewhere, *bars.modules]
    return [column[1] / sum(column) if series == 2 else column[0] for column in columns]


@pytest.mark.parametrize(("value", "share"), [(1.0, 0.5), ([0.7, 0.3], 0.3), ([2, 1], 0.3333333333), ([0, 1], 1.0), ([1.5, -0.5], -0.5)])
def test_weights_are_a_share_of_the_second(value, share):
    assert as_share(value, WEIGHTS, DEPTH) == share


@given(
    st.builds(lambda a, b, c: {"ramp": {"start": a, "end": b, "elsewhere": c}}, pairs, pairs, pairs)
    | st.builds(lambda a, b, c: {"blocks": {"IN*": a, "time_embed": b, "default": c}}, pairs, pairs, pairs)
    | pairs
)
def test_a_share_makes_the_same_merge_in_every_form(value):
    share = as_share(value, WEIGHTS, DEPTH)
    expected = shares(value, WEIGHTS, 2)
    assert shares(share, share_option(WEIGHTS, MODELS), 1) == pytest.approx(expected, abs=1e-6)
    assert shares(as_weights(share), WEIGHTS, 2) == pytest.approx(expected, abs=1e-6)


@given(st.floats(-9, 10))
def test_every_share_that_can_be_typed_is_allowed(share):
    for value in parse(as_weights(round(share, 6)), WEIGHTS).value:
        assert WEIGHTS.constraint.complaint(value) is None


def test_two_models_have_one_slider_and_three_have_three():
    two = option_control(WEIGHTS, 1.0, MODELS, DEPTH)
    assert isinstance(two, Between)
    assert two.value == 1.0  # until somebody moves it
    assert not isinstance(option_control(WEIGHTS, 1.0, (*MODELS, "base"), DEPTH), Between)


def test_the_slider_goes_from_0_to_1_and_typing_to_the_bounds():
    made = option_control(WEIGHTS, 1.0, MODELS, DEPTH)
    seen = []
    made.observe(lambda change: seen.append(change["new"]), "value")
    (soft,) = made.children[1].children
    assert isinstance(soft, Soft)
    slider, text = soft.children
    assert (slider.min, slider.max, text.min, text.max) == (0, 1, -9, 10)
    slider.value = 0.3
    assert text.value == 0.3
    text.value = 1.5
    assert slider.value == 1
    assert seen == [[0.7, 0.3], [-0.5, 1.5]]


def test_two_models_by_block_are_one_column_of_bars():
    made = option_control(WEIGHTS, 1.0, MODELS, DEPTH)
    made.switch.value = True
    (editor,) = made.children[1].children
    assert len(editor.series) == 1
    editor._handle_custom_msg({"kind": "ramp", "series": 0, "ends": [0, len(DEPTH.blocks) - 1], "values": [0, 1]}, [])
    ramp = made.value["ramp"]
    assert (ramp["start"], ramp["end"]) == ([1, 0], [0, 1])
