"""What the names of a checkpoint say: its family, components, layouts, blocks, markers. What is special of a family is in `families`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from workbench import families
from workbench.checkpoint.names.buffers import leftover
from workbench.checkpoint.names.components import DENOISER, RANKED, Name, split, without_prefix
from workbench.families import GENERIC, Block, Family, Location, Names
from workbench.families.blocks import Blocks, UnetBlocks, blocks_shown
from workbench.families.clip_names import BESIDE, OPEN_CLIP, TEXT_MODEL
from workbench.families.correspondence import DIFFUSERS, ORIGINAL, Correspondence, Lookup
from workbench.families.vae_names import VaeNames, modern, vae_names

PREDICTION = "modelspec.prediction_type"  # in a header


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
        self._locations: dict[str, Location] = {}  # those that were asked for

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
        if key not in self._locations:  # asked again and again
            self._locations[key] = self._located(self._names[key])
        return self._locations[key]

    def _located(self, name: Name) -> Location:
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
    partial: bool = False,
) -> Structure:
    """What names say; `rank` is the number of dimensions of a tensor, which tells SD 1.x from 2.x without text encoder.

    Where the names are some of a model's, that model, `whole`, says what they do not; `hint` is the family where they tell none for sure;
    of names that are only some (`partial`), what they lack tells nothing.
    """
    keys = tuple(keys)
    ranks = tuple((key, rank(key)) for key in keys if key.endswith(RANKED))
    known = tuple(map(_Identity, families.so_far()))
    return _structure(keys, ranks, tuple((metadata or {}).items()), whole, _Identity(hint), partial, known)


@dataclass(frozen=True, eq=False)
class _Identity:
    """Is equal to another of the very same thing."""

    of: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.of is other.of

    def __hash__(self) -> int:
        return id(self.of)


@lru_cache(maxsize=32)
def _structure(
    keys: tuple[str, ...],
    ranks: tuple[tuple[str, int], ...],
    given: tuple[tuple[str, str], ...],
    whole: Structure | None,
    hinted: _Identity,
    partial: bool,
    known: tuple[_Identity, ...],  # families by which they were told: another may tell otherwise
) -> Structure:
    """`structure_of`; every merge of the same models, and there is one for each move of a slider, has the names of the last."""
    rank, hint = dict(ranks).__getitem__, hinted.of
    family, told = (whole.family, {}) if whole else families.tell(without_prefix(key, rank) for key in keys if leftover(key) is None)
    family = GENERIC if partial and family.assumed and not whole else family
    family = hint if hint and (family is GENERIC or family.assumed) and not told else family
    names: dict[str, Name] = {}
    twins: dict[str, str] = {}
    taken: dict[tuple[str, str], str] = {}
    for key, name in split(keys, family, rank, whole.denoiser in whole.components if whole else None):
        if first := taken.get((name.component, name.rest)):  # the same tensor under two prefixes: neither may hide the other
            twins |= {key: first} if name.component.startswith("text_encoder") else {}
            name = Name("other", "", key)
        taken.setdefault((name.component, name.rest), key)
        names[key] = name
    several = " and ".join(f"{key!r} is of {family}" for family, key in told.items())
    metadata = dict(given) or (whole.metadata if whole else {})
    return Structure(names, twins, family, f"{several}: these are tensors of several models" if several else None, metadata, whole)


def prefixed(prefix: str, rest: str) -> str:
    """A name with its prefix; what lies beside CLIP's `text_model.` has none of it."""
    return (prefix.removesuffix(TEXT_MODEL) if rest.startswith(BESIDE) else prefix) + rest
