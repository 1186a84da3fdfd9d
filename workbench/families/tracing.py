"""How diffusers converts an original layout, found out by asking its converter: labelled numbers in, a map of rows out.

A family gives the names of its original tensors. Each is sent through the converter with numbers that say where they come from (tensor
and row), all dimensions but the first shrunk to one, and what comes out is read as rows of the originals. The idea and its limits:
docs/decisions/0015.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from workbench.errors import CheckpointError
from workbench.families.correspondence import Correspondence, Form, Lookup, Slice

if TYPE_CHECKING:
    import torch

_ROWS = 12  # of a labelled tensor: cut into two, three, four or six
_STRIDE = 1 << 32
_NUMBERED = re.compile(r"(?<=[a-z._])\d+(?=\.)")

Run = tuple[str, int, int]  # an original tensor, and the rows start:stop of it


@dataclass(frozen=True)
class Traced:
    """What the converter of a class of diffusers does.

    `names` are the original tensors, separated by white space: `{a,b}` stands for each of several, `#` for the numbers of a stack.
    Names that only some variants have are there too.
    `rows` says how many rows a tensor has whose name ends so, where the converter knows widths by heart. `prefix` is what it wants.
    """

    model: str
    names: str
    rows: tuple[tuple[str, int], ...] = ()
    prefix: str = ""
    costly: bool = True
    reason: str = ""

    def lookup(self, names: Iterable[str]) -> Lookup:
        """See `Conversion.lookup`; the converter is asked when the first correspondence is sought."""
        return _Asked(self, frozenset(names))

    def trace(self, originals: Iterable[str]) -> dict[str, Correspondence]:
        """The correspondence of every tensor that has another name, cut or form in diffusers, by its names in both layouts.

        Raises CheckpointError for a converter that mixes rows in a way that cannot be undone.
        """
        labelled = {name: self._rows(name) for name in sorted(originals)}
        return dict(_correspondences(labelled, _converted(self.model, labelled, self.prefix), self.model))

    def _rows(self, name: str) -> int:
        return next((rows for end, rows in self.rows if name.endswith(end)), _ROWS)


class _Asked:
    """The correspondences of one model; see `Traced`."""

    def __init__(self, conversion: Traced, names: frozenset[str]) -> None:
        self._conversion, self._names = conversion, names

    def find(self, name: str) -> Correspondence | None:
        """See `Lookup.find`."""
        return _traced(self._conversion, self._names)[0].get(name)

    def unknown(self) -> list[str]:
        """See `Lookup.unknown`: the names that neither the converter nor the family knows."""
        return _traced(self._conversion, self._names)[1]


@lru_cache(32)
def _traced(conversion: Traced, names: frozenset[str]) -> tuple[Mapping[str, Correspondence], list[str]]:
    """Every correspondence of a model with these names, in whichever layout, and the names that are not known.

    The depth is that at which all names are there. Of a model in the original layout its own names are asked about too: variants
    have more than the family says.
    """
    deepest = 1 + max((int(number[0]) for name in names for number in _NUMBERED.finditer(name)), default=0)
    found = conversion.trace(original_names(conversion.names, deepest))
    depths: dict[str, int] = {}
    for name, one in found.items():
        if (name in names or not names.isdisjoint(one.names)) and (stack := _stack(one.original)):
            depths[stack[0]] = max(depths.get(stack[0], 1), stack[1] + 1)
    originals = set(original_names(conversion.names, depths))
    found = conversion.trace(originals)
    theirs = {name for one in found.values() for name in one.names}
    more = names - originals - theirs
    if more and len(names & originals - theirs) > len(names & theirs - originals):
        return conversion.trace(originals | more), []
    return found, sorted(more)


def _stack(name: str) -> tuple[str, int] | None:
    """The stack that a name lies in, and its number there."""
    found = _NUMBERED.search(name)
    return (name[: found.start()], int(found[0])) if found else None


def original_names(text: str, depths: Mapping[str, int] | int) -> Iterator[str]:
    """The names that a text of templates gives a model that is so deep: of each stack so many blocks."""
    for name in (name for template in text.split() for name in _braces(template)):
        stack, numbered, rest = name.partition("#")
        count = (depths if isinstance(depths, int) else depths.get(stack, 1)) if numbered else 1
        for number in range(count):
            yield f"{stack}{number}{rest}" if numbered else name


def _braces(template: str) -> Iterator[str]:
    """A template with each of its alternatives."""
    before, brace, after = template.partition("{")
    if not brace:
        yield template
        return
    inside, rest = _closed(after)
    for one in inside:
        yield from _braces(before + one + rest)


def _closed(text: str) -> tuple[list[str], str]:
    """The alternatives up to the brace that closes, and what follows it."""
    depth, begin, parts = 0, 0, []
    for place, letter in enumerate(text):
        if letter == "{":
            depth += 1
        elif letter == "}" and depth:
            depth -= 1
        elif letter in ",}" and not depth:
            parts.append(text[begin:place])
            begin = place + 1
            if letter == "}":
                return parts, text[begin:]
    raise ValueError(f"a brace is not closed in {text!r}")


def _converted(model: str, labelled: Mapping[str, int], prefix: str) -> dict[str, torch.Tensor]:
    """What diffusers makes of labelled tensors."""
    import torch
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    known: Mapping[str, Any] = SINGLE_FILE_LOADABLE_CLASSES
    convert: Callable[..., dict[str, torch.Tensor]] = known[model]["checkpoint_mapping_fn"]
    tensors = {}
    for number, (name, rows) in enumerate(labelled.items()):
        values = torch.arange(rows, dtype=torch.float64) + number * _STRIDE
        tensors[prefix + name] = values[:, None] if name.endswith(".weight") else values
    try:
        converted = convert(checkpoint=tensors)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        told = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"diffusers' converter for {model} does not take these names ({told})") from error
    return {name: tensor for name, tensor in converted.items() if torch.is_tensor(tensor)}


def _runs(tensor: torch.Tensor, names: list[str]) -> list[Run]:
    """Which rows of which originals a converted tensor is made of, in order."""
    flat = tensor.reshape(-1)
    numbers, rows = (flat // _STRIDE).long(), (flat % _STRIDE).long()
    breaks = ((numbers[1:] != numbers[:-1]) | (rows[1:] != rows[:-1] + 1)).nonzero().flatten() + 1
    edges = [0, *breaks.tolist(), len(flat)]
    return [(names[numbers[a]], int(rows[a]), int(rows[b - 1]) + 1) for a, b in pairwise(edges)]


def _correspondences(
    labelled: Mapping[str, int], converted: Mapping[str, torch.Tensor], model: str
) -> Iterator[tuple[str, Correspondence]]:
    names = list(labelled)
    pieces: dict[str, list[tuple[int, int, str, int, int]]] = {}  # original -> its rows, and the rows of diffusers' tensor of so many
    for name, tensor in converted.items():
        begin, runs = 0, _runs(tensor, names)
        if len({original for original, *_ in runs}) > 1:
            raise CheckpointError(f"{model}: diffusers makes {name!r} of several tensors, which cannot be undone")
        for original, start, stop in runs:
            pieces.setdefault(original, []).append((start, stop, name, begin, tensor.numel()))
            begin += stop - start
    for original, found in pieces.items():
        one = _correspondence(original, sorted(found), labelled[original], model)
        single = converted[found[0][2]]
        if len(found) == 1 and single.dim() == 2 and not original.endswith(".weight"):
            one = Correspondence(original, one.slices, Form.FLAT, len(single))
        if one.names == (original,) and one.form is Form.SAME and len(found) == 1:
            continue  # the same in both layouts
        for name in (original, *one.names):
            yield name, one


def _correspondence(original: str, pieces: list[tuple[int, int, str, int, int]], rows: int, model: str) -> Correspondence:
    """What is known of one original tensor. Raises CheckpointError where its rows are not each used once, or not in equal parts."""
    end, unit = 0, math.gcd(*(stop - start for start, stop, *_ in pieces))
    slices = []
    for start, stop, name, begin, whole in pieces:
        size = stop - start
        if start != end or whole % size or begin % size:
            raise CheckpointError(f"{model}: diffusers mixes the rows of {original!r} in a way that cannot be undone")
        slices.append(Slice(name, size // unit, begin // size))
        end = stop
    if end != rows:
        raise CheckpointError(f"{model}: diffusers keeps {end} of the {rows} rows of {original!r}, which cannot be undone")
    return Correspondence(original, tuple(slices))
