"""LoRAs beside any method: the result plus a stack of them, each with its strength; no column of their own, no complaint."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import workbench as wb
from workbench.places import DATA


@pytest.fixture
def loras(tmp_path) -> list[Path]:
    """Two LoRAs."""
    source = DATA / "shapes-sd" / "lora" / "stripes.safetensors"
    return [Path(shutil.copy(source, tmp_path / f"{name}.safetensors")) for name in ("stripes", "lines")]


@pytest.fixture
def panel(make, loras):
    made = make()
    for path in loras:
        made.add(path)
    assert made.wait(60)
    return made


def test_an_added_lora_is_on_the_result_of_the_method(panel, models, loras):
    assert panel.state.loras == ("stripes", "lines")
    panel.show(panel.state.with_loras(panel.state.loras[:1]).with_strengths(0.5))
    alone = wb.operators.weighted_average([wb.open(models / f"{name}.safetensors") for name in ("base", "heart", "moon")])
    expected = wb.operators.add_delta(alone, [wb.open(loras[0])], strengths=0.5)
    for key in list(expected)[::40]:
        assert torch.equal(panel.merge[key], expected[key])
    panel.show(panel.state.with_operator("ties"))
    assert panel.wait(60)
    assert panel.merge.recipe.data.merge.operator == "add_delta"
    assert panel.images["result"]


def test_a_lora_has_no_column_and_no_complaint(panel):
    assert list(panel.images) == ["base", "heart", "moon", "result"]
    panel.show(panel.state.with_operator("add_delta").with_input("base", ["base"]).with_input("deltas", panel.state.loras).with_loras([]))
    assert panel.wait(60)
    assert list(panel.images) == ["base", "heart", "moon", "result"]
    assert "wb-error" not in panel._merging._words.value
    assert panel._pictures.status.value.startswith("Drawn in")


def test_a_lora_among_the_models_is_in_no_models_input(make, models, loras):
    panel = make([loras[0], models / "base.safetensors", models / "heart.safetensors", models / "moon.safetensors"])
    for operator in ("ties", "add_difference", "weighted_average"):
        panel.show(panel.state.with_operator(operator))
        assert "stripes" not in panel.state.used
        assert panel._judged.ok, operator
    assert panel.wait(60)
    assert "stripes" not in panel.images
    panel.show(panel.state.with_operator("add_delta").with_input("deltas", ["stripes"]))
    panel.show(panel.state.with_operator("task_arithmetic"))
    assert "stripes" not in panel.state.used
    panel.rename("stripes", "lines on it")
    assert panel.state.changes == ("lines on it",)
    panel.add(loras[1], merge=False)
    assert panel.state.loras == ()
    assert panel.state.changes == ("lines on it", "lines")
    panel.add(loras[1], merge=True)
    assert panel.state.loras == ("lines",)


def test_strengths_stay_with_their_loras_and_come_back(make, loras):
    panel = make(keep="panel.yaml")
    for path in loras:
        panel.add(path)
    first, second = panel.state.loras
    panel._loras._strengths.value = [0.25, 1.5]
    assert panel.state.strengths == [0.25, 1.5]
    again = make(keep="panel.yaml")
    assert again.state == panel.state
    panel.show(panel.state.with_loras([second]))
    assert panel.state.strengths == 1.5
    panel.rename(second, "pencil")
    assert panel.state.loras == ("pencil",)
    panel.show(panel.state.with_models([first, "base"]))
    assert panel.state.loras == ()


def test_where_there_are_no_loras_nothing_is_said_of_them(make):
    assert make()._loras.widget.layout.display == "none"


def test_each_lora_is_drawn_alone_on_the_first_model_if_asked(panel, models, loras):
    panel._loras._strengths.value = [0.5, 1.5]
    panel._loras._alone.value = True
    assert panel.wait(60)
    assert list(panel.images) == ["base", "heart", "moon", "stripes", "lines", "result"]
    assert all(panel.images.values())
    drawn = panel._model("lines")
    expected = wb.operators.add_delta(wb.open(models / "base.safetensors"), [wb.open(loras[1])], strengths=1.5)
    for key in list(expected)[::40]:
        assert torch.equal(drawn[key], expected[key])
    panel.show(panel.state.with_loras([]))
    assert list(panel.images) == ["base", "heart", "moon", "result"]
    panel.undo()
    assert panel._loras._alone.value
