"""`interference`: the numbers by hand, against NumPy and against TIES' own trimming; what the hint says of known changes."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from held import Held
from safetensors.numpy import load_file

import workbench as wb
from workbench.analysis import interference
from workbench.errors import InputError, MergeError, MergeWarning, NonFiniteWarning, OptionError
from workbench.places import DATA

SHAPES = DATA / "shapes-sd"
UNET = "model.diffusion_model."
COLUMNS = ["place", "first", "second", "first_norm", "second_norm", "cosine", "overlap", "overlap_by_chance", "conflict", "tensors", "note"]


def held(name: str = "held", **tensors: object) -> Held:
    return Held({key: torch.as_tensor(value) for key, value in tensors.items()}, name)


def shapes(*names: str) -> list[wb.Checkpoint]:
    return [wb.open(SHAPES / f"{name}.safetensors") for name in names]


def tuned(base: torch.Tensor, *changes: torch.Tensor) -> tuple[Held, list[Held]]:
    """A base of one tensor, and models that differ from it by the changes."""
    return held("base", x=base), [held("abcdef"[i], x=base + change) for i, change in enumerate(changes)]


def row(found, place: str = "all", pair: int = 0):
    frame = found.frame()
    return frame[frame["place"] == place].iloc[pair]


def test_ten_elements_by_hand():
    base, models = tuned(
        torch.tensor([3.0, 4, 0, 0, 0, 0, 0, 0, 0, 0]),
        torch.tensor([5.0, -4, 3, 1, 1, 1, 1, 1, 1, 0]),  # its two largest are the first and the second
        torch.tensor([-6.0, 1, 7, 0, 0, 0, 0, 0, 0, 0]),  # its two largest are the third and the first
    )
    found = row(interference(base, models, density=0.2))
    assert (found["first"], found["second"], found["tensors"], found["note"]) == ("a", "b", 1, "")
    assert found["first_norm"] == pytest.approx(math.sqrt(56) / 5)
    assert found["second_norm"] == pytest.approx(math.sqrt(86) / 5)
    assert found["cosine"] == pytest.approx((-30 - 4 + 21) / math.sqrt(56 * 86))
    assert found["overlap"] == 1 / 2  # one of two
    assert found["overlap_by_chance"] == pytest.approx(2 / 10)
    assert found["conflict"] == 1


def test_what_ties_with_the_smallest_is_kept_and_zeros_never_count():
    change = torch.tensor([2.0, 1, 1, -1, 0])
    base, models = tuned(torch.ones(5), change, torch.tensor([0.0, 0, 0, 3, 4]))
    found = row(interference(base, models, density=0.4))  # of five two: 2 and all of 1, 1, -1; 3 and 4
    assert found["overlap"] == pytest.approx(2 * 1 / (4 + 2))
    assert found["conflict"] == 1
    everything = row(interference(base, models, density=1.0))
    assert everything["overlap"] == pytest.approx(2 * 1 / (4 + 2))
    assert everything["overlap_by_chance"] == pytest.approx(2 * (4 * 2 / 5) / (4 + 2))


def test_it_agrees_with_numpy_on_whole_models():
    names, density = ["base", "outline", "stripes", "pastel"], 0.3
    base, *models = shapes(*names)
    frame = interference(base, models, density=density).frame()
    assert list(frame.columns) == COLUMNS
    files = [load_file(SHAPES / f"{name}.safetensors") for name in names]
    for place, pattern in {"OUT02": rf"{UNET}output_blocks\.2\.", "unet": rf"{UNET}(time_embed|out)\.", "all": ""}.items():
        keys = [key for key, value in files[0].items() if re.match(pattern, key) and value.dtype.kind == "f"]
        origin, *others = ([file[key].astype(np.float64).ravel() for key in keys] for file in files)
        deltas = [[one - zero for one, zero in zip(other, origin, strict=True)] for other in others]
        signs = [np.concatenate([np.sign(part) * _among_largest(part, density) for part in delta]) for delta in deltas]
        flat = [np.concatenate(delta) for delta in deltas]
        size = np.linalg.norm(np.concatenate(origin))
        rows = frame[frame["place"] == place]
        for (i, j), (_, found) in zip(((0, 1), (0, 2), (1, 2)), rows.iterrows(), strict=True):
            assert (found["first"], found["second"]) == (names[1 + i], names[1 + j])
            product = signs[i] * signs[j]
            expected = [
                np.linalg.norm(flat[i]) / size,
                np.linalg.norm(flat[j]) / size,
                flat[i] @ flat[j] / np.linalg.norm(flat[i]) / np.linalg.norm(flat[j]),
                2 * np.abs(product).sum() / (np.abs(signs[i]).sum() + np.abs(signs[j]).sum()),
                (product < 0).sum() / np.abs(product).sum(),
            ]
            actual = found[["first_norm", "second_norm", "cosine", "overlap", "conflict"]].astype(float)
            np.testing.assert_allclose(actual, expected, rtol=1e-11)
            assert found["tensors"] == len(keys)


def _among_largest(delta: np.ndarray, density: float) -> np.ndarray:
    count, magnitudes = int(density * delta.size), np.abs(delta)
    return magnitudes >= np.sort(magnitudes)[delta.size - count] if count else np.zeros(delta.shape, bool)


def test_the_largest_elements_are_those_that_the_operators_keep():
    torch.manual_seed(0)
    base, models = tuned(torch.randn(40, 30), torch.randn(40, 30), torch.randn(40, 30))
    kept = [(wb.operators.magnitude_prune(base, [model], density=0.15)["x"] - base["x"]) for model in models]
    both = (kept[0] != 0) & (kept[1] != 0)
    found = row(interference(base, models, density=0.15))
    assert found["overlap"] == pytest.approx(2 * both.sum().item() / sum((one != 0).sum().item() for one in kept))
    assert found["conflict"] == pytest.approx((kept[0] * kept[1] < 0).sum().item() / both.sum().item())


def test_independent_changes_overlap_and_disagree_as_chance_would_have_it():
    torch.manual_seed(0)
    base, models = tuned(torch.randn(300, 1000), 0.1 * torch.randn(300, 1000), 0.1 * torch.randn(300, 1000))
    found = row(interference(base, models))
    assert found["overlap"] == pytest.approx(found["overlap_by_chance"], abs=0.01)
    assert found["conflict"] == pytest.approx(0.5, abs=0.02)
    assert found["cosine"] == pytest.approx(0, abs=0.01)


def test_what_is_known_of_the_family_shows():
    base, heart, moon = shapes("base", "heart", "moon")
    both = wb.operators.task_arithmetic(base, [heart, moon])
    frame = interference(base, {"heart": heart, "moon": moon, "both": both}).frame()
    whole = frame[frame["place"] == "all"].set_index(["first", "second"])
    a, b = whole.loc[("heart", "moon"), ["first_norm", "second_norm"]]
    cosine = whole.loc[("heart", "moon"), "cosine"]
    length = math.sqrt(a * a + b * b + 2 * a * b * cosine)
    assert whole.loc[("heart", "both"), "second_norm"] == pytest.approx(length, rel=1e-3)
    assert whole.loc[("heart", "both"), "cosine"] == pytest.approx((a + b * cosine) / length, rel=1e-3)
    untouched = frame[frame["place"].isin(["vae", "text_encoder"]) & (frame["second"] == "moon")]
    assert (untouched["first_norm"] == 0).all()
    assert untouched[["cosine", "overlap", "conflict"]].isna().all(axis=None)
    assert set(untouched["note"]) == {"heart does not differ from base; moon does not differ from base"}


def test_the_hint_on_two_skills_is_to_add_them_as_the_pictures_say():
    base, *skills = shapes("base", "heart", "moon")
    hint = interference(base, skills).hint
    assert hint.startswith("This speaks for task_arithmetic with weights of about 1: the changes are nearly orthogonal (cosine 0.10)")
    assert "an average keeps 55%" in hint
    assert "24% are both models' (by chance 20%)" in hint
    assert "34% have opposite signs (by chance 50%): TIES has little to settle" in hint


GENERATOR = torch.Generator().manual_seed(3)
NOISE = [torch.randn(100, 100, generator=GENERATOR) for _ in range(3)]
LARGE = torch.zeros(100, 100)
LARGE[:20] = 5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            [0.1 * NOISE[1], 0.1 * NOISE[1] + 0.01 * NOISE[2]],
            r"^This speaks for weighted_average: .*cosine 1\.00.*a sum would go two times",
        ),
        ([0.03 * LARGE + 0.01 * NOISE[1], -0.03 * LARGE + 0.01 * NOISE[2]], r"^This speaks for ties: .*100% have opposite signs.* cancel"),
        ([0.1 * NOISE[1], 0.1 * NOISE[2]], r"^This speaks for task_arithmetic with weights of about 1: .*nearly orthogonal"),
        ([0.1 * NOISE[1], 0.1 * NOISE[1] + 0.14 * NOISE[2]], r"weights of about 0\.6\d \(with 1 .*partly alike.*a base that is none"),
        (
            [0.2 * NOISE[1], 0.02 * NOISE[2]],
            r"The change of a \(2.\.\d% of the base\) is \d+\.\d times as long as that of b.*weigh it down",
        ),
        ([NOISE[1] - NOISE[0], NOISE[2] - NOISE[0]], r"^The changes are 14\d% .*base seems to be no common base"),
        ([0 * NOISE[1], 0.1 * NOISE[2]], r"^a does not differ from base: there is no change to merge"),
    ],
    ids=["equal", "opposed", "orthogonal", "siblings", "lopsided", "strangers", "none"],
)
def test_the_hint_follows_the_numbers(changes, said):
    base, models = tuned(NOISE[0], *changes)
    assert re.search(said, interference(base, models).hint)


def test_only_near_orthogonal_changes_of_like_length_are_not_doubted():
    base, models = tuned(NOISE[0], 0.1 * NOISE[1], 0.1 * NOISE[2])
    hint = interference(base, models).hint
    assert "weigh it down" not in hint
    assert "a base that is none" not in hint


def test_a_base_that_is_one_of_the_models_gives_nan_with_a_reason():
    base = held("base", x=[1.0, 2, 3, 4, 5])
    model = held("model", x=[2.0, 2, 3, 4, 5])
    found = row(interference(base, [base, model], density=1))
    assert found["first_norm"] == 0
    assert np.isnan(found[["cosine", "conflict"]].astype(float)).all()
    assert found["note"] == "base does not differ from base"


def test_a_base_of_zeros_gives_nan_with_a_reason():
    base, models = tuned(torch.zeros(5), torch.ones(5), torch.ones(5))
    found = interference(base, models)
    assert math.isnan(row(found)["first_norm"])
    assert row(found)["note"] == "base is all zero"
    assert row(found)["cosine"] == pytest.approx(1)
    assert "base is all zero" in found.hint


def test_tensors_of_one_element_have_no_largest_share():
    base, models = tuned(torch.tensor(9.0), torch.tensor(1.0), torch.tensor(-2.0))
    found = interference(base, models)
    assert np.isnan(row(found)[["overlap", "conflict"]].astype(float)).all()
    assert row(found)["note"] == "tensors too small to have a largest 20%"
    assert found.hint.startswith("This speaks for ties, which elects a sign")
    assert "a and b point against each other (cosine -1.00)" in found.hint


def test_changes_that_never_meet_have_no_conflict():
    base, models = tuned(4 * torch.ones(4), torch.tensor([1.0, 0, 0, 0]), torch.tensor([0.0, 0, 1, 0]))
    found = interference(base, models, density=0.25)
    assert (row(found)["overlap"], row(found)["note"]) == (0, "conflict: none of the largest is both models'")
    assert math.isnan(row(found)["conflict"])
    assert "task_arithmetic" in found.hint
    assert "nan" not in found.hint


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_dtypes_may_differ(dtype):
    base, models = tuned(torch.ones(4), torch.tensor([1.0, 0, 0, 0]), torch.tensor([1.0, 1, 0, 0]))
    small = Held({"x": models[0]["x"].to(dtype)}, "a")
    assert interference(base, [small, models[1]]).frame().equals(interference(base, models).frame())


def test_a_tensor_that_one_model_lacks_counts_for_the_others():
    base = held("base", x=[1.0, 1], y=[1.0, 1])
    a, b = held("a", x=[2.0, 1], y=[1.0, 2]), held("b", x=[2.0, 2], y=[1.0, 3])
    part = held("part", x=[1.0, 0])
    with pytest.warns(MergeWarning, match="interference, with base as anchor, leaves tensors out: 1 not in part"):
        frame = interference(base, [a, b, part], density=1).frame()
    assert frame[frame["place"] == "all"]["tensors"].tolist() == [2, 1, 1]
    assert frame.iloc[-3]["first_norm"] == pytest.approx(math.sqrt(2 / 4))
    assert frame.iloc[-2]["first_norm"] == pytest.approx(math.sqrt(1 / 2))


def test_nan_is_left_out_and_said():
    base, models = tuned(torch.ones(3), torch.tensor([1.0, 0, 0]), torch.tensor([0.0, math.nan, 0]), torch.tensor([0.0, 0, 1]))
    with pytest.warns(NonFiniteWarning, match="interference leaves out what holds NaN or infinity: 'x' in b"):
        frame = interference(base, models, density=1).frame()
    assert frame[frame["place"] == "all"]["tensors"].tolist() == [0, 1, 0]
    assert frame.iloc[-1]["note"] == "no tensor that could be compared"


def test_every_tensor_is_read_once_and_the_same_bits_come_of_any_number_of_threads():
    torch.manual_seed(1)
    base, models = tuned(torch.randn(300, 500), torch.randn(300, 500), torch.randn(300, 500))
    interference(base, models)
    assert [model.reads for model in (base, *models)] == [[("x", None)]] * 3
    threads, frames = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            frames.append(interference(base, models).frame())
    finally:
        torch.set_num_threads(threads)
    assert frames[0].equals(frames[1])


ONE = held("one", x=[1.0])


@pytest.mark.parametrize(
    ("base", "models", "density", "error", "said"),
    [
        (ONE, [ONE], 0.2, InputError, "interference takes two or more checkpoints, got one"),
        (ONE, ONE, 0.2, InputError, "two or more checkpoints in a list"),
        ("base.safetensors", [ONE, ONE], 0.2, InputError, r"interference: base takes checkpoints .*got 'base.safetensors'"),
        (None, [ONE, ONE], 0.2, InputError, "interference: base takes checkpoints"),
        (ONE, [ONE, held("other", z=[1.0])], 0.2, MergeError, r"one.* and other .* have no tensor in common"),
        (ONE, [ONE, ONE], 0, OptionError, r"density must be in \(0, 1\], got 0"),
        (ONE, [ONE, ONE], 1.5, OptionError, r"density must be in \(0, 1\], got 1.5"),
        (ONE, [ONE, ONE], "all", OptionError, "got 'all'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(base, models, density, error, said):
    with pytest.raises(error, match=said):
        interference(base, models, density=density)
    assert not ONE.reads


def test_the_figure_has_a_panel_for_each_quantity_and_says_the_hint():
    base, *models = shapes("base", "heart", "moon")
    found = interference(base, models)
    figure = found.plot()
    assert [note.text for note in figure.layout.annotations] == [
        "length of the change, over the base's",
        "cosine of two changes",
        "share of the largest 20% that is both models' (dotted: by chance)",
        "share of these with opposite signs",
    ]
    drawn = {(line.name, line.yaxis): line for line in figure.data}
    assert list(drawn) == [("heart", "y"), ("moon", "y"), *[("heart · moon", axis) for axis in ("y2", "y3", "y4")]]
    frame = found.frame()
    np.testing.assert_array_equal(drawn["heart · moon", "y2"].y, frame["cosine"][frame["place"] != "all"])
    assert list(drawn["heart", "y"].x) == [place for place in frame["place"] if place != "all"]
    assert [line.y0 for line in figure.layout.shapes] == [0, frame["overlap_by_chance"].iloc[-1], 0.5]
    assert found.hint.split(":")[0] in figure.layout.title.text
    assert repr(found) == f"<Interference: {found.hint}>"
