"""The spectrum panel without a browser: what it shows, measures and draws, and what it refuses."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import save_file

import workbench as wb
from workbench.errors import CheckpointError, OptionError
from workbench.panels import spectrum_panel
from workbench.panels.spectrum_panel import SpectrumPanel

FALLING = [[0.0, 1.0], [1.0, -1.0]]


@pytest.fixture
def panel(renderer, models) -> SpectrumPanel:
    made = SpectrumPanel(models / "heart.safetensors", models / "moon.safetensors", renderer)
    made.show(made.state.with_wanted(prompts=["a red heart"], steps=2))
    assert made.wait(60)
    return made


@pytest.fixture
def measures(monkeypatch) -> list[wb.Merge]:
    """The merges that were measured since."""
    found, real = [], spectrum_panel.spectrum
    monkeypatch.setattr(spectrum_panel, "spectrum", lambda merge, **given: found.append(merge) or real(merge, **given))
    return found


def drag(panel: SpectrumPanel, points: list[list[float]]) -> None:
    """What the browser tells of points that were dragged."""
    panel._editor._handle_custom_msg({"points": points, "at": time.time()}, [])
    assert panel.wait(60)


def line(panel: SpectrumPanel, name: str) -> list[float]:
    return next(line["y"] for chart in panel._editor.charts for line in chart["lines"] if line["name"] == name)


def test_curve_spectrum_and_pictures_are_shown(panel):
    assert panel._editor.points == [[0.0, 0.0], [0.25, 0.0], [0.5, 0.0], [0.75, 0.0], [1.0, 0.0]]
    assert list(panel.images) == ["heart", "moon", "result"]
    assert {len(images) for images in panel.images.values()} == {1}
    assert panel.spectrum.models == ("heart", "moon", "result")
    shares, amplitudes = panel._editor.charts
    assert [line["name"] for line in shares["lines"]] == ["real parts", "imaginary parts", "as measured"]
    assert [line["name"] for line in amplitudes["lines"]] == ["heart", "moon", "result", "heart − moon"]
    assert not panel._editor.stale
    assert panel._repr_mimebundle_()["application/vnd.jupyter.widget-view+json"]


def test_a_dragged_curve_changes_merge_spectrum_and_picture_and_undo_takes_it_back(panel):
    picture, curves = panel.images["result"], panel._editor.charts
    drag(panel, FALLING)
    assert panel.merge.options["coefficients"] == {"curve": FALLING}
    assert panel.history()["change"].iloc[-1] == "curve"
    assert panel.images["result"] != picture
    measured = line(panel, "as measured")
    assert measured[0] > 0.7
    assert measured[-1] < 0.3
    panel.undo()
    assert panel._editor.points[1] == [0.25, 0.0]
    assert panel._editor.charts == curves
    assert panel.images["result"] == picture
    panel.redo()
    assert line(panel, "as measured") == measured


def test_what_is_charted_is_the_spectrum_of_the_merge(panel):
    drag(panel, FALLING)
    found = wb.analysis.spectrum(panel.merge, bands=24)
    curves = found.curves()
    for block in ("all", "MID"):
        panel._block.value = block
        rows = curves[(curves["block"] == block) & curves["taken"].notna()]
        assert line(panel, "as measured") == pytest.approx(rows["taken"].tolist())
        rows = curves[(curves["block"] == block) & curves["real parts"].notna()]
        assert line(panel, "real parts") == pytest.approx(rows["real parts"].tolist())
        frame = found.frame()
        rows = frame[(frame["block"] == block) & (frame["model"] == "result") & frame["amplitude"].notna()]
        assert line(panel, "result") == pytest.approx(rows["amplitude"].tolist())


def test_nothing_is_measured_twice_and_other_pictures_change_no_spectrum(panel, measures):
    drag(panel, FALLING)
    panel.undo()
    panel.redo()
    panel.show(panel.state.with_wanted(seeds=[1]))
    assert panel.wait(60)
    assert len(measures) == 1


def test_the_spectrum_is_dimmed_until_the_new_one_is_there(panel, measures):
    seen = []
    panel._editor.observe(lambda change: seen.append(change["new"]), "stale")
    drag(panel, FALLING)
    assert seen == [True, False]


def test_a_move_meanwhile_is_the_one_that_counts(panel):
    for value in (0.2, 0.4, 0.6):
        panel._editor._handle_custom_msg({"points": [[0.0, value]], "at": time.time()}, [])
    assert panel.wait(60)
    assert panel.merge.options["coefficients"] == {"curve": [[0.0, 0.6]]}
    assert panel.spectrum is not None
    assert not panel._editor.stale


def test_options_beside_the_curve_have_controls_and_the_spectrum_follows_them(panel):
    assert "coefficients" not in panel._merging._form.controls
    before = line(panel, "as measured")
    panel._merging._form.controls["over"].value = "row"
    assert panel.wait(60)
    assert panel.merge.options["over"] == "row"
    assert line(panel, "as measured") != before


def test_without_prompts_the_spectrum_is_measured_all_the_same(renderer, models):
    panel = SpectrumPanel(models / "heart.safetensors", models / "moon.safetensors", renderer)
    assert panel.wait(60)
    assert panel.spectrum is not None
    assert "Write a prompt" in panel._pictures.status.value


def test_it_exports_what_it_shows(panel, tmp_path):
    drag(panel, FALLING)
    panel._outcome._name.value = str(tmp_path / "merged.safetensors")
    panel._outcome.export()
    written = wb.open(tmp_path / "merged.safetensors")
    assert all(torch.equal(written[key], panel.merge[key]) for key in panel.merge)
    assert "'curve': [[0.0, 1.0], [1.0, -1.0]]" in panel._outcome._python.value.replace("&#x27;", "'")


def test_the_same_model_twice_has_a_spectrum_and_nothing_to_take(renderer, models):
    panel = SpectrumPanel(models / "heart.safetensors", models / "heart.safetensors", renderer)
    assert panel.wait(60)
    assert line(panel, "as measured") == []


def test_models_that_do_not_fit_are_said_and_nothing_is_measured(renderer, models, tmp_path):
    save_file({"double_blocks.0.img_mod.lin.weight": torch.zeros(3, 2)}, tmp_path / "flux.safetensors")
    panel = SpectrumPanel(models / "heart.safetensors", tmp_path / "flux.safetensors", renderer)
    assert panel.wait(60)
    assert "only models of one architecture can be merged" in panel._merging._words.value
    assert panel.spectrum is None
    assert panel._outcome._button.disabled


def test_what_goes_wrong_in_measuring_is_said(panel, monkeypatch):
    def fails(*_: object, **__: object) -> None:
        raise CheckpointError("heart.safetensors: is damaged")

    monkeypatch.setattr(spectrum_panel, "spectrum", fails)
    drag(panel, FALLING)
    assert "heart.safetensors: is damaged" in panel._pictures.status.value
    assert panel._editor.stale


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.with_option("coefficients", {"seed": 3}),
        lambda state: state.with_option("coefficients", [0.1, 0.2]),
        lambda state: state.with_operator("weighted_average"),
    ],
)
def test_a_state_without_a_curve_is_refused(panel, change: Callable):
    before = panel.state
    with pytest.raises(OptionError, match=r"SpectrumPanel shows fft_blend with \{'curve': \[\[frequency, value\], ...\]\}, got"):
        panel.show(change(panel.state))
    assert panel.state is before


def test_files_that_are_not_there_are_refused(models):
    with pytest.raises(CheckpointError, match=r"gone\.safetensors"):
        SpectrumPanel(models / "heart.safetensors", models / "gone.safetensors")


def test_a_move_that_comes_after_a_later_one_is_not_gone_back_to(panel):
    late, early = [[0.0, 0.5]], [[0.0, -0.5]]
    panel._editor._handle_custom_msg({"points": late, "at": 2.0}, [])
    panel._editor._handle_custom_msg({"points": early, "at": 1.0}, [])
    assert panel.state.options["coefficients"]["curve"] == late
