"""Blending two models frequency by frequency: Fourier transforms of their weights are mixed, and transformed back."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch

from workbench import kernels
from workbench.devices import at_once
from workbench.merge import Flag, OneOf, Random, Range, TensorName, Vector, operator
from workbench.tensors import Scope, Weight

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
    real, imaginary = (weight.to(first) for weight in _shares(shape, dims, coefficients, smooth, band))
    one, other = first.reshape(shape), second.reshape(shape)
    blended = torch.empty_like(one, memory_format=torch.contiguous_format)
    for rows in _blocks(one, dims, chunk_size):
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


def _shares(
    shape: Sequence[int], dims: tuple[int, ...], coefficients: torch.Tensor | Sequence[Any], smooth: bool, band: tuple[float, float]
) -> list[torch.Tensor]:
    """What `weights` gives, in float64, as wide as the transform of a tensor of this shape; not to be changed."""
    given = torch.as_tensor(coefficients, dtype=torch.float64, device="cpu")
    sizes = tuple(shape[dim] for dim in dims)
    if given.requires_grad or len(sizes) > 1:  # a gradient goes through them once; of whole matrices they are large, and needed once
        found = weights(frequencies(sizes, range(len(sizes))), given, smooth, band)
    else:
        found = _kept_weights(sizes[0], tuple(given.reshape(-1).tolist()), given.shape, smooth, band)
    places = iter(found[0].shape)
    wide = [next(places) if dim in dims else 1 for dim in range(len(shape))]
    return [weight.reshape(wide) for weight in found]


@functools.lru_cache(maxsize=64)
def _kept_weights(
    size: int, numbers: tuple[float, ...], shape: torch.Size, smooth: bool, band: tuple[float, float]
) -> tuple[torch.Tensor, torch.Tensor]:
    return weights(frequencies((size,), (0,)), torch.tensor(numbers, dtype=torch.float64).reshape(shape), smooth, band)


def _blocks(tensor: torch.Tensor, dims: tuple[int, ...], chunk_size: int | None) -> Iterator[slice]:
    """The rows that are transformed at once, of a tensor in the shape of `axes`."""
    step = tensor.shape[0] if 0 in dims else chunk_size or _rows_at_once(tensor)
    for start in range(0, tensor.shape[0], step):
        yield slice(start, start + step)


def _blend_rows(
    first: torch.Tensor, second: torch.Tensor, dims: tuple[int, ...], real: torch.Tensor, imaginary: torch.Tensor, mix: Mix
) -> torch.Tensor:
    if mix == "parts":
        return _weighted_parts(first - second, dims, real, imaginary).add_(second)
    one, other = (torch.fft.rfftn(tensor, dim=dims) for tensor in (first, second))
    turn = (one * other.conj()).angle()  # the shorter way round, from the second to the first
    mixed = torch.polar(torch.lerp(other.abs(), one.abs(), real), other.angle() + imaginary * turn)
    return _back(mixed, first, dims)


def _weighted_parts(change: torch.Tensor, dims: tuple[int, ...], real: torch.Tensor, imaginary: torch.Tensor) -> torch.Tensor:
    """What is taken of the first model's difference to the second: weights of parts are linear, so that the difference is enough."""
    if all(change.shape[dim] == 1 for dim in dims):
        return change * real  # a mean alone: its transform is itself
    spectrum = torch.view_as_real(torch.fft.rfftn(change, dim=dims))
    return _back(torch.view_as_complex(spectrum * torch.stack([real, imaginary], -1)), change, dims)


def _back(mixed: torch.Tensor, like: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    back: torch.Tensor = torch.fft.irfftn(mixed, s=[like.shape[dim] for dim in dims], dim=dims)
    return back


def _rows_at_once(tensor: torch.Tensor) -> int:
    """How many rows' transforms stay in a processor's cache, or keep a GPU busy."""
    return max(1, at_once(tensor.device.type) // math.prod(tensor.shape[1:]))


def is_blended(name: str) -> bool:
    """Whether a tensor of this name is transformed; others are averaged."""
    return "weight" in name


def _scope(dim: int, over: Over, **_: Any) -> Scope:
    rows = over == "row" or (over != "matrix" and (dim == -1 or dim > 0))
    return Scope.ROW if rows else Scope.TENSOR


def _in_order(low: float, high: float, **_: Any) -> str | None:
    return f"low must not be above high, got {low} and {high}" if low > high else None


def _fused_blend(
    *,
    coefficients: Sequence[Any],
    entanglement_strength: float,
    decoherence_factor: float,
    dim: int,
    over: Over,
    mix: Mix,
    smooth: bool,
    low: float,
    high: float,
    chunk_size: int | None,
    name: TensorName,
    random: Random,
) -> Callable[..., bool] | None:
    if mix != "parts" or not is_blended(name):
        return None
    from workbench.kernels import mixtures

    def loop(out: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> bool:
        shape, dims = axes(out.shape, over, dim)
        change = torch.empty(shape)
        if not mixtures.weighted_sum(change, [first, second], [1.0, -1.0]):
            return False
        real, imaginary = (weight.float() for weight in _shares(shape, dims, coefficients, smooth, (low, high)))
        for rows in _blocks(change, dims, chunk_size):
            change[rows] = _weighted_parts(change[rows].clone(), dims, real, imaginary)  # aligned as the plain code's is
        return mixtures.blended(out, first, second, change, entanglement_strength, decoherence_factor, random.key(0), random.start)

    return loop


@operator(
    scope=_scope,
    keys="first",
    check=_in_order,
    fused=_fused_blend,
    source="the FFT merge ('Quantum Model Merger'), faithful by default: docs/decisions/0006",
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
    chunk_size: Annotated[int | None, Range(1, 65536, 1, "rows transformed at once; None: as the cache or a GPU likes best")] = None,
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
