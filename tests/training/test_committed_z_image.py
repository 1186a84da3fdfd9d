"""The committed small Z-Image draws what it is asked for, and so does its LoRA; its files are what the README says."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import workbench as wb
from training.files import Folder
from training.measure import Z_GUIDANCE, Z_STEPS
from training.quality import compare
from training.vocabulary import vocabulary
from training.z_image_stages import STYLE, read_z_image
from workbench.demo.captions import PLAIN, Subject
from workbench.demo.judge import Judge

DATA = Path(__file__).parents[2] / "data"
FOLDER = Folder(DATA).z_image
# A few of every shape, colour and background; the whole grid is `python -m training.measure`.
ASKED = ["circle red white", "square green gray", "triangle blue pink", "star yellow black", "star orange gray", "circle purple black"]


@pytest.mark.parametrize(("style", "lora"), [(PLAIN, False), (PLAIN, True), (STYLE, True)])
def test_it_draws_what_it_is_asked_for(style, lora):
    wanted = [Subject(*words.split(), style) for words in ASKED for _ in range(2)]
    pipeline = read_z_image(Folder(DATA))
    if lora:
        pipeline.load_lora_weights(FOLDER / "lora", weight_name=f"{STYLE}.safetensors")
    pictures = pipeline(
        [subject.caption for subject in wanted],
        height=64,
        width=64,
        num_inference_steps=Z_STEPS,
        guidance_scale=Z_GUIDANCE,
        generator=[torch.Generator().manual_seed(number % 2) for number in range(len(wanted))],
    ).images
    compared = compare(wanted, pictures, Judge(Folder(DATA).clip))
    allowed = len(pictures) // 4  # one picture in four may fail: this is a smoke test, the table is the measurement
    for aspect, seen in {"shape": "seen_shape", "style": "seen_style", "colour": "pixel_colour", "background": "pixel_background"}.items():
        assert (compared[aspect] != compared[seen]).sum() <= allowed, compared[[aspect, seen]]


def test_all_of_it_is_under_three_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 2_950_000


def test_every_weight_is_in_bfloat16_and_every_component_is_known():
    opened = wb.open(FOLDER)
    assert opened.architecture == "Z-Image"
    assert sorted(opened.components) == ["text_encoder", "transformer", "vae"]
    assert {opened.info(key).code for key in opened} == {"BF16"}


def test_the_autoencoder_is_stable_diffusions():
    base, own = wb.in_layout(wb.open(Folder(DATA).checkpoint("base")), "diffusers"), wb.open(FOLDER)
    names = [key for key in own if own.structure.component(key) == "vae"]
    assert names
    assert all(torch.equal(base.read(key).bfloat16(), own.read(key)) for key in names)


def test_the_lora_is_under_the_names_that_diffusers_gives_it():
    with safe_open(FOLDER / "lora" / f"{STYLE}.safetensors", "pt") as file:
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no mapping
        dtypes = {file.get_tensor(key).dtype for key in shapes}
    assert dtypes == {torch.bfloat16}
    assert shapes["transformer.layers.0.attention.to_q.lora_A.weight"] == (8, 64)
    assert shapes["transformer.layers.3.feed_forward.w2.lora_B.weight"] == (64, 8)
    assert {key.split(".")[1] for key in shapes} == {"layers", "noise_refiner", "context_refiner"}


def test_the_tokenizer_has_every_word_as_one_token_and_knows_the_chat():
    tokenizer = read_z_image(Folder(DATA)).tokenizer
    assert [word for word in vocabulary() if len(tokenizer.tokenize(word)) != 1] == []
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a red star"}], tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    assert asked == "<|im_start|>user\na red star<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.tokenize(asked)[:4] == ["<|im_start|>", "user", "Ċ", "a"]
