"""Z-Image and Z-Image-Turbo."""

from workbench.families.blocks import Stacks
from workbench.families.correspondence import DIFFUSERS
from workbench.families.declaration import Encoder, Family, Kohya, ModelSpec, Pictures
from workbench.families.known import register
from workbench.families.tracing import Traced

_NAMES = """
x_pad_token cap_pad_token {x_embedder,cap_embedder.1,t_embedder.mlp.0,t_embedder.mlp.2}.{weight,bias} cap_embedder.0.weight
{noise_refiner,context_refiner,layers}.#.{attention.{qkv,out,q_norm,k_norm},feed_forward.w{1,2,3}}.weight
{noise_refiner,context_refiner,layers}.#.{attention,ffn}_norm{1,2}.weight
{noise_refiner,layers}.#.adaLN_modulation.0.{weight,bias}
final_layer.{linear,adaLN_modulation.1}.{weight,bias}
"""

FAMILY = register(
    Family(
        "Z-Image",
        told_by=("cap_pad_token", "x_pad_token", "layers.#.adaLN_modulation.0."),
        original=(
            ("x_embedder.", "cap_pad_token"),
            ("final_layer.", "cap_pad_token"),
            ("layers.#.attention.qkv.", "layers.#.adaLN_modulation.0."),
        ),
        diffusers=("all_x_embedder.", "all_final_layer.", ("layers.#.attention.to_q.", "layers.#.adaLN_modulation.0.")),
        unless=("control_layers.", "control_all_x_embedder."),
        vae="vae.",
        text_encoders={"text_encoder": Encoder("text_encoders.qwen3_4b.transformer.")},
        blocks=Stacks("noise_refiner.#", "context_refiner.#", "layers.#"),
        conversion=Traced("ZImageTransformer2DModel", _NAMES),
        prediction="flow",
        modelspec=ModelSpec("z-image", "https://github.com/Tongyi-MAI/Z-Image", "1024x1024"),
        kohya=Kohya("z_image", {"denoiser": "lora_unet_"}, DIFFUSERS, module="networks.lora_zimage"),
        gguf="lumina2",
        model="ZImageTransformer2DModel",
        pipeline="ZImagePipeline",
        configs="hf://Tongyi-MAI/Z-Image-Turbo",
        pictures=Pictures(1024, 9, 0.0),
    )
)
