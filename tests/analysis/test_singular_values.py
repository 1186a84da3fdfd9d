"""`singular_values`: every number by hand and against SciPy, the rank that a LoRA's changes have, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from held import Held
from safetensors.numpy import load_file, save_file

import workbench as wb
from workbench.analysis import singular_values
from workbench.errors import InputError, MergeError, MergeWarning, NonFiniteWarning, OptionError
from workbench.places import DATA

SHAPES = DATA / "shapes-sd"
UNET, ATTENTION = "model.diffusion_model.", "transformer_blocks.0.attn1"
# where a LoRA's names, in kohya's spelling, lie in the single file
PLACES = {"mid_block_attentions_0": "middle_block.1", "down_blocks_0_attentions_0": "input_blocks.1.1"}
LAYERS = ("to_q", "to_k", "to_v", "to_out_0")


def held(name: str = "held", **tensors: object) -> Held:
    return Held({key: torch.as_tensor(value) for key, value in tensors.items()}, name)


def base() -> wb.Checkpoint:
    return wb.open(SHAPES / "base.safetensors")


@pytest.fixture(scope="module")
def with_lora(tmp_path_factory) -> tuple[wb.Checkpoint, list[str]]:
    """The base with the stripes LoRA added to some layers by hand, in float32, and the names of these."""
    lora, tensors = load_file(SHAPES / "lora" / "stripes.safetensors"), load_file(SHAPES / "base.safetensors")
    tensors = {key: value.astype(np.float32) if value.dtype == np.float16 else value for key, value in tensors.items()}
    changed = []
    for kohya, ldm in PLACES.items():
        for layer in LAYERS:
            name = f"lora_unet_{kohya}_transformer_blocks_0_attn1_{layer}"
            down, up, alpha = (lora[f"{name}.{part}"].astype(np.float64) for part in ("lora_down.weight", "lora_up.weight", "alpha"))
            key = f"{UNET}{ldm}.{ATTENTION}.{layer.replace('out_0', 'out.0')}.weight"
            tensors[key] = (tensors[key] + alpha / len(down) * up @ down).astype(np.float32)
            changed.append(key)
    path = tmp_path_factory.mktemp("lora") / "with-lora.safetensors"
    save_file(tensors, path)
    return wb.open(path), changed


def test_two_by_two_by_hand():
    # the singular values of [[3, 0], [4, 5]] are the roots of 45 and 5, in the ratio of 3 to 1
    frame = singular_values(held(x=[[3.0, 0.0], [4.0, 5.0]])).frame("tensor")
    row = frame.iloc[0]
    assert row["norm"] == pytest.approx(math.sqrt(50))
    assert row["largest"] == pytest.approx(math.sqrt(45))
    assert row["effective_rank"] == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))
    assert row["stable_rank"] == pytest.approx(50 / 45)
    assert row[["for_50", "for_90", "for_99"]].tolist() == [1, 1, 2]
    assert row["share"] == row["effective_rank"] / 2
    expected = ["norm", "largest", "effective_rank", "stable_rank", "for_50", "for_90", "for_99", "share", "note"]
    assert list(frame.columns) == ["block", "model", "tensor", "rows", "columns", *expected]


def test_every_number_agrees_with_scipy_on_whole_tensors():
    models = {name: wb.open(SHAPES / f"{name}.safetensors") for name in ("heart", "outline")}
    found = singular_values(models, base=base())
    frame = found.frame("tensor").set_index(["tensor", "model"])
    files = {name: load_file(SHAPES / f"{name}.safetensors") for name in ("base", *models)}
    keys = [key for key, value in files["base"].items() if value.ndim > 1 and min(len(value), value[0].size) > 1]
    assert sorted(keys) == sorted(frame.index.levels[0])
    for key in [key for key in keys if key.startswith(UNET)][::7]:
        for name in models:
            change = files[name][key].astype(np.float64) - files["base"][key]
            s = scipy.linalg.svdvals(change.reshape(len(change), -1))
            p = s / s.sum()
            energy = np.cumsum(s**2) / (s**2).sum()
            expected = {
                "rows": len(change),
                "columns": change[0].size,
                "norm": np.linalg.norm(change),
                "largest": s[0],
                "effective_rank": np.exp(-np.sum(p * np.log(p))),
                "stable_rank": (s**2).sum() / s[0] ** 2,
                **{f"for_{share}": np.argmax(energy >= share / 100) + 1 for share in (50, 90, 99)},
            }
            np.testing.assert_allclose(frame.loc[(key, name), list(expected)].astype(float), list(expected.values()), rtol=1e-7)
    (matrix,) = [one for one in found.matrices if one.key == keys[-1]]
    change = files["heart"][keys[-1]].astype(np.float64) - files["base"][keys[-1]]
    np.testing.assert_allclose(matrix.values[0], scipy.linalg.svdvals(change.reshape(len(change), -1)), atol=1e-7 * matrix.values[0][0])


def test_a_loras_changes_have_at_most_its_rank(with_lora):
    model, changed = with_lora
    frame = singular_values(model, base=base()).frame("tensor").set_index("tensor")
    assert frame.loc[changed, "rows"].min() > 16
    assert (frame.loc[changed, "for_99"] <= 8).all()
    assert (frame.loc[changed, "effective_rank"] < 8.01).all()  # float32 leaves a little noise in the other directions
    assert frame.drop(changed)["effective_rank"].isna().all()
    assert set(frame.drop(changed)["note"]) == {"nothing was changed from base"}
    tuned = singular_values(wb.open(SHAPES / "stripes.safetensors"), base=base()).frame("tensor").set_index("tensor")
    assert (tuned.loc[changed, "effective_rank"] > 16).all()


def test_the_noise_of_float32_lies_far_below_the_rank(with_lora):
    model, changed = with_lora
    for matrix in singular_values(model, base=base()).matrices:
        if matrix.key in changed:
            (values,) = matrix.values
            assert values[7] > 1e-3 * values[0]
            assert values[8] < 1e-4 * values[0]


def test_blocks_are_means_of_their_matrices_and_all_is_the_mean_of_all():
    found = singular_values([wb.open(SHAPES / "heart.safetensors")], base=base())
    tensors, blocks = found.frame("tensor"), found.frame().set_index("block")
    for block in ("IN02", "MID", "all"):
        inside = tensors if block == "all" else tensors[tensors["block"] == block]
        for name in ("norm", "effective_rank", "stable_rank", "for_90", "share"):
            assert blocks.loc[block, name] == pytest.approx(inside[name].mean())
        assert blocks.loc[block, "matrices"] == inside["effective_rank"].notna().sum()
    assert math.isnan(blocks.loc["vae", "effective_rank"])
    assert blocks.loc["vae", "norm"] == 0
    assert blocks.loc["vae", "note"] == "no matrix that has a number"
    order = [*(f"IN{i:02}" for i in range(4)), "MID", *(f"OUT{i:02}" for i in range(4)), "unet", "text_encoder", "vae", "all"]
    assert blocks.index.tolist() == order


def test_an_identity_has_full_rank_and_a_product_of_vectors_rank_one():
    model = held(eye=2.0 * torch.eye(6), outer=torch.outer(torch.arange(1.0, 5), torch.arange(1.0, 9)))
    frame = singular_values(model).frame("tensor").set_index("tensor")
    assert frame.loc["eye", ["effective_rank", "stable_rank", "for_50", "share"]].tolist() == pytest.approx([6, 6, 3, 1])
    assert frame.loc["outer", ["effective_rank", "stable_rank", "for_99"]].tolist() == pytest.approx([1, 1, 1])


def test_falls_are_means_over_matrices_of_any_size():
    model = held(a=torch.eye(4), b=torch.diag(torch.tensor([4.0, 2.0, 0.0])))
    falls = singular_values(model).falls()
    # of a the values stay at 1; of b they fall from 1 over 1/2 to 0, in a straight line
    assert falls["value"].to_numpy() == pytest.approx((1 + 1 - np.linspace(0, 1, 33)) / 2)
    assert falls["position"].iloc[[0, -1]].tolist() == [0, 1]


def test_tensors_without_two_sides_do_not_count():
    model = held(scalar=1.0, row=[1.0, 2.0], column=[[1.0], [2.0]], thin=[[1.0, 2.0]], kernel=torch.randn(2, 1, 2, 1), n=[[1, 2], [3, 4]])
    assert [one.key for one in singular_values(model).matrices] == ["kernel"]
    none = singular_values(held(row=[1.0, 2.0]))
    assert none.frame().empty
    assert "nothing to measure" in repr(none)


def test_zeros_have_no_rank_and_say_so():
    row = singular_values(held(x=torch.zeros(3, 3))).frame("tensor").iloc[0]
    assert (row["norm"], row["largest"], row["note"]) == (0, 0, "the tensor is all zero")
    assert math.isnan(row["effective_rank"])


def test_each_model_is_read_once_with_the_same_numbers_on_any_number_of_threads():
    models = [held(name, x=torch.randn(300, 200), y=torch.randn(7, 30)) for name in ("base", "a", "b")]
    threads, frames = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            frames.append(singular_values(models, base=models[0]).frame("tensor"))
    finally:
        torch.set_num_threads(threads)
    assert frames[0].equals(frames[1])
    assert list(frames[0]["model"].cat.categories) == ["a", "b"]
    for model in models:
        assert sorted(model.reads) == [("x", None)] * 2 + [("y", None)] * 2


def test_a_merge_is_one_of_the_models():
    one, other = held("one", x=torch.eye(2)), held("other", x=[[0.0, 1.0], [1.0, 0.0]])
    half = wb.operators.weighted_average([one, other])  # [[1, 1], [1, 1]] / 2
    frame = singular_values({"one": one, "half": half}).frame("tensor").set_index("model")
    assert frame["effective_rank"].astype(float).tolist() == pytest.approx([2, 1])


def test_nan_is_left_out_and_said():
    good = {"x": torch.eye(2), "y": torch.eye(2)}
    bad = held("bad", x=[[math.nan, 1.0], [1.0, 1.0]], y=torch.eye(2))
    with pytest.warns(NonFiniteWarning, match="'x' in bad"):
        frame = singular_values([Held(good, "good"), bad]).frame("tensor").set_index(["tensor", "model"])
    assert frame.loc[("x", "bad"), "note"] == "holds NaN or infinity, or is not in the model"
    assert frame.loc[("x", "good"), "effective_rank"] == pytest.approx(2)
    assert frame.loc[("y", "bad"), "effective_rank"] == pytest.approx(2)


def test_tensors_of_one_model_alone_are_said():
    with pytest.warns(MergeWarning, match="1 not in b"):
        found = singular_values([held("a", x=torch.eye(2), y=torch.eye(2)), held("b", x=torch.eye(2))])
    assert [one.key for one in found.matrices] == ["x"]


def test_figures_have_a_line_for_each_model_and_a_cell_for_each_block():
    models = [wb.open(SHAPES / f"{name}.safetensors") for name in ("heart", "stripes")]
    found = singular_values(models, base=base())
    figure = found.plot("MID")
    assert [line.name for line in figure.data] == ["heart", "stripes"]
    assert figure.layout.title.text == "Singular values of the changes from base in MID, mean over matrices"
    assert list(found.heat().data[0].x) == ["heart", "stripes"]
    assert "effective rank of the changes from base, over the full: heart" in repr(found)
    with pytest.raises(OptionError, match="block must be one of 'IN00'"):
        found.plot("IN99")
    with pytest.raises(OptionError, match="by must be 'block' or 'tensor', got 'layer'"):
        found.frame("layer")


@pytest.mark.parametrize(
    ("models", "origin", "error", "said"),
    [
        (Path("base.safetensors"), None, InputError, "takes one or more checkpoints in a list"),
        ([], None, InputError, "takes one or more checkpoints, got nothing"),
        (held("a", x=torch.eye(2)), "base", InputError, r"singular_values: base takes checkpoints \(see workbench.open\), got 'base'"),
        (held("a", x=torch.eye(2)), held("b", y=torch.eye(2)), MergeError, "have no tensor in common"),
        (held("a", x=[1]), None, MergeError, "a holds no floats"),
    ],
)
def test_what_makes_no_sense_is_refused(models, origin, error, said):
    with pytest.raises(error, match=said):
        singular_values(models, base=origin)


def test_a_base_alone_is_refused():
    only = held("only", x=torch.eye(2))
    with pytest.raises(InputError, match="one or more checkpoints beside the base"):
        singular_values([only], base=only)
    assert not only.reads
