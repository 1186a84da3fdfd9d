"""How a merge is declared, planned and computed, one part of one tensor at a time. No method of merging lives here."""

from workbench.merge.asked import Prepared, Random, TensorName
from workbench.merge.constraints import Flag, OneOf, Range, Vector
from workbench.merge.declaration import Missing, PerModel
from workbench.merge.decorator import Operator, operator
from workbench.merge.node import Merge
from workbench.merge.sources import source
from workbench.tensors import Delta, Deltas, Scope, Weight, Weights

__all__ = [
    "Delta",
    "Deltas",
    "Flag",
    "Merge",
    "Missing",
    "OneOf",
    "Operator",
    "PerModel",
    "Prepared",
    "Random",
    "Range",
    "Scope",
    "TensorName",
    "Vector",
    "Weight",
    "Weights",
    "operator",
    "source",
]
