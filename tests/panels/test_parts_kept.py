"""The menus that keep one model's VAE or text encoders are rules, and rules are shown by them."""

from __future__ import annotations

import pytest
import torch

from workbench.panels.parts_kept import PARTS, kept_from, with_kept
from workbench.panels.state import PanelState, Wanted

VAE, ENCODERS = ["vae"], ["text_encoder", "text_encoder_2"]


@pytest.fixture
def state() -> PanelState:
    return PanelState.start(("base", "heart", "moon"), Wanted())


def test_a_part_is_kept_by_a_rule_and_merged_again_without_it(state):
    kept = with_kept(state, VAE, "heart")
    assert kept.rules == ({"component": "vae", "take": "heart"},)
    assert kept_from(kept, VAE) == "heart"
    assert kept_from(with_kept(kept, VAE, "moon"), VAE) == "moon"
    assert with_kept(kept, VAE, "") == state


def test_other_rules_stay(state):
    other = {"match": "*out*", "skip": True}
    kept = with_kept(with_kept(state.with_rules([other]), VAE, "heart"), ENCODERS, "moon")
    assert (kept_from(kept, VAE), kept_from(kept, ENCODERS)) == ("heart", "moon")
    assert other in with_kept(with_kept(kept, VAE, ""), ENCODERS, "").rules


def test_what_comes_from_several_is_no_ones(state):
    mixed = state.with_rules([{"component": "text_encoder", "take": "heart"}, {"component": "text_encoder_2", "take": "moon"}])
    assert kept_from(mixed, ENCODERS) == ""


def test_an_operators_own_rules_are_shown(state):
    near = state.with_operator("nearest")
    assert kept_from(near, VAE) == near.inputs["anchor"][0]


def test_a_model_that_is_called_as_another_ones_input_is_meant(state):
    ties = state.with_operator("ties").with_input("base", ["moon"]).with_input("models", ["heart", "base"])
    kept = with_kept(ties, VAE, "base")
    assert kept.rules == ({"component": "vae", "take": "models[1]"},)
    assert kept_from(kept, VAE) == "base"


def test_the_menu_keeps_the_vae_of_its_model_wherever_that_stands(make):
    panel = make()
    menu = panel._merging._kept["VAE"]
    menu.value = "moon"
    key = next(key for key in panel.merge if key.startswith("first_stage_model.") and key.endswith("conv_in.weight"))
    moon = panel._shelf.checkpoints["moon"][key]
    assert torch.equal(panel.merge[key], moon)
    panel.show(panel.state.with_input("models", ["moon", "base"]))
    assert torch.equal(panel.merge[key], moon)
    assert menu.value == "moon"
    panel.undo()
    panel.undo()
    assert menu.value == ""


def test_notes_are_one_line_with_a_count(make):
    panel = make()
    panel._merging.say([("note", "a"), ("error", "b"), ("note", "c")])
    assert panel._merging._words.value.startswith('<div class="wb-error">')
    assert "<details><summary>2 notes</summary>" in panel._merging._words.value
    assert list(PARTS) == list(panel._merging._kept)
