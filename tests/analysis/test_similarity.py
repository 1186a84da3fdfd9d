"""`similarity`: every metric by hand and against NumPy, on places of every kind, and what it says of the embedded family."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch
from held import Held
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

import workbench as wb
from workbench import kernels
from workbench.analysis import similarity
from workbench.analysis.metrics import METRICS, RANK
from workbench.engine.reading import PART
from workbench.errors import InputError, MergeError, MergeWarning, NonFiniteWarning, OptionError
from workbench.places import DATA

SHAPES = DATA / "shapes-sd"
NAMES = ["base", "outline", "stripes", "heart", "moon", "pastel"]


def held(name: str, **tensors: object) -> Held:
    return Held({key: torch.as_tensor(value) for key, value in tensors.items()}, name)


def family(*names: str) -> dict[str, wb.Checkpoint]:
    return {name: wb.open(SHAPES / f"{name}.safetensors") for name in names}


def by_numpy(metric: str, a: np.ndarray, b: np.ndarray) -> float:
    """A metric of two matrices, by another way than the package's."""
    norm = np.linalg.norm
    if metric == "cosine":
        return float((a * b).sum() / norm(a) / norm(b))
    if metric == "distance":
        return float(norm(a - b) / norm(a))
    if metric == "norm_ratio":
        return float(norm(b) / norm(a))
    if metric == "scale":
        return float(np.linalg.lstsq(b.reshape(-1, 1), a.ravel(), rcond=None)[0][0])
    if metric == "sign_agreement":
        return float((np.sign(a) == np.sign(b))[(a != 0) & (b != 0)].mean())
    if metric == "cka":  # HSIC with the centring matrix, as the paper writes it
        centre = np.eye(len(a)) - 1 / len(a)
        k, m = a @ a.T, b @ b.T
        hsic = [np.trace(x @ centre @ y @ centre) for x, y in ((k, m), (k, k), (m, m))]
        return float(hsic[0] / math.sqrt(hsic[1] * hsic[2]))
    side = 0 if a.shape[0] <= a.shape[1] else 2
    rank = min(RANK, min(a.shape) // 2)
    directions = [np.linalg.svd(x)[side] for x in (a, b)]
    u, v = (d[:, :rank] if side == 0 else d[:rank].T for d in directions)
    return float(norm(u.T @ v) ** 2 / rank)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (4, 3, 2, 2)])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("based", [False, True])
def test_every_metric_is_what_numpy_makes_of_the_whole_tensor(metric, shape, based):
    a, b, base = (torch.randn(shape, dtype=torch.float64) for _ in range(3))
    models = {"a": held("a", x=a), "b": held("b", x=b)}
    found = similarity(models, metric=metric, base=held("base", x=base) if based else None)
    one, other = (t.reshape(shape[0], -1).numpy() for t in ((a - base, b - base) if based else (a, b)))
    assert found.matrix().loc["a", "b"] == pytest.approx(by_numpy(metric, one, other), rel=1e-9)
    assert found.matrix().loc["b", "a"] == pytest.approx(by_numpy(metric, other, one), rel=1e-9)


def test_two_by_two_by_hand():
    a, b = held("a", x=[[1.0, 0.0], [0.0, 1.0]]), held("b", x=[[1.0, 1.0], [0.0, -1.0]])
    found = similarity([a, b], metric=list(METRICS))
    row = found.frame().iloc[0]
    # a * b = [1, 0, 0, -1]; a - b = [0, -1, 0, 2]; both are non-zero in two places, of one sign in one
    expected = {"cosine": 0.0, "distance": math.sqrt(5 / 2), "norm_ratio": math.sqrt(3 / 2), "scale": 0.0, "sign_agreement": 0.5}
    # centred, two rows are opposite in any matrix, so that their kernels differ by a factor: CKA is 1
    assert row[[*expected, "cka"]].astype(float).to_dict() == pytest.approx(expected | {"cka": 1.0})
    # a's leading direction is not defined, for its singular values are equal: between 0 and 1 is all there is to say
    assert 0 <= row["subspace_overlap"] <= 1


def test_numbers_of_a_block_are_those_of_all_its_elements_together():
    names = ["base", "heart", "moon"]
    frame = similarity(family(*names), by="block", metric=["cosine", "sign_agreement"]).frame()
    heart, moon = (load_file(SHAPES / f"{name}.safetensors") for name in names[1:])
    keys = [key for key in heart if "input_blocks.1." in key]
    a, b = (np.concatenate([file[key].ravel() for key in keys]).astype(np.float64)[None] for file in (heart, moon))
    (row,) = frame[(frame["place"] == "IN01") & (frame["first"] == "heart") & (frame["second"] == "moon")].to_dict("records")
    assert row["tensors"] == len(keys)
    for metric in ("cosine", "sign_agreement"):
        assert row[metric] == pytest.approx(by_numpy(metric, a, b), rel=1e-11)


def test_places_are_blocks_layers_or_tensors_and_last_all():
    tensors = {"input_blocks.0.0.weight": torch.ones(2, 2), "input_blocks.0.0.bias": torch.ones(2), "out.2.bias": torch.ones(2)}
    models = [Held(tensors, "a"), Held(tensors, "b")]
    places = {by: list(similarity(models, by=by).places) for by in ("model", "block", "layer", "tensor")}
    assert places == {
        "model": ["all"],
        "block": ["IN00", "unet", "all"],
        "layer": ["input_blocks.0.0", "out.2", "all"],
        "tensor": [*tensors, "all"],
    }


def test_the_embedded_variants_share_vae_and_text_encoder():
    frame = similarity(family(*NAMES), by="block", metric="distance").frame().set_index("place")
    assert (frame.loc[["vae", "text_encoder"], "distance"] == 0).all()
    assert (frame.loc["MID", "distance"] > 0).all()


def test_skills_minus_base_is_the_sum_of_two_deltas():
    models = family("base", "heart", "moon")
    base = models.pop("base")
    models["both"] = wb.operators.task_arithmetic(base, list(models.values()), weights=1.0)
    gram = similarity(models, metric=["cosine", "norm_ratio"], base=base)
    cosine, ratio = gram.matrix(metric="cosine"), gram.matrix(metric="norm_ratio").loc["heart"]
    # |h + m|^2 = |h|^2 + |m|^2 + 2 h m, relative to |h|^2; float16 rounds the result
    both = 1 + ratio["moon"] ** 2 + 2 * cosine.loc["heart", "moon"] * ratio["moon"]
    assert ratio["both"] ** 2 == pytest.approx(both, rel=2e-3)
    assert cosine.loc["heart", "both"] == pytest.approx((1 + cosine.loc["heart", "moon"] * ratio["moon"]) / math.sqrt(both), abs=1e-3)


def test_the_averages_cosines_follow_from_the_gram_matrix():
    models = family("heart", "moon")
    average = wb.operators.weighted_average(list(models.values()), dtype="float32")
    found = similarity(models | {"average": average}, metric=["cosine", "norm_ratio"])
    cosine, ratio = found.matrix(metric="cosine").loc["heart", "moon"], found.matrix(metric="norm_ratio").loc["heart", "moon"]
    expected = (1 + cosine * ratio) / math.sqrt(1 + ratio**2 + 2 * cosine * ratio)
    assert found.matrix(metric="cosine").loc["heart", "average"] == pytest.approx(expected, abs=1e-7)


def test_differences_below_single_precision_are_measured():
    one = torch.randn(1000, dtype=torch.float64)
    other = one.clone()
    other[7] += 1e-12
    models = [held("far", x=one + 1), held("one", x=one), held("other", x=other)]
    distance = similarity([models[1], models[2], models[0]], metric="distance").matrix()
    assert distance.loc["one", "other"] == pytest.approx(1e-12 / one.norm().item(), rel=1e-3)
    assert similarity([*models[1:], models[1]], metric="distance").matrix().loc["one", "one-2"] == 0


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_metrics_stay_in_their_range_and_a_model_is_like_itself(rows, columns, seed):
    torch.manual_seed(seed)
    models = [held(name, x=torch.randn(rows, columns)) for name in "abc"]
    found = similarity(models, metric=["cosine", "sign_agreement", "cka", "subspace_overlap"])
    for metric, low in (("cosine", -1), ("sign_agreement", 0), ("cka", 0), ("subspace_overlap", 0)):
        values = found.matrix(metric=metric).to_numpy()
        there = values[~np.isnan(values)]
        assert ((there >= low - 1e-9) & (there <= 1 + 1e-9)).all()
        np.testing.assert_allclose(values, values.T, atol=1e-9)
        assert np.nan_to_num(values, nan=1).diagonal() == pytest.approx(1)


def test_the_first_model_does_not_matter():
    models = family("heart", "moon", "pastel")
    turned = dict(reversed(models.items()))
    one, other = (similarity(group, metric=["cosine", "distance"]) for group in (models, turned))
    for metric in ("cosine", "distance"):
        pd.testing.assert_frame_equal(one.matrix(metric=metric), other.matrix(metric=metric).loc[list(models), list(models)], rtol=1e-9)


@pytest.mark.parametrize(("metrics", "reads"), [(["cosine", "distance", "sign_agreement"], 2), (list(METRICS), 1)])
def test_each_file_is_read_once_for_all_metrics_in_parts_where_these_do(metrics, reads):
    models = [Held({"long": torch.randn(3, PART // 2 + 1)}, name) for name in "ab"]
    similarity(models, metric=metrics)
    assert [len(model.reads) for model in models] == [reads, reads]


def test_metrics_asked_together_are_those_asked_alone():
    models = [held(name, x=torch.randn(40, 30)) for name in "abc"]
    together = similarity(models, metric=list(METRICS), base=models[0]).frame()
    for metric in METRICS:
        pd.testing.assert_series_equal(together[metric], similarity(models, metric=metric, base=models[0]).frame()[metric], rtol=1e-12)


def test_what_is_undefined_is_nan_with_the_reason():
    zero, flat, other = held("zero", x=[[0.0, 0.0]] * 2), held("flat", x=[[1.0, 2.0]] * 2), held("other", x=[[1.0, 2.0], [3.0, 5.0]])
    frame = similarity([zero, flat, other], metric=["cosine", "cka"]).frame().set_index(["first", "second"])
    assert math.isnan(frame.loc[("zero", "flat"), "cosine"])
    assert "one of the two is all zero" in frame.loc[("zero", "flat"), "note"]
    assert frame.loc[("flat", "other"), "cosine"] > 0.9
    assert frame.loc[("flat", "other"), "note"] == "cka: all rows are equal in one of the two"
    single = similarity([held("a", x=[2.0]), held("b", x=[3.0])], metric=["cosine", "subspace_overlap"]).frame()
    assert single["cosine"].tolist() == [1, 1]
    assert single["note"].tolist() == ["subspace_overlap: too few directions to compare"] * 2


def test_a_model_without_change_from_the_base_has_no_direction():
    base = held("base", x=[1.0, 2.0])
    found = similarity([base, held("same", x=[1.0, 2.0]), held("a", x=[2.0, 2.0]), held("b", x=[1.0, 3.0])], base=base)
    assert found.models == ("same", "a", "b")
    assert found.matrix().loc["a", "b"] == 0
    assert math.isnan(found.matrix().loc["same", "a"])


def test_tensors_that_one_model_lacks_count_for_the_others():
    full = {"x": torch.tensor([1.0, 0.0]), "y": torch.tensor([1.0])}
    models = [Held(full, "a"), Held(full, "b"), Held({"x": torch.tensor([0.0, 1.0])}, "c")]
    with pytest.warns(MergeWarning, match=r"similarity, with a as anchor, leaves tensors out: 1 not in c \('y'\)"):
        found = similarity(models)
    assert found.frame().set_index(["first", "second"])["tensors"].to_dict()[("a", "c")] == 1
    assert found.matrix().loc["a", "b"] == pytest.approx(1)
    assert found.matrix().loc["b", "c"] == 0


@pytest.mark.parametrize("metric", ["cosine", "cka"])
def test_nan_is_left_out_where_it_is_and_said(metric):
    good, bad = torch.randn(4, 4), torch.randn(4, 4)
    bad[1, 2] = math.nan
    models = [held(name, x=good, y=good if name != "b" else bad) for name in "abc"]
    with pytest.warns(NonFiniteWarning, match="similarity leaves out what holds NaN or infinity: 'y' in b; mend the file"):
        frame = similarity(models, metric=metric).frame().set_index(["first", "second"])
    assert frame["tensors"].to_dict() == {("a", "b"): 1, ("a", "c"): 2, ("b", "a"): 1, ("b", "c"): 1, ("c", "a"): 2, ("c", "b"): 1}


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16])
def test_small_dtypes_are_measured_as_the_numbers_they_hold(dtype):
    values = torch.tensor([[1.0, -0.5], [2.0, 4.0]])
    assert similarity([held("a", x=values), held("b", x=values.to(dtype))], metric="distance").matrix().loc["a", "b"] == 0


def test_models_alike_stand_beside_each_other():
    torch.manual_seed(0)
    one, other = torch.randn(2, 500)
    near = [held(f"{name}{i}", x=tensor + 0.01 * torch.randn(500)) for i in range(2) for name, tensor in (("one", one), ("other", other))]
    order = similarity(near).order
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({"one0", "one1"}), frozenset({"other0", "other1"})}


def test_a_result_says_what_there_is_to_see_and_shows_its_figure(monkeypatch):
    monkeypatch.setattr("plotly.io.renderers.default", "plotly_mimetype")  # as in a notebook
    found = similarity(family("base", "heart", "moon"))
    assert found.headline.startswith("cosine: most alike base and moon (0.99")
    shown = found._repr_mimebundle_()
    assert shown["text/plain"] == f"<Similarity: {found.headline}>"
    assert "application/vnd.plotly.v1+json" in shown
    assert found.plot().data[0].z.shape == (3, 3)
    blocks = similarity(family("base", "heart", "moon"), by="block", metric=["cosine", "distance"])
    assert list(blocks.plot("distance").data[0].x) == ["base · heart", "base · moon", "heart · moon"]


def test_many_pairs_are_drawn_against_the_first():
    models = [held(f"m{i}", **{"input_blocks.0.0.bias": torch.randn(3)}) for i in range(7)]
    assert list(similarity(models, by="block").plot().data[0].x) == [f"m0 · m{i}" for i in range(1, 7)]


ONE = held("one", x=[1.0])


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (([ONE],), InputError, "similarity takes two or more checkpoints, got one"),
        (([ONE, ONE], "blocks"), OptionError, "by must be one of 'model', 'block', 'layer', 'tensor', got 'blocks'"),
        (([ONE, ONE], "model", "cosin"), OptionError, "metric must be one or more of 'cosine', .*, got 'cosin'"),
        (([ONE, ONE], "model", []), OptionError, r"metric must be one or more of .*, got \[\]"),
        (([ONE, held("z", z=[1.0])],), MergeError, "similarity: one .* and z .* have no tensor in common"),
    ],
)
def test_bad_input_is_refused_before_anything_is_read(arguments, error, said):
    with pytest.raises(error, match=said):
        similarity(*arguments)
    assert not ONE.reads


def test_a_base_that_is_none_is_refused():
    with pytest.raises(InputError, match="similarity: base takes checkpoints"):
        similarity([ONE, ONE], base="base.safetensors")
    with pytest.raises(MergeError, match="no tensor in common"):
        similarity([ONE, ONE], base=held("z", z=[1.0]))
    with pytest.raises(InputError, match="two or more checkpoints beside the base, got two"):
        similarity([ONE, held("two", x=[1.0])], base=ONE)


def test_a_place_or_metric_that_was_not_measured_is_refused():
    found = similarity([ONE, ONE])
    with pytest.raises(OptionError, match="place must be one of 'all', got 'IN00'"):
        found.matrix("IN00")
    with pytest.raises(OptionError, match="one that was measured, 'cosine'; got 'cka'"):
        found.plot("cka")


@pytest.mark.skipif(not kernels.available(), reason="numba is not installed")
@pytest.mark.parametrize("bad", [None, 0, PART + 9])
@pytest.mark.parametrize("base", [False, True])
def test_large_tensors_have_the_numbers_that_plain_code_finds(bad, base, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(PART // 1000 + 1, 1000, generator=generator)  # a part, and a short one
    noise = [first + 0.01 * torch.randn(first.shape, generator=generator) for _ in range(3)]
    if bad is not None:
        noise[2].view(-1)[bad] = math.nan
    models = [
        held(name, x=one.to(dtype)) for name, one, dtype in zip("abc", noise, (torch.float16, torch.bfloat16, torch.float32), strict=True)
    ]
    asked = {"metric": ["cosine", "distance", "norm_ratio", "scale", "sign_agreement"], "base": models[0] if base else None}
    told = pytest.warns(NonFiniteWarning, match="'x' in c") if bad is not None else nullcontext()
    with told:
        found = similarity(models, **asked)
    with monkeypatch.context() as patch, told:
        patch.setattr(kernels, "available", lambda: False)
        plain = similarity(models, **asked)
    for metric, values in found.values.items():
        np.testing.assert_allclose(values, plain.values[metric], rtol=1e-11)
