"""What a model's markers say of its noise schedule is drawn as diffusers draws with a scheduler of these settings."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from held import Held
from tiny_pipelines import save

import workbench as wb
from workbench.errors import RenderError
from workbench.render import Renderer
from workbench.render.silence import quiet

ASKED = {"width": 64, "height": 32}
V = {"prediction_type": "v_prediction"}
ZERO = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save("SD 1", tmp_path_factory.mktemp("folder") / "a")


@pytest.fixture(scope="module")
def pipeline(folder) -> Any:
    with quiet():
        made = diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    made.set_progress_bar_config(disable=True)
    return made


def marked(folder: Path, **markers: float | None) -> Held:
    model = wb.open(folder)
    tensors = {key: model.read(key) for key in model}
    return Held(tensors | {name: torch.zeros(0) if value is None else torch.tensor(value) for name, value in markers.items()}, "marked")


def drawn(folder: Path, model: Held, **asked: Any) -> np.ndarray:
    renderer = Renderer(folder, device="cpu")
    renderer.load(model)
    return np.asarray(renderer.images(["a heart"], [2], steps=3, guidance=3.0, **ASKED, **asked)[0], int)


def by_diffusers(pipeline: Any, scheduler: Any) -> np.ndarray:
    pipeline.scheduler = scheduler
    told = {"num_inference_steps": 3, "guidance_scale": 3.0, "generator": [torch.Generator().manual_seed(2)]}
    with quiet(), warnings.catch_warnings(action="ignore"), torch.inference_mode():
        return np.asarray(pipeline("a heart", **told, **ASKED).images[0], int)


CASES = {
    "v": ({"v_pred": None}, "PNDMScheduler", V, None),
    "v by Euler": ({"v_pred": None}, "EulerDiscreteScheduler", V, "Euler"),
    "zero terminal SNR, without PNDM": ({"v_pred": None, "ztsnr": None}, "EulerDiscreteScheduler", V | ZERO, None),
    "zero terminal SNR by DDIM": ({"v_pred": None, "ztsnr": None}, "DDIMScheduler", V | ZERO | {"clip_sample": False}, "DDIM"),
}


@pytest.mark.parametrize("case", CASES)
def test_markers_draw_as_a_scheduler_of_their_settings(folder, pipeline, case):
    markers, kind, settings, sampler = CASES[case]
    own = diffusers.PNDMScheduler.from_pretrained(folder / "scheduler")
    found = drawn(folder, marked(folder, **markers), sampler=sampler)
    scheduler = getattr(diffusers, kind)
    assert np.abs(found - by_diffusers(pipeline, scheduler.from_config(own.config, **settings))).max() <= 1
    assert np.abs(found - by_diffusers(pipeline, scheduler.from_config(own.config))).max() > 8


def test_a_model_of_edms_noise_levels_is_drawn_by_edms_euler_alone(folder, pipeline):
    model = marked(folder, **{"edm_vpred.sigma_max": 120.0, "edm_vpred.sigma_min": 0.002})
    own = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=120.0, sigma_data=1.0, prediction_type="v_prediction")
    assert np.abs(drawn(folder, model) - by_diffusers(pipeline, own)).max() <= 1
    assert np.abs(drawn(folder, model) - drawn(folder, marked(folder, v_pred=None))).max() > 8
    with pytest.raises(RenderError, match="sampler must be one of 'Euler', or None"):
        drawn(folder, model, sampler="DDIM")
