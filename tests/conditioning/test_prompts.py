"""Coefficients from a prompt: in Python, in recipes, from files that move or change."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

import workbench as wb
from workbench.errors import OptionError, RecipeError, TextEncoderError
from workbench.operators import fft_blend
from workbench.places import DATA

from_prompt, Hypernetwork = wb.conditioning.from_prompt, wb.conditioning.Hypernetwork
FAMILY = DATA / "shapes-sd"
PROMPT = "a red heart on a white background"
KEY = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q.weight"
OUTSIDE = "model.diffusion_model.out.2.weight"
EARLY = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"


@pytest.fixture(scope="module")
def encoder():
    return wb.conditioning.TextEncoder(FAMILY / "base.safetensors")


@pytest.fixture(scope="module")
def pair():
    return wb.open(FAMILY / "heart.safetensors"), wb.open(FAMILY / "moon.safetensors")


def test_the_random_network_gives_what_its_layers_give(encoder, pair):
    told = from_prompt(PROMPT, encoder=encoder, seed=3)
    assert told["prompt"] == PROMPT
    assert told["seed"] == 3
    assert told["encoder"]["model"] == str(FAMILY / "base.safetensors")
    network = Hypernetwork(64, seed=3)
    with torch.no_grad():
        wanted = network.layers.double()(encoder.pooled(PROMPT)[0].double()).float().tolist()
    assert torch.equal(fft_blend(*pair, coefficients=told).read(KEY), fft_blend(*pair, coefficients=wanted).read(KEY))


def test_prompts_and_seeds_decide_and_the_same_ones_give_the_same_bytes(encoder, pair):
    def read(prompt, seed):
        return fft_blend(*pair, coefficients=from_prompt(prompt, encoder=encoder, seed=seed)).read(KEY)

    assert torch.equal(read(PROMPT, 0), read(PROMPT, 0))
    assert not torch.equal(read(PROMPT, 0), read(PROMPT, 1))
    assert not torch.equal(read(PROMPT, 0), read("a blue moon on a black background", 0))


def test_a_network_with_blocks_gives_every_block_its_own_vector(encoder, pair, tmp_path):
    network = Hypernetwork(encoder.token_width, blocks=["IN01", "MID"], count=4, seed=1)
    network.save(tmp_path / "n.safetensors")
    told = from_prompt(PROMPT, encoder=encoder, hypernetwork=network)
    numbers = network.coefficients(network.embed(PROMPT, encoder))["blocks"]
    assert set(told) == {"prompt", "encoder", "hypernetwork"}
    merge = fft_blend(*pair, coefficients=told, smooth=True)
    assert merge.bound["coefficients"](merge.entry(KEY).location) == numbers["MID"]
    assert merge.bound["coefficients"](merge.entry(EARLY).location) == numbers["IN01"]
    assert merge.bound["coefficients"](merge.entry(OUTSIDE).location) == numbers["default"]


def test_what_lies_in_no_file_as_it_is_becomes_numbers(encoder, tmp_path):
    network = Hypernetwork(encoder.width, count=4, seed=1)
    numbers = network.coefficients(network.embed(PROMPT, encoder))
    assert from_prompt(PROMPT, encoder=encoder, hypernetwork=network) == numbers
    network.save(tmp_path / "n.safetensors")
    assert from_prompt(PROMPT, encoder=encoder, hypernetwork=network)["hypernetwork"]["path"] == str(tmp_path / "n.safetensors")
    with torch.no_grad():
        network.layers[2].bias += 1
    changed = from_prompt(PROMPT, encoder=encoder, hypernetwork=network)
    assert changed == network.coefficients(network.embed(PROMPT, encoder)) != numbers


def test_a_recipe_keeps_prompt_encoder_and_network_by_paths_of_its_own(encoder, pair, tmp_path):
    Hypernetwork(64, count=4, seed=1).save(tmp_path / "n.safetensors")
    told = from_prompt(PROMPT, encoder=encoder, hypernetwork=tmp_path / "n.safetensors")
    merge = fft_blend(*pair, coefficients=told)
    (tmp_path / "deep").mkdir()
    merge.recipe.save(tmp_path / "deep" / "r.yaml")
    text = (tmp_path / "deep" / "r.yaml").read_text()
    assert "path: ../n.safetensors" in text
    assert f"model: {os.path.relpath(FAMILY / 'base.safetensors', tmp_path / 'deep')}" in text
    again = wb.Recipe.load(tmp_path / "deep" / "r.yaml").build()
    assert torch.equal(again.read(KEY), merge.read(KEY))


def test_a_recipe_written_by_hand_needs_no_hash(tmp_path, encoder, pair):
    for name in ("base", "heart", "moon"):
        (tmp_path / f"{name}.safetensors").symlink_to(FAMILY / f"{name}.safetensors")
    (tmp_path / "r.yaml").write_text(
        f"""
workbench: 1
models: {{heart: heart.safetensors, moon: moon.safetensors}}
merge:
  operator: fft_blend
  inputs: {{first: heart, second: moon}}
  options:
    coefficients: {{prompt: {PROMPT}, encoder: {{model: base.safetensors, config: {FAMILY / "config"}}}, seed: 3}}
"""
    )
    wanted = fft_blend(*pair, coefficients=from_prompt(PROMPT, encoder=encoder, seed=3))
    assert torch.equal(wb.Recipe.load(tmp_path / "r.yaml").build().read(KEY), wanted.read(KEY))


def test_an_exported_merge_makes_itself_again(encoder, pair, tmp_path):
    merge = fft_blend(*pair, coefficients=from_prompt(PROMPT, encoder=encoder, seed=3))
    wb.export(merge, tmp_path / "m.safetensors", progress=False)
    again = wb.Recipe.from_file(tmp_path / "m.safetensors").build()
    assert torch.equal(again.read(KEY), wb.open(tmp_path / "m.safetensors").read(KEY))


def test_a_network_that_was_changed_is_not_taken_for_the_recipes(encoder, pair, tmp_path):
    path = tmp_path / "n.safetensors"
    Hypernetwork(64, count=4, seed=1).save(path)
    fft_blend(*pair, coefficients=from_prompt(PROMPT, encoder=encoder, hypernetwork=path)).recipe.save(tmp_path / "r.yaml")
    Hypernetwork(64, count=4, seed=2).save(path)
    with pytest.raises(OptionError, match=r"n.safetensors is not the hypernetwork that the recipe was made with"):
        wb.Recipe.load(tmp_path / "r.yaml").build()


def test_an_encoder_that_was_changed_is_not_taken_for_the_recipes(pair, tmp_path):
    shutil.copytree(FAMILY / "config", tmp_path / "config")
    shutil.copy(FAMILY / "base.safetensors", tmp_path / "e.safetensors")
    told = from_prompt(PROMPT, encoder={"model": str(tmp_path / "e.safetensors"), "config": str(tmp_path / "config")})
    told["encoder"]["sha256"] = "0" * 64
    with pytest.raises(OptionError, match="is not the encoder that the recipe was made with"):
        fft_blend(*pair, coefficients=told)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"prompt": PROMPT}, "needs an encoder too"),
        ({"prompt": "", "encoder": str(FAMILY / "base.safetensors")}, "empty"),
        ({"prompt": PROMPT, "encoder": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"prompt": PROMPT, "encoder": {"modell": "x"}}, "an encoder has no 'modell'"),
        ({"prompt": PROMPT, "encoder": str(FAMILY / "base.safetensors"), "seed": -1}, "seed must be a whole number"),
        ({"prompt": PROMPT, "encoder": str(FAMILY / "base.safetensors"), "hypernetwork": "none.safetensors"}, "none.safetensors"),
        ({"prompt": PROMPT, "encoder": str(FAMILY / "base.safetensors"), "hypernetwork": {"file": "x"}}, "a hypernetwork is a path"),
    ],
)
def test_what_cannot_be_is_told_when_the_merge_is_made(given, told, pair):
    with pytest.raises(OptionError, match=told):
        fft_blend(*pair, coefficients=given)


def test_within_a_block_a_source_that_differs_by_block_has_no_place(encoder, pair, tmp_path):
    Hypernetwork(encoder.token_width, blocks=["MID"], count=4).save(tmp_path / "n.safetensors")
    told = from_prompt(PROMPT, encoder=encoder, hypernetwork=tmp_path / "n.safetensors")
    merge = fft_blend(*pair, coefficients={"blocks": {"MID": told, "default": [0.0]}})
    with pytest.raises(OptionError, match="gives every block numbers of its own; use it for the whole option"):
        merge.read(KEY)


def test_within_a_block_a_prompt_may_decide(encoder, pair):
    told = from_prompt(PROMPT, encoder=encoder, seed=3)
    whole = fft_blend(*pair, coefficients=told)
    middle = fft_blend(*pair, coefficients={"blocks": {"MID": told, "default": [0.0]}})
    assert torch.equal(middle.read(KEY), whole.read(KEY))
    assert not torch.equal(middle.read(EARLY), whole.read(EARLY))


def test_a_wrong_prompt_is_told_at_once_in_python(encoder):
    with pytest.raises(TextEncoderError):
        from_prompt("", encoder=encoder)


def test_a_recipe_whose_encoder_is_gone_says_which(encoder, pair, tmp_path):
    fft_blend(*pair, coefficients=from_prompt(PROMPT, encoder=encoder)).recipe.save(tmp_path / "r.yaml")
    text = (tmp_path / "r.yaml").read_text().replace("base.safetensors", "gone.safetensors")
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises((OptionError, RecipeError), match=r"gone\.safetensors"):
        wb.Recipe.load(tmp_path / "r.yaml").build()
