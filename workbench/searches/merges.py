"""The merges of a search: what is made of options, what the models tell of the space, and the merges that need no search."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, final

from workbench.checkpoint import Checkpoint
from workbench.errors import SearchError
from workbench.merge import Operator
from workbench.merge.schedules import Depth
from workbench.operators import find
from workbench.searches.space import Point, space_of
from workbench.sweeps.by_method import by_method
from workbench.sweeps.drawing import in_words
from workbench.tensors import Space

if TYPE_CHECKING:
    from workbench.render import Renderer
    from workbench.searches.trials import SearchTrial

Make = Operator | Callable[..., Checkpoint] | None
DEFAULT, AVERAGE, SUM = "defaults", "plain average", "plain sum"

_TRIED = 16  # points of the grid, until a merge can be made


@final
class Merges:
    """`make` is an operator, a function of options, or None where a choice of methods is in the space. Raises SearchError."""

    def __init__(self, make: Make, inputs: Mapping[str, Any], space: Mapping[str, Any] | None) -> None:
        if make is None and not (isinstance(space, Mapping) and "method" in space):
            raise SearchError('without make, space has a choice of methods, as in {"method": ["ties", "slerp"], "density": (0.1, 0.9)}')
        if make is not None and not callable(make):
            raise SearchError(f"make must be a function of options that returns a merge, or an operator with inputs=, got {make!r}")
        self.make: Callable[..., Checkpoint] = partial(by_method if make is None else make, **inputs)
        self._base, self._models = inputs.get("base"), _models(inputs)
        self._places = places(inputs)
        self.space = space_of(space, make if isinstance(make, Operator) else None, *self._places)
        self._methods = None if make is not None else self._of_methods(space or {})

    def options(self, point: Point) -> dict[str, Any]:
        """What a point means for the merge; a method that is chosen gets the options that it has."""
        options = self.space.options(point)
        if self._methods is None:
            return options
        own = find(options["method"]).declaration.options
        return {name: value for name, value in options.items() if name == "method" or name in own}

    @property
    def starts(self) -> list[Point]:
        """Where nothing is varied, as far as that is known and within the space: one point, or one for each method."""
        if self._methods is not None:
            return self._methods
        return [] if self.space.default is None else [self.space.default]

    @property
    def plain(self) -> dict[str, Callable[[], Checkpoint]]:
        """The merges that need no search, where there are such: nothing varied, the plain average, the plain sum of the changes."""
        found: dict[str, Callable[[], Checkpoint]] = {}
        if _takes_nothing(self.make):
            found[DEFAULT] = self.make
        if len(self._models) > 1 and all(one.space is Space.WEIGHT for one in self._models):
            found[AVERAGE] = partial(find("weighted_average"), self._models)
            if self._base is not None:
                found[SUM] = partial(find("task_arithmetic"), self._base, self._models)
        return found

    def again(self, trial: SearchTrial) -> Checkpoint:
        """The merge of a trial."""
        return self.plain[trial.kind]() if trial.kind in self.plain else self.make(**trial.options)

    def renderer(self, progress: bool) -> Renderer:
        """That of the first merge that can be made. Raises SearchError where there is none."""
        from workbench.render.shared import renderer_for

        problem = ""
        makes: list[Callable[[], Checkpoint]] = list(self.plain.values())
        makes += [partial(self.make, **self.options(point)) for point in self.space.grid(_TRIED)]
        for make in makes:
            try:
                made = make()
            except Exception as error:
                problem = problem or in_words(error)
                continue
            return renderer_for(made, progress=progress)
        raise SearchError(f"no merge of this space can be made; the first says: {problem}")

    def _of_methods(self, space: Mapping[str, Any]) -> list[Point]:
        """Each method of the space with nothing varied; what it does not have lies in the middle."""
        (chosen,) = (one for one in self.space.dimensions if one.name == "method")
        middle = {one.name: one.levels(1)[0] for one in self.space.dimensions}
        found: list[Point] = []
        for method in chosen.choices:
            own = {name: told for name, told in space.items() if name in find(method).declaration.options}
            default = space_of(own, find(method), *self._places).default if own else {}
            if default is not None:
                found.append({**middle, "method": method, **default})
        return found


def places(inputs: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """What options may have a number for: the models of the input that takes several, by name, and their blocks in order."""
    return [model.name for model in _models(inputs)], _blocks(inputs)


def _models(inputs: Mapping[str, Any]) -> list[Checkpoint]:
    """Those of the input that takes several."""
    many = (given for given in inputs.values() if isinstance(given, Sequence) and not isinstance(given, str | Checkpoint))
    return list(next(many, ()))


def _blocks(inputs: Mapping[str, Any]) -> list[str]:
    """The blocks of the first model that has some, in order."""
    models = chain.from_iterable([given] if isinstance(given, Checkpoint) else given for given in inputs.values())
    depths = (Depth.of(map(one.structure.location, one)) for one in models if isinstance(one, Checkpoint))
    return next((depth.names for depth in depths if depth.blocks), [])


def _takes_nothing(make: Callable[..., Any]) -> bool:
    try:
        inspect.signature(make).bind()
    except (TypeError, ValueError):
        return False
    return True
