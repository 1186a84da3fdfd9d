"""LoRAs in every format, for every family: the same change when they are read back, and when diffusers loads them."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from families.key_lists import VARIANTS
from held import Held
from safetensors import safe_open
from safetensors.torch import load_file
from trained_names import denoiser, parts, tuned, whole

import workbench as wb
from workbench.checkpoint.views.in_memory import InMemory
from workbench.checkpoint.views.low_rank import LowRank
from workbench.errors import ExportError, MergeWarning
from workbench.families import registry
from workbench.lora.formats import lora_of
from workbench.lora.targets import factored

FORMATS = ("kohya", "peft", "comfy", "original")
# which formats diffusers' loader reads as they are meant, as docs/formats.md says; Flux' and Lumina's other ones need true widths
LOADED = {
    "SD 1.x": "kohya peft", "SD 2.x": "kohya peft", "SDXL": "kohya peft", "SDXL refiner": "peft", "SD 3": "peft", "Flux dev": "peft",
    "Flux.2": "kohya peft comfy", "Chroma": "peft", "Qwen-Image": "kohya peft comfy", "Z-Image": "kohya peft", "Krea 2": "peft comfy",
    "Wan": "kohya peft comfy", "Lumina 2": "peft", "AuraFlow": "peft", "LTX-Video": "peft comfy", "HunyuanVideo": "peft",
}  # fmt: skip


def made(variant: str) -> tuple[Held, LowRank]:
    """A model, and a LoRA of two ranks and two alphas for all that LoRAs are trained for."""
    head = registry()[VARIANTS[variant][0]].denoiser
    base = Held({key: tensor for key, tensor in whole(variant).tensors.items() if key.startswith(f"{head}.")}, variant)
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for at, key in enumerate(sorted(factored(base, "test"))):
        rows, *others = base.info(key).shape
        rank, module = 2 + (at % 3 == 0), key.removesuffix(".weight")
        tensors[f"{module}.lora_up.weight"] = torch.randn(rows, rank, *[1] * (len(others) - 1), generator=generator)
        tensors[f"{module}.lora_down.weight"] = torch.randn(rank, *others, generator=generator)
        tensors[f"{module}.alpha"] = torch.tensor(0.5 if at % 4 == 0 else 2.0)
    return base, LowRank(InMemory(tensors, "made"), model=base)


def assert_same(found: dict[str, torch.Tensor] | wb.Checkpoint, base: Held, lora: LowRank) -> None:
    for key in lora:
        torch.testing.assert_close(found[key] - base[key], lora[key], atol=1e-5, rtol=1e-5, msg=lambda told, key=key: f"{key}: {told}")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("variant", LOADED)
def test_what_is_written_in_a_format_makes_the_same_change_when_it_is_read(variant, form, tmp_path):
    base, lora = made(variant)
    path = wb.lora.export(lora, tmp_path / "x.safetensors", format=form, dtype="float32")
    again = wb.open(path)
    assert again.architecture in (base.architecture, "unknown")
    assert_same(wb.lora.apply(base, [(again, 1.0)]), base, lora)


@pytest.mark.parametrize(("variant", "form"), [(variant, form) for variant, forms in LOADED.items() for form in forms.split()])
def test_diffusers_loads_what_is_written_to_the_same_change(variant, form, tmp_path):
    import diffusers

    base, lora = made(variant)
    path = wb.lora.export(lora, tmp_path / "x.safetensors", format=form, dtype="float32")
    family, model = base.structure.family, copy.deepcopy(denoiser(variant))
    found, more = getattr(diffusers, family.pipeline).lora_state_dict(str(path), **_asked(variant, model)), {}
    if isinstance(found, tuple):
        found, *rest = found
        more = {name: one for name, one in zip(("network_alphas", "metadata"), rest, strict=False) if one}
    model.load_lora_adapter(found, prefix=family.denoiser, **more)
    model.fuse_lora()
    model.unload_lora()
    assert_same({f"{family.denoiser}.{key}": tensor for key, tensor in model.state_dict().items()}, base, lora)


def _asked(variant: str, model: torch.nn.Module) -> dict[str, object]:
    unet = {"unet_config": model.config} if variant.startswith("SDXL") else {}
    return unet | ({"return_lora_metadata": True} if variant.startswith(("SD 1", "SD 2", "SDXL")) else {})


@pytest.mark.parametrize("form", ["kohya", "peft"])
@pytest.mark.parametrize("variant", ["SD 1.x", "SD 2.x", "SDXL"])
def test_a_whole_pipeline_loads_denoiser_and_text_encoders(variant, form, tmp_path):
    import diffusers
    from render.tiny_parts import vae

    base = wb.in_layout(whole(variant), "LDM")
    lora = wb.lora.extract(tuned(whole(variant)), base, rank=1, dtype="float32", progress=False)
    path = wb.lora.export(lora, tmp_path / "x.safetensors", format=form, dtype="float32")
    held = {part: copy.deepcopy(module) for part, module in parts(variant).items()}
    more = {"tokenizer": None, "scheduler": diffusers.EulerDiscreteScheduler(steps_offset=1), "vae": vae(), "feature_extractor": None}
    if variant == "SDXL":
        pipe = diffusers.StableDiffusionXLPipeline(**held, **more, tokenizer_2=None)
    else:
        pipe = diffusers.StableDiffusionPipeline(**held, **more, safety_checker=None, requires_safety_checker=False)
    pipe.load_lora_weights(str(path))
    pipe.fuse_lora(components=list(held))
    pipe.unload_lora_weights()
    wanted = wb.in_layout(wb.lora.apply(base, [(lora, 1.0)]), "diffusers")
    for part, module in held.items():
        for name, tensor in module.state_dict().items():
            keys = (f"{part}.{name}", f"{part}.text_model.{name}")
            torch.testing.assert_close(tensor, next(wanted[key] for key in keys if key in wanted), atol=1e-5, rtol=1e-5)


def test_diffusers_reads_all_of_kohyas_flux_at_its_true_width(tmp_path):
    from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers

    shapes = {
        "double_blocks.0.img_attn.qkv": (9216, 3072), "double_blocks.0.txt_attn.proj": (3072, 3072),
        "double_blocks.0.img_mod.lin": (18432, 3072), "single_blocks.0.linear1": (21504, 3072),
        "single_blocks.0.linear2": (3072, 15360), "single_blocks.0.modulation.lin": (9216, 3072),
    }  # fmt: skip
    base = Held({f"{module}.weight": torch.empty(shape, device="meta") for module, shape in shapes.items()}, "flux")
    pairs = {f"{module}.weight": (torch.randn(shape[0], 2), torch.randn(2, shape[1])) for module, shape in shapes.items()}
    lora = lora_of(pairs, {}, "made", base)
    theirs = _convert_kohya_flux_lora_to_diffusers(load_file(wb.lora.export(lora, tmp_path / "k.safetensors", dtype="float32")))
    ours = load_file(wb.lora.export(lora, tmp_path / "p.safetensors", format="peft", dtype="float32"))
    assert theirs.keys() == ours.keys()
    for module in {key.rpartition(".lora_")[0] for key in ours}:
        probe = torch.randn(ours[f"{module}.lora_A.weight"].shape[1])
        changes = [found[f"{module}.lora_B.weight"] @ (found[f"{module}.lora_A.weight"] @ probe) for found in (theirs, ours)]
        torch.testing.assert_close(*changes, atol=1e-3, rtol=1e-4)


def test_comfys_names_are_those_of_its_own_model_and_text_encoders(tmp_path):
    base = wb.in_layout(whole("SDXL"), "LDM")
    lora = wb.lora.extract(tuned(base), base, rank=1, progress=False)
    names = {key.partition(".lora_")[0] for key in load_file(wb.lora.export(lora, tmp_path / "x.safetensors", format="comfy"))}
    assert "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q" in names
    assert "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj" in names
    assert {
        "text_encoders.clip_g.transformer.text_model.encoder.layers.1.mlp.fc1",
        "text_encoders.clip_g.transformer.text_projection",
    } <= names
    assert {name.split(".")[0] for name in names} == {"diffusion_model", "text_encoders"}


def test_the_authors_names_hold_no_openclip_and_say_so(tmp_path):
    base = wb.in_layout(whole("SDXL"), "LDM")
    lora = wb.lora.extract(tuned(base), base, rank=1, progress=False)
    with pytest.warns(MergeWarning, match="13 tensors are left out, of modules that have no name there: 'conditioner.embedders.1"):
        path = wb.lora.export(lora, tmp_path / "x.safetensors", format="original")
    assert {key.partition("_model")[0].split(".")[0] for key in load_file(path)} == {"model", "conditioner"}


def test_pefts_header_says_rank_and_alpha_of_every_pair(tmp_path):
    from peft import LoraConfig

    path = wb.lora.export(lora := made("SD 1.x")[1], tmp_path / "x.safetensors", format="peft", dtype="float32")
    with safe_open(path, "pt") as file:
        told = file.metadata()
    config = {key.removeprefix("unet."): value for key, value in json.loads(told["lora_adapter_metadata"]).items()}
    assert LoraConfig(**config).r == config["lora_alpha"] == 2
    assert config["rank_pattern"] == config["alpha_pattern"]
    assert set(config["rank_pattern"].values()) == {3}
    assert len(config["target_modules"]) == len(lora)
    assert told["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert not any(key.startswith("ss_") for key in told)


@pytest.mark.parametrize("form", ["peft", "comfy"])
def test_a_middle_is_multiplied_into_the_lower_factor_where_names_have_none(form, tmp_path):
    base = whole("SD 1.x")
    module = "unet.down_blocks.0.resnets.0.conv1"
    parts = {"lora_up": torch.randn(8, 2, 1, 1), "lora_mid": torch.randn(2, 2, 3, 3), "lora_down": torch.randn(2, 8, 1, 1)}
    lora = LowRank(InMemory({f"{module}.{name}.weight": tensor for name, tensor in parts.items()}, "locon"), model=base)
    again = wb.open(wb.lora.export(lora, tmp_path / "x.safetensors", format=form, dtype="float32"))
    (key,) = again
    torch.testing.assert_close(again[key], lora[f"{module}.weight"], atol=1e-5, rtol=1e-5)


def test_whole_changes_have_names_in_kohyas_and_comfys_format_alone(tmp_path):
    norm = "unet.down_blocks.0.attentions.0.norm.weight"
    made = lora_of({}, {norm: torch.ones(8)}, "norm", whole("SD 1.x"))
    assert list(load_file(wb.lora.export(made, tmp_path / "k.safetensors"))) == ["lora_unet_down_blocks_0_attentions_0_norm.diff"]
    assert list(load_file(wb.lora.export(made, tmp_path / "c.safetensors", format="comfy"))) == [
        "diffusion_model.input_blocks.1.1.norm.diff"
    ]
    for form in ("peft", "original"):
        with pytest.raises(
            ExportError, match=f"'{norm}' is changed as a whole, which '{form}' names cannot hold; choose format='kohya' or"
        ):
            wb.lora.export(made, tmp_path / "x.safetensors", format=form)
    assert not (tmp_path / "x.safetensors").exists()


def test_a_scale_is_shared_between_the_factors_so_that_half_precision_holds_them(tmp_path):
    base = whole("SD 1.x")
    module = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {f"{module}.lora_up.weight": 1e-3 * torch.randn(8, 2), f"{module}.lora_down.weight": torch.randn(2, 8)}
    lora = LowRank(InMemory(tensors | {f"{module}.alpha": torch.tensor(2.0**-10)}, "weak"), model=base)
    again = wb.open(wb.lora.export(lora, tmp_path / "x.safetensors", format="peft"))
    (key,) = again
    wanted = lora[f"{module}.weight"]
    assert (again[key] - wanted).norm() < 1e-3 * wanted.norm()
