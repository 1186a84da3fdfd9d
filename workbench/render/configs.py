"""Which configs and tokenizers a model is drawn with: given, beside it, shipped, or on the hub. `assembly` builds the pipeline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from workbench.checkpoint import Checkpoint, in_layout
from workbench.checkpoint.files.hub import is_address
from workbench.checkpoint.files.json_object import read_object
from workbench.errors import CheckpointError, RenderError
from workbench.families import GENERIC, Family
from workbench.families.sizes import fit_config
from workbench.render.assembly import INDEX, Blueprint, read_blueprint, settings_in
from workbench.render.fitting import draws
from workbench.render.sources import hub_folder, shipped_folder
from workbench.untrusted import Refused, open_regular, parse_json

_WEIGHTS = ("*.safetensors", "*.bin")
_DESCRIPTIONS = ("*.json", "*/*.json", "*/*.txt", "*/*.model")  # configs and tokenizers, not weights


@dataclass(frozen=True)
class Configs:
    """A pipeline folder to draw with; equal ones make equal pipelines.

    `fitted` are configs, as JSON, that go before the folder's own, and `elsewhere` folders of parts that the folder lacks.
    """

    folder: Path
    fitted: tuple[tuple[str, str], ...] = ()
    elsewhere: tuple[tuple[str, Path], ...] = ()

    @cached_property
    def blueprint(self) -> Blueprint:
        """What the folder describes. Raises RenderError."""
        return read_blueprint(self.folder, dict(self.elsewhere), {part: json.loads(text) for part, text in self.fitted})

    @cached_property
    def identity(self) -> str:
        """What tells apart pipelines that may draw differently: not where the configs lie, but what they and the tokenizers say."""
        digest = hashlib.sha256(repr(self.fitted).encode())
        for part, folder in (("", self.folder), *self.elsewhere):
            for path in sorted(path for pattern in _DESCRIPTIONS for path in folder.glob(pattern)):
                digest.update(f"{part}/{path.relative_to(folder).as_posix()}\0".encode() + _content(path) + b"\0")
        return digest.hexdigest()

    def absolute(self) -> Configs:
        """The same, wherever the process stands."""
        return replace(self, folder=self.folder.absolute(), elsewhere=tuple((part, folder.absolute()) for part, folder in self.elsewhere))

    @property
    def has_weights(self) -> bool:
        """Whether the folder also holds weights."""
        return any(next((self.folder / part).glob(pattern), None) for part in self.blueprint.weighted for pattern in _WEIGHTS)


def find_configs(checkpoint: Checkpoint, given: str | Path | None = None, *, progress: bool = True) -> Configs:
    """The configs that a checkpoint is drawn with.

    In this order: what is given (a folder, or an `hf://` address); the folder that the checkpoint lies in, the one above, or a
    `config` in either; what this package ships, made to fit the checkpoint's tensors; the hub's cache, and the hub itself.

    Raises RenderError where there are none, which names the repository to have them from.
    """
    if given is not None:
        return Configs(hub_folder(str(given), progress) if is_address(given) else Path(given))
    family = checkpoint.structure.family
    if beside := next(_beside(checkpoint, family), None):
        return Configs(beside)
    names = list(checkpoint)
    if shipped := shipped_folder(family.name, names, checkpoint.structure.prediction):
        return _fitted(checkpoint, shipped, family, progress)
    if not family.configs or not family.pipeline:
        told = "is of no family that is known" if family is GENERIC else f"is {family.name}, which no pipeline draws"
        raise RenderError(f"{checkpoint.name!r} {told}: give the folder of its diffusers pipeline, Renderer(checkpoint, config=folder)")
    return Configs(hub_folder(family.configs, progress))


def _beside(checkpoint: Checkpoint, family: Family) -> Iterator[Path]:
    """The pipeline folders of its kind that a checkpoint lies in or beside."""
    around = [folder for path in checkpoint.sources() for folder in path.parents[:2]]
    for folder in dict.fromkeys(place for one in around for place in (one, one / "config")):
        if (folder / INDEX).is_file() and (family is GENERIC or _draws(folder, family)):
            yield folder


def _draws(folder: Path, family: Family) -> bool:
    """Whether a pipeline folder is of a kind that draws a family."""
    try:
        index = read_object(folder / INDEX)
        return draws(index["_class_name"], index[family.denoiser][1], family)
    except (CheckpointError, LookupError, TypeError):
        return False


def _fitted(checkpoint: Checkpoint, folder: Path, family: Family, progress: bool) -> Configs:
    """The shipped configs with the sizes that the checkpoint's tensors have: pruned models, and those for inpainting, differ."""
    blueprint = read_blueprint(folder)
    shapes = _shapes(checkpoint)
    pooled = shapes.get("text_encoder_2", {}).get("text_projection.weight", (None,))[0]
    fitted = []
    for part in blueprint.weighted:
        config = settings_in(folder / part / "config.json")
        found = fit_config(blueprint.parts[part].__name__, config, shapes[part], pooled=pooled) if shapes.get(part) else config
        if found != config:
            fitted.append((part, json.dumps(found, sort_keys=True)))
    lacking = [part for part in blueprint.parts if not (folder / part).is_dir()]
    elsewhere = tuple((part, hub_folder(family.configs, progress) / part) for part in lacking)
    return Configs(folder, tuple(fitted), elsewhere)


def _shapes(checkpoint: Checkpoint) -> Mapping[str, Mapping[str, tuple[int, ...]]]:
    """Part -> name in diffusers' layout -> shape."""
    view = in_layout(checkpoint, "diffusers")
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for key in view:
        component, rest = view.structure.component(key), view.structure.name(key).rest
        found.setdefault(component, {})[rest] = view.info(key).shape
    return found


def _content(path: Path) -> bytes:
    """A config without what it says of where it came from: such names begin with an underscore."""
    try:
        with open_regular(path) as file:
            text = file.read()
    except OSError as error:
        raise RenderError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        config = parse_json(text) if path.name.endswith("config.json") else None
    except Refused:
        return text
    if not isinstance(config, dict):
        return text
    kept = {key: value for key, value in config.items() if not key.startswith("_") or key == "_class_name"}
    return json.dumps(kept, sort_keys=True).encode()
