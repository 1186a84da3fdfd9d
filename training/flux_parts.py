"""Builds the untrained parts of the Flux pair: a small transformer, its T5 and its tokenizer; Stable Diffusion's are in `parts`."""

from __future__ import annotations

import string
from pathlib import Path
from typing import TYPE_CHECKING

from training.parts import MAX_TOKENS, TEXT_WIDTH
from training.vocabulary import vocabulary

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
    from transformers import T5EncoderModel, T5Tokenizer

LATENT_CHANNELS = 4
PATCH = 2  # latents are packed two by two, as in every Flux: 8x8x4 become 16 tokens of 16 channels
GRID = 4  # tokens along an edge


def build_t5_tokenizer(folder: Path) -> T5Tokenizer:
    """A T5 tokenizer in which every word of the family is one token, and any other is spelled; written to `folder`."""
    from transformers import T5Tokenizer

    special = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")]
    words = [(word if word == "," else f"▁{word}", -1.0) for word in vocabulary()]
    known = {word for word, _ in words}
    letters = [(letter, -10.0) for letter in ("▁", *string.ascii_letters, *string.digits) if letter not in known]
    tokenizer = T5Tokenizer(vocab=[*special, *words, *letters], extra_ids=0, model_max_length=MAX_TOKENS)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    return tokenizer


def build_t5(tokenizer: T5Tokenizer) -> T5EncoderModel:
    """Two layers of width 64, of the kind Flux has (v1.1: gated, no biases)."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=TEXT_WIDTH,
            d_kv=16,
            d_ff=2 * TEXT_WIDTH,
            num_layers=2,
            num_heads=4,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=32,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


def build_flux(*, guidance: bool) -> FluxTransformer2DModel:
    """Three double and five single blocks of width 80; every block starts as the identity (Peebles & Xie 2022, section 3.2)."""
    import torch
    from diffusers import FluxTransformer2DModel

    flux = FluxTransformer2DModel(
        patch_size=1,
        in_channels=LATENT_CHANNELS * PATCH**2,
        num_layers=3,
        num_single_layers=5,
        attention_head_dim=20,
        num_attention_heads=4,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 8, 8),
    )
    modulations = [part for name, part in flux.named_modules() if ".norm" in f".{name}" and name.endswith(".linear")]
    for linear in (*modulations, flux.proj_out):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    return flux


def with_guidance(base: FluxTransformer2DModel) -> FluxTransformer2DModel:
    """The same transformer with a guidance embedder that, untrained, adds nothing."""
    import torch

    flux = build_flux(guidance=True)
    flux.load_state_dict(base.state_dict(), strict=False)
    last = flux.time_text_embed.guidance_embedder.linear_2
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    return flux


def build_flow_schedule(*, guidance: bool) -> FlowMatchEulerDiscreteScheduler:
    """The schedule of FLUX.1: even steps for schnell, and for models with guidance more of them where noise is strong."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    if not guidance:
        return FlowMatchEulerDiscreteScheduler(shift=1.0, base_shift=0.5, max_shift=1.15)
    return FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15)
