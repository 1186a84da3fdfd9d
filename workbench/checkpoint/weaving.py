"""What each tensor of a checkpoint in another layout is made of, told by names and shapes. Reading it is in `view`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from workbench.checkpoint.architecture import ORIGINAL
from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.layouts import Naming
from workbench.checkpoint.lines import Form, Line
from workbench.checkpoint.view import Incomplete, Piece, Woven
from workbench.tensors import Space, TensorInfo

Held = Mapping[str, str]  # name without prefix -> the tensor's name in its checkpoint
Entry = Woven | str  # what a tensor is made of, or the tensor that it is

_LARGEST = ("F64", "F32")  # what tensors of several dtypes go into, unless they hold the other


class _Misfit(Exception):
    """Why tensors do not go together."""


def weave(source: Checkpoint, target: Naming) -> tuple[dict[str, Entry], dict[str, Incomplete]]:
    """Every tensor of the source by its name in the target, in the source's order; and what cannot be had, by that name."""
    where: dict[str, Entry] = {}
    incomplete: dict[str, Incomplete] = {}
    lines = list(_lines(source, target))
    staying = {target.spell(component, rest) for component, line, held in lines if line is None for rest in held}
    for component, line, held in lines:
        own: dict[str, Entry] = {key: key for key in held.values()}
        names = {rest: target.spell(component, rest) for rest in (held if line is None else _wanted(line, held))}
        if None in names.values() or not where.keys().isdisjoint(names.values()):  # it has no name there, or another has it
            where |= own
        elif line is None:
            where |= {names[rest]: key for rest, key in held.items()}
        elif not staying.isdisjoint(names.values()):  # it is there in both layouts
            where |= own
        else:
            try:
                where |= {names[rest]: entry for rest, entry in _made(source, component, line, held).items()}
            except _Misfit as why:
                incomplete |= {name: Incomplete(f"{name!r} cannot be had: {why}", tuple(own)) for name in names.values()}
    return where, incomplete


def _lines(source: Checkpoint, target: Naming) -> Iterator[tuple[str, Line | None, Held]]:
    """The tensors that have to be looked at together: their component, and the line by which they change, None where they stay."""
    structure = source.structure
    together: dict[tuple[str, str, bool], tuple[Line | None, dict[str, str]]] = {}
    for key in source:
        component, rest = structure.bare(key)
        layout = target.layout(component)
        line = structure.line(component, rest) if layout else None
        if line is not None and (rest == line.original) == (layout == ORIGINAL):
            line = None  # it is there already
        joined = line is not None and rest != line.original
        _, held = together.setdefault((component, line.original if joined else rest, joined), (line, {}))  # type: ignore[union-attr]
        held[rest] = key
    for (component, _, _), (line, held) in together.items():
        yield component, line, held


def _wanted(line: Line | None, held: Held) -> tuple[str, ...]:
    """The names on the other side of a line."""
    return line.names if line.original in held else (line.original,)  # type: ignore[union-attr]


def _made(source: Checkpoint, component: str, line: Line, held: Held) -> dict[str, Entry]:
    if line.original in held:
        return _cut(source, line, held[line.original])
    return {line.original: _joined(source, component, line, held)}


def _cut(source: Checkpoint, line: Line, key: str) -> dict[str, Entry]:
    """An original tensor's rows as the tensors of diffusers. Raises _Misfit."""
    info = source.info(key)
    if len(line.strands) == 1:
        return {line.strands[0].name: _whole(key, info, line.form, to_original=False)}
    rows = info.shape[0] if info.shape else 1
    if rows % line.shares:
        raise _Misfit(f"the {rows} rows of {key!r} are not {line.shares} equal parts")
    row, begin = math.prod(info.shape[1:]), 0
    found: dict[str, list[tuple[int, Piece]]] = {}
    for strand in line.strands:
        end = begin + strand.share * rows // line.shares
        found.setdefault(strand.name, []).append((strand.at, Piece(key, begin * row, end * row)))
        begin = end
    return {name: _woven([piece for _, piece in sorted(pieces, key=lambda one: one[0])], info) for name, pieces in found.items()}


def _joined(source: Checkpoint, component: str, line: Line, held: Held) -> Entry:
    """An original tensor from those of diffusers; what is missing of a change is zero. Raises _Misfit."""
    infos = {rest: source.info(key) for rest, key in held.items()}
    if len(line.strands) == 1:
        ((rest, key),) = held.items()
        return _whole(key, infos[rest], line.form, to_original=True)
    if (missing := [name for name in line.names if name not in held]) and source.space is Space.WEIGHT:
        told = " and ".join(repr(source.structure.spell(component, name)) for name in missing)
        raise _Misfit(f"{source.name} has {', '.join(map(repr, held.values()))}, and not {told}")
    some = next(iter(infos.values()))
    units = {info.shape[0] / line.parts(one.name) / one.share for one in line.strands if (info := infos.get(one.name)) and info.shape}
    tails = {info.shape[1:] for info in infos.values()}
    if len(tails) > 1 or len(units) != 1 or not (unit := units.pop()).is_integer():
        told = ", ".join(f"{key!r} of shape {list(infos[rest].shape)}" for rest, key in held.items())
        raise _Misfit(f"{told} do not go together")
    row = math.prod(some.shape[1:])
    pieces = []
    for strand in line.strands:
        size = int(unit) * strand.share * row
        pieces.append(Piece(held.get(strand.name), strand.at * size, (strand.at + 1) * size))
    return _woven(pieces, TensorInfo(some.shape, _code(infos.values())))


def _woven(pieces: list[Piece], like: TensorInfo) -> Woven:
    """Pieces one below the other, with rows and dtype as in `like`."""
    rows = sum(piece.stop - piece.start for piece in pieces) // max(math.prod(like.shape[1:]), 1)
    return Woven(TensorInfo((rows, *like.shape[1:]), like.code), tuple(pieces))


def _whole(key: str, info: TensorInfo, form: Form, to_original: bool) -> Entry:
    """One tensor in the form that it has on the other side."""
    shape = info.shape
    if form is Form.TURNED and len(shape) == 2:
        return Woven(TensorInfo(shape[::-1], info.code), (Piece(key, 0, info.numel),), turned=True)
    if form is Form.CONVOLUTION and to_original and len(shape) == 2:
        shape = (*shape, 1, 1)
    elif form is Form.CONVOLUTION and not to_original and shape[2:] == (1, 1):
        shape = shape[:2]
    return key if shape == info.shape else Woven(TensorInfo(shape, info.code), (Piece(key, 0, info.numel),))


def _code(infos: Iterable[TensorInfo]) -> str:
    """The dtype that holds the numbers of all."""
    codes = {info.code for info in infos}
    return codes.pop() if len(codes) == 1 else next((code for code in _LARGEST if code in codes), "F32")
