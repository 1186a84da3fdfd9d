"""How tensors are called in a layout: which component is named how, under which prefix. What they are made of there is in `conversion`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from workbench.checkpoint.names.structure import DENOISER, Structure, prefixed
from workbench.families.clip_names import TEXT_MODEL
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
    """Names as a model has them, or would."""

    structure: Structure

    def layout(self, component: str) -> str | None:
        return self.structure.layouts.get(component)

    def spell(self, component: str, rest: str) -> str | None:
        return self.structure.spell(component, rest)


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


def naming(structure: Structure, layout: Layout) -> Named:
    """The names that a model with this structure has in a layout of its family."""
    present = {component for component, _ in structure.by_bare} - {"other"}
    return _in_diffusers(structure, present) if layout == DIFFUSERS else _in_single_file(structure, present, layout)


def _in_diffusers(structure: Structure, present: set[str]) -> Named:
    prefixes = {}
    for part in present:
        clip = TEXT_MODEL if part.startswith("text_encoder") and part in structure.layouts else ""
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
