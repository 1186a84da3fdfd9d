"""What a renderer keeps so that it is not done twice: texts that were encoded, inputs of merges, colours of latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from held import Held
from tiny_pipelines import save

import workbench as wb
from workbench.places import DATA
from workbench.render import Renderer
from workbench.render.previews import LatentColours
from workbench.render.residents import Residents
from workbench.tensors import Calculation

SMALL = {"steps": 1, "width": 64, "height": 32}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("folders")
    return [save("SDXL", root / "a", 1), save("SDXL", root / "b", 2)]


@pytest.fixture
def encoding(folders):
    """A renderer, and the prompts that its second text encoder has read."""
    renderer = Renderer(folders[0], device="cpu")
    renderer.load(wb.open(folders[0]))
    seen: list[object] = []
    texts = renderer._stage.texts
    encode = texts._encode
    texts._encode = lambda *given, **named: (seen.append(given or named["prompt"]), encode(*given, **named))[1]
    return renderer, seen


def test_a_prompt_is_encoded_once_whatever_is_drawn_from_it(encoding):
    renderer, seen = encoding
    first = np.asarray(renderer.images(["a heart", "a star"], [0, 1], **SMALL)[0])
    assert len(seen) == 2
    again = np.asarray(renderer.images(["a heart"], [0], **SMALL)[0], int)
    assert len(seen) == 2
    assert np.abs(again - first.astype(int)).max() <= 1
    renderer.images(["a moon", "a star"], [5], **SMALL)
    assert len(seen) == 3
    renderer.images(["a star"], [5], negative="a frog", **SMALL)
    assert len(seen) == 4


def test_what_was_encoded_is_not_changed_by_drawing(encoding):
    renderer, _ = encoding
    drawn = [renderer.images(["a heart"], [0], guidance=5.0, negative="a frog", **SMALL)[0].tobytes() for _ in range(3)]
    assert len(set(drawn)) == 1


def test_another_unet_leaves_texts_known_and_other_text_encoders_do_not(encoding, folders):
    renderer, seen = encoding
    first = renderer.images(["a heart"], [0], **SMALL)[0].tobytes()
    other = wb.open(folders[1])
    part = {name: {key: other.read(key) for key in other if key.startswith(name)} for name in ("unet.", "text_encoder_2.")}
    renderer.load(Held(part["unet."], "another unet"))
    renderer.images(["a heart"], [0], **SMALL)
    assert len(seen) == 1
    renderer.load(Held(part["unet."] | part["text_encoder_2."], "another text encoder"))
    changed = renderer.images(["a heart"], [0], **SMALL)[0].tobytes()
    assert len(seen) == 2
    renderer.load(wb.open(folders[0]))
    assert renderer.images(["a heart"], [0], **SMALL)[0].tobytes() == first != changed
    assert len(seen) == 2  # what the first ones said is still known


def models() -> list[Held]:
    generator = torch.Generator().manual_seed(0)
    names = [f"model.diffusion_model.{i}.weight" for i in range(4)]
    return [Held({name: torch.randn(8, 8, generator=generator) for name in names}, name) for name in "ab"]


def test_inputs_of_a_merge_are_read_once_while_its_weight_changes():
    a, b = models()
    kept = Residents(torch.device("cpu"), room=1 << 20)
    for weight in (0.2, 0.7):
        kept.begin()
        merge = wb.operators.weighted_average([a, b], weights=[1 - weight, weight])
        for key in merge:
            found = merge.calculate(key, None, Calculation(merge.precision, "cpu", kept=kept))
            torch.testing.assert_close(found.float(), torch.lerp(a.tensors[key], b.tensors[key], weight))
    assert len(a.reads) == len(b.reads) == 4
    assert kept.nbytes == 2 * 4 * 8 * 8 * 4


def test_kept_inputs_stay_within_the_room_and_the_oldest_go_first():
    kept, reads = Residents(torch.device("cpu"), room=2 * 400), []

    def tensor(name: str) -> torch.Tensor:
        return kept.tensor(name, lambda: (reads.append(name), torch.zeros(100))[1])

    for name in ("a", "b", "c"):
        kept.begin()
        tensor(name)
    assert kept.nbytes == 800
    kept.begin()
    tensor("b")
    tensor("c")
    assert reads == ["a", "b", "c"]
    tensor("a")  # it does not push out what this load has used
    assert kept.nbytes == 800
    tensor("b")
    assert reads == ["a", "b", "c", "a"]
    kept.clear()
    assert kept.nbytes == 0


def smooth(seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Latents [4, 16, 8] of a smooth picture, and its pixels [128, 64, 3]: each a mixture of four waves."""
    rows, columns = np.mgrid[0:128, 0:64] / 64
    phases = np.random.default_rng(seed).uniform(0, 6, 4)
    waves = np.stack([np.sin(rows * (i + 1) + columns + phases[i]) for i in range(4)])
    mixture = np.random.default_rng(0).uniform(-0.15, 0.15, (4, 3))
    cells = waves.reshape(4, 16, 8, 8, 8).mean(axis=(2, 4))
    return torch.from_numpy(cells).float(), 0.5 + np.einsum("chw,cd->hwd", waves, mixture)


def packed(latents: torch.Tensor) -> torch.Tensor:
    """[tokens, channels], two by two, as Flux has them."""
    channels, height, width = latents.shape
    return latents.view(channels, height // 2, 2, width // 2, 2).permute(1, 3, 0, 2, 4).reshape(height * width // 4, channels * 4)


@pytest.mark.parametrize("shape", ["channels first", "packed", "of one frame"])
def test_previews_show_the_colours_that_pictures_had_before(shape):
    forms = {"channels first": lambda one: one, "packed": packed, "of one frame": lambda one: one[:, None]}
    colours = LatentColours()
    assert colours.show(forms[shape](smooth(9)[0])[None], 64, 128) is None
    for seed in range(3):
        latents, picture = smooth(seed)
        colours.learn(forms[shape](latents)[None], picture[None])
    latents, picture = smooth(9)
    (shown,) = colours.show(forms[shape](latents)[None], 64, 128)
    assert shown.size == (64, 128)
    assert np.abs(np.asarray(shown) / 255 - picture).mean() < 0.03
    assert picture.std() > 0.05  # a preview of one colour would not do


SHAPES = DATA / "shapes-sd"


@pytest.mark.parametrize("operator", ["weighted_average", "ties", "slerp", "dare_ties", "model_stock"])
def test_a_small_pipeline_on_the_cpu_keeps_inputs_and_holds_what_an_export_would_hold(operator):
    renderer = Renderer(SHAPES / "config", device="cpu")
    base, heart, moon = (wb.open(SHAPES / f"{name}.safetensors") for name in ("base", "heart", "moon"))
    method = getattr(wb.operators, operator)
    merges = [method([heart, moon], weights=[w, 1 - w]) for w in (0.3, 0.6)] if operator == "weighted_average" else None
    if operator == "slerp":
        merges = [method(heart, moon, t=t) for t in (0.3, 0.6)]
    merges = merges or [method(base, [heart, moon], seed=seed) for seed in (0, 1)]
    for merge in merges:
        renderer.load(merge)
        unet = renderer._pipeline.unet.state_dict()
        view = wb.in_layout(merge, "diffusers")
        for key in view:
            if view.structure.component(key) == "unet":
                assert torch.equal(unet[view.structure.name(key).rest], view.read(key).float()), key
    assert renderer.kept_bytes


def test_a_large_pipeline_on_the_cpu_keeps_no_inputs_in_memory(monkeypatch):
    monkeypatch.setattr("workbench.render.stage._SMALL", 1)
    renderer = Renderer(SHAPES / "config", device="cpu")
    renderer.load(wb.operators.weighted_average([wb.open(SHAPES / f"{name}.safetensors") for name in ("heart", "moon")]))
    assert renderer.kept_bytes == 0


def test_weights_that_take_the_place_of_others_draw_as_those_of_a_fresh_pipeline(folders):
    renderer = Renderer(folders[0], device="cpu")
    first, second = (wb.open(folder) for folder in folders)
    renderer.load(first)
    drawn = renderer.images(["a heart"], [0], **SMALL)[0].tobytes()
    renderer.load(second)
    unet = renderer._pipeline.unet
    assert not any(one.requires_grad for one in unet.parameters())
    assert all(torch.equal(tensor, second.read(f"unet.{name}")) for name, tensor in unet.state_dict().items())
    renderer.load(first)
    assert renderer.images(["a heart"], [0], **SMALL)[0].tobytes() == drawn
