"""What each tensor of a checkpoint is made of in another layout, told by names and shapes. Reading it is in `view`."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.names.naming import Naming
from workbench.checkpoint.names.structure import Structure
from workbench.checkpoint.views.view import Composite, Incomplete, Piece
from workbench.families.correspondence import ORIGINAL, Correspondence, Form
from workbench.tensors import Space, TensorInfo

Held = Mapping[str, str]  # name without prefix -> the tensor's name in its checkpoint
Entry = Composite | str  # what a tensor is made of, or the tensor that it is

_LARGEST = ("F64", "F32")  # what tensors of several dtypes go into, unless they hold the other


class _Misfit(Exception):
    """Why tensors do not go together."""


def converted(
    source: Checkpoint, structure: Structure, target: Naming, kept: Container[str] = ()
) -> tuple[dict[str, Entry], dict[str, Incomplete]]:
    """Every tensor of the source by its name in the target, in the source's order; and what cannot be had, by that name.

    `structure` is what the source's names say; those in `kept` stay as they are.
    """
    where: dict[str, Entry] = {}
    incomplete: dict[str, Incomplete] = {}
    groups = list(_groups(source, structure, target, kept))
    staying = {target.spell(component, rest) for component, one, held in groups if one is None for rest in held}
    for component, one, held in groups:
        own: dict[str, Entry] = {key: key for key in held.values()}
        wanted = held if one is None else _wanted(one, held)
        names = {rest: name for rest in wanted if (name := target.spell(component, rest)) is not None}
        if len(names) < len(wanted) or not where.keys().isdisjoint(names.values()):  # it has no name there, or another has it
            where |= own
        elif one is None:
            where |= {key if key in kept else names[rest]: key for rest, key in held.items()}
        elif not staying.isdisjoint(names.values()):  # it is there in both layouts
            where |= own
        else:
            try:
                where |= {names[rest]: entry for rest, entry in _made(source, structure, component, one, held).items()}
            except _Misfit as why:
                incomplete |= {name: Incomplete(f"{name!r} cannot be had: {why}", tuple(own)) for name in names.values()}
    return where, incomplete


def _groups(
    source: Checkpoint, structure: Structure, target: Naming, kept: Container[str]
) -> Iterator[tuple[str, Correspondence | None, Held]]:
    """The tensors that have to be looked at together: their component, and by which correspondence they change, if they do."""
    together: dict[tuple[str, str, bool], tuple[Correspondence | None, dict[str, str]]] = {}
    for key in source:
        component, rest = structure.bare(key)
        layout = target.layout(component)
        one = structure.correspondence(component, rest) if layout and key not in kept else None
        if one is not None and (rest == one.original) == (layout == ORIGINAL):
            one = None  # it is there already
        joined = one is not None and rest != one.original
        _, held = together.setdefault((component, one.original if joined else rest, joined), (one, {}))  # type: ignore[union-attr]
        held[rest] = key
    for (component, _, _), (one, held) in together.items():
        yield component, one, held


def _wanted(one: Correspondence, held: Held) -> tuple[str, ...]:
    """The names on the other side."""
    return one.names if one.original in held else (one.original,)


def _made(source: Checkpoint, structure: Structure, component: str, one: Correspondence, held: Held) -> dict[str, Entry]:
    if one.original in held:
        return _cut(source, one, held[one.original])
    return {one.original: _joined(source, structure, component, one, held)}


def _cut(source: Checkpoint, one: Correspondence, key: str) -> dict[str, Entry]:
    """An original tensor's rows as the tensors of diffusers. Raises _Misfit."""
    info = source.info(key)
    if len(one.slices) == 1:
        return {one.slices[0].name: _whole(key, info, one, to_original=False)}
    rows = info.shape[0] if info.shape else 1
    if rows % one.shares:
        raise _Misfit(f"the {rows} rows of {key!r} are not {one.shares} equal parts")
    row, begin = math.prod(info.shape[1:]), 0
    found: dict[str, list[tuple[int, Piece]]] = {}
    for part in one.slices:
        end = begin + part.share * rows // one.shares
        found.setdefault(part.name, []).append((part.at, Piece(key, begin * row, end * row)))
        begin = end
    return {name: _composed([piece for _, piece in sorted(pieces, key=lambda pair: pair[0])], info) for name, pieces in found.items()}


def _joined(source: Checkpoint, structure: Structure, component: str, one: Correspondence, held: Held) -> Entry:
    """An original tensor from those of diffusers; what is missing of a change is zero. Raises _Misfit."""
    infos = {rest: source.info(key) for rest, key in held.items()}
    if len(one.slices) == 1:
        ((rest, key),) = held.items()
        return _whole(key, infos[rest], one, to_original=True)
    if (missing := [name for name in one.names if name not in held]) and source.space is Space.WEIGHT:
        told = " and ".join(repr(structure.spell(component, name)) for name in missing)
        raise _Misfit(f"{source.name} has {', '.join(map(repr, held.values()))}, and not {told}")
    some = next(iter(infos.values()))
    units = {info.shape[0] / one.parts(part.name) / part.share for part in one.slices if (info := infos.get(part.name)) and info.shape}
    tails = {info.shape[1:] for info in infos.values()}
    if len(tails) > 1 or len(units) != 1 or not (unit := units.pop()).is_integer():
        told = ", ".join(f"{key!r} of shape {list(infos[rest].shape)}" for rest, key in held.items())
        raise _Misfit(f"{told} do not go together")
    row = math.prod(some.shape[1:])
    pieces = []
    for part in one.slices:
        size = int(unit) * part.share * row
        pieces.append(Piece(held.get(part.name), part.at * size, (part.at + 1) * size))
    return _composed(pieces, TensorInfo(some.shape, _code(infos.values())))


def _composed(pieces: list[Piece], like: TensorInfo) -> Composite:
    """Pieces one below the other, with rows and dtype as in `like`."""
    rows = sum(piece.stop - piece.start for piece in pieces) // max(math.prod(like.shape[1:]), 1)
    return Composite(TensorInfo((rows, *like.shape[1:]), like.code), tuple(pieces))


def _whole(key: str, info: TensorInfo, one: Correspondence, to_original: bool) -> Entry:
    """One tensor in the form that it has on the other side. Raises _Misfit."""
    shape, form = info.shape, one.form
    if form is Form.TRANSPOSED and len(shape) == 2:
        return Composite(TensorInfo(shape[::-1], info.code), (Piece(key, 0, info.numel),), transposed=True)
    if form is Form.CONVOLUTION and to_original and len(shape) == 2:
        shape = (*shape, 1, 1)
    elif form is Form.CONVOLUTION and not to_original and shape[2:] == (1, 1):
        shape = shape[:2]
    elif form is Form.FLAT and to_original:
        shape = (info.numel,)
    elif form is Form.FLAT and len(shape) == 1:
        if info.numel % one.rows:
            raise _Misfit(f"the {info.numel} elements of {key!r} are not {one.rows} equal rows")
        shape = (one.rows, info.numel // one.rows)
    return key if shape == info.shape else Composite(TensorInfo(shape, info.code), (Piece(key, 0, info.numel),))


def _code(infos: Iterable[TensorInfo]) -> str:
    """The dtype that holds the numbers of all."""
    codes = {info.code for info in infos}
    return codes.pop() if len(codes) == 1 else next((code for code in _LARGEST if code in codes), "F32")
