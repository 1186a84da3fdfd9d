"""`recover`: ratios and residuals against NumPy's least squares on whole models, and what it says of merges whose making is known."""

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
from workbench.tensors import Space

average, arithmetic = wb.operators.weighted_average, wb.operators.task_arithmetic
UNET = "model.diffusion_model."
BLOCKS = [*(f"IN{i:02}" for i in range(4)), "MID", *(f"OUT{i:02}" for i in range(4))]
PLACES = [*BLOCKS, "unet", "text_encoder", "vae", "all"]
EQUAL = ["text_encoder", "vae"]  # in all of the family


def held(name: str = "held", **tensors: object) -> Held:
    return Held({key: torch.as_tensor(value) for key, value in tensors.items()}, name)


def noise(name: str, seed: int, count: int = 4000, dtype: torch.dtype = torch.float16) -> Held:
    return held(name, x=torch.randn(count, generator=torch.Generator().manual_seed(seed)).to(dtype))


def some(family: dict[str, wb.Checkpoint], *names: str) -> dict[str, wb.Checkpoint]:
    return {name: family[name] for name in names}


def test_two_numbers_by_hand():
    # 0.62 a + 0.35 b, where a = (1, 0, 1) and b = (0, 1, 1), and 0.03 along (1, 1, -1), which is square to both
    a, b = held("a", x=[1.0, 0.0, 1.0]), held("b", x=[0.0, 1.0, 1.0])
    found = wb.recover(held("mystery", x=torch.tensor([0.65, 0.38, 0.94], dtype=torch.float64)), [a, b])
    pd.testing.assert_series_equal(found.ratios.loc["all"], pd.Series({"a": 0.62, "b": 0.35}, name="all"))
    residual = 0.03 * math.sqrt(3) / math.sqrt(0.65**2 + 0.38**2 + 0.94**2)
    assert found.residual["all"] == pytest.approx(residual)
    # one element to spare; the inverse of ((2, 1), (1, 2)) has 2/3 on its diagonal
    row = found.frame().set_index(["block", "candidate"]).loc[("all", "a")]
    assert row["error"] == pytest.approx(math.sqrt(0.0027 * 2 / 3))
    assert row["nearest"] * math.sqrt(0.65**2 + 0.38**2 + 0.94**2) == pytest.approx(math.sqrt(0.35**2 + 0.38**2 + 0.06**2))
    assert row["explained"] == pytest.approx(1 - 0.0027 / (0.35**2 + 0.38**2 + 0.06**2))
    assert found.headline == "mystery: 0.62 a + 0.35 b, residual 4.3 %, where rounding leaves 0.00013 %: something else is in it too"


@pytest.mark.parametrize(("mystery", "candidates"), [("average", ("heart", "moon")), ("skills", ("base", "heart", "stripes"))])
def test_every_number_is_that_of_numpy_on_whole_models(family, made, mystery, candidates):
    found = wb.recover(made[mystery], some(family, *candidates))
    target, *files = (
        load_file(path) for path in (made[mystery].path, *(DATA / "shapes-sd" / f"{name}.safetensors" for name in candidates))
    )
    assert list(found.ratios.index) == PLACES
    for place in PLACES:
        keys = [key for key in target if target[key].dtype.kind == "f" and place in ("all", made[mystery].block(key) or _component(key))]
        y, *columns = (np.concatenate([file[key].ravel() for key in keys]).astype(np.float64) for file in (target, *files))
        design = np.stack(columns, 1)
        ratios = np.linalg.lstsq(design, y)[0]
        left = np.linalg.norm(y - design @ ratios)
        assert found.residual[place] == pytest.approx(left / np.linalg.norm(y), rel=1e-9, abs=1e-14)
        assert found.rows[place].tensors == len(keys)
        if place in EQUAL:
            continue
        np.testing.assert_allclose(found.ratios.loc[place], ratios, rtol=1e-8, atol=1e-9)
        covariance = np.linalg.inv(design.T @ design) * left**2 / (len(y) - len(columns))
        np.testing.assert_allclose(found.rows[place].fit.errors, np.sqrt(np.diag(covariance)), rtol=1e-6)
        nearest = min(np.linalg.norm(y - column) for column in columns) / np.linalg.norm(y)
        assert found.rows[place].relative("far") == pytest.approx(nearest)


def _component(key: str) -> str:
    return {"model": "unet", "first_stage_model": "vae", "cond_stage_model": "text_encoder"}[key.partition(".")[0]]


def test_the_demos_average_is_found_among_all_models_to_a_thousandth(family, made):
    found = wb.recover(made["average"], family)
    np.testing.assert_allclose(found.ratios.drop(index=EQUAL), np.tile([0, 0.5, 0.5, 0, 0], (len(PLACES) - 2, 1)), atol=1e-3)
    assert re.fullmatch(r"average: 0\.50 \w+ \+ 0\.50 \w+, residual 0\.021 %, no more than rounding leaves", found.headline)
    assert found.frame()["fits"].all()


def test_the_demos_skills_are_what_task_arithmetic_made_them_of(family, made):
    found = wb.recover(made["skills"], some(family, "base", "heart", "moon"))
    np.testing.assert_allclose(found.ratios.drop(index=EQUAL), np.tile([-1, 1, 1], (len(PLACES) - 2, 1)), atol=1e-3)
    assert re.search(r"1\.00 (heart|moon) \+ 1\.00 (heart|moon) - 1\.00 base", found.headline)
    weighted = arithmetic(family["base"], [family["heart"], family["moon"]], weights=[1.1, 0.9])
    np.testing.assert_allclose(wb.recover(weighted, some(family, "base", "heart", "moon")).ratios.loc["all"], [-1, 1.1, 0.9], atol=1e-3)


def test_the_demos_ramp_is_found_block_by_block(family, made):
    found = wb.recover(made["ramp"], some(family, "outline", "stripes"))
    # the recipe: outline alone at IN00, stripes alone at OUT03; IN00 is 0, MID 12, OUT03 16
    shares = np.array([0, 1, 2, 3, 12, 13, 14, 15, 16]) / 16
    np.testing.assert_allclose(found.ratios.loc[BLOCKS], np.stack([1 - shares, shares], 1), atol=1e-3)
    np.testing.assert_allclose(found.ratios.loc["unet"], [0.5, 0.5], atol=1e-3)
    assert (found.residual.drop(index="all") < 3e-4).all()
    assert found.residual["all"] > 0.03  # no two numbers are right everywhere
    told = "ramp: ratios differ by block, outline 0.00 to 1.00, stripes 0.00 to 1.00, residual 0.017 %, no more than rounding leaves"
    assert found.headline == told
    assert wb.recover(made["ramp"], family).headline == told


@pytest.mark.parametrize(
    ("mystery", "candidates"),
    [("average", ("base", "heart")), ("skills", ("heart", "moon")), ("ramp", ("outline", "heart")), ("ramp", ("stripes",))],
)
def test_with_a_parent_hidden_it_says_that_no_candidates_fit(family, made, mystery, candidates):
    found = wb.recover(made[mystery], some(family, *candidates))
    assert found.headline.startswith(f"{mystery}: no candidates fit: the nearest, ")
    assert found.residual["all"] > 0.02
    frame = found.frame().drop_duplicates("block").set_index("block")
    assert not frame.loc["all", "fits"]
    assert frame.loc[EQUAL, "fits"].all()
    assert "it fits only in " in found.headline


def test_a_model_that_is_no_merge_of_its_siblings_fits_none_though_the_residual_is_small(family):
    found = wb.recover(family["moon"], some(family, "base", "heart"))
    assert found.residual["all"] < 0.05
    assert found.headline.startswith("moon: no candidates fit: the nearest, base, is 4.8 % away")


def test_a_tenth_of_a_hidden_parent_is_noticed(family):
    three = average([family[name] for name in ("heart", "moon", "outline")], weights=[0.45, 0.45, 0.1])
    assert "no candidates fit" in wb.recover(three, some(family, "heart", "moon")).headline


def test_a_rule_shows_in_the_rows_of_its_component(family):
    unlike = Held(
        {key: value * 0.5 for key, value in family["moon"].items() if key.startswith("first_stage_model.decoder.conv_in")}, "moon"
    )
    moon = Held(dict(family["moon"]) | dict(unlike), "moon")
    merge = average([family["heart"], moon], weights=[0.3, 0.7], rules=[{"component": "vae", "take": "models[0]"}])
    found = wb.recover(merge, {"heart": family["heart"], "moon": moon})
    np.testing.assert_allclose(found.ratios.loc["vae"], [1, 0], atol=1e-9)
    np.testing.assert_allclose(found.ratios.loc[[*BLOCKS, "unet"]], np.tile([0.3, 0.7], (10, 1)), atol=1e-3)
    assert "ratios differ by block, heart 0.30 to 1.00, moon 0.00 to 0.70" in found.headline


def test_where_candidates_are_equal_there_are_no_ratios_but_a_reason_and_a_residual(family, made):
    found = wb.recover(made["average"], some(family, "heart", "moon"))
    assert found.ratios.loc[EQUAL].isna().all(axis=None)
    assert found.notes[EQUAL].tolist() == ["heart and moon are equal, 1.00 together"] * 2
    assert found.residual[EQUAL].tolist() == [0, 0]
    frame = found.frame()
    assert frame.loc[frame["ratio"].isna(), "note"].tolist() == ["heart and moon are equal, 1.00 together"] * 4
    assert (frame.loc[frame["ratio"].notna(), "note"] == "").all()


def test_a_candidate_beside_two_equal_ones_keeps_its_ratio():
    a, b = noise("a", 1), noise("b", 2)
    found = wb.recover(average([a, b], weights=[0.4, 0.6]), {"a": a, "again": a, "b": b})
    assert found.ratios.loc["all", ["a", "again"]].isna().all()
    assert found.ratios.loc["all", "b"] == pytest.approx(0.6, abs=1e-4)
    assert found.notes["all"] == "a and again are equal, 0.40 together"
    assert "0.60 b + 0.40 a or again" in found.headline


def test_the_same_model_in_two_precisions_counts_as_equal():
    wide, other = noise("wide", 1, dtype=torch.float32), noise("other", 2)
    half = held("half", x=wide["x"].half())
    found = wb.recover(average([wide, other], dtype="float16"), [wide, half, other])
    assert found.notes["all"] == "wide and half are equal to within rounding, 0.50 together"
    assert found.ratios.loc["all", "other"] == pytest.approx(0.5, abs=1e-3)


def test_ratios_of_candidates_apart_by_little_more_than_rounding_are_called_rough():
    base = noise("", 0, 50_000, torch.float32)["x"]
    notes, off = [], []
    for apart in (3e-4, 1e-3, 5e-3):
        a, b = (held(name, x=(base + apart * noise("", seed, 50_000)["x"]).half()) for seed, name in enumerate("ab", 1))
        found = wb.recover(average([a, b], weights=[0.6, 0.4]), [a, b])
        notes.append(found.notes["all"])
        off.append(abs(found.rows["all"].fit.ratios[0] - 0.6))
    assert notes == [
        "a and b are equal to within rounding, 1.00 together",
        "the candidates differ by little more than rounding: ratios are rough",
        "",
    ]
    assert off[0] > 0.1 > off[1] > 0.01 > 1e-3 > off[2]  # the reasons are right


def test_a_candidate_that_is_a_merge_of_the_others_leaves_no_ratios(family, made):
    found = wb.recover(made["average"], some(family, "base", "heart", "moon") | {"skills": made["skills"]})
    assert found.ratios.loc["all"].isna().all()
    assert found.notes["all"] == "base, heart, moon and skills are sums of each other to within rounding, 1.00 together"
    assert found.residual["all"] == pytest.approx(2e-4, rel=0.2)


def test_candidates_that_are_alike_in_all_but_a_hundredth_are_told_apart():
    base = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    a, b, c = (held(name, x=(base + 0.01 * noise("", seed, 20_000)["x"]).half()) for seed, name in enumerate("abc", 1))
    for weights in ([0.2, 0.3, 0.5], [1.5, -0.8, 0.3]):
        mystery = average([a, b, c], weights=weights)  # of float16, and saved so
        np.testing.assert_allclose(wb.recover(mystery, [a, b, c]).ratios.loc["all"], weights, atol=1e-3)


def test_errors_cover_the_truth_about_as_often_as_standard_errors_do():
    a, b = noise("a", 1), noise("b", 2)
    inside = []
    for seed in range(40):
        left = 0.03 * noise("", 100 + seed)["x"].double()
        found = wb.recover(held("mystery", x=0.62 * a["x"].double() + 0.35 * b["x"].double() + left), [a, b])
        row = found.rows["all"].fit
        inside.extend(np.abs(row.ratios - [0.62, 0.35]) < row.errors)
    assert 0.55 < np.mean(inside) < 0.8  # 68 % of a normal distribution


def test_all_is_one_least_squares_and_no_mean_of_blocks():
    keys = {"small": f"{UNET}input_blocks.0.0.bias", "large": f"{UNET}middle_block.0.x"}

    def model(name: str, seed: int, scale: float = 1) -> Held:
        return Held({keys["small"]: noise("", seed, 10)["x"], keys["large"]: scale * noise("", seed + 1, 1000)["x"]}, name)

    a, b = model("a", 1), model("b", 3)
    ratios = {"blocks": {"IN00": [1, 0], "default": [0, 1]}}
    found = wb.recover(average([a, b], weights=ratios, dtype="float32"), [a, b])
    assert found.ratios.loc["IN00"].tolist() == pytest.approx([1, 0], abs=1e-6)
    assert found.ratios.loc["MID"].tolist() == pytest.approx([0, 1], abs=1e-6)
    assert found.ratios.loc["all", "b"] > 0.95


@pytest.mark.parametrize(
    ("dtype", "apart"), [("float16", 1e-3), ("bfloat16", 1e-2), ("float8_e4m3fn", 0.1), ("float8_e5m2", 0.1), ("float32", 1e-6)]
)
def test_a_merge_saved_in_any_dtype_is_known_by_its_rounding(family, dtype, apart):
    mystery = average([family["heart"], family["moon"]], weights=[0.6, 0.4], dtype=dtype)
    found = wb.recover(mystery, some(family, "heart", "moon"))
    np.testing.assert_allclose(found.ratios.loc["all"], [0.6, 0.4], atol=apart / 10)
    np.testing.assert_allclose(found.ratios.loc[BLOCKS], np.tile([0.6, 0.4], (9, 1)), atol=apart)
    assert found.headline.endswith("no more than rounding leaves")
    if dtype != "float32":
        assert found.rows["all"].relative("rounding") == pytest.approx(found.residual["all"], rel=0.5)


def test_a_checkpoint_that_is_a_candidate_is_called_so(family):
    found = wb.recover(family["heart"], family)
    assert found.headline == "heart: the same numbers as heart"
    assert found.ratios.loc["MID"].tolist() == pytest.approx([0, 1, 0, 0, 0], abs=1e-9)
    assert found.residual["all"] == pytest.approx(0, abs=1e-12)


def test_one_candidate_alone_has_a_ratio_too():
    a = noise("a", 1)
    found = wb.recover(held("half", x=a["x"].float() * 0.5), [a])
    assert found.headline.startswith("half: 0.50 a, residual ")
    assert found.ratios.loc["all", "a"] == pytest.approx(0.5)


def test_a_single_element_fits_anything_and_says_so():
    a, b = held("a", x=[2.0]), held("b", x=[3.0])
    alone = wb.recover(held("mystery", x=[1.0]), [a])
    assert alone.ratios.loc["all", "a"] == pytest.approx(0.5)
    assert alone.notes["all"] == "no more elements than candidates: any numbers would fit"
    assert math.isnan(alone.frame()["error"][0])
    both = wb.recover(held("mystery", x=[1.0]), [a, b])
    assert both.ratios.loc["all"].isna().all()
    assert both.notes["all"].startswith("a and b are sums of each other to within rounding")
    assert both.residual["all"] == pytest.approx(0, abs=1e-12)


def test_tensors_of_zeros_make_no_number_and_no_noise():
    a, zero = noise("a", 1), held("zero", x=torch.zeros(4000))
    found = wb.recover(a, {"a": a, "zero": zero})
    assert found.ratios.loc["all", "a"] == pytest.approx(1)
    assert math.isnan(found.ratios.loc["all", "zero"])
    assert found.notes["all"] == "zero is all zero"
    nothing = wb.recover(zero, [a])
    assert nothing.ratios.loc["all", "a"] == pytest.approx(0, abs=1e-12)
    assert math.isnan(nothing.residual["all"])
    assert nothing.notes["all"] == "the checkpoint is all zero"
    assert wb.recover(zero, [zero]).ratios.isna().all(axis=None)


def test_constant_tensors_are_multiples_of_each_other():
    ones, twos, other = held("ones", x=torch.ones(50)), held("twos", x=torch.full((50,), 2.0)), noise("other", 1, 50)
    found = wb.recover(held("mystery", x=torch.ones(50) + other["x"]), [ones, twos, other])
    assert found.ratios.loc["all", "other"] == pytest.approx(1, abs=1e-6)
    assert found.ratios.loc["all", ["ones", "twos"]].isna().all()


def test_a_tensor_that_a_candidate_lacks_does_not_count():
    keys = {"x": noise("", 1)["x"], "y": noise("", 2)["x"]}
    a, b = Held(keys, "a"), Held({"x": noise("", 3)["x"]}, "b")
    mystery = Held({"x": 0.5 * keys["x"].double() + 0.5 * b["x"].double(), "y": keys["y"] * 5}, "mystery")
    with pytest.warns(MergeWarning, match=r"mystery as anchor, leaves tensors out: 1 not in b \('y'\)"):
        found = wb.recover(mystery, [a, b])
    assert found.rows["all"].tensors == 1
    assert found.ratios.loc["all"].tolist() == pytest.approx([0.5, 0.5])


def test_a_candidate_without_a_component_has_no_ratio_there():
    keys = [f"{UNET}middle_block.0.x", "first_stage_model.decoder.conv_in.bias"]
    full, part = Held({key: noise("", i)["x"] for i, key in enumerate(keys)}, "full"), Held({keys[0]: noise("", 5)["x"]}, "part")
    with pytest.warns(MergeWarning, match="1 not in part"):
        found = wb.recover(full, {"full": full, "part": part})
    assert found.ratios.loc["vae"].fillna(-1).tolist() == pytest.approx([1, -1])
    assert found.notes["vae"] == "part has no tensor here"


def test_nan_is_left_out_and_said():
    bad = noise("", 1)["x"].clone()
    bad[7] = math.nan
    a, b = Held({"x": noise("", 2)["x"], "y": noise("", 3)["x"]}, "a"), Held({"x": bad, "y": noise("", 4)["x"]}, "b")
    mystery = average([a, Held({"x": noise("", 1)["x"], "y": b["y"]}, "b")], dtype="float32")
    with pytest.warns(NonFiniteWarning, match="'x' in b"):
        found = wb.recover(mystery, [a, b])
    assert found.rows["all"].tensors == 1
    assert found.ratios.loc["all"].tolist() == pytest.approx([0.5, 0.5], abs=1e-6)
    with pytest.warns(NonFiniteWarning, match="'x' in mystery"):
        nothing = wb.recover(held("mystery", x=bad), [noise("a", 2)])
    assert nothing.headline == "mystery: no tensor that all candidates have"
    assert nothing.ratios.isna().all(axis=None)
    assert len(nothing.frame()) == 1
    assert nothing.plot().data


def test_changes_are_made_of_changes():
    a, b = (Held({"x": noise("", seed)["x"]}, name, Space.DELTA) for seed, name in enumerate("ab"))
    mystery = Held({"x": 0.2 * a["x"].double() + 0.7 * b["x"].double()}, "sum", Space.DELTA)
    assert wb.recover(mystery, [a, b]).ratios.loc["all"].tolist() == pytest.approx([0.2, 0.7])
    with pytest.raises(InputError, match="held holds weights and a holds deltas"):
        wb.recover(held(x=[1.0]), [a])


def test_every_file_is_read_once_and_the_same_bits_come_of_any_number_of_threads():
    tensors = [{"x": torch.randn(3, PART), "y": torch.randn(7)} for _ in range(3)]
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            models = [Held(one, name) for one, name in zip(tensors, "yab", strict=True)]
            found.append(wb.recover(models[0], models[1:]))
            assert [len(model.reads) for model in models] == [4, 4, 4]
    finally:
        torch.set_num_threads(threads)
    pd.testing.assert_frame_equal(found[0].frame(), found[1].frame(), check_exact=True)


def test_the_result_shows_its_sentence_and_its_figure(family, made):
    found = wb.recover(made["ramp"], some(family, "outline", "stripes"))
    assert repr(found) == f"<Recovery: {found.headline}>"
    figure = found.plot()
    scatters, (bars,) = ([trace for trace in figure.data if trace.type == kind] for kind in ("scatter", "bar"))
    points = {line.name: line for line in scatters if line.mode == "markers"}
    np.testing.assert_array_equal(points["stripes"].y, found.ratios["stripes"])
    joined = [line for line in scatters if line.mode == "lines"]
    assert [list(line.x) for line in joined] == [BLOCKS, BLOCKS]  # what follows lies in no depth
    np.testing.assert_allclose(bars.y, 100 * found.residual)
    assert re.sub("<[^>]*>", " ", figure.layout.title.text).split() == f"What ramp is made of {found.headline}".split()
    assert found._repr_mimebundle_()["text/plain"] == repr(found)


def test_the_frame_is_tidy(family, made):
    frame = wb.recover(made["average"], some(family, "heart", "moon")).frame()
    columns = ["block", "candidate", "ratio", "error", "residual", "rounding", "nearest", "explained", "fits", "tensors", "note"]
    assert list(frame.columns) == columns
    assert frame["block"].cat.categories.tolist() == PLACES
    assert frame["candidate"].cat.categories.tolist() == ["heart", "moon"]
    assert len(frame) == 2 * len(PLACES)


@pytest.mark.parametrize(
    ("mystery", "candidates", "error", "said"),
    [
        (noise("a", 1), [], InputError, "recover: candidates takes one or more checkpoints, got nothing"),
        (noise("a", 1), noise("a", 1), InputError, "one or more checkpoints in a list"),
        (noise("a", 1), "heart.safetensors", InputError, "one or more checkpoints in a list"),
        (noise("a", 1), {"b": 3}, InputError, "takes checkpoints .see workbench.open., got 3"),
        ("heart.safetensors", [noise("a", 1)], InputError, "recover takes checkpoints .see workbench.open., got 'heart.safetensors'"),
        (
            noise("a", 1),
            [held("b", z=[1.0])],
            MergeError,
            r"a \(generic, plain names\) and b \(generic, plain names\) have no tensor in common",
        ),
        (noise("a", 1), [held("b", x=[1.0])], MergeError, "1 of another shape in b"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_read(mystery, candidates, error, said):
    with pytest.raises(error, match=said):
        wb.recover(mystery, candidates)
    assert not getattr(mystery, "reads", [])
