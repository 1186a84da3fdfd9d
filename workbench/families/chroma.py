"""Chroma: Flux.1 schnell with a small network in place of its modulation."""

from workbench.families.blocks import Stacks
from workbench.families.declaration import Encoder, Family, Kohya, ModelSpec, Pictures
from workbench.families.known import register
from workbench.families.tracing import Traced

_NAMES = """
{img_in,txt_in,final_layer.linear}.{weight,bias} distilled_guidance_layer.{in,out}_proj.{weight,bias}
distilled_guidance_layer.layers.#.{in,out}_layer.{weight,bias} distilled_guidance_layer.norms.#.scale
double_blocks.#.{img,txt}_{attn.{qkv,proj},mlp.{0,2}}.{weight,bias} double_blocks.#.{img,txt}_attn.norm.{query,key}_norm.scale
single_blocks.#.linear{1,2}.{weight,bias} single_blocks.#.norm.{query,key}_norm.scale
"""

FAMILY = register(
    Family(
        "Chroma",
        told_by=("distilled_guidance_layer.",),
        original=("distilled_guidance_layer.layers.#.in_layer.", "distilled_guidance_layer.norms.#.scale"),
        diffusers=("distilled_guidance_layer.layers.#.linear_1.", "distilled_guidance_layer.norms.#.weight"),
        vae="vae.",
        text_encoders={"text_encoder": Encoder("text_encoders.t5xxl.transformer.")},
        blocks=Stacks(
            "distilled_guidance_layer.layers.#",
            ("double_blocks.#", "transformer_blocks.#"),
            ("single_blocks.#", "single_transformer_blocks.#"),
        ),
        # the converter knows the width by heart: 3072
        conversion=Traced("ChromaTransformer2DModel", _NAMES, rows=((".linear1.weight", 21504), (".linear1.bias", 21504))),
        prediction="flow",
        modelspec=ModelSpec("chroma", "https://huggingface.co/lodestones/Chroma1-HD", "1024x1024"),
        kohya=Kohya("chroma", {"denoiser": "lora_unet_"}, module="networks.lora_flux", beside=("distilled_guidance_layer.",)),
        gguf="flux",
        model="ChromaTransformer2DModel",
        pipeline="ChromaPipeline",
        configs="hf://lodestones/Chroma1-HD",
        pictures=Pictures(1024, 26, 4.0),
    )
)
