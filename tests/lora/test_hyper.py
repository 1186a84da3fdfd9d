"""Hyper-merge: below the published loop, on its own vectors and on the family; planted directions found; nothing lost unsaid."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import yaml
from held import Held
from hyper_merge_loop import published_loop
from test_vectors import VECTORS

import workbench as wb
from workbench import cli
from workbench.checkpoint.views.in_memory import InMemory
from workbench.errors import ExportError, InputError, MergeError, MergeWarning, NonFiniteError, OptionError, RecipeError, WorkbenchError
from workbench.lora.hyper_layers import reduced
from workbench.lora.hyper_solver import Solver, nearest
from workbench.lora.targets import factored
from workbench.places import DATA
from workbench.tensors import Space

SHAPES = DATA / "shapes-sd"
VARIANTS = ["outline", "stripes", "heart", "moon", "pastel"]
HYPER = VECTORS / "hyper_merge"
PREFIX = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0"
CONVOLUTION = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"


@pytest.fixture(scope="module")
def vectors() -> list[wb.Checkpoint]:
    return [wb.open(HYPER / f"model_{number}.safetensors") for number in range(5)]


@pytest.fixture(scope="module")
def reference() -> dict:
    return json.loads((HYPER / "reference.json").read_text())


@pytest.fixture(scope="module")
def family() -> wb.lora.HyperModel:
    return wb.lora.hyper_merge([wb.open(SHAPES / f"{name}.safetensors") for name in VARIANTS], ranks=[16, 8, 4], iterations=2)


def models_of(*tensors: dict[str, torch.Tensor]) -> list[Held]:
    return [Held(one, f"model-{number}") for number, one in enumerate(tensors)]


def planted(multipliers: np.ndarray, ranks: Sequence[int], noise: float) -> list[Held]:
    """Models that are a base, low-rank changes with these multipliers, and noise; in layers of several shapes, and a norm."""
    generator = torch.Generator().manual_seed(1)
    shapes = {f"{PREFIX}.attn1.to_q.weight": (60, 50), f"{PREFIX}.attn1.to_k.weight": (40, 90), CONVOLUTION: (30, 20, 3, 3)}
    tensors: list[dict[str, torch.Tensor]] = [{} for _ in multipliers]
    for key, (rows, *others) in shapes.items():
        count = int(np.prod(others))
        draw = [torch.randn(rows, rank, generator=generator) @ torch.randn(rank, count, generator=generator) for rank in ranks]
        base = torch.randn(rows, count, generator=generator)
        for row, model in zip(multipliers, tensors, strict=True):
            change = sum(float(value) * one for value, one in zip(row, draw, strict=True))
            model[key] = (base + 0.1 * change + noise * torch.randn(rows, count, generator=generator)).view(rows, *others)
    for number, model in enumerate(tensors):
        model[f"{PREFIX}.norm1.weight"] = torch.full((50,), float(number))
    return models_of(*tensors)


def squared_error(model: wb.Checkpoint, other: wb.Checkpoint) -> float:
    """The mean over all floats, of whole tensors, by NumPy."""
    keys = [key for key in model if model.info(key).is_float]
    squares = [np.square(model[key].double().numpy() - other[key].double().numpy()) for key in keys]
    return sum(float(square.sum()) for square in squares) / sum(square.size for square in squares)


@pytest.mark.parametrize("joint", [False, True])
def test_the_vectors_residual_after_each_lora_is_not_above_the_originals(vectors, reference, joint):
    found = wb.lora.hyper_merge(vectors, ranks=reference["ranks"], iterations=reference["iterations"], joint=joint)
    left = found.losses.groupby("loras")["mean_squared_residual"].mean()
    assert left[0] == pytest.approx(reference["mean_squared_residual_before"], rel=1e-5)
    assert (left.to_numpy()[1:] <= reference["mean_squared_residual_after"]).all()
    if joint:
        assert left[3] <= 0.11 * reference["mean_squared_residual_after"][-1]


def test_the_losses_are_those_of_the_reconstructions(vectors, reference):
    found = wb.lora.hyper_merge(vectors, ranks=reference["ranks"])
    last = found.losses[found.losses["loras"] == 3].set_index("model")["mean_squared_residual"]
    for number, model in enumerate(vectors):
        assert squared_error(model, found.reconstruct(number)) == pytest.approx(last[model.name], rel=1e-4)
        assert squared_error(model, found.reconstruct(model.name)) == squared_error(model, found.reconstruct(number))
    alone = wb.operators.add_delta(found.average, found.loras[:1], strengths=[float(found.multipliers.iloc[2, 0])])
    row = found.losses.query("loras == 1").iloc[2]
    whole = found.losses.query("loras == 0").iloc[2]["mean_squared_residual"]
    assert (squared_error(vectors[2], alone) / whole) ** 0.5 == pytest.approx(row["first_alone"], rel=1e-4)


def test_without_a_rank_limit_what_is_left_is_what_the_gram_matrix_says(vectors, reference):
    with pytest.warns(MergeWarning, match="no layer has a smaller side of more than 40: rank 99 and 99 and 99 is reduced to that"):
        found = wb.lora.hyper_merge(vectors, ranks=[99, 99, 99], joint=False)
    left = found.losses.groupby("loras")["mean_squared_residual"].mean().to_numpy()[1:]
    assert left == pytest.approx(reference["mean_squared_residual_unlimited_rank"], rel=1e-3)
    assert list(found.multipliers.columns) == ["lora-1-40", "lora-2-40", "lora-3-40"]


def test_the_family_is_left_no_more_than_by_the_published_loop_whatever_its_seed():
    files = [wb.open(SHAPES / f"{name}.safetensors") for name in VARIANTS]
    keys = [key for key in sorted(factored(files[0], "test")) if not torch.equal(files[0][key], files[1][key])][::4]
    models = [InMemory({key: file[key] for key in keys}, file.name) for file in files]
    theirs = []
    for seed in range(2):
        torch.manual_seed(seed)
        theirs.append(published_loop([torch.stack([model[key].float().flatten(1) for model in models]) for key in keys], [16, 8, 8], 6))
    for joint in (False, True):
        found = wb.lora.hyper_merge(models, ranks=[16, 8, 8], joint=joint)
        assert (found.losses.groupby("loras")["mean_squared_residual"].mean().to_numpy()[1:] <= np.min(theirs, 0)).all()


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05])
def test_planted_directions_are_found_with_their_multipliers(noise):
    multipliers = np.array([[1, 0.2, 0], [-0.5, 1, 0.3], [0, -0.8, 1], [0.3, 0.5, -0.6], [-0.8, -0.9, -0.7]])
    found = wb.lora.hyper_merge(planted(multipliers, (8, 6, 4), noise), ranks=[8, 6, 4], iterations=10)
    for column, lora in zip(multipliers.T, found.multipliers, strict=True):
        assert abs(np.corrcoef(column, found.multipliers[lora])[0, 1]) > 0.9999


def test_multipliers_are_scaled_and_balanced(family):
    values = family.multipliers.to_numpy()
    assert np.abs(values).max(0).tolist() == values.max(0).tolist() == [1, 1, 1]
    assert values.sum(0) == pytest.approx(0, abs=1e-6)
    assert list(family.multipliers.index) == VARIANTS


def test_multipliers_for_a_mixture_that_was_not_in_the_merge(vectors, reference):
    found = wb.lora.hyper_merge(vectors, ranks=reference["ranks"])
    mixture = found.multipliers_for(wb.operators.weighted_average(vectors[:3], weights=[0.5, 0.3, 0.2]))
    assert mixture.to_numpy() == pytest.approx(found.multipliers.to_numpy()[:3].T @ [0.5, 0.3, 0.2], abs=1e-4)
    made = wb.operators.add_delta(found.average, found.loras, strengths=[0.5, -0.25, 0.8], dtype="float16")
    again = found.multipliers_for(made)
    assert again.to_numpy() == pytest.approx([0.5, -0.25, 0.8], rel=0.01)
    assert again.attrs["relative_error"] < 0.01
    assert again.index.tolist() == found.multipliers.columns.tolist()


def test_what_loras_cannot_carry_is_the_averages_and_is_told():
    models = planted(np.array([[1.0], [0.5], [-1.0]]), [3], 0.0)
    found = wb.lora.hyper_merge(models, ranks=[3])
    assert set(found.loras[0]) == {key for key in models[0] if "norm" not in key}
    assert found.reconstruct(0)[f"{PREFIX}.norm1.weight"].tolist() == [1.0] * 50
    numel = sum(models[0].info(key).numel for key in models[0])
    last = found.losses[found.losses["loras"] == 1]
    assert last["mean_squared_residual"].tolist() == pytest.approx([50 / numel, 0, 50 / numel], abs=1e-6)
    assert last["beyond_loras"].tolist()[::2] == pytest.approx([1, 1], abs=1e-3)


def test_embeddings_the_vae_and_what_kohyas_tools_do_not_load_are_not_for_loras():
    held = factored(wb.open(SHAPES / "base.safetensors"), "test")
    assert not any(("embedding." in key and "time" not in key) or key.startswith("first_stage_model.") for key in held)
    assert not any(f"model.diffusion_model.{name}.weight" in held for name in ("time_embed.0", "input_blocks.0.0", "out.2"))
    assert sum(key.startswith("cond_stage_model.") for key in held) == 12


def test_every_file_is_read_twice_and_once_where_models_are_equal():
    models = planted(np.array([[1.0], [0.5], [-1.0]]), [3], 0.0)
    for model in models:
        model.tensors["same.weight"] = torch.ones(9, 9)
    wb.lora.hyper_merge(models, ranks=[3])
    for model in models:
        counts = {key: [name for name, _ in model.reads].count(key) for key in model}
        assert counts == {key: 1 if key == "same.weight" or "norm" in key else 2 for key in model}


def test_the_same_bits_come_of_any_number_of_threads(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    models = models_of(*({f"{key}.weight": torch.randn(90, 70, generator=generator) for key in "xyz"} for _ in range(3)))
    found = []
    for threads in (1, 4):
        monkeypatch.setattr("workbench.engine.pool.usual_threads", lambda threads=threads: threads)
        monkeypatch.setattr("workbench.lora.hyper_solver.usual_threads", lambda threads=threads: threads)
        torch.set_num_threads(threads)
        try:
            found.append(wb.lora.hyper_merge(models, ranks=[3, 2], iterations=2, seed=7))
        finally:
            torch.set_num_threads(1)
    one, other = found
    assert one.multipliers.equals(other.multipliers)
    assert one.losses.equals(other.losses)
    for mine, theirs in zip(one.loras, other.loras, strict=True):
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert not wb.lora.hyper_merge(models, ranks=[3, 2], iterations=2, seed=8).multipliers.equals(one.multipliers)


def test_a_layers_cores_hold_all_of_changes_of_low_rank(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(200, 6, generator=generator), torch.randn(6, 300, generator=generator)
    base = torch.randn(200, 300, generator=generator)
    models = models_of(*({"x.weight": base + (left * torch.randn(6, generator=generator)) @ right} for _ in range(3)))
    turn = np.linalg.qr(np.array([[1.0, 1], [-1, 1], [0, -2]]))[0]
    from workbench.checkpoint.views.matching import match
    from workbench.engine.reading import measured

    named = {model.name: model for model in models}
    (layer,) = measured(named, match(named, "test")[0], lambda one: reduced(one, turn, (4, 4), 0, "cpu"), who="test")
    assert layer.cores.shape[1] < 200
    for j, core in enumerate(layer.cores):
        change = sum(turn[i, j] * model["x.weight"].double() for i, model in enumerate(models))
        up, down = layer.expanded(core, torch.eye(core.shape[1]))
        torch.testing.assert_close((up @ down).double(), change, rtol=0, atol=1e-4)


def test_a_truncation_is_that_of_the_singular_value_decomposition():
    matrix = torch.randn(9, 14, generator=torch.Generator().manual_seed(0))
    left, values, right = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    best = (left[:, :3] * values[:3]) @ right[:3]
    for found, wanted in ((nearest(matrix, 3), best), (nearest(matrix.T, 3), best.T)):
        assert (found[0] @ found[1]).double().numpy() == pytest.approx(wanted, abs=1e-5)
        torch.testing.assert_close(found[1] @ found[1].T, torch.eye(3))


def test_one_lora_of_two_models_by_hand():
    # the models differ by 2 * change, so the average is between them, and the multipliers are 1 and -1
    base, change = torch.ones(3, 3), torch.tensor([[1.0, 2, 2], [2, 4, 4], [0, 0, 0]])
    found = wb.lora.hyper_merge(models_of({"x.weight": base + change}, {"x.weight": base - change}), ranks=[1])
    assert found.multipliers["lora-1-1"].abs().tolist() == pytest.approx([1, 1])
    torch.testing.assert_close(found.loras[0]["x.weight"] * float(found.multipliers.iloc[0, 0]), change)
    assert found.average["x.weight"].tolist() == base.tolist()


def test_as_many_loras_as_models_where_each_has_a_change_of_its_own():
    multipliers = np.eye(3) * [1, 0.8, 0.6]
    found = wb.lora.hyper_merge(planted(multipliers, (4, 4, 4), 0.0), ranks=[4, 4, 4], iterations=15)
    assert (found.losses.query("loras == 3")["mean_squared_residual"] * (1 - found.losses["beyond_loras"].fillna(0))).max() < 1e-4


def test_solutions_only_get_better():
    generator = torch.Generator().manual_seed(3)
    cores = [torch.randn(3, 12, 9, generator=generator) for _ in range(4)]
    flat = torch.cat([core.flatten(1) for core in cores], 1).double()
    solver = Solver(cores, (flat @ flat.T).numpy(), (3, 2))
    losses = [solver.together(count).fit.loss for count in (1, 3, 9)]
    assert losses == sorted(losses, reverse=True)
    found = solver.together(9)
    rest = [core.clone() for core in cores]
    for layer, loras in zip(rest, found.loras, strict=True):
        for k, (up, down) in enumerate(loras):
            assert up.shape[1] == len(down) == (3, 2)[k]
            layer -= torch.from_numpy(found.fit.multipliers[:, k]).float()[:, None, None] * (up @ down)
    assert found.fit.loss == pytest.approx(sum(float(one.double().square().sum()) for one in rest), rel=1e-5)


def test_a_folder_holds_everything_and_opens_again(family, tmp_path):
    folder = family.export(tmp_path / "shapes")
    files = ["README.md", "multipliers.csv", "prompts.txt", *(f"shapes{end}.safetensors" for end in ("", "-1-16", "-2-8", "-3-4"))]
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    loras = [wb.open(folder / name) for name in ("shapes-1-16.safetensors", "shapes-2-8.safetensors", "shapes-3-4.safetensors")]
    line = (folder / "prompts.txt").read_text().splitlines()[3]
    assert line == "moon: " + " ".join(
        f"<lora:{lora.name}:{value:.4f}>" for lora, value in zip(loras, family.multipliers.loc["moon"], strict=True)
    )
    moon = wb.operators.add_delta(wb.open(folder / "shapes.safetensors"), loras, strengths=family.multipliers.loc["moon"].tolist())
    original, told = wb.open(SHAPES / "moon.safetensors"), family.losses.query("loras == 3 and model == 'moon'").iloc[0]
    assert squared_error(original, moon) == pytest.approx(told["mean_squared_residual"], rel=0.01)
    assert f"{told['relative_error']:.2%}" in (folder / "README.md").read_text()
    assert family.export(folder) == folder


def test_a_folder_with_other_things_is_refused_and_nothing_is_left_behind(family, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    with pytest.raises(ExportError, match="holds other things than a hyper-merge"):
        family.export(other)
    with pytest.raises(ExportError, match="there is no folder"):
        family.export(tmp_path / "no" / "folder")
    with pytest.raises(ExportError, match="dtype must be one of 'float32'"):
        family.export(tmp_path / "new", "int8")
    monkeypatch.setattr("workbench.lora.hyper_export._page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        family.export(tmp_path / "new")
    assert [path.name for path in tmp_path.rglob("*")] == ["other", "letter.txt"]


def test_an_older_export_is_replaced_whole(family, tmp_path):
    folder = family.export(tmp_path / "shapes")
    names = sorted(path.name for path in folder.iterdir())
    (folder / "shapes-4-2.safetensors").write_bytes(b"of an export with one LoRA more")
    (folder / "README.md").write_text((folder / "README.md").read_text() + "old")
    family.export(folder)
    assert sorted(path.name for path in folder.iterdir()) == names
    assert not (folder / "README.md").read_text().endswith("old")
    assert os.listdir(tmp_path) == ["shapes"]


def test_a_folder_that_something_was_put_into_is_refused(family, tmp_path):
    folder = family.export(tmp_path / "shapes")
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(ExportError, match="holds other things"):
        family.export(folder)
    assert (folder / "letter.txt").read_text() == "dear"


def test_the_result_shows_itself(family):
    assert repr(family).startswith("<HyperModel: 5 models as one and 3 LoRAs (rank 16, 8, 4): of the difference from the average ")
    frame = family.frame()
    assert len(frame) == 15
    assert frame.query("model == 'heart' and rank == 8")["multiplier"].item() == family.multipliers.at["heart", "lora-2-8"]
    assert len(family.plot().data) == 5


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["workbench", "lora", "hyper", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_the_command_takes_the_originals_file(tmp_path, monkeypatch, capsys):
    paths = [str(SHAPES / f"{name}.safetensors") for name in ("heart", "moon")]
    config = {"name": "both", "models": paths, "device": "cpu", "dtype": "float16", "iterations": 2, "ranks": [4]}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "--config", "config.yaml") == 0
    assert {path.name for path in (tmp_path / "both").glob("*.safetensors")} == {"both.safetensors", "both-1-4.safetensors"}
    assert run(monkeypatch, *paths, "--out", "options", "--ranks", "4", "--iterations", "2") == 0
    assert wb.open("options/options-1-4.safetensors").nbytes == wb.open("both/both-1-4.safetensors").nbytes
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | {"rank": 4, "epochs": 1}))
    assert run(monkeypatch, "--config", "config.yaml") == 1
    said = capsys.readouterr().err
    assert "epochs: there is no such field; rank: there is no such field; the fields are name, models" in said
    assert run(monkeypatch, *paths) == 1
    assert "give the folder to write (--out)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": ["a"]}, "models: "),
        ({"ranks": [0]}, "ranks.0: "),
        ({"ranks": "four"}, "ranks: "),
        ({"dtype": "int8"}, "dtype: "),
        ({"name": "a/b"}, "name: "),
    ],
)
def test_a_file_with_wrong_values_says_which(change, said, tmp_path):
    from workbench.lora.hyper_config import load

    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"name": "x", "models": ["a", "b"]} | change))
    with pytest.raises(RecipeError, match=said):
        load(tmp_path / "config.yaml")


A, B = {"x.weight": torch.zeros(4, 4)}, {"x.weight": torch.eye(4)}
UNET = {f"{PREFIX}.attn1.to_q.weight": torch.eye(4), "model.diffusion_model.time_embed.0.weight": torch.eye(4)}
FLUX = {"double_blocks.0.img_attn.qkv.weight": torch.eye(4), "x.weight": torch.eye(4)}


@pytest.mark.parametrize(
    ("models", "options", "error", "said"),
    [
        (models_of(A), {}, InputError, "two or more checkpoints, got model-0"),
        (models_of(A, A, A), {"ranks": [1]}, InputError, "model-0, model-1, model-2 are equal in every layer"),
        (models_of(A, B), {"ranks": [0]}, OptionError, "a rank must be a whole number from 1, got 0"),
        (models_of(A, B), {"ranks": [True]}, OptionError, "got True"),
        (models_of(A, B), {"ranks": []}, OptionError, "ranks must be a list"),
        (models_of(A, B), {"ranks": 4}, OptionError, "ranks must be a list"),
        (models_of(A, B), {"ranks": [1, 1, 1]}, OptionError, "3 ranks for 2 models"),
        (models_of(A, B), {"ranks": [1], "iterations": 0}, OptionError, "iterations must be"),
        (models_of(A, B), {"ranks": [1], "device": "nowhere"}, OptionError, "device 'nowhere' is not to be had"),
        (models_of(UNET, FLUX), {"ranks": [1]}, MergeError, "one architecture|no tensor in common"),
        (models_of({"x.bias": torch.zeros(4)}, {"x.bias": torch.ones(4)}), {"ranks": [1]}, MergeError, "no linear layer or convolution"),
        (models_of(A, {"x.weight": torch.full((4, 4), torch.nan)}), {"ranks": [1]}, NonFiniteError, "model-1: 'x.weight' holds NaN"),
        (models_of(A, {"x.weight": torch.full((4, 4), torch.inf)}), {"ranks": [1]}, NonFiniteError, "model-1: 'x.weight' holds NaN or"),
        ([Held(A, "a"), Held(B, "b", Space.DELTA)], {"ranks": [1]}, InputError, "take weights with weights"),
    ],
)
def test_bad_input_is_refused(models, options, error, said):
    with pytest.raises(error, match=said):
        wb.lora.hyper_merge(models, **options)


def test_integers_and_markers_are_the_first_models():
    more = {"position_ids": torch.arange(4), "v_pred": torch.zeros(0)}
    found = wb.lora.hyper_merge(models_of(A | more, B | more), ranks=[4])
    assert found.reconstruct(1)["position_ids"].tolist() == [0, 1, 2, 3]
    assert found.reconstruct(1)["x.weight"].tolist() == torch.eye(4).tolist()


def test_two_equal_models_among_others_have_equal_multipliers():
    third = {"x.weight": torch.diag(torch.tensor([0.0, 2, 0, 0]))}
    found = wb.lora.hyper_merge(models_of(A, B, A, third), ranks=[4, 4])
    assert found.multipliers.iloc[0].to_numpy() == pytest.approx(found.multipliers.iloc[2].to_numpy())


def test_a_model_that_does_not_exist_is_not_reconstructed(family):
    for wrong in (5, -6, "sun", True):
        with pytest.raises(OptionError, match="a number below 5 or one of outline, stripes"):
            family.reconstruct(wrong)
    assert squared_error(family.reconstruct(-1), family.reconstruct("pastel")) == 0


def test_multipliers_for_another_architecture_are_refused(family):
    with pytest.raises(WorkbenchError, match=r"nothing|no tensor in common|has none of the layers"):
        family.multipliers_for(Held(FLUX, "flux"))
