"""The LoRA panel without a browser: ranks cut from one extraction, what it shows and draws, exports, and refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.checkpoint.views.layouts import like
from workbench.errors import MergeError, OptionError
from workbench.lora.nesting import cuts
from workbench.panels.error_chart import error_chart
from workbench.panels.lora_panel import LoraPanel


@pytest.fixture
def panel(renderer, models) -> LoraPanel:
    made = LoraPanel(models / "heart.safetensors", models / "base.safetensors", renderer)
    made.show(made.state.with_wanted(prompts=["a red heart"], steps=2))
    assert made.wait(60)
    return made


@pytest.mark.parametrize("rank", [1, 8, 32])
def test_a_cut_is_what_extraction_gives_at_that_rank(models, rank):
    heart, base = (wb.open(models / f"{name}.safetensors") for name in ("heart", "base"))
    (cut,) = cuts(wb.lora.extract(heart, base, rank=64, progress=False), base, [rank])
    direct = wb.lora.extract(heart, base, rank=rank, progress=False)
    assert cut.error == pytest.approx(direct.report.error, rel=1e-6)
    assert list(cut.lora) == list(direct)
    for key in list(direct)[::20]:
        torch.testing.assert_close(cut.lora.read(key), direct.read(key), rtol=1e-4, atol=1e-6)


def test_parents_and_the_base_with_the_lora_are_drawn(panel):
    assert list(panel.images) == ["base", "heart", "result"]
    assert {len(images) for images in panel.images.values()} == {1}
    assert panel.cut.rank == 8
    assert panel._told.value == f"rank 8: misses {panel.cut.error:.1%} of the change; {panel.cut.nbytes / 1e6:.2f} MB"


def test_another_rank_changes_picture_and_error_and_undo_takes_it_back(panel):
    before, picture = panel.cut, panel.images["result"]
    panel._rank.value = next(name for name, cut in panel._cuts.items() if cut.rank == 64)
    assert panel.wait(60)
    assert panel.cut.rank == 64
    assert panel.cut.error < before.error
    assert not np.array_equal(panel.images["result"][0], picture[0])
    panel.undo()
    assert panel.wait(60)
    assert panel.cut is before
    assert panel._rank.value == "rank 8"
    assert np.array_equal(panel.images["result"][0], picture[0])


def test_the_strength_stays_when_the_rank_changes(panel):
    panel.show(panel.state.with_option("strengths", 0.5))
    panel.choose(16)
    assert panel.merge.options["strengths"] == 0.5


def test_what_is_shown_is_what_is_exported(panel, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    panel.choose(4)
    panel._outcome.export()
    assert panel._outcome._said.value.startswith("lora.safetensors: 0.")
    written = like(wb.open("lora.safetensors"), panel.lora)
    assert set(written) == set(panel.lora)
    key = next(iter(panel.lora))
    torch.testing.assert_close(written.read(key), panel.lora.read(key), rtol=1e-2, atol=1e-4)
    panel._outcome.export()
    assert "is there already" in panel._outcome._said.value


def test_the_chart_marks_the_chosen_rank(panel):
    assert panel._chart.value.count("<circle") == len(panel._cuts)
    assert f"rank 8: misses {panel.cut.error:.2%}" in panel._chart.value.split("wb-chosen")[1]
    assert "rank 1 is chosen" in error_chart([1], [0.5], 1)


def test_ranks_and_states_that_are_not_offered_are_refused(panel):
    with pytest.raises(OptionError, match=r"rank must be one of 1, 2, 4, .*, got 3"):
        panel.choose(3)
    with pytest.raises(OptionError, match="LoraPanel shows add_delta of one of rank 1, rank 2"):
        panel.show(panel.state.with_operator("ties"))


def test_models_that_do_not_differ_are_refused(models):
    with pytest.raises(MergeError):
        LoraPanel(wb.open(models / "base.safetensors"), wb.operators.weighted_average([wb.open(models / "base.safetensors")]))
