"""PEFT's settings scale each pair as PEFT does, from the header or the config beside the file; what contradicts the file is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from held import Held
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

import workbench as wb
from workbench.checkpoint.names.peft_settings import PeftSettings
from workbench.errors import CheckpointError, InputError, MergeError

Q, K = "down_blocks.0.attn.to_q", "down_blocks.0.attn.to_k"
ONES = {f"{name}.lora_{end}.weight": torch.ones(shape) for name in (Q, K) for end, shape in (("B", (2, 4)), ("A", (4, 2)))}
PLAIN = {f"base_model.model.{name}": tensor for name, tensor in ONES.items()}


def folder(path: Path, config: object, tensors: dict[str, torch.Tensor] = PLAIN, name: str = "adapter_model.safetensors") -> Path:
    path.mkdir(exist_ok=True)
    save_file(tensors, path / name)
    (path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


def scale(lora: wb.Checkpoint, module: str) -> float:
    return float(lora.read(f"{module}.weight")[0, 0]) / 4


@pytest.mark.parametrize(
    ("settings", "scales"),
    [
        ({"r": 4, "lora_alpha": 8}, (2, 2)),
        ({"r": 4, "lora_alpha": 8, "use_rslora": True}, (4, 4)),
        ({"r": 4, "lora_alpha": 8, "alpha_pattern": {"to_k": 4}}, (2, 1)),
        ({"r": 4, "lora_alpha": 8, "alpha_pattern": {r".*\.attn\.to_q": 2, "to_q": 100}}, (0.5, 2)),
        ({"r": 4, "lora_alpha": 8, "alpha_pattern": {"k": 4, "o_q": 4}}, (2, 2)),
        ({"r": 8, "lora_alpha": 8, "rank_pattern": {"to_q|to_k": 4}}, (2, 2)),
        ({"lora_alpha": 2}, (0.5, 0.5)),
        ({"r": 4}, (1, 1)),
    ],
)
def test_a_pairs_scale_is_its_alpha_over_its_rank_wherever_the_settings_stand(settings, scales, tmp_path):
    beside = folder(tmp_path / "peft", settings)
    for path in (beside, beside / "adapter_model.safetensors"):
        lora = wb.open(path)
        assert (scale(lora, Q), scale(lora, K)) == scales
    save_file(
        {f"unet.{name}": tensor for name, tensor in ONES.items()},
        tmp_path / "flat.safetensors",
        _header({f"unet.{k}": v for k, v in settings.items()}),
    )
    save_file(
        {f"unet.{name}": tensor for name, tensor in ONES.items()}, tmp_path / "nested.safetensors", _header({"unet": {"r": 4} | settings})
    )
    save_file(PLAIN, tmp_path / "plain.safetensors", _header(settings))
    for name, prefix in (("flat", "unet."), ("nested", "unet."), ("plain", "")):
        lora = wb.open(tmp_path / f"{name}.safetensors")
        assert (scale(lora, prefix + Q), scale(lora, prefix + K)) == scales


def _header(settings: object) -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps(settings)}


def test_each_component_has_settings_of_its_own(tmp_path):
    te = "text_encoder.encoder.layers.0.self_attn.q_proj"
    tensors = {f"unet.{name}": tensor for name, tensor in ONES.items()}
    tensors |= {f"{te}.lora_{end}.weight": torch.ones(shape) for end, shape in (("B", (2, 4)), ("A", (4, 2)))}
    save_file(
        tensors, tmp_path / "x.safetensors", _header({"unet.lora_alpha": 8, "unet.r": 4, "text_encoder.lora_alpha": 1, "text_encoder.r": 4})
    )
    lora = wb.open(tmp_path / "x.safetensors")
    assert (scale(lora, f"unet.{Q}"), scale(lora, te)) == (2, 0.25)


def test_a_config_is_not_for_other_loras_in_its_folder(tmp_path):
    path = folder(tmp_path / "peft", {"r": 4, "lora_alpha": 8})
    save_file(PLAIN, path / "other.safetensors")
    save_file(
        {f"{Q}.lora_up.weight": torch.ones(2, 4), f"{Q}.lora_down.weight": torch.ones(4, 2), f"{Q}.alpha": torch.tensor(4.0)},
        path / "k.safetensors",
    )
    assert scale(wb.open(path), Q) == 2
    assert scale(wb.open(path / "other.safetensors"), Q) == scale(wb.open(path / "k.safetensors"), Q) == 1
    assert scale(wb.open(folder(tmp_path / "named", {"r": 4, "lora_alpha": 8}, name="mine.safetensors") / "mine.safetensors"), Q) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"r": 8},
            r"adapter_config.json \(beside adapter_model.safetensors\) says rank 8 for 'down_blocks.0.attn.to_k', and the file has 4",
        ),
        ({"r": 4, "rank_pattern": {"to_k": 2}}, "says rank 2 for 'down_blocks.0.attn.to_k', and the file has 4"),
        ({"r": 4, "target_modules": ["to_v"]}, r"is for 'to_v', and the file has 'down_blocks.0.attn.to_k'"),
        ({"r": 4, "target_modules": "x.*"}, "is for 'x.*', and the file has"),
        ({"peft_type": "LOHA", "r": 4}, "is of a LOHA, and the file has no part of one"),
        ({"peft_type": "VERA"}, "is of a VERA, which is not read"),
        ({"r": 4, "use_dora": True}, "says use_dora, and the file has no lora_magnitude_vector"),
        ({"r": 4, "init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4', which changes the model as well"),
        ({"r": 4, "fan_in_fan_out": True}, "says fan_in_fan_out, which is not read"),
        ({"r": 4, "lora_alpha": "many"}, "'lora_alpha' is many; an alpha is a finite number"),
        ({"r": 4, "lora_alpha": 1, "alpha_pattern": {"(": 1}}, "is no pattern"),
        ({"r": 4, "lora_alpha": 1, "alpha_pattern": {"(a+)+b": 1}}, "repeats too much to be tried"),
        ({"r": 4, "lora_alpha": 1, "alpha_pattern": [1]}, "alpha_pattern is a list, not an object"),
        ([1], "is a JSON list, not an object"),
    ],
)
def test_a_config_that_contradicts_its_file_is_refused_and_both_are_named(settings, said, tmp_path):
    with pytest.raises(CheckpointError, match=said):
        wb.open(folder(tmp_path / "peft", settings))


def test_targets_that_the_file_has_nothing_of_are_told(tmp_path):
    note, _ = wb.open(folder(tmp_path / "peft", {"r": 4, "target_modules": ["to_q", "to_k", "to_v"]})).notes
    assert "names 'to_v', of which the file has nothing" in note


def test_what_peft_saved_whole_replaces_what_the_model_has(tmp_path):
    whole = {"base_model.model.conv_in.weight": torch.full((2, 2), 5.0)}
    base = Held({"conv_in.weight": torch.ones(2, 2), f"{Q}.weight": torch.zeros(2, 2), f"{K}.weight": torch.zeros(2, 2)}, "base")
    merge = wb.lora.apply(base, [(folder(tmp_path / "peft", {"r": 4, "modules_to_save": ["conv_in"]}, PLAIN | whole), 1.0)])
    assert merge.read("conv_in.weight").tolist() == [[5, 5], [5, 5]]


@given(st.sampled_from(["to_q", r"attn\.to_q", r".*to_q", "o_q", "to_k", r"down_blocks\.\d+\..*", "q"]), st.sampled_from([Q, K]))
def test_a_pattern_fits_what_it_fits_in_peft(pattern, module):
    other = pytest.importorskip("peft.utils.other")
    found = PeftSettings("x", {"r": 4, "lora_alpha": 4, "alpha_pattern": {pattern: 8}}).scale(module, 4, [])
    assert (found == 2) == (other.get_pattern_key([pattern], module) == pattern)


def _dora() -> dict[str, torch.Tensor]:
    return PLAIN | {f"base_model.model.{name}.lora_magnitude_vector": torch.ones(2) for name in (Q, K)}


@pytest.mark.parametrize("kind", ["DoRA", "OFT"])
def test_what_depends_on_a_model_is_refused_where_there_is_none(kind, tmp_path):
    tensors = _dora() if kind == "DoRA" else {f"lora_unet_{Q.replace('.', '_')}.oft_blocks": torch.ones(1, 2, 2)}
    save_file(tensors, tmp_path / "x.safetensors")
    lora = wb.open(tmp_path / "x.safetensors")
    assert lora.kind(next(iter(lora))) == kind
    assert set(lora.relative) == set(lora)
    with pytest.raises(InputError, match=rf"is changed by a {kind}, which depends on the model that it is put on; add it to one"):
        lora.read(next(iter(lora)))
    with pytest.raises(InputError, match=rf"is changed by a {kind}"):
        wb.lora.resize(lora, rank=1, progress=False)


def test_a_dora_on_a_merge_knows_the_merge_and_a_recipe_makes_it_again(tmp_path):
    save_file(_dora(), tmp_path / "dora.safetensors")
    numbers = {name: torch.randn(2, 2, generator=torch.Generator().manual_seed(i)) for i, name in enumerate((f"{Q}.weight", f"{K}.weight"))}
    for name, factor in (("a", 1.0), ("b", 3.0)):
        save_file({key: tensor * factor for key, tensor in numbers.items()}, tmp_path / f"{name}.safetensors")
    mean = wb.operators.weighted_average([wb.open(tmp_path / "a.safetensors"), wb.open(tmp_path / "b.safetensors")])
    merge = wb.lora.apply(mean, [(wb.open(tmp_path / "dora.safetensors"), 0.5)])
    for key, tensor in numbers.items():
        moved = 2 * tensor + 4
        expected = 2 * tensor + 0.5 * (moved / moved.norm(dim=1, keepdim=True) - 2 * tensor)
        torch.testing.assert_close(merge.read(key), expected)
        assert torch.equal(
            wb.Recipe.from_file(wb.export(merge, tmp_path / f"{key[-8]}.safetensors", progress=False).path).build().read(key),
            merge.read(key),
        )


def test_an_ia3_is_refused_by_name_and_taken_by_its_path(tmp_path):
    save_file({f"base_model.model.{Q}.ia3_l": torch.tensor([[2.0], [3.0]])}, tmp_path / "ia3.safetensors")
    with pytest.raises(CheckpointError, match=r"is an IA3, .* no change by itself; put it on a model by its path: wb\.lora\.apply\(base"):
        wb.open(tmp_path / "ia3.safetensors")
    save_file({f"{Q}.weight": torch.ones(2, 2)}, tmp_path / "base.safetensors")
    merge = wb.lora.apply(wb.open(tmp_path / "base.safetensors"), [(tmp_path / "ia3.safetensors", 1.0)])
    assert merge.read(f"{Q}.weight").tolist() == [[2, 2], [3, 3]]
    merge.recipe.save(tmp_path / "recipe.yaml")
    assert wb.Recipe.load(tmp_path / "recipe.yaml").build().read(f"{Q}.weight").tolist() == [[2, 2], [3, 3]]


def test_a_lokr_whose_factors_are_of_another_layer_is_refused():
    from workbench.checkpoint.views.in_memory import InMemory
    from workbench.checkpoint.views.low_rank import LowRank

    lora = LowRank(InMemory({f"{Q}.lokr_w1": torch.ones(2, 2), f"{Q}.lokr_w2": torch.ones(2, 2)}, "lora"))
    with pytest.raises(MergeError, match=rf"'{Q}.weight' has different shapes: \[2, 2\] in base, \[4, 4\] in lora"):
        wb.lora.apply(Held({f"{Q}.weight": torch.ones(2, 2)}, "base"), [(lora, 1.0)])


def test_a_rank_beyond_its_layer_is_told(tmp_path):
    (note,) = wb.open(folder(tmp_path / "peft", {"r": 4, "lora_alpha": 4})).notes
    assert "2 pairs have a rank beyond the sides of their layers" in note
