"""Merges steered by prompts: text encoders, hypernetworks that make coefficients of embeddings, and their fitting."""

from workbench.conditioning.asked_for import shares
from workbench.conditioning.fitting import fit
from workbench.conditioning.hypernetworks import Hypernetwork
from workbench.conditioning.lessons import Objective
from workbench.conditioning.prompts import from_prompt, numbers_of
from workbench.conditioning.text_encoders import TextEncoder

__all__ = ["Hypernetwork", "Objective", "TextEncoder", "fit", "from_prompt", "numbers_of", "shares"]
