"""What is taken out of models and written in kohya's format: the key set of a LoRA that kohya's tools trained on the model."""

from __future__ import annotations

import pytest
import torch
from held import Held
from safetensors import safe_open
from safetensors.torch import load_file
from trained_names import TEXT, UNET, clip, denoiser, kohya_names, tuned, whole

import workbench as wb
from workbench.errors import ExportError, MergeError, MergeWarning
from workbench.lora.formats import lora_of


def modules(path) -> set[str]:
    return {key.partition(".")[0] for key in load_file(path)}


def expected(variant: str) -> set[str]:
    """By sd-scripts' rule; of SDXL it runs over a U-Net with the names of its authors."""
    unet = kohya_names(denoiser(variant), "lora_unet", UNET)
    if variant != "SDXL":
        return unet | kohya_names(clip(), "lora_te", TEXT)
    view = wb.in_layout(Held({f"unet.{key}": tensor for key, tensor in denoiser(variant).state_dict().items()}), "LDM")
    flat = {key.removesuffix(".weight").replace("unet.", "").replace(".", "_"): key for key in view}
    known = {f"lora_unet_{name.removeprefix('model_diffusion_model_')}" for name, key in flat.items() if len(view.info(key).shape) > 1}
    ldm = {name for name in known if "_blocks_" in name or "middle_block" in name} - {"lora_unet_input_blocks_0_0"}
    assert len(ldm) == len(unet)
    return ldm | kohya_names(clip(), "lora_te1", TEXT) | kohya_names(clip(True), "lora_te2", TEXT)


@pytest.mark.parametrize("layout", ["diffusers", "LDM"])
@pytest.mark.parametrize("variant", ["SD 1.x", "SD 2.x", "SDXL"])
def test_extract_writes_what_kohyas_tools_would_have_from_whatever_layout(variant, layout, tmp_path):
    base = wb.in_layout(whole(variant), layout)
    lora = wb.lora.extract(tuned(base), base, rank=1, progress=False)
    path = wb.lora.export(lora, tmp_path / "x.safetensors", dtype="float32")
    assert modules(path) - {"lora_te2_text_projection"} == expected(variant)
    assert ("lora_te2_text_projection" in modules(path)) is (variant == "SDXL")
    assert all(name.endswith((".lora_up.weight", ".lora_down.weight", ".alpha")) for name in load_file(path))
    assert all(tensor.shape[0] == 1 for name, tensor in load_file(path).items() if "lora_down" in name)


@pytest.mark.parametrize("layout", ["diffusers", "LDM"])
@pytest.mark.parametrize("variant", ["SD 2.x", "SDXL"])
def test_openclips_attention_changes_as_it_was_tuned_and_comes_back_onto_the_model(variant, layout, tmp_path):
    # queries, keys and values are one tensor in LDM's layout: their change of three ranks is three of one rank each
    base = wb.in_layout(whole(variant), "LDM")
    other = tuned(whole(variant))
    lora = wb.lora.extract(other, wb.in_layout(whole(variant), layout), rank=1, progress=False)
    assert lora.report.error < 1e-4
    path = wb.lora.export(lora, tmp_path / "x.safetensors", dtype="float32")
    wanted = wb.in_layout(other, "LDM")
    made = wb.lora.apply(base, [(wb.open(path), 1.0)])
    keys = [
        key
        for key in base
        if key.endswith(("in_proj_weight", "out_proj.weight", "c_fc.weight", "text_projection", "self_attn.q_proj.weight"))
    ]
    assert any("in_proj_weight" in key for key in keys)
    for key in keys:
        torch.testing.assert_close(made[key], wanted[key], atol=1e-5, rtol=1e-5)


def test_a_model_that_was_tuned_in_openclips_in_proj_weight_alone_differs():
    base = wb.in_layout(whole("SDXL"), "LDM")
    key = next(key for key in base if key.endswith("in_proj_weight"))
    tensors = {name: base.read(name) for name in base}
    tensors[key] = tensors[key] + torch.cat([torch.zeros(8, 8), torch.ones(8, 8), torch.zeros(8, 8)])
    lora = wb.lora.extract(Held(tensors, "tuned"), base, rank=2, progress=False)
    (name,) = lora
    assert name.endswith("self_attn.k_proj.weight")
    torch.testing.assert_close(lora[name], torch.ones(8, 8))
    assert list(wb.lora.extract(Held(tensors, "tuned"), base, rank=2, include="*in_proj_weight", progress=False)) == [name]


def test_what_transformers_text_encoder_of_sd2_does_not_have_is_left_out_and_told():
    base = wb.in_layout(whole("SD 2.x"), "LDM")
    more = {f"cond_stage_model.model.{name}": torch.zeros(8, 8) for name in ("text_projection", "transformer.resblocks.23.mlp.c_fc.weight")}
    tensors = {key: base.read(key) for key in base} | more
    lora = wb.lora.extract(
        Held({key: tensor + 1 for key, tensor in tensors.items()}, "tuned"), Held(tensors, "base"), rank=1, progress=False
    )
    assert not any("text_projection" in key or "layers.23" in key for key in lora)
    told = lora.report.notes[0]
    assert "more tensors differ and are left out" in told


@pytest.mark.parametrize("layout", ["diffusers", "LDM"])
def test_merge_and_hyper_merge_write_the_same_key_sets(layout, tmp_path):
    base = wb.in_layout(whole("SDXL"), layout)
    models = [tuned(base, seed) for seed in (1, 2, 3)]
    loras = [wb.lora.extract(model, base, rank=1, progress=False) for model in models[:2]]
    path = wb.lora.export(wb.lora.merge(loras, progress=False), tmp_path / "m.safetensors")
    assert modules(path) == expected("SDXL") | {"lora_te2_text_projection"}
    found = wb.lora.hyper_merge(models, ranks=[3, 3])
    assert modules(wb.lora.export(found.loras[0], tmp_path / "h.safetensors")) == expected("SDXL") | {"lora_te2_text_projection"}
    again = found.reconstruct(0)
    for key in [key for key in base if key.endswith(("in_proj_weight", "q_proj.weight", "c_fc.weight"))]:
        torch.testing.assert_close(again[key], models[0][key], atol=1e-4, rtol=1e-4)
    assert found.multipliers_for(models[0]).to_numpy() == pytest.approx(found.multipliers.to_numpy()[0], abs=1e-3)


def test_modules_that_kohyas_tools_do_not_load_are_left_out_with_their_names(tmp_path):
    base = wb.in_layout(whole("SD 1.x"), "LDM")
    lora = wb.lora.extract(tuned(base), base, rank=1, include="unet", progress=False)
    assert "model.diffusion_model.input_blocks.0.0.weight" in lora
    names = ("lora_unet_conv_in", "lora_unet_time_embedding_linear_1", "lora_unet_time_embedding_linear_2", "lora_unet_conv_out")
    with pytest.warns(
        MergeWarning, match=f"4 tensors are left out, of modules that kohya's tools do not load: .*{'.*'.join(names)}.*format='comfy'"
    ):
        path = wb.lora.export(lora, tmp_path / "x.safetensors")
    assert not modules(path) & set(names)
    every = wb.open(wb.lora.export(lora, tmp_path / "comfy.safetensors", format="comfy", dtype="float32"))
    assert len(every) == len(lora)
    alone = wb.lora.extract(tuned(base), base, rank=1, include="*time_embed*", progress=False)
    with pytest.raises(ExportError, match=r"changes only modules that kohya's tools do not load \('model.diffusion_model.time_embed.0"):
        wb.lora.export(alone, tmp_path / "none.safetensors")


def test_by_default_they_are_not_taken_out_and_the_report_says_so():
    base = wb.in_layout(whole("SD 1.x"), "LDM")
    lora = wb.lora.extract(tuned(base), base, rank=1, progress=False)
    assert not any("time_embed." in key or "input_blocks.0.0" in key for key in lora)
    assert "more tensors differ and are left out ('model.diffusion_model." in lora.report.headline


def test_all_pairs_of_a_file_have_the_alpha_that_most_had(tmp_path):
    # diffusers takes one alpha for the attention of U-Nets, whatever the pairs' own are
    base = whole("SD 1.x")
    keys = [f"unet.down_blocks.0.attentions.0.transformer_blocks.0.attn{at}.to_{one}.weight" for at, one in ((1, "q"), (1, "k"), (2, "q"))]
    pairs = {key: (torch.randn(8, rank), torch.randn(rank, 8)) for key, rank in zip(keys, (2, 2, 4), strict=True)}
    path = wb.lora.export(lora_of(pairs, {}, "made", base), tmp_path / "x.safetensors", dtype="float32")
    found = load_file(path)
    assert {float(tensor) for name, tensor in found.items() if name.endswith(".alpha")} == {2.0}
    with safe_open(path, "pt") as file:
        assert file.metadata()["ss_network_alpha"] == "2"
        assert file.metadata()["ss_network_dim"] == "Dynamic"
    for key in keys:
        torch.testing.assert_close(wb.lora.apply(base, [(wb.open(path), 1.0)])[key], base[key] + pairs[key][0] @ pairs[key][1])


@pytest.mark.parametrize(("one", "other"), [("float32", "float16"), ("float16", "bfloat16"), ("bfloat16", "float32")])
def test_models_that_differ_in_precision_alone_have_nothing_to_take_out(one, other):
    base = whole("SD 1.x")
    first, second = (Held({key: base.read(key).to(getattr(torch, dtype)) for key in base}, dtype) for dtype in (one, other))
    with pytest.raises(MergeError, match=f"differ by nothing but rounding: .* tensors are the same numbers in {one} and {other}"):
        wb.lora.extract(first, second, rank=1, progress=False)
    with pytest.raises(MergeError, match="differ by nothing but rounding"):
        wb.lora.error(first, second, [1], progress=False)
    with pytest.raises(wb.errors.InputError, match="or differ by nothing but rounding; there is nothing to merge"):
        wb.lora.hyper_merge([first, second], ranks=[1])


def test_what_was_rounded_beside_what_was_trained_is_left_out_and_told():
    base = whole("SD 1.x")
    key = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    tensors = {name: base.read(name).half() for name in base}
    tensors[key] = tensors[key] + 1
    lora = wb.lora.extract(Held(tensors, "tuned"), base, rank=1, progress=False)
    assert list(lora) == [key]
    assert "tensors differ by rounding alone and are left out" in lora.report.notes[0]


def test_a_merge_is_known_beyond_its_dtype_and_is_no_rounding():
    base = Held({key: tensor.half() for key, tensor in whole("SD 1.x").tensors.items()}, "base")
    key = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    weak = lora_of({key: (1e-6 * torch.randn(8, 1), torch.randn(1, 8))}, {}, "weak", base)
    found = wb.lora.extract(wb.lora.apply(base, [(weak, 1.0)]), base, rank=1, progress=False)
    torch.testing.assert_close(found[key], weak[key], atol=1e-8, rtol=0.05)
