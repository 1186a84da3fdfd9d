"""Where a model's configs come from: what is given, what lies beside it, what ships, and then the hub, in this order."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from thin_models import write_thin

import workbench as wb
from workbench.errors import RenderError
from workbench.places import DATA
from workbench.render.configs import Configs, find_configs
from workbench.render.shared import renderer_for
from workbench.render.vocabulary import SHIPPED


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """An SD 1.5 file in a folder of its own."""
    return write_thin("sd1", tmp_path_factory.mktemp("alone") / "dream.safetensors")


@pytest.fixture
def config(tmp_path) -> Path:
    return Path(shutil.copytree(DATA / "shapes-sd" / "config", tmp_path / "given"))


def test_a_file_that_lies_alone_has_the_shipped_configs_made_to_fit(alone):
    found = find_configs(wb.open(alone))
    assert found.folder == SHIPPED / "sd1"
    assert found.blueprint.configs["unet"]["block_out_channels"] == [32, 64, 64, 64]
    assert "scheduler" not in found.blueprint.configs


def test_what_is_given_goes_before_everything(alone, config):
    assert find_configs(wb.open(alone), config) == Configs(config)


@pytest.mark.parametrize("place", [".", "config", "..", "../config"])
def test_a_folder_beside_goes_before_what_ships(alone, config, tmp_path, place):
    models = tmp_path / "models"
    models.mkdir()
    file = shutil.copy(alone, models)
    shutil.copytree(config, models / place, dirs_exist_ok=True)
    assert find_configs(wb.open(file)).folder.resolve() == (models / place).resolve()


def test_a_folder_beside_of_another_pipeline_does_not_count(alone, tmp_path):
    file = shutil.copy(alone, tmp_path)
    shutil.copytree(DATA / "shapes-sdxl" / "config", tmp_path, dirs_exist_ok=True)
    assert find_configs(wb.open(file)).folder == SHIPPED / "sd1"


def test_a_family_that_ships_nothing_is_looked_for_on_the_hub_and_offline_says_what_to_fetch(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    save_file({"cap_pad_token": torch.zeros(1, 4), "x_pad_token": torch.zeros(1, 4)}, tmp_path / "turbo.safetensors")
    with pytest.raises(RenderError, match=r"Tongyi-MAI/Z-Image-Turbo.*config=folder.*hf download Tongyi-MAI/Z-Image-Turbo"):
        find_configs(wb.open(tmp_path / "turbo.safetensors"))


def test_what_no_pipeline_draws_says_so(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "notes.safetensors")
    with pytest.raises(RenderError, match=r"'notes' is of no family that is known: give the folder of its diffusers pipeline"):
        find_configs(wb.open(tmp_path / "notes.safetensors"))


def test_configs_that_say_the_same_make_one_renderer_wherever_they_lie(config, tmp_path):
    text = (config / "unet" / "config.json").read_text()
    (config / "unet" / "config.json").write_text(text.replace("{", '{"_name_or_path": "elsewhere",', 1))
    shutil.copytree(config, tmp_path / "models" / "config")
    other = shutil.copy(DATA / "shapes-sd" / "moon.safetensors", tmp_path / "models")
    first = renderer_for(wb.open(DATA / "shapes-sd" / "heart.safetensors"))
    assert renderer_for(wb.open(other)) is first
    assert renderer_for(wb.open(DATA / "shapes-sdxl" / "base.safetensors")) is not first
