"""Quantised files that are written: read back by the `gguf` library and by Workbench, with the cost measured."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import tracemalloc

import gguf
import numpy as np
import pytest
import torch
from gguf_files import Type, blocks, decoded, write_gguf
from held import Held

import workbench as wb
from workbench.errors import ExportError, NonFiniteWarning
from workbench.tensors import PIECE, Space

DOUBLE, SINGLE = "double_blocks.{}.img_mod.lin.weight", "single_blocks.0.modulation.lin.weight"
SHAPES = {
    "img_in.weight": (64, 64),
    **{DOUBLE.format(i): (96, 64) for i in range(2)},
    "double_blocks.0.img_mod.lin.bias": (96,),
    "double_blocks.0.txt_attn.odd.weight": (64, 33),
    SINGLE: (48, 256),
    "final_layer.linear.weight": (64, 64),
}
GGUF_TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
# half a step of each type, or a whole one where a side has fewer, as a share of what a block spans; scales are halves themselves
BOUNDS = {"Q4_0": 1 / 8, "Q4_1": 1 / 15, "Q5_0": 1 / 16, "Q5_1": 1 / 31, "Q8_0": 0.5 / 127}


def flux(seed: int = 0, dtype: torch.dtype = torch.bfloat16, name: str = "flux", prefix: str = "") -> Held:
    made = torch.Generator().manual_seed(seed)
    return Held({prefix + key: torch.randn(shape, generator=made).to(dtype) for key, shape in SHAPES.items()}, name)


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.float().numpy()


def by_the_library(path) -> dict[str, tuple[Type, np.ndarray]]:
    """Every tensor's type, and its values in the shape that the file has."""
    return {
        one.name: (one.tensor_type, decoded(one.data, one.tensor_type).reshape([int(number) for number in one.shape[::-1]]))
        for one in gguf.GGUFReader(path).tensors
    }


@pytest.mark.parametrize("kind", GGUF_TYPES)
def test_a_gguf_has_what_the_library_makes_of_the_same_numbers(kind, tmp_path):
    model = flux()
    result = wb.export(model, tmp_path / "x.gguf", quantise=kind, progress=False)
    there, opened = by_the_library(result.path), result.open()
    assert list(there) == list(model) == list(opened)
    assert (opened.architecture, opened.storage(SINGLE).kind) == ("Flux", kind)
    for key in (DOUBLE.format(0), DOUBLE.format(1), SINGLE):
        wanted = gguf.quants.dequantize(gguf.quants.quantize(array(model[key]), Type[kind]), Type[kind])
        assert there[key][0] is Type[kind]
        assert np.array_equal(there[key][1], wanted)
        assert np.array_equal(opened.exact(key).numpy(), wanted)
        rows = (array(model[key]) - wanted).reshape(-1, 32)
        span = array(model[key]).reshape(-1, 32)
        step = np.ptp(span, axis=1) if kind.endswith("_1") else np.abs(span).max(axis=1)
        assert (np.abs(rows).max(axis=1) <= BOUNDS[kind] * step + 2.0**-10 * np.abs(span).max(axis=1)).all()
    for key in ("img_in.weight", "double_blocks.0.txt_attn.odd.weight", "final_layer.linear.weight"):
        assert opened.info(key).dtype_name == "bfloat16"
        assert opened[key].equal(model[key])
    assert there["double_blocks.0.img_mod.lin.bias"][0] is Type.F32


def test_the_header_names_architecture_recipe_parents_and_types(tmp_path):
    base, tuned = (wb.export(flux(i), tmp_path / f"{i}.safetensors", progress=False).open() for i in range(2))
    merge = wb.operators.weighted_average([base, tuned])
    path = wb.export(merge, tmp_path / "x.gguf", quantise="Q8_0", progress=False).path
    fields = gguf.GGUFReader(path).fields
    assert fields["general.architecture"].contents() == "flux"
    assert fields["general.quantization_version"].contents() == gguf.GGML_QUANT_VERSION
    recipe = wb.Recipe.from_file(path)
    assert [model.sha256 for model in recipe.data.models.values()] == [
        hashlib.sha256((tmp_path / f"{i}.safetensors").read_bytes()).hexdigest() for i in range(2)
    ]
    assert '"Q8_0"' in fields["workbench_quantise"].contents()


@pytest.mark.parametrize(("name", "asked"), [("x.gguf", "Q5_0"), ("x.safetensors", "nvfp4"), ("y.safetensors", "int8_tensorwise")])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_quantised_file_is_verified_number_by_number(name, asked, prefix, tmp_path):
    base, tuned = (wb.export(flux(i, prefix=prefix), tmp_path / f"{i}.safetensors", progress=False).open() for i in range(2))
    merge = wb.operators.weighted_average([base, tuned])
    path = wb.export(merge, tmp_path / name, quantise=asked, progress=False).path
    found = wb.verify(path, progress=False)
    assert (found.verdict, found.reason) == ("same", "its recipe makes it again, every number, and what the header says")
    content = bytearray(path.read_bytes())
    content[-len(content) // 2] ^= 1
    path.write_bytes(content)
    found = wb.verify(path, progress=False)
    assert (found.verdict, len(found.tensors)) == ("differs", 1)


def test_types_within_a_budget_are_not_made_again(tmp_path):
    base, tuned = (wb.export(flux(i), tmp_path / f"{i}.safetensors", progress=False).open() for i in range(2))
    path = wb.export(wb.operators.weighted_average([base, tuned]), tmp_path / "x.gguf", max_bytes=60_000, progress=False).path
    found = wb.verify(path, progress=False)
    assert (found.verdict, found.reason) == ("cannot", "its types were chosen within 60000 bytes, which is not done again")


def test_a_denoiser_alone_loses_its_prefix(tmp_path):
    model = flux(prefix="model.diffusion_model.")
    assert list(by_the_library(wb.export(model, tmp_path / "x.gguf", quantise="Q8_0", progress=False).path)) == list(SHAPES)


def test_a_whole_model_keeps_all_its_names_and_its_vae(tmp_path):
    model = flux(prefix="model.diffusion_model.")
    model.tensors["vae.decoder.conv_in.weight"] = torch.randn(64, 64)
    result = wb.export(model, tmp_path / "x.gguf", quantise="Q8_0", progress=False)
    assert "general.architecture" not in gguf.GGUFReader(result.path).fields
    assert list(result.open()) == list(model)
    assert result.open()["vae.decoder.conv_in.weight"].equal(model["vae.decoder.conv_in.weight"])


def test_types_by_block_and_what_is_kept_can_be_said(tmp_path):
    asked = {"default": "Q4_0", "blocks": {"double_blocks.1": "Q8_0"}, "keep": ["single_blocks.*"]}
    there = by_the_library(wb.export(flux(), tmp_path / "x.gguf", quantise=asked, progress=False).path)
    kinds = {name: kind.name for name, (kind, _) in there.items()}
    assert [kinds[key] for key in (DOUBLE.format(0), DOUBLE.format(1), SINGLE, "img_in.weight")] == ["Q4_0", "Q8_0", "BF16", "Q4_0"]


def test_convolutions_are_cut_into_rows_and_read_in_their_own_shape(tmp_path):
    key = "input_blocks.4.0.in_layers.2.weight"
    model = Held({key: torch.randn(32, 16, 3, 3), "middle_block.0.in_layers.2.weight": torch.randn(3, 16, 3, 3)}, "unet")
    result = wb.export(model, tmp_path / "x.gguf", quantise="Q8_0", progress=False)
    there = by_the_library(result.path)[key]
    assert (there[0].name, there[1].shape) == ("Q8_0", (18, 256))
    assert result.open().info(key).shape == (32, 16, 3, 3)
    assert np.array_equal(result.open().exact(key).numpy().reshape(18, 256), there[1])


@pytest.mark.parametrize(("kind", "bound"), [("float8_e4m3fn", 0.04), ("float8_e5m2", 0.07), ("int8_tensorwise", 0.01), ("nvfp4", 0.12)])
def test_comfyuis_types_read_back_as_what_was_meant(kind, bound, tmp_path):
    model = flux()
    result = wb.export(model, tmp_path / "x.safetensors", quantise=kind, progress=False)
    opened = result.open()
    assert set(opened) == set(model)
    for cost in result.costs:
        exact, read = model[cost.tensor].float(), opened.exact(cost.tensor)
        error = float((exact - read).norm() / exact.norm())
        assert cost.loss.error == pytest.approx(error, rel=1e-5)
        assert 0 < error < bound
        assert opened.storage(cost.tensor).nbytes + len(f'{{"format": "{kind}"}}') == cost.nbytes
    assert len(result.costs) >= 3
    assert opened["img_in.weight"].equal(model["img_in.weight"])


def test_a_merge_of_a_gguf_and_a_safetensors_file_is_quantised_from_its_unrounded_numbers(tmp_path):
    shapes = {key: (blocks(Type.Q4_0, shape, 1), Type.Q4_0) for key, shape in SHAPES.items() if shape[-1] % 32 == 0 and len(shape) == 2}
    quantised = wb.open(write_gguf(tmp_path / "base.gguf", shapes))
    plain = wb.export(Held({key: flux(1)[key] for key in shapes}), tmp_path / "plain.safetensors", progress=False).open()
    merge = wb.operators.weighted_average([quantised, plain])
    there = by_the_library(wb.export(merge, tmp_path / "x.gguf", quantise="Q8_0", progress=False).path)
    exact = merge.with_dtype("float32")[SINGLE].numpy()
    assert np.array_equal(there[SINGLE][1], gguf.quants.dequantize(gguf.quants.quantize(exact, Type.Q8_0), Type.Q8_0))


def test_what_is_left_of_a_change_is_told_by_block(tmp_path):
    base = flux()
    change = Held({key: flux(2)[key].float() for key in SHAPES}, "lora", Space.DELTA)
    merge = wb.operators.add_delta(base, [change], strengths=0.01)
    result = wb.export(merge, tmp_path / "x.gguf", quantise="Q4_0", progress=False)
    start = gguf.quants.dequantize(gguf.quants.quantize(array(base[SINGLE]), Type.Q4_0), Type.Q4_0)
    wanted = merge.with_dtype("float32")[SINGLE].numpy() - array(base[SINGLE])
    left = result.open().exact(SINGLE).numpy() - start
    frame = result.frame().set_index("block")
    assert frame.loc["single_blocks.0", "kept"] == pytest.approx(float((left * wanted).sum() / (wanted * wanted).sum()), rel=1e-3)
    noise = float(((left - wanted) ** 2).sum() / (wanted**2).sum()) ** 0.5
    assert frame.loc["single_blocks.0", "change error"] == pytest.approx(noise, rel=1e-3)
    assert list(frame.index) == ["double_blocks.0", "double_blocks.1", "single_blocks.0"]
    assert frame.loc["double_blocks.0", "error"] == pytest.approx(0.08, abs=0.03)
    assert "single_blocks.0" in result._repr_html_()


@pytest.mark.parametrize("kind", ["Q5_0", "int8_tensorwise", "float8_e4m3fn", "nvfp4"])
def test_parts_and_threads_change_no_byte(kind, tmp_path, monkeypatch):
    end = "gguf" if kind == "Q5_0" else "safetensors"
    first = wb.export(flux(), tmp_path / f"a.{end}", quantise=kind, progress=False, threads=1).path.read_bytes()
    monkeypatch.setattr("workbench.tensors.PIECE", 500)
    monkeypatch.setattr("workbench.engine.streaming.at_once", lambda device: 200)
    second = wb.export(flux(), tmp_path / f"b.{end}", quantise=kind, progress=False, threads=3).path.read_bytes()
    assert first == second


@pytest.mark.parametrize(
    ("name", "asked", "told"),
    [
        ("x.gguf", "Q4_K", r"'Q4_K', which is not written here; allowed are F32, F16, .*Q8_0.*llama-quantize"),
        ("x.safetensors", "Q8_0", r"'Q8_0', which is not written here; allowed are float8_e4m3fn.*ends in \.gguf"),
        ("x.gguf", {"bits": 4}, "some of 'default', 'blocks', 'keep', got"),
        ("x.gguf", {"keep": ["*"]}, "names no type"),
        ("x.gguf", {"default": "Q8_0", "blocks": {"IN03": "Q4_0"}}, "'IN03' matches nothing in flux; its blocks are double_blocks.0"),
        ("x.gguf", {"default": "Q8_0", "keep": ["nothing"]}, "keep pattern 'nothing' matches no tensor"),
        ("x.gguf", {"default": "Q8_0", "keep": ["*"]}, "leaves every tensor as it is"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(name, asked, told, tmp_path):
    with pytest.raises(ExportError, match=told):
        wb.export(flux(), tmp_path / name, quantise=asked, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_folders_diffusers_names_and_dtypes_that_gguf_has_not_are_refused(tmp_path):
    with pytest.raises(ExportError, match="no folder with scales"):
        wb.export(flux(), tmp_path / "x", quantise="nvfp4", max_shard_size="1GB", progress=False)
    view = Held({"single_transformer_blocks.0.norm.linear.weight": torch.randn(64, 64), "x_embedder.weight": torch.randn(64, 64)}
                | {"time_text_embed.x.weight": torch.randn(64, 64)})  # fmt: skip
    with pytest.raises(ExportError, match=r"in_layout\(model, 'original'\)"):
        wb.export(view, tmp_path / "x.gguf", quantise="Q8_0", progress=False)
    with pytest.raises(ExportError, match="is bool, which GGUF has not"):
        wb.export(Held(flux().tensors | {"flag": torch.tensor([True])}), tmp_path / "x.gguf", quantise="Q8_0", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_an_error_midway_leaves_nothing(tmp_path, monkeypatch):
    model = flux()
    read = Held.read

    def failing(self, key, part=None):
        if key == SINGLE:
            raise OSError("the disk is gone")
        return read(self, key, part)

    monkeypatch.setattr(Held, "read", failing)
    with pytest.raises(ExportError, match="the disk is gone"):
        wb.export(model, tmp_path / "x.gguf", quantise="Q8_0", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_lora_is_baked_into_a_gguf_and_the_base_counts_as_it_was_read(tmp_path):
    keys = [key for key, shape in SHAPES.items() if len(shape) == 2 and shape[1] % 32 == 0]
    tensors = {key: (gguf.quants.quantize(array(flux()[key]), Type.Q8_0), Type.Q8_0) for key in keys}
    base = wb.open(write_gguf(tmp_path / "base.gguf", tensors))
    change = torch.zeros(SHAPES[SINGLE])
    change[0] = 10 * base.exact(SINGLE).abs().max()
    made = wb.operators.add_delta(base, [Held({SINGLE: change}, "lora", Space.DELTA)])
    result = wb.export(made, tmp_path / "x.gguf", quantise="Q8_0", progress=False)
    again = result.open()
    assert again.exact(DOUBLE.format(0)).equal(base.exact(DOUBLE.format(0)))  # Q8_0 of what is Q8_0 already
    assert again.exact(SINGLE)[1:].equal(base.exact(SINGLE)[1:])
    assert result.kept == pytest.approx(1, abs=0.01)


def test_an_export_that_is_killed_leaves_nothing_under_its_name(tmp_path):
    code = """
import os, signal, sys, torch, workbench as wb
from workbench.engine.quantising.gguf_blocks import GgufQuantiser
plain, seen = GgufQuantiser.encode, []
def encode(self, values, first):
    seen.append(first)
    if len(seen) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, values, first)
GgufQuantiser.encode = encode
wb.export(wb.open(sys.argv[1]), sys.argv[2], quantise="Q4_0", progress=False, threads=1)
"""
    source = wb.export(flux(), tmp_path / "a.safetensors", progress=False).path
    out = tmp_path / "out"
    out.mkdir()
    done = subprocess.run([sys.executable, "-c", code, str(source), str(out / "x.gguf")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (out / "x.gguf").exists()
    wb.export(flux(), out / "y.gguf", quantise="Q4_0", progress=False)
    assert [path.name for path in out.iterdir()] == ["y.gguf"]


def test_a_gguf_is_quantised_piece_by_piece(tmp_path):
    rows = 24
    model = Held({"double_blocks.0.img_mod.lin.weight": torch.ones(rows, PIECE, dtype=torch.bfloat16)}, "big")
    merge = wb.operators.weighted_average([model, model])
    tracemalloc.start()  # of NumPy's arrays, which the library quantises in
    try:
        wb.export(merge, tmp_path / "x.gguf", quantise="Q4_0", threads=1, progress=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * rows * PIECE / 2


def test_nan_and_what_lies_beyond_a_type_is_told(tmp_path):
    bad = flux()
    bad.tensors[SINGLE][3, 5] = float("nan")
    for name, kind in (("x.gguf", "Q8_0"), ("x.safetensors", "int8_tensorwise"), ("y.safetensors", "nvfp4")):
        with pytest.warns(NonFiniteWarning, match=f"flux: '{SINGLE}' holds NaN"):
            wb.export(bad, tmp_path / name, quantise=kind, progress=False)
    huge = Held({key: tensor.float() * 1e8 for key, tensor in flux().tensors.items()}, "huge")
    with pytest.warns(NonFiniteWarning, match="holds values that its dtype turns into NaN or infinity"):
        wb.export(huge, tmp_path / "z.gguf", quantise="Q8_0", progress=False)


def test_zeros_stay_zeros_in_every_type(tmp_path):
    model = Held({key: torch.zeros_like(tensor) for key, tensor in flux().tensors.items()}, "zero")
    for number, kind in enumerate((*GGUF_TYPES, "float8_e4m3fn", "int8_tensorwise", "nvfp4")):
        end = "gguf" if kind in GGUF_TYPES else "safetensors"
        opened = wb.export(model, tmp_path / f"{number}.{end}", quantise=kind, progress=False).open()
        assert not any(opened.exact(key).any() for key in opened)


def test_a_quantised_file_that_is_written_plain_does_not_say_it_is_quantised(tmp_path):
    base, tuned = (wb.export(flux(i), tmp_path / f"{i}.safetensors", progress=False).open() for i in range(2))
    quantised = wb.export(wb.operators.weighted_average([base, tuned]), tmp_path / "x.gguf", quantise="Q8_0", progress=False).open()
    assert "workbench_quantise" in quantised.metadata
    plain = wb.export(quantised, tmp_path / "y.safetensors", progress=False)
    assert "workbench_quantise" not in plain.open().metadata
    with pytest.raises(ExportError, match="nothing in it is quantised, so there is no cost to plot; export it with quantise="):
        plain.plot()
