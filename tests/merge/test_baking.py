"""Baking a VAE, or a text encoder: a rule takes a component from a file that shares nothing else, into models that have none."""

from __future__ import annotations

import pytest
import torch
from held import Held

import workbench as wb

average, task_arithmetic = wb.operators.weighted_average, wb.operators.task_arithmetic
UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."
BAKE = [{"component": "vae", "take": "vae"}]


def model(name: str, value: float, *more: str) -> Held:
    keys = {f"{UNET}input_blocks.1.1.proj_in.weight": (2, 2, 1, 1), f"{UNET}out.2.weight": (2,), f"{UNET}time_embed.0.weight": (2,)}
    return Held({key: torch.full(shape, float(value)) for key, shape in {**keys, **dict.fromkeys(more, (2,))}.items()}, name)


def vae() -> Held:
    """A file of its own, with bare names."""
    return Held({"encoder.conv_in.weight": torch.full((2,), 7.0), "decoder.conv_in.weight": torch.full((2,), 9.0)}, "vae")


@pytest.mark.parametrize("there", [(), (f"{VAE}decoder.conv_in.weight", f"{VAE}encoder.conv_in.weight")])
def test_a_vae_of_its_own_comes_into_models_with_and_without_one(there):
    a, b, x = model("a", 1, *there), model("b", 3, *there), vae()
    for taken in ("vae", x, "models[2]"):
        merge = average([a, b, x], weights=[1, 1, 0], rules=[{"component": "vae", "take": taken}])
        found = wb.preflight(merge)
        assert found.ok
        assert not found.warnings
        assert merge[f"{VAE}decoder.conv_in.weight"].tolist() == [9, 9]
        assert merge[f"{VAE}encoder.conv_in.weight"].tolist() == [7, 7]
        assert {key: merge[key].tolist() for key in merge if key.startswith(UNET)} == {
            key: average([a, b])[key].tolist() for key in average([a, b]) if key.startswith(UNET)
        }


def test_a_delta_method_takes_one_too():
    merge = task_arithmetic(model("a", 1), [model("b", 3), vae()], rules=BAKE)
    assert wb.preflight(merge).ok
    assert merge[f"{VAE}decoder.conv_in.weight"].tolist() == [9, 9]
    assert merge[f"{UNET}out.2.weight"].tolist() == [3, 3]


def test_the_result_has_the_layout_of_the_first():
    tensors = {f"decoder.up_blocks.{level}.resnets.0.conv1.weight": torch.full((2,), float(level)) for level in range(4)}
    x = Held(tensors | {"decoder.mid_block.attentions.0.to_q.weight": torch.ones(2, 2)}, "vae")
    merge = average([model("a", 1), x], weights=[1, 0], rules=BAKE)
    assert {key: merge[key].flatten().tolist() for key in merge if key.startswith(VAE)} == {
        **{f"{VAE}decoder.up.{3 - level}.block.0.conv1.weight": [level, level] for level in range(4)},
        f"{VAE}decoder.mid.attn_1.q.weight": [1, 1, 1, 1],
    }
    diffusers = Held({"unet.conv_in.weight": torch.ones(2), "unet.down_blocks.0.attentions.0.proj_in.weight": torch.ones(2, 2, 1, 1)}, "d")
    assert {"vae.decoder.up_blocks.3.resnets.0.conv1.weight"} < set(average([diffusers, x], weights=[1, 0], rules=BAKE))


def test_a_text_encoder_of_its_own_comes_too():
    x = Held({"text_model.final_layer_norm.bias": torch.full((2,), 5.0)}, "clip")
    merge = average([model("a", 1), x], weights=[1, 0], rules=[{"component": "text_encoder", "take": "clip"}])
    assert merge[f"{TEXT}final_layer_norm.bias"].tolist() == [5, 5]


def test_without_a_rule_they_are_strangers():
    (error,) = wb.preflight(average([Held({"x": torch.ones(1)}, "a"), vae()])).errors
    assert "no tensor name in common" in error
