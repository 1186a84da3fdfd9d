"""The refiner of Stable Diffusion XL."""

from workbench.families.blocks import UnetBlocks
from workbench.families.correspondence import ORIGINAL
from workbench.families.declaration import Encoder, Family, Kohya, ModelSpec, Pictures
from workbench.families.known import register
from workbench.families.unet_names import UnetConversion

FAMILY = register(
    Family(
        "SDXL refiner",
        certain=("conditioner.embedders.0.model.",),
        # the label embedding of SDXL, and the fourth level of SD 1.x and 2.x
        original=tuple(("label_emb.0.", f"{stack}_blocks.{number}.") for stack in ("input", "output") for number in (9, 10, 11)),
        diffusers=(("add_embedding.", "down_blocks.3."), ("add_embedding.", "up_blocks.3.")),
        unless=(
            "input_blocks.1.1.",
            "down_blocks.0.attentions.",
            "cond_stage_model.model.",
            "control_model.",
            "controlnet_",
            "input_hint_block.",
        ),
        denoiser="unet",
        original_name="LDM",
        bare_alone=False,
        text_encoders={
            "text_encoder_2": Encoder("conditioner.embedders.0.model.", ORIGINAL, clip=True, comfy="text_encoders.clip_g.transformer.")
        },
        blocks=UnetBlocks(12),
        conversion=UnetConversion(),
        prediction="epsilon",
        dtype="float16",
        modelspec=ModelSpec("stable-diffusion-xl-v1-refiner", "https://github.com/Stability-AI/generative-models", "1024x1024"),
        kohya=Kohya("sdxl_refiner_v1-0", {"denoiser": "lora_unet_", "text_encoder_2": "lora_te2_"}),
        precise=("input_blocks.0.0.*", "conv_in.*"),
        model="UNet2DConditionModel",
        pipeline="StableDiffusionXLImg2ImgPipeline",
        configs="hf://stabilityai/stable-diffusion-xl-refiner-1.0",
        pictures=Pictures(1024, 25, 5.0),
    )
)
