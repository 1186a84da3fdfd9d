"""Merges as data: the recipe's schema, its files, and what can be said before a weight is read."""

from workbench.recipe.file import Recipe
from workbench.recipe.judgement import Preflight, preflight

__all__ = ["Preflight", "Recipe", "preflight"]
