"""The panel's state and its changes, without a widget."""

from __future__ import annotations

import pytest

from workbench.errors import RenderError
from workbench.operators import own
from workbench.panels.state import PanelState, Wanted
from workbench.panels.timeline import Moment, Timeline

MODELS = ("base", "heart", "moon", "outline")


@pytest.fixture
def state() -> PanelState:
    return PanelState.start(MODELS, Wanted(("a star",)))


def test_a_new_panel_averages_the_first_models(state):
    assert state.operator == "weighted_average"
    assert state.inputs == {"models": ("base", "heart", "moon")}
    assert state.options == {}


@pytest.mark.parametrize("name", own())
def test_models_go_to_the_inputs_of_any_operator_in_order(state, name):
    changed = state.with_operator(name)
    assert list(changed.inputs) == [slot.name for slot in changed.declaration.inputs]
    assert changed.used == MODELS[: len(changed.used)]
    assert all(changed.inputs.values())


@pytest.mark.parametrize("models", [(), ("base",)])
@pytest.mark.parametrize("name", own())
def test_inputs_stay_empty_where_models_are_too_few(name, models):
    assert PanelState.start(models, Wanted()).with_operator(name).used == models


def test_options_stay_where_the_other_operator_has_the_same(state):
    dare = state.with_operator("dare_ties").with_option("density", 0.2).with_option("majority_sign", "frequency")
    assert dare.with_operator("ties").options == {"density": 0.2, "majority_sign": "frequency"}
    assert dare.with_operator("dare_linear").options == {"density": 0.2}
    assert dare.with_operator("nearest").options == {}


def test_weights_of_another_kind_do_not_stay(state):
    assert state.with_option("weights", 7.0).with_operator("ties").options == {}


def test_values_per_model_stay_with_their_models(state):
    weighted = state.with_option("weights", [1.0, 0.5, 0.2])
    assert weighted.with_input("models", ["moon", "base", "outline"]).value("weights") == [0.2, 1.0, 1.0]
    assert weighted.with_input("models", ["base"]).value("weights") == 1.0


def test_values_per_model_and_block_stay_with_their_models(state):
    ramp = {"start": [1, 0, 0], "end": [0, 1, 0], "first": 4, "last": "OUT02", "elsewhere": 0.5}
    changed = state.with_option("weights", {"ramp": ramp}).with_input("models", ["heart", "base"])
    assert changed.value("weights") == {"ramp": {**ramp, "start": [0, 1], "end": [1, 0]}}


def test_trying_another_method_and_coming_back_loses_nothing(state):
    bars = {"blocks": {"IN*": [0.1, 0.2, 0.3], "default": [1.0, 1.0, 1.0]}}
    rules = [{"component": "vae", "take": "models[1]"}]
    used = state.with_input("models", ["moon", "base", "outline"]).with_option("weights", bars).with_rules(rules)
    tried = used.with_operator("nearest").with_operator("ties").with_option("density", 0.2)
    back = tried.with_operator("weighted_average")
    assert back == used
    assert back.with_operator("ties") == tried


def test_what_a_method_was_used_with_goes_with_its_models(state):
    used = state.with_option("weights", [0.1, 0.2, 0.3]).with_operator("ties").with_models(["base", "moon"])
    back = used.with_operator("weighted_average")
    assert back.inputs == {"models": ("base", "moon")}
    assert back.value("weights") == [0.1, 0.3]


def test_a_default_is_no_option(state):
    assert state.with_option("weights", [0.5, 1.0, 1.0]).with_option("weights", [1.0, 1.0, 1.0]) == state


def test_an_option_without_a_default_begins_with_something(state):
    assert state.with_operator("fft_blend").options == {"coefficients": {"constant": 0.0}}


def test_a_model_that_is_taken_off_leaves_its_input_empty(state):
    ties = state.with_operator("ties").with_option("weights", [0.3, 0.6])
    assert ties.with_models(["heart", "moon"]).inputs == {"base": (), "models": ("heart", "moon")}
    assert ties.with_models(["base", "moon"]).value("weights") == 0.6


def test_rules_that_are_the_operators_own_are_none(state):
    near = state.with_operator("nearest")
    assert near.with_rules([]).rules == ()
    assert near.with_rules([{"component": "vae", "take": "anchor"}]) == near


def test_no_prompt_is_a_state_but_no_request():
    with pytest.raises(RenderError, match="prompts must be one or more"):
        Wanted().request()


def test_undo_redo_and_snapshots(state):
    ties, dare = state.with_operator("ties"), state.with_operator("dare_ties")
    line = Timeline((Moment(state, "start"),))
    assert not line.can_undo
    assert line.undone() == line.redone() == line
    line = line.went_on(ties, "method").with_snapshot("good").went_on(dare, "method")
    assert line.undone().now == ties
    assert line.undone().undone().undone().now == state
    assert line.undone().redone().now == dare
    assert line.went_on(dare, "again") == line
    branched = line.undone().undone().went_on(dare, "method")
    assert [moment.state for moment in branched.moments] == [state, dare]
    assert not branched.can_redo
    assert branched.snapshots == {"good": ties}
