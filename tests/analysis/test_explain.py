"""`explain`: the numbers by hand and against NumPy, every warning provoked and absent, what is read, and what is shown."""

from __future__ import annotations

import base64
import io
import math
import re

import numpy as np
import pytest
import torch
from held import Held
from PIL import Image
from safetensors.numpy import load_file

import workbench as wb
from workbench.errors import InputError, MergeError, MergeWarning, NonFiniteWarning, OptionError, RenderError
from workbench.places import DATA
from workbench.tensors import Space

average, task_arithmetic, ties = wb.operators.weighted_average, wb.operators.task_arithmetic, wb.operators.ties
SHAPES = DATA / "shapes-sd"
UNET, VAE = "model.diffusion_model.", "first_stage_model."
IN0, IN1, MID = f"{UNET}input_blocks.0.0.weight", f"{UNET}input_blocks.1.0.weight", f"{UNET}middle_block.0.weight"
COLUMNS = [
    *("place", "parent", "cosine", "distance", "norm_ratio", "change_rank", "high_frequencies", "parent_high_frequencies"),
    *("nearest", "tied", "equal", "tensors", "note"),
]


def held(name: str = "held", **tensors: object) -> Held:
    return Held({key: torch.as_tensor(value) for key, value in tensors.items()}, name)


def shapes(*names: str) -> list[wb.Checkpoint]:
    return [wb.open(SHAPES / f"{name}.safetensors") for name in names]


def row(found, parent: str, place: str = "all"):
    frame = found.frame()
    return frame[(frame["place"] == place) & (frame["parent"] == parent)].iloc[0]


def kinds(found) -> list[str]:
    return [finding.kind for finding in found.warnings]


def test_two_by_two_by_hand():
    a, b = held("a", x=[[4.0, 0], [0, 0]]), held("b", x=[[0.0, 0], [3, 0]])
    found = wb.explain(average([a, b], weights=[0.75, 0.25]))  # [[3, 0], [0.75, 0]]
    one = row(found, "a")
    assert one["cosine"] == pytest.approx(12 / (4 * math.sqrt(9 + 0.5625)))
    assert one["distance"] == pytest.approx(math.sqrt(1 + 0.5625) / 4)
    assert one["norm_ratio"] == pytest.approx(math.sqrt(9 + 0.5625) / 4)
    assert one["change_rank"] == pytest.approx(1 / 2)  # [[-1, 0], [0.75, 0]] has one singular value of two
    assert one["high_frequencies"] == pytest.approx(1 / 2)  # rows [3, 0]: 3 at the mean, 3 at the highest frequency
    assert (one["nearest"], one["tied"], one["equal"]) == (2 / 4, 2 / 4, 2 / 4)
    other = row(found, "b")
    assert (other["nearest"], other["tied"], other["equal"]) == (0, 2 / 4, 2 / 4)
    assert other["distance"] == pytest.approx(math.sqrt(9 + 2.25**2) / 3)


def test_elements_from_each_tell_ties_apart():
    a, b, c = held("a", x=[1.0, 1, 5, 0]), held("b", x=[2.0, 1, 1, 0]), held("c", x=[9.0, 7, 1, 0])
    found = wb.explain(average([a, b, c], weights=[1, 0, 0]))  # a: alone in the first and third, with b in the second, all in the last
    frame = found.frame().set_index(["place", "parent"]).loc["all"]
    assert frame["nearest"].tolist() == [2 / 4, 0, 0]
    assert frame["tied"].tolist() == [2 / 4, 2 / 4, 1 / 4]
    assert frame["equal"].tolist() == [1, 2 / 4, 1 / 4]


def test_the_change_of_rank_one_has_an_effective_rank_of_one_and_equal_singular_values_a_full_one():
    torch.manual_seed(0)
    base = held("base", x=torch.randn(6, 10, dtype=torch.float64))
    line = held("line", x=base["x"] + torch.outer(torch.arange(1.0, 7), torch.arange(1.0, 11)))
    turned = held("turned", x=base["x"] + torch.eye(6, 10))
    for model, share in ((line, 1 / 6), (turned, 1)):
        found = wb.explain(average([base, model], weights=[0, 1]))
        assert row(found, "base")["change_rank"] == pytest.approx(share, rel=1e-5)


def test_it_agrees_with_numpy_on_whole_models():
    heart, outline = shapes("heart", "outline")
    merge = ties(heart, [outline], density=0.3)
    found = wb.explain(merge)
    frame = found.frame()
    assert list(frame.columns) == COLUMNS
    files = {name: load_file(SHAPES / f"{name}.safetensors") for name in ("heart", "outline")}
    result = {key: merge[key].double().numpy() for key in merge if merge.info(key).is_float}
    for place, pattern in {"MID": rf"{UNET}middle_block\.", "text_encoder": "cond_stage", "all": ""}.items():
        keys = [key for key in result if re.match(pattern, key)]
        whole = np.concatenate([result[key].ravel() for key in keys])
        parents = {name: np.concatenate([file[key].ravel() for key in keys]).astype(float) for name, file in files.items()}
        gaps = {name: np.abs(whole - parent) for name, parent in parents.items()}
        for name, other in (("heart", "outline"), ("outline", "heart")):
            norm, got = np.linalg.norm, row(found, name, place)
            ranks, sizes = [], []
            for key in keys:
                change = result[key] - files[name][key].astype(float)
                if change.ndim > 1 and change.any():
                    values = np.linalg.svd(change.reshape(len(change), -1), compute_uv=False)
                    shares = values[values > 0] / values.sum()
                    ranks.append(math.exp(-(shares * np.log(shares)).sum()) / len(values))
                    sizes.append(change.size)
            expected = {
                "cosine": whole @ parents[name] / norm(whole) / norm(parents[name]),
                "distance": norm(whole - parents[name]) / norm(parents[name]),
                "norm_ratio": norm(whole) / norm(parents[name]),
                "change_rank": np.average(ranks, weights=sizes) if ranks else math.nan,
                "high_frequencies": _high([result[key] for key in keys]),
                "parent_high_frequencies": _high([files[name][key].astype(float) for key in keys]),
                "nearest": (gaps[name] < gaps[other]).mean(),
                "tied": (gaps[name] == gaps[other]).mean(),
                "equal": (gaps[name] == 0).mean(),
            }
            np.testing.assert_allclose(got[list(expected)].astype(float), list(expected.values()), rtol=1e-6, atol=1e-12)
            assert got["tensors"] == len(keys)


def _high(tensors: list[np.ndarray]) -> float:
    """By a full transform: frequencies beyond a quarter of a cycle per element."""
    high = total = 0.0
    for tensor in tensors:
        if tensor.shape[-1] > 1:
            energy = np.abs(np.fft.fft(tensor)) ** 2
            high += energy[..., np.abs(np.fft.fftfreq(tensor.shape[-1])) > 0.25].sum()
            total += energy.sum()
    return high / total


def test_what_is_known_of_an_average_shows():
    heart, moon = shapes("heart", "moon")
    found = wb.explain(average([heart, moon]))
    apart = wb.compare([heart, moon]).loc[("all", "moon"), "distance"]
    assert row(found, "heart")["distance"] == pytest.approx(apart / 2, rel=1e-3)  # half-way, but for rounding to fp16
    for place in ("vae", "text_encoder"):
        same = row(found, "moon", place)
        assert (same["distance"], same["nearest"], same["tied"], same["equal"]) == (0, 0, 1, 1)
        assert same["note"] == "change_rank: no matrix changed"
        assert math.isnan(same["change_rank"])


def test_the_blocks_that_moved_most_come_first_and_the_whole_last():
    names = (IN0, IN1, MID, f"{VAE}decoder.conv_in.weight")
    a, b = (
        Held({key: torch.full((2, 2), value) for key, value in zip(names, values, strict=True)}, name)
        for name, values in (("a", (1.0, 1.0, 1.0, 1.0)), ("b", (1.1, 1.3, 1.2, 1.0)))
    )
    found = wb.explain(average([a, b]))
    assert found.order == ["IN01", "MID", "IN00", "vae"]
    frame = found.frame()
    assert frame["place"].tolist() == [place for place in (*found.order, "all") for _ in "ab"]
    assert frame.sort_values("place")["place"].unique().tolist() == ["IN00", "IN01", "MID", "vae", "all"]
    assert "moved most from a in IN01, MID, IN00" in found.headline


def test_a_parent_that_lacks_tensors_counts_where_it_has_them():
    a = Held({IN0: torch.ones(2, 2), MID: torch.ones(2, 2)}, "a")
    part = Held({MID: 3 * torch.ones(2, 2)}, "part")
    found = wb.explain(average([a, part], rules=[{"match": IN0, "merge": True}]))
    assert row(found, "part")["tensors"] == 1
    assert row(found, "part")["distance"] == pytest.approx(1 / 3)
    assert row(found, "part", "IN00")["note"] == "no tensor that could be compared"
    assert math.isnan(row(found, "part", "IN00")["distance"])
    assert row(found, "a", "IN00")["nearest"] == 1


def test_what_only_a_later_parent_has_is_explained_too():
    a, b = (
        Held({IN0: torch.ones(2, 2), MID: torch.ones(2, 2)}, "a"),
        Held({IN0: torch.ones(2, 2), IN1: torch.ones(2, 2), MID: torch.ones(2, 2)}, "b"),
    )
    found = wb.explain(average([a, b], rules=[{"match": IN1, "merge": True}]))
    assert (row(found, "b", "IN01")["tensors"], row(found, "a", "IN01")["tensors"]) == (1, 0)


def test_a_parent_counts_once_and_merges_are_parents_like_any_other():
    a, b = held("a", x=[1.0, 2]), held("b", x=[3.0, 2])
    inner = average([a, b])
    found = wb.explain(wb.operators.add_difference(a, inner, a))
    assert found.parents == ("a", "weighted_average")
    assert row(found, "weighted_average")["distance"] == 0
    nested = wb.explain(average([inner, b]))
    assert (nested.result, nested.parents) == ("weighted_average-2", ("weighted_average", "b"))
    assert row(nested, "weighted_average")["distance"] == pytest.approx(0.5 / math.sqrt(8))


def test_changes_are_no_parents():
    base, lora = held("base", x=[[1.0, 2]]), Held({"x": torch.ones(1, 2)}, "lora", Space.DELTA)
    with pytest.warns(MergeWarning, match="explain leaves out lora: changes are no weights"):
        found = wb.explain(task_arithmetic(base, [lora]))
    assert found.parents == ("base",)
    assert row(found, "base")["distance"] == pytest.approx(math.sqrt(2 / 5))


def test_the_result_is_read_as_it_would_be_written():
    fine = held("fine", x=[1.0 + 2**-12, 1.0])  # float16 cannot tell it from 1
    found = wb.explain(average([fine, held("ones", x=[1.0, 1.0])], dtype="float16"))
    assert row(found, "ones")["distance"] == 0
    assert row(found, "fine")["distance"] == pytest.approx(2**-12 / math.sqrt(2), rel=1e-3)
    assert row(found, "fine")["equal"] == 1  # rounded as the result is


# what goes wrong, and what does not


@pytest.mark.parametrize(
    "merge",
    [
        lambda base, heart, moon: average([heart, moon]),
        lambda base, heart, moon: task_arithmetic(base, [heart, moon]),
        lambda base, heart, moon: ties(base, [heart, moon], weights=1.3),
        lambda base, heart, moon: average([heart, moon], dtype="float8_e4m3fn"),
        lambda base, heart, moon: average([heart, moon], rules=[{"component": "unet", "take": "heart"}]),
    ],
    ids=["average", "sum", "ties", "float8", "asked for"],
)
def test_a_healthy_merge_gives_no_warning(merge):
    found = wb.explain(merge(*shapes("base", "heart", "moon")))
    assert found.warnings == ()
    assert found.headline.endswith("nothing looks wrong")


def test_the_average_of_strangers_shrinks():
    torch.manual_seed(0)
    a, b = ({IN0: torch.randn(64, 64), MID: torch.ones(8, 8) + 0.1 * torch.randn(8, 8)} for _ in "ab")
    (finding,) = wb.explain(average([Held(a, "a"), Held(b, "b")])).warnings
    assert (finding.kind, finding.places, finding.tensors) == ("norm", ("IN00",), (IN0,))
    left = ((a[IN0] + b[IN0]).norm() / 2 / min(a[IN0].norm(), b[IN0].norm())).item()
    assert f"of the smallest parent's norm there is left {left:.0%} in IN00" in finding.text
    assert "task_arithmetic" in finding.text


def test_a_block_that_is_one_parents_to_the_bit_is_told_with_its_name():
    heart, moon = shapes("heart", "moon")
    (finding,) = wb.explain(average([heart, moon], weights={"blocks": {"MID": [1, 0], "default": [0.5, 0.5]}})).warnings
    assert (finding.kind, finding.places) == ("copy", ("MID",))
    assert finding.tensors == tuple(key for key in heart if heart.block(key) == "MID")
    assert finding.text.startswith("MID is heart's to the bit, though the parents differ there")


def test_a_copy_of_the_only_model_that_changed_is_no_matter():
    base, same = (Held({IN0: torch.ones(2, 2)}, name) for name in ("base", "same"))
    tuned, further = Held({IN0: 2 * torch.ones(2, 2)}, "tuned"), Held({IN0: torch.full((2, 2), 1.5)}, "further")
    assert wb.explain(task_arithmetic(base, [tuned, same])).warnings == ()
    found = wb.explain(task_arithmetic(base, [tuned, further], weights=[1, 0]))
    assert kinds(found) == ["copy"]
    assert "IN00 is tuned's to the bit" in found.warnings[0].text


def test_nan_is_told_with_the_parent_that_has_it():
    a = Held({IN0: torch.ones(2), MID: torch.tensor([1.0, math.nan])}, "a")
    b = Held({IN0: torch.ones(2), MID: torch.ones(2)}, "b")
    with pytest.warns(NonFiniteWarning, match="explain leaves out what holds NaN or infinity"):
        found = wb.explain(average([a, b]))
    (finding,) = found.warnings
    assert (finding.kind, finding.places, finding.tensors) == ("nan", ("MID",), (MID,))
    assert f"1 tensor of MID ('{MID}')" in finding.text
    assert "a holds it already: mend that file" in finding.text
    assert row(found, "a")["tensors"] == 1


def test_an_overflow_is_the_merges_own():
    a, b = (held(name, x=torch.tensor([value, 1], dtype=torch.float16)) for name, value in (("a", 60000.0), ("b", 50000.0)))
    with pytest.warns(NonFiniteWarning, match=r"'x' in task_arithmetic"):
        found = wb.explain(task_arithmetic(b, [a], weights=2))
    assert kinds(found) == ["nan"]
    assert "no parent does: the merge leaves the range of its dtype" in found.warnings[0].text
    assert found.headline == "task_arithmetic: no tensor that could be compared with a parent's"
    assert list(found.frame().columns) == COLUMNS
    assert found.frame()["note"].tolist() == ["no tensor that could be compared"] * 2
    assert "the range of its dtype" in found._repr_html_()
    assert [list(line.x) for line in found.plot().data] == [["all"]] * len(found.plot().data)


@pytest.mark.parametrize(("dtype", "largest"), [("float8_e4m3fn", 448), ("float8_e5m2", 57344), ("float16", 65504)])
def test_saturation_is_counted(dtype, largest):
    a, b = held("a", x=[1.0, 2.0, float(largest)]), held("b", x=[1.0, 3.0, -float(largest)])
    merge = average([a, b], weights=[1, 0], dtype=dtype)
    (finding,) = (one for one in wb.explain(merge).warnings if one.kind == "saturation")
    assert (finding.places, finding.tensors) == (("other",), ("x",))
    assert f"1 element of other ('x') at the largest value that {dtype} holds" in finding.text
    smaller = average([held("a", x=[1.0, 2.0, largest / 2]), b], weights=[1, 0], dtype=dtype)
    assert "saturation" not in kinds(wb.explain(smaller))


def test_a_vae_that_was_averaged_is_told_with_the_rule_that_mends_it():
    torch.manual_seed(0)
    key = f"{VAE}decoder.conv_in.weight"
    a, b = (Held({key: torch.ones(4, 4) + 0.05 * torch.randn(4, 4), MID: torch.ones(2, 2) + 0.1 * i}, "ab"[i]) for i in (0, 1))
    found = wb.explain(average([a, b]))
    (finding,) = found.warnings
    assert (finding.kind, finding.places, finding.tensors) == ("vae", ("vae",), (key,))
    assert f"{row(found, 'a', 'vae')['distance']:.2%}" in finding.text or f"{row(found, 'b', 'vae')['distance']:.2%}" in finding.text
    rule = {"component": "vae", "take": "models[0]"}
    assert f"rules=[{rule}]" in finding.text
    assert wb.explain(average([a, b], rules=[rule])).warnings == ()


def test_a_vae_that_only_rounding_changed_was_not_averaged():
    torch.manual_seed(0)
    weights = torch.randn(8, 8)
    key = f"{VAE}decoder.conv_in.weight"
    a, b = Held({key: weights}, "a"), Held({key: weights.half()}, "b")
    assert wb.explain(average([a, b], dtype="float16")).warnings == ()


def test_gains_that_become_alike_are_told():
    torch.manual_seed(0)
    key = f"{UNET}middle_block.0.in_layers.0.weight"
    gains = [torch.rand(512) for _ in "ab"]
    a, b = (Held({key: 2 + gain, MID: torch.ones(2, 2) + 0.1 * gain[0]}, name) for name, gain in zip("ab", gains, strict=True))
    (finding,) = wb.explain(average([a, b])).warnings
    assert (finding.kind, finding.places, finding.tensors) == ("collapse", ("MID",), (key,))
    left = (((gains[0] + gains[1]) / 2).std() / min(gain.std() for gain in gains)).item()
    assert f"of the smallest parent's spread there is left {left:.0%} in MID" in finding.text
    assert "arXiv:2211.08403" in finding.text


# what is read, and what is refused


def test_every_tensor_of_every_parent_is_read_once_beside_the_merges_own_reading():
    a, b = (held(name, x=torch.randn(20, 30), y=torch.randn(7)) for name in "ab")
    merge = average([a, b])
    wb.explain(merge)
    assert sorted(a.reads) == sorted(b.reads) == [("x", None)] * 2 + [("y", None)] * 2  # once for itself, once by the merge


def test_the_same_bits_come_of_any_number_of_threads():
    torch.manual_seed(0)
    a, b = (Held({key: torch.randn(200, 300) for key in (IN0, IN1, MID)}, name) for name in "ab")
    threads, frames = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            frames.append(wb.explain(average([a, b])).frame())
    finally:
        torch.set_num_threads(threads)
    assert frames[0].equals(frames[1])


def test_markers_integers_and_empty_tensors_do_not_count():
    extra = {"v_pred": torch.ones(1), "empty": torch.empty(0), "n": torch.tensor(1)}
    a, b = (Held({"x": torch.ones(2), **extra}, name) for name in "ab")
    assert wb.explain(average([a, b])).frame()["tensors"].unique().tolist() == [1]


def test_norms_of_zero_and_single_elements_make_no_number_but_a_reason():
    zero, one = held("zero", x=torch.zeros(1)), held("one", x=torch.ones(1))
    found = row(wb.explain(average([zero, one])), "zero")
    assert found[["cosine", "distance", "norm_ratio", "change_rank", "high_frequencies"]].isna().all()
    assert "cosine: one of the two is all zero; distance: the parent is all zero" in found["note"]


ONE = held("one", x=[1.0])
MERGE = average([ONE, ONE])


@pytest.mark.parametrize(
    ("merge", "options", "error", "said"),
    [
        (ONE, {}, InputError, r"explain takes a merge, got <Held 'one'.*Recipe\.from_file\(path\)\.build\(\)"),
        ([ONE, ONE], {}, InputError, "explain takes a merge"),
        (MERGE, {"renderer": object()}, OptionError, "a renderer draws prompts"),
        (MERGE, {"renderer": object(), "prompts": "a star"}, OptionError, "a renderer draws prompts"),
        (wb.operators.add_difference(ONE, held("other", z=[1.0]), ONE), {}, MergeError, "cannot be made"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(merge, options, error, said):
    with pytest.raises(error, match=said):
        wb.explain(merge, **options)
    assert not ONE.reads


class Refusing:
    """A renderer that holds nothing."""

    def check(self, model: wb.Checkpoint) -> None:
        raise RenderError(f"{model.name} does not fit")


def test_a_renderer_that_cannot_hold_a_model_says_so_before_anything_is_read():
    a, b = held("a", x=[1.0]), held("b", x=[2.0])
    with pytest.raises(RenderError, match="does not fit"):
        wb.explain(average([a, b]), renderer=Refusing(), prompts=["a star"])
    assert not a.reads


# what is shown


class Painter:
    """A renderer that draws a colour for each model and seed."""

    def __init__(self) -> None:
        self.checked: list[str] = []
        self.held = ""

    def check(self, model: wb.Checkpoint) -> None:
        self.checked.append(model.name)

    def load(self, model: wb.Checkpoint, *, progress: bool = True) -> None:
        self.held = model.name

    def images(self, prompts, seeds, *, progress=True) -> list[Image.Image]:
        return [Image.new("RGB", (8, 8), (len(self.held), len(prompt), seed)) for prompt in prompts for seed in seeds]


def test_pictures_of_parents_and_result_stand_side_by_side():
    a, b = held("a", x=[1.0]), held("bee", x=[2.0])
    painter = Painter()
    found = wb.explain(average([a, b]), renderer=painter, prompts=["one", "three"], seeds=(4, 5))
    assert sorted(painter.checked) == ["a", "bee", "weighted_average"]
    assert painter.held == "weighted_average"
    shown = found._repr_html_()
    cells = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^']+)'", shown)]
    expected = [
        (len(name), len(prompt), seed) for prompt in ("one", "three") for seed in (4, 5) for name in ("a", "bee", "weighted_average")
    ]
    assert [cell.getpixel((0, 0)) for cell in cells] == expected


def test_the_pictures_of_a_real_renderer_are_those_it_draws():
    heart, moon = shapes("heart", "moon")
    renderer, prompt = wb.Renderer(SHAPES / "config"), ["a red heart on a white background"]
    merge = average([heart, moon])
    found = wb.explain(merge, renderer=renderer, prompts=prompt)
    assert list(found.pictures.images) == ["heart", "moon", "weighted_average"]
    for name, model in (("heart", heart), ("weighted_average", merge)):
        renderer.load(model)
        assert found.pictures.images[name][0].tobytes() == renderer.images(prompt)[0].tobytes()


def test_a_cell_shows_the_sentence_the_warnings_and_the_blocks_that_moved_most():
    heart, moon = shapes("heart", "moon")
    found = wb.explain(average([heart, moon], weights={"blocks": {"MID": [1, 0], "default": [0.5, 0.5]}}))
    shown = found._repr_mimebundle_()
    assert shown["text/plain"] == f"<Explanation: {found.headline}>"
    assert "to look at: copy" in found.headline
    page = shown["text/html"]
    order = [
        found.headline,
        "MID is heart&#x27;s to the bit",
        "<table",
        "distance from",
        *(f">{place}<" for place in (*found.order[:2], "all")),
    ]
    places = [page.index(words) for words in order]
    assert places == sorted(places)


def test_the_figure_has_a_line_for_each_parent_in_depth_order():
    found = wb.explain(average(shapes("heart", "moon")))
    figure = found.plot()
    frame = found.frame().sort_values(["place", "parent"])
    frame = frame[frame["place"] != "all"]
    quantities = {"y": "distance", "y2": "norm_ratio", "y3": "nearest", "y4": "change_rank", "y5": "parent_high_frequencies"}
    assert len(figure.layout.annotations) == len(quantities)
    drawn = {(line.name, line.yaxis): line for line in figure.data}
    for axis, quantity in quantities.items():
        for parent in ("heart", "moon"):
            expected = frame[frame["parent"] == parent]
            assert list(drawn[parent, axis].x) == expected["place"].tolist()
            np.testing.assert_array_equal(drawn[parent, axis].y, expected[quantity])
    np.testing.assert_array_equal(drawn["weighted_average", "y5"].y, frame["high_frequencies"][frame["parent"] == "heart"])
    assert len(drawn) == 2 * len(quantities) + 1


def test_html_in_a_models_name_is_text():
    evil = "<img src=x onerror=alert(1)>"
    a, b = held(evil, x=torch.ones(2, 2)), held("b", x=torch.zeros(2, 2))
    shown = wb.explain(average([a, b], weights=[3, 1]))._repr_html_()
    assert evil not in shown
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown
    assert evil not in wb.preflight(average([a, b]))._repr_html_()
