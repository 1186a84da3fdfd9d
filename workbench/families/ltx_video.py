"""LTX-Video."""

from workbench.families.blocks import Stacks
from workbench.families.declaration import Encoder, Family, ModelSpec, Pictures
from workbench.families.known import register
from workbench.families.tracing import Traced

_NAMES = """
scale_shift_table {patchify_proj,proj_out,caption_projection.linear_1,caption_projection.linear_2,adaln_single.linear}.{weight,bias}
adaln_single.emb.timestep_embedder.linear_{1,2}.{weight,bias}
transformer_blocks.#.scale_shift_table transformer_blocks.#.attn{1,2}.{q,k}_norm.weight
transformer_blocks.#.{attn{1,2}.{to_q,to_k,to_v,to_out.0},ff.net.0.proj,ff.net.2}.{weight,bias}
"""

FAMILY = register(
    Family(
        "LTX-Video",
        original=(("patchify_proj.", "adaln_single."),),
        diffusers=(("proj_in.", "time_embed.emb.timestep_embedder.", "transformer_blocks.#.scale_shift_table"),),
        unless=("audio_", "av_c"),  # LTX-2
        vae="vae.",
        vae_converts=False,
        text_encoders={"text_encoder": Encoder("text_encoders.t5xxl.transformer.")},
        blocks=Stacks("transformer_blocks.#"),
        conversion=Traced("LTXVideoTransformer3DModel", _NAMES),
        prediction="flow",
        modelspec=ModelSpec("ltx-video", "https://github.com/Lightricks/LTX-Video", "768x512"),
        gguf="ltxv",
        model="LTXVideoTransformer3DModel",
        pipeline="LTXPipeline",
        configs="hf://Lightricks/LTX-Video",
        pictures=Pictures(704, 30, 3.0),
    )
)
