"""Stable Diffusion 1.x."""

from workbench.families.blocks import UnetBlocks
from workbench.families.correspondence import DIFFUSERS
from workbench.families.declaration import Encoder, Family, Kohya, ModelSpec, Pictures
from workbench.families.known import register
from workbench.families.unet_names import UnetConversion

FAMILY = register(Family(
    "SD 1.x",
    certain=("cond_stage_model.transformer.",),
    original=("input_blocks.", "middle_block.", "output_blocks."),
    diffusers=("down_blocks.", "up_blocks.", "mid_block."),
    # what other U-Nets have; SD 2.x projects into its attention with a matrix, SD 1.x with a 1x1 convolution
    unless=(
        "label_emb.", "add_embedding.", "class_embedding.", "*.transformer_blocks.1.", "*proj_in.weight:2", "cond_stage_model.model.",
        "conditioner.", "encoder_hid_proj.", "control_model.", "controlnet_", "input_hint_block.", "zero_convs.", "down_blocks.#.motion_",
    ),
    assumed=True,
    denoiser="unet",
    original_name="LDM",
    bare_alone=False,
    text_encoders={
        "text_encoder": Encoder("cond_stage_model.transformer.text_model.", clip=True, comfy="text_encoders.clip_l.transformer.")
    },
    blocks=UnetBlocks(12),
    conversion=UnetConversion(),
    prediction="epsilon",
    dtype="float16",
    modelspec=ModelSpec("stable-diffusion-v1", "https://github.com/CompVis/stable-diffusion", "512x512"),
    kohya=Kohya("sd_v1", {"denoiser": "lora_unet_", "text_encoder": "lora_te_"}, DIFFUSERS, also=("sd_1.5",)),
    gguf="sd1",
    precise=("input_blocks.0.0.*", "conv_in.*"),
    model="UNet2DConditionModel",
    pipeline="StableDiffusionPipeline",
    configs="hf://stable-diffusion-v1-5/stable-diffusion-v1-5",
    pictures=Pictures(512, 20, 5.0),
))  # fmt: skip
