"""What is done to files while accidents happen: each scene has a folder as it was, what is done in it, and what may come of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

import workbench as wb
from workbench.checkpoint.files.temporary import is_temporary
from workbench.sweeps.store import keep, kept

Tree = Mapping[str, str]

NAMES = ("input_blocks.0.0.weight", "input_blocks.1.1.proj_in.weight", "middle_block.1.norm.weight", "out.2.weight")
OWN = ("notes.txt", "a_first.txt", "zz/last.png", "samples/1.png", "unet/mine.txt")
SHARD = 700  # bytes: a tensor or two
_PIPELINE = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}


@dataclass(frozen=True)
class Scene:
    """`prepare` makes the folder as it was, `act` does something in it, and `model` is what is opened afterwards."""

    name: str
    prepare: Callable[[Path], None]
    act: Callable[[Path], object]
    model: str
    trees: dict[str, Tree] = field(default_factory=dict)  # the folder before, and after it has ended well
    calls: list[int] = field(default_factory=list)  # of the file system that it takes, once measured

    def fresh(self, place: Path) -> tuple[Path, dict[str, int]]:
        """The folder as it was, and the inodes of what is a person's own in it."""
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        self.prepare(place)
        own = {path.relative_to(place).as_posix(): path.stat().st_ino for path in files(place) if _is_own(path.relative_to(place))}
        return place, own

    def open(self, place: Path) -> None:
        """Open the model as the next program would; a store is asked for its pictures. That there may be none is no error here."""
        if self.name == "sweep":
            kept(place / "cell", 2)
        elif (place / self.model).exists():
            wb.open(place / self.model)


def files(place: Path) -> Iterator[Path]:
    yield from (path for path in sorted(place.rglob("*")) if path.is_file() or path.is_symlink())


def tree(place: Path, hidden: bool = False) -> Tree:
    """Every file and what is in it; by default of what is visible."""
    shown = [path for path in files(place) if hidden or not any(map(is_temporary, path.relative_to(place).parts))]
    return {path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in shown}


def hidden_in(place: Path) -> list[str]:
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if is_temporary(path.name))


def scenes(sources: Path) -> list[Scene]:
    """All of them; the models that they merge are written into `sources`."""
    sources.mkdir(parents=True)
    for seed, name in enumerate("ab"):
        _model(sources / f"{name}.safetensors", seed, "model.diffusion_model.")
        _pipeline(sources / f"pipeline_{name}", seed)
        _lora(sources / f"lora_{name}.safetensors", seed)

    def merge() -> wb.Merge:
        return wb.operators.weighted_average([wb.open(sources / f"{name}.safetensors") for name in "ab"])

    def pipeline() -> wb.Merge:
        models = [wb.open(sources / f"pipeline_{name}") for name in "ab"]
        return wb.operators.weighted_average(models, rules=[{"component": "vae", "take": "models[0]"}])

    def file(place: Path, overwrite: bool = True) -> None:
        wb.export(merge(), place / "m.safetensors", overwrite=overwrite, threads=1, progress=False)

    def folder(place: Path, overwrite: bool = True) -> None:
        wb.export(merge(), place / "out", overwrite=overwrite, max_shard_size=SHARD, threads=1, progress=False)

    def whole(place: Path) -> None:
        wb.export(pipeline(), place / "out", overwrite=True, max_shard_size=SHARD, threads=1, progress=False)

    def lora(place: Path, overwrite: bool = True) -> None:
        wb.lora.export(wb.open(sources / "lora_a.safetensors"), place / "l.safetensors", overwrite=overwrite)

    def older_pipeline(place: Path) -> None:
        _own(place / "out")
        _pipeline(place / "out", 7)
        weights = Path("vae", "diffusion_pytorch_model.safetensors")
        (place / "out" / weights).unlink()
        os.link(sources / "pipeline_a" / weights, place / "out" / weights)  # as an export links what it does not merge

    return [
        Scene("file", lambda place: None, lambda place: file(place, False), "m.safetensors"),
        Scene("file over another", lambda place: _model(place / "m.safetensors", 7), file, "m.safetensors"),
        Scene("folder", lambda place: None, lambda place: folder(place, False), "out"),
        Scene("folder that is empty", lambda place: (place / "out").mkdir(), lambda place: folder(place, False), "out"),
        Scene("folder over another", _older_folder, folder, "out"),
        Scene("pipeline over another", older_pipeline, whole, "out"),
        Scene("LoRA", lambda place: None, lambda place: lora(place, False), "l.safetensors"),
        Scene("LoRA over another", lambda place: _lora(place / "l.safetensors", 7), lora, "l.safetensors"),
        Scene("recipe over another", lambda place: _text(place / "r.yaml"), lambda place: merge().recipe.save(place / "r.yaml"), "r.yaml/"),
        Scene("sweep", lambda place: _cell(place, "red"), lambda place: _cell(place, "blue"), "cell/cell.json/"),
    ]


def _is_own(place: Path) -> bool:
    return place.as_posix().removeprefix("out/") in OWN


def _own(folder: Path) -> None:
    """A person's own files, some in folders of their own, one beside the weights of a part."""
    for name in OWN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def _text(path: Path) -> None:
    path.write_text("an older recipe")


def _tensors(seed: int, prefix: str = "") -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return {prefix + name: torch.randn(8, 8, generator=made) for name in NAMES}


def _model(path: Path, seed: int, prefix: str = "") -> None:
    save_file(_tensors(seed, prefix), path, {"format": "pt"})


def _lora(path: Path, seed: int) -> None:
    made = torch.Generator().manual_seed(seed)
    module = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    parts = {f"{module}.lora_up.weight": (8, 2), f"{module}.lora_down.weight": (2, 8)}
    save_file({name: torch.randn(*shape, generator=made) for name, shape in parts.items()}, path)


def _older_folder(place: Path) -> None:
    """A model in three shards, and a person's own files."""
    _own(place / "out")
    shards = {f"diffusion_pytorch_model-{i:05}-of-00003.safetensors": name for i, name in enumerate(NAMES[:3], 1)}
    tensors = _tensors(7)
    for shard, name in shards.items():
        save_file({name: tensors[name]}, place / "out" / shard)
    index = {"metadata": {}, "weight_map": {name: shard for shard, name in shards.items()}}
    (place / "out" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    (place / "out" / "config.json").write_text("{}")


def _pipeline(folder: Path, seed: int) -> None:
    """A U-Net and a VAE, as diffusers lays them out."""
    for number, part in enumerate(("unet", "vae")):
        (folder / part).mkdir(parents=True, exist_ok=True)
        made = torch.Generator().manual_seed(seed + number)
        tensors = {name: torch.randn(8, 8, generator=made) for name in ("conv_in.weight", "conv_out.weight", "mid_block.x.weight")}
        save_file(tensors, folder / part / "diffusion_pytorch_model.safetensors")
        (folder / part / "config.json").write_text("{}")
    (folder / "model_index.json").write_text(json.dumps(_PIPELINE))


def _cell(place: Path, colour: str) -> None:
    (place / "cell").mkdir(exist_ok=True)
    keep(place / "cell", [Image.new("RGB", (8, 8), colour)] * 2, {"components": {}, "seconds": 1.0})
