"""What a text encoder promises: transformers' own numbers from whatever file the weights lie in, and words for what does not fit."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

import workbench as wb
from workbench.conditioning.text_encoders import TextEncoder
from workbench.errors import TextEncoderError

DATA = Path(__file__).resolve().parents[2] / "data"
FAMILY = DATA / "shapes-sd"
BASE = FAMILY / "base.safetensors"
TOKENIZER = FAMILY / "config" / "tokenizer"
PROMPTS = ["a red heart on a white background", "a yellow moon", "blue star"]
SMALL = {"vocab_size": 166, "max_position_embeddings": 16, "bos_token_id": 0, "eos_token_id": 1, "num_hidden_layers": 2}
SMALL_L = {**SMALL, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "projection_dim": 32}
SMALL_G = {**SMALL, "hidden_size": 40, "intermediate_size": 56, "num_attention_heads": 4, "projection_dim": 24, "hidden_act": "gelu"}
OPEN_CLIP = "conditioner.embedders.1.model."


@pytest.fixture(scope="module")
def encoder():
    return TextEncoder(BASE)


@pytest.fixture(scope="module")
def pair():
    """clip_l and clip_g, small and random; also their layer norms, which begin as ones and zeros."""
    torch.manual_seed(0)
    models = CLIPTextModel(CLIPTextConfig(**SMALL_L)).eval(), CLIPTextModelWithProjection(CLIPTextConfig(**SMALL_G)).eval()
    for model in models:
        for tensor in model.parameters():
            tensor.data.add_(torch.randn_like(tensor), alpha=0.1)
    return models


@pytest.fixture(scope="module")
def config(tmp_path_factory, pair):
    """The folder of a pipeline that holds both, without weights."""
    folder = tmp_path_factory.mktemp("config")
    for part, model in zip(("text_encoder", "text_encoder_2"), pair, strict=True):
        model.config.save_pretrained(folder / part)
    shutil.copytree(TOKENIZER, folder / "tokenizer")
    (folder / "model_index.json").write_text("{}")
    return folder


def bare(model):
    """Tensors under transformers' names of before version 5, which ComfyUI writes too."""
    names = {name.removeprefix("text_model."): tensor for name, tensor in model.state_dict().items()}
    return {name if name.startswith("text_projection") else f"text_model.{name}": tensor.clone() for name, tensor in names.items()}


def comfy(model, lead=""):
    """As `CLIPSave` writes it: of clip_l too with a projection, the identity."""
    extra = {"logit_scale": torch.tensor(4.6055), "text_projection.weight": torch.eye(model.config.hidden_size)}
    return {lead + name: tensor for name, tensor in {**extra, **bare(model)}.items()}


def open_clip(model):
    """As OpenCLIP names it, with queries, keys and values in one, and the projection multiplied from the right."""
    plain = {name.removeprefix("text_model."): tensor for name, tensor in bare(model).items()}
    found = {
        "positional_embedding": plain["embeddings.position_embedding.weight"],
        "token_embedding.weight": plain["embeddings.token_embedding.weight"],
        "ln_final.weight": plain["final_layer_norm.weight"],
        "ln_final.bias": plain["final_layer_norm.bias"],
        "text_projection": plain["text_projection.weight"].T.contiguous(),
        "logit_scale": torch.tensor(4.6),
    }
    pairs = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for layer in range(model.config.num_hidden_layers):
        for end in ("weight", "bias"):
            for there, here in pairs.items():
                found[f"transformer.resblocks.{layer}.{there}.{end}"] = plain[f"encoder.layers.{layer}.{here}.{end}"]
            three = [plain[f"encoder.layers.{layer}.self_attn.{letter}_proj.{end}"] for letter in "qkv"]
            found[f"transformer.resblocks.{layer}.attn.in_proj_{end}"] = torch.cat(three)
    return {OPEN_CLIP + name: tensor for name, tensor in found.items()}


def expected(pair, prompts=PROMPTS, tokenizer=TOKENIZER):
    """What transformers' classes themselves give, one prompt at a time: clip_l's pooled output, clip_g's projected one."""
    words = CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True)
    rows = []
    with torch.no_grad():
        for prompt in prompts:
            ids = words(prompt, padding="max_length", max_length=16, return_tensors="pt").input_ids
            rows.append(torch.cat([pair[0](ids).pooler_output, pair[1](ids).text_embeds], -1))
    return torch.cat(rows)


def saved(path, *tensors):
    save_file({name: tensor for part in tensors for name, tensor in part.items()}, path)
    return path


def files(folder, pair, lead=("", "")):
    return {
        kind: saved(folder / f"{kind}.safetensors", comfy(model, start))
        for kind, model, start in zip(("clip_l", "clip_g"), pair, lead, strict=True)
    }


def swapped(folder):
    """The family's tokenizer with two words changed over."""
    shutil.copytree(TOKENIZER, folder)
    (folder / "tokenizer.json").unlink()
    words = json.loads((folder / "vocab.json").read_text())
    words["red</w>"], words["blue</w>"] = words["blue</w>"], words["red</w>"]
    (folder / "vocab.json").write_text(json.dumps(words))
    return folder


def told(**given):
    """What is said of an encoder that cannot be made, at once or when it is first asked."""
    with pytest.raises(TextEncoderError) as error:
        TextEncoder(**given).pooled("a red heart")
    return str(error.value)


# from where the weights come


def test_the_embedded_familys_own_encoder_gives_the_numbers_of_its_pipeline_to_the_bit(encoder):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_single_file(str(BASE), config=str(FAMILY / "config"), local_files_only=True)
    model, words = pipeline.text_encoder.eval().float(), pipeline.tokenizer
    for prompt in PROMPTS:
        ids = words(prompt, padding="max_length", max_length=words.model_max_length, truncation=True, return_tensors="pt")
        with torch.no_grad():
            out = model(ids.input_ids)
        states, mask = encoder.tokens(prompt)
        assert torch.equal(encoder.pooled([prompt]), out.pooler_output)
        assert torch.equal(states, out.last_hidden_state)
        assert torch.equal(mask, ids.attention_mask.bool())


def test_sizes_are_known_before_weights_are_read(encoder):
    fresh = TextEncoder(BASE)
    assert (fresh.width, fresh.token_width, fresh.limit) == (64, 64, 16)
    assert "_models" not in vars(fresh)
    assert fresh.tokenizer == str(TOKENIZER)
    assert encoder.pooled(PROMPTS).shape == (3, 64)
    assert encoder.pooled(PROMPTS).dtype == torch.float32


def test_a_merge_has_an_encoder_like_a_file(encoder):
    halves = wb.operators.weighted_average([wb.open(BASE), wb.open(FAMILY / "heart.safetensors")], weights=[1.0, 0.0])
    merged = TextEncoder(halves)
    assert torch.equal(merged.pooled(PROMPTS), encoder.pooled(PROMPTS))
    assert merged.identity == encoder.identity
    with pytest.raises(TextEncoderError, match="lies in no file, so a recipe cannot name it; export it"):
        _ = merged.source


@pytest.mark.parametrize("lead", [("", ""), ("clip_l.", "clip_g."), ("clip_l.transformer.", "clip_g.transformer.")])
def test_comfyuis_clip_l_and_clip_g_each_go_into_their_own_class(tmp_path, pair, config, lead):
    both = TextEncoder(**files(tmp_path, pair, lead), config=config)
    assert torch.equal(both.pooled(PROMPTS), expected(pair))
    assert (both.width, both.token_width) == (32 + 24, 32 + 40)
    assert both.tokens(PROMPTS).states.shape == (3, 16, 72)
    assert torch.equal(TextEncoder(clip_l=tmp_path / "clip_l.safetensors", config=config).pooled(PROMPTS), expected(pair)[:, :32])
    assert torch.equal(TextEncoder(clip_g=tmp_path / "clip_g.safetensors", config=config).pooled(PROMPTS), expected(pair)[:, 32:])


def test_both_in_one_file_are_told_apart_by_their_prefix(tmp_path, pair, config):
    one = saved(tmp_path / "clip.safetensors", comfy(pair[0], "clip_l.transformer."), comfy(pair[1], "clip_g.transformer."))
    assert torch.equal(TextEncoder(clip_l=one, clip_g=one, config=config).pooled(PROMPTS), expected(pair))


@pytest.mark.parametrize("shape", ["single file", "beside its pipeline"])
def test_an_sdxl_checkpoint_has_both_the_second_in_openclips_form(tmp_path, pair, config, shape):
    first = {f"conditioner.embedders.0.transformer.{name}": tensor for name, tensor in bare(pair[0]).items()}
    path = saved(tmp_path / "xl.safetensors", first, open_clip(pair[1]))
    if shape == "beside its pipeline":
        shutil.copytree(config, tmp_path / "config")
        found = TextEncoder(path)
    else:
        found = TextEncoder(path, config=config)
    assert torch.equal(found.pooled(PROMPTS), expected(pair))


def test_openclips_names_become_what_diffusers_makes_of_them(tmp_path, pair, config):
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    from workbench.conditioning.text_encoder_files import in_checkpoint

    checkpoint = saved(tmp_path / "xl.safetensors", open_clip(pair[1]))
    (ours,) = in_checkpoint(wb.open(checkpoint))
    theirs = convert_open_clip_checkpoint(pair[1], load_file(checkpoint), prefix=OPEN_CLIP)
    assert set(ours.keys) == {name.removeprefix("text_model.") for name in theirs}
    assert all(torch.equal(ours.read(name.removeprefix("text_model.")), tensor) for name, tensor in theirs.items())
    assert all(ours.shape(name.removeprefix("text_model.")) == tuple(tensor.shape) for name, tensor in theirs.items())


def test_a_pipelines_folder_a_models_folder_and_a_whole_clip_open_alike(tmp_path, pair):
    for part, model in zip(("text_encoder", "text_encoder_2"), pair, strict=True):
        model.save_pretrained(tmp_path / part)
    shutil.copytree(TOKENIZER, tmp_path / "tokenizer")
    (tmp_path / "model_index.json").write_text(json.dumps({"text_encoder": ["transformers", "x"], "text_encoder_2": ["transformers", "y"]}))
    assert torch.equal(TextEncoder(tmp_path).pooled(PROMPTS), expected(pair))
    assert torch.equal(TextEncoder(tmp_path / "text_encoder").pooled(PROMPTS), expected(pair)[:, :32])
    assert torch.equal(TextEncoder(tmp_path / "text_encoder_2").pooled(PROMPTS), expected(pair)[:, 32:])

    whole = TextEncoder(DATA / "shapes-clip")
    words = CLIPTokenizer.from_pretrained(DATA / "shapes-clip", local_files_only=True)
    ids = words(PROMPTS[0], padding="max_length", max_length=whole.limit, return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(whole.pooled(PROMPTS[0]), CLIPTextModel.from_pretrained(DATA / "shapes-clip").eval()(ids).pooler_output)


@pytest.mark.parametrize(("kind", "width", "heads", "activation"), [("clip_l", 768, 12, "quick_gelu"), ("clip_g", 1280, 20, "gelu")])
def test_without_a_config_the_known_widths_tell_heads_and_activation(tmp_path, kind, width, heads, activation):
    sizes = {"vocab_size": 50, "hidden_size": width, "intermediate_size": 8, "num_hidden_layers": 1, "projection_dim": 6}
    with torch.device("meta"):
        model = (CLIPTextModelWithProjection if kind == "clip_g" else CLIPTextModel)(
            CLIPTextConfig(**sizes, bos_token_id=0, eos_token_id=1)
        )
    path = saved(tmp_path / "clip.safetensors", {name: torch.zeros(tensor.shape) for name, tensor in model.state_dict().items()})
    found = TextEncoder(**{kind: path})
    ((settings, folder),) = found._configurations
    assert folder is None
    assert (settings.num_attention_heads, settings.hidden_act, settings.max_position_embeddings) == (heads, activation, 77)
    assert found.width == (6 if kind == "clip_g" else 768)
    assert found.tokenizer == "openai/clip-vit-large-patch14"


# what an embedding depends on


def test_source_opens_the_same_again(tmp_path, pair, config, encoder):
    both = TextEncoder(**files(tmp_path, pair), config=config, tokenizer=TOKENIZER)
    assert set(both.source) == {"clip_l", "clip_g", "config", "tokenizer"}
    assert TextEncoder(**both.source).identity == both.identity
    assert encoder.source == {"model": str(BASE)}
    assert TextEncoder(wb.open(BASE)).source == encoder.source


def test_identity_is_of_the_numbers_and_not_of_the_file(tmp_path, pair, config):
    plain = TextEncoder(**files(tmp_path, pair), config=config).identity
    first = {f"conditioner.embedders.0.transformer.{name}": tensor for name, tensor in bare(pair[0]).items()}
    assert TextEncoder(saved(tmp_path / "xl.safetensors", first, open_clip(pair[1])), config=config).identity == plain
    changed = comfy(pair[0])
    changed["text_model.final_layer_norm.bias"][0] += 1e-3
    paths = {"clip_l": saved(tmp_path / "other.safetensors", changed), "clip_g": tmp_path / "clip_g.safetensors"}
    assert TextEncoder(**paths, config=config).identity != plain
    other = shutil.copytree(config, tmp_path / "config")
    settings = json.loads((other / "text_encoder" / "config.json").read_text())
    (other / "text_encoder" / "config.json").write_text(json.dumps({**settings, "hidden_act": "gelu"}))
    assert TextEncoder(**files(tmp_path, pair), config=other).identity != plain
    assert TextEncoder(**files(tmp_path, pair), config=config, tokenizer=swapped(tmp_path / "words")).identity != plain


@given(st.lists(st.sampled_from([*PROMPTS, "a green circle on a black background"]), min_size=1, max_size=4))
def test_a_prompts_bytes_do_not_depend_on_its_company(encoder, prompts):
    assert torch.equal(encoder.pooled(prompts), torch.cat([encoder.pooled(prompt) for prompt in prompts]))


def test_a_prompts_bytes_do_not_depend_on_the_threads(tmp_path):
    # wide and long enough that torch shares sums out: with 3 threads this one comes out otherwise
    sizes = {"hidden_size": 640, "intermediate_size": 2560, "num_attention_heads": 10, "max_position_embeddings": 77}
    torch.manual_seed(0)
    CLIPTextModel(CLIPTextConfig(**{**SMALL_L, **sizes})).save_pretrained(tmp_path / "text_encoder")
    words = CLIPTokenizer.from_pretrained(TOKENIZER, local_files_only=True, model_max_length=77)
    words.save_pretrained(tmp_path / "tokenizer")
    wide, before, found = TextEncoder(tmp_path / "text_encoder"), torch.get_num_threads(), []
    assert wide.limit == 77
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        try:
            found.append(wide.tokens(PROMPTS[0]).states)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(found[0], states) for states in found)


def test_loading_draws_no_random_number_and_keeps_no_gradient():
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    found = TextEncoder(BASE).pooled("a red heart")
    assert torch.equal(torch.rand(4), wanted)
    assert not found.requires_grad
    (found * torch.ones(64, requires_grad=True)).sum().backward()  # may stand in front of something that is trained


@pytest.mark.parametrize("end", [2, 165])
def test_old_configs_that_call_the_end_token_2_pool_where_the_sentence_ends(tmp_path, pair, end):
    vocabulary = json.loads((TOKENIZER / "vocab.json").read_text())
    turned = {word: (number - 2) % 166 for word, number in vocabulary.items()}  # the end is the highest number, as in the real one
    shutil.copytree(TOKENIZER, tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "tokenizer.json").unlink()
    (tmp_path / "tokenizer" / "vocab.json").write_text(json.dumps(turned))
    model = CLIPTextModel(CLIPTextConfig(**{**SMALL_L, "bos_token_id": 164, "eos_token_id": end})).eval()
    model.load_state_dict(pair[0].state_dict())
    model.save_pretrained(tmp_path / "text_encoder")
    words = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer", local_files_only=True)
    assert words.eos_token_id == 165
    ids = words(PROMPTS[0], padding="max_length", max_length=16, return_tensors="pt").input_ids
    with torch.no_grad():
        wanted = model(ids).pooler_output
    assert torch.equal(TextEncoder(tmp_path / "text_encoder").pooled(PROMPTS[0]), wanted)


def test_importing_and_opening_load_no_library_of_models():
    code = f"import sys; from workbench.conditioning.text_encoders import TextEncoder; TextEncoder({str(BASE)!r}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"transformers", "diffusers"} & set(loaded)


# prompts that cannot be read


@pytest.mark.parametrize("prompt", ["", "  \n "])
def test_an_empty_prompt_is_refused(encoder, prompt):
    with pytest.raises(TextEncoderError, match="is empty"):
        encoder.pooled(["a red heart", prompt])


@pytest.mark.parametrize("prompts", [[], [1], [None], [["a"]]])
def test_prompts_are_strings(encoder, prompts):
    with pytest.raises(TextEncoderError, match="prompts must be one or more strings"):
        encoder.pooled(prompts)


def test_a_prompt_beyond_the_limit_is_cut_only_when_asked(encoder):
    long = "a red heart " * 5 + "blue"
    with pytest.raises(TextEncoderError) as error:
        encoder.pooled(long)
    kept = ("a red heart " * 5)[:-6].rstrip()
    assert "has 18 tokens with begin and end, and the text encoder reads 16" in str(error.value)
    assert f"cut after {kept!r}, without ' heart blue'" in str(error.value)
    assert torch.equal(encoder.pooled(long, truncate=True), encoder.pooled(kept))
    assert torch.equal(encoder.tokens(long, truncate=True).states, encoder.tokens(kept).states)


def test_a_prompt_of_exactly_the_limit_is_read(encoder):
    full = ("a red heart " * 5)[:-6].rstrip()
    assert encoder.tokens(full).mask.all()
    assert not encoder.tokens("a red heart").mask.all()


def test_what_the_tokenizer_does_not_know_is_named_and_does_not_end_the_sentence(encoder):
    with pytest.raises(TextEncoderError, match="holds '☃', which the tokenizer does not know"):
        encoder.pooled("a red ☃ heart")


# files that do not fit


def test_missing_and_unexpected_tensors_are_named(tmp_path, pair, config):
    tensors = comfy(pair[0])
    del tensors["text_model.encoder.layers.1.mlp.fc1.bias"]
    tensors["text_model.encoder.layers.1.mlp.fc9.bias"] = torch.zeros(1)
    said = told(clip_l=saved(tmp_path / "l.safetensors", tensors), config=config)
    assert "lacks encoder.layers.1.mlp.fc1.bias" in said
    assert "has, beyond what a text encoder holds, text_model.encoder.layers.1.mlp.fc9.bias" in said
    assert "CLIPTextModel" in said
    assert "l.safetensors: clip_l" in said


def test_an_encoder_without_its_embedding_is_told(tmp_path, pair):
    tensors = comfy(pair[0])
    del tensors["text_model.embeddings.token_embedding.weight"]
    assert "lacks embeddings.token_embedding.weight" in told(clip_l=saved(tmp_path / "l.safetensors", tensors))


def test_colliding_names_are_an_error_and_never_overwrite_each_other(tmp_path, pair, config):
    twice = saved(tmp_path / "l.safetensors", comfy(pair[0]), comfy(pair[0], "transformer."))
    assert "are both" in told(clip_l=twice, config=config)
    as_open_clip = {name.removeprefix(OPEN_CLIP): tensor for name, tensor in open_clip(pair[1]).items() if "text_projection" in name}
    of_both_layouts = saved(tmp_path / "g.safetensors", comfy(pair[1]), as_open_clip)
    assert "has, beyond what a text encoder holds, text_encoder_2.text_projection" in told(clip_g=of_both_layouts, config=config)


def test_a_clip_g_given_as_clip_l_is_told_by_its_names_its_shapes_or_its_width(tmp_path, pair, config):
    named = files(tmp_path, pair, ("clip_l.", "clip_g."))
    assert "is given as clip_l and holds clip_g; pass clip_g= with it" in told(clip_l=named["clip_g"])
    plain = files(tmp_path, pair)
    assert "token_embedding.weight [166, 40] for [166, 32]" in told(clip_l=plain["clip_g"], config=config)
    sizes = {**SMALL_G, "hidden_size": 1280, "num_attention_heads": 20, "vocab_size": 10, "intermediate_size": 8}
    with torch.device("meta"):
        names = CLIPTextModelWithProjection(CLIPTextConfig(**sizes)).state_dict()
    wide = saved(tmp_path / "wide.safetensors", {name: torch.zeros(tensor.shape, dtype=torch.float16) for name, tensor in names.items()})
    said = told(clip_l=wide)
    assert "has width 1280" in said
    assert "pass it as clip_g=" in said


def test_sizes_that_nothing_tells_ask_for_a_config(tmp_path, pair):
    said = told(clip_l=files(tmp_path, pair)["clip_l"])
    assert "has width 32" in said
    assert "clip_l has width 768 and clip_g has width 1280" in said
    assert "pass config=" in said


def test_another_tokenizer_than_the_encoder_was_trained_with_is_told(tmp_path, pair, config):
    other = shutil.copytree(config, tmp_path / "config")
    settings = json.loads((other / "text_encoder" / "config.json").read_text())
    (other / "text_encoder" / "config.json").write_text(json.dumps({**settings, "eos_token_id": 77}))
    said = told(clip_l=files(tmp_path, pair)["clip_l"], config=other, tokenizer=TOKENIZER)
    assert "was trained with another tokenizer" in said
    assert "ends with 77" in said


def test_a_tokenizer_that_is_nowhere_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "is no folder, and no tokenizer of this name" in told(model=BASE, tokenizer="nobody/has-this")
    assert "is no folder, and no tokenizer of this name" in told(model=BASE, tokenizer=tmp_path / "nothing")
    assert "holds no CLIP tokenizer" in told(model=BASE, tokenizer=tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    assert "transformers cannot read this tokenizer" in told(model=BASE, tokenizer=tmp_path)


def test_a_tokenizer_fetched_before_is_found_by_its_name_without_the_network(tmp_path, monkeypatch, encoder):
    kept = tmp_path / "models--someone--words"
    shutil.copytree(TOKENIZER, kept / "snapshots" / "0123")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    named = TextEncoder(BASE, tokenizer="someone/words")
    assert named.source == {"model": str(BASE), "tokenizer": "someone/words"}
    assert named.identity == encoder.identity
    (kept / "snapshots" / "0123" / "vocab.json").unlink()
    (kept / "snapshots" / "0123" / "tokenizer.json").unlink()  # as where only a model of that name was fetched
    assert "holds no CLIP tokenizer" in told(model=BASE, tokenizer="someone/words")


def test_a_file_without_text_encoder_says_what_it_holds(tmp_path):
    path = saved(tmp_path / "unet.safetensors", {"model.diffusion_model.middle_block.0.x": torch.zeros(2)})
    assert "holds no CLIP text encoder; its components are unet" in told(model=path)


def test_of_fluxs_two_encoders_the_clip_is_taken_and_the_t5_left(tmp_path, pair, config):
    tensors = {f"text_encoder.{name}": tensor for name, tensor in bare(pair[0]).items()}
    t5 = {
        "text_encoder_2.shared.weight": torch.zeros(3, 2),
        "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q.weight": torch.zeros(2, 2),
    }
    both = TextEncoder(saved(tmp_path / "flux.safetensors", tensors, t5), config=config)
    assert torch.equal(both.pooled(PROMPTS), expected(pair)[:, :32])


def test_openclip_in_the_first_place_asks_for_a_folder(tmp_path, pair):
    tensors = {name.replace(OPEN_CLIP, "cond_stage_model.model."): tensor for name, tensor in open_clip(pair[1]).items()}
    assert "give the text_encoder folder" in told(model=saved(tmp_path / "sd2.safetensors", tensors))


def test_a_lora_is_no_text_encoder():
    assert "holds changes to a model" in told(model=FAMILY / "lora" / "stripes.safetensors")


def test_weights_that_give_nan_are_told(tmp_path, pair, config):
    tensors = comfy(pair[0])
    tensors["text_model.final_layer_norm.bias"][3] = float("nan")
    assert "gives NaN" in told(clip_l=saved(tmp_path / "l.safetensors", tensors), config=config)


@pytest.mark.parametrize("names", [{}, {"model": BASE, "clip_l": BASE}])
def test_a_model_or_its_parts_are_given_and_not_both(names):
    assert "either a model" in told(**names)


def test_a_config_that_is_of_something_else_is_told(tmp_path):
    assert "there is no such file" in told(model=BASE, config=tmp_path)
    assert "is not the config of a CLIP" in told(model=BASE, config=FAMILY / "config" / "unet")
