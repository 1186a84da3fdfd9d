"""Which component of a model a tensor is of, and what its name is without the component's prefix."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from workbench.checkpoint.names.buffers import is_marker, leftover
from workbench.families import GENERIC, Family, Names
from workbench.families.blocks import numbered_stacks
from workbench.families.clip_names import TEXT_MODEL

DENOISER = "denoiser"  # diffusers calls it `unet` or `transformer`

_DENOISERS = ("model.diffusion_model.", "diffusion_model.", "unet.", "transformer.", "net.")
_TEXT_ENCODERS = {
    "cond_stage_model.transformer.": "text_encoder",
    "cond_stage_model.model.": "text_encoder",
    "cond_stage_model.": "text_encoder",
    "conditioner.embedders.0.transformer.": "text_encoder",
    "conditioner.embedders.0.model.": "text_encoder_2",  # the refiner has only OpenCLIP
    "conditioner.embedders.0.": "text_encoder",
    "conditioner.embedders.1.model.": "text_encoder_2",
    "conditioner.embedders.1.": "text_encoder_2",
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_l.": "text_encoder",
    "text_encoders.clip_h.transformer.": "text_encoder",
    "text_encoders.clip_h.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
    "text_encoders.clip_g.": "text_encoder_2",
    "text_encoders.t5xxl.transformer.": "text_encoder_2",
    "text_encoders.t5xxl.": "text_encoder_2",
    **{f"text_encoder{number}.": f"text_encoder{number}" for number in ("", "_2", "_3", "_4")},
}
# components in files of their own, where no prefix tells them; of a text encoder also what transformers before 5 puts first
_BARE: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    ("", "vae", re.compile(r"(encoder|decoder)\.(conv_|norm_out|down|mid|up)|(post_)?quant_conv\.")),
    (TEXT_MODEL, "text_encoder", re.compile("")),
    ("", "text_encoder", re.compile(r"embeddings\.(token|position)_|encoder\.layers\.|final_layer_norm\.|text_projection\.")),
    ("", "text_encoder_2", re.compile(r"shared\.|encoder\.(block|embed_tokens|final_layer_norm)\.")),  # T5
)
# what a denoiser of no known family is made of, where no prefix tells it
_MODULES = re.compile(
    r"(input_blocks|middle_block|output_blocks|time_embed|label_emb|out|down_blocks|mid_block|up_blocks|time_embedding|add_embedding|conv_in"
    r"|conv_out|conv_norm_out|double_blocks|single_blocks|transformer_blocks|single_transformer_blocks|img_in|txt_in|time_in|final_layer"
    r"|x_embedder|context_embedder|time_text_embed|norm_out|proj_out)\."
)
# the layer of a denoiser that latents go into: of U-Nets, of Flux and its kin, of what cuts pictures into patches
_FIRST_LAYER = re.compile(
    r"(input_blocks\.0\.0|conv_in|img_in(\.proj)?|(all_)?x_embedder(\.[\w-]+)*|(pos|patch)_embed(ding)?(\.proj)?|patchify_proj|proj_in"
    r"|init_x_linear)\.weight"
)


@dataclass(frozen=True)
class Name:
    """A tensor's name taken apart: `prefix + rest` is the name in its file."""

    component: str
    prefix: str
    rest: str


RANKED = "proj_in.weight"  # how a name ends whose tensor's number of dimensions tells families apart


def takes_latents(name: Name) -> bool:
    """Whether it is the weight of the layer that a denoiser's input channels go into."""
    return name.component == DENOISER and _FIRST_LAYER.fullmatch(name.rest) is not None


def without_prefix(key: str, rank: Callable[[str], int]) -> str:
    """A name as families are told by it."""
    rest = key
    if prefix := _denoiser_prefix(key, _DENOISERS):
        rest = key[len(prefix) :]
    return f"{rest}:{rank(key)}" if rest.endswith(RANKED) else rest


def _denoiser_prefix(key: str, prefixes: Sequence[str]) -> str:
    """The denoiser's prefix that a name begins with; OpenCLIP's names begin with `transformer.` as well."""
    prefix = next((prefix for prefix in prefixes if key.startswith(prefix)), "")
    return "" if key.startswith("transformer.resblocks.") else prefix


def split(keys: Sequence[str], family: Family, rank: Callable[[str], int], denoiser_there: bool | None) -> Iterable[tuple[str, Name]]:
    """Component, prefix and the rest of each tensor's name in any file of a family.

    Of names that are some of a model's, it is known whether that has a denoiser.
    """
    apart = {key for key in keys if leftover(key) is not None}  # of no component, whatever they begin with
    found = {key: None if key in apart else _prefixed_name(key, family) for key in keys}
    others = [key for key, name in found.items() if not (name or key in apart or is_marker(key) or _bare_name(key))]
    alone = not any(name and name.component == DENOISER for name in found.values())
    if denoiser_there is not None:  # what lies beside a VAE or a text encoder in its own file is no part of a denoiser
        bare = any(name is None and _bare_name(key) for key, name in found.items())
        stands_alone = alone and not bare and denoiser_there
    elif family is GENERIC:
        stands_alone = alone and bool(numbered_stacks(others))
    else:
        stands_alone = alone and family.told(Names(without_prefix(key, rank) for key in others)) is not None
    for key, name in found.items():
        if name is None and (key in apart or is_marker(key)):
            name = Name("other", "", key)
        yield key, name or _bare_name(key) or Name(DENOISER if stands_alone or _MODULES.match(key) else "other", "", key)


def _prefixed_name(key: str, family: Family) -> Name | None:
    for prefix, component in _prefix_table(family):
        if key.startswith(prefix) and not (component == DENOISER and not _denoiser_prefix(key, (prefix,))):
            return Name(component, prefix, key[len(prefix) :])
    return None


def _bare_name(key: str) -> Name | None:
    for prefix, component, pattern in _BARE:
        if key.startswith(prefix) and pattern.match(key, len(prefix)):
            return Name(component, prefix, key[len(prefix) :])
    return None


@lru_cache(64)
def _table_of(encoders: tuple[tuple[str, str], ...], vae: str, denoiser: str) -> tuple[tuple[str, str], ...]:
    table = dict.fromkeys((*_DENOISERS[:-1], denoiser), DENOISER) | {"first_stage_model.": "vae", "vae.": "vae", vae: "vae"}
    shorter = [(prefix.removesuffix(TEXT_MODEL).removesuffix("transformer."), component) for prefix, component in encoders]
    for prefix, component in (*_TEXT_ENCODERS.items(), *shorter, *encoders):
        start = prefix.removesuffix(TEXT_MODEL)
        table |= {start: component, start + TEXT_MODEL: component}
    return tuple(sorted(table.items(), key=lambda pair: -len(pair[0])))


def _prefix_table(family: Family) -> tuple[tuple[str, str], ...]:
    """Prefix and component, longer prefixes first."""
    encoders = tuple((encoder.prefix, component) for component, encoder in family.text_encoders.items())
    return _table_of(encoders, family.vae, family.prefix)
