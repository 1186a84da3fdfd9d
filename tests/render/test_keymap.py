from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from workbench.errors import RenderError
from workbench.render.assembly import build_pipeline
from workbench.render.keymap import Origin, origins
from workbench.tensors import Rows


@pytest.fixture(scope="module")
def pipeline(family):
    return build_pipeline(family / "config")


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_every_tensor_of_a_module_has_its_own_origin_of_the_right_shape(pipeline, base, component):
    module = getattr(pipeline, component)
    found = origins(base, component, module)
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    assert {name: found[name].shape for name in shapes} == shapes
    assert len({found[name].key for name in shapes}) == len(shapes)
    assert all(found[name].part is None for name in shapes)


def test_known_ldm_names_go_where_diffusers_puts_them(pipeline, base):
    unet = origins(base, "unet", pipeline.unet)
    vae = origins(base, "vae", pipeline.vae)
    assert unet["conv_in.weight"].key == "model.diffusion_model.input_blocks.0.0.weight"
    assert unet["mid_block.resnets.0.conv1.weight"].key == "model.diffusion_model.middle_block.0.in_layers.2.weight"
    query = vae["decoder.mid_block.attentions.0.to_q.weight"]
    assert query.key == "first_stage_model.decoder.mid.attn_1.q.weight"
    assert (*query.shape, 1, 1) == base.info(query.key).shape  # a 1x1 convolution in the file


def test_fused_attention_of_open_clip_is_split_into_rows(held):
    name = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"
    checkpoint = held({name: torch.randn(12, 4), "cond_stage_model.model.token_embedding.weight": torch.randn(7, 4)})
    module = nn.Module()
    module.config, module.embeddings = SimpleNamespace(hidden_size=4), nn.Module()
    found = origins(checkpoint, "text_encoder", module)
    assert found["encoder.layers.0.self_attn.k_proj.weight"] == Origin(name, Rows(4, 8), (4, 4))
    assert found["embeddings.token_embedding.weight"].shape == (7, 4)


def test_attention_names_of_older_diffusers_are_understood(held):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def renamed(name: str) -> str:
        for new, former in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{former}.")
        return f"vae.{name}"

    checkpoint = held({renamed(name): tensor for name, tensor in vae.state_dict().items()})
    found = origins(checkpoint, "vae", vae)
    assert set(found) == set(vae.state_dict())
    assert found["encoder.mid_block.attentions.0.to_out.0.bias"].key == "vae.encoder.mid_block.attentions.0.proj_attn.bias"


def test_nothing_is_read_and_markers_have_no_place(pipeline, base, held):
    tensors = {key: torch.zeros(()).expand(base.info(key).shape) for key in base}
    checkpoint = held(tensors | {"model.diffusion_model.v_pred": torch.zeros(0)})
    found = origins(checkpoint, "unet", pipeline.unet)
    assert not checkpoint.reads
    assert "model.diffusion_model.v_pred" not in {origin.key for origin in found.values()}


def test_a_tensor_that_diffusers_transposes_is_refused_rather_than_guessed(held, monkeypatch, pipeline):
    from diffusers.loaders import single_file_utils

    monkeypatch.setattr(single_file_utils, "convert_ldm_unet_checkpoint", lambda labels, config: {"a": labels.popitem()[1].T})
    with pytest.raises(RenderError, match=r"held.*input_blocks.0.0.weight is rearranged"):
        origins(held({"model.diffusion_model.input_blocks.0.0.weight": torch.randn(3, 3)}), "unet", pipeline.unet)
