"""Builds the untrained parts of the SDXL family: a small U-Net, its second text encoder, its schedules; the rest is in `parts`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.parts import MAX_TOKENS, TEXT_WIDTH
from training.pictures import SIZE

if TYPE_CHECKING:
    from diffusers import DDPMScheduler, EulerDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

# Other than the first encoder's: diffusers tells the two of a single file apart by their widths.
TEXT_WIDTH_2 = 48
TIME_WIDTH = 8  # of each of the six sizes that the U-Net is told
# Original size, top left corner of the crop, target size: what StableDiffusionXLPipeline says of 64x64 pictures by itself.
TIME_IDS = (SIZE, SIZE, 0, 0, SIZE, SIZE)
_NOISE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def build_text_encoder_2(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Two layers, with OpenCLIP's activation and a projection for what the U-Net is told beside the words."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH_2,
            intermediate_size=2 * TEXT_WIDTH_2,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=TEXT_WIDTH_2,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_sdxl_unet() -> UNet2DConditionModel:
    """Two levels: as in SDXL, the first reads no words, and deeper ones have several transformer blocks to an attention."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(28, 48),
        layers_per_block=1,
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=TEXT_WIDTH + TEXT_WIDTH_2,
        attention_head_dim=(2, 4),  # diffusers' name; it is the number of heads
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_WIDTH,
        projection_class_embeddings_input_dim=TEXT_WIDTH_2 + len(TIME_IDS) * TIME_WIDTH,
        norm_num_groups=4,
    )


def build_noising(*, v_prediction: bool) -> DDPMScheduler:
    """How pictures are noised in training; for v-prediction until nothing is left of them.

    Zero terminal SNR: Lin et al. 2023, arXiv:2305.08891, section 3.1.
    """
    from diffusers import DDPMScheduler

    kind = "v_prediction" if v_prediction else "epsilon"
    return DDPMScheduler(**_NOISE, clip_sample=False, prediction_type=kind, rescale_betas_zero_snr=v_prediction)


def build_sampler(*, v_prediction: bool = False) -> EulerDiscreteScheduler:
    """SDXL's sampler; for v-prediction with zero terminal SNR, with steps that begin where training ended."""
    from diffusers import EulerDiscreteScheduler

    sampler = EulerDiscreteScheduler(**_NOISE, steps_offset=1, timestep_spacing="leading")
    if not v_prediction:
        return sampler
    changes = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return EulerDiscreteScheduler.from_config(sampler.config, **changes)
