"""From what a person gives to an elicitation: checkpoints, a sweep, or what makes merges; all is checked before a picture is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.checkpoint import Checkpoint
from workbench.errors import PreferenceError
from workbench.merge import Operator
from workbench.preferences.bradley_terry import check_choix
from workbench.preferences.candidates import Candidate, CandidatePictures, of_cell
from workbench.preferences.choices import ChoiceStore
from workbench.preferences.elicitation import Elicitation
from workbench.preferences.proposing import Cube
from workbench.preferences.sources import CandidateSource, Known, Proposed
from workbench.render.request import Request
from workbench.searches.merges import places
from workbench.searches.space import space_of
from workbench.sweeps import Sweep
from workbench.sweeps.combinations import check_make

if TYPE_CHECKING:
    from workbench.render import Renderer

_FORMS = 'checkpoints by name, as in {"heart": heart, "moon": moon}, a list of them, a sweep, or an operator or function with space='


def elicitation(
    candidates: object,
    space: Mapping[str, Any] | None,
    *,
    prompts: str | Sequence[str] | None,
    seeds: int | Sequence[int],
    inputs: Mapping[str, Any] | None,
    name: str,
    folder: Path,
    renderer: Renderer | None,
    seed: int,
    **settings: Any,
) -> Elicitation:
    """Questions about whatever is given, their choices kept in `folder/name`.

    Raises PreferenceError for what cannot be chosen between, SearchError for a space that makes no sense, RenderError for a request.
    """
    check_choix()
    if name in ("", "..") or Path(name).name != name:
        raise PreferenceError(f"name must be the name of a folder, without a path, got {name!r}; folder= says where it lies")
    _check_seed(seed)
    makes = callable(candidates) and not isinstance(candidates, Sweep | Checkpoint)
    if not makes and (space is not None or inputs is not None):
        raise PreferenceError("space= and inputs= are for an operator or a function that makes merges; candidates that are given have none")
    request = _request(candidates, prompts, seeds, settings)
    store = ChoiceStore(folder / name)
    drawing = CandidatePictures(request, candidates.folder if isinstance(candidates, Sweep) else store.folder / "pictures", renderer)
    source = _proposed(candidates, space, inputs, drawing, seed) if makes else _known(candidates, drawing)
    return Elicitation(source, drawing, store, request.pictures, seed)


def _request(candidates: object, prompts: str | Sequence[str] | None, seeds: int | Sequence[int], settings: Mapping[str, Any]) -> Request:
    if isinstance(candidates, Sweep):
        if prompts is not None or settings:
            raise PreferenceError("a sweep's pictures are drawn already: leave out prompts= and settings, or give its merges themselves")
        if len(candidates.requests) > 1:
            raise PreferenceError("the sweep draws each prompt and seed with several settings; sweep over options of the merge alone")
        return candidates.requests[0]
    if prompts is None or not list(prompts):
        raise PreferenceError("prompts= are needed: a few of those that the merge is for, as in prompts=['a red heart', 'a blue moon']")
    try:
        return Request.of(prompts, seeds, **settings)
    except TypeError as error:
        raise PreferenceError(f"{', '.join(settings)}: not all of these are settings of pictures ({error})") from error


def _known(candidates: object, drawing: CandidatePictures) -> CandidateSource:
    if isinstance(candidates, Sweep):
        plans: dict[str, Callable[[], Candidate]] = {cell.name: partial(of_cell, cell) for cell in candidates.cells}
    else:
        plans = {name: partial(drawing.plan, name, partial(_itself, one)) for name, one in _named(candidates).items()}
    if len(plans) < 2:
        raise PreferenceError(f"two candidates are needed, got {len(plans)} ({', '.join(plans) or 'none'}); give {_FORMS}")
    return Known(plans)


def _named(candidates: object) -> dict[str, Checkpoint]:
    """Checkpoints by name. Raises PreferenceError for anything else."""
    if isinstance(candidates, Checkpoint) or not isinstance(candidates, Mapping | Sequence) or isinstance(candidates, str):
        raise PreferenceError(f"candidates must be {_FORMS}; got {candidates!r:.80}")
    given = candidates.items() if isinstance(candidates, Mapping) else [(getattr(one, "name", "?"), one) for one in candidates]
    found: dict[str, Checkpoint] = {}
    for name, one in given:
        if not isinstance(one, Checkpoint):
            raise PreferenceError(f"candidate {name!r} must be a checkpoint, as wb.open(path) and operators give it, got {one!r:.80}")
        if str(name) in found:
            raise PreferenceError(f'two candidates are called {name!r}: give them names, as in {{"first": a, "second": b}}')
        found[str(name)] = one
    return found


def _proposed(
    make: Any, space: Mapping[str, Any] | None, inputs: Mapping[str, Any] | None, drawing: CandidatePictures, seed: int
) -> CandidateSource:
    cube = Cube(space_of(space, make if isinstance(make, Operator) else None, *places(inputs or {})))
    bound = partial(make, **inputs) if inputs else make
    check_make(bound, [cube.options(cube.spread(seed)[0])])
    return Proposed(bound, cube, drawing.plan, seed)


def _itself(checkpoint: Checkpoint) -> Checkpoint:
    return checkpoint


def _check_seed(seed: object) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise PreferenceError(f"seed must be a whole number from 0, got {seed!r}")
