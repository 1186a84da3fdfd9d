"""LoRAs of Flux meet models in either layout: fused changes are cut, split ones joined; files are in the layout of their format."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from held import Held
from safetensors.torch import load_file

import workbench as wb
from workbench import lora
from workbench.checkpoint.names.lora_modules import module_of
from workbench.checkpoint.views.in_memory import InMemory
from workbench.checkpoint.views.layouts import like
from workbench.checkpoint.views.low_rank import Factors, LowRank
from workbench.errors import ExportError, MergeWarning

WIDTH, RANK = 6, 2
FLUX = {"ss_base_model_version": "flux1"}  # attention alone tells no Flux from its relatives
QKV, LINEAR1, FINAL = "double_blocks.0.img_attn.qkv", "single_blocks.0.linear1", "final_layer.adaLN_modulation.1"
SPLIT = [f"transformer_blocks.0.attn.to_{one}" for one in "qkv"]
SINGLE = [f"single_transformer_blocks.0.{one}" for one in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
ROWS = {QKV: 18, LINEAR1: 42, FINAL: 12, "double_blocks.0.img_attn.proj": 6, **dict.fromkeys([*SPLIT, *SINGLE[:3]], 6), SINGLE[3]: 24}


def factors(rows: int, seed: int, rank: int = RANK) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, rank, generator=generator), torch.randn(rank, WIDTH, generator=generator)


def kohya(*modules: str, alpha: float = 1.0, seed: int = 0) -> LowRank:
    tensors = {}
    for i, module in enumerate(modules):
        up, down = factors(ROWS[module], seed + i)
        flat = f"lora_unet_{module.replace('.', '_')}"
        tensors |= {f"{flat}.lora_up.weight": up, f"{flat}.lora_down.weight": down, f"{flat}.alpha": torch.tensor(alpha)}
    return LowRank(InMemory(tensors, "kohya", FLUX))


def peft(*modules: str, seed: int = 0) -> LowRank:
    tensors = {}
    for i, module in enumerate(modules):
        up, down = factors(ROWS[module], seed + i)
        tensors |= {f"transformer.{module}.lora_B.weight": up, f"transformer.{module}.lora_A.weight": down}
    return LowRank(InMemory(tensors, "peft", FLUX))


@pytest.fixture
def base() -> dict[str, Held]:
    """A few tensors of Flux in both layouts."""
    bfl = {
        f"{module}.weight": torch.randn(ROWS[module], WIDTH, generator=torch.Generator().manual_seed(9)) for module in (QKV, LINEAR1, FINAL)
    }
    bfl |= {"img_in.bias": torch.zeros(WIDTH), "time_in.in_layer.bias": torch.zeros(WIDTH)}  # which tell a Flux
    return {"BFL": Held(bfl, "bfl"), "diffusers": Held(dict(wb.in_layout(Held(bfl), "diffusers")), "diffusers")}


def test_every_module_of_flux_comes_back_from_kohyas_name():
    from diffusers import FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    with torch.device("meta"):
        flux = Held(FluxTransformer2DModel(num_layers=2, num_single_layers=2, guidance_embeds=True).state_dict())
        t5 = Held(T5EncoderModel(T5Config(num_layers=2, feed_forward_proj="gated-gelu")).state_dict())
    models = (("unet", "diffusion_model.", flux), ("unet", "diffusion_model.", wb.in_layout(flux, "BFL")), ("te3", "text_encoder_2.", t5))
    for head, prefix, model in models:
        for module in (key.removesuffix(".weight") for key in model if len(model.info(key).shape) == 2):
            flat = f"lora_{head}_{module.replace('.', '_')}"
            assert module_of(flat).usual == f"{prefix}{module}"


@pytest.mark.parametrize("layout", ["BFL", "diffusers"])
@pytest.mark.parametrize("kind", ["fused", "split"])
def test_a_lora_changes_either_layout_alike(base, layout, kind):
    change = {"fused": kohya(QKV, LINEAR1, FINAL, alpha=0.5), "split": peft(*SPLIT, *SINGLE)}[kind]
    merge = wb.lora.apply(base[layout], [(change, 0.5)])
    assert list(merge) == list(base[layout])
    found = wb.in_layout(merge, "BFL")
    expected = {key: tensor.clone() for key, tensor in base["BFL"].items()}
    if kind == "fused":
        for i, module in enumerate((QKV, LINEAR1, FINAL)):
            up, down = factors(ROWS[module], i)
            expected[f"{module}.weight"] += 0.5 * (0.5 / RANK) * up @ down
    else:
        for modules, fused, first in ((SPLIT, QKV, 0), (SINGLE, LINEAR1, 3)):
            products = [torch.matmul(*factors(ROWS[module], first + i)) for i, module in enumerate(modules)]
            expected[f"{fused}.weight"] += 0.5 * torch.cat(products)
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, atol=1e-6, rtol=1e-5)
    assert wb.preflight(merge).ok


def test_a_lora_of_queries_alone_leaves_keys_and_values_as_they_are(base):
    merge = wb.lora.apply(base["BFL"], [(peft(SPLIT[0]), 1.0)])
    before, after = base["BFL"][f"{QKV}.weight"], merge[f"{QKV}.weight"]
    assert torch.equal(after[6:], before[6:])
    torch.testing.assert_close(after[:6], before[:6] + torch.matmul(*factors(6, 0)))


def test_only_the_rows_of_a_part_are_multiplied(base, monkeypatch):
    asked = []
    multiplied = Factors.rows
    monkeypatch.setattr(Factors, "rows", lambda self, file, rows, base: (asked.append(rows), multiplied(self, file, rows, base))[1])
    like(kohya(QKV), base["diffusers"]).read(f"{SPLIT[1]}.weight")
    assert [(rows.start, rows.stop) for rows in asked] == [(6, 12)]


@pytest.mark.parametrize("kind", ["fused", "split"])
@pytest.mark.parametrize("form", ["kohya", "peft"])
def test_what_is_written_in_a_format_is_the_same_change_in_its_layout(base, kind, form, tmp_path):
    change = {"fused": kohya(QKV, LINEAR1, FINAL), "split": peft(*SPLIT, *SINGLE[1:])}[kind]
    final = (
        nullcontext() if kind == "split" or form == "peft" else pytest.warns(MergeWarning, match="left out.*final_layer_adaLN_modulation_1")
    )
    with final:
        path = lora.export(change, tmp_path / "lora.safetensors", format=form, dtype="float32")
    again = wb.open(path)
    assert again.structure.layout == {"kohya": "BFL", "peft": "diffusers"}[form]
    for first in base.values():
        found, expected = like(again, first), like(change, first)
        for key in expected:
            if form == "kohya" and ("final" in key or "norm_out" in key):
                continue  # which kohya's tools do not load
            there = found[key] if key in found else torch.zeros(expected.info(key).shape)
            torch.testing.assert_close(there, expected[key], atol=1e-6, rtol=1e-5)


def test_diffusers_reads_kohyas_file_as_it_is_written_for_diffusers(tmp_path):
    from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers

    change = kohya(QKV, "double_blocks.0.img_attn.proj", alpha=2.0)
    by_diffusers = _convert_kohya_flux_lora_to_diffusers(load_file(lora.export(change, tmp_path / "k.safetensors", dtype="float32")))
    ours = load_file(lora.export(change, tmp_path / "d.safetensors", format="peft", dtype="float32"))
    assert by_diffusers.keys() == ours.keys()
    for module in {key.rpartition(".lora_")[0] for key in ours}:
        products = [found[f"{module}.lora_B.weight"] @ found[f"{module}.lora_A.weight"] for found in (by_diffusers, ours)]
        torch.testing.assert_close(*products)


def test_ranks_add_where_changes_are_joined_and_come_apart_again(tmp_path):
    change = peft(*SPLIT)
    fused = wb.open(lora.export(change, tmp_path / "k.safetensors", dtype="float32"))
    assert [entry.rank for entry in fused.entries.values()] == [3 * RANK]
    split = wb.open(lora.export(fused, tmp_path / "d.safetensors", format="peft", dtype="float32"))
    assert [entry.rank for entry in split.entries.values()] == [RANK] * 3
    for key in change:
        torch.testing.assert_close(split[key], change[key], atol=1e-6, rtol=1e-5)


def test_a_lower_factor_that_cuts_share_is_joined_once(tmp_path):
    change = kohya(QKV, LINEAR1)
    split = wb.open(lora.export(change, tmp_path / "d.safetensors", format="peft", dtype="float32"))
    assert len(split) == 7
    fused = wb.open(lora.export(split, tmp_path / "k.safetensors", dtype="float32"))
    assert [entry.rank for entry in fused.entries.values()] == [RANK, RANK]


@pytest.mark.parametrize("first", [0, 1])
def test_loras_of_both_layouts_are_added_exactly(first):
    loras = [kohya(QKV), peft(*SPLIT, seed=5)]
    loras = [loras[first], loras[1 - first]]
    found = wb.lora.merge(loras, [0.5, 2.0])
    assert set(found) == set(loras[0])
    for key in found:
        torch.testing.assert_close(found[key], 0.5 * loras[0][key] + 2 * like(loras[1], loras[0])[key], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", ["BFL", "diffusers"])
def test_what_a_model_in_another_layout_has_learned_is_taken_out_under_the_bases_names(base, layout):
    other = "diffusers" if layout == "BFL" else "BFL"
    tuned = wb.lora.apply(base[other], [(kohya(QKV, LINEAR1), 1.0)])
    found = wb.lora.extract(tuned, base[layout], rank=RANK)
    assert set(found) <= set(base[layout])
    expected = like(kohya(QKV, LINEAR1), base[layout])
    for key in found:
        torch.testing.assert_close(found[key], expected[key], atol=1e-4, rtol=1e-4)


def test_a_lora_whose_names_tell_no_model_is_written_in_another_format_only_for_a_base(base, tmp_path):
    change = LowRank(InMemory(dict(peft(*SPLIT).holder), "attention"))
    assert change.architecture == "unknown"
    with pytest.raises(ExportError, match=r"do not tell which model it is for.*give base="):
        lora.export(change, tmp_path / "k.safetensors")
    written = lora.export(change, tmp_path / "k.safetensors", base=base["BFL"], dtype="float32")
    assert {key.split(".")[0] for key in load_file(written)} == {"lora_unet_double_blocks_0_img_attn_qkv"}
    assert lora.export(change, tmp_path / "d.safetensors", format="peft").is_file()  # it has these names already
    assert wb.open(written).architecture == "Flux"  # by its header
