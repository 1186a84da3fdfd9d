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


ALL = {  # a pattern of layers: linear ones, and convolutions
    False: r"mid_block\.attentions\.0\..*(to_[qkv]|net\.2)|mid_block\.resnets\.0\.conv1|conv_in",
    True: r"(transformer_blocks\.1|single_transformer_blocks\.2)\.attn\.to_[qkv]|transformer_blocks\.1\.ff\.net\.2",
}
LINEAR = {False: r"mid_block\.attentions\.0\..*(to_[qkv]|net\.2)", True: ALL[True]}
BIASED = {False: r"mid_block\.attentions\.0\..*net\.2", True: r"transformer_blocks\.1\.ff\.net\.2"}
RANDOM = {"init_weights": False}
LORA = {"r": 2, "lora_alpha": 6, "init_lora_weights": False}
PATTERNS = {"rank_pattern": {"to_k": 4}, "alpha_pattern": {"to_k": 1, r".*\.to_v": 9}}
OFT = {"oft_block_size": 4} | RANDOM
# PEFT's unmerged OFT and BOFT of wide convolutions are another layer than the one that it merges
PEFT = {
    "LoRA": ("LoraConfig", ALL, LORA),
    "LoRA, rank-stabilised": ("LoraConfig", ALL, LORA | {"use_rslora": True}),
    "LoRA of several ranks": ("LoraConfig", ALL, LORA | PATTERNS),
    "LoRA with a bias": ("LoraConfig", BIASED, LORA | {"lora_bias": True}),
    "DoRA": ("LoraConfig", ALL, LORA | {"use_dora": True}),
    "LoHa": ("LoHaConfig", ALL, {"r": 2, "alpha": 3} | RANDOM),
    "LoHa with cores": ("LoHaConfig", ALL, {"r": 2, "alpha": 3, "use_effective_conv2d": True} | RANDOM),
    "LoKr": ("LoKrConfig", ALL, {"r": 1, "alpha": 3, "rank_pattern": {"to_k": 4}} | RANDOM),
    "LoKr with a core": ("LoKrConfig", ALL, {"r": 1, "alpha": 3, "use_effective_conv2d": True} | RANDOM),
    "IA3": ("IA3Config", ALL, {"feedforward_modules": r".*net\.2", "init_ia3_weights": False}),
    "OFT": ("OFTConfig", LINEAR, OFT | {"use_cayley_neumann": False}),
    "OFT by a series": ("OFTConfig", LINEAR, OFT),
    "OFT, limited": ("OFTConfig", LINEAR, OFT | {"coft": True, "eps": 3.0}),
    "OFT of one block": ("OFTConfig", LINEAR, OFT | {"block_share": True}),
    "BOFT": ("BOFTConfig", LINEAR, {"boft_block_size": 4} | RANDOM),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", PEFT)
def test_a_folder_of_peft_does_what_peft_does(kind, family, tmp_path):
    config, layers, settings = PEFT[kind]
    right = peft_folder(family, config, tmp_path / "peft", target_modules=layers[family == "Flux"], **settings)
    merge = wb.lora.apply(base(family, "original"), [(tmp_path / "peft", 1.0)])
    assert_alike(answer_of(family, merge), right, answer(family, model(family)))
