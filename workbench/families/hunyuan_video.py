"""HunyuanVideo."""

from workbench.families.blocks import Stacks
from workbench.families.declaration import Encoder, Family, Kohya, ModelSpec, Pictures
from workbench.families.known import register
from workbench.families.tracing import Traced

_REFINER = "txt_in.individual_token_refiner.blocks.#"
_NAMES = f"""
img_in.proj.{{weight,bias}} {{time_in,guidance_in}}.mlp.{{0,2}}.{{weight,bias}} vector_in.{{in,out}}_layer.{{weight,bias}}
txt_in.{{input_embedder,t_embedder.mlp.0,t_embedder.mlp.2,c_embedder.linear_1,c_embedder.linear_2}}.{{weight,bias}}
{_REFINER}.{{norm1,norm2,self_attn_qkv,self_attn_proj,mlp.fc1,mlp.fc2,adaLN_modulation.1}}.{{weight,bias}}
double_blocks.#.{{img,txt}}_{{mod.linear,attn_qkv,attn_proj,mlp.fc1,mlp.fc2}}.{{weight,bias}}
double_blocks.#.{{img,txt}}_attn_{{q,k}}_norm.weight
single_blocks.#.{{linear1,linear2,modulation.linear}}.{{weight,bias}} single_blocks.#.{{q,k}}_norm.weight
final_layer.{{linear,adaLN_modulation.1}}.{{weight,bias}}
"""

FAMILY = register(
    Family(
        "HunyuanVideo",
        original=("txt_in.individual_token_refiner.", "double_blocks.#.img_mod.linear.", "single_blocks.#.modulation.linear."),
        diffusers=("context_embedder.token_refiner.",),
        unless=(
            "byt5_in.",
            "vision_in.",
            "cond_type_embedding.",
            "context_embedder_2.",
            "image_embedder.",
        ),  # HunyuanImage, HunyuanVideo 1.5
        vae="vae.",
        vae_converts=False,
        text_encoders={
            "text_encoder": Encoder("text_encoders.llama.transformer."),
            "text_encoder_2": Encoder("text_encoders.clip_l.transformer.text_model.", clip=True),
        },
        blocks=Stacks(
            (_REFINER, "context_embedder.token_refiner.refiner_blocks.#"),
            ("double_blocks.#", "transformer_blocks.#"),
            ("single_blocks.#", "single_transformer_blocks.#"),
        ),
        # the converter knows the width by heart: 3072
        conversion=Traced("HunyuanVideoTransformer3DModel", _NAMES, rows=((".linear1.weight", 21504), (".linear1.bias", 21504))),
        prediction="flow",
        modelspec=ModelSpec("hunyuan-video", "https://github.com/Tencent-Hunyuan/HunyuanVideo", "1280x720"),
        kohya=Kohya("hunyuan_video", {"denoiser": "lora_unet_"}, beside=("txt_in.", "context_embedder.")),
        gguf="hyvid",
        model="HunyuanVideoTransformer3DModel",
        pipeline="HunyuanVideoPipeline",
        configs="hf://hunyuanvideo-community/HunyuanVideo",
        pictures=Pictures(720, 30, 6.0),
    )
)
