from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import workbench as wb
from workbench.errors import NonFiniteWarning, RenderError
from workbench.render import Renderer
from workbench.render.samplers import SAMPLERS

PROMPTS = ["a red star on a black background", "a blue circle on a white background"]
QUICK = {"steps": 4}


def pixels(pictures) -> list[bytes]:
    return [picture.tobytes() for picture in pictures]


def part_of(checkpoint, *components):
    structure = checkpoint.structure
    return {key: checkpoint.read(key) for key in checkpoint if structure.component(key) in components}


def from_single_file(path, config):
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import logging

    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers' own deprecations
        pipeline = StableDiffusionPipeline.from_single_file(str(path), config=str(config), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_pictures_equal_those_of_from_single_file_bit_for_bit(renderer, base, family):
    renderer.load(base)
    mine = renderer.images(PROMPTS, [0, 1], guidance=4.0, **QUICK)
    pipeline = from_single_file(family / "base.safetensors", family / "config")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pipeline(
            [prompt for prompt in PROMPTS for _ in (0, 1)],
            generator=[torch.Generator().manual_seed(seed) for _ in PROMPTS for seed in (0, 1)],
            num_inference_steps=4,
            guidance_scale=4.0,
        ).images
    assert pixels(mine) == pixels(theirs)


def test_another_checkpoint_in_between_leaves_no_trace(renderer, base, heart):
    renderer.load(base)
    first = pixels(renderer.images(PROMPTS, [3], **QUICK))
    renderer.load(heart)
    assert pixels(renderer.images(PROMPTS, [3], **QUICK)) != first
    renderer.load(base)
    assert pixels(renderer.images(PROMPTS, [3], **QUICK)) == first


def test_diffusers_layout_draws_what_ldm_layout_draws(renderer, base, family, tmp_path):
    renderer.load(base)
    expected = pixels(renderer.images(PROMPTS, [0], **QUICK))
    from_single_file(family / "base.safetensors", family / "config").save_pretrained(tmp_path, safe_serialization=True)
    loaded = renderer.load(wb.open(tmp_path))
    assert set(loaded.components.values()) == {tmp_path.name}
    assert pixels(renderer.images(PROMPTS, [0], **QUICK)) == expected


def test_a_merge_draws_what_its_written_file_draws(renderer, base, heart, tmp_path):
    merge = wb.operators.weighted_average([base, heart], weights=[0.3, 0.7])
    renderer.load(merge)
    preview = pixels(renderer.images(PROMPTS, [0], **QUICK))
    save_file({key: merge.read(key) for key in merge}, tmp_path / "merged.safetensors")
    renderer.load(wb.open(tmp_path / "merged.safetensors"))
    assert pixels(renderer.images(PROMPTS, [0], **QUICK)) == preview


def test_what_is_loaded_is_a_copy_without_gradient(renderer, base, held):
    checkpoint = held({key: base.read(key).float() for key in base})
    renderer.load(checkpoint)
    before = pixels(renderer.images(PROMPTS[:1], [0], **QUICK))
    for tensor in checkpoint.tensors.values():
        tensor.zero_()
    assert pixels(renderer.images(PROMPTS[:1], [0], **QUICK)) == before
    assert not any(parameter.requires_grad for parameter in renderer._pipeline.unet.parameters())


def test_a_folder_with_weights_lends_what_a_checkpoint_lacks(base, family, held, tmp_path):
    from_single_file(family / "base.safetensors", family / "config").save_pretrained(tmp_path, safe_serialization=True)
    loaded = Renderer(tmp_path).load(held(part_of(base, "unet"), "only-unet"))
    assert loaded.components == {"unet": "only-unet", "vae": tmp_path.name, "text_encoder": tmp_path.name}


def test_a_unet_alone_is_refused_until_something_supplies_the_rest(renderer, base, heart, held):
    alone = held(part_of(heart, "unet"), "alone")
    with pytest.raises(RenderError, match=r"'alone' has no vae and no text_encoder.*fallback"):
        renderer.load(alone)
    assert not alone.reads
    renderer.load(base)
    loaded = renderer.load(alone)
    assert loaded.note == "'alone' with vae of 'base' and text_encoder of 'base'"
    mixed = pixels(renderer.images(PROMPTS[:1], [0], **QUICK))
    renderer.load(heart)  # whose VAE and text encoder are base's
    assert pixels(renderer.images(PROMPTS[:1], [0], **QUICK)) == mixed


def test_a_given_fallback_goes_before_what_was_loaded_earlier(base, heart, family, held):
    renderer = Renderer(family / "config", fallback=base)
    renderer.load(heart)
    assert renderer.load(held(part_of(heart, "unet"), "alone")).components["vae"] == "base"


def test_same_seed_same_noise_whatever_the_prompts_and_batches(renderer, heart):
    renderer.load(heart)
    many = renderer.images(PROMPTS, [6, 7], batch_size=4, **QUICK)
    one = renderer.images(PROMPTS[1:], [7], **QUICK)
    difference = np.abs(np.asarray(many[3], int) - np.asarray(one[0], int))
    assert difference.max() <= 2  # a matrix product may round by its batch; the noise is the same


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_and_repeats_itself(renderer, base, sampler):
    renderer.load(base)
    first, second = (pixels(renderer.images(PROMPTS[:1], [0, 1], sampler=sampler, **QUICK)) for _ in range(2))
    assert first == second
    assert first[0] != first[1]


def test_quick_work_prints_nothing(base, family, capfd):
    renderer = Renderer(family / "config")
    renderer.load(base)
    renderer.images(PROMPTS, [0], **QUICK)
    assert capfd.readouterr() == ("", "")


def test_pictures_come_in_prompt_major_order_and_the_pipelines_size(renderer, base):
    renderer.load(base)
    pictures = renderer.images(PROMPTS, [0, 1], batch_size=3, **QUICK)
    assert [picture.size for picture in pictures] == [renderer.size] * 4
    assert renderer.size == (64, 64)
    assert pixels(pictures[2:3])[0] == pixels(renderer.images(PROMPTS, [0, 1], batch_size=3, **QUICK))[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": "Eular"}, r"sampler must be one of 'DPM\+\+ 2M Karras'.*got 'Eular'"),
        ({"steps": 0}, r"steps must be a whole number in \[1, 1000\], got 0"),
        ({"guidance": float("nan")}, "guidance must be a finite number"),
        ({"seeds": [-1]}, r"seeds must be .* got \(-1,\)"),
        ({"prompts": []}, r"prompts must be one or more strings, got \(\)"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(renderer, base, change, message):
    renderer.load(base)
    with pytest.raises(RenderError, match=message):
        renderer.images(**{"prompts": PROMPTS, "seeds": [0], **change})


def test_nothing_loaded_says_so(renderer):
    with pytest.raises(RenderError, match="no checkpoint yet"):
        renderer.images(PROMPTS, [0])


def test_a_misshapen_tensor_is_named_with_both_shapes_before_anything_is_read(renderer, base, held):
    key = "model.diffusion_model.input_blocks.0.0.weight"
    wrong = held({key: base.read(key) for key in base} | {key: torch.zeros(8, 4, 3, 3)}, "wrong")
    right = re.escape(str(list(base.info(key).shape)))
    with pytest.raises(RenderError, match=rf"'wrong': .*input_blocks.0.0.weight is \[8, 4, 3, 3\].*{right}"):
        renderer.load(wrong)
    assert not wrong.reads


def test_a_missing_tensor_is_named_with_its_shape(renderer, base, held):
    tensors = part_of(base, "unet")
    del tensors["model.diffusion_model.time_embed.0.bias"]
    with pytest.raises(RenderError, match=r"'partial' lacks 1 of .* unet needs, first time_embedding.linear_1.bias \[\d+\]"):
        renderer.load(held(tensors, "partial"))


def test_a_tensor_too_many_in_the_unet_is_named(renderer, base, held):
    extra = {"model.diffusion_model.input_blocks.1.0.extra.weight": torch.zeros(2)}
    with pytest.raises(RenderError, match=r"no place for 1 of its tensors, first .*extra.weight"):
        renderer.load(held(part_of(base, "unet") | extra, "larger"))


def test_unused_tensors_elsewhere_are_told(renderer, base, held):
    tensors = {key: base.read(key) for key in base} | {"model_ema.decay": torch.zeros(1)}
    assert "model_ema.decay" in renderer.load(held(tensors)).unused


@pytest.mark.parametrize(("key", "kind"), [("double_blocks.0.img_mod.lin.weight", "Flux"), ("label_emb.0.0.weight", "SDXL")])
def test_another_architecture_is_refused_by_name(renderer, held, key, kind):
    with pytest.raises(RenderError, match=rf"'other' is {kind}; .* draws SD 1.x or SD 2.x"):
        renderer.load(held({f"model.diffusion_model.{key}": torch.zeros(2, 2)}, "other"))


def test_a_checkpoint_of_something_else_is_refused(renderer, held):
    with pytest.raises(RenderError, match=r"'notes' holds none of unet, vae, text_encoder"):
        renderer.load(held({"weight": torch.zeros(2)}, "notes"))


def test_a_path_is_not_a_checkpoint(renderer):
    with pytest.raises(RenderError, match=r"got str: open a file with workbench.open"):
        renderer.load("base.safetensors")


def test_a_read_that_fails_leaves_no_mixture_to_draw_with(renderer, base, heart, held):
    broken = held({key: heart.read(key) for key in heart}, "broken")
    broken.read = lambda key, part=None: (_ for _ in ()).throw(OSError("disk gone"))
    renderer.load(base)
    with pytest.raises(OSError, match="disk gone"):
        renderer.load(broken)
    with pytest.raises(RenderError, match="no checkpoint yet"):
        renderer.images(PROMPTS, [0])


def test_v_prediction_markers_change_the_schedule_and_are_forgotten_again(renderer, base, held):
    renderer.load(base)
    plain = pixels(renderer.images(PROMPTS[:1], [0], **QUICK))
    renderer.load(held({key: base.read(key) for key in base} | {"v_pred": torch.zeros(0)}))
    assert pixels(renderer.images(PROMPTS[:1], [0], **QUICK)) != plain
    renderer.load(base)
    assert pixels(renderer.images(PROMPTS[:1], [0], **QUICK)) == plain


def test_nan_weights_warn_and_draw_black(renderer, base, held):
    tensors = {key: base.read(key) for key in base}
    tensors["model.diffusion_model.out.2.bias"] = torch.full_like(tensors["model.diffusion_model.out.2.bias"], torch.nan)
    renderer.load(held(tensors, "sick"))
    with pytest.warns(NonFiniteWarning, match="'sick' draws pictures that are no numbers"):
        picture = renderer.images(PROMPTS[:1], [0], **QUICK)[0]
    assert not np.asarray(picture).any()


def test_a_prompt_too_long_for_the_model_warns(renderer, base):
    renderer.load(base)
    with pytest.warns(UserWarning, match=r"more than the \d+ tokens"):
        renderer.images("a red star " * 10, [0], **QUICK)


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path, family):
    with pytest.raises(RenderError, match=r"model_index.json cannot be read"):
        Renderer(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "NewestPipeline"}))
    with pytest.raises(RenderError, match=r"the pipeline is of a class diffusers.NewestPipeline, which is not in the installed libraries"):
        Renderer(tmp_path)
    (tmp_path / "model_index.json").write_text((family / "config" / "model_index.json").read_text())
    with pytest.raises(RenderError, match=r"the scheduler of the pipeline cannot be built from this folder .*no folder scheduler"):
        Renderer(tmp_path)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_what_is_asked_for_on_a_config_that_says_little(sampler):
    """SDXL's own config does not say that latents are not to be clipped, which DDIM does unless it is told."""
    from workbench.demo.judge import Judge
    from workbench.places import DATA

    pictures = Renderer(DATA / "shapes-sdxl" / "base.safetensors").images(PROMPTS, [1], steps=16, guidance=3.0, sampler=sampler)
    seen = [(one.colour, one.shape, one.background) for one in Judge(DATA / "shapes-clip").name(pictures)]
    assert seen == [("red", "star", "black"), ("blue", "circle", "white")]
