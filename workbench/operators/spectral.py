"""Blending two models frequency by frequency: Fourier transforms of their weights are mixed, and transformed back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch

from workbench import kernels
from workbench.merge import Flag, OneOf, Random, Range, TensorName, Vector, operator
from workbench.tensors import PIECE, Scope, Weight

_COPIES = 16  # of what is transformed that are held at once, with room to spare

Over = Literal["dim", "row", "matrix", "kernel"]
Mix = Literal["parts", "polar"]


def blend(
    first: torch.Tensor,
    second: torch.Tensor,
    coefficients: torch.Tensor | Sequence[Any],
    mask: torch.Tensor,
    entanglement_strength: float,
    *,
    dim: int = -1,
    over: Over = "dim",
    mix: Mix = "parts",
    smooth: bool = False,
    band: tuple[float, float] = (0.0, 1.0),
    chunk_size: int | None = None,
) -> torch.Tensor:
    """The FFT merge of two tensors: strength * blended + (1 - strength) * average, and the average where the mask is 1.

    Shapes: `first`, `second`, `mask` and the result are of one shape; calculated in float32 or finer. `coefficients` are a
    vector, by index of the frequency, or n >= 2 points (frequency, value); a coefficient c gives `first` the weight
    sigmoid(5c) in the real parts and sigmoid(3c - 1) in the imaginary ones. `band` is (`low`, `high`); it and the other
    arguments are those of `fft_blend`.
    Source: the FFT merge, process_fft_chunked and quantum_merge_models.
    """
    dtype = torch.promote_types(first.dtype, torch.float32)
    first, second = first.to(dtype), second.to(dtype)
    average = (first + second) / 2
    if not first.numel():
        return average
    shape, dims = axes(first.shape, over, dim)
    frequency = frequencies(shape, dims)
    places = iter(frequency.shape)
    wide = [next(places) if dim in dims else 1 for dim in range(len(shape))]
    real, imaginary = (weight.reshape(wide).to(first) for weight in weights(frequency, coefficients, smooth, band))
    one, other = first.reshape(shape), second.reshape(shape)
    blended = torch.empty_like(one, memory_format=torch.contiguous_format)
    step = shape[0] if 0 in dims else chunk_size or _rows_at_once(one)
    for start in range(0, shape[0], step):
        rows = slice(start, start + step)
        blended[rows] = _blend_rows(one[rows], other[rows], dims, real, imaginary, mix)
    unmasked = _masked(mask.bool(), average, blended.reshape(first.shape))
    return torch.lerp(average, unmasked, entanglement_strength)


def _masked(mask: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`one` where the mask is set, `other` elsewhere."""
    if kernels.fit(one, other) and mask.is_contiguous() and mask.shape == one.shape:
        from workbench.kernels import choices

        return choices.masked(mask, one, other)
    return torch.where(mask, one, other)


def axes(shape: Sequence[int], over: Over, dim: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shape, perhaps flattened, in which a tensor is transformed, and along which dimensions of it."""
    rank = len(shape)
    if over in ("row", "matrix") and rank > 1:
        return (shape[0], math.prod(shape[1:])), (1,) if over == "row" else (0, 1)
    if over == "kernel" and rank > 3:
        return tuple(shape), (rank - 2, rank - 1)
    return tuple(shape) or (1,), (dim % rank if -rank <= dim < rank else max(rank - 1, 0),)


def frequencies(shape: Sequence[int], dims: Sequence[int]) -> np.ndarray:
    """The frequency of each coefficient of a real transform: 0 is the mean, 1 the highest; over two dimensions, the radius."""
    each = [np.fft.fftfreq(shape[dim]) for dim in dims[:-1]] + [np.fft.rfftfreq(shape[dims[-1]])]
    radius: np.ndarray = np.sqrt(np.mean([axis**2 for axis in np.meshgrid(*(2 * axis for axis in each), indexing="ij")], axis=0))
    return radius


def weights(
    frequency: np.ndarray, coefficients: torch.Tensor | Sequence[Any], smooth: bool, band: tuple[float, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first model's weight in the real and in the imaginary parts (magnitude and phase) at each of these frequencies.

    float64, on the CPU; a tensor of coefficients gets its gradient through them.
    """
    values = _coefficients_at(frequency, torch.as_tensor(coefficients, dtype=torch.float64, device="cpu"), smooth)
    low, high = band
    below, above = (torch.from_numpy(np.asarray(where)) for where in (frequency < low, frequency > high))
    real, imaginary = (1 / (1 + torch.exp(-argument)) for argument in (5 * values, 3 * values - 1))
    return tuple(weight.masked_fill(above, 0).masked_fill(below, 1) for weight in (real, imaginary))  # type: ignore[return-value]


def _coefficients_at(frequency: np.ndarray, given: torch.Tensor, smooth: bool) -> torch.Tensor:
    """The coefficients at frequencies from 0 to 1."""
    if given.ndim == 2 and len(given) > 1:
        return _interpolated(frequency, given[:, 0].detach().numpy(), given[:, 1])
    vector = given.reshape(-1)
    if smooth and len(vector) > 1:
        return _interpolated(frequency, np.linspace(0, 1, len(vector)), vector)
    index = np.rint(frequency * (frequency.shape[-1] - 1)).astype(int) % len(vector)  # repeated or cut, as in the original
    return vector[torch.from_numpy(index)]


def _interpolated(frequency: np.ndarray, points: np.ndarray, values: torch.Tensor) -> torch.Tensor:
    """Linear between the points, constant outside of them."""
    left = np.clip(np.searchsorted(points, frequency, side="right") - 1, 0, len(points) - 2)
    share = np.clip((frequency - points[left]) / (points[left + 1] - points[left]), 0, 1)
    return torch.lerp(values[torch.from_numpy(left)], values[torch.from_numpy(left + 1)], torch.from_numpy(share))


def _blend_rows(
    first: torch.Tensor, second: torch.Tensor, dims: tuple[int, ...], real: torch.Tensor, imaginary: torch.Tensor, mix: Mix
) -> torch.Tensor:
    if mix == "parts":  # linear, so that the difference is enough
        parts = torch.view_as_real(torch.fft.rfftn(first - second, dim=dims)) * torch.stack([real, imaginary], -1)
        return _back(torch.view_as_complex(parts), first, dims).add_(second)
    one, other = (torch.fft.rfftn(tensor, dim=dims) for tensor in (first, second))
    turn = (one * other.conj()).angle()  # the shorter way round, from the second to the first
    mixed = torch.polar(torch.lerp(other.abs(), one.abs(), real), other.angle() + imaginary * turn)
    return _back(mixed, first, dims)


def _back(mixed: torch.Tensor, like: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    back: torch.Tensor = torch.fft.irfftn(mixed, s=[like.shape[dim] for dim in dims], dim=dims)
    return back


def _rows_at_once(tensor: torch.Tensor) -> int:
    """How many rows' transforms stay in a processor's cache, or fit into the free memory of the tensor's device."""
    row = math.prod(tensor.shape[1:])
    if not tensor.is_cuda:
        return max(1, PIECE // row)
    return max(1, torch.cuda.mem_get_info(tensor.device)[0] // (_COPIES * tensor.element_size() * row))


def is_blended(name: str) -> bool:
    """Whether a tensor of this name is transformed; others are averaged."""
    return "weight" in name


def _scope(dim: int, over: Over, **_: Any) -> Scope:
    rows = over == "row" or (over != "matrix" and (dim == -1 or dim > 0))
    return Scope.ROW if rows else Scope.TENSOR


def _in_order(low: float, high: float, **_: Any) -> str | None:
    return f"low must not be above high, got {low} and {high}" if low > high else None


@operator(
    scope=_scope, keys="first", check=_in_order, source="the FFT merge ('Quantum Model Merger'), faithful by default: docs/decisions/0006"
)
def fft_blend(
    first: Weight,
    second: Weight,
    *,
    coefficients: Annotated[Sequence[float], Vector("weight of `first` at each frequency: above 0 more, below 0 less", per_block=True)],
    entanglement_strength: Annotated[float, Range(0, 1, 0.01, "share of the blend; the rest is the average", per_block=True)] = 0.7714,
    decoherence_factor: Annotated[float, Range(0, 1, 0.01, "share of elements, drawn at random, that are averaged", per_block=True)] = 0.2,
    dim: Annotated[int, Range(-4, 3, 1, "dimension that is transformed; tensors without it: the last")] = -1,
    over: Annotated[Over, OneOf("what is transformed: `dim`, each row laid flat, the matrix, or a convolution's kernels")] = "dim",
    mix: Annotated[Mix, OneOf("what is weighted: real and imaginary parts, or magnitude and phase")] = "parts",
    smooth: Annotated[bool, Flag("stretch a vector of coefficients over the frequencies, instead of repeating or cutting it")] = False,
    low: Annotated[float, Range(0, 1, 0.01, "frequencies below it (1 is the highest) are `first`'s alone")] = 0.0,
    high: Annotated[float, Range(0, 1, 0.01, "frequencies above it are `second`'s alone")] = 1.0,
    chunk_size: Annotated[int | None, Range(1, 65536, 1, "rows transformed at once; None: as cache or GPU memory allows")] = None,
    name: TensorName = TensorName("weight"),
    random: Random = Random(),
) -> Weight:
    """Blend two models in the frequency domain; tensors without `weight` in their names are averaged.

    Shapes: both and the result are of one shape; `coefficients` as in `blend`. A vector is repeated or cut to the number of
    frequencies; over two dimensions a frequency is a radius.
    """
    if not is_blended(name):
        return (first + second) / 2
    mask = random.uniform(first) < decoherence_factor
    return blend(
        first,
        second,
        coefficients,
        mask,
        entanglement_strength,
        dim=dim,
        over=over,
        mix=mix,
        smooth=smooth,
        band=(low, high),
        chunk_size=chunk_size,
    )
