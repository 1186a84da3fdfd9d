"""What is in a file and is no live weight: EMA copies, losses, buffers, second names, positions. Averages do not touch them."""

from __future__ import annotations

import pytest
import torch
from held import Held

import workbench as wb
from workbench.errors import CheckpointError, MergeError

average, task_arithmetic, dare = wb.operators.weighted_average, wb.operators.task_arithmetic, wb.operators.dare_linear
UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
TEXT = f"{CLIP}text_model."
OUT, NORM, IDS = f"{UNET}out.2.weight", f"{TEXT}final_layer_norm.bias", f"{TEXT}embeddings.position_ids"
EMA = ("model_ema.diffusion_modelout2weight", "model_ema.decay", "model_ema.num_updates")
LOSS = ("loss.logvar", "first_stage_model.loss.perceptual_loss.lin0.model.1.weight")
BUFFERS = (
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "log_one_minus_alphas_cumprod",
    "posterior_variance", "posterior_mean_coef1", "ddim_sigmas", "denoiser.sigmas", "model.log_sigmas", "edm_mean", "edm_std",
    "noise_augmentor.sqrt_alphas_cumprod", "scale_factor",
)  # fmt: skip


def model(name: str, value: float, *more: str, **tensors: torch.Tensor) -> Held:
    keys = (OUT, f"{UNET}middle_block.1.norm.weight", f"{UNET}input_blocks.1.1.proj_in.weight", NORM, f"{VAE}decoder.conv_in.weight")
    shapes = {f"{UNET}input_blocks.1.1.proj_in.weight": (2, 2, 1, 1)}
    return Held({key: torch.full(shapes.get(key, (2,)), float(value)) for key in (*keys, *more)} | tensors, name)


def test_ema_copies_and_losses_are_not_in_a_merge():
    a, b = model("a", 1, *EMA, *LOSS), model("b", 3, *EMA)
    assert set(average([a, b])) == set(task_arithmetic(a, [b])) == set(model("x", 0))
    with pytest.raises(KeyError, match=r"'model_ema.decay' is not in the merge: it is one of the EMA copies of weights"):
        average([a, b])["model_ema.decay"]


def test_they_are_said_once_with_count_and_bytes():
    a, b, c = model("a", 1, *EMA, *LOSS), model("b", 3, *EMA), model("c", 1, *EMA)
    found = wb.preflight(average([average([a, b]), c]))
    (told,) = [text for text in found.notes if "EMA" in text]
    assert told.startswith(
        "3 tensors (24 bytes) are EMA copies of weights, and not in the result: 'model_ema.diffusion_modelout2weight' and 2 more"
    )
    assert told.endswith("add the rule {match: 'model_ema.*', merge: true}")
    assert len([text for text in found.notes if "training loss" in text]) == 1
    assert not [text for text in (*found.warnings, *found.errors) if "ema" in text]


def test_a_rule_of_their_own_keeps_them_and_one_for_all_does_not():
    a, b = model("a", 1, *EMA), model("b", 3, *EMA)
    kept = average([a, b], rules=[{"match": "model_ema.*", "merge": True}])
    assert kept[EMA[0]].tolist() == [2, 2]
    taken = average([a, b], rules=[{"match": "model_ema.*", "take": "models[1]"}])
    assert taken[EMA[0]].tolist() == [3, 3]
    for rule in ({"match": "*", "take": "models[1]"}, {"component": "vae", "take": "models[1]"}):
        assert not [key for key in average([a, b], rules=[rule]) if "ema" in key]


def test_what_trained_a_vae_does_not_come_with_it():
    a, b = model("a", 1), model("b", 3, *LOSS)
    for rule in ({"component": "vae", "take": "models[1]"}, {"match": "first_stage_model.*", "take": "models[1]"}):
        assert set(average([a, b], rules=[rule])) == set(a)


@pytest.mark.parametrize("key", BUFFERS)
def test_buffers_come_whole_from_the_first_that_has_them_in_their_own_dtype(key):
    first, second = torch.tensor([0.001, 0.002], dtype=torch.float64), torch.tensor([7.0, 8.0])
    a, b, c = model("a", 1), model("b", 3, **{key: first}), model("c", 2, **{key: second})
    merges = [
        average([a, b, c], dtype="float8_e4m3fn"),
        dare(b, [c, a], density=0.5, dtype="float8_e5m2"),
        wb.operators.add_difference(b, c, c, strength=1.7, dtype="bfloat16"),
        wb.operators.nearest(b, c, c),
        wb.operators.fft_blend(b, c, coefficients=[0.5]),
    ]
    for merge in merges:
        assert merge.info(key).code == "F64"
        assert torch.equal(merge[key], first)


def doubled(name: str, value: float, other: float | None = None) -> Held:
    """A model whose text encoder is there with and without `text_model.`"""
    return model(name, value, **{NORM.replace("text_model.", ""): torch.full((2,), float(value if other is None else other))})


def test_a_text_encoder_under_two_names_is_merged_once_and_written_under_both():
    a, b = doubled("a", 1), model("b", 3)
    for merge in (average([a, b]), task_arithmetic(a, [b]), dare(a, [b], density=0.5, seed=3)):
        twin = NORM.replace("text_model.", "")
        assert {NORM, twin} <= set(merge)
        assert torch.equal(merge[NORM], merge[twin])
    assert average([a, b])[NORM].tolist() == [2, 2]
    assert average([b, a])[NORM].tolist() == [2, 2]
    assert "is there under two names, and merged once" in str(wb.preflight(average([a, b])))


def test_a_rule_may_mean_it_by_either_name():
    a, b = doubled("a", 1), model("b", 3)
    for pattern in (NORM, NORM.replace("text_model.", ""), "cond_stage_model.transformer.final*"):
        merge = average([a, b], rules=[{"match": pattern, "take": "models[1]"}])
        assert wb.preflight(merge).ok
        assert merge[NORM].tolist() == merge[NORM.replace("text_model.", "")].tolist() == [3, 3]


def test_in_another_layout_it_has_one_name_and_a_recipe():
    merge = wb.in_layout(average([doubled("a", 1), model("b", 3)]), "diffusers")
    assert [key for key in merge if "final_layer_norm" in key] == ["text_encoder.text_model.final_layer_norm.bias"]
    assert merge.merge is not None
    with pytest.raises(CheckpointError, match="hold other numbers"):
        wb.in_layout(doubled("a", 1, other=5), "diffusers")


def test_two_names_with_other_numbers_are_refused_unless_a_rule_takes_the_component_elsewhere():
    a, b = doubled("a", 1, other=5), model("b", 3)
    (error,) = wb.preflight(average([a, b])).errors
    assert "are two names of one tensor, and hold other numbers" in error
    with pytest.raises(MergeError, match="hold other numbers"):
        wb.preflight(average([a, b])).raise_errors()
    assert wb.preflight(average([a, b], rules=[{"component": "text_encoder", "take": "models[1]"}])).ok


@pytest.mark.parametrize(
    "broken", [torch.arange(77)[None].half() * 0.98, torch.arange(77).float()[None], (torch.arange(77)[None] - 1).clamp(min=0)]
)
def test_broken_positions_are_written_as_whole_numbers_and_said(broken):
    a, b = model("a", 1, **{IDS: broken}), model("b", 3, **{IDS: torch.arange(77)[None]})
    merge = average([a, b])
    assert merge.info(IDS) == b.info(IDS)
    assert torch.equal(merge[IDS], b[IDS])
    (told,) = [text for text in wb.preflight(merge).notes if "is broken" in text]
    assert told.startswith(f"a: '{IDS}' is broken (")
    assert told.endswith("the result has the whole numbers 0 to 76 (int64)")


def test_positions_have_their_own_length_and_right_ones_are_not_spoken_of():
    good = torch.arange(248)[None]
    long, right = model("long", 1, **{IDS: good.half()}), model("right", 1, **{IDS: good.to(torch.int32)})
    assert torch.equal(average([long, model("b", 2)])[IDS], good)
    assert average([right, long])[IDS].dtype == torch.int32
    assert "is broken" not in str(wb.preflight(average([right, long])))


@pytest.mark.parametrize(
    "place", ["text_encoders.clip_l.", "text_encoders.clip_l.transformer.", "text_encoders.clip_l.transformer.text_model."]
)
@pytest.mark.parametrize("name", ["logit_scale", "text_projection.weight"])
def test_what_lies_beside_clips_tensors_keeps_its_name(place, name):
    inside = "text_encoders.clip_l.transformer.text_model.final_layer_norm.bias"
    a, b = (Held({inside: torch.ones(2), "double_blocks.0.img_mod.lin.weight": torch.ones(2)}, one) for one in "ab")
    b.tensors[place + name] = torch.ones(2, 2)
    for merge in (average([a, b]), average([b, a]), average([b, b])):
        assert place + name in merge
