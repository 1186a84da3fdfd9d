"""Where the configs of a single file come from: those that ship with the package, or a repository on the hub."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from workbench.checkpoint.files.folders import PIPELINE
from workbench.checkpoint.files.hub import SETTINGS, fetched_settings
from workbench.errors import CheckpointError, RenderError
from workbench.render.vocabulary import SHIPPED

_FOLDERS = {"SD 1.x": "sd1", "SD 2.x": "sd2", "SDXL": "sdxl", "SDXL refiner": "sdxl-refiner", "Flux": "flux-schnell"}


def shipped_folder(family_name: str, names: Collection[str], prediction: str) -> Path | None:
    """The shipped pipeline folder for a checkpoint of a family with these tensor names; None where none ships.

    SD 2.x comes in two sizes that only the prediction tells apart: unless it is "epsilon", it is the one of 768 pixels, which predicts v.
    """
    folder = _FOLDERS.get(family_name)
    if folder == "sd2" and prediction == "epsilon":
        folder = "sd2-base"
    if folder == "flux-schnell" and any("guidance" in name for name in names):
        folder = "flux-dev"
    return SHIPPED / folder if folder else None


def hub_folder(address: str, progress: bool) -> Path:
    """The pipeline folder of `hf://owner/repo` on this disk, with its configs and tokenizers only: from the hub's cache, or else the hub.

    Raises RenderError when it cannot be had, or is no pipeline.
    """
    try:
        folder = fetched_settings(address, progress)
    except CheckpointError as error:
        raise RenderError(f"{error}. {_needed(address)}") from error
    if not (folder / PIPELINE).is_file():
        raise RenderError(f"{address}: has no {PIPELINE}, so it is not a diffusers pipeline. {_needed(address)}")
    return folder


def _needed(address: str) -> str:
    from huggingface_hub import constants

    repo = address.removeprefix("hf://").partition("@")[0]
    patterns = " ".join(f"--include '{pattern}'" for pattern in SETTINGS)
    return (
        f"Drawing needs a pipeline's {PIPELINE}, the config.json of each part, its scheduler and tokenizers, no weights: give a folder "
        f"that has them, config=folder, or fetch them where there is a connection, `hf download {repo} {patterns}`, "
        f"into {constants.HF_HUB_CACHE}"
    )
