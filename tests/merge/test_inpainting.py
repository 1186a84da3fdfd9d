"""An inpainting model as the base: what a model of fewer input channels learned goes into the first of its channels."""

from __future__ import annotations

import pytest
import torch
from held import Held

import workbench as wb
from workbench.tensors import PIECE, Flat, Rows, Space

operators = wb.operators
KEY = "model.diffusion_model.input_blocks.0.0.weight"
OTHER = "model.diffusion_model.out.2.weight"


def model(name: str, channels: int, seed: int, rows: int = 8, size: tuple[int, ...] = (3, 3)) -> Held:
    made = torch.Generator().manual_seed(seed)
    return Held({KEY: torch.randn(rows, channels, *size, generator=made), OTHER: torch.randn(4, generator=made)}, name)


BASE, TUNED, ORIGINAL = model("inpaint", 9, 1), model("tuned", 4, 2), model("sd", 4, 3)


def test_add_difference_by_hand():
    merge = operators.add_difference(BASE, TUNED, ORIGINAL, strength=0.5)
    assert wb.preflight(merge).ok
    result, base = merge[KEY], BASE[KEY]
    torch.testing.assert_close(result[:, :4], base[:, :4] + 0.5 * (TUNED[KEY] - ORIGINAL[KEY]))
    assert torch.equal(result[:, 4:], base[:, 4:])


@pytest.mark.parametrize("name", ["task_arithmetic", "ties", "magnitude_prune", "dare_linear", "dare_ties", "delta_merge"])
def test_a_delta_is_zero_beyond_the_channels_that_the_model_has(name):
    merge = getattr(operators, name)(
        BASE, [TUNED, model("wide", 9, 5)], weights=[1.0, 0.0], **({} if name == "task_arithmetic" else {"density": 1.0})
    )
    assert wb.preflight(merge).ok
    torch.testing.assert_close(merge[KEY][:, :4], TUNED[KEY])
    assert torch.equal(merge[KEY][:, 4:], BASE[KEY][:, 4:])


def test_a_lora_of_a_narrower_model_too():
    change = Held({KEY: torch.ones(8, 4, 3, 3)}, "lora", Space.DELTA)
    merge = operators.add_delta(BASE, [change])
    assert wb.preflight(merge).ok
    torch.testing.assert_close(merge[KEY] - BASE[KEY], torch.cat([torch.ones(8, 4, 3, 3), torch.zeros(8, 5, 3, 3)], 1))


@pytest.mark.parametrize("part", [None, Rows(2, 5), Flat(7, 300)])
def test_a_part_is_a_part_of_the_whole(part):
    merge = operators.add_difference(BASE, TUNED, ORIGINAL)
    whole = merge[KEY]
    expected = whole if part is None else whole[2:5] if isinstance(part, Rows) else whole.reshape(-1)[7:300]
    assert torch.equal(merge.read(KEY, part), expected)


def test_a_large_matrix_as_flux_fill_has_is_written_in_parts(tmp_path):
    base, tuned, original = (
        model(name, channels, seed, rows=PIECE // 256, size=()) for name, channels, seed in (("fill", 384, 1), ("t", 64, 2), ("o", 64, 3))
    )
    merge = operators.add_difference(base, tuned, original)
    written = wb.export(merge, tmp_path / "out.safetensors", progress=False).open()
    assert torch.equal(written[KEY], merge[KEY])
    assert torch.equal(written[KEY][:, 64:], base[KEY][:, 64:])


def test_preflight_says_how_many_channels_are_merged():
    (told,) = [text for text in wb.preflight(operators.add_difference(BASE, TUNED, ORIGINAL)).notes if "input channels" in text]
    assert told.startswith(f"add_difference: '{KEY}' has 9 input channels in inpaint and 4 in tuned and sd: ")
    assert told.endswith("the first 4 are merged, the others stay as in inpaint")


@pytest.mark.parametrize(
    "merge",
    [
        operators.weighted_average([BASE, TUNED]),
        operators.add_difference(TUNED, BASE, ORIGINAL),
        operators.add_difference(BASE, BASE, ORIGINAL),
        operators.task_arithmetic(TUNED, [BASE]),
    ],
)
def test_what_has_no_such_meaning_is_refused_and_the_message_proposes_what_has(merge):
    (error,) = wb.preflight(merge).errors
    assert "has different shapes" in error
    assert "(an inpainting model) what one of 4 learned, make it the base of add_difference" in error


def test_other_shapes_are_refused_without_the_proposal():
    (error,) = wb.preflight(operators.task_arithmetic(BASE, [model("odd", 4, 1, rows=7)])).errors
    assert "has different shapes" in error
    assert "inpainting" not in error


def test_layers_within_are_not_continued():
    inner = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    base, tuned = Held({inner: torch.ones(4, 9)}, "base"), Held({inner: torch.ones(4, 5)}, "tuned")
    (error,) = wb.preflight(operators.task_arithmetic(base, [tuned])).errors
    assert "has different shapes" in error
    assert "inpainting" not in error
