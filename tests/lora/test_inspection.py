"""`inspect`: numbers by hand, what headers of kohya's tools and ModelSpec tell, and headers that mean harm."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import save_file

import workbench as wb
from workbench.checkpoint.views.in_memory import InMemory
from workbench.checkpoint.views.low_rank import LowRank
from workbench.errors import CheckpointError, InputError
from workbench.places import DATA

SHAPES = DATA / "shapes-sd"
LORA = SHAPES / "lora" / "stripes.safetensors"
FIRST, SECOND = (f"lora_unet_down_blocks_{i}_attentions_0_transformer_blocks_0_attn1_to_q" for i in (0, 1))
TEXT = "lora_te_text_model_encoder_layers_0_mlp_fc1"
HEADER = {
    "ss_base_model_version": "sd_v1",
    "ss_network_module": "networks.lora",
    "ss_network_dim": "4",
    "ss_network_args": '{"conv_dim": "2"}',
    "ss_learning_rate": "0.0001",
    "ss_unet_lr": "None",
    "ss_bucket_info": json.dumps({str(i): "a bucket" for i in range(50)}),
    "ss_tag_frequency": json.dumps({"10_zkz dog": {"dog": 12, " outdoors": 3}, "2_zkz cat": {"cat": 5, "outdoors": 4}}),
    "ss_datasets": json.dumps([{"tag_frequency": {"x": {"park": 1}}}]),
    "modelspec.trigger_phrase": "a photo of zkz",
}


def tensors() -> dict[str, torch.Tensor]:
    return {
        f"{FIRST}.lora_up.weight": torch.tensor([[3.0], [4.0]]),
        f"{FIRST}.lora_down.weight": torch.tensor([[1.0, 0.0]]),
        f"{FIRST}.alpha": torch.tensor(2.0),
        f"{SECOND}.lora_up.weight": torch.eye(2),
        f"{SECOND}.lora_down.weight": torch.eye(2),
        f"{SECOND}.alpha": torch.tensor(1.0),
        f"{TEXT}.diff_b": torch.tensor([0.0, 2.0]),
    }


@pytest.fixture
def path(tmp_path):
    save_file(tensors(), tmp_path / "dog.safetensors", HEADER)
    return tmp_path / "dog.safetensors"


def test_kinds_ranks_alphas_and_norms_by_hand(path):
    """2 * |(3, 4)| = 10; half of |1, 1|; 2."""
    found = wb.lora.inspect(path)
    frame = found.frame().set_index("block").loc[["IN01", "IN04", "text_encoder"]]
    assert frame["kind"].to_dict() == {"IN01": "LoRA", "IN04": "LoRA", "text_encoder": "full"}
    assert frame["rank"].tolist()[:2] == [1, 2]
    assert frame["alpha"].tolist()[:2] == [2, 1]
    assert math.isnan(frame["rank"]["text_encoder"])
    assert frame["norm"].tolist() == pytest.approx([10, math.sqrt(0.5), 2])
    blocks = found.blocks().set_index("block")
    assert list(blocks.index) == ["IN01", "IN04", "text_encoder", "all"]
    assert blocks["rank"].tolist() == ["1", "2", "", "1 to 2"]
    assert blocks["alpha"].tolist() == ["2", "1", "", "1 to 2"]
    assert blocks["norm"]["all"] == pytest.approx(found.norm) == pytest.approx(math.sqrt(104.5))
    assert found.architecture == "SD 1.x"
    assert found.kinds == ("LoRA", "full")


def test_norms_are_those_of_the_changes_themselves():
    opened = wb.open(LORA)
    found = wb.lora.inspect(opened).frame().set_index("layer")["norm"]
    for key in opened:
        assert found[key] == pytest.approx(float(opened[key].double().norm()), rel=1e-5)


def test_the_header_tells_words_and_settings(path):
    training = wb.lora.inspect(path).training
    assert training.words == {"dog": 12, "outdoors": 7, "cat": 5, "park": 1}
    assert next(iter(training.words)) == "dog"
    assert training.triggers == ("a photo of zkz", "zkz dog", "zkz cat")
    assert training.settings["ss_network_args"] == '{"conv_dim": "2"}'
    assert training.settings["ss_learning_rate"] == "0.0001"
    assert not {"ss_unet_lr", "ss_bucket_info", "ss_tag_frequency", "format"} & set(training.settings)
    told = str(wb.lora.inspect(path))
    assert "trained words: dog (12), outdoors (7), cat (5), park (1)" in told
    assert "called by: a photo of zkz, zkz dog, zkz cat" in told


def test_it_shows_itself(path):
    found = wb.lora.inspect(path)
    page = found._repr_html_()
    for text in ("dog: LoRA and full of rank 1 to 2", "zkz cat", "trained words", "ss_learning_rate", "IN04"):
        assert text in page
    assert set(found._repr_mimebundle_()) == {"text/html", "text/plain"}
    assert {trace.name for trace in found.plot().data} == {"dog"}
    assert repr(found).startswith("<InspectedLora: dog: LoRA and full of rank 1 to 2 and alpha 1 to 2 for SD 1.x")


@pytest.mark.parametrize(
    "value", ["{", "[1, 2]", "null", '{"a": 3}', '{"a": {"b": "many"}}', "[" * 3000, '"' + "x" * 300 + '"'], ids=lambda value: value[:9]
)
def test_headers_that_make_no_sense_are_notes_or_nothing(tmp_path, value):
    header = {"ss_tag_frequency": value, "ss_datasets": value, "ss_dataset_dirs": value}
    save_file(tensors(), tmp_path / "x.safetensors", header)
    found = wb.lora.inspect(tmp_path / "x.safetensors")
    assert found.training.words == {}
    assert len(found.notes) == (3 if value in ("{", "[" * 3000) else 0)
    assert all("in its header cannot be read" in note for note in found.notes)
    found._repr_html_()


def test_what_others_wrote_stays_text(tmp_path):
    evil = "<script>alert(1)</script>\x1b[2J"
    header = {"ss_tag_frequency": json.dumps({"1_" + evil: {evil: 2}}), "ss_output_name": evil}
    save_file(tensors(), tmp_path / "x.safetensors", header)
    found = wb.lora.inspect(tmp_path / "x.safetensors")
    assert "<script>" not in found._repr_html_()
    assert "\x1b" not in found._repr_html_() + str(found)


def test_nan_is_told_and_stays_out_of_the_sums(tmp_path):
    bad = tensors() | {f"{FIRST}.lora_up.weight": torch.tensor([[math.nan], [4.0]])}
    save_file(bad, tmp_path / "x.safetensors")
    found = wb.lora.inspect(tmp_path / "x.safetensors")
    assert math.isnan(found.frame().set_index("block")["norm"]["IN01"])
    assert found.norm == pytest.approx(math.sqrt(4.5))
    assert any("1 changes hold NaN or infinity" in note for note in found.notes)


def test_what_is_no_lora_is_refused(tmp_path):
    with pytest.raises(InputError, match="inspect: base is a model and no LoRA; `workbench inspect`"):
        wb.lora.inspect(SHAPES / "base.safetensors")
    with pytest.raises(CheckpointError, match="there is no such file"):
        wb.lora.inspect(tmp_path / "none.safetensors")


def test_other_kinds_are_told_and_what_depends_on_a_model_has_no_norm_alone():
    generator = torch.Generator().manual_seed(0)
    sizes = {"hada_w1_a": (6, 2), "hada_w1_b": (2, 5), "hada_w2_a": (6, 2), "hada_w2_b": (2, 5)}
    loha = {f"{FIRST}.{name}": torch.randn(size, generator=generator) for name, size in sizes.items()}
    dora = {
        f"{SECOND}.{name}": torch.ones(size)
        for name, size in {"lora_up.weight": (6, 1), "lora_down.weight": (1, 5), "dora_scale": (6, 1)}.items()
    }
    opened = LowRank(InMemory(loha | {f"{FIRST}.alpha": torch.tensor(1.0)} | dora, "kinds"))
    found = wb.lora.inspect(opened)
    frame = found.frame().set_index("block")
    assert frame.loc[["IN01", "IN04"], "kind"].tolist() == ["LoHa", "DoRA"]
    assert frame.loc["IN01", ["rank", "alpha"]].tolist() == [2, 1]
    key = frame.loc["IN01", "layer"]
    assert frame.loc["IN01", "norm"] == pytest.approx(float(opened[key].norm()), rel=1e-5)
    assert math.isnan(frame.loc["IN04", "norm"])
    assert any("1 changes depend on the model that they are put on" in note for note in found.notes)


def test_an_ia3_which_is_not_opened_by_itself_is_inspected_by_its_path(tmp_path):
    save_file({f"{FIRST}.weight": torch.ones(6), f"{FIRST}.on_input": torch.tensor(False)}, tmp_path / "x.safetensors")
    found = wb.lora.inspect(tmp_path / "x.safetensors")
    assert found.kinds == ("IA3",)
    assert math.isnan(found.norm)  # not 0: it depends on the model
    assert "by" not in found.headline
    assert math.isnan(found.frame()["norm"][0])
    assert "1 changes depend on the model" in str(found)
