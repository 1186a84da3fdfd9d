"""What functions that measure models take: checkpoints in a list or by name, judged before a weight is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.views.matching import Matched, match
from workbench.errors import InputError, MergeWarning, warn
from workbench.merge.call import unique
from workbench.recipe import preflight

Models = Iterable[Checkpoint] | Mapping[str, Checkpoint]

_COUNTS = {1: "one or more", 2: "two or more"}


def named(models: Models, who: str, *, least: int = 2) -> dict[str, Checkpoint]:
    """The models by name, those of a list under their own, made unique.

    Raises InputError for what is no list or mapping of `least` checkpoints or more, or for weights beside changes, and
    MergeError for a merge that cannot be made; `who` asks. Nothing is read.
    """
    if isinstance(models, (str, Checkpoint)) or not isinstance(models, Iterable):
        raise InputError(f"{who} takes {_COUNTS[least]} checkpoints in a list, or a mapping of names to them; got {models!r}")
    if isinstance(models, Mapping):
        given = [(str(name), model) for name, model in models.items()]
    else:
        given = [(getattr(model, "name", ""), model) for model in models]
    found: dict[str, Checkpoint] = {}
    for name, model in given:
        found[unique(name, found)] = checkpoint(model, who)
    if len(found) < least:
        raise InputError(f"{who} takes {_COUNTS[least]} checkpoints, got {', '.join(found) or 'nothing'}")
    check(found, who)
    return found


def checkpoint(model: object, who: str) -> Checkpoint:
    """The model, if it is one. Raises InputError."""
    if not isinstance(model, Checkpoint):
        raise InputError(f"{who} takes checkpoints (see workbench.open), got {model!r}")
    return model


def check(models: Mapping[str, Checkpoint], who: str) -> None:
    """Raise InputError or MergeError for models whose numbers cannot be had, or mean different things."""
    spaces = {model.space: name for name, model in models.items()}
    if len(spaces) > 1:
        told = " and ".join(f"{name} holds {space.value}s" for space, name in spaces.items())
        raise InputError(f"{who}: {told}; take weights with weights, or changes with changes")
    for model in models.values():
        preflight(model).raise_errors()


def matched(models: Mapping[str, Checkpoint], who: str) -> list[Matched]:
    """The tensors of the first model that others have too; a MergeWarning says what had to be left out."""
    tensors, left_out = match(models, who)
    if left_out:
        told = "; ".join(map(str, left_out))
        warn(f"{who}, with {next(iter(models))} as anchor, leaves tensors out: {told}", MergeWarning)
    return tensors
