"""Searches that a file beside a recipe describes, for the command. What files of any run have is in `sweeps`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, StrictBool, StrictInt

from workbench.checkpoint import Checkpoint
from workbench.errors import SearchError
from workbench.merge import Range
from workbench.merge.declaration import Option
from workbench.searches.found import Found
from workbench.searches.objective import SearchObjective
from workbench.searches.sampling import Sampler
from workbench.searches.searching import search
from workbench.sweeps.run_file import RunFields, ScorerFields, Seeds, Texts, Varied, executor_of, found_at, listed, read, shared, varied

Skilled = Texts | Mapping[str, Texts]


class ObjectiveFields(ScorerFields):
    """A scorer, and what of its numbers is looked for, as `SearchObjective` has it."""

    column: str | None = None
    least: StrictBool = False
    weakest: StrictBool = False


class SearchFields(RunFields):
    """A file that describes a search: `space` says what of the recipe's outer operator may vary, as `search` takes it.

    In a file a list is one of choices, and a range a mapping with `low` and `high`, by default those of the operator's slider. `sampler`
    is what suggests points; pictures have their pipeline's own.
    """

    workbench_search: Literal[1]
    prompts: Skilled  # type: ignore[assignment]  # by skill, too
    seeds: Seeds = Field(default=[0, 1, 2, 3])
    space: Mapping[str, JsonValue]
    objective: Annotated[list[ObjectiveFields], BeforeValidator(listed), Field(min_length=1)]
    unseen_prompts: Skilled | None = None
    unseen_seeds: Seeds | None = None
    trials: Annotated[StrictInt, Field(ge=1)] = 32
    sampler: Sampler = "tpe"  # of points, not of pictures
    seed: Annotated[StrictInt, Field(ge=0)] = 0


def draw_search(path: str | os.PathLike[str]) -> Found:
    """Search as a file says, drawn by whom it says, with a bar on the terminal.

    Raises SweepError and RecipeError, which name the file and the field, before anything is drawn; and what `search` raises.
    """
    place = found_at(path)
    fields = read(place, SearchFields)
    make = varied(fields, place)
    make.check(fields.space, f"{place}: space")
    inputs = _inputs(make())
    space = {name: _ranged(f"{place}: space.{name}", told, make.declaration.options[name]) for name, told in fields.space.items()}
    objective = [SearchObjective(one.made(place.parent), one.column, one.least, one.weakest) for one in fields.objective]
    asked = shared(fields, place, make) | {
        name: getattr(fields, name) for name in ("unseen_prompts", "unseen_seeds", "trials", "sampler", "seed")
    }
    with executor_of(fields.executor) as executor:
        return search(_called(make, inputs), space, inputs=inputs, objective=objective, executor=executor, **asked)


def _called(make: Varied, inputs: Mapping[str, Any]) -> Callable[..., Checkpoint]:
    """The merge as `search` asks for it: with its inputs, which the recipe names itself, and numbers of which some are to be whole."""
    whole = {name for name, option in make.declaration.options.items() if _is_whole(option)}

    def called(**given: Any) -> Checkpoint:
        options = {name: value for name, value in given.items() if name not in inputs}
        return make(**{name: int(value) if name in whole and isinstance(value, float) else value for name, value in options.items()})

    return called


def _inputs(merge: Checkpoint) -> dict[str, Any]:
    """What a merge is made of, by the names of its operator's inputs. Raises SearchError for what is none."""
    if merge.merge is None:
        raise SearchError(f"{merge.name}: is no merge, so there is nothing to search for")
    call = merge.merge.call
    given = {slot.name: [call.inputs[place] for place in call.slots.get(slot.name, ())] for slot in call.operator.inputs}
    return {slot.name: given[slot.name] if slot.many else given[slot.name][0] for slot in call.operator.inputs if given[slot.name]}


def _ranged(where: str, told: Any, option: Option) -> Any:
    """What may vary, with what a mapping leaves out. Raises SearchError for a value that is neither a mapping nor a list."""
    if not isinstance(told, list | dict):
        raise SearchError(f"{where}: must be a list of choices, or a mapping such as {{low: 0.1, high: 0.9}}, got {told!r}")
    if isinstance(told, list) or "choices" in told or not isinstance(option.constraint, Range):
        return told
    low, high = option.constraint.slider
    return {"low": low, "high": high, **({"step": 1} if _is_whole(option) else {}), **told}


def _is_whole(option: Option) -> bool:
    return isinstance(option.constraint, Range) and option.constraint.whole
