"""Sana."""

from workbench.families.blocks import Stacks
from workbench.families.declaration import Encoder, Family, ModelSpec, Pictures
from workbench.families.tracing import Traced

_NAMES = """
pos_embed y_embedder.y_embedding {x_embedder.proj,t_embedder.mlp.0,t_embedder.mlp.2,t_block.1}.{weight,bias}
y_embedder.y_proj.{fc1,fc2}.{weight,bias} attention_y_norm.weight
blocks.#.scale_shift_table blocks.#.attn.qkv.weight blocks.#.{attn.proj,cross_attn.{q_linear,kv_linear,proj}}.{weight,bias}
blocks.#.mlp.{inverted_conv,depth_conv}.conv.{weight,bias} blocks.#.mlp.point_conv.conv.weight
final_layer.linear.{weight,bias} final_layer.scale_shift_table
"""

FAMILY = Family(
    "Sana",
    original=("blocks.#.mlp.inverted_conv.", "blocks.#.mlp.depth_conv."),
    diffusers=("transformer_blocks.#.ff.conv_inverted.", "transformer_blocks.#.ff.conv_depth."),
    vae="vae.",
    vae_converts=False,
    text_encoders={"text_encoder": Encoder("text_encoders.gemma2_2b.transformer.")},
    blocks=Stacks(("blocks.#", "transformer_blocks.#")),
    conversion=Traced("SanaTransformer2DModel", _NAMES),
    prediction="flow",
    modelspec=ModelSpec("sana", "https://github.com/NVlabs/Sana", "1024x1024"),
    model="SanaTransformer2DModel",
    pipeline="SanaPipeline",
    configs="hf://Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",
    pictures=Pictures(1024, 20, 4.5),
)
