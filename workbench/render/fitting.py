"""Whether and how a checkpoint fits a pipeline, from names and shapes alone; reading is in `held`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.checkpoint.base import Checkpoint
from workbench.errors import RenderError
from workbench.families import GENERIC, Family, registry
from workbench.render.keymap import Origin, origins
from workbench.tensors import Space

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import nn

    from workbench.render.assembly import Blueprint

Shapes = Mapping[str, tuple[int, ...]]

_EMBEDDER = "time_text_embed.guidance_embedder."
_FIRST = ("conv_in.weight", "x_embedder.weight")  # of a denoiser: what its input goes through
_GIVEN_A_PICTURE = "made for inpainting, or to change a given picture, and cannot draw from a prompt alone; load a text-to-image model"
_GUIDANCE = ("guidance_in.", _EMBEDDER)  # of a denoiser's names, in either layout


@dataclass(frozen=True)
class PartPlan:
    """Where each tensor of a part comes from.

    The names are the module's; `renamed` where they are those of files, which transformers alone knows how to load: of Qwen2.5-VL.
    """

    entries: Mapping[str, Origin]
    renamed: bool = False


class Fitting:
    """Plans how checkpoints go into one pipeline; a plan is made once per set of names and shapes."""

    def __init__(self, pipeline: DiffusionPipeline, blueprint: Blueprint) -> None:
        self._pipeline = pipeline
        self._blueprint = blueprint
        self._plans: dict[object, PartPlan] = {}
        _check_takes_noise_alone(blueprint.folder, blueprint.denoiser, pipeline.components[blueprint.denoiser].config)

    def plans(self, checkpoint: Checkpoint) -> dict[str, PartPlan]:
        """Part -> plan, for every part of the pipeline that the checkpoint has.

        Raises RenderError for another architecture, and for a missing, extra or misshapen tensor.
        """
        check_given(checkpoint)
        self._check_architecture(checkpoint)
        weighted = self._blueprint.weighted
        if parts := [part for part in weighted if part in checkpoint.components]:
            return {part: self.plan(checkpoint, part) for part in parts}
        held = ", ".join(checkpoint.components) or "no tensors"
        raise RenderError(f"{checkpoint.name!r} holds none of {', '.join(weighted)}, only {held}: nothing to draw with")

    def plan(self, checkpoint: Checkpoint, part: str) -> PartPlan:
        """Where each tensor of one part comes from."""
        structure = checkpoint.structure
        names = tuple((key, checkpoint.info(key).shape) for key in checkpoint if structure.component(key) == part)
        if (part, names) not in self._plans:
            self._plans[part, names] = self._planned(checkpoint, part)
        return self._plans[part, names]

    def _planned(self, checkpoint: Checkpoint, part: str) -> PartPlan:
        module = self._pipeline.components[part]
        wanted, denoises = _shapes(module), part == self._blueprint.denoiser
        if denoises and embeds_guidance(module) is not None:
            wanted = _with_guidance(wanted) if has_guidance(checkpoint) else _without_guidance(wanted)
        found = origins(checkpoint, part, module)
        tied = _tied(module)
        if _from_transformers(module) and not wanted.keys() - tied <= found.keys():
            return PartPlan(found, renamed=True)
        _check_tensors(
            checkpoint.name, part, found, {key: shape for key, shape in wanted.items() if key in found or key not in tied}, denoises
        )
        return PartPlan({name: found[name] for name in wanted if name in found})

    def _check_architecture(self, checkpoint: Checkpoint) -> None:
        family, pipeline = checkpoint.structure.family, self._blueprint.pipeline.__name__
        if draws(pipeline, self._blueprint.parts[self._blueprint.denoiser].__name__, family):
            return
        drawn = drawn_by(pipeline)
        raise RenderError(
            f"{checkpoint.name!r} is {checkpoint.architecture}; this renderer's pipeline, {pipeline}, draws "
            f"{' or '.join(drawn) or 'others'}: make another for it, Renderer({checkpoint.name})"
        )


def drawn_by(pipeline: str) -> list[str]:
    """The families that name a pipeline as theirs."""
    return [name for name, one in registry().items() if one.pipeline == pipeline]


def draws(pipeline: str, model: object, family: Family) -> bool:
    """Whether a pipeline, whose denoiser is of a class `model`, draws a family.

    Pipelines that no family names, such as the other ones of Flux.2 and PixArt, draw what has their denoiser.
    """
    drawn = drawn_by(pipeline)
    return family is GENERIC or family.name in drawn or (not drawn and family.model in ("", model))


def check_given(checkpoint: object) -> None:
    """Raises RenderError for what is no checkpoint of a model."""
    if not isinstance(checkpoint, Checkpoint):
        kind = type(checkpoint).__name__
        raise RenderError(f"a renderer draws checkpoints, got {kind}: open a file with workbench.open(path)")
    if checkpoint.space is Space.DELTA:
        name = checkpoint.name
        raise RenderError(
            f"{name!r} holds changes of a model (a LoRA), not a model: add it to one, workbench.operators.add_delta(base, [{name}]), "
            "and draw that"
        )


def has_guidance(checkpoint: Checkpoint) -> bool:
    """Whether a Flux checkpoint has a guidance embedder, or a part of one."""
    structure = checkpoint.structure
    return any(structure.name(key).rest.startswith(_GUIDANCE) for key in checkpoint if structure.component(key) == "transformer")


def embeds_guidance(module: nn.Module) -> bool | None:
    """Whether a denoiser embeds guidance; None for one of a kind that never does."""
    told: bool | None = getattr(module.config, "guidance_embeds", None)
    return told if hasattr(module, "time_text_embed") else None


def _shapes(module: nn.Module) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _tied(module: nn.Module) -> set[str]:
    """The tensors that a module may make of others: T5's second name for its embedding."""
    return set(getattr(module, "_tied_weights_keys", None) or ())


def _from_transformers(module: Any) -> bool:
    from transformers import PreTrainedModel

    return isinstance(module, PreTrainedModel)


def _without_guidance(wanted: Shapes) -> Shapes:
    return {name: shape for name, shape in wanted.items() if not name.startswith(_EMBEDDER)}


def _with_guidance(wanted: Shapes) -> Shapes:
    """A guidance embedder has the shapes of the timestep's."""
    head = "time_text_embed.timestep_embedder."
    return {**wanted, **{_EMBEDDER + name.removeprefix(head): shape for name, shape in wanted.items() if name.startswith(head)}}


def _check_takes_noise_alone(folder: object, part: str, config: Any) -> None:
    """Raises RenderError for a denoiser that takes more channels than it gives, packed or not."""
    takes, gives, patch = (getattr(config, name, None) for name in ("in_channels", "out_channels", "patch_size"))
    if isinstance(takes, int) and isinstance(gives, int) and takes > gives * (patch**2 if isinstance(patch, int) else 1):
        raise RenderError(f"{folder}: its {part} takes {takes} channels and gives {gives}: it is {_GIVEN_A_PICTURE}")


def _check_tensors(name: str, part: str, found: Mapping[str, Origin], wanted: Shapes, whole: bool) -> None:
    """Raises RenderError that names the checkpoint, the first tensor that does not fit, and both shapes.

    In a `whole` part nothing may be left over.
    """
    if missing := [key for key in wanted if key not in found]:
        raise RenderError(
            f"{name!r} lacks {len(missing)} of the {len(wanted)} tensors that the pipeline's {part} needs, "
            f"first {missing[0]} {list(wanted[missing[0]])}: load a whole checkpoint, or merge it with one"
        )
    for key, shape in wanted.items():
        if found[key].shape != shape:
            if key in _FIRST and whole and found[key].shape[:1] == shape[:1] and found[key].shape[1] > shape[1]:
                raise RenderError(f"{name!r}: its {part} takes {found[key].shape[1]} channels, not {shape[1]}: it is {_GIVEN_A_PICTURE}")
            raise RenderError(
                f"{name!r}: {found[key].key} is {list(found[key].shape)}, but the pipeline's {part} needs "
                f"{list(shape)} for {key}: a model of another size or kind; make a Renderer of its own, Renderer({name})"
            )
    extra = [origin.key for key, origin in found.items() if key not in wanted]
    if extra and whole:
        raise RenderError(
            f"{name!r}: the pipeline's {part} has no place for {len(extra)} of its tensors, "
            f"first {extra[0]}: a larger or other model; make a Renderer of its own, Renderer({name})"
        )
