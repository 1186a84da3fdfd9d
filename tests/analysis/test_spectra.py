"""`spectrum`: every number against NumPy's transform of whole tensors, what merges by construction took, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from held import Held

import workbench as wb
from workbench.errors import InputError, MergeError, MergeWarning, NonFiniteWarning, OptionError
from workbench.places import DATA
from workbench.tensors import PIECE

spectrum, blend = wb.analysis.spectrum, wb.operators.fft_blend
SHAPES = DATA / "shapes-sd"
PURE = {"entanglement_strength": 1.0, "decoherence_factor": 0.0}
CURVE = {"curve": [[0, 1], [0.4, -0.2], [1, -1]]}
HALVES = (0, 0.5, 1)


def held(name: str = "held", **tensors: object) -> Held:
    return Held({key: torch.as_tensor(value) for key, value in tensors.items()}, name)


def noise(name: str, seed: int, shapes: dict[str, tuple[int, ...]]) -> Held:
    generator = torch.Generator().manual_seed(seed)
    return Held({key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}, name)


def family(*names: str) -> list[wb.Checkpoint]:
    return [wb.open(SHAPES / f"{name}.safetensors") for name in names]


def transformed(tensor: torch.Tensor, over: str, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """NumPy's whole orthonormal transform, both halves of it, and the frequency of every coefficient."""
    array = tensor.double().numpy()
    if over in ("row", "matrix") and array.ndim > 1:
        array, axes = array.reshape(len(array), -1), (1,) if over == "row" else (0, 1)
    elif over == "kernel" and array.ndim > 3:
        axes = (2, 3)
    else:
        axes = (dim if -array.ndim <= dim < array.ndim else -1,)
    axes = [axis % array.ndim for axis in axes]
    squares = np.zeros(array.shape)
    for axis in axes:
        own = 2 * np.abs(np.fft.fftfreq(array.shape[axis]))
        squares = squares + (own**2).reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    return np.fft.fftn(array, axes=axes, norm="ortho"), np.sqrt(squares / len(axes))


def test_a_row_by_hand():
    # of [3, 1, -1, 1] the orthonormal transform is [2, 2, 0, 2], at the frequencies 0, 1/2, 1, 1/2
    frame = spectrum(held(x=[[3.0, 1.0, -1.0, 1.0]]), bands=[0, 0.25, 0.75, 1]).frame()
    frame = frame[frame["block"] == "all"]
    assert frame["frequency"].tolist() == [0.125, 0.5, 0.875]
    assert frame["energy"].tolist() == pytest.approx([4, 8, 0])
    assert frame["amplitude"].tolist() == pytest.approx([2, 2, 0])
    assert frame["share"].tolist() == pytest.approx([1 / 3, 2 / 3, 0])
    assert list(frame.columns) == ["block", "model", "frequency", "energy", "amplitude", "share", "note"]


@pytest.mark.parametrize(("over", "dim"), [("dim", -1), ("dim", 0), ("dim", 2), ("row", -1), ("matrix", -1), ("kernel", -1)])
def test_every_number_agrees_with_numpy_on_whole_tensors(over, dim):
    models = family("base", "heart", "outline")
    blocks = {"IN01", "MID"}
    models = [Held({key: one[key] for key in one if one.block(key) in blocks}, name) for one, name in zip(models, "abc", strict=True)]
    frame = spectrum(models, over=over, dim=dim, bands=5).frame().set_index(["block", "model", "frequency"])
    for block in ("IN01", "MID", "all"):
        keys = [key for key in models[0] if block in (models[0].block(key), "all")]
        found = [[transformed(model[key], over, dim) for key in keys] for model in models]
        frequency = np.concatenate([one.ravel() for _, one in found[0]])
        first, second, third = (np.concatenate([one.ravel() for one, _ in each]) for each in found)
        for at, low in enumerate(np.arange(5) / 5):
            inside = (frequency >= low - 1e-12) & ((frequency < low + 0.2 - 1e-12) | (at == 4))
            f, s, x = (one[inside] for one in (first, second, third))
            apart, phased = f - s, (np.abs(f) > 1e-13) & (np.abs(x) > 1e-13)  # of what cancels no phase is left
            expected = {
                "energy": (np.abs(x) ** 2).sum(),
                "amplitude": np.sqrt((np.abs(x) ** 2).mean()),
                "share": (np.abs(x) ** 2).sum() / (np.abs(third) ** 2).sum(),
                "apart": np.sqrt((np.abs(x - f) ** 2).mean()),
                "coherence": np.cos(np.angle(x) - np.angle(f))[phased].mean(),
                "taken": ((x - s) * apart.conj()).real.sum() / (np.abs(apart) ** 2).sum(),
            }
            row = frame.loc[(block, "c")].iloc[at]
            np.testing.assert_allclose(row[list(expected)].astype(float), list(expected.values()), rtol=1e-9, atol=1e-11)
            assert row["note"] == ""


def test_energies_add_up_to_the_sum_of_squares():
    (model,) = family("stripes")
    frame = spectrum(model, over="row").frame()
    squares = sum(model[key].double().square().sum().item() for key in model if model.info(key).is_float)
    total = frame[frame["block"] == "all"]
    assert total["energy"].sum() == pytest.approx(squares, rel=1e-12)
    assert total["share"].sum() == pytest.approx(1)
    assert frame[frame["block"] != "all"]["energy"].sum() == pytest.approx(squares, rel=1e-12)


def test_white_noise_has_its_own_deviation_at_every_frequency_and_no_phase_in_common():
    frame = spectrum([noise(name, seed, {"x": (2000, 64)}) for seed, name in enumerate("ab")], bands=4).frame()
    frame = frame[frame["block"] == "all"]
    assert frame["amplitude"].tolist() == pytest.approx([1] * 8, abs=0.02)
    assert frame.loc[frame["model"] == "a", "coherence"].tolist() == pytest.approx([1] * 4)
    assert frame.loc[frame["model"] == "b", "coherence"].tolist() == pytest.approx([0] * 4, abs=0.02)


def test_a_blend_of_halves_took_the_low_frequencies_of_one_and_the_high_ones_of_the_other():
    heart, moon = family("heart", "moon")
    merge = blend(heart, moon, coefficients={"constant": 0}, low=0.5, high=0.5, over="row", dtype="float32", **PURE)
    found = spectrum(merge)
    unet = [block for block in found.places if block not in ("vae", "text_encoder")]
    taken = found.curves().pivot(index="block", columns="frequency", values="taken").loc[unet]
    below, above = taken.columns < 0.4, taken.columns > 0.6
    np.testing.assert_allclose(taken.loc[:, below], 1, atol=1e-4)
    np.testing.assert_allclose(taken.loc[:, above], 0, atol=1e-4)
    assert found.models == ("heart", "moon", "result")
    assert "of heart, result has 100% at the lowest frequencies and 0% at the highest" in repr(found)


def test_an_average_took_its_weight_everywhere():
    models = family("heart", "moon")
    average = wb.operators.weighted_average(models, weights=[0.3, 0.7], dtype="float32")
    frame = spectrum([*models, average]).frame()
    taken = frame[(frame["model"] == "weighted_average") & frame["taken"].notna()]["taken"]
    assert len(taken) > 100
    np.testing.assert_allclose(taken, 0.3, atol=1e-4)


@pytest.mark.parametrize("how", [{}, {"smooth": True}, {"low": 0.2, "high": 0.8}])
@pytest.mark.parametrize("coefficients", [CURVE, [0.9, -0.3, 0.1]])
def test_the_curves_are_what_an_impulse_shows(coefficients, how):
    # the transform of an impulse is 1 at every frequency, with no imaginary part: what is taken is the weight of the real parts
    impulse, nothing = held("one", **{"x.weight": torch.eye(1, 64)}), held("none", **{"x.weight": torch.zeros(1, 64)})
    curves = spectrum(blend(impulse, nothing, coefficients=coefficients, **how, **PURE), bands=33).curves("tensor")
    np.testing.assert_allclose(curves["real parts"], curves["taken"], atol=1e-6)
    seen = blend.function(torch.eye(1, 64), torch.zeros(1, 64), coefficients=wb_numbers(coefficients), name="weight", **how, **PURE)
    np.testing.assert_allclose(curves["real parts"], torch.fft.rfft(seen)[0].real, atol=1e-6)
    shifted = blend(held("one", **{"x.weight": torch.eye(64)[16:17]}), nothing, coefficients=coefficients, **how, **PURE)
    odd = spectrum(shifted, bands=33).curves("tensor")[1::2]  # at every other frequency the shifted one is imaginary
    np.testing.assert_allclose(odd["imaginary parts"], odd["taken"], atol=1e-6)


def wb_numbers(coefficients: object) -> object:
    return [tuple(point) for point in coefficients["curve"]] if isinstance(coefficients, dict) else coefficients


def test_strength_and_decoherence_bring_the_weights_nearer_to_half():
    models = [noise(name, seed, {"x.weight": (800, 64)}) for seed, name in enumerate("ab")]
    curves = spectrum(blend(*models, coefficients=CURVE, entanglement_strength=0.5, decoherence_factor=0.4), bands=4).curves("tensor")
    pure = spectrum(blend(*models, coefficients=CURVE, **PURE), bands=4).curves("tensor")
    for part in ("real parts", "imaginary parts"):
        np.testing.assert_allclose(curves[part], 0.5 + 0.5 * 0.6 * (pure[part] - 0.5), atol=1e-12)
    middle = (curves["real parts"] + curves["imaginary parts"]) / 2  # noise has as much of both
    np.testing.assert_allclose(curves["taken"], middle, atol=0.01)


def test_coefficients_may_differ_by_block():
    blocks = {"IN*": {"constant": 2}, "default": {"constant": -2}}
    curves = spectrum(blend(*family("heart", "moon"), coefficients={"blocks": blocks}, **PURE), bands=2).curves().set_index("block")
    assert (curves.loc["IN01", "taken"] > 0.9).all()
    assert (curves.loc["OUT01", "taken"] < 0.1).all()
    assert curves.loc["IN01", "real parts"].tolist() == pytest.approx([1 / (1 + math.exp(-10))] * 2)


def test_polar_blends_weigh_magnitudes_and_phases():
    models = [noise(name, seed, {"x.weight": (4, 16)}) for seed, name in enumerate("ab")]
    curves = spectrum(blend(*models, coefficients=CURVE, mix="polar", **PURE)).curves()
    assert list(curves.columns) == ["block", "frequency", "magnitudes", "phases", "taken", "note"]


def test_only_what_the_blend_transforms_counts():
    tensors = {"x.weight": (4, 8), "y.weight": (4, 8), "y.bias": (8,)}
    merge = blend(noise("a", 0, tensors), noise("b", 1, tensors), coefficients=CURVE, rules=[{"match": "y.w*", "take": "first"}])
    assert spectrum(merge).tensors == ("x.weight",)
    with pytest.raises(InputError, match="the merge transforms no tensor"):
        spectrum(blend(held("a", bias=[1.0]), held("b", bias=[2.0]), coefficients=CURVE))


def test_a_merge_is_read_as_it_would_be_written(tmp_path):
    models = family("heart", "moon")
    merge = blend(*models, coefficients=CURVE, dtype="float8_e4m3fn", rules=[{"match": "*.bias", "skip": True}])
    wb.export(merge, tmp_path / "written.safetensors", progress=False)
    found, written = spectrum(merge), spectrum(wb.open(tmp_path / "written.safetensors"))
    energy = found.frame("tensor").query("model == 'result'").set_index(["tensor", "frequency"])["energy"]
    assert energy.equals(written.frame("tensor").set_index(["tensor", "frequency"])["energy"].loc[energy.index])


def test_where_the_models_are_equal_there_is_nothing_to_take_and_it_is_said():
    found = spectrum(blend(*family("heart", "moon"), coefficients=CURVE))
    curves, frame = found.curves(), found.frame()
    equal = curves["block"].isin(["vae", "text_encoder"])
    assert curves.loc[equal, "taken"].isna().all()
    assert set(curves.loc[equal, "note"]) == {"the first two are equal here"}
    assert set(curves.loc[curves["taken"].notna(), "note"]) == {""}
    assert curves.loc[~equal, "taken"].notna().sum() > 100
    moon = frame[frame["block"].isin(["vae", "text_encoder"]) & (frame["model"] == "moon")]
    assert (moon["apart"] == 0).all()
    np.testing.assert_allclose(moon["coherence"], 1, rtol=1e-12)


def test_a_band_without_a_frequency_has_no_number_and_says_so():
    model = held(point=torch.tensor(2.0), one=[3.0], kernel=[[1.0, 2.0, 3.0]], flat=[[5.0, 5.0, 5.0]])
    frame = spectrum([model, model], bands=[0, 0.5, 0.6, 1]).frame("tensor").set_index(["tensor", "model", "frequency"])
    assert frame.loc[("point", "held", 0.25), "energy"] == 4
    assert frame.loc[("one", "held", 0.25), "energy"] == 9
    empty = frame.loc[("kernel", "held", 0.55)]
    assert empty[["energy", "amplitude", "share", "apart", "coherence", "taken"]].isna().all()
    assert empty["note"] == "no tensor has such a frequency"
    flat = frame.loc[("flat", "held", 0.8)]  # rounding is no phase
    assert math.isnan(flat["coherence"])
    assert flat["note"] == "no phase to compare; the first two are equal here"
    assert frame.loc[("kernel", "held", 0.8), "coherence"] == pytest.approx(1)


def test_an_all_zero_model_has_no_share():
    frame = spectrum(held(x=torch.zeros(2, 8)), bands=2).frame()
    assert frame["amplitude"].eq(0).all()
    assert frame["share"].isna().all()
    assert set(frame["note"]) == {"the model is all zero"}


@pytest.mark.parametrize("over", ["row", "matrix"])
def test_every_tensor_is_read_once_with_the_same_numbers_on_any_number_of_threads(over):
    models = [noise(name, seed, {"long": (3, PIECE // 2 + 1), "short": (2, 5)}) for seed, name in enumerate("ab")]
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(spectrum(models, over=over).sums)
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(*found)
    assert sorted(models[0].reads) == [("long", None)] * 2 + [("short", None)] * 2


def test_blocks_come_by_depth_and_the_last_is_all():
    found = spectrum(family("base"))
    order = [*(f"IN{i:02}" for i in range(4)), "MID", *(f"OUT{i:02}" for i in range(4)), "unet", "text_encoder", "vae", "all"]
    assert found.frame()["block"].cat.categories.tolist() == order
    assert found.frame("tensor")["tensor"].nunique() == len(found.tensors) == 506


def test_nan_is_left_out_and_said():
    a, b = held("a", x=[1.0, 2.0], y=[1.0, 1.0]), held("b", x=[math.nan, 2.0], y=[2.0, 0.0])
    with pytest.warns(NonFiniteWarning, match="'x' in b"):
        found = spectrum([a, b], bands=1)
    frame = found.frame().set_index(["block", "model"])
    assert frame.loc[("all", "a"), "energy"] == pytest.approx(7)
    assert frame.loc[("all", "b"), "energy"] == pytest.approx(4)
    assert frame.loc[("all", "a"), "taken"] == pytest.approx(1)
    merge = blend(held("a", **{"x.weight": [1.0, 2.0]}), held("b", **{"x.weight": [math.nan, 2.0]}), coefficients=CURVE)
    with pytest.warns(NonFiniteWarning, match=r"'x\.weight' in b; 'x\.weight' in result"):
        assert spectrum(merge).curves()["taken"].isna().all()


def test_tensors_that_one_model_lacks_are_left_out_and_said():
    with pytest.warns(MergeWarning, match="1 not in b"):
        found = spectrum([held("a", x=[1.0], y=[1.0]), held("b", x=[1.0])])
    assert found.tensors == ("x",)
    with pytest.raises(MergeError, match="have no tensor in common"):
        spectrum([held("a", x=[1.0]), held("b", y=[1.0])])
    with pytest.raises(MergeError, match="holds no floats"):
        spectrum(held("a", x=[1]))


def test_the_figure_shows_models_and_curves_over_frequency():
    found = spectrum(blend(*family("heart", "moon"), coefficients=CURVE, over="row"))
    figure = found.plot("MID")
    assert [line.name for line in figure.data] == [
        "heart", "moon", "result", "heart − moon", "real parts", "imaginary parts", "as measured"
    ]  # fmt: skip
    curves = found.curves().query("block == 'MID'")
    assert figure.data[-1].y.tolist() == curves["taken"].tolist()
    assert figure.data[-1].yaxis == "y2"
    assert [note.text for note in figure.layout.annotations] == ["Share of heart in the result"]
    heat = found.heat()
    assert heat.data[0].y[0] == "IN00"
    assert heat.data[0].z[0][0] == pytest.approx(found.curves()["taken"][0], abs=5e-3)


def test_figures_of_models_side_by_side():
    one, two = spectrum(family("base")), spectrum(family("base", "heart"))
    assert [line.name for line in one.plot().data] == ["base"]
    assert [line.name for line in two.plot().data] == ["base", "heart", "base − heart", "heart"]
    assert two.heat("apart").layout.title.text == "Difference of heart from base, by block and frequency"
    assert [line.line.color for line in two.plot().data[1::2]] == [two.plot().data[1].line.color] * 2  # a model keeps its colour
    assert two.plot().layout.annotations[0].text == "Coherence of heart with base"
    fine = spectrum(noise("fine", 0, {"x": (1, 4000)}), bands=[0, 0.001, 0.003, 1]).heat().data[0].x
    assert list(fine) == ["0.001", "0.002", "0.501"]  # bands that two digits would not tell apart
    with pytest.raises(InputError, match="only an fft_blend merge has curves"):
        two.curves()
    with pytest.raises(OptionError, match="block must be one of 'IN00'"):
        two.plot("IN99")
    with pytest.raises(OptionError, match=r"there is no 'apart' of 'base'; there are"):
        one.heat("apart")
    with pytest.raises(OptionError, match="by must be 'block' or 'tensor'"):
        two.frame("layer")


ONE = held("one", **{"x.weight": [[1.0, 2.0]]})


@pytest.mark.parametrize(
    ("models", "options", "said"),
    [
        ("base.safetensors", {}, "takes one or more checkpoints in a list"),
        ([], {}, "takes one or more checkpoints, got nothing"),
        (ONE, {"bands": 0}, "bands must be a whole number above 0, or edges that rise from 0 to 1; got 0"),
        (ONE, {"bands": [0, 0.5]}, r"edges that rise from 0 to 1; got \[0, 0.5\]"),
        (ONE, {"bands": [0, 0.7, 0.7, 1]}, "edges that rise"),
        (ONE, {"bands": "many"}, "edges that rise"),
        (ONE, {"over": "column"}, "spectrum: over must be one of 'dim', 'row', 'matrix', 'kernel', got 'column'"),
        (ONE, {"dim": 9}, "spectrum: dim must be"),
        (blend(ONE, ONE, coefficients=CURVE), {"over": "row"}, "over is the blend's own, 'dim', got 'row'; for another take"),
    ],
)
def test_what_makes_no_sense_is_refused_before_reading(models, options, said):
    ONE.reads.clear()
    with pytest.raises((InputError, OptionError), match=said):
        spectrum(models, **options)
    assert not ONE.reads


def test_other_merges_are_checkpoints_like_any():
    average = wb.operators.weighted_average([ONE, ONE])
    assert spectrum(average).models == ("weighted_average",)
    assert spectrum(average, over="row").asked is None
