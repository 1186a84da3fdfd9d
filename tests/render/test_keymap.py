from __future__ import annotations

import pytest
import torch

from workbench.checkpoint.views.view import Composite, Piece
from workbench.errors import RenderError
from workbench.render.assembly import build_pipeline, read_blueprint
from workbench.render.keymap import Origin, origins
from workbench.tensors import TensorInfo


@pytest.fixture(scope="module")
def pipeline(family):
    return build_pipeline(read_blueprint(family / "config"))


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_every_tensor_of_a_module_has_its_own_origin_of_the_right_shape(pipeline, base, component):
    module = getattr(pipeline, component)
    found = origins(base, component, module)
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    assert {name: found[name].shape for name in shapes} == shapes
    assert len({found[name].key for name in shapes}) == len(shapes)
    assert all(len(found[name].keys) == 1 for name in shapes)


def test_known_ldm_names_go_where_diffusers_puts_them(pipeline, base):
    unet = origins(base, "unet", pipeline.unet)
    vae = origins(base, "vae", pipeline.vae)
    assert unet["conv_in.weight"].key == "model.diffusion_model.input_blocks.0.0.weight"
    assert unet["mid_block.resnets.0.conv1.weight"].key == "model.diffusion_model.middle_block.0.in_layers.2.weight"
    query = vae["decoder.mid_block.attentions.0.to_q.weight"]
    assert query.key == "first_stage_model.decoder.mid.attn_1.q.weight"
    assert (*query.shape, 1, 1) == base.info(query.key).shape  # a 1x1 convolution in the file


def test_fused_attention_of_open_clip_is_split_into_rows(held, pipeline):
    name = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"
    checkpoint = held({name: torch.randn(12, 4), "cond_stage_model.model.token_embedding.weight": torch.randn(7, 4)})
    found = origins(checkpoint, "text_encoder", pipeline.text_encoder)
    (spelled,) = (key for key in pipeline.text_encoder.state_dict() if key.endswith("layers.0.self_attn.k_proj.weight"))
    assert found[spelled] == Origin(Composite(TensorInfo((4, 4), "F32"), (Piece(name, 16, 32),)), (4, 4))
    (spelled,) = (key for key in pipeline.text_encoder.state_dict() if key.endswith("token_embedding.weight"))
    assert found[spelled].shape == (7, 4)


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


def test_a_tensor_that_is_there_only_in_part_is_refused(held, pipeline):
    name = "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight"
    with pytest.raises(RenderError, match=rf"'held': of its text_encoder, .*the 5 rows of '{name}' are not 3 equal parts"):
        origins(held({name: torch.randn(5, 4)}), "text_encoder", pipeline.text_encoder)
