"""The LDM names are right: diffusers' own converter turns them back into the names they came from."""

import pytest
import torch

from workbench.checkpoint.layouts import to_ldm


def labelled(model):
    """A state dict in which every tensor has a value of its own."""
    return {key: torch.full_like(tensor, index) for index, (key, tensor) in enumerate(model.state_dict().items())}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("widths", "layers", "attended"), [((8, 16), 1, 2), ((8, 16, 24), 2, 2), ((8, 16, 16, 16), 2, 3)])
def test_unet_names_survive_the_way_to_ldm_and_back(widths, layers, attended):
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    plain = len(widths) - attended
    unet = UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D",) * attended + ("DownBlock2D",) * plain,
        up_block_types=("UpBlock2D",) * plain + ("CrossAttnUpBlock2D",) * attended,
        block_out_channels=widths,
        layers_per_block=layers,
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    state = labelled(unet)
    assert same(convert_ldm_unet_checkpoint(to_ldm("unet", state), dict(unet.config)), state)


@pytest.mark.parametrize(("levels", "layers"), [(4, 1), (4, 2), (3, 1)])
def test_vae_names_survive_the_way_to_ldm_and_back(levels, layers):
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(4, 8, 8, 8)[:levels],
        layers_per_block=layers,
        norm_num_groups=4,
    )
    state = labelled(vae)
    ldm = to_ldm("vae", state)
    assert ldm["first_stage_model.decoder.mid.attn_1.q.weight"].ndim == 4
    assert same(convert_ldm_vae_checkpoint(ldm, dict(vae.config)), state)


def test_text_encoder_names_are_those_of_sd_1():
    from workbench.checkpoint.layouts import ldm_names

    key = "embeddings.token_embedding.weight"
    expected = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    assert ldm_names("text_encoder", [key, f"text_model.{key}"]) == {key: expected, f"text_model.{key}": expected}
