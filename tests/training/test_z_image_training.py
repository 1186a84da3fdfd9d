"""Every stage of the small Z-Image runs, on next to nothing, and leaves a folder and a LoRA that ZImagePipeline loads."""

import shutil
from pathlib import Path

import pytest
import torch

from training import stages, z_image_flow
from training.files import Folder
from training.settings import Settings
from training.vocabulary import vocabulary
from training.z_image_parts import build_qwen, build_qwen_tokenizer, build_z_image
from training.z_image_stages import read_z_image
from workbench.demo.captions import PLAIN, SHAPES, STYLES, subjects

DATA = Path(__file__).parents[2] / "data"
SHORT = Settings().shortened(steps=2, pictures=8)
SETTINGS = {"height": 64, "width": 64, "num_inference_steps": 2, "guidance_scale": 2.0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = Folder(tmp_path_factory.mktemp("z-image"))
    shutil.copytree(Folder(DATA).config, folder.config)
    shutil.copy(Folder(DATA).checkpoint("base"), folder.checkpoint("base"))
    for name in ("z-image", "z-image-lora"):
        stages.run(name, folder.root, SHORT)
    return folder


@pytest.fixture
def tokenizer(tmp_path):
    return build_qwen_tokenizer(tmp_path / "tokenizer")


def test_the_folder_loads_as_a_pipeline_and_draws_with_and_without_its_lora(trained):
    pipeline = read_z_image(trained)
    assert pipeline.vae.config.shift_factor == 0.0
    assert pipeline("a red star", **SETTINGS).images[0].size == (64, 64)
    pipeline.load_lora_weights(trained.z_image / "lora", weight_name="pastel.safetensors")
    assert pipeline.get_list_adapters() == {"transformer": ["default_0"]}
    adapted = [name for name, part in pipeline.transformer.named_modules() if hasattr(part, "lora_A")]
    assert len(adapted) == 6 * 7  # of each layer the attention's four weights and the feed-forward's three
    assert pipeline("a red star, pastel", **SETTINGS).images[0].size == (64, 64)


def test_nothing_of_this_machine_is_written_into_the_folder(trained):
    texts = [path.read_text() for path in trained.z_image.rglob("*.json*")]
    assert texts
    assert not [text for text in texts if str(trained.root) in text or "local_files_only" in text]


def test_every_word_is_one_token_with_or_without_a_space_and_others_are_spelled(tmp_path):
    from transformers import AutoTokenizer

    build_qwen_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    words = [*vocabulary(), *(f" {word}" for word in vocabulary() if word != ",")]
    assert [word for word in words if len(tokenizer.tokenize(word)) != 1] == []
    captions = [subject.caption for subject in subjects(SHAPES, (PLAIN, *STYLES))]
    assert len({tuple(row) for row in tokenizer(captions).input_ids}) == len(captions)
    strange = "Eine Brücke, 42 m; 橋!\n<b>it's</b>"
    assert tokenizer.decode(tokenizer(strange).input_ids) == strange


def test_captions_are_read_as_the_pipeline_reads_them_however_much_it_pads(tokenizer):
    from diffusers import ZImagePipeline

    torch.manual_seed(0)
    qwen = build_qwen(tokenizer)
    captions = ["a red star on a black background", "an orange moon, pastel", ""]
    texts = z_image_flow.read_captions(tokenizer, captions)
    pipeline = ZImagePipeline(scheduler=None, vae=None, text_encoder=qwen, tokenizer=tokenizer, transformer=None)
    with torch.no_grad():
        read = z_image_flow.meanings(qwen, texts, torch.arange(3))
        for padded in (24, 512):
            expected, blank = pipeline.encode_prompt(captions[:2], device="cpu", max_sequence_length=padded)
            for ours, theirs in zip(read, [*expected, blank[0]], strict=True):
                assert torch.allclose(ours, theirs, atol=1e-5)


def test_velocity_is_what_the_pipeline_makes_of_the_transformers_answer():
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    seen = {}

    def transformer(latents, times, said, return_dict):
        seen.update(shape=latents[0].shape, times=times)
        return ([latent * 2 for latent in latents],)

    moved = z_image_flow.velocity(transformer, noisy, torch.tensor([1.0, 0.25]), [None, None])
    assert torch.equal(moved, -2 * noisy)
    assert seen["shape"] == (4, 1, 8, 8)
    assert seen["times"].tolist() == [0.0, 0.75]  # 0 is noise for Z-Image


def test_untrained_it_predicts_nothing_and_every_weight_that_is_used_can_learn(tokenizer):
    torch.manual_seed(0)
    transformer = build_z_image()
    said = [torch.randn(length, 48) for length in (15, 8)]
    noisy, times = torch.randn(2, 4, 8, 8), torch.rand(2)
    assert not z_image_flow.velocity(transformer, noisy, times, said).any()
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    z_image_flow.velocity(transformer, noisy, times, said).square().sum().backward()
    assert [name for name, parameter in transformer.named_parameters() if parameter.grad is None or not parameter.grad.any()] == []
