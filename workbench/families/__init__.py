"""The families of models: each is one declaration in a module of this package, or registered from anywhere."""

from workbench.families.blocks import Block, Location, Stacks
from workbench.families.correspondence import Table
from workbench.families.declaration import GENERIC, Encoder, Evidence, Family, Kohya, ModelSpec, Names, Pictures
from workbench.families.known import named_in, register, registry, so_far, tell
from workbench.families.tracing import Traced

__all__ = [
    "GENERIC", "Block", "Encoder", "Evidence", "Family", "Kohya", "Location", "ModelSpec", "Names", "Pictures", "Stacks", "Table",
    "Traced", "named_in", "register", "registry", "so_far", "tell",
]  # fmt: skip
