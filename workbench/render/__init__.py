"""Pictures from checkpoints: the renderer, the labelled grid, the scorers. diffusers is loaded when it is used."""

from workbench.render.grid import Grid, ab_grid
from workbench.render.pipeline import Renderer
from workbench.render.saved import SavedGrid, open_grid
from workbench.render.scorers import ClipChoice, ClipScorer, ParentDistance

__all__ = ["ClipChoice", "ClipScorer", "Grid", "ParentDistance", "Renderer", "SavedGrid", "ab_grid", "open_grid"]
