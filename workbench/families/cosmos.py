"""Cosmos Predict, 1 and 2, and Anima, which was trained from the second."""

from workbench.families.blocks import Stacks
from workbench.families.declaration import Encoder, Family, ModelSpec, Pictures
from workbench.families.known import register
from workbench.families.tracing import Traced

_NAMES = """
x_embedder.proj.1.weight t_embedder.1.linear_{1,2}.weight t_embedding_norm.weight
blocks.#.{self,cross}_attn.{q_proj,k_proj,v_proj,output_proj,q_norm,k_norm}.weight blocks.#.mlp.layer{1,2}.weight
blocks.#.adaln_modulation_{self_attn,cross_attn,mlp}.{1,2}.weight
final_layer.{linear,adaln_modulation.1,adaln_modulation.2}.weight
"""

FAMILY = register(
    Family(
        "Cosmos",
        told_by=("llm_adapter.",),
        original=("blocks.block#.blocks.", "blocks.#.adaln_modulation_self_attn.", ("blocks.#.self_attn.q_proj.", "x_embedder.proj.1.")),
        diffusers=("time_embed.t_embedder.", ("patch_embed.", "transformer_blocks.#.norm1.linear_1.")),
        unconvertible=("llm_adapter.", "blocks.block#.blocks."),  # Anima, and Cosmos 1, which diffusers' converter takes for 2
        prefix="net.",
        bare_alone=False,
        vae="vae.",
        vae_converts=False,
        text_encoders={"text_encoder": Encoder("text_encoders.t5xxl.transformer.")},
        blocks=Stacks(("blocks.block#", "blocks.#", "transformer_blocks.#"), "llm_adapter.blocks.#"),
        conversion=Traced("CosmosTransformer3DModel", _NAMES, prefix="net."),
        modelspec=ModelSpec("cosmos-predict", "https://github.com/nvidia-cosmos/cosmos-predict2", "1360x768"),
        gguf="cosmos",
        model="CosmosTransformer3DModel",
        pipeline="Cosmos2TextToImagePipeline",
        configs="hf://nvidia/Cosmos-Predict2-2B-Text2Image",
        pictures=Pictures(1024, 35, 7.0),
    )
)
