"""Flux models are drawn as FluxPipeline draws them, with and without a guidance embedder, beside Stable Diffusion."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.errors import RenderError
from workbench.render import Renderer, ab_grid

HALF = {"shapes-sd/config": torch.float16, "shapes-flux/krea": torch.bfloat16}
PROMPTS = ["a red star on a black background", "a blue circle on a white background"]
GUIDANCE = "time_text_embed.guidance_embedder."


def pixels(pictures) -> list[bytes]:
    return [picture.tobytes() for picture in pictures]


@pytest.fixture(scope="module")
def pair(family):
    return family.parent / "shapes-flux"


@pytest.mark.parametrize(("folder", "half"), HALF.items())
def test_on_a_gpu_each_kind_is_drawn_in_the_half_precision_that_holds_its_range(family, folder, half):
    config = family.parent / folder
    assert Renderer(config, device="cuda").dtype is half
    assert Renderer(config, device="cuda", dtype="float32").dtype is Renderer(config).dtype is torch.float32


@pytest.fixture(scope="module")
def schnell(pair):
    return wb.open(pair / "schnell")


@pytest.fixture(scope="module")
def krea(pair):
    return wb.open(pair / "krea")


@pytest.fixture
def flux(pair):
    return Renderer(pair / "krea")


def from_diffusers(folder, prompts, seeds, **settings):
    """What FluxPipeline itself draws, from its own noise."""
    from diffusers import FluxPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = FluxPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(
            [prompt for prompt in prompts for _ in seeds],
            width=64,
            height=64,
            max_sequence_length=16,
            generator=[torch.Generator().manual_seed(seed) for _ in prompts for seed in seeds],
            **settings,
        ).images


@pytest.mark.parametrize("name", ["schnell", "krea"])
def test_pictures_equal_flux_pipelines_bit_for_bit(pair, name):
    renderer = Renderer(pair / name)
    renderer.load(wb.open(pair / name))
    mine = renderer.images(PROMPTS, [0, 1], steps=3, guidance=2.5)
    assert pixels(mine) == pixels(from_diffusers(pair / name, PROMPTS, [0, 1], num_inference_steps=3, guidance_scale=2.5))


def test_a_model_is_drawn_in_4_steps_without_a_guidance_embedder_and_in_20_with_one(flux, schnell, krea):
    for model, steps in ((schnell, 4), (krea, 20)):
        assert flux.defaults(model).steps == steps
        flux.load(model)
        assert pixels(flux.images(PROMPTS[:1])) == pixels(flux.images(PROMPTS[:1], steps=steps, guidance=3.5, sampler="Euler"))


def test_guidance_is_told_to_the_embedder_and_nothing_without_one(flux, schnell, krea):
    flux.load(krea)
    low, high = (pixels(flux.images(PROMPTS[:1], steps=2, guidance=scale)) for scale in (1.0, 5.0))
    assert low != high
    flux.load(schnell)
    low, high = (pixels(flux.images(PROMPTS[:1], steps=2, guidance=scale)) for scale in (1.0, 5.0))
    assert low == high


def test_models_with_and_without_guidance_take_turns_in_one_renderer_and_leave_no_trace(flux, pair, schnell, krea):
    expected = {}
    for model in (schnell, krea):
        fresh = Renderer(pair / "krea")
        fresh.load(model)
        expected[model.name] = pixels(fresh.images(PROMPTS, [3], steps=2))
    for model in (krea, schnell, krea, schnell):
        flux.load(model)
        assert pixels(flux.images(PROMPTS, [3], steps=2)) == expected[model.name]


def test_their_merge_draws_with_or_without_the_embedder(flux, schnell, krea):
    kept = wb.operators.weighted_average([schnell, krea], rules=[{"match": "*guidance*", "take": "models[1]"}])
    dropped = wb.operators.weighted_average([schnell, krea], rules=[{"match": "*guidance*", "skip": True}])
    assert (flux.defaults(kept).steps, flux.defaults(dropped).steps) == (20, 4)
    drawn = []
    for merge in (kept, dropped):
        flux.load(merge)
        drawn.append(pixels(flux.images(PROMPTS[:1], steps=2)))
    assert drawn[0] != drawn[1]


def test_a_transformer_alone_borrows_the_rest_from_the_config_folder(pair):
    loaded = Renderer(pair / "krea").load(wb.open(pair / "schnell" / "transformer"))
    assert loaded.components == {"transformer": "transformer", "vae": "krea", "text_encoder": "krea", "text_encoder_2": "krea"}


def test_a_part_of_a_guidance_embedder_is_refused_by_name(flux, krea, held):
    tensors = {key: krea.read(key) for key in krea if GUIDANCE not in key or key.endswith("linear_1.weight")}
    with pytest.raises(RenderError, match=rf"'half' lacks 3 of .* transformer needs, first {re.escape(GUIDANCE)}linear_1.bias \[80\]"):
        flux.load(held(tensors, "half"))


def test_a_second_name_of_t5s_embedding_is_not_asked_for_and_is_filled(flux, krea):
    flux.load(krea)
    t5 = flux._pipeline.text_encoder_2
    assert not [name for name in krea if name.endswith("encoder.embed_tokens.weight")]
    assert t5.encoder.embed_tokens.weight is t5.shared.weight
    assert torch.equal(t5.shared.weight, krea.read("text_encoder_2.shared.weight").float())


def test_same_seed_same_noise_whatever_the_batch(flux, krea):
    flux.load(krea)
    many = flux.images(PROMPTS, [6, 7], steps=2, batch_size=4)
    one = flux.images(PROMPTS[1:], [7], steps=2)
    difference = np.abs(np.asarray(many[3], int) - np.asarray(one[0], int))
    assert difference.max() <= 2  # a matrix product may round by its batch; the noise is the same


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"negative": "blurry"}, r"negative: FluxPipeline is guided without a negative prompt; leave 'blurry' out"),
        ({"sampler": "DDIM"}, r"sampler must be one of 'Euler', or None for the model's own; got 'DDIM'"),
    ],
)
def test_what_flux_does_not_have_is_refused_before_anything_is_drawn(flux, schnell, change, message):
    flux.load(schnell)
    with pytest.raises(RenderError, match=message):
        flux.images(PROMPTS, **change)
    with pytest.raises(RenderError, match=message):
        ab_grid({"schnell": schnell}, PROMPTS, renderer=flux, **change)


def test_stable_diffusion_and_flux_refuse_each_others_models(flux, renderer, schnell, base):
    with pytest.raises(RenderError, match=r"'base' is SD 1.x; this renderer's pipeline, FluxPipeline, draws Flux"):
        flux.load(base)
    with pytest.raises(RenderError, match=r"'schnell' is Flux; this renderer's pipeline, StableDiffusionPipeline, draws SD 1.x or SD 2.x"):
        renderer.load(schnell)


def test_a_grid_has_rows_of_both_each_with_settings_of_its_own(base, schnell, krea, pair, renderer):
    grid = ab_grid({"base": base, "schnell": schnell, "krea": krea}, PROMPTS, progress=False)
    assert "clip" in grid.frame()
    assert "each model's own steps and guidance" in grid.caption(grid.axes)
    renderer.load(base)
    assert pixels(grid.images[:2]) == pixels(renderer.images(PROMPTS, steps=20, guidance=5.0))
    flux = Renderer(pair / "schnell")
    flux.load(schnell)
    assert pixels(grid.images[2:4]) == pixels(flux.images(PROMPTS, steps=4))
    flux = Renderer(pair / "krea")  # which has another schedule
    assert pixels(grid.images[4:]) == pixels(flux.images(PROMPTS, steps=20))
    assert grid.plot().width > 0


def test_a_mapping_gives_each_row_its_renderer_and_must_have_one_for_all(base, schnell, flux, renderer):
    grid = ab_grid({"base": base, "schnell": schnell}, PROMPTS[:1], renderer={"base": renderer, "schnell": flux}, steps=2, scorers=())
    assert grid.request.steps == 2
    assert (renderer.loaded.name, flux.loaded.name) == ("base", "schnell")
    with pytest.raises(RenderError, match=r"no renderer for 'schnell'"):
        ab_grid({"base": base, "schnell": schnell}, PROMPTS[:1], renderer={"base": renderer})


def test_settings_that_all_models_share_are_told_in_the_grid(krea, flux):
    grid = ab_grid({"krea": krea}, PROMPTS[:1], renderer=flux, scorers=())
    assert (grid.request.steps, grid.request.guidance, grid.request.sampler) == (20, 3.5, None)


def test_a_sweep_draws_flux_merges_and_settles_on_the_pipelines_own_settings(schnell, krea, pair, tmp_path):
    sweep = wb.sweep(
        wb.operators.weighted_average,
        {"weights": [[1, 0], [0, 1]]},
        inputs={"models": [schnell, krea], "rules": [{"match": "*guidance*", "skip": True}]},
        prompts=PROMPTS[:1],
        renderer=Renderer(pair / "schnell"),
        folder=tmp_path,
        score=(),
        progress=False,
    )
    assert not [cell.problem for cell in sweep.cells if cell.problem]
    assert sweep.requests[0].steps == 4
    first, second = sweep.grid().images
    flux = Renderer(pair / "schnell")
    flux.load(schnell)
    assert pixels([first.convert("RGB")]) == pixels(flux.images(PROMPTS[:1], steps=4))
    assert first.tobytes() != second.tobytes()
