"""Small random pipelines of diffusers' own classes, to draw with both ways: one builder for each class, some in several variants.

The weights are random, and large enough that each part of a pipeline shows in its pictures. A prompt is spelled letter by letter.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tiny_parts import (
    clip,
    clip_tokenizer,
    deep_vae,
    flow_vae,
    flux2_vae,
    gemma,
    gemma_tokenizer,
    mistral3,
    qwen3,
    qwen3_vl,
    qwen25_vl,
    qwen_tokenizer,
    qwen_vae,
    t5,
    t5_tokenizer,
    vae,
)

from workbench.render.silence import quiet

LOOKS = ("q_proj", "k_proj", "add_q", "add_k", "add_v", "txt_in", "context_embedder", ".q.", ".k.")
HEADS = {"attention_head_dim": 8, "num_attention_heads": 2}
FLOW = {
    "shift": 1.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 16,
    "max_image_seq_len": 256,
}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def sd(**more: Any) -> Any:
    linear = bool(more.pop("linear", False))
    unet = diffusers.UNet2DConditionModel(
        **{"in_channels": 4, "sample_size": 16, "block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1} | more,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(1, 2) if linear else 2,
        use_linear_projection=linear,
        cross_attention_dim=16,
    )
    return diffusers.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        unet=unet,
        scheduler=diffusers.PNDMScheduler(**BETAS, skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sd2() -> Any:
    pipeline = sd(linear=True)
    pipeline.scheduler = diffusers.DDIMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction")
    return pipeline


def sdxl(**more: Any) -> Any:
    unet = diffusers.UNet2DConditionModel(
        **{"in_channels": 4, "sample_size": 16, "block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1} | more,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(1, 2),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
        cross_attention_dim=16 + 24,
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip(),
        text_encoder_2=clip(projected=True, width=24),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(**BETAS, timestep_spacing="leading"),
        add_watermarker=False,
    )


def sd3(*, with_t5: bool = True) -> Any:
    sizes = {
        "caption_projection_dim": 16,
        "joint_attention_dim": 32,
        "pooled_projection_dim": 32,
        "sample_size": 16,
        "pos_embed_max_size": 32,
    }
    transformer = diffusers.SD3Transformer2DModel(
        in_channels=4, out_channels=4, num_layers=2, dual_attention_layers=(0,), qk_norm="rms_norm", **HEADS, **sizes
    )
    encoder = t5() if with_t5 else None
    if encoder is not None:  # as wide as both CLIPs, as in the published ones
        encoder = transformers.T5EncoderModel(transformers.T5Config(**encoder.config.to_dict() | {"d_model": 32}))
    return diffusers.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=flow_vae(),
        text_encoder=clip(projected=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip(projected=True),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=encoder,
        tokenizer_3=t5_tokenizer() if with_t5 else None,
    )


def flux(*, guidance: bool = True) -> Any:
    sizes = {"num_layers": 2, "num_single_layers": 2, "joint_attention_dim": 16, "pooled_projection_dim": 16, "axes_dims_rope": (2, 2, 4)}
    return diffusers.FluxPipeline(
        transformer=diffusers.FluxTransformer2DModel(in_channels=16, guidance_embeds=guidance, **HEADS, **sizes),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLOW),
        vae=flow_vae(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5(),
        tokenizer_2=t5_tokenizer(),
    )


def _flux2_parts(*, guidance: bool = True) -> dict[str, Any]:
    sizes = {"num_layers": 1, "num_single_layers": 2, "joint_attention_dim": 48, "axes_dims_rope": (2, 2, 2, 2)}
    return {
        "transformer": diffusers.Flux2Transformer2DModel(in_channels=16, guidance_embeds=guidance, **HEADS, **sizes),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(**FLOW),
        "vae": flux2_vae(),
    }


def flux2() -> Any:
    """Its processor for pictures, which needs torchvision, is left out: it reads a prompt as its tokenizer does."""
    return diffusers.Flux2Pipeline(text_encoder=mistral3(), tokenizer=qwen_tokenizer(), **_flux2_parts())


def flux2_klein(*, distilled: bool = False) -> Any:
    encoder = qwen3(27, language_head=True)
    return diffusers.Flux2KleinPipeline(
        text_encoder=encoder, tokenizer=qwen_tokenizer(), is_distilled=distilled, **_flux2_parts(guidance=False)
    )


def chroma() -> Any:
    sizes = {"num_layers": 1, "num_single_layers": 2, "joint_attention_dim": 16, "axes_dims_rope": (2, 2, 4)}
    approximator = {"approximator_num_channels": 16, "approximator_hidden_dim": 16, "approximator_layers": 2}
    return diffusers.ChromaPipeline(
        transformer=diffusers.ChromaTransformer2DModel(in_channels=16, **HEADS, **sizes, **approximator),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLOW),
        vae=flow_vae(),
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
    )


def qwen_image() -> Any:
    sizes = {"patch_size": 2, "in_channels": 16, "out_channels": 4, "num_layers": 2, "joint_attention_dim": 16, "axes_dims_rope": (2, 2, 4)}
    return diffusers.QwenImagePipeline(
        transformer=diffusers.QwenImageTransformer2DModel(**HEADS, **sizes),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLOW),
        vae=qwen_vae(),
        text_encoder=qwen25_vl(),
        tokenizer=qwen_tokenizer(),
    )


def z_image() -> Any:
    sizes = {
        "dim": 32,
        "n_layers": 2,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "n_kv_heads": 2,
        "axes_dims": [8, 4, 4],
        "axes_lens": [512, 64, 64],
    }
    return diffusers.ZImagePipeline(
        transformer=diffusers.ZImageTransformer2DModel(in_channels=4, cap_feat_dim=16, **sizes),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=flow_vae(),
        text_encoder=qwen3(),
        tokenizer=qwen_tokenizer(),
    )


def krea2() -> Any:
    text = {"text_num_attention_heads": 2, "text_num_key_value_heads": 2, "text_intermediate_size": 16, "text_hidden_dim": 16}
    sizes = {"in_channels": 16, "num_layers": 2, "num_key_value_heads": 1, "intermediate_size": 16, "timestep_embed_dim": 8}
    blocks = {"num_layerwise_text_blocks": 1, "num_refiner_text_blocks": 1, "num_text_layers": 2, "axes_dims_rope": (2, 2, 4)}
    return diffusers.Krea2Pipeline(
        transformer=diffusers.Krea2Transformer2DModel(**HEADS, **sizes, **text, **blocks),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLOW),
        vae=qwen_vae(),
        text_encoder=qwen3_vl(),
        tokenizer=qwen_tokenizer(),
        text_encoder_select_layers=(1, 3),
    )


def lumina2() -> Any:
    sizes = {"hidden_size": 36, "num_layers": 2, "num_refiner_layers": 1, "num_attention_heads": 3, "num_kv_heads": 1, "multiple_of": 8}
    return diffusers.Lumina2Pipeline(
        transformer=diffusers.Lumina2Transformer2DModel(
            sample_size=8, in_channels=4, axes_dim_rope=(4, 4, 4), axes_lens=(512, 64, 64), cap_feat_dim=16, **sizes
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=flow_vae(levels=4),  # its pipeline counts on eight pixels for a latent
        text_encoder=gemma(),
        tokenizer=gemma_tokenizer(),
    )


def sana() -> Any:
    cross = {"num_cross_attention_heads": 2, "cross_attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": 16}
    return diffusers.SanaPipeline(
        transformer=diffusers.SanaTransformer2DModel(in_channels=4, out_channels=4, num_layers=1, sample_size=16, **HEADS, **cross),
        scheduler=diffusers.DPMSolverMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0, algorithm_type="dpmsolver++"
        ),
        vae=deep_vae(),
        text_encoder=gemma(),
        tokenizer=gemma_tokenizer(),
    )


def aura_flow() -> Any:
    sizes = {"joint_attention_dim": 16, "caption_projection_dim": 16, "pos_embed_max_size": 1024, "sample_size": 16}
    return diffusers.AuraFlowPipeline(
        transformer=diffusers.AuraFlowTransformer2DModel(num_mmdit_layers=2, num_single_dit_layers=1, **HEADS, **sizes),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.7),
        vae=vae(),
        text_encoder=t5(universal=True),
        tokenizer=t5_tokenizer(),
    )


def pixart(*, alpha: bool = False) -> Any:
    sizes = {"num_layers": 2, "cross_attention_dim": 16, "caption_channels": 16, "norm_num_groups": 4, "sample_size": 32}
    transformer = diffusers.PixArtTransformer2DModel(in_channels=4, out_channels=8, **HEADS, **sizes)
    schedule = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
    return (diffusers.PixArtAlphaPipeline if alpha else diffusers.PixArtSigmaPipeline)(
        transformer=transformer,
        scheduler=diffusers.DPMSolverMultistepScheduler(**schedule),
        vae=vae(levels=4),
        text_encoder=t5(),
        tokenizer=t5_tokenizer(),
    )


BUILDERS: dict[str, Callable[[], Any]] = {
    "SD 1": sd,
    "SD 2": sd2,
    "SDXL": sdxl,
    "SD 3": sd3,
    "SD 3 without T5": lambda: sd3(with_t5=False),
    "Flux": flux,
    "Flux without guidance": lambda: flux(guidance=False),
    "Flux.2": flux2,
    "Flux.2 Klein": flux2_klein,
    "Chroma": chroma,
    "Qwen-Image": qwen_image,
    "Z-Image": z_image,
    "Krea 2": krea2,
    "Lumina 2": lumina2,
    "Sana": sana,
    "AuraFlow": aura_flow,
    "PixArt Sigma": pixart,
    "PixArt Alpha": lambda: pixart(alpha=True),
}


def build(kind: str | Callable[[], Any], seed: int = 1) -> Any:
    """A pipeline with random weights: equal for equal seeds."""
    with quiet(), warnings.catch_warnings(action="ignore"):  # of what diffusers itself does in an old way
        pipeline = (BUILDERS[kind] if isinstance(kind, str) else kind)()
    pipeline.set_progress_bar_config(disable=True)
    for name, part in sorted(pipeline.components.items()):
        if isinstance(part, torch.nn.Module):
            _stir(part.eval().requires_grad_(False), int(hashlib.sha256(f"{seed} {name}".encode()).hexdigest()[:8], 16))
    return pipeline


def _stir(module: torch.nn.Module, seed: int) -> None:
    """Give every tensor values that matter, and none that grow from layer to layer."""
    generator = torch.Generator().manual_seed(seed)
    running = [(name, tensor) for name, tensor in module.named_buffers() if "running_" in name]  # other buffers are calculated
    for name, tensor in [*module.named_parameters(), *running]:
        noise = torch.randn(tensor.shape, generator=generator)
        if "running_" in name:
            tensor.copy_(noise * 0.1 + 1 if name.endswith("var") else noise * 0.1)
        elif tensor.dim() < 2:
            tensor.copy_(1 + noise * 0.1 if name.endswith("weight") else noise * 0.1)
        elif "embed" in name and tensor.dim() == 2 and len(tensor) > 64:  # a row for each token
            tensor.copy_(noise)
        else:
            tensor.copy_(noise / max(1, tensor[0].numel()) ** 0.5)
            if any(part in name for part in LOOKS):
                tensor.mul_(3)  # so that a few tokens among many show
        if name in ("decoder.conv_out.weight", "decoder.conv_out.conv.weight"):
            tensor.mul_(2)  # so that pictures have strong colours


def save(kind: str | Callable[[], Any], folder: Path, seed: int = 1) -> Path:
    """Such a pipeline in a folder."""
    with quiet(), warnings.catch_warnings(action="ignore"):
        build(kind, seed).save_pretrained(folder)
    return folder
