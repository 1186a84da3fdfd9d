"""Every stage of the SDXL family runs, on next to nothing, and leaves files that diffusers loads; it is taught as it is asked."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import workbench as wb
from training import stages
from training.files import Folder, as_stored, read_pipeline
from training.parts import tokens_of
from training.sdxl import reader
from training.sdxl_files import V_MARKERS, build_pipeline, read_sdxl, write_config, write_whole
from training.sdxl_parts import TIME_IDS, build_noising, build_sampler, build_sdxl_unet, build_text_encoder_2
from training.sdxl_stages import NAMES, what_is_read
from training.settings import Settings
from training.words import known_distances, set_apart
from workbench.demo.captions import BASE_SHAPES, Subject, subjects

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' own, with numpy 2
DATA = Path(__file__).parents[2] / "data"
SHORT = Settings().shortened(steps=2, pictures=8)
CAPTION = "a red star on a black background"


def with_sd_base(folder):
    shutil.copytree(Folder(DATA).config, folder.config)
    shutil.copy(Folder(DATA).checkpoint("base"), folder.checkpoint("base"))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = with_sd_base(Folder(tmp_path_factory.mktemp("sdxl")))
    for name in NAMES:
        stages.run(name, folder.root, SHORT)
    return folder


@pytest.fixture
def untrained():
    torch.manual_seed(0)
    lender = read_pipeline(Folder(DATA))
    pipeline = build_pipeline(as_stored(build_sdxl_unet()), as_stored(build_text_encoder_2(lender.tokenizer)), lender)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def picture(pipeline, steps=2):
    noise = torch.Generator().manual_seed(0)
    return pipeline(CAPTION, num_inference_steps=steps, generator=noise, output_type="pt").images


def test_the_base_has_the_names_of_sdxl_and_its_integers(trained):
    with safe_open(trained.sdxl("base.safetensors"), "pt") as file:
        assert file.metadata() == {"format": "pt"}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    positions = tensors.pop("conditioner.embedders.0.transformer.text_model.embeddings.position_ids")
    assert torch.equal(positions, torch.arange(16)[None])
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert tensors["conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"].shape == (144, 48)
    assert tensors.keys() >= {
        "conditioner.embedders.1.model.text_projection",
        "model.diffusion_model.label_emb.0.0.weight",
        "model.diffusion_model.input_blocks.3.1.transformer_blocks.1.attn2.to_k.weight",
        "first_stage_model.encoder.down.0.block.0.conv1.weight",
    }


@pytest.mark.parametrize(("name", "markers"), [("heart", set()), ("base-v", set(V_MARKERS))])
def test_the_others_are_unets_alone_with_their_markers(trained, name, markers):
    base, other = (wb.open(trained.sdxl(f"{each}.safetensors")) for each in ("base", name))
    unet = {key for key in base if key.startswith("model.diffusion_model.")}
    assert set(other) == unet | markers
    assert all(other.read(marker).numel() == 0 for marker in markers)
    assert (other.architecture, other.structure.prediction) == ("SDXL", "v" if markers else "epsilon")
    assert any(not torch.equal(base.read(key), other.read(key)) for key in unet)


def test_each_file_draws_and_the_v_model_with_the_schedule_that_its_markers_ask_for(trained):
    drawn = []
    for name in ("base", "heart", "base-v"):
        pipeline = read_sdxl(trained, name)
        drawn.append(picture(pipeline))
        asked = (pipeline.scheduler.config.prediction_type, pipeline.scheduler.config.rescale_betas_zero_snr)
        assert asked == (("v_prediction", True) if name == "base-v" else ("epsilon", False))
    assert drawn[0].shape == (1, 3, 64, 64)
    assert not torch.equal(drawn[0], drawn[1])


def test_the_single_file_draws_what_the_modules_draw(untrained, tmp_path):
    expected = picture(untrained)
    folder = with_sd_base(Folder(tmp_path))
    write_config(folder, untrained)
    write_whole(folder.sdxl("base.safetensors"), untrained)
    assert torch.equal(picture(read_sdxl(folder)), expected)


def test_training_reads_captions_and_sizes_as_the_pipeline_does(untrained):
    asked = {}

    def listen(unet, args, kwargs):
        asked.update(kwargs)

    untrained.unet.register_forward_pre_hook(listen, with_kwargs=True)
    picture(untrained, steps=1)
    read = reader(untrained.text_encoder, untrained.text_encoder_2, tokens_of(untrained.tokenizer, [CAPTION]))
    words, pooled = read(torch.tensor([0]))
    beside = asked["added_cond_kwargs"]
    without, with_caption = asked["encoder_hidden_states"]
    assert torch.allclose(with_caption, words[0], atol=1e-5)
    assert torch.allclose(beside["text_embeds"][1], pooled[0], atol=1e-5)
    assert not without.any()
    assert not beside["text_embeds"][0].any()
    assert beside["time_ids"].tolist() == [list(TIME_IDS)] * 2


def test_the_v_model_is_taught_and_sampled_from_pure_noise():
    assert build_noising(v_prediction=True).alphas_cumprod[-1] == 0
    assert build_noising(v_prediction=False).alphas_cumprod[-1] > 0.004
    sampler = build_sampler(v_prediction=True)
    sampler.set_timesteps(20)
    assert sampler.timesteps[0] == 999


def test_new_words_are_told_apart_in_all_that_the_second_encoder_says_and_known_captions_stay(untrained):
    encoder, tokenizer = untrained.text_encoder_2, untrained.tokenizer

    def said(wanted):
        with torch.no_grad():
            tokens = tokens_of(tokenizer, [each.caption for each in wanted])
            return what_is_read(encoder(tokens, output_hidden_states=True), tokens)

    pair = [Subject("heart", "red", "white"), Subject("moon", "red", "white")]
    known = said(subjects(BASE_SHAPES))
    apart = known_distances(encoder, tokenizer, what_is_read)
    set_apart(encoder, tokenizer, what_is_read, tuple(5 * distance for distance in apart))
    for distance, meanings in zip(apart, said(pair), strict=True):
        assert torch.pdist(meanings).item() > 3 * distance
    assert all(torch.equal(now, before) for now, before in zip(said(subjects(BASE_SHAPES)), known, strict=True))


def test_nothing_of_this_machine_is_written_into_the_configuration(trained):
    texts = [path.read_text() for path in trained.sdxl("config").rglob("*.json")]
    assert texts
    assert not [text for text in texts if str(trained.root) in text or "local_files_only" in text]
