"""Shares: what FFT merges take of whom, told by their options."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from held import Held

import workbench as wb
from workbench.operators import fft_blend, weighted_average

IN, OUT = "model.diffusion_model.input_blocks.1.0.x.weight", "model.diffusion_model.output_blocks.1.0.x.weight"


@pytest.fixture
def pair():
    return [Held({IN: torch.ones(2, 8), OUT: torch.ones(2, 8)}, name) for name in ("heart", "moon")]


def test_shares_follow_from_the_options(pair):
    numbers = {"blocks": {"IN01": [1.0, -1.0], "default": [0.0]}}
    merge = fft_blend(*pair, coefficients=numbers, smooth=True, entanglement_strength=0.5, decoherence_factor=0.2)
    frame = wb.conditioning.shares({"mine": merge}).frame()
    early = frame[frame["block"] == "IN01"]
    for row, coefficient in ((early.iloc[0], 1.0), (early.iloc[-1], -1.0)):
        assert row["real"] == pytest.approx(0.5 + 0.4 * (1 / (1 + np.exp(-5 * coefficient)) - 0.5))
        assert row["imaginary"] == pytest.approx(0.5 + 0.4 * (1 / (1 + np.exp(1 - 3 * coefficient)) - 0.5))
    rest = frame[frame["block"] != "IN01"]
    assert set(rest["block"]) == {"OUT01", "elsewhere"}
    assert np.allclose(rest["real"], 0.5)


def test_the_figure_has_one_map_for_each_merge(pair):
    merges = {f"prompt {i}": fft_blend(*pair, coefficients=[i / 2], smooth=True) for i in range(3)}
    found = wb.conditioning.shares(merges)
    figure = found.plot()
    assert [list(cells.y) for cells in figure.data] == [["IN01", "OUT01", "elsewhere"]] * 3
    assert figure.layout.title.text == "Share of heart; the rest is moon's"
    assert "for 'prompt 2'" in found.headline


def test_merges_of_other_operators_have_no_frequencies(pair):
    with pytest.raises(TypeError, match="give merges made by fft_blend"):
        wb.conditioning.shares(weighted_average(pair))
