"""Flux.1: dev, schnell, Krea, and what was made of them. Its names in both layouts are a table: why, docs/decisions/0015 says."""

from collections.abc import Collection

from workbench.families.blocks import Stacks
from workbench.families.correspondence import Table
from workbench.families.declaration import Encoder, Family, Kohya, ModelSpec, Pictures
from workbench.families.known import register


def _double(stream: str, query: str, norm: str, names: tuple[str, str, str]) -> dict[str, str]:
    """One stream, pictures or text, of the double blocks."""
    ours, theirs = f"double_blocks.#.{stream}", "transformer_blocks.#"
    out, modulation, feed_forward = names
    return {
        f"{ours}_attn.qkv.*": " + ".join(f"{theirs}.attn.{query.format(one)}.*" for one in "qkv"),
        f"{ours}_attn.norm.query_norm.scale": f"{theirs}.attn.{norm.format('q')}.weight",
        f"{ours}_attn.norm.key_norm.scale": f"{theirs}.attn.{norm.format('k')}.weight",
        f"{ours}_attn.proj.*": f"{theirs}.attn.{out}.*",
        f"{ours}_mod.lin.*": f"{theirs}.{modulation}.linear.*",
        f"{ours}_mlp.0.*": f"{theirs}.{feed_forward}.net.0.proj.*",
        f"{ours}_mlp.2.*": f"{theirs}.{feed_forward}.net.2.*",
    }


_SINGLE = "single_transformer_blocks.#"
_EMBEDDERS = {"time": "timestep", "vector": "text", "guidance": "guidance"}
# the hidden part of a single block's linear1 is four times as wide as the model, in every Flux (diffusers' mlp_ratio is no option)
NAMES = Table(
    {
        "img_in.*": "x_embedder.*",
        "txt_in.*": "context_embedder.*",
        **{
            f"{ours}_in.{side}_layer.*": f"time_text_embed.{theirs}_embedder.linear_{number}.*"
            for ours, theirs in _EMBEDDERS.items()
            for number, side in enumerate(("in", "out"), 1)
        },
        **_double("img", "to_{}", "norm_{}", ("to_out.0", "norm1", "ff")),
        **_double("txt", "add_{}_proj", "norm_added_{}", ("to_add_out", "norm1_context", "ff_context")),
        "single_blocks.#.linear1.*": " + ".join([*(f"{_SINGLE}.attn.to_{one}.*" for one in "qkv"), f"4:{_SINGLE}.proj_mlp.*"]),
        "single_blocks.#.linear2.*": f"{_SINGLE}.proj_out.*",
        "single_blocks.#.norm.query_norm.scale": f"{_SINGLE}.attn.norm_q.weight",
        "single_blocks.#.norm.key_norm.scale": f"{_SINGLE}.attn.norm_k.weight",
        "single_blocks.#.modulation.lin.*": f"{_SINGLE}.norm.linear.*",
        "final_layer.linear.*": "proj_out.*",
        "final_layer.adaLN_modulation.1.*": "norm_out.linear.*[1] + norm_out.linear.*[0]",  # shift, scale; diffusers: scale, shift
    }
)


def _guided(names: Collection[str]) -> bool:
    """Whether a model is of dev's kind: it has a guidance embedder."""
    return any("guidance" in name for name in names)


def _pictures(names: Collection[str]) -> Pictures:
    return Pictures(1024, 20 if _guided(names) else 4, 3.5)


def _specification(names: Collection[str], prediction: str) -> ModelSpec:
    kind = "dev" if _guided(names) else "schnell"
    return ModelSpec(f"flux-1-{kind}", "https://github.com/black-forest-labs/flux", "1024x1024")


FAMILY = register(Family(
    "Flux",
    original=(
        "double_blocks.#.img_mod.lin.", "double_blocks.#.txt_mod.lin.", "single_blocks.#.modulation.lin.",
        ("vector_in.", "time_in.in_layer."), ("time_in.in_layer.", "double_blocks.#.img_attn.qkv.bias"),
        ("time_in.in_layer.", "img_in.bias"),
    ),
    diffusers=(
        ("x_embedder.weight", "time_text_embed."),
        ("x_embedder.bias", "time_text_embed."),
    ),
    unless=("pos_embed.", "distilled_guidance_layer.", "controlnet_", "control_"),
    original_name="BFL",
    vae="vae.",
    text_encoders={
        "text_encoder": Encoder("text_encoders.clip_l.transformer.text_model.", clip=True),
        "text_encoder_2": Encoder("text_encoders.t5xxl.transformer."),
    },
    blocks=Stacks(
        ("double_blocks.#", "transformer_blocks.#"), ("single_blocks.#", "single_transformer_blocks.#"), one_name=True
    ),
    conversion=NAMES,
    prediction="flow",
    modelspec=_specification,
    kohya=Kohya(
        "flux1",
        {"denoiser": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te3_"},
        module="networks.lora_flux",
    ),
    gguf="flux",
    model="FluxTransformer2DModel",
    pipeline="FluxPipeline",
    configs="hf://black-forest-labs/FLUX.1-schnell",
    pictures=_pictures,
))  # fmt: skip
