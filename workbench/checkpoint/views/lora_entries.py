"""What a LoRA file changes, tensor by tensor: its parts, put together under the names of a model. Reading a change is in `changes`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from workbench.checkpoint.base import Checkpoint
from workbench.checkpoint.changes.change import LoraChange, LoraParts, float32
from workbench.checkpoint.changes.kinds import change_of
from workbench.checkpoint.changes.products import Factors
from workbench.checkpoint.changes.scalings import Scaling
from workbench.checkpoint.changes.wholes import Whole
from workbench.checkpoint.names.lora_modules import module_of
from workbench.checkpoint.names.lora_names import LoraTensor, grouped
from workbench.checkpoint.names.peft_settings import PeftSettings, finite
from workbench.errors import CheckpointError
from workbench.wording import listed

Entry = LoraChange | str  # the change; or the name of the tensor that is the change
Finder = Callable[[LoraTensor], "str | None"]  # the name of a tensor in a model


@dataclass(frozen=True)
class Content:
    """Each change with what the file calls it and what its tensor is called as far as that tells; and what there is to say."""

    changes: tuple[tuple[LoraTensor, str, Entry], ...]
    notes: tuple[str, ...]


def content_of(file: Checkpoint, settings: Mapping[str, PeftSettings]) -> Content:
    """What a file changes. `settings` are PEFT's by component.

    Raises CheckpointError for parts that do not go together, or that settings contradict.
    """
    where = file.path or file.name
    groups, left_out = grouped(file, where, [module for one in settings.values() for module in one.saved])
    if not groups:
        raise CheckpointError(f"{where}: holds embeddings ({listed([*left_out], 1)}) and no change of a model; load it as an embedding")
    found: list[tuple[LoraTensor, str, Entry]] = []
    unscaled = []
    roles: dict[PeftSettings, dict[str, list[str]]] = {}
    for named in groups:
        name, alpha = _usual(named), None
        own, module = _settings(settings, named.module)
        if "alpha" in named.roles:
            alpha, own = _alpha(file, where, named.roles["alpha"]), None
        elif own is not None:
            roles.setdefault(own, {}).setdefault(module, []).extend(named.roles)
        elif "up" in named.roles:
            unscaled.append(named.roles["up"])
        found.append((named, name, change_of(LoraParts(file, where, name, module, named.roles, alpha, own))))
    notes = [note for own, held in roles.items() for note in own.check(held)]
    if unscaled and len(unscaled) < len(found):
        notes.append(f"{len(unscaled)} of {len(found)} pairs have no alpha ({listed(unscaled)}) and are taken as they are")
    if left_out:
        told = f"{len(left_out)} tensors of embeddings trained with it ({listed([*left_out], 1)})"
        notes.append(f"{told} are no change of a model, and left out")
    return Content(tuple(found), (*notes, *_too_many(found)))


def named_by(content: Content, where: object, find: Finder = lambda named: None) -> dict[str, Entry]:
    """The changes by the names that `find` has for their tensors, or the usual ones. Raises CheckpointError where two are of one tensor."""
    entries: dict[str, Entry] = {}
    for named, usual, change in content.changes:
        _enter(entries, where, find(named) or usual, change)
        if isinstance(change, Scaling) and change.start and not change.on_input and (bias := find(replace(named, tensor="bias"))):
            _enter(entries, where, bias, change)  # PEFT scales what the layer puts out
    return entries


def fitted(file: Checkpoint, entry: Entry, shape: tuple[int, ...]) -> Entry:
    """The change in the shape of the tensor that it changes; itself where it is of that shape, or cannot have it."""
    if isinstance(entry, str):
        info = file.info(entry)
        whole = Whole(entry, 1.0, info)
        return whole if info.shape == shape or not whole.fits(shape) else replace(whole, info=float32(shape))
    return replace(entry, info=float32(shape)) if entry.info.shape != shape and entry.fits(shape) else entry  # type: ignore[type-var]


def _usual(named: LoraTensor) -> str:
    name = module_of(named.module).usual
    return f"{name}.{named.tensor}" if named.tensor else name


def _settings(settings: Mapping[str, PeftSettings], written: str) -> tuple[PeftSettings | None, str]:
    """The settings that a module is under, and its name as PEFT has it."""
    name = written.replace("base_model.model.", "")
    for component, own in settings.items():
        if component and name.startswith(f"{component}."):
            return own, name[len(component) + 1 :]
    return settings.get(""), name


def _enter(entries: dict[str, Entry], where: object, name: str, change: Entry) -> None:
    if known := entries.get(name):
        one, other = (entry if isinstance(entry, str) else entry.names[0] for entry in (known, change))
        raise CheckpointError(f"{where}: {one!r} and {other!r} both change {name!r}; leave one out")
    entries[name] = change


def _alpha(file: Checkpoint, where: object, key: str) -> float:
    """The number that a pair is scaled by. Raises CheckpointError for what is none."""
    if (info := file.info(key)).numel != 1:
        raise CheckpointError(f"{where}: {key!r} has shape {list(info.shape)}; an alpha is one number; the file is damaged, fetch it again")
    return finite(where, key, file.read(key).item())


def _too_many(changes: Iterable[tuple[LoraTensor, str, Entry]]) -> tuple[str, ...]:
    """A note of ranks that exceed their layers: nothing is lost, but the file is larger than the changes in it."""
    pairs = [(name, one) for _, name, one in changes if isinstance(one, Factors)]
    beyond = [name for name, one in pairs if one.rank > min(one.info.shape[0], one.info.numel // one.info.shape[0])]
    told = f"{len(beyond)} pairs have a rank beyond the sides of their layers ({listed(beyond, 1)})"
    return (f"{told}; `resize` makes the file smaller",) if beyond else ()
