"""Builds a diffusers pipeline from a local folder of configs, with no weights in it. Filling it is in `pipeline`."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.checkpoint.base import Checkpoint
from workbench.errors import RenderError
from workbench.places import FAMILY

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

# The architectures that a pipeline class can draw, told as `Checkpoint.architecture` tells them
PIPELINES: dict[str, tuple[str, ...]] = {"StableDiffusionPipeline": ("SD 1.x", "SD 2.x")}
BUILDING = threading.Lock()  # while shapes are built, every module of every thread would be without weights
WEIGHTED = ("unet", "vae", "text_encoder")
_PARTS = (*WEIGHTED, "tokenizer", "scheduler")


def read_index(folder: Path) -> dict[str, Any]:
    """`model_index.json` of a pipeline folder. Raises RenderError when there is none, or none that is held here."""
    path = folder / "model_index.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RenderError(f"{folder}: {path.name} cannot be read; give the folder of a diffusers pipeline") from error
    except ValueError as error:
        raise RenderError(f"{path}: not JSON ({error})") from error
    name = index.get("_class_name") if isinstance(index, dict) else None
    if name not in PIPELINES:
        raise RenderError(f"{path}: the pipeline is {name}; this renderer holds {', '.join(PIPELINES)}")
    return index


def build_pipeline(folder: Path) -> StableDiffusionPipeline:
    """The pipeline that a folder describes; its weights are shapes only (`meta` tensors) that need no gradient.

    The folder needs `model_index.json`, a `config.json` each for U-Net, VAE and text encoder, the tokenizer and the
    scheduler. Nothing is looked up on the network. Raises RenderError naming the part that is missing or malformed.
    """
    import diffusers

    index = read_index(folder)
    with BUILDING, quiet():
        parts = {part: _build_part(folder, part, index) for part in _PARTS}
        pipeline = getattr(diffusers, index["_class_name"])(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def default_config(checkpoints: Sequence[Checkpoint] = ()) -> Path:
    """The pipeline folder that checkpoints lie in, or else that of the family this project ships.

    Raises RenderError when there is neither.
    """
    folders = [folder for checkpoint in checkpoints for path in checkpoint.sources() for folder in path.parents[:2]]
    for folder in (*folders, FAMILY):
        if (folder / "model_index.json").is_file():
            return folder
    raise RenderError(
        "no model_index.json beside the checkpoints, nor in data/shapes-sd/config: "
        "pass renderer=workbench.Renderer(folder) with the folder of a diffusers pipeline"
    )


def has_weights(folder: Path) -> bool:
    """Whether a pipeline folder also holds weights."""
    return any(next((folder / part).glob(pattern), None) for part in WEIGHTED for pattern in ("*.safetensors", "*.bin"))


def _build_part(folder: Path, part: str, index: dict[str, Any]) -> Any:
    import importlib

    from accelerate import init_empty_weights

    try:
        library, name = index[part]
        kind = getattr(importlib.import_module(library), name)
        if part not in WEIGHTED:
            return kind.from_pretrained(str(folder / part), local_files_only=True)
        with init_empty_weights():
            return _from_config(kind, folder / part).requires_grad_(False).eval()
    except (OSError, KeyError, TypeError, ValueError, AttributeError, ImportError) as error:
        raise RenderError(f"{folder}: the {part} of the pipeline cannot be built from this folder ({_first_line(error)})") from error


def _from_config(kind: type, folder: Path) -> Any:
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
