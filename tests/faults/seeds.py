"""The whole files that are damaged, one of each kind that Workbench reads, and how each is opened."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save_file

import workbench as wb
from workbench.sweeps.store import keep, kept

from .damage import Way, as_archive, as_chunk, as_header, as_json, as_metadata, as_yaml, raw
from .scenes import NAMES

MARK = "run"  # a folder that appears when something was run


@dataclass(frozen=True)
class Seed:
    """A whole file or folder, which file in a folder is damaged, in which ways, and how it is opened."""

    name: str
    path: Path
    ways: list[Way]
    open: Callable[[Path], object]
    damaged: str = ""


def seeds(place: Path) -> list[Seed]:
    """One of every kind, written into `place`."""
    from .fuzzing import read_all

    tensors = {f"model.diffusion_model.{name}": torch.ones(8, 8) for name in NAMES}
    save_file(tensors, place / "a.safetensors", {"format": "pt", "modelspec.title": "a"})
    save_file({key: tensor * 2 for key, tensor in tensors.items()}, place / "b.safetensors")
    merge = wb.operators.weighted_average([wb.open(place / f"{name}.safetensors") for name in "ab"], weights=[1, 2])
    merge.recipe.save(place / "r.yaml")
    wb.export(merge, place / "merged.safetensors", threads=1, progress=False)
    wb.export(merge, place / "shards", max_shard_size=700, threads=1, progress=False)
    torch.save({"state_dict": tensors}, place / "m.ckpt")
    torch.save(tensors, place / "old.ckpt", _use_new_zipfile_serialization=False)
    (place / "evil.ckpt").write_bytes(_evil(place, random.Random(0)))
    _lora(place / "l.safetensors")
    _grid(place / "g.png")
    (place / "cell").mkdir()
    keep(place / "cell", [Image.new("RGB", (8, 8))] * 2, {"components": {}, "seconds": 1.0})
    index = "diffusion_pytorch_model.safetensors.index.json"
    return [
        Seed("safetensors", place / "a.safetensors", [as_header, as_header, raw], read_all),
        Seed("merged files", place / "merged.safetensors", [as_metadata, as_header], lambda path: (read_all(path), _recipe_in(path))),
        Seed("indexes", place / "shards", [as_json, raw], read_all, index),
        Seed("LoRAs", place / "l.safetensors", [as_header, as_metadata], read_all),
        Seed("recipes", place / "r.yaml", [as_yaml, as_yaml, raw], _recipe),
        Seed("pickles", place / "m.ckpt", [as_archive, as_archive, raw], read_all),
        Seed("older pickles", place / "old.ckpt", [raw], read_all),
        Seed("pickles that run something", place / "evil.ckpt", [_new_evil(place)], read_all),
        Seed("PNG grids", place / "g.png", [as_chunk, as_chunk, raw], lambda path: wb.open_grid(path)),
        Seed("cells of sweeps", place / "cell", [as_json], lambda path: kept(path, 2), "cell.json"),
        Seed("pictures of sweeps", place / "cell", [as_chunk, raw], lambda path: kept(path, 2), "0000.png"),
    ]


def _recipe(path: Path) -> None:
    found = wb.Recipe.load(path)
    found.to_yaml()
    found.build()


def _recipe_in(path: Path) -> None:
    wb.Recipe.from_file(path).to_yaml()


def _lora(path: Path) -> None:
    module = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {
        f"{module}.lora_up.weight": torch.ones(8, 2),
        f"{module}.lora_down.weight": torch.ones(2, 8),
        f"{module}.alpha": torch.tensor(1.0),
    }
    save_file(
        tensors, path, {"format": "pt", "ss_network_dim": "2", "lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 2})}
    )


def _grid(path: Path) -> None:
    told = {
        "workbench": 1,
        "models": [{"name": "a", "files": ["a.safetensors"]}],
        "prompts": ["x"],
        "seeds": [0],
        "steps": 4,
        "guidance": 1.0,
    }
    told |= {"sampler": None, "negative": None, "width": 8, "height": 8, "clip_skip": None}
    info = PngImagePlugin.PngInfo()
    info.add_itxt("workbench", json.dumps(told), zip=True)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)


class _Runs:
    """What unpickling it would call."""

    def __init__(self, call: Callable[..., object], *given: object) -> None:
        self._told = call, given

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._told


def _evil(place: Path, chance: random.Random) -> bytes:
    """A checkpoint that makes a folder when it is unpickled: by one call or another, alone or in a state dict, packed or not."""
    mark = str(place / MARK)
    calls = [
        _Runs(os.mkdir, mark), _Runs(os.makedirs, mark), _Runs(os.system, f"mkdir {mark}"), _Runs(exec, f"import os; os.mkdir({mark!r})"),
        _Runs(eval, f"__import__('os').mkdir({mark!r})"), _Runs(__import__, "antigravity"),
        _Runs(torch.load, mark), _Runs(torch.hub.load, mark, "x"), _Runs(Path.mkdir, place / MARK), _Runs(print, mark),
    ]  # fmt: skip
    call = chance.choice(calls)
    held = chance.choice([call, {"a": call}, {"state_dict": {"a.weight": call}}, [call], {call: 1}] if chance.random() < 0.9 else [(call,)])
    try:
        told = pickle.dumps(held, protocol=chance.choice([0, 1, 2, 3, 4, 5]))
    except (TypeError, pickle.PicklingError):
        told = pickle.dumps(call, protocol=2)
    if chance.random() < 0.3:
        return told
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", told)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/data/0", struct.pack("<4f", 1, 2, 3, 4))
    return made.getvalue()


def _new_evil(place: Path) -> Way:
    def evil(content: bytes, chance: random.Random) -> bytes:
        made = _evil(place, chance)
        return made if chance.random() < 0.7 else raw(made, chance)

    return evil
