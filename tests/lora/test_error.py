"""`error`: what LoRAs of each rank would miss, against NumPy's SVD of whole tensors, and the figure of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from held import Held
from safetensors.numpy import load_file

import workbench as wb
from workbench.errors import InputError, MergeError, NonFiniteWarning, OptionError
from workbench.places import DATA

SHAPES = DATA / "shapes-sd"
UNET = "model.diffusion_model."
RANKS = (1, 4, 16, 64)


def diagonal(*values: float) -> torch.Tensor:
    return torch.diag(torch.tensor(values))


def pair(**changes: torch.Tensor) -> tuple[Held, Held]:
    tensors = {key.replace("__", "."): value for key, value in changes.items()}
    return Held(tensors, "tuned"), Held({key: torch.zeros_like(value) for key, value in tensors.items()}, "base")


def test_by_hand():
    found = wb.lora.error(*pair(x__weight=diagonal(3.0, 4.0), y__weight=diagonal(12.0, 0.0)), [1, 2])
    frame = found.frame().set_index(["layer", "rank"])
    assert list(frame.columns) == ["block", "relative_error", "captured_energy", "note"]
    assert frame.loc[("x.weight", 1), "relative_error"] == pytest.approx(3 / 5)
    assert frame.loc[("x.weight", 1), "captured_energy"] == pytest.approx(16 / 25)
    assert frame.loc[("y.weight", 1), "relative_error"] == 0
    assert frame.loc[("all", 1), "relative_error"] == pytest.approx(3 / 13)
    assert frame.loc[("all", 2), "relative_error"] == 0
    assert found.needed(0.3)["rank"].tolist() == [2, 1, 1]
    assert found.needed(0.2)["rank"].tolist() == [2, 1, 2]
    assert (
        found.headline
        == "a LoRA of 2 layers of tuned misses 23.1% of the change at rank 1, and 0.0% at rank 2; rank 1 misses less than half"
    )


def test_it_agrees_with_numpy_on_the_embedded_models():
    tuned, base = (wb.open(SHAPES / f"{name}.safetensors") for name in ("stripes", "base"))
    found = wb.lora.error(tuned, base, RANKS)
    frame, blocks = found.frame(), found.frame("block").set_index(["block", "rank"])
    files = [load_file(SHAPES / f"{name}.safetensors") for name in ("stripes", "base")]
    total, missed, middle = 0, np.zeros(len(RANKS)), np.zeros(len(RANKS) + 1)
    for layer in dict.fromkeys(frame["layer"][: -len(RANKS)]):
        change = np.subtract(*(file[layer].astype(np.float64) for file in files))
        squares = np.linalg.svd(change.reshape(len(change), -1), compute_uv=False) ** 2
        left = np.array([squares[rank:].sum() for rank in RANKS])
        rows = frame[frame["layer"] == layer]
        if not squares.any():
            assert rows["relative_error"].isna().all()
            assert set(rows["note"]) == {"does not differ"}
            continue
        np.testing.assert_allclose(rows["relative_error"], np.sqrt(left / squares.sum()), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(rows["captured_energy"], 1 - left / squares.sum(), atol=1e-9)
        total, missed = total + squares.sum(), missed + left
        if "middle_block" in layer:
            middle += [*left, squares.sum()]
    np.testing.assert_allclose(blocks.loc["all", "relative_error"], np.sqrt(missed / total), rtol=1e-9)
    np.testing.assert_allclose(blocks.loc["MID", "relative_error"], np.sqrt(middle[:-1] / middle[-1]), rtol=1e-9)
    assert frame.iloc[-1]["relative_error"] == blocks.loc[("all", 64), "relative_error"]
    assert blocks.index.get_level_values(0).unique().tolist()[-3:] == ["OUT03", "text_encoder", "all"]


def test_it_tells_what_extract_then_misses():
    tuned, base = (wb.open(SHAPES / f"{name}.safetensors") for name in ("moon", "base"))
    told = wb.lora.error(tuned, base, [8]).frame("block").set_index("block")["relative_error"]
    assert wb.lora.extract(tuned, base, rank=8).report.error == pytest.approx(told["all"], rel=1e-6)
    needed = wb.lora.error(tuned, base).needed(0.5).set_index("layer")["rank"]
    reached = wb.lora.extract(tuned, base, target_error=0.5).report.frame().set_index("layer")["rank"].drop("all")
    assert needed[reached.index].equals(reached)


def test_the_rank_for_all_is_the_least_that_reaches_the_target():
    tuned, base = (wb.open(SHAPES / f"{name}.safetensors") for name in ("moon", "base"))
    rank = int(wb.lora.error(tuned, base).needed(0.4)["rank"].iloc[-1])
    below, at = wb.lora.error(tuned, base, [rank - 1, rank]).frame("block")["relative_error"].iloc[-2:]
    assert at <= 0.4 < below


def test_a_layer_with_fewer_directions_says_so():
    found = wb.lora.error(*pair(x__weight=diagonal(1.0, 2.0), y__weight=torch.randn(5, 7)), [2, 3])
    frame = found.frame().set_index(["layer", "rank"])
    assert frame.loc[("x.weight", 3), "note"] == "has only 2 directions"
    assert frame.loc[("x.weight", 2), "note"] == frame.loc[("all", 3), "note"] == ""


def test_ranks_come_in_order_once_and_only_what_is_asked_for():
    models = pair(**{f"{UNET}middle_block.0.a__weight": torch.randn(3, 3), f"{UNET}out.2__weight": torch.randn(3, 3)})
    found = wb.lora.error(*models, [2, 1, 2], include="middle_block*")
    assert found.ranks == (1, 2)
    assert found.frame()["layer"].unique().tolist() == [f"{UNET}middle_block.0.a.weight", "all"]


def test_nan_is_left_out_and_said():
    tuned, base = pair(x__weight=torch.tensor([[math.nan, 1.0], [0.0, 1.0]]), y__weight=diagonal(1.0, 1.0))
    with pytest.warns(NonFiniteWarning, match="error leaves out what holds NaN or infinity: 'x.weight' in tuned"):
        found = wb.lora.error(tuned, base, [1])
    assert found.frame()["layer"].tolist() == ["y.weight", "all"]


def test_bad_input_is_refused():
    tuned, base = pair(x__weight=diagonal(1.0, 2.0))
    for ranks in ([], [0], [1.5], 4, "4", [True]):
        with pytest.raises(OptionError, match="error: ranks must be one or more whole numbers from 1"):
            wb.lora.error(tuned, base, ranks)
    found = wb.lora.error(tuned, base)
    for target in (0, 1, "low"):
        with pytest.raises(OptionError, match="needed: target_error must be above 0 and below 1"):
            found.needed(target)
    with pytest.raises(OptionError, match="frame: by must be 'layer' or 'block', got 'key'"):
        found.frame("key")
    with pytest.raises(MergeError, match="base-2 and base do not differ in any tensor that is asked for"):
        wb.lora.error(base, base)
    with pytest.raises(InputError, match="error: include: 'vae' fits no tensor that both have"):
        wb.lora.error(tuned, base, include="vae")


def test_the_figure_has_a_line_for_each_block_on_logarithmic_axes():
    tuned, base = (wb.open(SHAPES / f"{name}.safetensors") for name in ("stripes", "base"))
    found = wb.lora.error(tuned, base, RANKS)
    figure, blocks = found.plot(), found.frame("block").set_index("block")
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    assert figure.layout.yaxis.title.text == "relative error"
    assert [line.name for line in figure.data][-1] == "all"
    for line in figure.data:
        errors = blocks.loc[line.name, "relative_error"]
        assert list(line.y) == errors[errors > 0].tolist()
    widths = [line.line.width for line in figure.data]
    assert widths[-1] == 4
    assert set(widths[:-1]) == {None}
    assert found._repr_mimebundle_()["text/plain"] == repr(found) == f"<ErrorCurves: {found.headline}>"
