"""What the layers of a denoiser are given while it draws. What is made of that is in `regression`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from workbench.render.pipeline import Renderer

Layer = nn.Linear | nn.Conv2d
Hear = Callable[[str, Layer, torch.Tensor], None]  # a layer's name in the denoiser, the layer, and what it is given


def layers_of(renderer: Renderer) -> dict[str, Layer]:
    """The layers of what is loaded that multiply what they are given by one matrix, by their names in the denoiser, in its order."""
    stage = renderer._stage
    denoiser = stage.pipeline.components[stage.blueprint.denoiser]
    return {name: layer for name, layer in denoiser.named_modules() if isinstance(layer, nn.Linear) or _is_plain(layer)}


def _is_plain(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros"


@contextmanager
def listening(layers: Mapping[str, Layer], hear: Hear) -> Iterator[None]:
    """While it is open, `hear` is told what each of these layers is given."""
    handles = [layer.register_forward_pre_hook(partial(_tell, hear, name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tell(hear: Hear, name: str, layer: Layer, given: tuple[Any, ...]) -> None:
    hear(name, layer, given[0])


def columns(layer: Layer, given: torch.Tensor) -> torch.Tensor:
    """What a layer's matrix is multiplied with, float32, [inputs, places]: of a convolution, the patches that it sees."""
    if isinstance(layer, nn.Linear):
        return given.reshape(-1, given.shape[-1]).float().T
    assert isinstance(layer.padding, tuple)
    patches = nn.functional.unfold(given.float(), layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return patches.transpose(0, 1).flatten(1)
