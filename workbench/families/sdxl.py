"""Stable Diffusion XL, and what was trained from it: Illustrious, NoobAI, Pony."""

from workbench.families.blocks import UnetBlocks
from workbench.families.correspondence import ORIGINAL
from workbench.families.declaration import Encoder, Family, Kohya, ModelSpec, Pictures
from workbench.families.known import register
from workbench.families.unet_names import UnetConversion

FAMILY = register(Family(
    "SDXL",
    certain=("conditioner.embedders.0.transformer.", "conditioner.embedders.1."),
    original=(
        "label_emb.0.", "input_blocks.#.#.transformer_blocks.1.", "middle_block.#.transformer_blocks.1.",
        "output_blocks.#.#.transformer_blocks.1.",
    ),
    diffusers=("add_embedding.", "*_blocks.#.attentions.#.transformer_blocks.1.", "mid_block.attentions.#.transformer_blocks.1."),
    # the refiner's deepest level, SD 2.x's attention at full size, and Kolors
    unless=(
        "input_blocks.9.", "input_blocks.10.", "input_blocks.11.", "output_blocks.9.", "output_blocks.10.", "output_blocks.11.",
        "down_blocks.3.", "up_blocks.3.", "conditioner.embedders.0.model.", "cond_stage_model.model.", "class_embedding.",
        "input_blocks.1.1.", "encoder_hid_proj.", "control_model.", "controlnet_", "input_hint_block.",
    ),
    denoiser="unet",
    original_name="LDM",
    bare_alone=False,
    text_encoders={
        "text_encoder": Encoder(
            "conditioner.embedders.0.transformer.text_model.", clip=True, comfy="text_encoders.clip_l.transformer."
        ),
        "text_encoder_2": Encoder("conditioner.embedders.1.model.", ORIGINAL, clip=True, comfy="text_encoders.clip_g.transformer."),
    },
    blocks=UnetBlocks(9),
    conversion=UnetConversion(),
    prediction="epsilon",
    dtype="float16",
    modelspec=ModelSpec("stable-diffusion-xl-v1-base", "https://github.com/Stability-AI/generative-models", "1024x1024"),
    kohya=Kohya(
        "sdxl_base_v1-0", {"denoiser": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}, also=("sdxl_1.0",)
    ),
    gguf="sdxl",
    precise=("input_blocks.0.0.*", "conv_in.*"),
    model="UNet2DConditionModel",
    pipeline="StableDiffusionXLPipeline",
    configs="hf://stabilityai/stable-diffusion-xl-base-1.0",
    pictures=Pictures(1024, 25, 5.0),
))  # fmt: skip
