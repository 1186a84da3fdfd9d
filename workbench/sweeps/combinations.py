"""From what is swept over to the options of each cell, checked before anything is made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

from workbench.errors import SweepError
from workbench.render.axes import ASKED, told, words

MOST_CELLS = 1000  # of a sweep, unless somebody says that more are meant

Options = Mapping[str, Any]
Over = Mapping[str, Sequence[Any]] | Sequence[Options]


def combinations(over: Over) -> list[Options]:
    """The options of each cell: the product of a mapping's values, or the mappings of a list as they are.

    Raises SweepError when there are none, when two are the same, or when one has the name of something asked of pictures.
    """
    if isinstance(over, Mapping):
        names, values = list(over), [_values(name, given) for name, given in over.items()]
        cells: list[Options] = [dict(zip(names, chosen, strict=True)) for chosen in product(*values)] if names else []
    elif isinstance(over, str) or not isinstance(over, Sequence) or not all(isinstance(cell, Mapping) for cell in over):
        raise SweepError(f'over must be a mapping of lists, as in {{"density": [0.2, 0.5]}}, or a list of mappings, got {over!r}')
    else:
        cells = [dict(cell) for cell in over]
    if not cells:
        raise SweepError('over is empty: name an option and its values, as in over={"density": [0.2, 0.5]}')
    if taken := [name for name in ASKED if any(name in cell for cell in cells)]:
        raise SweepError(
            f"over: {taken[0]!r} is asked of the renderer, not of the merge: give prompts=, seeds=, steps= or guidance= to sweep itself; "
            "an option of that name needs another one in make"
        )
    _check_different(cells)
    return cells


def check_make(make: Callable[..., Any], cells: Sequence[Options]) -> None:
    """Raises SweepError when `make` cannot be called with these options at all."""
    if not callable(make):
        raise SweepError(f"make must be a function of options that returns a merge, or an operator with inputs=, got {make!r}")
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # of something built in
        return
    for cell in cells:
        try:
            signature.bind(**cell)
        except TypeError as error:
            raise SweepError(
                f"make takes ({', '.join(signature.parameters)}), and over gives {', '.join(cell)}: {error}; "
                "an operator's inputs go into inputs={...}"
            ) from None


def name_of(options: Options) -> str:
    """`density 0.2 · weights [1, 0.9]`"""
    return " · ".join(f"{name} {words(value)}" for name, value in options.items()) or "no options"


def _values(name: str, given: Any) -> list[Any]:
    values = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(values, str | Mapping) or not isinstance(values, Sequence) or not values:
        raise SweepError(f"over[{name!r}] must be a list of one or more values, got {given!r}")
    return list(values)


def _check_different(cells: Sequence[Options]) -> None:
    seen: dict[object, int] = {}
    for number, cell in enumerate(cells):
        first = seen.setdefault(tuple((name, told(value)) for name, value in cell.items()), number)
        if first != number:
            raise SweepError(
                f"over: cells {first} and {number} are the same ({name_of(cell)}); give each value once, and each model its own name"
            )
