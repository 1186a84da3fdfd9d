"""What cannot be drawn is refused with a message that says what it is, and what to do."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_pipelines import save, sd

import workbench as wb
from workbench.errors import RenderError
from workbench.render import Renderer

SMALL = {"steps": 1, "width": 64, "height": 32}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return save("SD 1", tmp_path_factory.mktemp("whole") / "sd1")


@pytest.fixture(scope="module")
def flux(tmp_path_factory) -> Path:
    return save("Flux", tmp_path_factory.mktemp("whole") / "flux")


@pytest.fixture
def copy(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


@pytest.fixture
def index(tmp_path) -> Callable[..., Path]:
    """A folder with nothing but an index of these parts."""

    def write(name: str, **parts: str) -> Path:
        entries = {part: ["transformers" if "Token" in kind or "Encoder" in kind else "diffusers", kind] for part, kind in parts.items()}
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name, **entries}))
        return tmp_path

    return write


@pytest.fixture
def offline(monkeypatch) -> None:
    """Whoever asks the network fails the test."""

    def refuse(*given: object, **named: object) -> None:
        raise AssertionError(f"the network was asked: {given}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


WAN = {"transformer": "WanTransformer3DModel", "vae": "AutoencoderKLWan", "text_encoder": "UMT5EncoderModel", "tokenizer": "T5Tokenizer"}


@pytest.mark.parametrize(
    ("name", "parts", "message"),
    [
        (
            "WanPipeline",
            WAN | {"transformer_2": "WanTransformer3DModel"},
            "WanPipeline has 2 models that denoise, transformer and transformer_2",
        ),
        ("WanPipeline", WAN, "WanPipeline draws videos; only pictures are drawn here"),
        (
            "Ideogram4Pipeline",
            {"transformer": "Ideogram4Transformer2DModel", "unconditional_transformer": "Ideogram4Transformer2DModel"},
            "Ideogram4Pipeline has 2 models that denoise, transformer and unconditional_transformer",
        ),
        ("StableDiffusionInpaintPipeline", {"unet": "UNet2DConditionModel"}, "does not draw pictures from a prompt alone"),
        ("StableDiffusionUpscalePipeline", {"unet": "UNet2DConditionModel"}, "does not draw pictures from a prompt alone"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.endswith("Pipeline") else "",
)
def test_a_pipeline_that_does_not_draw_pictures_from_a_prompt_with_one_denoiser_is_refused(index, name, parts, message):
    with pytest.raises(RenderError, match=message):
        Renderer(index(name, **parts))


def test_a_class_that_no_installed_library_has_is_named(index):
    folder = index("StableDiffusionPipeline", unet="UNetOfTheFuture")
    with pytest.raises(RenderError, match=r"unet is of a class diffusers.UNetOfTheFuture, which is not in the installed libraries"):
        Renderer(folder)


def test_a_class_of_a_library_that_is_not_installed_is_named(copy):
    index = copy / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"tokenizer": ["sentence_reader", "Reader"]}))
    with pytest.raises(RenderError, match=r"tokenizer is of a class sentence_reader.Reader, which is not in the installed libraries"):
        Renderer(copy)


def test_an_inpainting_unet_is_told_by_name_before_anything_is_drawn(tmp_path):
    folder = save(lambda: sd(in_channels=9), tmp_path / "inpaint")
    with pytest.raises(RenderError, match=r"takes 9 channels and gives 4: it is made for inpainting"):
        Renderer(folder, device="cpu")


def test_an_inpainting_unet_in_a_file_is_told_by_name(tmp_path, whole):
    folder = save(lambda: sd(in_channels=9), tmp_path / "inpaint")
    unet = wb.open(folder / "unet")
    with pytest.raises(RenderError, match=r"'unet'.*inpainting"):
        Renderer(whole, device="cpu").load(unet)


@pytest.mark.parametrize("edge", ["width", "height"])
def test_a_size_that_a_pipeline_cannot_draw_is_refused_with_the_nearest(whole, edge):
    with pytest.raises(RenderError, match=rf"{edge} must be divisible by 8 for StableDiffusionPipeline, got 60: take 56 or 64"):
        Renderer(whole, device="cpu").images(["a"], [0], **SMALL | {edge: 60})


def test_a_part_without_a_folder_is_named_and_not_looked_for_on_the_network(copy, offline):
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(RenderError, match=r"the tokenizer of the pipeline cannot be built .*no folder tokenizer"):
        Renderer(copy)


def test_an_empty_tokenizer_folder_is_named_and_not_looked_for_on_the_network(copy, offline):
    shutil.rmtree(copy / "tokenizer")
    (copy / "tokenizer").mkdir()
    with pytest.raises(RenderError, match=r"the tokenizer of the pipeline cannot be built .*tokenizer has no vocabulary"):
        Renderer(copy)


NO_OBJECTS = ["[1, 2]", "17", "0", "null", '"EulerDiscreteScheduler"', "{", "", "[" * 3000, "1" * 5000, "\ufeff{}"]


@pytest.mark.parametrize("text", NO_OBJECTS, ids=lambda text: text[:25] or "empty")
@pytest.mark.parametrize(
    ("part", "file"),
    [
        ("scheduler", "scheduler_config.json"),
        ("unet", "config.json"),
        ("text_encoder", "config.json"),
        ("tokenizer", "tokenizer_config.json"),
    ],
    ids=lambda one: one,
)
def test_a_config_that_is_no_mapping_is_named_and_not_looked_for_on_the_network(copy, offline, part, file, text):
    (copy / part / file).write_text(text, encoding="utf-8")
    with pytest.raises(RenderError, match=rf"the {part} of the pipeline cannot be built from this folder .*{file}"):
        Renderer(copy)


@pytest.mark.parametrize("text", [*NO_OBJECTS, '{"_class_name": 3}', "{}"], ids=lambda text: text[:25] or "empty")
def test_an_index_that_names_no_pipeline_is_refused(copy, offline, text):
    (copy / "model_index.json").write_text(text, encoding="utf-8")
    with pytest.raises(RenderError, match="model_index"):
        Renderer(copy)


def test_a_lora_is_no_model_to_draw_with(whole, held):
    lora = held({"unet.conv_in.weight": torch.zeros(8, 4, 3, 3)}, "style", wb.checkpoint.base.Space.DELTA)
    for draw in (lambda: Renderer(lora, config=whole), lambda: Renderer(whole, device="cpu").load(lora)):
        with pytest.raises(RenderError, match=r"'style' holds changes of a model \(a LoRA\), not a model: add it to one"):
            draw()


def test_a_negative_prompt_is_refused_where_there_is_no_guidance_by_one(flux):
    with pytest.raises(RenderError, match=r"negative: FluxPipeline is guided without a negative prompt; leave 'a frog' out"):
        Renderer(flux, device="cpu").images(["a"], [0], negative="a frog", **SMALL)


def test_a_setting_that_a_pipeline_does_not_have_is_refused(flux):
    with pytest.raises(RenderError, match=r"clip_skip: FluxPipeline has no such setting"):
        Renderer(flux, device="cpu").images(["a"], [0], clip_skip=1, **SMALL)
