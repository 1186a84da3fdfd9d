"""Searching for the merge that draws best: from a space of options to a merge, and how sure it is."""

from workbench.searches.found import Found
from workbench.searches.objective import SearchObjective
from workbench.searches.searching import search

__all__ = ["Found", "SearchObjective", "search"]
