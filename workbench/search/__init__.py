"""Searching for the merge that draws best: from a space of options to a merge, and how sure it is."""

from workbench.search.found import Found
from workbench.search.objective import Objective
from workbench.search.searching import search

__all__ = ["Found", "Objective", "search"]
