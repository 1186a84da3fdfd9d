"""How tensors are called in a layout: which component is named how, under which prefix. What they are made of there is in `conversion`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from workbench.checkpoint.names.components import DENOISER
from workbench.checkpoint.names.structure import Structure, prefixed
from workbench.families.clip_names import BESIDE, TEXT_MODEL
from workbench.families.correspondence import DIFFUSERS, ORIGINAL

Layout = Literal["diffusers", "original", "LDM", "BFL", "ComfyUI"]


class Naming(Protocol):
    """How tensors are to be called."""

    def layout(self, component: str) -> str | None:
        """`original` or `diffusers`; None where either will do."""

    def spell(self, component: str, rest: str) -> str | None:
        """The name of a tensor that is called `rest` in that layout; None where its own will do."""


@dataclass(frozen=True)
class After:
    """Names as a model has them, or would have those of another, `source`.

    Components that it lacks are named as in the files of its family, where its own names are like theirs.
    """

    structure: Structure
    source: Structure

    def layout(self, component: str) -> str | None:
        return self.structure.layouts.get(component) or (self._absent.layout(component) if self._absent else None)

    def spell(self, component: str, rest: str) -> str | None:
        usual = self._absent.spell(component, rest) if self._absent else None
        spelled = self.structure.spell(component, rest) or usual
        own = self.source.by_bare.get((component, rest))
        if own is None or (component, rest) in self.structure.by_bare or not (usual or rest.startswith(BESIDE)):
            return spelled
        # of a text encoder that is below the same prefix: what of CLIP's lies below `text_model.` is left as it is
        there = self._absent.prefixes[component] if self._absent and usual else self.structure.prefix(component)
        return own if _stem(there) == _stem(self.source.prefix(component)) else spelled

    @cached_property
    def _absent(self) -> Named | None:
        """How the components that the model lacks are named in files like it; None where its own names do not tell what these are."""
        structure = self.structure
        present = {component for component, _ in structure.by_bare}
        absent = {"vae", *structure.family.text_encoders} - present
        found = naming(structure, DIFFUSERS if structure.layouts.get(DENOISER) == DIFFUSERS else ORIGINAL, absent)
        if structure.prefix(DENOISER) != found.prefixes.get(DENOISER):
            return None
        return Named({part: found.layouts[part] for part in absent}, {part: found.prefixes[part] for part in absent})


def _stem(prefix: str | None) -> str | None:
    """A text encoder's prefix without what only some programs put before its tensors."""
    return None if prefix is None else prefix.removesuffix(TEXT_MODEL).removesuffix("transformer.")


@dataclass(frozen=True)
class Named:
    """Names by layout and prefix of each component."""

    layouts: Mapping[str, str]
    prefixes: Mapping[str, str]

    def layout(self, component: str) -> str | None:
        return self.layouts.get(component)

    def spell(self, component: str, rest: str) -> str | None:
        return prefixed(self.prefixes[component], rest) if component in self.prefixes else None


def component_in_diffusers(structure: Structure, component: str) -> Named:
    """One component's names as its module in diffusers has them, without prefix; the others keep theirs."""
    part = DENOISER if component == structure.denoiser else component
    return Named({part: DIFFUSERS}, {part: ""})


def naming(structure: Structure, layout: Layout, more: Iterable[str] = ()) -> Named:
    """The names that a model with this structure, and `more` components, has in a layout of its family."""
    present = {component for component, _ in structure.by_bare} - {"other"} | {*more}
    return _in_diffusers(structure, present, more) if layout == DIFFUSERS else _in_single_file(structure, present, layout)


def _in_diffusers(structure: Structure, present: set[str], more: Iterable[str]) -> Named:
    prefixes = {}
    clips = {part for part, encoder in structure.family.text_encoders.items() if encoder.clip and part in more}
    for part in present:
        clip = TEXT_MODEL if part in clips or (part.startswith("text_encoder") and part in structure.layouts) else ""
        prefixes[part] = ("" if len(present) == 1 else f"{structure.denoiser if part == DENOISER else part}.") + clip
    return Named(dict.fromkeys(present, DIFFUSERS), prefixes)


def _in_single_file(structure: Structure, present: set[str], layout: Layout) -> Named:
    """As in the single file of a family, or, of one component alone, in its own."""
    family, alone = structure.family, len(present) == 1
    encoders = family.text_encoders
    prefixes = {part: f"{part}." for part in present} | {part: encoder.prefix for part, encoder in encoders.items()}
    prefixes |= {DENOISER: "" if alone and family.bare_alone and layout != "ComfyUI" else family.prefix, "vae": "" if alone else family.vae}
    layouts = {part: encoders[part].layout if part in encoders else DIFFUSERS for part in present}
    layouts |= dict.fromkeys(present & {DENOISER, "vae"}, ORIGINAL)
    return Named(layouts, {part: prefixes[part] for part in present})
