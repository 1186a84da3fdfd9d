"""The layouts that people's files have: which component is named how, under which prefix. How tensors get there is in `weaving`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from workbench.checkpoint.architecture import DIFFUSERS, ORIGINAL, Architecture, Structure, prefixed

Layout = Literal["diffusers", "LDM", "BFL", "ComfyUI"]

LAYOUTS: dict[Architecture, tuple[Layout, ...]] = dict.fromkeys(Architecture, ("diffusers", "LDM"))
LAYOUTS[Architecture.FLUX] = ("diffusers", "BFL", "ComfyUI")

_CLIP = "text_model."
_SINGLE_FILE = {"denoiser": "model.diffusion_model.", "vae": "first_stage_model.", "text_encoder": f"cond_stage_model.transformer.{_CLIP}"}
_LDM = {
    Architecture.SD1: _SINGLE_FILE,
    Architecture.SD2: _SINGLE_FILE | {"text_encoder": "cond_stage_model.model."},
    Architecture.SDXL: _SINGLE_FILE
    | {"text_encoder": f"conditioner.embedders.0.transformer.{_CLIP}", "text_encoder_2": "conditioner.embedders.1.model."},
    Architecture.FLUX: {
        "denoiser": "model.diffusion_model.",
        "vae": "vae.",
        "text_encoder": f"text_encoders.clip_l.transformer.{_CLIP}",
        "text_encoder_2": "text_encoders.t5xxl.transformer.",
    },
    Architecture.GENERIC: _SINGLE_FILE,
}
_OPEN_CLIP = {Architecture.SD2: "text_encoder", Architecture.SDXL: "text_encoder_2"}  # in single files; CLIP has transformers' names there


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
    part = "denoiser" if component == structure.denoiser else component
    return Named({part: DIFFUSERS}, {part: ""})


def naming(structure: Structure, layout: Layout) -> Named:
    """The names that a model with this structure has in a layout of its architecture."""
    present = {component for component, _ in structure.by_bare} - {"other"}
    alone = len(present) == 1
    if layout == "diffusers":
        prefixes = {}
        for part in present:
            clip = _CLIP if part.startswith("text_encoder") and part in structure.layouts else ""
            prefixes[part] = ("" if alone else f"{structure.denoiser if part == 'denoiser' else part}.") + clip
        return Named(dict.fromkeys(present, DIFFUSERS), prefixes)
    single = dict(_LDM[structure.architecture])
    if alone and (layout == "BFL" or present == {"vae"}):
        single |= {"denoiser": "", "vae": ""}
    originals = {"denoiser", "vae", _OPEN_CLIP.get(structure.architecture)}
    return Named({part: ORIGINAL if part in originals else DIFFUSERS for part in present}, single)
