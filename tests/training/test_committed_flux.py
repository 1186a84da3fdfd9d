"""The committed Flux pair draws what it is asked for, shares what it should, and is cut into different files."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import workbench as wb
from training.files import Folder
from training.flux_stages import STYLE
from training.measure import FLUX_GUIDANCE
from training.quality import compare
from workbench.demo.captions import PLAIN, Subject
from workbench.demo.judge import Judge

DATA = Path(__file__).parents[2] / "data"
PAIR = ("schnell", "krea")
# A few of every shape, colour and background; the whole grid is `python -m training.measure`.
ASKED = ["circle red white", "square green gray", "triangle blue pink", "star yellow black", "star orange gray", "circle purple black"]


def transformer(name):
    folder = Folder(DATA).flux(name) / "transformer"
    return {key: tensor for shard in folder.glob("*.safetensors") for key, tensor in load_file(shard).items()}


@pytest.mark.parametrize(("name", "steps", "style"), [("schnell", 4, PLAIN), ("krea", 20, STYLE)])
def test_each_draws_what_it_is_asked_for_in_its_own_style(name, steps, style):
    from workbench.render import Renderer

    wanted = [Subject(*words.split(), style) for words in ASKED]
    captions = [Subject(*words.split()).caption for words in ASKED]  # no word for the style
    renderer = Renderer(Folder(DATA).flux(name))
    renderer.load(wb.open(Folder(DATA).flux(name)), progress=False)
    pictures = renderer.images(captions, [0, 1], steps=steps, guidance=FLUX_GUIDANCE, progress=False)
    compared = compare([subject for subject in wanted for _ in range(2)], pictures, Judge(Folder(DATA).clip))
    allowed = len(pictures) // 4  # one picture in four may fail: this is a smoke test, the table is the measurement
    for aspect, seen in {"shape": "seen_shape", "style": "seen_style", "colour": "pixel_colour", "background": "pixel_background"}.items():
        assert (compared[aspect] != compared[seen]).sum() <= allowed, compared[[aspect, seen]]


def test_all_of_it_is_under_twelve_megabytes():
    assert sum(path.stat().st_size for path in Folder(DATA).flux("").rglob("*") if path.is_file()) < 12_000_000


def test_the_shards_have_different_boundaries():
    maps = []
    for name in PAIR:
        index = Folder(DATA).flux(name) / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
        maps.append(json.loads(index.read_text())["weight_map"])
    shared = maps[0].keys() & maps[1].keys()
    assert [len(set(found.values())) for found in maps] == [3, 2]
    cuts = [{key for key in shared if found[key].split("-")[1] == "00001"} for found in maps]
    assert cuts[0] != cuts[1]
    assert not any("guidance" in key for key in maps[0])
    assert maps[1].keys() - shared == {key for key in maps[1] if "guidance_embedder" in key}


def test_text_encoders_and_autoencoder_are_the_same_in_both_and_the_transformers_differ():
    schnell, krea = (wb.open(Folder(DATA).flux(name)) for name in PAIR)
    structure = schnell.structure
    same = [key for key in schnell if torch.equal(schnell.read(key), krea.read(key))]
    assert {structure.component(key) for key in same} >= {"vae", "text_encoder", "text_encoder_2"}
    assert {structure.component(key) for key in schnell if key not in same} == {"transformer"}


def test_the_single_file_is_kreas_transformer_under_black_forest_labs_names():
    single = wb.open(Folder(DATA).flux("krea.safetensors"))
    assert (single.architecture, single.structure.layout) == ("Flux", "BFL")
    assert single.info("double_blocks.0.img_attn.qkv.weight").shape == (240, 80)
    renamed, expected = wb.in_layout(single, "diffusers"), transformer("krea")
    assert set(renamed) == expected.keys()
    assert all(torch.equal(renamed.read(key), expected[key]) for key in expected)


@pytest.mark.parametrize("name", PAIR)
def test_a_folder_opens_with_every_component_known(name):
    opened = wb.open(Folder(DATA).flux(name))
    assert opened.architecture == "Flux"
    assert sorted(opened.components) == ["text_encoder", "text_encoder_2", "transformer", "vae"]
