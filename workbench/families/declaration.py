"""What a family of models says of itself, in one declaration: how it is told, its parts, blocks, layouts, and what draws it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from workbench.families.blocks import Blocks
from workbench.families.correspondence import DIFFUSERS, ORIGINAL, ComponentLayout, Conversion, Unchanged
from workbench.families.unet_names import UnetConversion

Evidence = str | tuple[str, ...]  # how a name begins, or several names that are there together; `#` is a number, `*` anything, `$` its end


@dataclass(frozen=True)
class Encoder:
    """A text encoder: its prefix in single files, and whether its names there are OpenCLIP's or transformers'.

    `clip` ones lie below `text_model.` in the files of older libraries and of kohya's tools. `comfy` is its prefix in ComfyUI, where
    that is another. `unused` is how names of tensors begin that are in the single files, and that transformers' module does not have.
    """

    prefix: str
    layout: ComponentLayout = DIFFUSERS
    clip: bool = False
    comfy: str = ""
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelSpec:
    """What ModelSpec 1.0.1 says of a kind: its id, the reference implementation, and the resolution it was made for."""

    id: str
    implementation: str
    resolution: str


@dataclass(frozen=True)
class Kohya:
    """How kohya's tools (sd-scripts, musubi-tuner) write LoRAs for it: its `ss_base_model_version` (empty where they have several), the
    layout whose names they have, a head for each component, and the `ss_network_module`.

    They train the modules in its blocks, but not those whose names begin as in `beside`. `also` are versions that other trainers
    write, or kohya's of its variants.
    """

    version: str
    heads: Mapping[str, str]
    layout: ComponentLayout = ORIGINAL
    module: str = "networks.lora"
    beside: tuple[str, ...] = ()
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pictures:
    """The settings that its pictures are drawn with: pixels to a side, steps, guidance scale."""

    size: int
    steps: int
    guidance: float


_UNCHANGED = Unchanged()


@dataclass(frozen=True)
class Family:
    """One family of models. The names are those of the denoiser's tensors without prefix, or whole ones, such as a text encoder's.

    It is told by any of `certain`, and by any of `told_by`, `original` and `diffusers` unless there is any of `unless`: none of these
    may be a name that another family has too. `original` and `diffusers` also tell the layout. `name:2` means a tensor of two
    dimensions, of projections (`proj_in`) alone.
    """

    name: str
    certain: tuple[Evidence, ...] = ()
    told_by: tuple[Evidence, ...] = ()
    original: tuple[Evidence, ...] = ()
    diffusers: tuple[Evidence, ...] = ()
    unless: tuple[Evidence, ...] = ()
    assumed: bool = False  # told by what it lacks, so that a LoRA's header knows better
    is_model: bool = True  # False: something that goes with a model, such as a ControlNet
    denoiser: Literal["unet", "transformer"] = "transformer"  # what diffusers calls the component
    original_name: str = ORIGINAL  # what its original layout is called
    prefix: str = "model.diffusion_model."  # of the denoiser in single files that hold more
    bare_alone: bool = True  # whether it has no prefix in a file of its own
    vae: str = "first_stage_model."  # the VAE's prefix in single files
    vae_converts: bool = True  # whether its VAE is the one of Stable Diffusion, whose layouts are known
    text_encoders: Mapping[str, Encoder] = field(default_factory=dict)  # by component
    blocks: Blocks | None = None  # None: those that its numbers show
    conversion: Conversion = _UNCHANGED
    unconvertible: tuple[Evidence, ...] = ()  # what variants have that diffusers loads from no single file
    prediction: str = "unknown"  # unless a marker or the header says otherwise: epsilon, v, flow
    dtype: str = "bfloat16"  # to calculate pictures in, and to write merges of 8-bit models in
    modelspec: ModelSpec | Callable[[Collection[str], str], ModelSpec] | None = None  # or a function of names and prediction
    kohya: Kohya | None = None
    gguf: str = ""  # its `general.architecture` in GGUF, as ComfyUI-GGUF has it
    precise: tuple[str, ...] = ()  # patterns of names that quantising spoils, beside all that lies in no block
    model: str = ""  # the class of its denoiser in diffusers
    pipeline: str = ""
    configs: str = ""  # the address of a pipeline that has its configs
    pictures: Pictures | Callable[[Collection[str]], Pictures] | None = None  # or a function of names

    @property
    def layouts(self) -> tuple[str, ...]:
        """The layouts that it can be put into; `original` means the second, whatever that is called."""
        return (DIFFUSERS, self.original_name, *(("ComfyUI",) if self.original_name == "BFL" else ()))

    def told(self, names: Names) -> str | None:
        """The name that tells this family; None where none does."""
        if certain := next(filter(None, map(names.find, self.certain)), None):
            return certain
        if any(map(names.find, self.unless)):
            return None
        return next(filter(None, map(names.find, (*self.told_by, *self.original, *self.diffusers))), None)

    def layout(self, names: Names) -> str | None:
        """The layout that names are in, told by those that only one of the two has; None where there are none."""
        counts = {layout: sum(map(names.count, evidence)) for layout, evidence in ((ORIGINAL, self.original), (DIFFUSERS, self.diffusers))}
        return max(counts, key=lambda layout: counts[layout]) if any(counts.values()) else None

    def pictures_for(self, names: Collection[str]) -> Pictures | None:
        """The settings that pictures of a model with these names are drawn with."""
        return self.pictures(names) if callable(self.pictures) else self.pictures

    def specification(self, names: Collection[str], prediction: str) -> ModelSpec | None:
        """ModelSpec's words for a model with these names."""
        return self.modelspec(names, prediction) if callable(self.modelspec) else self.modelspec


GENERIC = Family(
    "generic",
    original_name="LDM",
    text_encoders={"text_encoder": Encoder("cond_stage_model.transformer.text_model.", clip=True)},
    conversion=UnetConversion(),  # a part of a U-Net may be of several families
    dtype="",
)


class Names:
    """The names of a checkpoint's tensors, to be asked for evidence."""

    def __init__(self, names: Iterable[str]) -> None:
        self._text = "\n" + "\n".join(names) + "\n"
        self._found: dict[str, list[str]] = {}

    def count(self, evidence: Evidence) -> int:
        """How many names begin so; of several, where each is there, of the rarest."""
        return len(self._hits(evidence)) if isinstance(evidence, str) else min(map(self.count, evidence))

    def find(self, evidence: Evidence) -> str | None:
        """A name that begins so; of several the first, where each is there."""
        if isinstance(evidence, str):
            return next(iter(self._hits(evidence)), None)
        return self.find(evidence[0]) if all(map(self.find, evidence)) else None

    def _hits(self, evidence: str) -> list[str]:
        if evidence not in self._found:
            self._found[evidence] = list(_hits(self._text, evidence))
        return self._found[evidence]


def _hits(text: str, evidence: str) -> Iterator[str]:
    """Every line that begins so. What a pattern has before its first `#` or `*` is looked for as it is, which is fast."""
    anywhere = evidence.startswith("*")
    literal = re.split("[#*$]", evidence.removeprefix("*"))[0]
    sought = literal if anywhere else f"\n{literal}"
    at = text.find(sought)
    while at >= 0:
        place = at if anywhere else at + 1
        end = text.index("\n", place)
        if matches := _pattern(evidence).match(text, place, end):
            yield text[text.rindex("\n", 0, place) + 1 : end]
        at = text.find(sought, end if matches else at + 1)


@cache
def _pattern(evidence: str) -> re.Pattern[str]:
    escaped = re.escape(evidence.removeprefix("*"))
    return re.compile(escaped.replace(r"\#", r"\d+").replace(r"\*", ".*").replace(r"\$", "$"))
