"""Plans the folder that an export becomes: its shards, its configs, and what is taken over from the first input. Writes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.checkpoint import Checkpoint
from workbench.checkpoint.files.folders import CONFIG, INDEX, PIPELINE, is_small, usual_among, weights_among
from workbench.checkpoint.files.joined import weight_files
from workbench.checkpoint.files.json_object import read_object
from workbench.engine.configs import config_beside, flux_config
from workbench.engine.files import File
from workbench.errors import ExportError
from workbench.tensors import TensorInfo

Infos = Mapping[str, TensorInfo]

_DIFFUSERS, _TRANSFORMERS = "diffusion_pytorch_model", "model"


@dataclass(frozen=True)
class FolderPlan:
    """What lies in the folder, by places in it: files of tensors, texts, links to weights, copies of small files.

    `pipeline` is the index of a whole pipeline; `notes` is what to know of the result.
    """

    files: list[File] = field(default_factory=list)
    texts: dict[Path, str] = field(default_factory=dict)
    links: dict[Path, Path] = field(default_factory=dict)
    copies: dict[Path, Path] = field(default_factory=dict)
    pipeline: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    def add_shards(self, folder: Path, stem: str, names: Mapping[str, str], infos: Infos, limit: int | str) -> None:
        """The tensors, key -> name, greedily in their order into files of at most `limit` bytes; with an index if there are several."""
        from huggingface_hub import split_state_dict_into_shards_factory

        by_name = {name: infos[key] for key, name in names.items()}
        keys = {name: key for key, name in names.items()}
        found = split_state_dict_into_shards_factory(
            by_name, get_storage_size=lambda info: info.nbytes, filename_pattern=f"{stem}{{suffix}}.safetensors", max_shard_size=limit
        )
        for file, held in found.filename_to_tensors.items():
            self.files.append(File(folder / file, {keys[name]: name for name in held}))
        if found.is_sharded:
            index = {"metadata": found.metadata, "weight_map": found.tensor_to_filename}
            self.texts[folder / f"{stem}.safetensors{INDEX}"] = as_json(index)


def as_json(value: object) -> str:
    """Text as diffusers writes it."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def first_of(checkpoint: Checkpoint) -> Checkpoint:
    """The input in whose layout a merge is written; of anything else itself."""
    return first_of(checkpoint.parents[0]) if checkpoint.parents else checkpoint


def plan_folder(checkpoint: Checkpoint, infos: Infos, limit: int | str) -> FolderPlan:
    """Lay out a component, or a whole pipeline where the first input is one. Raises ExportError for tensors that belong nowhere."""
    if not infos:
        raise ExportError(f"{checkpoint.name}: holds no tensors, so there is nothing to put into a folder")
    first = first_of(checkpoint)
    if first.path is not None and (first.path / PIPELINE).is_file():
        return _pipeline(checkpoint, first, first.path, infos, limit)
    plan = FolderPlan()
    text = set(checkpoint.components) <= {"text_encoder", "text_encoder_2"}
    plan.add_shards(Path(), _TRANSFORMERS if text else _DIFFUSERS, {key: key for key in infos}, infos, limit)
    config, why = _config(checkpoint, first, infos)
    if config is None:
        plan.notes.append(f"without {CONFIG}, so diffusers cannot load it from here: {why}")
    else:
        plan.texts[Path(CONFIG)] = as_json(config)
        plan.notes.extend(filter(None, [why]))
    return plan


def _config(checkpoint: Checkpoint, first: Checkpoint, infos: Infos) -> tuple[dict[str, Any] | None, str]:
    """The config of a component, and what may be wrong with it; or why there is none."""
    structure = checkpoint.structure
    names = [structure.name(key) for key in infos]
    prefix = next((name.prefix for name in names if name.prefix and name.component != "text_encoder"), "")
    if structure.layout not in ("diffusers", "plain") or prefix:
        what = f"names that begin with {prefix!r}" if prefix else f"{structure.layout} names"
        return None, f"its tensors have {what}, as those of {first.name}; export in_layout(merge, 'diffusers') to have diffusers' names"
    had = {key: first.info(key) for key in first}
    if first.path is not None and (found := config_beside(first.path.parent, infos, had)):
        return found
    if structure.components == ("transformer",) and (config := flux_config(infos)):
        return config, ""
    return None, f"there is none beside {first.name}, and the tensors do not tell it; copy the model's own into the folder"


def _pipeline(checkpoint: Checkpoint, first: Checkpoint, source: Path, infos: Infos, limit: int | str) -> FolderPlan:
    """Each component in its folder: taken over from the first input, written, or left out."""
    index = {name: value for name, value in read_object(source / PIPELINE).items() if name != "_name_or_path"}
    plan = FolderPlan(pipeline=index)
    held = _by_component(checkpoint, source, index, infos)
    linked = []
    for name in [name for name in index if not name.startswith("_") and (source / name).is_dir()]:
        files = [file.name for file in (source / name).iterdir() if file.is_file()]
        if name not in held and weights_among(files):
            index[name] = [None, None]  # as diffusers writes a component that a pipeline does without
            continue
        plan.copies.update({Path(name, file): source / name / file for file in files if is_small(file)})
        if name not in held:
            continue
        if checkpoint.parents and _untouched(checkpoint, first, name, held[name], infos):
            plan.links.update({Path(name, file.name): file for file in weight_files(source / name)})
            linked.append(name)
        else:
            had = {key.removeprefix(f"{name}."): first.info(key) for key in first if key.startswith(f"{name}.")}
            _add_component(plan, source / name, index[name], held[name], infos, had, limit)
    if linked:
        are = "is" if len(linked) == 1 else "are"
        plan.notes.append(f"{' and '.join(linked)} {are} not merged, and linked to the files of {first.name}")
    return plan


def _add_component(
    plan: FolderPlan, source: Path, library: Any, names: Mapping[str, str], infos: Infos, had: Infos, limit: int | str
) -> None:
    """The tensors of one component of a pipeline, and its config as it is right for them; `had` are those that it was written for."""
    folder = Path(source.name)
    transformers = isinstance(library, list) and library[:1] == ["transformers"]
    plan.add_shards(folder, _TRANSFORMERS if transformers else _DIFFUSERS, names, infos, limit)
    if found := config_beside(source, {inner: infos[key] for key, inner in names.items()}, had):
        config, wrong = found
        plan.copies.pop(folder / CONFIG, None)
        plan.texts[folder / CONFIG] = as_json(config)
        plan.notes.extend(f"{folder}: {told}" for told in [wrong] if told)


def _by_component(checkpoint: Checkpoint, source: Path, index: Mapping[str, Any], infos: Infos) -> dict[str, dict[str, str]]:
    """The pipeline's components that there are tensors of: each tensor's key, and its name inside."""
    held: dict[str, dict[str, str]] = {}
    for key in infos:
        name, _, inner = key.partition(".")
        if name.startswith("_") or name not in index or not (source / name).is_dir():
            told = ", ".join(name for name in index if (source / name).is_dir())
            raise ExportError(f"{checkpoint.name}: {key!r} belongs to no component of the pipeline {source} ({told}); skip it with a rule")
        held.setdefault(name, {})[key] = inner
    return held


def _untouched(checkpoint: Checkpoint, first: Checkpoint, name: str, names: Mapping[str, str], infos: Infos) -> bool:
    """Whether a component is the first input's, tensor by tensor."""
    if set(names) != {key for key in first if key.startswith(f"{name}.")}:
        return False
    return all(checkpoint.origin(key) == (first, key) and infos[key] == first.info(key) for key in names)


def stale_in(folder: Path) -> Iterator[Path]:
    """The files of an older model or pipeline in a folder, by what the libraries call them; nothing else that lies there."""
    parts = []
    if (folder / PIPELINE).is_file():
        parts = [folder / name for name in read_object(folder / PIPELINE) if not name.startswith("_") and (folder / name).is_dir()]
        parts = [part for part in parts if not part.is_symlink()]  # what a link leads to is another model's
    for place in (folder, *parts):
        files = [file.name for file in place.iterdir() if file.is_file()]
        yield from (place / name for name in usual_among(files, pipeline=bool(parts)))
