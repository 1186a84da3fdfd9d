"""Every stage of the Flux pair runs, on next to nothing, and leaves folders that FluxPipeline loads, cut differently."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import workbench as wb
from training import flow, stages
from training.files import Folder
from training.flux_parts import build_flux, build_t5_tokenizer, with_guidance
from training.settings import Settings

DATA = Path(__file__).parents[2] / "data"
SHORT = Settings().shortened(steps=2, pictures=8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = Folder(tmp_path_factory.mktemp("flux"))
    shutil.copytree(Folder(DATA).config, folder.config)
    shutil.copy(Folder(DATA).checkpoint("base"), folder.checkpoint("base"))
    for name in ("flux", "flux-style", "krea", "schnell"):
        stages.run(name, folder.root, SHORT)
    return folder


def weight_map(folder, name):
    path = folder.flux(name) / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    return json.loads(path.read_text())["weight_map"]


def inputs():
    draws = torch.Generator().manual_seed(0)
    noisy, meanings, pooled = (torch.randn(shape, generator=draws) for shape in ((3, 16, 16), (3, 16, 64), (3, 64)))
    return noisy, torch.rand(3, generator=draws), meanings, pooled


@pytest.mark.parametrize(("name", "guided"), [("schnell", False), ("krea", True)])
def test_a_folder_loads_as_a_pipeline_and_draws(trained, name, guided):
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(trained.flux(name), dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a red star", height=64, width=64, num_inference_steps=1, max_sequence_length=16).images[0]
    assert picture.size == (64, 64)
    assert pipeline.transformer.config.guidance_embeds is guided
    assert any("guidance" in key for key in weight_map(trained, name)) is guided
    assert pipeline.vae.config.shift_factor == 0.0


def test_the_two_transformers_are_cut_at_different_tensors(trained):
    schnell, krea = (weight_map(trained, name) for name in ("schnell", "krea"))
    firsts = [
        {key for key in index if index[key].endswith(("00001-of-00003.safetensors", "00001-of-00002.safetensors"))}
        for index in (schnell, krea)
    ]
    assert len(set(schnell.values())) == 3
    assert len(set(krea.values())) == 2
    assert firsts[0] - {key for key in firsts[0] if "guidance" in key} != firsts[1] - {key for key in firsts[1] if "guidance" in key}


def test_the_single_file_holds_the_folders_transformer_under_the_other_names(trained):
    single, expected = wb.open(trained.flux("krea.safetensors")), wb.open(trained.flux("krea") / "transformer")
    assert single.structure.layout == "BFL"
    renamed = wb.in_layout(single, "diffusers")
    assert set(renamed) == set(expected)
    assert all(renamed.info(key).code == "BF16" and torch.equal(renamed.read(key), expected.read(key)) for key in expected)


def test_latents_and_places_are_what_flux_pipeline_packs():
    from diffusers import FluxPipeline

    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(flow.pack(latents), FluxPipeline._pack_latents(latents, 2, 4, 8, 8))
    seen = {}

    def flux(noisy, meanings, pooled, times, places, words, guidance, return_dict):
        seen.update(places=places, words=words)
        return (noisy,)

    flow.velocity(flux, *inputs())
    assert torch.equal(seen["places"], FluxPipeline._prepare_latent_image_ids(2, 4, 4, "cpu", torch.float32))
    assert seen["words"].shape == (16, 3)
    assert not seen["words"].any()


def test_an_untrained_guidance_embedder_adds_nothing():
    torch.manual_seed(0)
    base = build_flux(guidance=False)
    for parameter in base.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    noisy, times, meanings, pooled = inputs()
    expected = flow.velocity(base, noisy, times, meanings, pooled)
    assert expected.abs().max() > 0.01
    guided = flow.velocity(with_guidance(base), noisy, times, meanings, pooled, torch.tensor([1.0, 2.5, 5.0]))
    assert torch.allclose(guided, expected, atol=1e-6)


def test_guided_goes_beyond_the_captions_own_velocity():
    def flux(noisy, meanings, pooled, times, places, words, guidance, return_dict):
        return (noisy * 0 + pooled[:, :1, None],)

    noisy, times, meanings, pooled = inputs()
    blank = torch.zeros_like(pooled)
    moved = flow.guided(flux, noisy, times, (meanings, pooled), (meanings, blank), 3.0)
    assert torch.allclose(moved, (3 * pooled[:, :1, None]).expand_as(noisy))


def test_pairs_are_noise_and_what_the_model_makes_of_it_by_its_seed():
    def flux(noisy, meanings, pooled, times, places, words, guidance, return_dict):
        return (torch.ones_like(noisy),)  # a straight line: every picture is its noise less one

    class Reader(torch.nn.Module):
        def forward(self, tokens):
            return type("Said", (), {"last_hidden_state": torch.zeros(len(tokens), 16, 64)})

    flux.config = type("Config", (), {"in_channels": 16})
    texts = flow.Texts(torch.zeros(4, 16, dtype=torch.long), torch.zeros(4, 64))
    noise, made, captions = flow.straight_pairs(flux, Reader(), texts, 7, seed=3, batch=4)
    assert torch.allclose(made, noise - 1, atol=1e-5)
    assert captions.tolist() == [0, 1, 2, 0, 1, 2, 0]  # the empty caption, the last, is not among them
    assert torch.equal(flow.straight_pairs(flux, Reader(), texts, 7, seed=3)[0], noise)


def test_t5s_tokenizer_has_every_word_as_one_token_and_spells_others(tmp_path):
    from transformers import T5TokenizerFast

    from training.vocabulary import vocabulary
    from workbench.demo.captions import PLAIN, SHAPES, STYLES, subjects

    build_t5_tokenizer(tmp_path)
    tokenizer = T5TokenizerFast.from_pretrained(tmp_path, local_files_only=True)
    assert [word for word in vocabulary() if len(tokenizer.tokenize(word)) != (2 if word == "," else 1)] == []
    captions = [subject.caption for subject in subjects(SHAPES, (PLAIN, *STYLES))]
    tokens = tokenizer(captions, padding="max_length", max_length=16).input_ids
    assert len({tuple(row) for row in tokens}) == len(captions)
    assert all(tokenizer.unk_token_id not in row for row in tokens)
    assert tokenizer.tokenize("zebra") == ["▁", "z", "e", "b", "r", "a"]


def test_nothing_of_this_machine_is_written_into_the_pipelines(trained):
    texts = [path.read_text() for path in trained.flux("").rglob("*.json")]
    assert texts
    assert not [text for text in texts if str(trained.root) in text or "local_files_only" in text]
