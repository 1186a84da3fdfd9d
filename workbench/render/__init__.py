"""Pictures from checkpoints: the renderer, the labelled grid, the scorers. diffusers is loaded when it is used."""

from workbench.render.grid import Grid, ab_grid
from workbench.render.pipeline import Renderer
from workbench.render.scorers import ClipChoice, ClipScorer

__all__ = ["ClipChoice", "ClipScorer", "Grid", "Renderer", "ab_grid"]
