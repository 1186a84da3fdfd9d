"""`regmean` on the embedded SD family: what it comes to by hand, what it leaves alone, and what it refuses."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from held import Held
from regression_inputs import PROMPTS

import workbench as wb
from workbench.errors import InputError, OptionError
from workbench.operators import task_arithmetic, weighted_average
from workbench.regression.solved import Solving

LAYER = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
LARGE = "model.diffusion_model.output_blocks.0.0.in_layers.2.weight"  # whose products take 17 MB
CONVOLUTION = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
MODULES = {LAYER: "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", CONVOLUTION: "down_blocks.0.resnets.0.conv1"}


@pytest.fixture(scope="module")
def merged(models, drawn):
    return wb.regmean(models["base"], [models["heart"], models["moon"]], PROMPTS, **drawn)


def product(renderer, model, prompt: str, module: str) -> torch.Tensor:
    """X X^T over places on average, for one layer, counted here by hand."""
    renderer.load(model, progress=False)
    layer = dict(renderer._pipeline.unet.named_modules())[module]
    seen: list[torch.Tensor] = []

    def hook(layer, given):
        x = given[0].double()
        if x.dim() == 4:
            padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
            height, width = x.shape[2:]
            shifted = [padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
            x = torch.stack(shifted, 2).flatten(1, 2).movedim(1, -1)
        seen.append(x.reshape(-1, x.shape[-1]))

    handle = layer.register_forward_pre_hook(hook)
    renderer.images([prompt], [0], steps=2, progress=False)
    handle.remove()
    rows = torch.cat(seen)
    return rows.T @ rows / len(rows)


@pytest.mark.parametrize("key", [LAYER, CONVOLUTION])
def test_a_layer_is_the_solution_of_the_regression(models, drawn, merged, key):
    base = models["base"][key].double()
    left, right = 0, 0
    for name, (prompt,) in zip(("heart", "moon"), PROMPTS, strict=True):
        gram = product(drawn["renderer"], models[name], prompt, MODULES[key])
        gram = 0.9 * gram + 0.1 * torch.diag(gram.diagonal())
        left = left + (models[name][key].double() - base).flatten(1) @ gram
        right = right + gram
    wanted = base + (left @ torch.linalg.inv(right)).reshape(base.shape)
    average = weighted_average([models["heart"], models["moon"]])[key].double()
    apart = (wanted - average).norm()
    assert apart > 0.01 * average.norm() * 0.1
    assert (merged[key].double() - wanted).norm() < 0.02 * apart + 1e-3 * (wanted - base).norm()


def test_it_has_the_names_shapes_and_dtypes_of_the_base(models, merged):
    assert list(merged) == list(models["base"])
    assert all(merged.info(key) == models["base"].info(key) for key in merged)


def test_what_is_no_layer_of_the_denoiser_is_the_mean(models, merged):
    mean = task_arithmetic(models["base"], [models["heart"], models["moon"]], weights=0.5)
    others = [key for key in merged if not key.startswith("model.diffusion_model.") or key.endswith(".bias") or ".norm" in key]
    assert len(others) > 200
    assert all(torch.equal(merged[key], mean[key]) for key in others)


def test_one_model_alone_comes_out_as_it_is(models, drawn):
    merged = wb.regmean(models["base"], [models["heart"]], PROMPTS[0], **drawn)
    for key in (LAYER, CONVOLUTION):
        torch.testing.assert_close(merged[key].float(), models["heart"][key].float(), atol=2e-3, rtol=0)


def test_groups_that_are_drawn_one_after_the_other_change_nothing(models, drawn, merged):
    small = wb.regmean(models["base"], [models["heart"], models["moon"]], PROMPTS, **drawn, memory=17_100_000)
    assert "119 layers were solved for" in small.notes[0]
    assert all(torch.equal(small[key], merged[key]) for key in merged)


def test_a_layer_beyond_the_memory_is_averaged_and_said_so(models, drawn):
    merged = wb.regmean(models["base"], [models["heart"], models["moon"]], PROMPTS, **drawn, memory=10_000_000)
    mean = task_arithmetic(models["base"], [models["heart"], models["moon"]], weights=0.5)
    assert "layers are averaged, since their products take more than memory=10000000" in merged.notes[1]
    assert torch.equal(merged[LARGE], mean[LARGE])
    assert not torch.equal(merged[LAYER], mean[LAYER])


def test_it_is_exported_drawn_and_merged_as_any_checkpoint(models, drawn, merged, tmp_path: Path):
    file = wb.open(wb.export(merged, tmp_path / "merged.safetensors", progress=False).path)
    assert all(torch.equal(file[key], merged[key]) for key in merged)
    half = weighted_average([merged, models["base"]])
    torch.testing.assert_close(half[LAYER], weighted_average([file, models["base"]])[LAYER])  # a file is rounded before
    grid = wb.ab_grid({"merged": merged, "file": file}, PROMPTS[0], [0], renderer=drawn["renderer"], steps=2, progress=False)
    first, second = grid.images
    assert first.tobytes() == second.tobytes()


def test_the_file_of_solved_tensors_goes_with_the_checkpoint(models, drawn):
    merged = wb.regmean(models["base"], [models["heart"]], PROMPTS[0], **drawn, memory=1 << 18)
    folder = next(path.parent for path in merged.sources() if path.name == "solved.safetensors")
    assert folder.is_dir()
    del merged
    assert not folder.exists()


def test_a_model_that_is_a_unet_alone_is_solved_for_in_the_whole_base():
    data = Path(__file__).resolve().parents[2] / "data" / "shapes-sdxl"
    base, heart = wb.open(data / "base.safetensors"), wb.open(data / "heart.safetensors")
    renderer = wb.Renderer(data / "config", device="cpu", fallback=base)
    merged = wb.regmean(base, [heart, base], ["a red heart on a white background"], renderer, steps=1, progress=False)
    mean = task_arithmetic(base, [heart, base], weights=0.5)
    key = next(key for key in heart if key.endswith("attn1.to_q.weight"))
    assert list(merged) == list(base)
    assert " 0 layers" not in merged.notes[0]
    assert not torch.equal(merged[key], mean[key])


def test_a_flux_file_with_fused_layers_is_solved_for_in_its_own_layout():
    data = Path(__file__).resolve().parents[2] / "data" / "shapes-flux"
    schnell, krea = wb.open(data / "schnell"), wb.open(data / "krea.safetensors")
    renderer = wb.Renderer(data / "krea", device="cpu")
    merged = wb.regmean(krea, [krea], ["a red star on a black background"], renderer, steps=1, progress=False)
    assert list(merged) == list(krea)
    fused = "double_blocks.0.img_attn.qkv.weight"
    torch.testing.assert_close(merged[fused].float(), krea[fused].float(), atol=1e-2, rtol=0)
    assert schnell.architecture == krea.architecture


@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        ({"prompts": "a heart"}, InputError, "takes prompts as a list"),
        ({"prompts": [["a"], ["b"], ["c"]]}, InputError, "one for each of the 2"),
        ({"prompts": [["a"], []]}, InputError, "none empty"),
        ({"alpha": 1.5}, OptionError, r"alpha must be in \[0, 1\]"),
        ({"memory": 0}, OptionError, "memory must be bytes"),
        ({"models": []}, InputError, "a base and a list of models"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_drawn(models, drawn, wrong, error, told):
    asked = {"models": [models["heart"], models["moon"]], "prompts": PROMPTS} | wrong
    with pytest.raises(error, match=told):
        wb.regmean(models["base"], asked.pop("models"), asked.pop("prompts"), **drawn | asked)


def test_a_model_with_nan_is_named_by_the_layer_that_is_given_it(models, drawn):
    from workbench.checkpoint.views.in_memory import InMemory

    broken = {key: models["heart"][key] for key in models["heart"]}
    broken[LAYER] = torch.full_like(broken[LAYER], torch.nan)
    with pytest.raises(wb.errors.MergeError, match="is given NaN or infinity while broken draws"):
        wb.regmean(models["base"], [InMemory(broken, "broken")], PROMPTS[0], **drawn)


def test_a_full_disk_is_said_with_the_file_and_nothing_is_left_behind(models, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workbench.regression.solved.write_at", full)
    with pytest.raises(wb.errors.MergeError, match=r"solved.safetensors: could not be written: No space left on device"):
        wb.regmean(models["base"], [models["heart"]], PROMPTS[0], **drawn)
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_what_was_not_solved_for_is_rounded_once(tmp_path: Path):
    first, second = (Held({"x": torch.full((4,), value).half()}, name) for name, value in (("first", 0.1), ("second", 0.3)))
    rest = wb.operators.weighted_average([first, second], weights=[2, 1])
    solving = Solving({"y": (1,)})
    solving.put("y", torch.zeros(1))
    solved = solving.over(rest, "solved", ())
    expected = rest.with_dtype("float32")["x"]
    assert not torch.equal(expected, rest["x"].float())
    assert torch.equal(solved.with_dtype("float32")["x"], expected)
    assert torch.equal(wb.operators.add_difference(solved, first, second, strength=0)["x"], rest["x"])
    assert torch.equal(solved["x"], rest["x"])
