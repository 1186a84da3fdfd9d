"""HiDream-I1; its files have diffusers' names in every layout."""

from workbench.families.blocks import Stacks
from workbench.families.declaration import Encoder, Family, ModelSpec, Pictures
from workbench.families.known import register

FAMILY = register(
    Family(
        "HiDream",
        told_by=("double_stream_blocks.", "single_stream_blocks."),
        vae="vae.",
        text_encoders={
            "text_encoder": Encoder("text_encoders.clip_l.transformer.text_model.", clip=True),
            "text_encoder_2": Encoder("text_encoders.clip_g.transformer.text_model.", clip=True),
            "text_encoder_3": Encoder("text_encoders.t5xxl.transformer."),
            "text_encoder_4": Encoder("text_encoders.llama.transformer."),
        },
        blocks=Stacks("double_stream_blocks.#", "single_stream_blocks.#"),
        prediction="flow",
        modelspec=ModelSpec("hidream-i1", "https://github.com/HiDream-ai/HiDream-I1", "1024x1024"),
        gguf="hidream",
        precise=("*.ff_i.gate.weight",),
        model="HiDreamImageTransformer2DModel",
        pipeline="HiDreamImagePipeline",
        configs="hf://HiDream-ai/HiDream-I1-Full",
        pictures=Pictures(1024, 50, 5.0),
    )
)
