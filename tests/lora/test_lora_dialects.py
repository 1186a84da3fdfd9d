"""What LoRA files are called by every program means the same tensors of the model that they are put on."""

from __future__ import annotations

import pytest
import torch
from families.key_lists import VARIANTS, diffusers_names, original_names
from held import Held
from library_loras import answer, answer_of, assert_alike, base, model, randomised
from safetensors.torch import save_file

import workbench as wb
from workbench.checkpoint.names.lora_modules import module_of
from workbench.checkpoint.names.lora_names import LoraTensor, is_lora
from workbench.checkpoint.views.in_memory import InMemory
from workbench.checkpoint.views.low_rank import LowRank
from workbench.errors import CheckpointError, MergeError, MergeWarning

UP, DOWN = torch.randn(6, 2), torch.randn(2, 6)
_STREAMS = [
    (f"double_blocks.0.{stream}_attn.{layer}.weight", rows) for stream in ("img", "txt") for layer, rows in (("qkv", 18), ("proj", 6))
]
_SHAPES = {
    **{name: (rows, 6) for name, rows in _STREAMS},
    "single_blocks.0.linear1.weight": (42, 6), "single_blocks.0.linear2.weight": (6, 30), "img_in.bias": (6,), "img_in.weight": (6, 4),
    "time_in.in_layer.weight": (6, 4), "double_blocks.0.img_mod.lin.weight": (36, 6),
    "double_blocks.0.img_attn.norm.query_norm.scale": (3,),
}  # fmt: skip
FLUX = {name: torch.ones(shape) for name, shape in _SHAPES.items()}
# PixArt's original names are not known
LAYOUTS = [
    (variant, layout) for variant in VARIANTS for layout in ("diffusers", "original") if layout == "diffusers" or "PixArt" not in variant
]
PAIR = {"lora_up": UP, "lora_down": DOWN}


def pair(module: str) -> dict[str, torch.Tensor]:
    return {f"{module}.{end}.weight": tensor for end, tensor in PAIR.items()}


def names_of(variant: str, layout: str) -> dict[str, tuple[int, ...]]:
    return diffusers_names(variant) if layout == "diffusers" else original_names(variant)


def opened(tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> LowRank:
    return LowRank(InMemory(tensors, "lora", metadata))


def change(tensors: dict[str, torch.Tensor], on: dict[str, torch.Tensor], key: str) -> torch.Tensor:
    model = Held(on, "base")
    return wb.lora.apply(model, [(opened(tensors), 1.0)]).read(key) - model.read(key)


@pytest.mark.parametrize(("variant", "layout"), LAYOUTS)
def test_every_module_of_every_family_is_found_by_kohyas_name_for_it(variant, layout):
    names = names_of(variant, layout)
    model = Held({name: torch.zeros(1).expand(shape) for name, shape in names.items()}, variant)
    for name in names:
        if name.endswith(".weight"):
            flat = "lora_unet_" + model.structure.bare(name)[1].removesuffix(".weight").replace(".", "_")
            assert model.module_names.find(LoraTensor(flat, "weight", {})) == name


@pytest.mark.parametrize(
    ("module", "meant"),
    [
        ("base_model.model.unet.conv_in", "unet.conv_in"),
        ("unet.base_model.model.conv_in", "unet.conv_in"),
        ("unet.mid_block.attn1.processor.to_out_lora", "unet.mid_block.attn1.to_out.0"),
        ("clip_l.transformer.text_model.encoder.layers.0.mlp.fc1", "text_encoder.text_model.encoder.layers.0.mlp.fc1"),
        (
            "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q",
            "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q",
        ),
        ("lora_te2_text_model_final_layer_norm", "text_encoder_2.text_model.final_layer_norm"),
        ("lora_transformer_single_transformer_blocks_0_attn_to_q", "diffusion_model.single_transformer_blocks.0.attn.to_q"),
        ("lora_unet.down_blocks.0.resnets.0.conv1", "diffusion_model.down_blocks.0.resnets.0.conv1"),
        ("lycoris_conv_in", "diffusion_model.conv_in"),
    ],
)
def test_the_prefixes_of_all_programs_are_known(module, meant):
    assert module_of(module).usual == meant


def test_xlabs_names_its_attention_processors():
    q, one = torch.randn(18, 2), torch.randn(2, 6)
    qkv = {f"double_blocks.0.processor.qkv_lora{n}.{end}.weight": t for n in (1, 2) for end, t in (("up", q * n), ("down", one))}
    single = {f"single_blocks.0.processor.qkv_lora.{end}.weight": t for end, t in (("up", q), ("down", one))}
    proj = {f"single_blocks.0.processor.proj_lora.{end}.weight": t for end, t in (("up", UP), ("down", torch.ones(2, 30)))}
    tensors = qkv | single | proj
    torch.testing.assert_close(change(tensors, FLUX, "double_blocks.0.img_attn.qkv.weight"), q @ one)
    torch.testing.assert_close(change(tensors, FLUX, "double_blocks.0.txt_attn.qkv.weight"), 2 * q @ one)
    found = change(tensors, FLUX, "single_blocks.0.linear1.weight")
    torch.testing.assert_close(found[:18], q @ one)
    assert not found[18:].any()
    torch.testing.assert_close(change(tensors, FLUX, "single_blocks.0.linear2.weight"), UP @ torch.ones(2, 30))


def test_a_control_lora_of_bfl_adds_biases_and_sets_norms():
    module, norm = "img_in", "double_blocks.0.img_attn.norm.query_norm.scale"
    tensors = {
        f"{module}.lora_B.weight": UP,
        f"{module}.lora_A.weight": DOWN[:, :4],
        f"{module}.lora_B.bias": torch.arange(6.0),
        norm: torch.full((3,), 4.0),
    }
    assert change(tensors, FLUX, "img_in.bias").tolist() == [0, 1, 2, 3, 4, 5]
    assert change(tensors, FLUX, norm).tolist() == [3, 3, 3]


def test_a_matrix_may_be_stored_as_a_1x1_convolution_and_the_other_way_round():
    wide = {name: tensor[..., None, None] for name, tensor in pair("conv_in").items()}
    assert change(wide, {"conv_in.weight": torch.zeros(6, 6)}, "conv_in.weight").tolist() == (UP @ DOWN).tolist()
    assert (
        change(pair("conv_in"), {"conv_in.weight": torch.zeros(6, 6, 1, 1)}, "conv_in.weight").flatten(1).tolist() == (UP @ DOWN).tolist()
    )


def test_norms_of_lycoris_are_differences():
    tensors = {"lora_unet_conv_norm_out.w_norm": torch.ones(3), "lora_unet_conv_norm_out.b_norm": torch.full((3,), 2.0)}
    on = {"conv_norm_out.weight": torch.zeros(3), "conv_norm_out.bias": torch.zeros(3)}
    assert change(tensors, on, "conv_norm_out.weight").tolist() == [1, 1, 1]
    assert change(tensors, on, "conv_norm_out.bias").tolist() == [2, 2, 2]


def test_an_embedding_beside_it_is_left_out_and_told_and_alone_is_no_lora():
    (note,) = opened(pair("conv_in") | {"bundle_emb.word.clip_l": torch.ones(1, 4)}).notes
    assert note == "1 tensors of embeddings trained with it ('bundle_emb.word.clip_l') are no change of a model, and left out"
    with pytest.raises(CheckpointError, match="holds embeddings"):
        opened({"bundle_emb.word.clip_l": torch.ones(1, 4)})


@pytest.mark.parametrize("names", [["lora_unet_x.strange"], ["base_model.model.x.what"], ["x.lora_Q.weight"], ["x.vera_lambda_b"]])
def test_what_is_no_known_kind_is_refused_by_name_and_never_a_model(names, tmp_path):
    save_file(dict.fromkeys(names, torch.ones(2)), tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=names[0]):
        wb.open(tmp_path / "x.safetensors")


@pytest.mark.parametrize(("variant", "layout"), LAYOUTS)
def test_no_model_is_taken_for_a_lora(variant, layout):
    assert not is_lora(names_of(variant, layout))


def test_what_a_model_lacks_is_told_and_of_a_strange_lora_the_names_are():
    base = Held({"conv_in.weight": torch.zeros(6, 6)}, "base")
    with pytest.warns(MergeWarning, match="conv_out"):
        wb.lora.apply(base, [(opened(pair("lora_unet_conv_in") | pair("lora_unet_conv_out")), 1.0)])
    with pytest.raises(MergeError, match=r"lora .* have no tensor name in common \(its own are .*conv_out"):
        wb.lora.apply(base, [(opened(pair("unet.conv_out")), 1.0)])


@pytest.mark.parametrize("family", ["SD 1.x", "SDXL"])
def test_a_file_of_diffusers_with_settings_does_what_diffusers_does(family, tmp_path):
    from diffusers import StableDiffusionPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    network = model(family)
    targets = r"mid_block\.attentions\.0\..*to_[qkv]"
    settings = LoraConfig(r=2, lora_alpha=8, use_rslora=True, alpha_pattern={"to_k": 1}, rank_pattern={"to_v": 3}, target_modules=targets)
    network.add_adapter(settings)
    randomised(network, lambda name: "lora_" in name)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(network))
    StableDiffusionPipeline.save_lora_weights(tmp_path, layers, unet_lora_adapter_metadata=network.peft_config["default"].to_dict())
    merge = wb.lora.apply(base(family, "original"), [(wb.open(tmp_path), 1.0)])
    assert_alike(answer_of(family, merge), answer(family, network), answer(family, model(family)))


@pytest.mark.parametrize(("variant", "layout"), LAYOUTS)
def test_without_a_model_kohyas_names_are_told_by_the_words_of_all_families(variant, layout):
    names = names_of(variant, layout)
    structure = Held({name: torch.zeros(1).expand(shape) for name, shape in names.items()}, variant).structure
    modules = {structure.bare(name)[1].removesuffix(".weight") for name in names if name.endswith(".weight")}
    # what two families write alike and mean otherwise, only a model tells
    unsure = {module for module in modules if module.endswith(("_attn_qkv", "_attn_proj", "final_layer.norm"))}
    assert {
        module for module in modules if module_of("lora_unet_" + module.replace(".", "_")).usual != f"diffusion_model.{module}"
    } <= unsure


def test_the_projection_of_openclip_which_is_no_module_there_is_changed_as_the_module_that_it_is_elsewhere():
    head = "conditioner.embedders.1.model."
    base = {f"{head}text_projection": torch.zeros(6, 6), f"{head}ln_final.weight": torch.ones(6)}
    found = change(pair("lora_te2_text_projection"), base, f"{head}text_projection")
    torch.testing.assert_close(found, (UP @ DOWN).T)


@pytest.mark.parametrize("kind", ["DoRA", "LoHa"])
def test_other_kinds_too_are_joined_where_the_model_has_one_tensor_for_three(kind):
    key = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"
    base, module = torch.randn(18, 6), "lora_te2_text_model_encoder_layers_0_self_attn_k_proj"
    lengths = torch.rand(6, 1) + 0.5
    tensors = pair(module) | {f"{module}.dora_scale": lengths}
    moved = base[6:12] + UP @ DOWN
    expected = lengths * moved / moved.norm(dim=1, keepdim=True) - base[6:12]
    if kind == "LoHa":
        names = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
        tensors = {f"{module}.{name}": tensor for name, tensor in zip(names, (UP, DOWN, UP, DOWN), strict=True)}
        expected = (UP @ DOWN) ** 2
    found = change(tensors, {key: base, "conditioner.embedders.1.model.ln_final.weight": torch.ones(6)}, key)
    torch.testing.assert_close(found[6:12], expected, atol=1e-6, rtol=1e-5)
    assert not found[:6].any()
    assert not found[12:].any()
