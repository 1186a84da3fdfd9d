"""Every kind of LoRA changes a model as the library that made its file does: LyCORIS, PEFT, diffusers."""

from __future__ import annotations

import pytest
from library_loras import FAMILIES, answer, answer_of, assert_alike, base, lycoris_file, model, peft_folder

import workbench as wb

LYCORIS = {
    "LoCon": {"algo": "lora"},
    "LoCon with a middle": {"algo": "lora", "use_tucker": True},
    "LoHa": {"algo": "loha"},
    "LoHa with cores": {"algo": "loha", "use_tucker": True},
    "LoKr": {"algo": "lokr", "factor": 2},
    "LoKr of two products": {"algo": "lokr", "factor": 4, "linear_dim": 1, "conv_dim": 1, "decompose_both": True},
    "LoKr with a core": {"algo": "lokr", "use_tucker": True, "linear_dim": 1, "conv_dim": 1},
    "LoKr of whole factors": {"algo": "lokr", "full_matrix": True},
    "DoRA": {"algo": "lora", "dora_wd": True},
    "DoRA by columns": {"algo": "lora", "dora_wd": True, "wd_on_output": False},
    "DoRA of a LoHa": {"algo": "loha", "dora_wd": True},
    "DoRA of a LoKr": {"algo": "lokr", "dora_wd": True},
    "full": {"algo": "full"},
    "Diag-OFT": {"algo": "diag-oft"},
    "Diag-OFT, limited": {"algo": "diag-oft", "constraint": 0.01, "rescaled": True},
    "BOFT": {"algo": "boft", "linear_dim": 8, "conv_dim": 8},
    "BOFT, rescaled": {"algo": "boft", "linear_dim": 8, "conv_dim": 8, "rescaled": True, "constraint": 0.01},
    "IA3": {"algo": "ia3"},
    "GLoRA": {"algo": "glora"},
    "norms": {"algo": "lora", "train_norm": True},
}


@pytest.mark.parametrize(("kind", "family"), [(kind, one) for kind in LYCORIS for one in FAMILIES if (kind, one) != ("norms", "Flux")])
def test_a_file_of_lycoris_does_what_its_modules_do(kind, family, tmp_path):
    right = lycoris_file(family, path=tmp_path / "lora.safetensors", **LYCORIS[kind])
    layout = "diffusers" if family == "SD 1.x" else "original"
    got = answer_of(family, wb.lora.apply(base(family, layout), [(tmp_path / "lora.safetensors", 1.0)]))
    assert_alike(got, right, answer(family, model(family)))
