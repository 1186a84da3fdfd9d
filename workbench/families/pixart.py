"""PixArt-alpha and PixArt-Sigma. diffusers loads no single files of it, so there is no converter to ask."""

from workbench.families.blocks import Stacks
from workbench.families.correspondence import Unchanged
from workbench.families.declaration import Encoder, Family, ModelSpec, Pictures

FAMILY = Family(
    "PixArt",
    original=(("blocks.#.cross_attn.kv_linear.", "blocks.#.mlp.fc1."), ("y_embedder.y_proj.", "blocks.#.mlp.fc1.")),
    diffusers=(("adaln_single.", "pos_embed.proj."), ("adaln_single.", "caption_projection.", "transformer_blocks.#.attn1.")),
    unless=("patchify_proj.", "temporal_transformer_blocks.", "controlnet_"),
    text_encoders={"text_encoder": Encoder("text_encoders.t5xxl.transformer.")},
    blocks=Stacks(("blocks.#", "transformer_blocks.#")),
    conversion=Unchanged("diffusers has no converter for its single files"),
    prediction="epsilon",
    dtype="float16",
    modelspec=ModelSpec("pixart-sigma", "https://github.com/PixArt-alpha/PixArt-sigma", "1024x1024"),
    model="PixArtTransformer2DModel",
    pipeline="PixArtSigmaPipeline",
    configs="hf://PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    pictures=Pictures(1024, 20, 4.5),
)
