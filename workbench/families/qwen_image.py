"""Qwen-Image, up to 2512; its files have diffusers' names in every layout."""

from workbench.families.blocks import Stacks
from workbench.families.declaration import Encoder, Family, Kohya, ModelSpec, Pictures
from workbench.families.known import register

FAMILY = register(
    Family(
        "Qwen-Image",
        told_by=("txt_norm.", "transformer_blocks.#.img_mod.1.", "transformer_blocks.#.txt_mod.1."),
        unless=("controlnet_",),
        vae="vae.",
        vae_converts=False,
        text_encoders={"text_encoder": Encoder("text_encoders.qwen25_7b.transformer.")},
        blocks=Stacks("transformer_blocks.#"),
        prediction="flow",
        modelspec=ModelSpec("qwen-image", "https://github.com/QwenLM/Qwen-Image", "1328x1328"),
        kohya=Kohya("qwen_image", {"denoiser": "lora_unet_"}, module="networks.lora_qwen_image"),
        gguf="qwen_image",
        model="QwenImageTransformer2DModel",
        pipeline="QwenImagePipeline",
        configs="hf://Qwen/Qwen-Image",
        pictures=Pictures(1328, 50, 4.0),
    )
)
