"""Pictures from checkpoints: the renderer, the labelled grid, the scorers. diffusers is loaded when it is used."""

from workbench.render.grid import Grid
from workbench.render.noise_levels import NoiseLevels
from workbench.render.pipeline import Renderer
from workbench.render.preference_scorers import PreferenceScorer
from workbench.render.saved import SavedGrid, open_grid
from workbench.render.scorers import ClipChoice, ClipScorer, ParentDistance
from workbench.render.side_by_side import ab_grid

__all__ = [
    "ClipChoice",
    "ClipScorer",
    "Grid",
    "NoiseLevels",
    "ParentDistance",
    "PreferenceScorer",
    "Renderer",
    "SavedGrid",
    "ab_grid",
    "open_grid",
]
