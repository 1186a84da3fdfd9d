"""Workbench: merging image models, from a question to pictures to a file. The public names, and nothing else."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench import analysis as analysis
    from workbench import conditioning as conditioning
    from workbench import errors as errors
    from workbench import figures as figures
    from workbench import lora as lora
    from workbench import merge as merge
    from workbench import operators as operators
    from workbench import render as render
    from workbench.analysis import advise as advise
    from workbench.analysis import compare as compare
    from workbench.analysis import diff as diff
    from workbench.analysis import explain as explain
    from workbench.analysis import lineage as lineage
    from workbench.analysis import recover as recover
    from workbench.checkpoint import Checkpoint as Checkpoint
    from workbench.checkpoint import in_layout as in_layout
    from workbench.checkpoint import open as open
    from workbench.engine import export as export
    from workbench.engine import verify as verify
    from workbench.merge import Merge as Merge
    from workbench.operators.ema import post_hoc_ema as post_hoc_ema
    from workbench.panels.app import App as App
    from workbench.panels.compare_panel import ComparePanel as ComparePanel
    from workbench.panels.front_panel import FrontPanel as FrontPanel
    from workbench.panels.gallery_panel import Gallery as Gallery
    from workbench.panels.lora_panel import LoraPanel as LoraPanel
    from workbench.panels.merge_panel import MergePanel as MergePanel
    from workbench.panels.preference_panel import PreferencePanel as PreferencePanel
    from workbench.panels.spectrum_panel import SpectrumPanel as SpectrumPanel
    from workbench.recipe import Recipe as Recipe
    from workbench.recipe import preflight as preflight
    from workbench.regression import regmean as regmean
    from workbench.render import NoiseLevels as NoiseLevels
    from workbench.render import Renderer as Renderer
    from workbench.render import ab_grid as ab_grid
    from workbench.render import open_grid as open_grid
    from workbench.searches import SearchObjective as SearchObjective
    from workbench.searches import search as search
    from workbench.sweeps import Queue as Queue
    from workbench.sweeps import block_map as block_map
    from workbench.sweeps import open_sweep as open_sweep
    from workbench.sweeps import sweep as sweep
    from workbench.tensors import Flat as Flat
    from workbench.tensors import Rows as Rows

__version__ = "0.1.0"

# torch's threads wait for each other by spinning, which on a busy core makes small models many times slower; read when torch is imported
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# name -> where it lives; loaded when first used, so that `import workbench` takes milliseconds
_HOMES = {
    "open": "workbench.checkpoint",
    "Checkpoint": "workbench.checkpoint",
    "in_layout": "workbench.checkpoint",
    "Rows": "workbench.tensors",
    "Flat": "workbench.tensors",
    "Merge": "workbench.merge",
    "post_hoc_ema": "workbench.operators.ema",
    "Recipe": "workbench.recipe",
    "preflight": "workbench.recipe",
    "export": "workbench.engine",
    "verify": "workbench.engine",
    "advise": "workbench.analysis",
    "compare": "workbench.analysis",
    "explain": "workbench.analysis",
    "diff": "workbench.analysis",
    "recover": "workbench.analysis",
    "lineage": "workbench.analysis",
    "regmean": "workbench.regression",
    "NoiseLevels": "workbench.render",
    "Renderer": "workbench.render",
    "ab_grid": "workbench.render",
    "open_grid": "workbench.render",
    "SearchObjective": "workbench.searches",
    "search": "workbench.searches",
    "Queue": "workbench.sweeps",
    "block_map": "workbench.sweeps",
    "open_sweep": "workbench.sweeps",
    "sweep": "workbench.sweeps",
    "App": "workbench.panels.app",
    "ComparePanel": "workbench.panels.compare_panel",
    "FrontPanel": "workbench.panels.front_panel",
    "Gallery": "workbench.panels.gallery_panel",
    "LoraPanel": "workbench.panels.lora_panel",
    "MergePanel": "workbench.panels.merge_panel",
    "PreferencePanel": "workbench.panels.preference_panel",
    "SpectrumPanel": "workbench.panels.spectrum_panel",
}
_PACKAGES = ("analysis", "conditioning", "errors", "figures", "lora", "merge", "operators", "render")
__all__ = [*_PACKAGES, *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return _imported(f"workbench.{name}")
    if name in _HOMES:
        return getattr(_imported(_HOMES[name]), name)
    raise AttributeError(f"module 'workbench' has no attribute {name!r}; public names are {', '.join(__all__)}")


def _imported(module: str) -> Any:
    from workbench.collecting import uncollected

    with uncollected():
        return importlib.import_module(module)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
