"""Each kind of text-to-image pipeline draws as diffusers' own class draws, told by nothing but its folder."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_pipelines import BUILDERS, save

import workbench as wb
from workbench.render import Renderer
from workbench.render.silence import quiet

SIZE = {"width": 64, "height": 32}
PROMPTS = ["a dog", "a red heart on a blue plate"]
SEEDS = [0, 7]
SCALE = {"Qwen-Image": "true_cfg_scale"}  # else guidance_scale
NO_NEGATIVE = ("Flux", "Flux without guidance", "Flux.2", "Flux.2 Klein")
NO_GUIDANCE = ("Flux without guidance",)
CLIP_SKIP = ("SD 1", "SD 2", "SDXL", "SD 3", "SD 3 without T5")

Folder = Callable[..., Path]


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Folder:
    """The folder of a kind's pipeline, made when it is first asked for."""
    made: dict[object, Path] = {}

    def find(kind: str, seed: int = 1) -> Path:
        if (kind, seed) not in made:
            made[kind, seed] = save(kind, tmp_path_factory.mktemp("pipe") / "abc"[seed - 1], seed)
        return made[kind, seed]

    return find


def pipeline_of(path: Path, **parts: Any) -> Any:
    """What diffusers itself makes of a folder."""
    import diffusers

    with quiet(), warnings.catch_warnings(action="ignore"):  # of what diffusers itself does in an old way
        pipeline = diffusers.DiffusionPipeline.from_pretrained(path, dtype=torch.float32, local_files_only=True, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def theirs(pipeline: Any, kind: str, prompts: Sequence[str] = PROMPTS, seeds: Sequence[int] = SEEDS, **settings: Any) -> np.ndarray:
    """What diffusers draws, one call for each picture; settings are named as in `Renderer.images`."""
    names = {"steps": "num_inference_steps", "guidance": SCALE.get(kind, "guidance_scale"), "negative": "negative_prompt"}
    told = {names.get(name, name): value for name, value in (SIZE | settings).items() if value is not None}
    drawn = []
    with quiet(), warnings.catch_warnings(action="ignore"), torch.inference_mode():
        for prompt in prompts:
            for seed in seeds:
                drawn += pipeline(prompt=prompt, generator=[torch.Generator().manual_seed(seed)], **told).images
    return np.stack([np.asarray(picture, int) for picture in drawn])


def ours(renderer: Renderer, prompts: Sequence[str] = PROMPTS, seeds: Sequence[int] = SEEDS, **settings: Any) -> np.ndarray:
    return np.stack([np.asarray(picture, int) for picture in renderer.images(prompts, seeds, **SIZE | settings)])


def differ(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one - other).max())


@pytest.fixture(scope="session")
def pair(folder) -> Callable[[str], tuple[Any, Renderer]]:
    """Diffusers' pipeline of a kind, and a renderer of the same folder."""
    known: dict[str, tuple[Any, Renderer]] = {}

    def find(kind: str) -> tuple[Any, Renderer]:
        if kind not in known:
            known[kind] = pipeline_of(folder(kind), **absent(kind)), Renderer(folder(kind), device="cpu")
        return known[kind]

    return find


@pytest.mark.parametrize("kind", BUILDERS)
def test_pictures_are_those_of_diffusers_for_several_prompts_and_seeds_at_once(pair, kind):
    pipeline, renderer = pair(kind)
    settings = {"steps": 2, "guidance": 3.0}
    with warnings.catch_warnings(action="ignore"):  # of guidance that does nothing without a negative prompt
        drawn = ours(renderer, **settings)
    assert drawn.shape == (4, 32, 64, 3)
    assert differ(drawn, theirs(pipeline, kind, **settings)) <= 1
    assert min(differ(drawn[i], drawn[j]) for i in range(4) for j in range(i)) > 8  # each prompt and each seed shows


@pytest.mark.parametrize("kind", [kind for kind in BUILDERS if kind not in NO_GUIDANCE])
def test_guidance_and_a_negative_prompt_do_what_they_do_in_diffusers(pair, kind):
    pipeline, renderer = pair(kind)
    asked = [(1.0, None), (5.0, None)] if kind in NO_NEGATIVE else [(1.0, "a frog"), (5.0, "a frog"), (5.0, "")]
    drawn = []
    for guidance, negative in asked:
        settings = {"steps": 2, "guidance": guidance, "negative": negative, "prompts": PROMPTS, "seeds": [3]}
        drawn.append(ours(renderer, **settings))
        assert differ(drawn[-1], theirs(pipeline, kind, **settings)) <= 1
        assert len(drawn) == 1 or differ(drawn[-1], drawn[-2]) > 8


@pytest.mark.parametrize("kind", CLIP_SKIP)
def test_clip_skip_does_what_it_does_in_diffusers(pair, kind):
    pipeline, renderer = pair(kind)
    if not hasattr(pipeline.text_encoder, "text_model"):  # where diffusers looks for its last norm, and finds it no more
        pipeline.text_encoder.__dict__["text_model"] = pipeline.text_encoder
    settings = {"steps": 2, "guidance": 4.0, "prompts": PROMPTS, "seeds": [3]}
    drawn = [ours(renderer, **settings, clip_skip=skip) for skip in (None, 1)]
    assert differ(drawn[1], theirs(pipeline, kind, **settings, clip_skip=1)) <= 1
    assert differ(*drawn) > 8


def test_sdxl_tells_no_negative_prompt_from_an_empty_one(pair):
    pipeline, renderer = pair("SDXL")
    settings = {"steps": 2, "guidance": 4.0, "prompts": PROMPTS, "seeds": [3]}
    assert differ(ours(renderer, **settings), theirs(pipeline, "SDXL", **settings)) <= 1
    assert differ(ours(renderer, **settings), ours(renderer, **settings, negative="")) > 8


def absent(kind: str) -> dict[str, None]:
    """What diffusers has to be told of parts that a folder leaves out."""
    return {"text_encoder_3": None, "tokenizer_3": None} if kind == "SD 3 without T5" else {}


VARIANTS = ("SD 3 without T5", "Flux without guidance", "Flux.2 Klein", "PixArt Alpha")  # of what is tried already


@pytest.mark.parametrize("kind", [kind for kind in BUILDERS if kind not in VARIANTS])
def test_a_merge_of_two_folders_draws_as_its_exported_folder_in_diffusers(folder, pair, kind, tmp_path):
    merge = wb.operators.weighted_average([wb.open(folder(kind)), wb.open(folder(kind, 2))], weights=[0.6, 0.4])
    exported = wb.export(merge, tmp_path / "out", max_shard_size="1GB", progress=False).path
    settings = {"steps": 2, "guidance": 3.0, "negative": None if kind in NO_NEGATIVE else "a frog", "prompts": PROMPTS, "seeds": [3]}
    drawn = ours(Renderer(merge, device="cpu"), **settings)
    assert differ(drawn, theirs(pipeline_of(exported, **absent(kind)), kind, **settings)) <= 1
    renderer = pair(kind)[1]
    first = ours(renderer, **settings)
    assert differ(first, drawn) > 8
    renderer.load(merge)
    assert differ(ours(renderer, **settings), drawn) == 0
    renderer.load(wb.open(folder(kind)))  # and no trace of the merge is left
    assert differ(ours(renderer, **settings), first) == 0


@pytest.mark.parametrize("kind", [kind for kind in BUILDERS if kind not in (*VARIANTS, "PixArt Sigma")])
def test_a_denoiser_in_a_file_of_its_authors_layout_draws_as_its_folder(folder, pair, kind, tmp_path):
    part = next(name for name in ("unet", "transformer") if (folder(kind) / name).is_dir())
    alone = wb.in_layout(wb.open(folder(kind) / part), "original")
    path = wb.export(alone, tmp_path / "denoiser.safetensors", progress=False).path
    settings = {"steps": 2, "guidance": 3.0, "negative": None if kind in NO_NEGATIVE else "a frog", "prompts": PROMPTS[:1], "seeds": [3]}
    renderer = Renderer(path, config=folder(kind), device="cpu")
    assert differ(ours(renderer, **settings), ours(pair(kind)[1], **settings)) == 0
    assert renderer.loaded.components["vae"] == folder(kind).name


@pytest.mark.parametrize("kind", ["Flux.2 Klein", "PixArt Alpha"])
def test_a_model_finds_the_configs_beside_it_also_of_another_pipeline_than_its_familys(folder, kind):
    assert Renderer(wb.open(folder(kind)), device="cpu").config == folder(kind)


def test_without_torchvision_a_processors_tokenizer_reads_the_prompt(folder, pair, tmp_path):
    shutil.copytree(folder("Flux.2"), tmp_path / "flux2")
    index = tmp_path / "flux2" / "model_index.json"
    described = json.loads(index.read_text()) | {"tokenizer": ["transformers", "PixtralProcessor"]}
    index.write_text(json.dumps(described))
    settings = {"steps": 1, "prompts": PROMPTS[:1], "seeds": [3]}
    assert differ(ours(Renderer(tmp_path / "flux2", device="cpu"), **settings), ours(pair("Flux.2")[1], **settings)) == 0
