"""`compare`: the numbers by hand and against NumPy, which tensors are set side by side, and what is read."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from held import Held
from safetensors.numpy import load_file

import workbench as wb
from workbench.engine.reading import PART
from workbench.errors import InputError, MergeError, MergeWarning, NonFiniteWarning
from workbench.places import DATA
from workbench.tensors import Flat, Scope, Space

average, add_difference = wb.operators.weighted_average, wb.operators.add_difference
UNET, VAE = "model.diffusion_model.", "first_stage_model."
SHAPES = DATA / "shapes-sd"
# where the embedded models keep their blocks, in order
PLACES = {
    **{f"IN{i:02}": rf"{UNET}input_blocks\.{i}\." for i in range(4)},
    "MID": rf"{UNET}middle_block\.",
    **{f"OUT{i:02}": rf"{UNET}output_blocks\.{i}\." for i in range(4)},
    "unet": rf"{UNET}(time_embed|out)\.",
    "text_encoder": "cond_stage_model",
    "vae": VAE,
    "all": "",
}


def held(name: str = "held", **tensors: object) -> Held:
    return Held({key: torch.as_tensor(value) for key, value in tensors.items()}, name)


class Whole(Held):
    """A checkpoint, such as some merges, of which a part costs as much as the whole tensor."""

    scope = Scope.TENSOR

    def origin(self, key: str) -> None:
        return None


def test_two_by_two_by_hand():
    base = held("base", x=[[1.0, 2.0], [2.0, 4.0]])  # its norm is 5
    doubled, turned = held("doubled", x=[[2.0, 4.0], [4.0, 8.0]]), held("turned", x=[[0.0, 0.0], [3.0, 4.0]])
    frame = wb.compare([base, doubled, turned])
    columns = ["cosine", "distance", "norm_ratio", "scale", "tensors"]
    assert list(frame.columns) == columns
    assert frame.loc[("all", "doubled")].tolist() == [1.0, 1.0, 2.0, 0.5, 1]
    # a * b = [0, 0, 6, 16]; a - b = [1, 2, -1, 0]
    expected = pd.Series({"cosine": 22 / 25, "distance": math.sqrt(6) / 5, "norm_ratio": 1.0, "scale": 22 / 25, "tensors": 1.0})
    pd.testing.assert_series_equal(frame.loc[("all", "turned")], expected, check_names=False, rtol=1e-15)
    assert frame.attrs["anchor"] == "base"


def test_the_seeds_example_wants_its_alpha():
    # losslessmix, "Playing with alpha/beta": a and c are in the same space, b is not; the author tried 0.95
    a = held("a", x=[-17.9531, 7.5273, 9.1172, -2.1504, -15.6719, 17.5625])
    b = held("b", x=[-18.7969, 8.0, 9.6016, -2.3867, -16.4219, 18.5])
    c = held("c", x=[-17.9688, 7.3828, 9.6328, -2.3691, -15.4766, 17.6719])
    scale = wb.compare([a, b, c]).loc["all", "scale"]
    assert scale.round(2).to_dict() == {"b": 0.95, "c": 1.0}


def test_it_agrees_with_numpy_on_whole_models():
    names = ["base", "heart", "stripes"]
    frame = wb.compare([wb.open(SHAPES / f"{name}.safetensors") for name in names])
    assert frame.index.equals(pd.MultiIndex.from_product([list(PLACES), names[1:]]))
    files = [load_file(SHAPES / f"{name}.safetensors") for name in names]
    for place, pattern in PLACES.items():
        keys = [key for key, value in files[0].items() if re.match(pattern, key) and value.dtype.kind == "f"]
        anchor, *candidates = (np.concatenate([file[key].ravel() for key in keys]).astype(np.float64) for file in files)
        norm = np.linalg.norm
        for name, candidate in zip(names[1:], candidates, strict=True):
            product = anchor @ candidate
            expected = [
                product / norm(anchor) / norm(candidate),
                norm(anchor - candidate) / norm(anchor),
                norm(candidate) / norm(anchor),
                product / norm(candidate) ** 2,
                len(keys),
            ]
            np.testing.assert_allclose(frame.loc[(place, name)], expected, rtol=1e-11, atol=1e-13)


def test_scale_is_the_factor_with_the_least_distance():
    a, b = (held(name, x=torch.randn(50, dtype=torch.float64)) for name in "ab")
    scale = wb.compare([a, b]).loc[("all", "b"), "scale"]
    distances = [(a["x"] - factor * b["x"]).norm().item() for factor in (scale - 1e-3, scale, scale + 1e-3)]
    assert min(distances) == distances[1]


def test_blocks_stay_in_their_depth_when_sorted_and_grouped():
    keys = ["img_in.bias", "time_in.in_layer.bias", *(f"{stack}_blocks.{i}.x" for i in (10, 2) for stack in ("single", "double"))]
    models = [Held({key: torch.ones(1) for key in keys}, name) for name in ("zebra", "second", "first")]
    frame = wb.compare(models)
    order = ["double_blocks.2", "double_blocks.10", "single_blocks.2", "single_blocks.10", "transformer", "all"]
    assert frame.index.get_level_values("block").unique().tolist() == order
    assert frame.sort_index(ascending=False).sort_index().index.equals(frame.index)
    table = frame["cosine"].unstack()
    assert (table.index.tolist(), table.columns.tolist()) == (order, ["second", "first"])
    assert frame.reset_index().groupby("block")["tensors"].sum().to_dict() == dict.fromkeys(order, 2) | {"transformer": 4, "all": 12}


def test_tensors_match_by_name_without_prefix():
    full = held("full", **{f"{UNET}input_blocks.0.0.bias": [1.0, 1.0], f"{VAE}decoder.conv_in.bias": [1.0]})
    unet = held("unet", **{"input_blocks.0.0.bias": [1.0, 3.0]})
    with pytest.warns(MergeWarning, match=rf"full as anchor, leaves tensors out: 1 not in unet \('{VAE}decoder.conv_in.bias'\)"):
        frame = wb.compare([full, unet])
    assert frame.index.tolist() == [("IN00", "unet"), ("all", "unet")]
    assert frame["distance"].tolist() == pytest.approx([math.sqrt(2)] * 2)


def test_merges_are_compared_as_they_would_be_written():
    a, b = held("a", x=[1.0, 2.0], y=[1.0]), held("b", x=[3.0, 2.0], y=[2.0])
    frame = wb.compare({"a": a, "b": b, "half": average([a, b])})
    assert frame.loc[("all", "half"), "distance"] == pytest.approx(frame.loc[("all", "b"), "distance"] / 2)
    fine = held("fine", x=[1.0 + 2**-12, 1.0])  # float16 cannot tell it from 1
    rounded = average([fine, fine], dtype="float16")
    assert wb.compare([held("ones", x=[1.0, 1.0]), rounded]).loc[("all", "weighted_average"), "distance"] == 0


def test_a_merge_that_cannot_be_made_is_refused_before_anything_is_read():
    a, b = held("a", x=[1.0], y=[1.0]), held("b", x=[1.0])
    with pytest.raises(MergeError, match=r"'y' is only in a"):
        wb.compare([a, add_difference(a, b, a)])
    assert not a.reads
    assert not b.reads


@pytest.mark.parametrize("kind", [Held, Whole])
def test_each_tensor_is_read_once_in_parts_that_depend_on_its_scope(kind):
    tensors = {"long": torch.randn(3, PART // 2 + 1), "short": torch.randn(2, 2)}
    models = [Held(tensors, "a"), Held(tensors, "b"), kind(tensors, "c")]
    wb.compare(models)
    count = tensors["long"].numel()
    flat = [("long", Flat(start, min(start + PART, count))) for start in range(0, count, PART)]
    whole = [("long", None)]
    for model, expected in zip(models, (flat, flat, flat if kind is Held else whole), strict=True):
        assert [read for read in model.reads if read[0] == "long"] == expected
        assert model.reads.count(("short", None)) == 1


def test_the_same_bits_come_of_parts_whole_tensors_and_any_number_of_threads():
    a, b = ({"x": torch.randn(3, PART), "y": torch.randn(7)} for _ in range(2))
    threads, frames = torch.get_num_threads(), []
    try:
        for count, kind in ((1, Held), (3, Held), (2, Whole)):
            torch.set_num_threads(count)
            frames.append(wb.compare([kind(a, "a"), kind(b, "b")]))
    finally:
        torch.set_num_threads(threads)
    assert frames[0].equals(frames[1])
    assert frames[0].equals(frames[2])


def test_norms_of_zero_make_no_number_and_no_noise():
    zero, one = held("zero", x=[0.0]), held("one", x=[1.0])
    np.testing.assert_equal(wb.compare([zero, one]).loc[("all", "one")].tolist(), [math.nan, math.nan, math.nan, 0.0, 1])
    np.testing.assert_equal(wb.compare([one, zero]).loc[("all", "zero")].tolist(), [math.nan, 1.0, 0.0, math.nan, 1])


def test_a_model_is_as_far_from_itself_as_can_be_said_exactly():
    model = held("model", x=torch.randn(1000), y=torch.randn(1000) * 1e-8)
    assert wb.compare([model, model]).loc[("all", "model-2")].tolist() == [1.0, 0.0, 1.0, 1.0, 2]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float64])
def test_dtypes_may_differ(dtype):
    values = torch.tensor([1.0, -0.5, 2.0])
    assert wb.compare([held("a", x=values), held("b", x=values.to(dtype))]).loc[("all", "b"), "distance"] == 0


def test_markers_integers_and_empty_tensors_do_not_count():
    extra = {"v_pred": torch.ones(1), "text_model.embeddings.position_ids": torch.arange(3), "empty": torch.empty(0), "n": torch.tensor(1)}
    a, b = Held({"x": torch.ones(1), **extra}, "a"), held("b", x=[1.0])
    assert wb.compare([a, b])["tensors"].tolist() == [1, 1]
    assert wb.compare([b, a])["tensors"].tolist() == [1, 1]
    assert [key for key, _ in a.reads] == ["x", "x"]


def test_what_is_left_out_is_said_once_with_counts_and_models():
    a = held("a", x=[1.0], shape=[1.0], kind=[1.0], **{f"t{i}": [1.0] for i in range(5)})
    b = held("b", x=[1.0], shape=[[1.0]], kind=[1], more=[1.0])
    c = held("c", x=[1.0], shape=[1.0], kind=[1.0])
    with pytest.warns(MergeWarning) as caught:
        frame = wb.compare([a, b, c])
    (said,) = (str(warning.message) for warning in caught)
    assert said == (
        "compare, with a as anchor, leaves tensors out: 1 of another shape in b ('shape'); 1 not of floats in b ('kind'); "
        "5 not in b and c ('t0', 't1', 't2' and 2 more); 1 only in b ('more')"
    )
    assert caught[0].filename == __file__
    assert frame.loc["all", "tensors"].to_dict() == {"b": 1, "c": 3}


def test_a_block_that_one_candidate_lacks_has_a_row_without_numbers():
    full = {"input_blocks.0.0.bias": torch.ones(1), "middle_block.0.x": torch.ones(1)}
    part = {"middle_block.0.x": torch.ones(1)}
    with pytest.warns(MergeWarning, match="1 not in part"):
        frame = wb.compare([Held(full, "base"), Held(full, "full"), Held(part, "part")])
    assert frame.loc[("IN00", "part"), "tensors"] == 0
    assert frame.loc[("IN00", "part")].drop("tensors").isna().all()


def test_nan_and_infinity_are_left_out_and_said():
    a = held("a", x=[1.0], bad=[math.nan], y=[1.0])
    b = held("b", x=[1.0], bad=[1.0], y=[math.inf])
    c = held("c", x=[2.0], bad=[1.0], y=[1.0])
    with pytest.warns(NonFiniteWarning, match="NaN or infinity: 'bad' in a; 'y' in b; mend the file"):
        frame = wb.compare([a, b, c])
    assert frame.loc["all", "tensors"].to_dict() == {"b": 1, "c": 2}
    assert frame.loc["all", "distance"].tolist() == pytest.approx([0, math.sqrt(1 / 2)])


def test_models_with_nothing_in_common_are_named_with_what_is_the_matter():
    base = held("base", **{f"{UNET}input_blocks.0.0.bias": [1.0]})
    with pytest.raises(MergeError, match=r"base \(SD 1\.x, LDM names\) and other \(generic, plain names\) have no tensor.*1 only in other"):
        wb.compare([base, base, held("other", z=[1.0])])
    with pytest.raises(MergeError, match="1 of another shape in wide"):
        wb.compare([base, held("wide", **{f"{UNET}input_blocks.0.0.bias": [1.0, 2.0]})])
    with pytest.raises(MergeError, match="neither holds floats"):
        wb.compare([held("a", x=[1]), held("b", x=[1])])
    assert not base.reads


def test_weights_are_not_compared_with_changes():
    a, delta = held("a", x=[1.0]), Held({"x": torch.ones(1)}, "lora", Space.DELTA)
    with pytest.raises(InputError, match="a holds weights and lora holds deltas"):
        wb.compare([a, delta])
    assert wb.compare([delta, delta]).loc[("all", "lora-2"), "distance"] == 0


ONE = held("one", x=[1.0])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (ONE, "two or more checkpoints in a list"),
        ("base.safetensors", "two or more checkpoints in a list"),
        (None, "two or more checkpoints in a list"),
        ([], "compare takes two or more checkpoints, got nothing"),
        ({"base": ONE}, "compare takes two or more checkpoints, got base"),
        ([ONE, "base.safetensors"], r"takes checkpoints \(see workbench.open\), got 'base.safetensors'"),
        ({"a": ONE, "b": None}, r"takes checkpoints \(see workbench.open\), got None"),
    ],
)
def test_what_is_no_list_of_checkpoints_is_refused(given, said):
    with pytest.raises(InputError, match=said):
        wb.compare(given)


def test_names_are_made_unique_and_a_mapping_gives_its_own():
    assert wb.compare(iter([ONE, ONE, ONE])).loc["all"].index.tolist() == ["one-2", "one-3"]
    assert wb.compare({"here": ONE, 2: ONE}).loc["all"].index.tolist() == ["2"]
