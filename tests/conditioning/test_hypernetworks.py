"""Hypernetworks: the original's numbers, both architectures, files, and what does not fit."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from test_vectors import VECTORS

import workbench as wb
from workbench.errors import HypernetworkError, TextEncoderError
from workbench.places import DATA

Hypernetwork = wb.conditioning.Hypernetwork
BASE = DATA / "shapes-sd" / "base.safetensors"
PROMPT = "a red heart on a white background"


@pytest.fixture(scope="module")
def encoder():
    return wb.conditioning.TextEncoder(BASE)


def test_the_original_output_comes_from_the_original_weights():
    path = VECTORS / "quantum" / "conditioning.safetensors"
    network, given = Hypernetwork.load(path), wb.open(path)
    assert (network.width, network.count, network.blocks) == (768, 256, ())
    torch.testing.assert_close(network(given["text_embedding"]), given["hyper_out"], atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.tensor(network.coefficients(given["text_embedding"])), given["hyper_out"], atol=1e-6, rtol=0)


def test_the_default_is_the_original_architecture_drawn_from_its_seed():
    network = Hypernetwork(seed=4)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.layers.state_dict().items()}
    assert shapes == {"0.weight": (1024, 768), "0.bias": (1024,), "2.weight": (256, 1024), "2.bias": (256,)}
    assert network.identity == Hypernetwork(seed=4).identity != Hypernetwork(seed=5).identity


def test_making_one_leaves_the_random_numbers_of_others_alone():
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    Hypernetwork(8, hidden=4, count=2, seed=9)
    assert torch.equal(torch.rand(3), wanted)


def test_with_blocks_every_block_and_the_rest_get_vectors_of_their_own(encoder):
    network = Hypernetwork(encoder.token_width, blocks=["IN01", "MID"], count=5, seed=1)
    found = network.coefficients(network.embed(PROMPT, encoder))
    assert list(found["blocks"]) == ["IN01", "MID", "default"]
    vectors = list(found["blocks"].values())
    assert all(len(vector) == 5 and -1 <= min(vector) <= max(vector) <= 1 for vector in vectors)
    assert vectors[0] != vectors[1] != vectors[2]


def test_what_it_attends_to_is_the_prompt_alone_not_its_padding(encoder):
    network = Hypernetwork(encoder.token_width, blocks=["MID"], count=3)
    assert len(network.embed(PROMPT, encoder)) == len(PROMPT.split()) + 2  # begin and end
    assert network.coefficients(network.embed(PROMPT, encoder)) != network.coefficients(network.embed("a blue moon", encoder))


def test_several_prompts_are_read_as_their_mean_or_all_their_tokens(encoder):
    pair = [PROMPT, "a blue moon"]
    pooled = Hypernetwork(encoder.width).embed(pair, encoder)
    torch.testing.assert_close(pooled, encoder.pooled(pair).mean(0))
    assert len(Hypernetwork(encoder.token_width, blocks=["MID"]).embed(pair, encoder)) == 9 + 5


@pytest.mark.parametrize("blocks", [(), ("IN01", "MID")])
def test_a_saved_network_is_the_same_again(blocks, encoder, tmp_path):
    network = Hypernetwork(encoder.width, blocks=blocks, count=7, seed=3)
    again = Hypernetwork.load(network.save(tmp_path / "n.safetensors"))
    embedding = network.embed(PROMPT, encoder)
    assert again.coefficients(embedding) == network.coefficients(embedding)
    assert (again.identity, again.blocks, again.path) == (network.identity, blocks, tmp_path / "n.safetensors")


def test_no_number_of_threads_changes_a_coefficient(encoder):
    embedding = encoder.pooled(PROMPT)[0]
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(Hypernetwork(encoder.width, seed=2).coefficients(embedding))
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1] == found[2]


def test_an_encoder_of_another_width_is_told(encoder):
    with pytest.raises(HypernetworkError, match=r"embeddings of width 768, but .* gives 64; use the encoder it was made for"):
        Hypernetwork().embed(PROMPT, encoder)


@pytest.mark.parametrize("prompt", ["", " ", "a red heart " * 10])
def test_a_prompt_that_cannot_be_read_is_told(prompt, encoder):
    with pytest.raises(TextEncoderError):
        Hypernetwork(encoder.width).embed(prompt, encoder)


def test_files_of_another_shape_are_told(tmp_path):
    tensors = {"0.weight": torch.zeros(4, 8), "0.bias": torch.zeros(4), "2.weight": torch.zeros(2, 4), "2.bias": torch.zeros(3)}
    save_file(tensors, tmp_path / "bias.safetensors")
    with pytest.raises(HypernetworkError, match=r"'2.bias' is \[3\], but this hypernetwork needs \[2\]"):
        Hypernetwork.load(tmp_path / "bias.safetensors")
    save_file({"0.weight": torch.zeros(4, 8)}, tmp_path / "lacking.safetensors")
    with pytest.raises(HypernetworkError, match=r"lacking.safetensors: holds no hypernetwork: there is no '0.bias', '2.weight', '2.bias'"):
        Hypernetwork.load(tmp_path / "lacking.safetensors")
    with pytest.raises(HypernetworkError, match="no hypernetwork can be read"):
        Hypernetwork.load(tmp_path / "nothing.safetensors")
    network = Hypernetwork(8, blocks=["MID"], count=2)
    network.save(tmp_path / "n.safetensors")
    found = wb.open(tmp_path / "n.safetensors")
    fewer = {key: found[key] for key in found if "places" not in key}
    save_file(fewer, tmp_path / "fewer.safetensors", metadata=dict(found.metadata))
    with pytest.raises(HypernetworkError, match="lacks 'places'"):
        Hypernetwork.load(tmp_path / "fewer.safetensors")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"width": 0}, "width must be a whole number of 1 or more, got 0"),
        ({"count": 2.5}, "count must be a whole number of 1 or more, got 2.5"),
        ({"blocks": ["MID", "MID"]}, "blocks must be different names of blocks"),
        ({"blocks": ["default"]}, "blocks must be different names of blocks"),
        ({"blocks": ["MID"], "hidden": 6}, "hidden must be a multiple of 4, got 6"),
    ],
)
def test_sizes_that_cannot_be_are_told(settings, told):
    with pytest.raises(HypernetworkError, match=told):
        Hypernetwork(**settings)


def test_a_file_name_needs_its_suffix_and_nothing_is_left_behind(tmp_path):
    with pytest.raises(HypernetworkError, match=r"ends in \.safetensors"):
        Hypernetwork(8).save(tmp_path / "n.pt")
    assert list(tmp_path.iterdir()) == []
