"""`hyper_merge`: many models as one and a few LoRAs. How LoRAs are found lives in hyper_solver, what they are good for in hyper_model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.matching import Matched
from workbench.engine.inputs import Models, matched, named
from workbench.engine.reading import Tensors, measured
from workbench.engine.rounding import all_only_rounded, stored_dtype
from workbench.errors import InputError, MergeError, MergeWarning, NonFiniteError, OptionError, warn
from workbench.families import GENERIC
from workbench.lora.hyper_layers import ReducedLayer, reduced
from workbench.lora.hyper_model import HyperModel, hyper_model
from workbench.lora.hyper_solver import Solver
from workbench.lora.laying import apart
from workbench.lora.targets import factored

_WHO = "hyper_merge"
_COPIES = 0.6  # of every model's layer, in float64, that its changes come to
_NOTHING = 1e-12  # of the largest square: what is below is rounding


def hyper_merge(
    models: Models,
    *,
    ranks: Sequence[int] = (128, 64, 32),
    iterations: int = 6,
    joint: bool = True,
    seed: int = 0,
    device: str = "cpu",
) -> HyperModel:
    """Models as one and a LoRA for each of `ranks`: model = average + sum of multiplier * LoRA, with the least squared error.

    The average is the plain mean; since the multipliers of a LoRA sum to zero over the models, no other would be better. A LoRA
    has the rank it was given, or a layer's smaller side. With `joint`, each time a LoRA has been added all so far are improved
    together, in as many sweeps as `iterations`; without, one LoRA is found after the other, as in the original, in so many
    iterations each. What a LoRA in kohya's format cannot carry (norms, biases, embeddings, the first and last layer, the VAE) is the
    average's; its residual is in `.losses`. Nor is what models differ by in rounding to their dtypes alone.

    Every file is read twice: for the products of the models' differences, from whose eigenvectors the search begins, and for their
    strongest directions, layer by layer; the search itself goes through small matrices. In memory are a layer of all models, and
    about (rows + columns) * 2 * sum of ranks numbers for every layer. The same bits on any number of threads, from one `seed`.

    Raises, before a weight is read: InputError for what is no list of two or more checkpoints, OptionError for ranks, iterations or
    a device that cannot be, MergeError for models of several architectures or with no layer in common. Then NonFiniteError for NaN
    and infinity, and InputError for models that are equal wherever LoRAs could tell them apart. Warns (MergeWarning) of tensors
    that not all models have, and of ranks beyond every layer's smaller side, which are reduced.

    Source: T. Fernandes, Hyper-Merge, MATH.md (github.com/tfernd/hyper-merge).
    """
    given = named(models, _WHO)
    _check_kinds(given)
    _check_options(len(given), ranks, iterations, device)
    from workbench import operators

    average = operators.weighted_average(list(given.values()))
    given = {name: apart(model) for name, model in given.items()}
    tensors = [one for one in matched(given, _WHO) if len(one.names) == len(given)]
    first = next(iter(given.values()))
    fitting = factored(first, _WHO)
    layers = [one for one in tensors if _key(one) in fitting]
    if not layers:
        raise MergeError(f"{_WHO}: {', '.join(given)} have no linear layer or convolution in common that a LoRA could change")
    ranks = _fitting(ranks, [first.info(_key(one)).shape for one in layers])
    sums = _summed(given, tensors, {_key(one) for one in layers})
    turn, squares = _directions(sums.inside, list(given))
    solver, found = _solver(given, layers, sums.moved, turn, squares, ranks, seed, device)
    solution = solver.together(iterations) if joint else solver.one_by_one(iterations)
    del solver
    return hyper_model(average, apart(average), list(given), turn, found, solution, ranks, sums.beyond, sums.numel)


@dataclass(frozen=True)
class _Sums:
    """Products of the models' differences from their mean (models x models), in layers that LoRAs can change, and of the squares
    beyond them (models); the layers that are not equal in all models, and the number of all elements."""

    inside: np.ndarray
    beyond: np.ndarray
    moved: frozenset[str]
    numel: int


def _summed(models: Mapping[str, Checkpoint], tensors: Sequence[Matched], layers: set[str]) -> _Sums:
    found = measured(models, tensors, _products, who=f"{_WHO}: comparing")
    zero = np.zeros((len(models), len(models)))
    inside = sum((sums for key, _, sums in found if key in layers), zero)
    beyond = sum((sums for key, _, sums in found if key not in layers), zero)
    moved = frozenset(key for key, _, sums in found if key in layers and sums.any())
    return _Sums(inside, np.diagonal(beyond).copy(), moved, sum(numel for _, numel, _ in found))


def _products(tensors: Tensors) -> tuple[str, int, np.ndarray]:
    """The tensor's name and size, and the products of the models' differences from their mean."""
    import torch

    count, numel = len(tensors.names), 0
    sums = torch.zeros(count, count, dtype=torch.float64)
    dtypes = [stored_dtype(tensors.models[name], key) for name, key in tensors.matched.names.items()]
    rounding = len(set(dtypes)) > 1  # as long as nothing else shows
    for chunk in tensors.chunks(finite=False):
        finite = torch.isfinite(chunk.sum(1)).tolist()
        if not all(finite):
            name = tensors.names[finite.index(False)]
            raise NonFiniteError(f"{_WHO}: {name}: {tensors.matched.names[name]!r} holds NaN or infinity; mend the file, or leave it out")
        rounding = rounding and all_only_rounded(chunk, dtypes)
        chunk -= chunk[0].clone()
        sums += chunk @ chunk.T
        numel += chunk.shape[1]
    if rounding:
        sums.zero_()
    centred = np.eye(count) - 1 / count
    return tensors.key, numel, centred @ sums.numpy() @ centred


def _directions(inside: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Which changes (models x changes, orthonormal columns) the models differ in, the largest first, and their products."""
    squares, turn = np.linalg.eigh(inside)
    squares, turn = squares[::-1], turn[:, ::-1]
    if not squares[0] > 0:
        told = "are equal in every layer that a LoRA can change, or differ by nothing but rounding; there is nothing to merge"
        raise InputError(f"{_WHO}: {', '.join(names)} {told}")
    count = int((squares[: len(names) - 1] > _NOTHING * squares[0]).sum())
    return turn[:, :count] * np.sign(turn[np.abs(turn[:, :count]).argmax(0), range(count)]), np.diag(squares[:count])


def _solver(
    models: Mapping[str, Checkpoint],
    layers: Sequence[Matched],
    moved: frozenset[str],
    turn: np.ndarray,
    squares: np.ndarray,
    ranks: Sequence[int],
    seed: int,
    device: str,
) -> tuple[Solver, list[ReducedLayer]]:
    """The layers as small matrices, each change with the directions of those LoRAs that begin along it."""
    widths = [sum(ranks[at :: turn.shape[1]]) for at in range(turn.shape[1])]
    work = partial(reduced, turn=turn, widths=widths, seed=seed, device=device)
    found = measured(models, [one for one in layers if _key(one) in moved], work, who=f"{_WHO}: reducing", copies=_COPIES)
    return Solver([layer.cores for layer in found], squares, ranks), found


def _key(tensor: Matched) -> str:
    """What the first model calls it."""
    return next(iter(tensor.names.values()))


def _check_kinds(models: Mapping[str, Checkpoint]) -> None:
    kinds = {model.architecture: name for name, model in models.items() if model.structure.family is not GENERIC}
    if len(kinds) > 1:
        told = " and ".join(f"{name} is {kind}" for kind, name in kinds.items())
        raise MergeError(f"{_WHO}: {told}; LoRAs fit models of one architecture")


def _check_options(count: int, ranks: Sequence[int], iterations: int, device: str) -> None:
    import torch

    if isinstance(ranks, str) or not isinstance(ranks, Sequence) or not ranks:
        raise OptionError(f"{_WHO}: ranks must be a list of whole numbers, one for each LoRA, got {ranks!r}")
    for name, value in [("a rank", rank) for rank in ranks] + [("iterations", iterations)]:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise OptionError(f"{_WHO}: {name} must be a whole number from 1, got {value!r}")
    if len(ranks) > count:
        raise OptionError(
            f"{_WHO}: {len(ranks)} ranks for {count} models; {count} LoRAs are one for each model already, so give fewer and higher ranks"
        )
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, TypeError) as error:
        raise OptionError(f"{_WHO}: device {device!r} is not to be had here: {str(error).splitlines()[0]}") from error


def _fitting(ranks: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The ranks, those reduced that no layer has room for."""
    most = max(min(shape[0], int(np.prod(shape[1:]))) for shape in shapes)
    beyond = [rank for rank in ranks if rank > most]
    if beyond:
        told = " and ".join(map(str, beyond))
        warn(f"{_WHO}: no layer has a smaller side of more than {most}: rank {told} is reduced to that", MergeWarning)
    return tuple(min(rank, most) for rank in ranks)
