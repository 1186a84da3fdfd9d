"""Wan 2.x."""

from workbench.families.blocks import Stacks
from workbench.families.declaration import Encoder, Family, Kohya, ModelSpec, Pictures
from workbench.families.known import register
from workbench.families.tracing import Traced

_NAMES = """
{patch_embedding,time_embedding.0,time_embedding.2,time_projection.1,text_embedding.0,text_embedding.2,head.head}.{weight,bias}
head.modulation
img_emb.proj.{0,1,3,4}.{weight,bias}
blocks.#.modulation blocks.#.{self_attn.{q,k,v,o},cross_attn.{q,k,v,o,k_img,v_img},ffn.{0,2},norm3}.{weight,bias}
blocks.#.{self_attn.norm_{q,k},cross_attn.norm_{q,k,k_img}}.weight
"""

FAMILY = register(
    Family(
        "Wan",
        original=("head.modulation", "blocks.#.self_attn.q.", ("time_projection.", "blocks.")),
        diffusers=("condition_embedder.time_proj.", ("blocks.#.attn1.", "blocks.#.ffn.net.")),
        unconvertible=("motion_encoder.", "face_adapter."),  # Wan-Animate
        vae="vae.",
        vae_converts=False,
        text_encoders={"text_encoder": Encoder("text_encoders.umt5xxl.transformer.")},
        blocks=Stacks("blocks.#", "vace_blocks.#"),
        conversion=Traced("WanTransformer3DModel", _NAMES),
        prediction="flow",
        modelspec=ModelSpec("wan-2", "https://github.com/Wan-Video/Wan2.2", "832x480"),
        kohya=Kohya("wan", {"denoiser": "lora_unet_"}, module="networks.lora_wan"),
        gguf="wan",
        model="WanTransformer3DModel",
        pipeline="WanPipeline",
        configs="hf://Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        pictures=Pictures(832, 30, 5.0),
    )
)
