"""Merges that are solved for: a regression on what the layers of the models are given while they draw."""

from workbench.regression.mean import regmean

__all__ = ["regmean"]
