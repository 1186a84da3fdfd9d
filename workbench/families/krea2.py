"""Krea 2."""

from workbench.families.blocks import Stacks
from workbench.families.declaration import Encoder, Family, ModelSpec, Pictures
from workbench.families.tracing import Traced

_NAMES = """
{first,tmlp.0,tmlp.2,tproj.1,txtmlp.1,txtmlp.3,last.linear}.{weight,bias} txtmlp.0.scale last.norm.scale last.modulation.lin
txtfusion.projector.weight
{txtfusion.layerwise_blocks,txtfusion.refiner_blocks,blocks}.#.{attn.{wq,wk,wv,wo,gate},mlp.{gate,up,down}}.weight
{txtfusion.layerwise_blocks,txtfusion.refiner_blocks,blocks}.#.{attn.qknorm.{qnorm,knorm},prenorm,postnorm}.scale
blocks.#.mod.lin
"""

FAMILY = Family(
    "Krea 2",
    original=("txtfusion.", "blocks.#.attn.qknorm."),
    diffusers=("text_fusion.",),
    vae="vae.",
    vae_converts=False,
    text_encoders={"text_encoder": Encoder("text_encoders.qwen3vl_4b.transformer.")},
    blocks=Stacks(
        ("txtfusion.layerwise_blocks.#", "text_fusion.layerwise_blocks.#"),
        ("txtfusion.refiner_blocks.#", "text_fusion.refiner_blocks.#"),
        ("blocks.#", "transformer_blocks.#"),
    ),
    conversion=Traced("Krea2Transformer2DModel", _NAMES),
    prediction="flow",
    modelspec=ModelSpec("krea-2", "https://huggingface.co/krea", "1024x1024"),
    model="Krea2Transformer2DModel",
    pipeline="Krea2Pipeline",
    configs="hf://krea/Krea-2-Turbo",
    pictures=Pictures(1024, 28, 4.0),
)
