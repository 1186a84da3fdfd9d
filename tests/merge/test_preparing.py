"""A pass over the whole model before its tensors: done once, kept by content, given up without a trace."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from held import Held
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.errors import Cancelled, OptionError
from workbench.merge import preparing
from workbench.operators import sparsify

ops = wb.operators
BASE = {"x": torch.zeros(4), "y": torch.zeros(2, 2)}
TUNED = {"x": torch.tensor([1.0, -2.0, 3.0, -4.0]), "y": torch.tensor([[10.0, 0.1], [0.2, -0.3]])}


def models(scale=1.0):
    return Held(BASE, "base"), Held({key: scale * tensor for key, tensor in TUNED.items()}, "tuned")


def test_the_largest_of_the_whole_model_are_kept_by_hand():
    """Half of 8 changes: 10, 4, 3 and 2. By tensor it would be 4 and 3, and 10 and 0.3."""
    base, tuned = models()
    whole = ops.magnitude_prune(base, [tuned], over="model")
    assert whole["x"].tolist() == [0, -2, 3, -4]
    assert whole["y"].tolist() == [[10, 0], [0, 0]]
    each = ops.magnitude_prune(base, [tuned])
    assert each["x"].tolist() == [0, 0, 3, -4]
    assert each["y"].tolist() == [[10, 0], [0, pytest.approx(-0.3)]]


def test_what_a_rule_takes_is_no_part_of_the_whole():
    base, tuned = models()
    merge = ops.magnitude_prune(base, [tuned], over="model", rules=[{"match": "y", "take": "base"}])
    assert merge["x"].tolist() == [0, 0, 3, -4]
    assert merge["y"].tolist() == [[0, 0], [0, 0]]


def test_the_model_is_read_twice_for_it_and_then_tensor_by_tensor_on_any_number_of_threads():
    base, tuned = models()
    merge = ops.ties(base, [tuned], over="model")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(merge.read, ["x", "y"] * 4))
    assert len(tuned.reads) == 2 * 2 + 8
    ops.ties(base, [tuned], over="model").read("x")  # the same once more: nothing is prepared anew
    assert len(tuned.reads) == 13


def test_other_tensors_anywhere_make_another_fingerprint():
    base, tuned = models()
    other = Held({**TUNED, "y": torch.ones(2, 2)}, "tuned")
    one, two = (ops.ties(base, [model], over="model", rules=[]).fingerprint("x") for model in (tuned, other))
    assert one != two
    assert one == ops.ties(base, [tuned], over="model").fingerprint("x")
    assert one != ops.ties(base, [tuned], over="model", density=0.4).fingerprint("x")


def test_a_pass_that_is_given_up_leaves_nothing_and_is_done_again():
    base, tuned = models()
    merge = ops.ties(base, [tuned], over="model")
    asked = iter([False, True])
    with pytest.raises(Cancelled):
        merge.prepare(cancelled=lambda: next(asked))
    assert merge._content not in preparing._kept
    merge.prepare()
    assert merge._content in preparing._kept


def test_an_inner_merge_is_prepared_too():
    base, tuned = models()
    inner = ops.magnitude_prune(base, [tuned], over="model")
    outer = ops.weighted_average([base, inner], weights=[0, 1])
    outer.prepare()
    assert inner._content in preparing._kept
    assert outer["x"].tolist() == [0, -2, 3, -4]


def test_a_density_by_block_is_refused_for_the_whole_model():
    names = [f"model.diffusion_model.{place}.weight" for place in ("input_blocks.1.0", "middle_block.0")]
    base, tuned = (Held(dict.fromkeys(names, torch.full((2, 2), value)), name) for value, name in ((0.0, "base"), (1.0, "tuned")))
    merge = ops.ties(base, [tuned], over="model", density={"blocks": {"MID": 0.2, "default": 0.5}})
    with pytest.raises(OptionError, match="density must be the same in every block"):
        merge[names[0]]


def test_the_file_is_that_of_reading(tmp_path):
    base, tuned = models()
    merge = ops.ties(base, [tuned], over="model")
    wb.export(merge, tmp_path / "out.safetensors", progress=False)
    written = wb.open(tmp_path / "out.safetensors")
    assert all(torch.equal(written[key], merge[key]) for key in merge)


@dataclass(frozen=True)
class PartOf:
    """A part of one model's delta, for `thresholds`."""

    delta: torch.Tensor
    as_stored: bool

    def __call__(self) -> list[Any]:
        return [torch.zeros_like(self.delta), [self.delta]]

    def stored(self) -> list[Any] | None:
        return self() if self.as_stored else None


@given(
    st.lists(st.integers(-20, 20), min_size=1, max_size=40),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.1, 0.37, 0.5, 0.99, 1.0]),
    st.booleans(),
)
def test_thresholds_are_those_of_one_tensor_of_all(numbers, parts, density, stored):
    whole = torch.tensor(numbers, dtype=torch.float32) / 7
    (smallest,) = sparsify.thresholds(lambda: (PartOf(piece, stored) for piece in whole.tensor_split(parts)), density)
    kept = sparsify.from_magnitude(smallest, whole.dtype)(whole, slice(None), 1)
    assert torch.equal(kept, sparsify.largest(whole, density)(whole, slice(None), 1))


@given(
    st.lists(st.integers(-20, 20), min_size=1, max_size=40),
    st.integers(1, 5),
    st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    st.booleans(),
)
def test_bands_are_those_of_one_tensor_of_all(numbers, parts, density, gamma, stored):
    whole = torch.tensor(numbers, dtype=torch.float32) / 7
    (band,) = sparsify.bands(lambda: (PartOf(piece, stored) for piece in whole.tensor_split(parts)), density, gamma)
    kept = sparsify.between(*band, whole.dtype)(whole, slice(None), 1)
    assert torch.equal(kept, sparsify.middle(whole, density, gamma)(whole, slice(None), 1))


def test_a_tensor_that_a_file_has_under_two_names_counts_once():
    inner = "transformer.encoder.layers.0.mlp.fc1.weight"
    long, short = (f"cond_stage_model.{way}{inner.removeprefix('transformer.')}" for way in ("transformer.text_model.", "transformer."))
    unet = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
    draws = torch.Generator().manual_seed(0)
    changes = {unet: torch.randn(8, 8, generator=draws), long: 3 * torch.randn(8, 8, generator=draws)}

    def merged(twin: bool) -> wb.Merge:
        given = {**changes, **({short: changes[long]} if twin else {})}
        base = Held({key: torch.zeros(8, 8) for key in given}, "base")
        return ops.ties(base, [Held(given, "tuned")], density=0.3, over="model")

    assert {long, short} <= set(merged(True))
    assert torch.equal(merged(True)[unet], merged(False)[unet])


@pytest.mark.parametrize("name", ["ties", "magnitude_prune", "delta_merge"])
def test_in_float64_what_ties_with_the_threshold_stays(name):
    base, tuned = Held({"x": torch.full((64,), 0.1)}, "base"), Held({"x": torch.full((64,), 0.3)}, "tuned")
    merge = getattr(ops, name)(base, [tuned], density=0.5, over="model", precision="float64")
    torch.testing.assert_close(merge["x"], tuned["x"])
    inner = getattr(ops, name)(base, [tuned], density=0.5, over="model")
    torch.testing.assert_close(ops.weighted_average([inner], precision="float64")["x"], tuned["x"])
