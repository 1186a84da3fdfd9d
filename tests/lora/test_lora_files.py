"""LoRA files in every dialect: the changes they make, under the model's names; and the files that are written, read by diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from held import Held
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import workbench as wb
from workbench import lora
from workbench.checkpoint.views.in_memory import InMemory
from workbench.checkpoint.views.layouts import like
from workbench.checkpoint.views.low_rank import LowRank
from workbench.errors import CheckpointError, ExportError, MergeError
from workbench.lora.formats import lora_of
from workbench.places import DATA
from workbench.tensors import Flat, Rows, Space

SHAPES = DATA / "shapes-sd"
STRIPES = SHAPES / "lora" / "stripes.safetensors"
MODULE = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
UP, DOWN = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0, 4.0]])
DOWNS = {f"{MODULE.replace('.', '__')}__lora_down__weight": DOWN}
CHANGE = [[3.0, 4.0], [6.0, 8.0]]


def in_memory(**tensors: object) -> LowRank:
    return LowRank(InMemory({key.replace("__", "."): torch.as_tensor(value) for key, value in tensors.items()}, "lora"))


@pytest.mark.parametrize(
    "names",
    [
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", "lora_up.weight", "lora_down.weight"),
        (MODULE, "lora_B.weight", "lora_A.weight"),
        (MODULE, "lora_B.default.weight", "lora_A.default.weight"),
        (f"base_model.model.{MODULE}", "lora_B.weight", "lora_A.weight"),
        (MODULE, "lora.up.weight", "lora.down.weight"),
        ("lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q", "lora_up.weight", "lora_down.weight"),
    ],
)
def test_every_dialect_means_the_same_change_by_hand(names, tmp_path):
    module, up, down = names
    save_file({f"{module}.{up}": UP, f"{module}.{down}": DOWN}, tmp_path / "lora.safetensors")
    found = wb.open(tmp_path / "lora.safetensors")
    (key,) = found
    assert found.space is Space.DELTA
    assert "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight" in found.structure.spellings(key)
    assert found.read(key).tolist() == CHANGE
    base = Held({f"model.diffusion_model.{key.split('.', 1)[1]}": torch.ones(2, 2)}, "base")
    (value,) = (wb.operators.add_delta(base, [found], strengths=0.5).read(name) for name in base)
    assert value.tolist() == [[2.5, 3.0], [4.0, 5.0]]


@pytest.mark.parametrize(
    "name",
    [
        "unet: mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj",
        "unet: up_blocks.1.resnets.2.time_emb_proj",
        "unet: output_blocks.3.1.transformer_blocks.0.attn2.to_out.0",
        "unet: double_blocks.0.img_attn.qkv",
        "unet: single_blocks.7.linear1",
        "unet: final_layer.adaLN_modulation.1",
        "unet: conv_norm_out",
        "transformer: single_transformer_blocks.3.attn.to_k",
        "te: text_model.encoder.layers.3.self_attn.q_proj",
        "te2: text_model.final_layer_norm",
    ],
)
def test_kohyas_underscores_become_the_models_dots(name):
    part, module = name.split(": ")
    head = {"te": "text_encoder", "te2": "text_encoder_2"}.get(part, "diffusion_model")
    flat = f"lora_{part}_{module.replace('.', '_')}"
    assert list(in_memory(**{f"{flat}__lora_up__weight": UP, f"{flat}__lora_down__weight": DOWN})) == [f"{head}.{module}.weight"]


def test_every_module_of_the_embedded_pipeline_comes_back_from_kohyas_name():
    base = wb.open(SHAPES / "base.safetensors")
    for key in base:
        if key.endswith(".weight") and key.startswith("model.diffusion_model.") and len(base.info(key).shape) > 1:
            names = base.structure.spellings(key) - {key}
            assert len(names) == 2
            for written in (name.removesuffix(".weight") for name in names):
                flat = f"lora_unet_{written.replace('.', '_')}"
                assert list(in_memory(**{f"{flat}__lora_up__weight": UP, f"{flat}__lora_down__weight": DOWN})) == [
                    f"diffusion_model.{written}.weight"
                ]


def test_alpha_over_rank_scales_and_a_missing_one_does_not():
    up, down = torch.ones(2, 4), torch.ones(4, 2)
    for alpha, value in ((None, 4.0), (4.0, 4.0), (1.0, 1.0), (8.0, 8.0)):
        more = {} if alpha is None else {"x__alpha": alpha}
        assert in_memory(x__lora_up__weight=up, x__lora_down__weight=down, **more).read("x.weight")[0, 0] == value


def test_a_file_where_some_alphas_are_missing_says_so_at_preflight():
    pair = {"lora_up.weight": UP, "lora_down.weight": DOWN}
    tensors = {f"{name}.{end}": tensor for name in ("x", "y") for end, tensor in pair.items()} | {"x.alpha": torch.tensor(1.0)}
    found = LowRank(InMemory(tensors, "lora"))
    base = Held({"x.weight": torch.ones(2, 2), "y.weight": torch.ones(2, 2)}, "base")
    (note,) = wb.preflight(wb.operators.add_delta(base, [found])).notes
    assert note == "lora: 1 of 2 pairs have no alpha ('y.lora_up.weight') and are taken as they are"


def test_alphas_in_diffusers_header_are_heeded(tmp_path):
    tensors = {f"{MODULE}.lora_B.weight": torch.ones(2, 4), f"{MODULE}.lora_A.weight": torch.ones(4, 2)}
    save_file(tensors, tmp_path / "lora.safetensors", {"lora_adapter_metadata": '{"unet.lora_alpha": 2, "unet.r": 4}'})
    assert wb.open(tmp_path / "lora.safetensors").read(f"{MODULE}.weight")[0, 0] == 2


def test_convolutions_with_and_without_a_middle():
    up, down = torch.randn(5, 2, 1, 1), torch.randn(2, 3, 3, 3)
    plain = in_memory(x__lora_up__weight=up, x__lora_down__weight=down).read("x.weight")
    torch.testing.assert_close(plain, torch.einsum("or,rihw->oihw", up[..., 0, 0], down))
    small, mid = torch.randn(2, 3, 1, 1), torch.randn(2, 2, 3, 3)
    with_mid = in_memory(x__lora_up__weight=up, x__lora_down__weight=small, x__lora_mid__weight=mid).read("x.weight")
    torch.testing.assert_close(with_mid, torch.einsum("or,rshw,si->oihw", up[..., 0, 0], mid, small[..., 0, 0]))


def test_a_part_is_what_the_whole_has_there():
    found = in_memory(x__lora_up__weight=torch.randn(7, 2), x__lora_down__weight=torch.randn(2, 3), x__diff_b=torch.randn(7))
    whole = found.read("x.weight")
    torch.testing.assert_close(found.read("x.weight", Rows(2, 5)), whole[2:5])
    for part in (Flat(0, 21), Flat(4, 5), Flat(5, 16)):
        torch.testing.assert_close(found.read("x.weight", part), whole.reshape(-1)[part.start : part.stop])
    assert found.read("x.bias", Flat(1, 3)).tolist() == found.read("x.bias")[1:3].tolist()


def test_the_embedded_lora_adds_what_diffusers_adds():
    base, stripes = wb.open(SHAPES / "base.safetensors"), wb.open(STRIPES)
    renderer = wb.Renderer(SHAPES / "config")
    request = {"prompts": ["a red star on a white background, stripes"], "seeds": [0], "steps": 4}
    grid = wb.ab_grid({"merged": wb.operators.add_delta(base, [stripes], dtype="float32")}, renderer=renderer, scorers=(), **request)
    ours = np.asarray(grid.images[0])
    renderer.load(base)
    renderer._pipeline.load_lora_weights(str(STRIPES.parent), weight_name=STRIPES.name)
    theirs = np.asarray(wb.ab_grid({"base": base}, renderer=renderer, scorers=(), **request).images[0])
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


@pytest.mark.parametrize("form", ["kohya", "peft"])
def test_what_is_written_is_what_was_there(form, tmp_path):
    stripes = wb.open(STRIPES)
    path = lora.export(stripes, tmp_path / "again.safetensors", format=form, dtype="float32")
    again = wb.open(path)
    found = like(again, stripes)
    assert set(found) == set(stripes)
    for key in stripes:
        torch.testing.assert_close(found.read(key), stripes.read(key), rtol=1e-6, atol=1e-9)


def test_kohyas_file_is_written_name_by_name_as_it_was(tmp_path):
    path = lora.export(wb.open(STRIPES), tmp_path / "again.safetensors", dtype="float32")
    assert load_file(path).keys() == load_file(STRIPES).keys()
    with safe_open(path, "pt") as file:
        told = file.metadata()
    assert {key: told[key] for key in ("ss_network_module", "ss_network_dim", "ss_base_model_version", "modelspec.architecture")} == {
        "ss_network_module": "networks.lora",
        "ss_network_dim": "8",
        "ss_base_model_version": "sd_v1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
    }


def test_a_lora_in_memory_keeps_its_models_names_and_whole_changes(tmp_path):
    base = wb.open(SHAPES / "base.safetensors")
    key, bias = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight", "model.diffusion_model.out.0.bias"
    shape = base.info(key).shape
    up, down = torch.randn(shape[0], 2), torch.randn(2, *shape[1:])
    change = torch.randn(base.info(bias).shape)
    made = lora_of({key: (up, down.flatten(1))}, {bias: change}, "made", base)
    assert list(made) == [key, bias]
    assert made.info(key).shape == shape
    torch.testing.assert_close(made.read(key), torch.einsum("or,rihw->oihw", up, down))
    again = wb.open(lora.export(made, tmp_path / "made.safetensors", dtype="float32"))
    assert list(like(again, base)) == [key, bias]
    with pytest.raises(ExportError, match=r"'model.diffusion_model.out.0.bias' is changed as a whole.*choose format='kohya'"):
        lora.export(made, tmp_path / "other.safetensors", format="peft")
    assert not (tmp_path / "other.safetensors").exists()


def test_a_lora_is_an_input_of_any_merge_of_changes(tmp_path):
    base, stripes, heart = (wb.open(path) for path in (SHAPES / "base.safetensors", STRIPES, SHAPES / "heart.safetensors"))
    merge = wb.operators.ties(base, [stripes, heart], density=0.5)
    assert wb.preflight(merge).ok
    wb.export(merge, tmp_path / "merged.safetensors", progress=False)
    again = wb.Recipe.from_file(tmp_path / "merged.safetensors").build()
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    assert torch.equal(again.read(key), wb.open(tmp_path / "merged.safetensors").read(key))


def test_a_recipe_holds_a_lora(tmp_path):
    merge = wb.operators.add_delta(
        wb.open(SHAPES / "base.safetensors"), [wb.open(STRIPES)], strengths={"blocks": {"OUT*": 0.5, "default": 1}}
    )
    merge.recipe.save(tmp_path / "recipe.yaml")
    again = wb.Recipe.load(tmp_path / "recipe.yaml").build()
    for key in list(merge)[::40]:
        assert torch.equal(again.read(key), merge.read(key))


@pytest.mark.parametrize("dialect", ["kohya", "peft"])
def test_a_lora_of_sd2_attention_alone_goes_onto_sd2_when_its_header_says_what_it_is(dialect):
    names = (MODULE, "lora_B.weight", "lora_A.weight")
    if dialect == "kohya":
        names = (f"lora_{MODULE.replace('.', '_')}", "lora_up.weight", "lora_down.weight")
    tensors = {f"{names[0]}.{names[1]}": UP, f"{names[0]}.{names[2]}": DOWN}
    told = LowRank(InMemory(tensors, "lora", {"ss_base_model_version": "sd_v2"}))
    assert LowRank(InMemory(tensors, "lora")).architecture == "unknown"  # a U-Net of any kind has such names
    assert told.architecture == "SD 2.x"
    block = "model.diffusion_model.input_blocks.1.1"
    key = f"{block}.transformer_blocks.0.attn1.to_q.weight"
    base = Held({f"{block}.proj_in.weight": torch.ones(2, 2), key: torch.ones(2, 2)}, "base")
    assert base.architecture == "SD 2.x"
    assert wb.operators.add_delta(base, [told])[key].tolist() == [[4.0, 5.0], [7.0, 9.0]]


def test_a_lora_of_another_model_is_refused_with_the_keys_that_do_not_fit():
    base, stripes = wb.open(SHAPES / "base.safetensors"), wb.open(STRIPES)
    flux = in_memory(
        lora_unet_double_blocks_0_img_mod_lin__lora_up__weight=UP, lora_unet_double_blocks_0_img_mod_lin__lora_down__weight=DOWN
    )
    with pytest.raises(MergeError, match=r"base is SD 1\.x, lora is Flux; only models of one architecture"):
        wb.preflight(wb.operators.add_delta(base, [flux])).raise_errors()
    wide = in_memory(**{f"{MODULE.replace('.', '__')}__lora_up__weight": UP, f"{MODULE.replace('.', '__')}__lora_down__weight": DOWN})
    with pytest.raises(
        MergeError,
        match=r"input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight' has different shapes: \[48, 48\] in base, \[2, 2\] in lora",
    ):
        wb.preflight(wb.operators.add_delta(base, [wide])).raise_errors()
    names = {end: f"lora_unet_up_blocks_7_resnets_0_conv1__lora_{end}__weight" for end in ("up", "down")}
    strange = in_memory(**{names["up"]: UP, names["down"]: DOWN})
    with pytest.raises(MergeError, match="have no tensor name in common"):
        wb.preflight(wb.operators.add_delta(base, [stripes, strange])).raise_errors()
    square = {f"{MODULE.replace('.', '__')}__lora_{end}__weight": torch.ones(shape) for end, shape in (("up", (48, 1)), ("down", (1, 48)))}
    partly = in_memory(
        lora_unet_time_embedding_linear_3__lora_up__weight=UP, lora_unet_time_embedding_linear_3__lora_down__weight=DOWN, **square
    )
    (told,) = wb.preflight(wb.operators.add_delta(base, [partly])).warnings
    assert "time_embedding.linear_3.weight' is not in the result: it is only in lora" in told


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"x__lora_down__weight": DOWN}, r"'x.lora_down.weight' has no lora_up beside it"),
        ({"x__lora_up__weight": UP}, r"'x.lora_up.weight' has no lora_down beside it"),
        ({"x__alpha": 1.0}, r"'x.alpha' has no lora_down beside it"),
        ({"x__lora_up__weight": UP, "x__lora_down__weight": torch.ones(3, 2)}, r"of shape \(2, 1\) .* \(3, 2\) do not multiply"),
        ({"x__hada_w1_a": UP}, "'x.hada_w1_a' has no hada_w1_b beside it"),
        ({"x__lokr_w1": UP}, "'x.lokr_w1' has no lokr_w2 or lokr_w2_a beside it"),
        ({"x__lokr_w1": UP, "x__lokr_w2_a": UP}, "'x.lokr_w1' has no lokr_w2_b beside it"),
        ({"x__hada_w1_a": UP, "x__hada_w1_b": DOWN, "x__hada_w2_a": UP, "x__hada_w2_b": UP}, "do not multiply"),
        ({"x__lora_up__weight": UP, "x__lora_down__weight": DOWN, "x__dora_scale": torch.ones(3, 1)}, "do not multiply"),
        ({"x__oft_blocks": torch.ones(2, 3, 4)}, "do not multiply"),
        ({"x__lora_E": UP, "x__lora_A": UP}, "belongs to AdaLoRA, which is not read"),
        ({"x__lora_up__weight": UP, "x__lora_down__weight": DOWN, "y": UP}, "'y' is no name in a LoRA"),
        ({"x__lora_up__weight": UP, "x__lora_B__weight": UP, "x__lora_down__weight": DOWN}, "are both the up of 'x.weight'"),
        (
            {"x__lora_up__weight": UP, "x__lora_down__weight": DOWN, "x__diff": UP},
            "'x.diff' changes a tensor that 'x.lora_up.weight' changes",
        ),
    ],
)
def test_damaged_and_foreign_files_are_refused(tensors, said):
    with pytest.raises(CheckpointError, match=said):
        in_memory(**tensors)


def test_targets_that_cannot_be_are_refused(tmp_path):
    stripes = wb.open(STRIPES)
    (tmp_path / "there.safetensors").write_bytes(b"x")
    for path, more, said in (
        ("there.safetensors", {}, "is already|is there already"),
        ("x.pt", {}, "ends in .safetensors"),
        ("x.safetensors", {"format": "diffusers"}, "format must be one of 'kohya', 'peft', 'comfy', 'original', got 'diffusers'"),
        ("x.safetensors", {"dtype": "int8"}, "dtype must be one of"),
    ):
        with pytest.raises(ExportError, match=said):
            lora.export(stripes, tmp_path / path, **more)
    assert (tmp_path / "there.safetensors").read_bytes() == b"x"
    with pytest.raises(ExportError, match=r"beyond torch\.float16, or NaN; choose dtype='float32'"):
        lora.export(in_memory(**{f"{MODULE.replace('.', '__')}__lora_up__weight": UP * 1e6, **DOWNS}), tmp_path / "big.safetensors")
    with pytest.raises(ExportError, match=r"'x.weight' belongs to no part of a pipeline"):
        lora.export(in_memory(x__lora_up__weight=UP, x__lora_down__weight=DOWN), tmp_path / "big.safetensors")
    assert list(tmp_path.iterdir()) == [tmp_path / "there.safetensors"]
