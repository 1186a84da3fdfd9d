"""Builds a diffusers pipeline from a folder of configs, with no weights in it, for any class that draws from a prompt with one denoiser."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.checkpoint.files.json_object import read_object
from workbench.collecting import uncollected
from workbench.errors import CheckpointError, RenderError
from workbench.render.silence import quiet
from workbench.render.vocabulary import SHIPPED, clip_tokenizer

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, FluxTransformer2DModel

    from workbench.families import Family

# Held while modules are built or filled: what builds them without weights does so to those of every thread.
BUILDING = threading.RLock()

INDEX = "model_index.json"

_LIBRARIES = ("diffusers", "transformers")
_DENOISERS = ("unet", "transformer")
_VAES = ("vae", "movq", "vqgan")
_NOT_FOR_TEXT = ("safety_checker", "feature_extractor", "image_encoder", "watermarker")  # parts that no picture from a prompt needs
_OBJECTS = ("special_tokens_map.json", "added_tokens.json")
_WITHOUT: Mapping[str, Any] = {"requires_safety_checker": False, "add_watermarker": False}


@dataclass(frozen=True)
class Blueprint:
    """What a pipeline folder says: the pipeline's class, the class of each part, and its plain settings.

    `elsewhere` are folders of parts that lie outside of it, `configs` go before those in the folders.
    """

    folder: Path
    pipeline: type
    parts: Mapping[str, type]
    settings: Mapping[str, Any]
    elsewhere: Mapping[str, Path] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def weighted(self) -> tuple[str, ...]:
        """The parts with weights, the denoiser first."""
        from torch import nn

        names = [name for name, kind in self.parts.items() if issubclass(kind, nn.Module)]
        return tuple(sorted(names, key=lambda name: (name != self.denoiser, name not in _VAES)))

    @property
    def denoiser(self) -> str:
        """`unet` or `transformer`."""
        return next(name for name in _DENOISERS if name in self.parts)


def read_blueprint(
    folder: Path, elsewhere: Mapping[str, Path] | None = None, configs: Mapping[str, Mapping[str, Any]] | None = None
) -> Blueprint:
    """What `model_index.json` of a folder describes.

    Raises RenderError when there is none, or when it is of a pipeline that does not draw pictures from a prompt with one denoiser.
    """
    path = folder / INDEX
    if not os.path.isfile(path):
        raise RenderError(f"{folder}: {path.name} cannot be read; give the folder of a diffusers pipeline, or one model's file")
    index = settings_in(path)
    name = index.get("_class_name")
    with uncollected(), BUILDING, quiet():  # classes that two threads import at once may be found half made
        kind = _class_of(path, "the pipeline", "diffusers", name)
        entries = {part: entry for part, entry in index.items() if _names_class(entry)}
        parts = {part: _class_of(path, part, *entry) for part, entry in entries.items() if part not in _NOT_FOR_TEXT and entry[1]}
    plain = {key: value for key, value in index.items() if not key.startswith("_") and key not in entries}
    settings = {**dict.fromkeys(entries.keys() - parts.keys()), **plain}  # a part that is left out is None
    _check_draws(path, kind, parts)
    known = _options(kind)
    settings = {key: value for key, value in {**settings, **_WITHOUT}.items() if key in known}
    return Blueprint(folder, kind, parts, settings, elsewhere or {}, configs or {})


def _names_class(entry: object) -> bool:
    """Whether an entry of a pipeline's index is a part: a library and a class, or null twice, of one that is left out."""
    return isinstance(entry, list) and len(entry) == 2 and all(one is None or isinstance(one, str) for one in entry)


def _options(kind: type) -> Collection[str]:
    """What a pipeline is made of, by name."""
    return inspect.signature(kind).parameters


def _class_of(path: Path, part: str, library: str, name: object) -> type:
    """A class as a pipeline's index names it: from one of two libraries, or one of diffusers' own packages of pipelines.

    No other module is imported, whatever a file says.
    """
    for module in (library,) if library in _LIBRARIES else (f"diffusers.pipelines.{library}",) if library.isidentifier() else ():
        try:
            found = getattr(importlib.import_module(module), str(name))
        except (ImportError, AttributeError, ValueError):
            continue
        if isinstance(found, type):
            return found
    raise RenderError(f"{path}: {part} is of a class {library}.{name}, which is not in the installed libraries: update diffusers?")


def _check_draws(path: Path, kind: type, parts: Mapping[str, type]) -> None:
    """Raises RenderError for a pipeline that is no text-to-image one, or has several denoisers."""
    from diffusers import DiffusionPipeline, ModelMixin

    if not issubclass(kind, DiffusionPipeline):
        raise RenderError(f"{path}: {kind.__name__} is no pipeline")
    arguments = inspect.signature(kind.__call__).parameters
    models = [name for name, part in parts.items() if issubclass(part, ModelMixin) and name not in _VAES]
    if len(models) > 1:
        raise RenderError(
            f"{path}: {kind.__name__} has {len(models)} models that denoise, {' and '.join(models)}; only one can be drawn with"
        )
    if "num_frames" in arguments:
        raise RenderError(f"{path}: {kind.__name__} draws videos; only pictures are drawn here")
    asked = [name for name, one in arguments.items() if one.default is one.empty and name not in ("self", "prompt", "kwargs", "args")]
    alone = "prompt" in arguments and not asked and ("image" not in arguments or _needs_no_image(kind))
    if models not in (["unet"], ["transformer"]) or not alone:
        raise RenderError(
            f"{path}: {kind.__name__} does not draw pictures from a prompt alone; give the folder of a text-to-image pipeline"
        )


def draws_pictures(family: Family) -> bool:
    """Whether diffusers, as it is installed, has a pipeline for a family that draws pictures from a prompt, by its name alone.

    To ask each pipeline itself would import them all, which takes half a minute.
    """
    import diffusers

    return family.pipeline in dir(diffusers) and not family.model.endswith("3DModel") and "Img2Img" not in family.pipeline


def _needs_no_image(kind: type) -> bool:
    """Whether a pipeline that takes an image, as Flux.2's does, also does without: diffusers has a list of those."""
    from diffusers.pipelines.auto_pipeline import AUTO_TEXT2IMAGE_PIPELINES_MAPPING  # which imports every pipeline

    return kind in AUTO_TEXT2IMAGE_PIPELINES_MAPPING.values()


def build_pipeline(plan: Blueprint) -> DiffusionPipeline:
    """The pipeline of a folder; its weights are shapes only (`meta` tensors) that need no gradient.

    The folder needs a `config.json` for each part with weights, the tokenizers and the scheduler. Nothing is looked up on the network.
    Raises RenderError naming the part that is missing or malformed.
    """
    with uncollected(), BUILDING, quiet():
        parts = {name: _build_part(plan, name) for name in plan.parts}
        absent = {name: None for name in _NOT_FOR_TEXT if name in _options(plan.pipeline)}
        try:
            pipeline: DiffusionPipeline = plan.pipeline(**{**absent, **plan.settings, **parts})
        except Exception as error:  # as above
            raise RenderError(f"{plan.folder}: {plan.pipeline.__name__} cannot be put together ({_first_line(error)})") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _build_part(plan: Blueprint, name: str) -> Any:
    """One part of a pipeline, without weights. Raises RenderError."""
    from accelerate import init_empty_weights

    kind: Any = plan.parts[name]
    folder = plan.elsewhere.get(name, plan.folder / name)
    try:
        _check_settings(folder)
        if not folder.is_dir():
            raise OSError(f"there is no folder {folder.name}")
        if name not in plan.weighted:
            return _unweighted(kind, folder)
        with init_empty_weights():
            return _as_diffusers_knows_it(_from_config(kind, folder, plan.configs.get(name)).requires_grad_(False).eval())
    except Exception as error:  # the libraries raise anything for a config that is damaged
        raise RenderError(f"{plan.folder}: the {name} of the pipeline cannot be built from this folder ({_first_line(error)})") from error


def settings_in(path: Path) -> dict[str, Any]:
    """The object that a config holds. Raises RenderError."""
    try:
        return read_object(path)
    except CheckpointError as error:
        raise RenderError(str(error)) from error


def _check_settings(folder: Path) -> None:
    """Raise RenderError for a config that is no object, which the libraries would look for on the hub, and for what is no file."""
    for path in sorted(folder.iterdir()) if os.path.isdir(folder) else ():
        if path.name.endswith("config.json") or path.name in _OBJECTS:
            settings_in(path)
        elif not path.is_dir() and not path.is_file():
            raise RenderError(f"{path}: is no file; a pipeline's folder holds files and folders only")


def _unweighted(kind: Any, folder: Path) -> Any:
    """A tokenizer, a scheduler, a processor. A folder that is not there would be looked for on the hub, whatever it is told."""
    if not folder.is_dir():
        raise OSError(f"there is no folder {folder.name}")
    if SHIPPED in folder.parents and "Tokenizer" in kind.__name__:  # they share one vocabulary
        return clip_tokenizer(json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")))
    try:
        files = getattr(kind, "vocab_files_names", {}).values()
        if files and not any((folder / name).is_file() for name in files) and not next(folder.glob("*.model"), None):
            raise OSError(f"{folder.name} has no vocabulary: none of {', '.join(files)}")  # a tokenizer would be made that knows no word
        return kind.from_pretrained(str(folder), local_files_only=True)
    except ImportError:  # Flux.2's processor wants torchvision, for pictures; its tokenizer alone reads prompts
        if not kind.__name__.endswith("Processor"):
            raise
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def _from_config(kind: Any, folder: Path, config: Mapping[str, Any] | None) -> Any:
    """A model from its config: diffusers and transformers say it differently."""
    if getattr(kind, "config_class", None) is not None:
        return kind(
            kind.config_class.from_dict(dict(config)) if config else kind.config_class.from_pretrained(str(folder), local_files_only=True)
        )
    return kind.from_config(dict(config) if config else kind.load_config(str(folder), local_files_only=True))


def _as_diffusers_knows_it(module: Any) -> Any:
    """With `clip_skip`, diffusers asks for a part of CLIP below `text_model`, where transformers has it no more."""
    if hasattr(module, "final_layer_norm") and not hasattr(module, "text_model"):
        module.__dict__["text_model"] = module  # not as a part of itself
    return module


def another(module: Any) -> Any:
    """A second module of a denoiser's class and config; its weights are shapes only."""
    from accelerate import init_empty_weights

    with BUILDING, quiet(), init_empty_weights():
        return type(module).from_config(module.config).requires_grad_(False).eval()


def embed_guidance(transformer: FluxTransformer2DModel, wanted: bool) -> None:
    """Give a Flux transformer a guidance embedder, its weights shapes only, or take it away, in place; all else stays as it is."""
    from accelerate import init_empty_weights
    from diffusers.models import embeddings

    if bool(transformer.config.guidance_embeds) == wanted:
        return
    name = "CombinedTimestepGuidanceTextProjEmbeddings" if wanted else "CombinedTimestepTextProjEmbeddings"
    held = transformer.time_text_embed
    with BUILDING, init_empty_weights():
        embed = getattr(embeddings, name)(transformer.inner_dim, transformer.config.pooled_projection_dim)
    embed.timestep_embedder, embed.text_embedder = held.timestep_embedder, held.text_embedder
    transformer.time_text_embed = embed.requires_grad_(False).eval()
    transformer.register_to_config(guidance_embeds=wanted)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
