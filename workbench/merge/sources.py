"""Where the numbers of a vector option come from: a mapping that names its source, resolved before the first tensor is read.

A source is a function decorated with `source`, called by its own name and given the mapping as its arguments.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import workbench  # what reads prompts is floors above; the package's own front door is the way up
from workbench.errors import OptionError, WorkbenchError
from workbench.plugins import Registry, place_of

# by index; points of a curve: frequency from 0 to 1, value; or either for each block, as a schedule
Numbers = Sequence[float] | Sequence[tuple[float, float]] | Mapping[str, Any]
Function = TypeVar("Function", bound=Callable[..., Numbers])
registry: Registry[Source] = Registry("source", home="workbench.merge.sources", group="workbench.sources")

_LENGTH = 256  # of a random vector: the FFT merge's hypernetwork gives as many


@dataclass(frozen=True)
class Source:
    """A function that gives numbers, and which of its arguments name files."""

    function: Callable[..., Numbers]
    files: tuple[str, ...] = ()

    @property
    def arguments(self) -> inspect.Signature:
        return inspect.signature(self.function)


@overload
def source(function: Function) -> Function: ...
@overload
def source(*, files: Sequence[str] = ()) -> Callable[[Function], Function]: ...
def source(function: Callable[..., Numbers] | None = None, *, files: Sequence[str] = ()) -> Any:
    """Register a source: `{NAME: value, other: argument}` is resolved by calling `NAME(NAME=value, other=argument)`.

    It raises OptionError, without the option's name, for arguments that make no sense. `files` are the arguments that name files:
    a recipe has their paths relative to itself. Defined anew in the same module, it replaces what it was; raises WorkbenchError
    for a name that one of Workbench's own sources has.
    """

    def decorate(function: Callable[..., Numbers]) -> Callable[..., Numbers]:
        registry.add(function.__name__, place_of(function), Source(function, tuple(files)))
        return function

    return decorate if function is None else decorate(function)


def resolve(value: Any) -> Any:
    """The numbers that a vector option's value stands for; a vector is its own. Raises OptionError."""
    return _find(value).function(**value) if isinstance(value, Mapping) else value


def within_block(value: Any) -> Any:
    """`resolve`, where the value is one block's already. Raises OptionError for a source that differs by block itself."""
    found = resolve(value)
    if isinstance(found, Mapping):
        name = _find(value).function.__name__
        raise OptionError(f"{name} gives every block numbers of its own; use it for the whole option, not within a block")
    return found


def relocated(value: Any, moved: Callable[[str], str]) -> Any:
    """An option's value with every file that a source in it names under its new name."""
    if not isinstance(value, Mapping):
        return value
    named = next((found.files for name, found in registry.items() if name in value and found.files), None)
    if named is None:
        return {name: relocated(one, moved) for name, one in value.items()}
    return {name: _moved(one, moved) if name in named else one for name, one in value.items()}


def _moved(value: Any, moved: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {name: one if name == "sha256" else _moved(one, moved) for name, one in value.items()}
    return moved(value) if isinstance(value, str) else value


def complaint(given: Mapping[str, Any]) -> str | None:
    """What is wrong with a mapping as a source, judged by calling it; None when nothing is."""
    try:
        resolve(given)
    except OptionError as error:
        return str(error)
    return None


def _find(given: Mapping[str, Any]) -> Source:
    for name, found in registry.items():
        if name in given:
            try:
                found.arguments.bind(**given)
            except TypeError:
                continue
            return found
    told = ", ".join(f"{{{', '.join(found.arguments.parameters)}}}" for found in registry.values())
    raise OptionError(f"that is no known source; there are {told}; one of your own must be imported or defined first")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@source
def constant(constant: float) -> Numbers:
    """One number for all."""
    if not _is_number(constant):
        raise OptionError(f"constant must be a finite number, got {constant!r}")
    return [float(constant)]


@source
def seed(seed: int) -> Numbers:
    """256 random numbers, uniform from -1 to 1, the range of the hypernetwork they stand in for."""
    import numpy as np

    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise OptionError(f"seed must be a whole number from 0 to 2**64 - 1, got {seed!r}")
    numbers: list[float] = np.random.Generator(np.random.Philox(key=seed)).uniform(-1, 1, _LENGTH).tolist()
    return numbers


@source
def curve(curve: Sequence[Sequence[float]]) -> Numbers:
    """Points (frequency, value), linear between: frequency 0 is the mean, 1 the highest there is."""
    points = [tuple(point) if isinstance(point, Sequence) and not isinstance(point, str) else point for point in _listed(curve)]
    if not points or not all(isinstance(point, tuple) and len(point) == 2 and all(map(_is_number, point)) for point in points):
        raise OptionError(f"curve must be a list of points [frequency, value], got {curve!r}")
    frequencies = [frequency for frequency, _ in points]
    if frequencies != sorted(set(frequencies)) or not 0 <= frequencies[0] <= frequencies[-1] <= 1:
        raise OptionError(f"a curve's frequencies must rise within [0, 1], got {frequencies}")
    return [(end, points[0][1]) for end in (0, 1)] if len(points) == 1 else points  # two numbers alone would be a vector


@source(files=("encoder", "hypernetwork"))
def prompt(prompt: Any, encoder: Any = None, hypernetwork: Any = None, seed: int = 0) -> Numbers:
    """What a hypernetwork makes of a prompt; see `workbench.conditioning.from_prompt`."""
    try:
        return workbench.conditioning.numbers_of(prompt, encoder, hypernetwork, seed)
    except WorkbenchError as error:
        raise OptionError(str(error)) from error


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
