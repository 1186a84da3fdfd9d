"""Lumina-Image 2.0, and NetaYume and Illustrious Lumina, which were trained from it."""

from workbench.families.blocks import Stacks
from workbench.families.declaration import Encoder, Family, Kohya, ModelSpec, Pictures
from workbench.families.known import register
from workbench.families.tracing import Traced

_NAMES = """
{x_embedder,cap_embedder.1,t_embedder.mlp.0,t_embedder.mlp.2}.{weight,bias} cap_embedder.0.weight
{noise_refiner,context_refiner,layers}.#.{attention.{qkv,out,q_norm,k_norm},feed_forward.w{1,2,3}}.weight
{noise_refiner,context_refiner,layers}.#.{attention,ffn}_norm{1,2}.weight
{noise_refiner,layers}.#.adaLN_modulation.1.{weight,bias}
final_layer.{linear,adaLN_modulation.1}.{weight,bias}
"""

FAMILY = register(
    Family(
        "Lumina 2",
        original=(("noise_refiner.", "layers.#.adaLN_modulation.1."),),
        diffusers=("time_caption_embed.", ("noise_refiner.", "layers.#.norm1.linear.")),
        vae="vae.",
        text_encoders={"text_encoder": Encoder("text_encoders.gemma2_2b.transformer.")},
        blocks=Stacks("noise_refiner.#", "context_refiner.#", "layers.#"),
        # the converter knows the widths by heart: 2304 queries, 768 keys and values
        conversion=Traced("Lumina2Transformer2DModel", _NAMES, rows=((".qkv.weight", 3840),)),
        prediction="flow",
        modelspec=ModelSpec("lumina-2", "https://github.com/Alpha-VLLM/Lumina-Image-2.0", "1024x1024"),
        kohya=Kohya("lumina2", {"denoiser": "lora_unet_", "text_encoder": "lora_te_"}, module="networks.lora_lumina"),
        gguf="lumina2",
        model="Lumina2Transformer2DModel",
        pipeline="Lumina2Pipeline",
        configs="hf://Alpha-VLLM/Lumina-Image-2.0",
        pictures=Pictures(1024, 30, 4.0),
    )
)
