"""A block map on the bars: a colour, a number and a sentence for each block; of its model alone, and of its family alone."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from workbench.errors import InputError
from workbench.panels.block_effects import effects_by_block
from workbench.panels.judging import depth_of
from workbench.sweeps.block_map_result import ALONE, LEFT_OUT, TUNED, BlockMap, Effect


def block_map(tuned="heart", **more: Effect) -> BlockMap:
    effects = {
        "whole": Effect(TUNED, ALONE, 0.5, 0.0, math.nan),
        "first": Effect("IN00", ALONE, 0.2, 0.02, math.nan),
        "first_out": Effect("IN00", LEFT_OUT, 0.1, math.nan, math.nan),
        "second": Effect("IN01", ALONE, -0.4, math.nan, math.nan),
        "failed": Effect("IN02", ALONE, math.nan, math.nan, math.nan, "out of memory"),
        "text": Effect("text_encoder", ALONE, 0.3, math.nan, math.nan),
    }
    return BlockMap(("base", tuned), tuple({**effects, **more}.values()), ("IN03", "vae"), SimpleNamespace(scores={}))


def test_each_place_has_a_colour_a_number_and_a_sentence(make):
    panel = make()
    depth = depth_of(panel.state, panel._shelf.checkpoints)
    found = effects_by_block(block_map(), depth)
    places = dict(zip([*depth.names, "other"], found["places"], strict=True))
    assert places["IN00"] == {
        "known": True, "effect": "0.2", "told": "IN00: alone 0.2 ± 0.02, left out 0.1",
        "colour": "color-mix(in srgb, #0072B2 56%, transparent)",
    }  # fmt: skip
    assert places["IN01"]["colour"] == "color-mix(in srgb, #D55E00 100%, transparent)"
    assert (places["IN02"]["known"], places["IN02"]["effect"]) == (False, "?")
    assert places["IN02"]["told"] == "IN02: alone not measured (out of memory)"
    assert (places["IN03"]["known"], places["IN03"]["told"]) == (True, "IN03: the same in both models")
    assert places["OUT00"]["told"] == "OUT00: not measured"
    assert places["other"]["told"] == "text_encoder: alone 0.3; vae: the same in both models"
    assert (found["least"], found["most"], len(found["scale"])) == ("-0.4", "0.4", 3)
    assert found["title"] == "What each block of heart does alone: distance"


def test_colours_are_on_the_bars_of_their_model_stay_with_it_and_are_taken_away(make):
    panel = make()
    panel.use_block_map(block_map())
    editor = panel._merging._form.controls["weights"].editor
    assert editor.series[editor.effects_of] == "heart"
    panel.show(panel.state.with_input("models", ["heart", "base", "moon"]))
    editor = panel._merging._form.controls["weights"].editor
    assert editor.effects_of == 0, "controls that are made anew have it, too"
    panel.rename("heart", "love")
    assert panel._merging._form.controls["weights"].editor.series[0] == "love"
    assert panel._merging._form.controls["weights"].editor.effects_of == 0
    panel.show(panel.state.with_input("models", ["love", "moon"]))
    assert panel._merging._form.controls["weights"].editor.effects_of == 0, "two models are one slider"
    panel.show(panel.state.with_input("models", ["base", "moon"]))
    assert panel._merging._form.controls["weights"].editor.effects_of == -1
    panel.undo()
    assert panel._merging._form.controls["weights"].editor.effects
    panel.use_block_map(None)
    assert panel._merging._form.controls["weights"].editor.effects == {}


def test_a_map_of_another_family_or_of_a_model_that_is_not_here_is_refused(make):
    panel = make()
    with pytest.raises(InputError, match=r"the block map is of 'venus', and no model here is called so; there are: base, heart, moon"):
        panel.use_block_map(block_map("venus"))
    with pytest.raises(InputError, match=r"a model of another family than those that are merged: it has 'double_blocks\.0'"):
        panel.use_block_map(block_map(flux=Effect("double_blocks.0", ALONE, 0.1, 0.0, 0.0)))
    assert panel._merging._form.controls["weights"].editor.effects == {}
