"""Which tensors of a checkpoint each tensor of a diffusers module is made of. The layouts are known in `checkpoint`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.names.buffers import is_marker
from workbench.checkpoint.names.naming import component_in_diffusers
from workbench.checkpoint.views.conversion import converted
from workbench.checkpoint.views.view import Composite, View, keys_of
from workbench.errors import RenderError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Origin:
    """What a tensor is made of (see `View`), and the shape it has in diffusers' layout."""

    entry: Composite | str
    shape: tuple[int, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The tensors of the checkpoint that it is made of."""
        return keys_of(self.entry)

    @property
    def key(self) -> str:
        """The first of them."""
        return self.keys[0]


def origins(checkpoint: Checkpoint, component: str, module: nn.Module) -> dict[str, Origin]:
    """Name in `module` -> its origin in the checkpoint, for the tensors of one component.

    Names that the module does not know are included; markers (`v_pred`, `position_ids`) and empty tensors are not.

    Raises RenderError for a tensor that is there only in part.
    """
    structure = checkpoint.structure
    where, incomplete = converted(checkpoint, structure, component_in_diffusers(structure, component))
    for one in incomplete.values():
        raise RenderError(f"{checkpoint.name!r}: of its {component}, {one.why}: it is incomplete, or of another kind")
    # CLIP's tensors lie below `text_model.` or not, which is left to the version of transformers
    spelled = {name.removeprefix("text_model."): name for name in module.state_dict()}
    found = {}
    for name, entry in where.items():
        key = keys_of(entry)[0]
        if structure.component(key) == component and checkpoint.info(key).numel and not is_marker(key):
            shape = checkpoint.info(key).shape if isinstance(entry, str) else entry.info.shape
            found[spelled.get(name, name)] = Origin(entry, shape)
    return found


def as_in_module(checkpoint: Checkpoint, plan: Mapping[str, Origin]) -> View:
    """The checkpoint's tensors under a module's names and in its shapes."""
    return View(checkpoint, {name: origin.entry for name, origin in plan.items()})
