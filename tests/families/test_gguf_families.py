"""GGUF files of image models are told, cut into blocks and converted as any file of their family is, whoever wrote them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from gguf_files import Type, blocks, write_gguf
from held import Held
from key_lists import VARIANTS, original_names

import workbench as wb
from workbench.engine.containers import in_gguf, names_in_gguf
from workbench.engine.quantising.choosing import plain_plan

CITY96 = {
    "SD 1.x": "sd1",
    "SDXL": "sdxl",
    "SD 3": "sd3",
    "Flux dev": "flux",
    "Qwen-Image": "qwen_image",
    "Z-Image": "lumina2",
    "Lumina 2": "lumina2",
}
DENOISER = "model.diffusion_model."
Z_IMAGE = Path(__file__).resolve().parents[2] / "data" / "shapes-z-image"


def bare_names(variant: str) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix(DENOISER): shape for name, shape in original_names(variant).items()}


def zeros(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}


@pytest.mark.parametrize("prefix", ["", DENOISER])
@pytest.mark.parametrize("variant", CITY96)
def test_a_denoiser_is_known_by_its_own_names(tmp_path, variant, prefix):
    import torch

    shapes = {prefix + name: shape for name, shape in bare_names(variant).items()}
    model = wb.open(write_gguf(tmp_path / "m.gguf", zeros(shapes), CITY96[variant] if not prefix else None))
    plain = Held({name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, "plain")
    assert model.architecture == VARIANTS[variant][0]
    assert model.components == plain.components == (("unet" if variant.startswith("SD 1") or variant == "SDXL" else "transformer"),)
    assert {key: model.info(key).shape for key in model} == shapes
    assert [model.block(key) for key in shapes] == [plain.block(key) for key in shapes]
    assert list(wb.in_layout(model, "diffusers")) == list(wb.in_layout(plain, "diffusers"))


@pytest.mark.parametrize("variant", CITY96)
def test_a_denoiser_has_its_own_names_and_architecture_when_it_is_written(tmp_path, variant):
    """Of a file of the real size, whose numbers are left out."""
    import gguf
    import torch

    shapes = bare_names(variant)
    model = Held({DENOISER + name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, "m")
    path, names = tmp_path / "m.gguf", names_in_gguf(model)
    written = plain_plan(path, {key: model.info(key) for key in model}, None)
    header, begins = in_gguf(model)({names[key]: one for key, one in written.items()}, {}, 0)
    path.write_bytes(header)
    os.truncate(path, max(begins[names[key]][0] + one.nbytes for key, one in written.items()))
    reader, opened = gguf.GGUFReader(path), wb.open(path)
    assert reader.fields["general.architecture"].contents() == CITY96[variant]
    assert [tensor.name for tensor in reader.tensors] == list(shapes)
    assert {key: opened.info(key).shape for key in opened} == shapes
    assert opened.architecture == VARIANTS[variant][0]


def test_a_quantised_tensor_is_cut_and_joined_as_any_other_when_layouts_change(tmp_path):
    qkv = "double_blocks.0.img_attn.qkv.weight"
    tensors = zeros(bare_names("Flux dev")) | {qkv: (blocks(Type.Q4_0, (96, 32)), Type.Q4_0)}
    model = wb.open(write_gguf(tmp_path / "m.gguf", tensors))
    view, whole = wb.in_layout(model, "diffusers"), model[qkv]
    assert whole.count_nonzero() > 1000
    for number, part in enumerate("qkv"):
        key, rows = f"transformer_blocks.0.attn.to_{part}.weight", slice(32 * number, 32 * number + 32)
        assert view[key].equal(whole[rows])
        assert view.exact(key).equal(model.exact(qkv)[rows])
        assert not view.exact(key).equal(whole[rows].float())


def of_sd_cpp(variant: str) -> dict[str, tuple[int, ...]]:
    """A U-Net as stable-diffusion.cpp writes it: projections into attention are 1x1 convolutions in all of them."""
    projections = ("proj_in.weight", "proj_out.weight")
    shapes = bare_names(variant)
    return {DENOISER + name: (*shape, 1, 1) if name.endswith(projections) and len(shape) == 2 else shape for name, shape in shapes.items()}


def clip(prefix: str, layers: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}text_model.encoder.layers.{layer}.self_attn.q_proj.weight": (4, 4) for layer in range(layers)}


def t5(prefix: str) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}encoder.block.0.layer.0.SelfAttention.q.weight": (4, 4)}


FIRST, SECOND, THIRD = "cond_stage_model.transformer.", "cond_stage_model.1.transformer.", "cond_stage_model.2.transformer."
WHOLE = {
    "SD 1.x": (of_sd_cpp, clip(FIRST, 12), ("unet", "text_encoder")),
    "SD 2.x": (of_sd_cpp, clip(FIRST, 23), ("unet", "text_encoder")),
    "SDXL": (of_sd_cpp, clip(FIRST, 12) | clip(SECOND, 32), ("unet", "text_encoder", "text_encoder_2")),
    "SD 3": (
        of_sd_cpp,
        clip(FIRST, 12) | clip(SECOND, 32) | t5(THIRD),
        ("transformer", "text_encoder", "text_encoder_2", "text_encoder_3"),
    ),
    "Flux dev": (of_sd_cpp, clip(FIRST, 12) | t5(SECOND), ("transformer", "text_encoder", "text_encoder_2")),
}


@pytest.mark.parametrize("variant", WHOLE)
def test_a_whole_model_of_stable_diffusion_cpp_has_its_components_and_shapes(tmp_path, variant):
    written, encoders, components = WHOLE[variant]
    model = wb.open(write_gguf(tmp_path / "m.gguf", zeros(written(variant) | encoders), None))
    assert (model.architecture, model.components) == (VARIANTS[variant][0], components)
    usual = {DENOISER + name: shape for name, shape in bare_names(variant).items()}
    assert {key: model.info(key).shape for key in model if key.startswith(DENOISER)} == usual
    assert len(model) == len(usual) + len(encoders)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "BF16"])
def test_diffusers_loads_what_is_written_and_calculates_with_it(kind, tmp_path):
    import torch
    from diffusers import GGUFQuantizationConfig, ZImageTransformer2DModel
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    written = wb.export(
        wb.in_layout(wb.open(Z_IMAGE / "transformer"), "original"), tmp_path / "x.gguf", quantise=kind, progress=False
    ).open()
    ours = wb.in_layout(written, "diffusers")
    where = {"config": str(Z_IMAGE), "subfolder": "transformer", "torch_dtype": torch.float32}
    settings = GGUFQuantizationConfig(compute_dtype=torch.float32)
    model = ZImageTransformer2DModel.from_single_file(str(tmp_path / "x.gguf"), quantization_config=settings, **where)
    theirs = {key: dequantize_gguf_tensor(tensor).float() for key, tensor in model.state_dict().items()}
    assert theirs.keys() == set(ours)
    for key in ours:
        read = theirs[key].reshape(ours.info(key).shape)
        torch.testing.assert_close(read, ours.exact(key).float(), rtol=2.0**-10, atol=2.0**-12)  # it multiplies in float16
    plain = ZImageTransformer2DModel.from_config(ZImageTransformer2DModel.load_config(str(Z_IMAGE), subfolder="transformer"))
    plain.load_state_dict({key: ours.exact(key).float() for key in ours})
    asked = ([torch.ones(4, 1, 8, 8)], torch.tensor([0.5]), [torch.ones(8, 48)])
    with torch.no_grad():
        (drawn,), (wanted,) = (each(*asked).sample for each in (model, plain))
    assert (drawn - wanted).norm() < 2e-3 * wanted.norm()
