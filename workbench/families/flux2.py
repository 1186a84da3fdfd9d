"""Flux.2: dev and Klein."""

from workbench.families.blocks import Stacks
from workbench.families.declaration import Encoder, Family, Kohya, ModelSpec, Pictures
from workbench.families.known import register
from workbench.families.tracing import Traced

_NAMES = """
{img_in,txt_in}.weight {time_in,guidance_in}.{in,out}_layer.weight
{double_stream_modulation_img,double_stream_modulation_txt,single_stream_modulation}.lin.weight
double_blocks.#.{img,txt}_{attn.{qkv,proj},mlp.{0,2}}.weight double_blocks.#.{img,txt}_attn.norm.{query,key}_norm.scale
single_blocks.#.linear{1,2}.weight single_blocks.#.norm.{query,key}_norm.scale
final_layer.{linear,adaLN_modulation.1}.weight
"""

FAMILY = register(
    Family(
        "Flux.2",
        original=("double_stream_modulation_img.lin.", "double_stream_modulation_txt.lin.", "single_stream_modulation.lin."),
        diffusers=(
            "double_stream_modulation_img.linear.",
            "double_stream_modulation_txt.linear.",
            "single_stream_modulation.linear.",
            "time_guidance_embed.",
            "single_transformer_blocks.#.attn.to_qkv_mlp_proj.",
        ),
        text_encoders={"text_encoder": Encoder("text_encoders.mistral3_24b.transformer.")},
        vae="vae.",
        blocks=Stacks(("double_blocks.#", "transformer_blocks.#"), ("single_blocks.#", "single_transformer_blocks.#")),
        conversion=Traced("Flux2Transformer2DModel", _NAMES),
        prediction="flow",
        kohya=Kohya("", {"denoiser": "lora_unet_"}, module="networks.lora_flux_2"),  # whose version says which of its models
        modelspec=ModelSpec("flux-2", "https://github.com/black-forest-labs/flux2", "1024x1024"),
        model="Flux2Transformer2DModel",
        pipeline="Flux2Pipeline",
        configs="hf://black-forest-labs/FLUX.2-dev",
        pictures=Pictures(1024, 28, 4.0),
    )
)
