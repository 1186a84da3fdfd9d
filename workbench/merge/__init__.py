"""How a merge is declared, planned and computed, one part of one tensor at a time. No method of merging lives here."""

from workbench.merge.declaration import Missing, OneOf, PerModel, Range
from workbench.merge.decorator import Operator, operator
from workbench.merge.node import Merge

__all__ = ["Merge", "Missing", "OneOf", "Operator", "PerModel", "Range", "operator"]
