"""Small parts of random pipelines: tokenizers that spell letter by letter, text encoders, VAEs."""

from __future__ import annotations

import string
from typing import Any

import diffusers
import transformers
from tokenizers.pre_tokenizers import ByteLevel

BYTES = sorted(ByteLevel.alphabet())
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for one in m.content %}{{ one.text }}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BODY = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "pad_token_id": 256, "bos_token_id": 256, "eos_token_id": 258}
DECODER = BODY | {"vocab_size": 259, "num_key_value_heads": 1, "head_dim": 8}


# tokenizers


def clip_tokenizer() -> Any:
    words = [*BYTES, *(f"{one}</w>" for one in BYTES), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(vocab={word: at for at, word in enumerate(words)}, merges=[], model_max_length=77)


def t5_tokenizer() -> Any:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((one, -1.0) for one in ("▁", *string.ascii_letters, *string.punctuation))]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def gemma_tokenizer() -> Any:
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", "\n", *string.ascii_letters, *string.digits, *string.punctuation]
    return transformers.GemmaTokenizer(vocab={piece: at for at, piece in enumerate(pieces)}, merges=[], model_max_length=4096)


def qwen_tokenizer() -> Any:
    words = [*BYTES, "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = transformers.Qwen2Tokenizer(
        vocab={word: at for at, word in enumerate(words)},
        merges=[],
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        model_max_length=4096,
    )
    tokenizer.chat_template = CHAT
    return tokenizer


# text encoders


def clip(projected: bool = False, width: int = 16) -> Any:
    kind = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    special = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    sizes = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "projection_dim": width}
    return kind(transformers.CLIPTextConfig(vocab_size=514, max_position_embeddings=77, **sizes, **special))


def t5(universal: bool = False) -> Any:
    sizes = {"vocab_size": 88, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "feed_forward_proj": "gated-gelu"}
    if universal:
        return transformers.UMT5EncoderModel(transformers.UMT5Config(**sizes, is_encoder_decoder=False, use_cache=False))
    return transformers.T5EncoderModel(transformers.T5Config(**sizes, is_encoder_decoder=False, use_cache=False))


def gemma() -> Any:
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    sizes = DECODER | {"vocab_size": 101, "num_hidden_layers": 2, "query_pre_attn_scalar": 8, "sliding_window": 4096} | special
    return transformers.Gemma2Model(transformers.Gemma2Config(**sizes))


def qwen3(layers: int = 3, language_head: bool = False) -> Any:
    config = transformers.Qwen3Config(**DECODER, num_hidden_layers=layers)
    return (transformers.Qwen3ForCausalLM if language_head else transformers.Qwen3Model)(config)


def qwen25_vl() -> Any:
    """It is written under other names than the module has."""
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text = {key: value for key, value in DECODER.items() if key != "head_dim"} | {"num_hidden_layers": 2, "rope_parameters": rope}
    eye = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16, "fullatt_block_indexes": [0]}
    images = {"image_token_id": 250, "video_token_id": 251, "vision_start_token_id": 252, "vision_end_token_id": 253}
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=eye | {"patch_size": 14, "window_size": 28}, **images)
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def qwen3_vl() -> Any:
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0, "mrope_interleaved": True}
    text = DECODER | {"num_hidden_layers": 3, "rope_parameters": rope}
    eye = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16, "num_position_embeddings": 16}
    images = {"image_token_id": 250, "video_token_id": 251, "vision_start_token_id": 252, "vision_end_token_id": 253}
    return transformers.Qwen3VLModel(
        transformers.Qwen3VLConfig(text_config=text, vision_config=eye | {"deepstack_visual_indexes": [0]}, **images)
    )


def mistral3() -> Any:
    text = DECODER | {"model_type": "mistral", "num_hidden_layers": 30}
    eye = {"model_type": "pixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.Mistral3Config(text_config=text, vision_config=eye | {"image_size": 28, "patch_size": 14}, image_token_index=250)
    return transformers.Mistral3ForConditionalGeneration(config)


# VAEs


def vae(levels: int = 2, **more: Any) -> Any:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * levels, "up_block_types": ("UpDecoderBlock2D",) * levels}
    sizes = {"block_out_channels": (8,) * levels, "norm_num_groups": 4, "layers_per_block": 1, "latent_channels": 4, "sample_size": 32}
    return diffusers.AutoencoderKL(**blocks, **sizes | more)


def flow_vae(levels: int = 2) -> Any:
    """As Flux and SD 3 have it."""
    return vae(levels, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5)


def flux2_vae() -> Any:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return diffusers.AutoencoderKLFlux2(**blocks, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, latent_channels=4)


def qwen_vae() -> Any:
    spread = {"latents_mean": [0.1, -0.1, 0.2, 0.0], "latents_std": [1.0, 1.5, 0.8, 1.2]}
    return diffusers.AutoencoderKLQwenImage(base_dim=8, z_dim=4, dim_mult=[1, 1], num_res_blocks=1, temperal_downsample=[False], **spread)


def deep_vae() -> Any:
    widths = (4, 4, 8, 8, 8, 8)
    levels, both = len(widths), {"encoder": widths, "decoder": widths}
    sizes = {f"{way}_block_out_channels": widths for way, widths in both.items()}
    sizes |= {f"{way}_layers_per_block": (1,) * levels for way in both} | {f"{way}_qkv_multiscales": ((),) * levels for way in both}
    return diffusers.AutoencoderDC(latent_channels=4, attention_head_dim=4, scaling_factor=0.4, **sizes)
