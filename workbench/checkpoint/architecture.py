"""Which model a set of tensor names is: architecture, components, layouts, markers. Told by names, never by sizes."""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from workbench.checkpoint.blocks import Block, flux_block, unet_block
from workbench.checkpoint.lines import FLUX, OPEN_CLIP, Line
from workbench.checkpoint.unet_names import UnetNames, unet_names
from workbench.checkpoint.vae_names import VaeNames, modern, vae_names


class Architecture(enum.Enum):
    SD1 = "SD 1.x"
    SD2 = "SD 2.x"
    SDXL = "SDXL"
    FLUX = "Flux"
    GENERIC = "generic"

    @property
    def input_blocks(self) -> int:
        """How many input blocks the full-sized U-Net has; MID comes after them."""
        return 9 if self is Architecture.SDXL else 12


ORIGINAL, DIFFUSERS = "original", "diffusers"  # the layouts that a component has: LDM's, BFL's, OpenCLIP's, and diffusers'

# prefix -> component, longest first where one begins another
_PREFIXES: tuple[tuple[str, str], ...] = (
    ("model.diffusion_model.", "denoiser"),
    ("diffusion_model.", "denoiser"),
    ("unet.", "denoiser"),
    ("first_stage_model.", "vae"),
    ("vae.", "vae"),
    ("cond_stage_model.transformer.text_model.", "text_encoder"),
    ("cond_stage_model.transformer.", "text_encoder"),
    ("cond_stage_model.model.", "text_encoder"),
    ("cond_stage_model.", "text_encoder"),
    ("conditioner.embedders.0.transformer.text_model.", "text_encoder"),
    ("conditioner.embedders.0.transformer.", "text_encoder"),
    ("conditioner.embedders.0.model.", "text_encoder_2"),  # the refiner has only OpenCLIP
    ("conditioner.embedders.0.", "text_encoder"),
    ("conditioner.embedders.1.model.", "text_encoder_2"),
    ("conditioner.embedders.1.", "text_encoder_2"),
    ("text_encoders.clip_l.transformer.text_model.", "text_encoder"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_l.", "text_encoder"),
    ("text_encoders.t5xxl.transformer.", "text_encoder_2"),
    ("text_encoders.t5xxl.", "text_encoder_2"),
    ("text_encoder.text_model.", "text_encoder"),
    ("text_encoder.", "text_encoder"),
    ("text_encoder_2.text_model.", "text_encoder_2"),
    ("text_encoder_2.", "text_encoder_2"),
)
_DENOISER = re.compile(
    r"(input_blocks|middle_block|output_blocks|double_blocks|single_blocks|single_transformer_blocks|down_blocks|up_blocks"
    r"|mid_block|time_embed|time_embedding|label_emb|add_embedding|out|conv_in|conv_out|conv_norm_out|img_in|txt_in|time_in"
    r"|vector_in|guidance_in|final_layer|x_embedder|context_embedder|time_text_embed|norm_out|proj_out|transformer_blocks)\."
)
# components in files of their own, where no prefix tells them; of a text encoder also what transformers before 5 puts first
_BARE: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    ("transformer.", "denoiser", _DENOISER),
    ("", "denoiser", _DENOISER),
    ("", "vae", re.compile(r"(encoder|decoder)\.(conv_|norm_out|down|mid|up)|(post_)?quant_conv\.")),
    ("text_model.", "text_encoder", re.compile("")),
    ("", "text_encoder", re.compile(r"embeddings\.(token|position)_|encoder\.layers\.|final_layer_norm\.|text_projection\.")),
    ("", "text_encoder_2", re.compile(r"shared\.|encoder\.(block|embed_tokens|final_layer_norm)\.")),  # T5
)
_TRANSFORMERS = "text_model."  # where transformers before 5, and LDM files, have CLIP's tensors, but for these:
_BESIDE = ("text_projection", "logit_scale")
_BFL = {"double_blocks", "single_blocks", "final_layer", "img_in", "txt_in", "time_in", "vector_in", "guidance_in"}
_LDM = {"input_blocks", "middle_block", "output_blocks", "time_embed", "label_emb", "out"}
_FLUX = _BFL - {"final_layer"} | {"single_transformer_blocks", "transformer_blocks", "time_text_embed"}
_MARKERS = re.compile(r"(^|\.)(v_pred|ztsnr|scaled_fp8|edm_vpred\.sigma_(min|max)|position_ids)$")


@dataclass(frozen=True)
class Name:
    """A tensor's name taken apart: `prefix + rest` is the name in its file."""

    component: str
    prefix: str
    rest: str


class Structure:
    """What the names of one checkpoint say; see `structure_of`."""

    def __init__(self, names: Mapping[str, Name], rank: Callable[[str], int], whole: Structure | None = None) -> None:
        self._names = names
        self._rank = rank
        self._whole = whole

    @cached_property
    def architecture(self) -> Architecture:
        return self._whole.architecture if self._whole else _architecture(self._names, self._rank)

    @cached_property
    def denoiser(self) -> str:
        """What diffusers calls the component that removes the noise."""
        return "transformer" if self.architecture is Architecture.FLUX else "unet"

    def component(self, key: str) -> str:
        """`unet`, `transformer`, `vae`, `text_encoder`, `text_encoder_2` or `other`."""
        found = self._names[key].component
        return self.denoiser if found == "denoiser" else found

    @cached_property
    def components(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.component(key) for key in self._names))

    def bare(self, key: str) -> tuple[str, str]:
        """Component, and name without prefix, as this checkpoint's layout has it today; no two tensors share one."""
        return self._bare[key]

    @cached_property
    def _bare(self) -> dict[str, tuple[str, str]]:
        return {key: (name.component, modern(name.rest) if name.component == "vae" else name.rest) for key, name in self._names.items()}

    @cached_property
    def by_bare(self) -> dict[tuple[str, str], str]:
        return {bare: key for key, bare in self._bare.items()}

    def line(self, component: str, rest: str) -> Line | None:
        """What a tensor is in the original layout and in diffusers; None where that is the same, or not known."""
        if component == "denoiser":
            return FLUX.line(rest) if self.architecture is Architecture.FLUX else self._unet.line(rest)
        if component == "vae":
            return self._vae.line(rest)
        return OPEN_CLIP.line(rest) if component.startswith("text_encoder") else None

    @cached_property
    def layouts(self) -> dict[str, str]:
        """Of each component whose names tell it, the layout that most of them are in: `original` or `diffusers`."""
        counts = Counter(
            (component, ORIGINAL if line.original == rest else DIFFUSERS)
            for component, rest in self._bare.values()
            if (line := self.line(component, rest))
        )
        return {component: layout for (component, layout), _ in reversed(counts.most_common())}

    def spellings(self, key: str) -> set[str]:
        """Every name by which a rule may mean a tensor: in its file, without prefix, and what it is in the other layout."""
        component, rest = self.bare(key)
        line = self.line(component, rest)
        others = () if line is None else line.names if line.original == rest else (line.original,)
        return {key, self._names[key].rest, *others}

    @cached_property
    def _unet(self) -> UnetNames:
        return self._whole._unet if self._whole else unet_names(self._rests("denoiser"))

    @cached_property
    def _vae(self) -> VaeNames:
        return self._whole._vae if self._whole else vae_names(self._rests("vae"))

    def _rests(self, component: str) -> list[str]:
        return [name.rest for name in self._names.values() if name.component == component]

    @cached_property
    def _prefixes(self) -> dict[str, str]:
        counts = Counter((name.component, name.prefix) for name in self._names.values())
        return {component: prefix for (component, prefix), _ in reversed(counts.most_common())}

    def spell(self, component: str, rest: str) -> str | None:
        """What this checkpoint calls a tensor, or would, after its fellows; None for a component that it does not have."""
        known = self.by_bare.get((component, rest))
        if known is None and component in self._prefixes:
            return prefixed(self._prefixes[component], rest)
        return known

    def name(self, key: str) -> Name:
        return self._names[key]

    def block(self, key: str) -> Block | None:
        """The block of the denoiser that `key` lies in, or None."""
        name = self._names[key]
        if name.component != "denoiser":
            return None
        if self.architecture is Architecture.FLUX:
            return flux_block(name.rest)
        return unet_block(name.rest, self.architecture.input_blocks, self._unet.layers)

    @cached_property
    def prediction(self) -> str:
        """`"v"` where a marker tensor says so, `"flow"` of Flux, else `"epsilon"`.

        `"unknown"` where names do not tell: without a denoiser, and of SD 2.x, of which there are both kinds.
        """
        if self.architecture is Architecture.FLUX:
            return "flow"
        if any(name.rest == "v_pred" or name.rest.startswith("edm_vpred.") for name in self._names.values()):
            return "v"
        told = self.architecture in (Architecture.SD1, Architecture.SDXL) and "unet" in self.components
        return "epsilon" if told else "unknown"

    @cached_property
    def layout(self) -> str:
        """`"LDM"`, `"diffusers"`, or `"BFL"` (Flux's own), told by the denoiser's names; `"plain"` without one."""
        heads = {name.rest.split(".", 1)[0] for name in self._names.values() if name.component == "denoiser"}
        if heads & _BFL:
            return "BFL"
        if heads & _LDM:
            return "LDM"
        return "diffusers" if heads else "plain"


def structure_of(keys: Iterable[str], rank: Callable[[str], int], whole: Structure | None = None) -> Structure:
    """What names say; `rank` is the number of dimensions of a tensor, which tells SD 1.x from 2.x without text encoder.

    Where the names are some of a model's, that model, `whole`, says what they do not.
    """
    names: dict[str, Name] = {}
    taken = set()
    for key in keys:
        name = split_name(key)
        if (name.component, name.rest) in taken:  # the same tensor under two prefixes: neither may hide the other
            name = Name("other", "", key)
        taken.add((name.component, name.rest))
        names[key] = name
    return Structure(names, rank, whole)


def prefixed(prefix: str, rest: str) -> str:
    """A name with its prefix; what lies beside CLIP's `text_model.` has none of it."""
    return (prefix.removesuffix(_TRANSFORMERS) if rest.startswith(_BESIDE) else prefix) + rest


def is_marker(key: str) -> bool:
    """Whether a tensor is a mark or an index (`v_pred`, `position_ids`, ...), which is carried over and never averaged."""
    return _MARKERS.search(key) is not None


def split_name(key: str) -> Name:
    """Component, prefix and the rest of a tensor's name in any file."""
    for prefix, component in _PREFIXES:
        if key.startswith(prefix):
            return Name(component, prefix, key[len(prefix) :])
    for prefix, component, pattern in _BARE:
        if key.startswith(prefix) and pattern.match(key, len(prefix)):
            return Name(component, prefix, key[len(prefix) :])
    return Name("other", "", key)


def _architecture(names: Mapping[str, Name], rank: Callable[[str], int]) -> Architecture:
    rests = {name.rest: key for key, name in names.items() if name.component == "denoiser"}
    heads = {rest.split(".", 1)[0] for rest in rests}
    if heads & _FLUX:
        return Architecture.FLUX
    if heads & {"label_emb", "add_embedding"} or any(".transformer_blocks.1." in rest for rest in rests):
        return Architecture.SDXL
    if any(key.startswith("conditioner.embedders.") for key in names):
        return Architecture.SDXL
    if any(key.startswith("cond_stage_model.model.") for key in names):
        return Architecture.SD2
    if not heads & {"input_blocks", "middle_block", "output_blocks", "down_blocks", "mid_block", "up_blocks"}:
        sd1 = any(key.startswith("cond_stage_model.transformer.") for key in names)
        return Architecture.SD1 if sd1 else Architecture.GENERIC
    # SD 2.x and SDXL project into their attention with a matrix, SD 1.x with a 1x1 convolution
    projections = [key for rest, key in rests.items() if rest.endswith("proj_in.weight")]
    if projections and all(rank(key) == 2 for key in projections):
        return Architecture.SD2
    return Architecture.SD1
