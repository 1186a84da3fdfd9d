"""What can be swept over, what a sweep comes to before anything is drawn, and the state that each of its cells is."""

from __future__ import annotations

import math

import pytest

import workbench as wb
from workbench.errors import InputError, RenderError
from workbench.panels.state import PanelState, Wanted
from workbench.panels.sweep_plan import SweepPlan, swept_state
from workbench.panels.swept import state_with, sweepables
from workbench.places import DATA

WANTED = Wanted(("a heart", "a moon"), (0, 1, 2), steps=10)
STATE = PanelState.start(["base", "heart", "moon"], WANTED)
TIES = STATE.with_operator("ties")


def plan(state=TIES, **over) -> SweepPlan:
    return SweepPlan.of(state, {name.replace("__", " "): given for name, given in over.items()}, ["Euler", "DDIM"])


def changed(state: PanelState, **values) -> PanelState:
    return state_with(state, {name.replace("__", " "): value for name, value in values.items()}, sweepables(state))


def test_what_can_be_swept_over_follows_the_state():
    assert list(sweepables(TIES))[:4] == ["density", "weights", "weights of heart", "weights of moon"]
    assert list(sweepables(STATE))[:3] == ["weights of base", "weights of heart", "weights of moon"], "of ratios one value for all is none"
    two = STATE.with_input("models", ["heart", "moon"])
    assert sweepables(two)["weights"].example == "0..1 step 0.1 (0 is heart, 1 is moon)"
    assert "method seed" in sweepables(STATE.with_operator("dare_ties"))
    with_lora = PanelState.start(["base", "heart", "lora"], WANTED, ["base", "heart"]).with_loras(["lora"])
    assert "strength of lora" in sweepables(with_lora)


def test_a_value_makes_the_state_that_moving_the_control_would_make():
    assert changed(TIES, density=0.2) == TIES.with_option("density", 0.2)
    assert changed(TIES, weights__of__moon=0.0) == TIES.with_option("weights", [1.0, 0.0])
    two = STATE.with_input("models", ["heart", "moon"])
    assert changed(two, weights=0.25) == two.with_option("weights", [0.75, 0.25])
    blocks = TIES.with_option("weights", {"blocks": {"MID": 0.5, "default": 1.0}})
    assert changed(blocks, weights__of__heart=0.0).options["weights"] == {"blocks": {"MID": [0.0, 0.5], "default": [0.0, 1.0]}}
    assert changed(TIES, models=("moon",)) == TIES.with_input("models", ["moon"])
    assert changed(TIES, base="heart") == TIES.with_input("base", ["heart"])
    assert changed(TIES, seeds=2, prompts="a star", steps=4).wanted == Wanted(("a star",), (2,), steps=4)
    assert changed(TIES, method="weighted_average").operator == "weighted_average"
    lora = PanelState.start(["base", "heart", "a", "b"], WANTED, ["base", "heart"]).with_loras(["a", "b"])
    assert changed(lora, strength__of__b=0.5).strengths == [1.0, 0.5]


def test_cells_pictures_and_seconds_are_counted():
    one = plan(density="0..1 step 0.1", seeds="0-3")
    assert (one.cells, one.pictures) == (44, 88), "two prompts in each cell"
    assert one.axes == ["density", "seed"]
    assert one.merges == {"density": tuple(number / 10 for number in range(11))}
    assert one.asked["seeds"] == [0, 1, 2, 3]
    assert one.asked["prompts"] == ("a heart", "a moon")
    assert one.seconds(0.1) == pytest.approx(88 * 10 * 0.1)
    assert one.told(math.nan) == "11 x 4 = 44 cells of 2 pictures; how long that takes is known once this panel has drawn something"
    assert one.told(0.1) == "11 x 4 = 44 cells of 2 pictures; about 88 s, judging by this panel's pictures"
    steps = plan(steps="5, 15")
    assert (steps.cells, steps.pictures, steps.merges) == (2, 12, {})
    assert steps.seconds(1) == 120


def test_values_may_be_lists():
    assert plan(density=[0.2, 0.5]).values == plan(density="0.2, 0.5").values
    assert plan(method=["ties", "dare_ties"]).cells == 2


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({}, "choose one to 3 options, got none"),
        ({"density": "1", "seeds": "1", "steps": "1", "guidance": "1"}, "choose one to 3 options, got density, seeds, steps, guidance"),
        ({"densty": "1"}, "there is no option 'densty'; did you mean 'density'"),
        ({"density": "0..3 step 1"}, r"density: must be in \[0, 1\], got 2"),
        ({"density": ["a"]}, r"density: must be a number in \[0, 1\], got 'a'"),
        ({"seeds": "-1"}, "seeds: '-1' is none"),
        ({"seeds": ""}, "seeds: has no values"),
        ({"steps": "0"}, r"steps: must be in \[1, 1000\], got 0"),
        ({"majority_sign": "totl"}, "there is no 'totl'; did you mean 'total'"),
        ({"models": "heart + sun"}, "there is no 'sun'"),
        ({"density": "0..1 step 0.01", "seeds": "0-99"}, r"a sweep of 10,100 cells \(101 density x 100 seeds\): at most 1,000"),
        ({"sampler": "Eulr"}, "there is no 'Eulr'; did you mean 'Euler'"),
    ],
)
def test_what_cannot_be_swept_over_is_named(over, said):
    with pytest.raises(InputError, match=said):
        SweepPlan.of(TIES, over, ["Euler", "DDIM"])


def test_without_a_prompt_nothing_is_swept():
    with pytest.raises(RenderError, match="prompts must be one or more"):
        plan(TIES.with_wanted(prompts=()), density="0.5")


def test_an_option_that_another_method_lacks_is_that_cells_problem():
    both = plan(method="ties, weighted_average", density="0.5")
    models = {name: wb.open(DATA / "shapes-sd" / f"{name}.safetensors") for name in ("base", "heart", "moon")}
    assert both.make(models, method="ties", density=0.5).options == {}
    with pytest.raises(InputError, match="weighted_average has no density"):
        both.make(models, method="weighted_average", density=0.5)


def test_a_cell_is_the_state_that_its_values_make():
    assert swept_state(TIES, {"density": 0.1, "seed": 3, "prompt": "a star"}, []).wanted == Wanted(("a star",), (3,), steps=10)
    with pytest.raises(InputError, match="has no nothing"):
        swept_state(TIES, {"nothing": 1}, [])
