"""Stable Diffusion 3 and 3.5."""

from workbench.families.blocks import Stacks
from workbench.families.declaration import Encoder, Family, Kohya, ModelSpec, Pictures
from workbench.families.known import register
from workbench.families.tracing import Traced

_NAMES = """
pos_embed x_embedder.proj.{weight,bias} context_embedder.{weight,bias} {t,y}_embedder.mlp.{0,2}.{weight,bias}
joint_blocks.#.{x,context}_block.{attn.{qkv,proj},adaLN_modulation.1,mlp.{fc1,fc2}}.{weight,bias}
joint_blocks.#.{x,context}_block.attn.ln_{q,k}.weight
joint_blocks.#.x_block.attn2.{qkv,proj}.{weight,bias} joint_blocks.#.x_block.attn2.ln_{q,k}.weight
final_layer.{linear,adaLN_modulation.1}.{weight,bias}
"""

FAMILY = register(
    Family(
        "SD 3",
        original=("joint_blocks.",),
        diffusers=(
            ("pos_embed.proj.", "transformer_blocks.#.norm1_context."),
            ("pos_embed.proj.", "transformer_blocks.#.attn.add_q_proj."),
        ),
        unless=("controlnet_",),
        text_encoders={
            "text_encoder": Encoder("text_encoders.clip_l.transformer.text_model.", clip=True),
            "text_encoder_2": Encoder("text_encoders.clip_g.transformer.text_model.", clip=True),
            "text_encoder_3": Encoder("text_encoders.t5xxl.transformer."),
        },
        blocks=Stacks(("joint_blocks.#", "transformer_blocks.#")),
        conversion=Traced("SD3Transformer2DModel", _NAMES),
        prediction="flow",
        modelspec=ModelSpec("stable-diffusion-3", "https://github.com/Stability-AI/sd3.5", "1024x1024"),
        kohya=Kohya(
            "sd3",
            {"denoiser": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_", "text_encoder_3": "lora_te3_"},
            module="networks.lora_sd3",
        ),
        gguf="sd3",
        model="SD3Transformer2DModel",
        pipeline="StableDiffusion3Pipeline",
        configs="hf://stabilityai/stable-diffusion-3.5-medium",
        pictures=Pictures(1024, 28, 4.5),
    )
)
