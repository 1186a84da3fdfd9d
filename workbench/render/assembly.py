"""Builds a diffusers pipeline from a local folder of configs, with no weights in it. Filling it is in `pipeline`."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.checkpoint.base import Checkpoint
from workbench.errors import RenderError
from workbench.places import FAMILY, FLUX_PAIR, in_clone
from workbench.render.kinds import KINDS, Flux, Kind, StableDiffusion, has_guidance
from workbench.render.request import Defaults

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, FluxTransformer2DModel

BUILDING = threading.Lock()  # while shapes are built, every module of every thread would be without weights


def read_index(folder: Path) -> dict[str, Any]:
    """`model_index.json` of a pipeline folder. Raises RenderError when there is none, or none that is held here."""
    path = folder / "model_index.json"
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RenderError(f"{folder}: {path.name} cannot be read; give the folder of a diffusers pipeline") from error
    except ValueError as error:
        raise RenderError(f"{path}: not JSON ({error})") from error
    name = index.get("_class_name") if isinstance(index, dict) else None
    if name not in KINDS:
        raise RenderError(f"{path}: the pipeline is {name}; this renderer holds {', '.join(KINDS)}")
    return index


def kind_of(folder: Path) -> Kind:
    """Which kind of pipeline a folder describes. Raises RenderError when it is none that is held here."""
    return KINDS[read_index(folder)["_class_name"]]


def build_pipeline(folder: Path) -> DiffusionPipeline:
    """The pipeline that a folder describes; its weights are shapes only (`meta` tensors) that need no gradient.

    The folder needs `model_index.json`, a `config.json` for each component with weights, the tokenizers and the
    scheduler. Nothing is looked up on the network. Raises RenderError naming the part that is missing or malformed.
    """
    import diffusers

    index, kind = read_index(folder), kind_of(folder)
    with BUILDING, quiet():
        parts = {part: _build_part(folder, part, index, part in kind.weighted) for part in (*kind.weighted, *kind.unweighted)}
        pipeline = getattr(diffusers, index["_class_name"])(**parts, **kind.without)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


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


# The pipelines of the models that come with the project
_FAMILIES = {StableDiffusion.pipeline: FAMILY, Flux.pipeline: FLUX_PAIR / "krea"}


def default_config(checkpoints: Sequence[Checkpoint] = ()) -> Path:
    """The pipeline folder that checkpoints lie in, or else that of the family this project ships, of the first one's kind.

    Raises NotInCloneError when there is neither.
    """
    folders = [folder for checkpoint in checkpoints for path in checkpoint.sources() for folder in path.parents[:2]]
    family = _FAMILIES[_pipeline_of(checkpoints[0]) if checkpoints else StableDiffusion.pipeline]
    beside = next((folder for folder in folders if (folder / "model_index.json").is_file()), None)
    return beside or in_clone(
        family, "as no model_index.json lies beside the checkpoints, pass renderer=workbench.Renderer(folder) with a diffusers pipeline's"
    )


def default_configs(checkpoints: Mapping[str, Checkpoint]) -> dict[str, Path]:
    """The pipeline folder of each checkpoint by its name; those that one class of pipeline draws share one."""
    alike: dict[str, list[str]] = {}
    for name, checkpoint in checkpoints.items():
        alike.setdefault(_pipeline_of(checkpoint), []).append(name)
    return {name: default_config([checkpoints[other] for other in names]) for names in alike.values() for name in names}


def default_settings(checkpoints: Sequence[Checkpoint] = ()) -> Defaults:
    """The settings to draw checkpoints with side by side: those of the first one's kind, for a guidance embedder if any has one."""
    kind = KINDS[_pipeline_of(checkpoints[0]) if checkpoints else StableDiffusion.pipeline]
    return kind.defaults(any(map(has_guidance, checkpoints)))


def _pipeline_of(checkpoint: Checkpoint) -> str:
    """The class of pipeline that draws a checkpoint; what names do not tell is taken for Stable Diffusion."""
    pipeline = checkpoint.structure.family.pipeline
    return pipeline if pipeline in KINDS else StableDiffusion.pipeline


def has_weights(folder: Path) -> bool:
    """Whether a pipeline folder also holds weights."""
    return any(next((folder / part).glob(pattern), None) for part in kind_of(folder).weighted for pattern in ("*.safetensors", "*.bin"))


def _build_part(folder: Path, part: str, index: dict[str, Any], weighted: bool) -> Any:
    import importlib

    from accelerate import init_empty_weights

    try:
        library, name = index[part]
        kind = getattr(importlib.import_module(library), name)
        if not weighted:
            return kind.from_pretrained(str(folder / part), local_files_only=True)
        with init_empty_weights():
            return _from_config(kind, folder / part).requires_grad_(False).eval()
    except (OSError, KeyError, TypeError, ValueError, AttributeError, ImportError) as error:
        raise RenderError(f"{folder}: the {part} of the pipeline cannot be built from this folder ({_first_line(error)})") from error


def _from_config(kind: Any, folder: Path) -> Any:
    """A model of class `kind` from `folder/config.json`: diffusers and transformers say it differently."""
    if hasattr(kind, "config_class") and kind.config_class is not None:
        return kind(kind.config_class.from_pretrained(str(folder), local_files_only=True))
    return kind.from_config(kind.load_config(str(folder), local_files_only=True))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


@contextmanager
def quiet() -> Iterator[None]:
    """Silences diffusers' and transformers' bars, deprecations, and what they log below an error; other warnings pass."""
    import diffusers.utils.logging as diffusers_log
    import transformers.utils.logging as transformers_log

    levels = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in (diffusers_log, transformers_log)]
    try:
        for log, *_ in levels:
            log.set_verbosity_error()
            log.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        for log, level, bars in levels:
            log.set_verbosity(level)
            if bars:
                log.enable_progress_bar()
