"""The one place that imports plotly: frames in, figures out, one look for all. What the numbers mean is the caller's."""

from workbench.figures.bar_plots import bar_groups, bars
from workbench.figures.heat_maps import heat, heats
from workbench.figures.line_plots import lines
from workbench.figures.lineages import Branch, family_tree
from workbench.figures.look import COLOURS, INK
from workbench.figures.maps import labelled_map
from workbench.figures.panel_plots import panels
from workbench.figures.progress_plots import losses
from workbench.figures.ratio_plots import ratio_lines
from workbench.figures.scatter_plots import hovered, scatter
from workbench.figures.stacks import stacked
from workbench.figures.trees import tree_heat
from workbench.figures.whisker_plots import whiskers

__all__ = [
    "COLOURS",
    "INK",
    "Branch",
    "bar_groups",
    "bars",
    "family_tree",
    "heat",
    "heats",
    "hovered",
    "labelled_map",
    "lines",
    "losses",
    "panels",
    "ratio_lines",
    "scatter",
    "stacked",
    "tree_heat",
    "whiskers",
]
