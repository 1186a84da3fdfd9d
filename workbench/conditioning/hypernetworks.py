"""`Hypernetwork`: a prompt's embedding in, the coefficients of an FFT merge out. Where embeddings come from is in `text_encoders`."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import nn

from workbench.checkpoint import open as open_checkpoint
from workbench.checkpoint.files.writing import failing, replacing, write_safetensors
from workbench.errors import CheckpointError, HypernetworkError
from workbench.merge.sources import Numbers

if TYPE_CHECKING:
    from workbench.conditioning.text_encoders import TextEncoder

ELSEWHERE = "default"  # the place of tensors that lie in no block, as a schedule over blocks calls it

_SETTINGS = "workbench_hypernetwork"  # where a file says what its network is
_PREFIX = "hypernetwork."  # of its tensors, beside which a file may have others
_HEADS = 4
_ORIGINAL = ("0.weight", "0.bias", "2.weight", "2.bias")  # of Linear - GELU - Linear - Tanh


class _Attending(nn.Module):
    """Every place of a model asks the tokens what it should do: [tokens, width] in, [places, count] out, from -1 to 1."""

    def __init__(self, width: int, places: int, hidden: int, count: int) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(places, hidden) / math.sqrt(hidden))
        self.norm = nn.LayerNorm(width)
        self.tokens = nn.Linear(width, hidden)
        self.attention = nn.MultiheadAttention(hidden, _HEADS, batch_first=True)
        self.head = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, count), nn.Tanh())

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        tokens = self.tokens(self.norm(embedding))
        found: torch.Tensor = self.head(self.places + self.attention(self.places, tokens, tokens, need_weights=False)[0])
        return found


@final
class Hypernetwork(nn.Module):
    """Two architectures, by whether `blocks` are named; weights are torch's usual random ones, drawn from `seed`.

    Without blocks: Linear(width, hidden) - GELU - Linear(hidden, count) - Tanh, from a pooled embedding to one vector for all
    tensors: the FFT merge's own, with its sizes. With blocks (`IN04`, `MID`, ...): every block, and a place for the tensors in no
    block, attends over the embeddings of the tokens, and gets a vector of its own.

    `width` is that of what is read, `TextEncoder.width` or `.token_width`. Raises HypernetworkError for sizes that cannot be.
    """

    def __init__(self, width: int = 768, *, blocks: Sequence[str] = (), hidden: int | None = None, count: int = 256, seed: int = 0) -> None:
        super().__init__()
        hidden = hidden or (64 if blocks else 1024)
        self.settings: dict[str, Any] = {"width": width, "blocks": list(blocks), "hidden": hidden, "count": count, "seed": seed}
        _check_settings(self.settings)
        self.width, self.blocks, self.count = width, tuple(blocks), count
        self.path: Path | None = None  # where it was saved last, as it is now
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = _layers(**self.settings)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Coefficients from -1 to 1: [..., width] to [..., count]; with blocks [tokens, width] to [blocks + 1, count].

        The last row is for tensors in no block.
        """
        found: torch.Tensor = self.layers(embedding)
        return found

    def embed(self, prompts: str | Sequence[str], encoder: TextEncoder, *, truncate: bool = False) -> torch.Tensor:
        """What this network reads of a prompt, float32: [width] pooled, or [tokens, width]; of several prompts the mean, or all tokens.

        Raises HypernetworkError for an encoder of another width, TextEncoderError for a prompt that it cannot read.
        """
        offered = encoder.token_width if self.blocks else encoder.width
        if offered != self.width:
            raise HypernetworkError(
                f"the hypernetwork reads {'tokens' if self.blocks else 'embeddings'} of width {self.width}, but {encoder!r} gives "
                f"{offered}; use the encoder it was made for, or Hypernetwork({offered}, ...)"
            )
        if not self.blocks:
            return encoder.pooled(prompts, truncate=truncate).mean(0)
        tokens = encoder.tokens(prompts, truncate=truncate)
        return tokens.states[tokens.mask]

    def coefficients(self, embedding: torch.Tensor) -> Numbers:
        """What the option `coefficients` of `fft_blend` takes: a list of numbers, or `{"blocks": {name: list, ..., "default": list}}`.

        Calculated in float64 and rounded to float32, so that no number of threads changes a bit.
        """
        twin = Hypernetwork(**self.settings).double()
        twin.load_state_dict(self.state_dict())
        with torch.no_grad():
            found: list[Any] = twin(embedding.double()).float().tolist()
        return {"blocks": dict(zip((*self.blocks, ELSEWHERE), found, strict=True))} if self.blocks else found

    @property
    def identity(self) -> str:
        """sha256 of the weights and their names."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.layers.state_dict().items()):
            digest.update(f"{name} {list(tensor.shape)}".encode())
            digest.update(memoryview(tensor.detach().float().contiguous().numpy()).cast("B"))
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file that `load` reads, whole or not at all; a file of that name is replaced."""
        path = Path(path)
        if path.suffix != ".safetensors":
            raise HypernetworkError(f"{path}: a hypernetwork's file name ends in .safetensors")
        tensors = {_PREFIX + name: tensor.detach().float().contiguous() for name, tensor in self.layers.state_dict().items()}
        with failing(path, HypernetworkError), replacing(path) as temporary:
            write_safetensors(temporary, tensors, {"format": "pt", _SETTINGS: json.dumps(self.settings)})
        self.path = path.absolute()
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Hypernetwork:
        """Read a file made by `save`, or one that holds `hypernetwork.0.weight` and so on, as the FFT merge's module names them.

        Raises HypernetworkError for a file of another shape.
        """
        path = Path(path)
        try:
            file = open_checkpoint(path)
        except CheckpointError as error:
            raise HypernetworkError(f"{path}: no hypernetwork can be read from it: {error}") from error
        prefix = _PREFIX if any(key.startswith(_PREFIX) for key in file) else ""
        tensors = {key.removeprefix(prefix): file.read(key) for key in file if key.startswith(prefix)}
        network = cls(**_settings(path, file.metadata.get(_SETTINGS), tensors))
        _check_tensors(path, network.layers.state_dict(), tensors)
        network.layers.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        network.path = path.absolute()
        return network

    def __repr__(self) -> str:
        places = f"{len(self.blocks)} blocks" if self.blocks else "all tensors"
        return f"<Hypernetwork of {self.width} numbers to {self.count} for {places}{f', {self.path.name}' if self.path else ''}>"


def _layers(width: int, blocks: Sequence[str], hidden: int, count: int, seed: int) -> nn.Module:
    if blocks:
        return _Attending(width, len(blocks) + 1, hidden, count)
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, count), nn.Tanh())


def _check_settings(settings: dict[str, Any]) -> None:
    for name in ("width", "hidden", "count"):
        value = settings[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise HypernetworkError(f"Hypernetwork: {name} must be a whole number of 1 or more, got {value!r}")
    blocks = settings["blocks"]
    if len(set(blocks)) < len(blocks) or not all(isinstance(block, str) and block != ELSEWHERE for block in blocks):
        raise HypernetworkError(f"Hypernetwork: blocks must be different names of blocks, got {blocks!r}")
    if blocks and settings["hidden"] % _HEADS:
        raise HypernetworkError(f"Hypernetwork: with blocks, hidden must be a multiple of {_HEADS}, got {settings['hidden']}")


def _settings(path: Path, told: str | None, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What a file says its network is; of one without that, what the shapes of the original's four tensors say."""
    if told is not None:
        try:
            found = json.loads(told)
            return {name: found[name] for name in ("width", "blocks", "hidden", "count", "seed")}
        except (ValueError, KeyError, TypeError) as error:
            raise HypernetworkError(f"{path}: its header's {_SETTINGS} is damaged: {error!r}; save the network again") from error
    if lacking := [name for name in _ORIGINAL if name not in tensors]:
        raise HypernetworkError(
            f"{path}: holds no hypernetwork: there is no {', '.join(map(repr, lacking))}; it should hold {', '.join(_ORIGINAL)}, "
            f"or the same after {_PREFIX!r}"
        )
    first, second = tensors["0.weight"], tensors["2.weight"]
    if first.ndim != 2 or second.ndim != 2:
        raise HypernetworkError(f"{path}: the weights should be matrices, got {list(first.shape)} and {list(second.shape)}")
    return {"width": first.shape[1], "hidden": first.shape[0], "count": second.shape[0]}


def _check_tensors(path: Path, wanted: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    """Raises HypernetworkError that names what is missing, not known, or of another shape."""
    if missing := [name for name in wanted if name not in found]:
        raise HypernetworkError(f"{path}: the hypernetwork lacks {', '.join(map(repr, missing))}")
    if extra := [name for name in found if name not in wanted]:
        raise HypernetworkError(f"{path}: {', '.join(map(repr, extra))} belongs to no hypernetwork of this shape")
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            raise HypernetworkError(f"{path}: {name!r} is {list(found[name].shape)}, but this hypernetwork needs {list(tensor.shape)}")
