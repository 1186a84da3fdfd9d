"""What the names of a checkpoint say: its family, components, layouts, blocks, markers. What is special of a family is in `families`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from workbench import families
from workbench.checkpoint.names.buffers import is_marker, leftover
from workbench.families import GENERIC, Block, Family, Location, Names
from workbench.families.blocks import Blocks, UnetBlocks, blocks_shown, numbered_stacks
from workbench.families.clip_names import BESIDE, OPEN_CLIP, TEXT_MODEL
from workbench.families.correspondence import DIFFUSERS, ORIGINAL, Correspondence, Lookup
from workbench.families.vae_names import VaeNames, modern, vae_names

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
PREDICTION = "modelspec.prediction_type"  # in a header


@dataclass(frozen=True)
class Name:
    """A tensor's name taken apart: `prefix + rest` is the name in its file."""

    component: str
    prefix: str
    rest: str


class Structure:
    """What the names of one checkpoint say; see `structure_of`."""

    def __init__(
        self,
        names: Mapping[str, Name],
        twins: Mapping[str, str],
        family: Family,
        conflict: str | None,
        metadata: Mapping[str, str],
        whole: Structure | None,
    ) -> None:
        self._names, self.metadata, self._whole = names, metadata, whole
        self.twins = twins  # tensors of a text encoder that are there under two names: the second name -> the first
        self.family = family
        self.conflict = conflict  # what is wrong with names of several families

    @cached_property
    def denoiser(self) -> str:
        """What diffusers calls the component that removes the noise."""
        if self.family is GENERIC:
            unet = isinstance(self._blocks, UnetBlocks) or any(name.prefix == "unet." for name in self._names.values())
            return "unet" if unet else "transformer"
        return self.family.denoiser

    def component(self, key: str) -> str:
        """`unet`, `transformer`, `vae`, `text_encoder`, `text_encoder_2` and so on, or `other`."""
        found = self._names[key].component
        return self.denoiser if found == DENOISER else found

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

    def correspondence(self, component: str, rest: str) -> Correspondence | None:
        """What a tensor is in the original layout and in diffusers; None where that is the same, or not known."""
        if component == DENOISER:
            return self.lookup.find(rest)
        if component == "vae":
            return self._vae.find(rest)
        return OPEN_CLIP.find(rest) if component.startswith("text_encoder") else None

    @cached_property
    def layouts(self) -> dict[str, str]:
        """Of each component whose names tell it, the layout that most of them are in: `original` or `diffusers`."""
        found = {}
        if layout := self.family.layout(Names(self._rests(DENOISER))):
            found[DENOISER] = layout
        costly = self.family.conversion.costly
        counts = Counter(
            (component, ORIGINAL if one.original == rest else DIFFUSERS)
            for component, rest in self._bare.values()
            if component not in found and not (component == DENOISER and costly) and (one := self.correspondence(component, rest))
        )
        return {component: layout for (component, layout), _ in reversed(counts.most_common())} | found

    def spellings(self, key: str) -> set[str]:
        """Every name by which a rule may mean a tensor: in its file, without prefix, and what it is in the other layout.

        The last is left out where only diffusers' converter knows it; see `spelled_otherwise`.
        """
        own = {key, self._names[key].rest, *self._either_spelling(key)}
        return own if self._names[key].component == DENOISER and self.family.conversion.costly else own | self.spelled_otherwise(key)

    def _either_spelling(self, key: str) -> tuple[str, ...]:
        """A text encoder's tensor with and without `text_model.`, which programs do not agree on."""
        name = self._names[key]
        if not name.component.startswith("text_encoder") or name.rest.startswith(BESIDE):
            return ()
        stem = name.prefix.removesuffix(TEXT_MODEL)
        return stem + name.rest, stem + TEXT_MODEL + name.rest

    def spelled_otherwise(self, key: str) -> set[str]:
        """What a tensor is called in the other layout."""
        component, rest = self.bare(key)
        one = self.correspondence(component, rest)
        return set() if one is None else set(one.names) if one.original == rest else {one.original}

    @cached_property
    def lookup(self) -> Lookup:
        """The correspondences of the denoiser's tensors."""
        return self._whole.lookup if self._whole else self.family.conversion.lookup(self._rests(DENOISER))

    @cached_property
    def _vae(self) -> VaeNames:
        return self._whole._vae if self._whole and "vae" in self._whole.components else vae_names(self._rests("vae"))

    @cached_property
    def _blocks(self) -> Blocks:
        if self._whole:
            return self._whole._blocks
        return self.family.blocks or blocks_shown(self._rests(DENOISER))

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

    def prefix(self, component: str) -> str | None:
        """That of most of a component's tensors; None for one that is not there."""
        return self._prefixes.get(component)

    def name(self, key: str) -> Name:
        return self._names[key]

    def block(self, key: str) -> Block | None:
        """The block of the denoiser that `key` lies in, or None."""
        return self.location(key).block

    def location(self, key: str) -> Location:
        """The block of the denoiser that `key` lies in, or the module beside the blocks."""
        name = self._names[key]
        if name.component != DENOISER:
            return Location()
        if block := self._blocks.block(name.rest, self.lookup):
            return Location(block)
        return Location(module=self._blocks.module(name.rest, self.lookup))

    def marked(self, *marks: str) -> list[str]:
        """The markers that begin so (`v_pred`, `ztsnr`)."""
        return [key for key, name in self._names.items() if name.component == "other" and name.rest.partition(".")[0] in marks]

    @cached_property
    def prediction(self) -> str:
        """`"v"` where a marker tensor or the header says so, `"flow"`, `"epsilon"`.

        `"unknown"` where nothing tells: without a denoiser, and of SD 2.x, of which there are both kinds.
        """
        if self.marked("v_pred", "edm_vpred"):
            return "v"
        if self.metadata.get(PREDICTION) in ("v", "epsilon", "unknown"):
            return self.metadata[PREDICTION]
        return self.family.prediction if self.denoiser in self.components else "unknown"

    @cached_property
    def layout(self) -> str:
        """`"LDM"`, `"BFL"` (Flux's own), `"original"` or `"diffusers"`, told by the denoiser's names; `"plain"` without one."""
        if self.family is GENERIC or self.denoiser not in self.components:
            return "plain"
        return self.family.original_name if self.layouts.get(DENOISER) == ORIGINAL else DIFFUSERS


def structure_of(
    keys: Iterable[str],
    rank: Callable[[str], int],
    metadata: Mapping[str, str] | None = None,
    whole: Structure | None = None,
    hint: Family | None = None,
) -> Structure:
    """What names say; `rank` is the number of dimensions of a tensor, which tells SD 1.x from 2.x without text encoder.

    Where the names are some of a model's, that model, `whole`, says what they do not; `hint` is the family where they tell none for sure.
    """
    keys = list(keys)
    family, told = (whole.family, {}) if whole else families.tell(_without_prefix(key, rank) for key in keys if leftover(key) is None)
    family = hint if hint and (family is GENERIC or family.assumed) and not told else family
    names: dict[str, Name] = {}
    twins: dict[str, str] = {}
    taken: dict[tuple[str, str], str] = {}
    for key, name in _split(keys, family, rank, whole):
        if first := taken.get((name.component, name.rest)):  # the same tensor under two prefixes: neither may hide the other
            twins |= {key: first} if name.component.startswith("text_encoder") else {}
            name = Name("other", "", key)
        taken.setdefault((name.component, name.rest), key)
        names[key] = name
    several = " and ".join(f"{key!r} is of {family}" for family, key in told.items())
    metadata = metadata or (whole.metadata if whole else {})
    return Structure(names, twins, family, f"{several}: these are tensors of several models" if several else None, metadata, whole)


def prefixed(prefix: str, rest: str) -> str:
    """A name with its prefix; what lies beside CLIP's `text_model.` has none of it."""
    return (prefix.removesuffix(TEXT_MODEL) if rest.startswith(BESIDE) else prefix) + rest


def _without_prefix(key: str, rank: Callable[[str], int]) -> str:
    """A name as families are told by it."""
    rest = key
    if prefix := _denoiser_prefix(key, _DENOISERS):
        rest = key[len(prefix) :]
    return f"{rest}:{rank(key)}" if rest.endswith("proj_in.weight") else rest


def _denoiser_prefix(key: str, prefixes: Sequence[str]) -> str:
    """The denoiser's prefix that a name begins with; OpenCLIP's names begin with `transformer.` as well."""
    prefix = next((prefix for prefix in prefixes if key.startswith(prefix)), "")
    return "" if key.startswith("transformer.resblocks.") else prefix


def _split(keys: Sequence[str], family: Family, rank: Callable[[str], int], whole: Structure | None) -> Iterable[tuple[str, Name]]:
    """Component, prefix and the rest of each tensor's name in any file of a family."""
    apart = {key for key in keys if leftover(key) is not None}  # of no component, whatever they begin with
    found = {key: None if key in apart else _prefixed_name(key, family) for key in keys}
    others = [key for key, name in found.items() if not (name or key in apart or is_marker(key) or _bare_name(key))]
    alone = not any(name and name.component == DENOISER for name in found.values())
    if whole:  # what lies beside a VAE or a text encoder in its own file is no part of a denoiser
        bare = any(name is None and _bare_name(key) for key, name in found.items())
        stands_alone = alone and not bare and whole.denoiser in whole.components
    elif family is GENERIC:
        stands_alone = alone and bool(numbered_stacks(others))
    else:
        stands_alone = alone and family.told(Names(_without_prefix(key, rank) for key in others)) is not None
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
