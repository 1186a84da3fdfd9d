"""Which block does it: each block swapped alone and left out alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import workbench as wb
from workbench import figures
from workbench.errors import InputError, SweepError
from workbench.places import DATA
from workbench.sweeps.block_map_result import ALONE, LEFT_OUT, Effect

CHANGED = "model.diffusion_model.middle_block.0.in_layers.2.weight"
OUTER = "first_stage_model.decoder.conv_out.bias"
SD = DATA / "shapes-sd"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tuned")


@pytest.fixture(scope="module")
def tuned(folder):
    """The base with another middle block and another VAE."""
    tensors = load_file(SD / "base.safetensors")
    tensors[CHANGED] = tensors[CHANGED] * 0.5
    tensors[OUTER] = tensors[OUTER] + 0.3
    save_file(tensors, folder / "tuned.safetensors", metadata={"format": "pt"})
    return wb.open(folder / "tuned.safetensors")


@pytest.fixture
def mapped(models, tuned, short):
    short.pop("score")
    return lambda **options: wb.block_map(models["base"], tuned, **({"seeds": 0} | short | options))


def test_an_executor_maps_the_same(mapped):
    here = mapped()
    with ThreadPoolExecutor(2) as threads:
        there = mapped(executor=threads, name="threads")
    assert there.sweep.drawn == len(there.sweep)
    pd.testing.assert_frame_equal(here.frame(), there.frame())


def test_only_blocks_that_differ_are_drawn_and_the_others_do_nothing(mapped):
    found = mapped()
    assert [(cell.options["block"], cell.options["way"]) for cell in found.sweep] == [
        ("no block", "alone"),
        ("every block", "alone"),
        ("MID", "alone"),
        ("MID", "left out"),
        ("vae", "alone"),
        ("vae", "left out"),
    ]
    frame = found.frame()
    assert {"IN00", "OUT00", "out", "time_embed", "text_encoder"} <= set(found.same)
    assert (frame[frame["block"].isin(found.same)]["effect"] == 0).all()


def test_blocks_matter_whose_effect_is_outside_the_spread_and_components_are_none(mapped):
    found = mapped()
    assert found.that_matter == ["MID"]  # of one seed; the VAE is no block
    several = [
        Effect("whole", ALONE, 9, 0, 9),
        Effect("IN00", ALONE, 1, 2, 1),
        Effect("MID", ALONE, 1, 2, 1),
        Effect("MID", LEFT_OUT, -3, 2, 1),
    ]
    assert replace(found, effects=tuple(several)).that_matter == ["MID"]


def test_a_block_alone_is_the_base_but_for_it_and_left_out_the_tuned_model_but_for_it(mapped, models, tuned):
    alone, left_out, vae, no_vae = (cell.recipe.build() for cell in mapped().sweep.cells[2:])
    base = models["base"]
    for merge, middle, outer in ((alone, tuned, base), (left_out, base, tuned), (vae, base, tuned), (no_vae, tuned, base)):
        assert torch.equal(merge[CHANGED], middle[CHANGED])
        assert torch.equal(merge[OUTER], outer[OUTER])


def test_an_effect_is_what_the_block_adds_to_the_score_of_the_base_and_takes_from_that_of_the_tuned_model(mapped):
    def bright(images, prompts):
        return [float(np.asarray(image).mean()) for image in images]

    found = mapped(scorer=bright, seeds=[0, 1])
    base, tuned, *cells = [cell.scores["bright"] for cell in found.sweep]
    gains = [tuned - base, cells[0] - base, tuned - cells[1], cells[2] - base, tuned - cells[3]]
    frame = found.frame().iloc[:5]
    assert list(frame["effect"]) == pytest.approx([gain.mean() for gain in gains])
    assert list(frame["spread"]) == pytest.approx([gain.std(ddof=1) for gain in gains])
    assert found.measure == "bright"


def test_without_a_scorer_an_effect_is_how_far_the_pictures_move(mapped):
    found = mapped()
    pictures = [np.asarray(cell.pictures[0], float) / 255 for cell in found.sweep]
    pairs = [(1, 0), (2, 0), (3, 1), (4, 0), (5, 1)]
    expected = [np.sqrt(np.mean((pictures[one] - pictures[other]) ** 2)) for one, other in pairs]
    assert list(found.frame()["effect"][:5]) == pytest.approx(expected)
    assert found.measure == "distance"
    assert repr(found).startswith("<BlockMap: distance by block alone: ")


def test_a_pair_of_bars_stands_for_each_block_that_differs(mapped):
    figure = mapped().plot()
    assert [(trace.name, list(trace.y)) for trace in figure.data] == [("alone", ["MID", "vae"]), ("left out", ["MID", "vae"])]


def test_a_second_call_draws_nothing_again(mapped):
    assert mapped().sweep.drawn == 6
    assert mapped().sweep.drawn == 0


def test_models_that_are_the_same_are_refused(models, short):
    base = models["base"]
    with pytest.raises(InputError, match="hold the same numbers"):
        wb.block_map(base, base, prompts="x")
    with pytest.raises(InputError, match=r"open a file with wb\.open"):
        wb.block_map(base, SD / "heart.safetensors", prompts="x")


def test_a_scorer_that_gives_no_single_number_is_refused(mapped):
    two = lambda images, prompts: {"one": np.ones(len(images)), "two": np.ones(len(images))}  # noqa: E731
    with pytest.raises(SweepError, match="one number for each picture; it gives one, two"):
        mapped(scorer=two)

    def broken(images, prompts):
        raise ValueError("no judge today")

    with pytest.raises(SweepError, match="no judge today"):
        mapped(scorer=broken)


def test_bars_of_a_group_keep_the_order_of_the_frame_and_leave_out_what_is_missing():
    frame = pd.DataFrame({"block": ["b", "b", "a"], "way": ["one", "two", "one"], "effect": [1, 2, np.nan], "sd": [0.1, np.nan, 0]})
    figure = figures.bar_groups(frame, y="block", x="effect", colour="way", spread="sd", title="t", told="", x_title="x")
    assert [list(trace.y) for trace in figure.data] == [["b", "a"], ["b"]]
    assert list(figure.data[1].error_x.array) == [0]
