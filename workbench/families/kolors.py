"""Kolors: the U-Net of SDXL with a language model for its text encoder."""

from workbench.families.blocks import UnetBlocks
from workbench.families.declaration import Encoder, Family, ModelSpec, Pictures
from workbench.families.known import register
from workbench.families.unet_names import UnetConversion

FAMILY = register(
    Family(
        "Kolors",
        told_by=("encoder_hid_proj.weight", "encoder_hid_proj.bias"),
        original=(("encoder_hid_proj.", "input_blocks."),),
        diffusers=(("encoder_hid_proj.", "down_blocks."),),
        unless=("control_model.", "controlnet_", "encoder_hid_proj.image_projection_layers."),
        denoiser="unet",
        original_name="LDM",
        bare_alone=False,
        text_encoders={"text_encoder": Encoder("text_encoders.chatglm3.transformer.")},
        blocks=UnetBlocks(9),
        conversion=UnetConversion(),
        prediction="epsilon",
        dtype="float16",
        modelspec=ModelSpec("kolors", "https://github.com/Kwai-Kolors/Kolors", "1024x1024"),
        precise=("input_blocks.0.0.*", "conv_in.*"),
        model="UNet2DConditionModel",
        pipeline="KolorsPipeline",
        configs="hf://Kwai-Kolors/Kolors-diffusers",
        pictures=Pictures(1024, 25, 5.0),
    )
)
