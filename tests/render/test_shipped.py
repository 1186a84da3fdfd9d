"""The shipped configs are those of the published models: as many parameters, as many tensors, the same schedulers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from shipped_configs import FOLDERS, empty, read, tensors

from workbench.render.vocabulary import SHIPPED

# parameters and tensors of the published models; FLUX.1, SD 1.5, SD 2 and SDXL as many a report counts them
UNET_1, UNET_2, UNET_XL, UNET_REFINER = (859_520_964, 686), (865_910_724, 686), (2_567_463_684, 1680), (2_259_526_660, 1220)
VAE, VAE_FLUX = (83_653_863, 248), (83_819_683, 244)
CLIP_L, CLIP_H, CLIP_G, T5_XXL = (123_060_480, 196), (340_387_840, 372), (694_659_840, 517), (4_762_310_656, 219)
COUNTS = {
    "sd1": {"unet": UNET_1, "vae": VAE, "text_encoder": CLIP_L},
    "sd2": {"unet": UNET_2, "vae": VAE, "text_encoder": CLIP_H},
    "sd2-base": {"unet": UNET_2, "vae": VAE, "text_encoder": CLIP_H},
    "sdxl": {"unet": UNET_XL, "vae": VAE, "text_encoder": CLIP_L, "text_encoder_2": CLIP_G},
    "sdxl-refiner": {"unet": UNET_REFINER, "vae": VAE, "text_encoder_2": CLIP_G},
    "flux-dev": {"transformer": (11_901_408_320, 1160), "vae": VAE_FLUX, "text_encoder": CLIP_L, "text_encoder_2": T5_XXL},
    "flux-schnell": {"transformer": (11_891_178_560, 1156), "vae": VAE_FLUX, "text_encoder": CLIP_L, "text_encoder_2": T5_XXL},
}
EULER = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "leading", "steps_offset": 1}
PNDM = {"skip_prk_steps": True, "steps_offset": 1, "set_alpha_to_one": False, "beta_start": 0.00085, "beta_end": 0.012}
FLUX_DEV = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256}
SCHEDULERS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "sd1": ("PNDMScheduler", "epsilon", PNDM),
    "sd2": ("DDIMScheduler", "v_prediction", {"set_alpha_to_one": False, "steps_offset": 1}),
    "sd2-base": ("PNDMScheduler", "epsilon", PNDM),
    "sdxl": ("EulerDiscreteScheduler", "epsilon", EULER),
    "sdxl-refiner": ("EulerDiscreteScheduler", "epsilon", EULER),
    "flux-dev": ("FlowMatchEulerDiscreteScheduler", None, FLUX_DEV | {"max_image_seq_len": 4096}),
    "flux-schnell": ("FlowMatchEulerDiscreteScheduler", None, {"shift": 1.0, "use_dynamic_shifting": False}),
}


def test_there_is_a_folder_for_each_and_no_other():
    assert {path.name for path in SHIPPED.iterdir() if path.is_dir()} == set(FOLDERS)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_has_what_its_index_names(folder):
    index = read(folder, "model_index.json")
    parts = {name for name, value in index.items() if isinstance(value, list) and value != [None, None]}
    assert {path.name for path in (SHIPPED / folder).iterdir() if path.is_dir()} == parts
    names = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json", "tokenizer_2": "tokenizer_config.json"}
    for part in parts:
        assert [path.name for path in (SHIPPED / folder / part).iterdir()] == [names.get(part, "config.json")]
    assert read(folder, "scheduler", "scheduler_config.json")["_class_name"] == index["scheduler"][1]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_part_has_as_many_parameters_as_the_published_one(folder):
    index = read(folder, "model_index.json")
    found = {}
    for part in COUNTS[folder]:
        shapes = tensors(empty(index[part][1], read(folder, part, "config.json")))
        found[part] = (sum(_numel(shape) for shape in shapes.values()), len(shapes))
    assert found == COUNTS[folder]


def _numel(shape: tuple[int, ...]) -> int:
    return shape[0] * _numel(shape[1:]) if shape else 1


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_scheduler_is_the_published_one(folder):
    import diffusers

    name, prediction, values = SCHEDULERS[folder]
    scheduler = getattr(diffusers, name).from_pretrained(SHIPPED / folder / "scheduler")
    assert scheduler.config.get("prediction_type") == prediction
    assert {key: scheduler.config[key] for key in values} == values


@pytest.mark.parametrize(
    ("path", "digest"),
    [
        ("sdxl/unet/config.json", "30ebc70750223e59006f7f2b4e1e6c102570aa19a9c4ae3e1fbe7591332dbae6"),
        ("sdxl/model_index.json", "a40ca00944bb33ea9281580f50d009d1e23a434173c0e4e234bb90bd75178874"),
    ],
)
def test_what_has_a_published_checksum_is_byte_for_byte_the_same(path, digest):
    assert hashlib.sha256(Path(SHIPPED, path).read_bytes()).hexdigest() == digest


def test_what_a_pipeline_does_with_an_empty_prompt_is_kept():
    assert read("sdxl", "model_index.json")["force_zeros_for_empty_prompt"] is True
    refiner = read("sdxl-refiner", "model_index.json")
    assert (refiner["force_zeros_for_empty_prompt"], refiner["requires_aesthetics_score"]) == (False, True)
