"""`fft_blend`: the original's numbers, numbers by hand, and what holds for any coefficients."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from held import Held
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.errors import OptionError
from workbench.merge import Random
from workbench.operators.spectral import blend
from workbench.tensors import Flat, Rows

QUANTUM = Path(__file__).resolve().parents[1] / "vectors" / "quantum"
fft_blend = wb.operators.fft_blend
CERTAIN = 40.0  # a coefficient whose sigmoid is 1
PLAIN = {"entanglement_strength": 1.0, "decoherence_factor": 0.0}
overs = st.sampled_from(["dim", "row", "matrix", "kernel"])
mixes = st.sampled_from(["parts", "polar"])


def pair(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return first, second


def held(*shape: int, name: str = "x.weight") -> list[Held]:
    return [Held({name: tensor.float()}, model) for tensor, model in zip(pair(*shape), ("first", "second"), strict=True)]


def unmasked(first: torch.Tensor, second: torch.Tensor, coefficients, **how) -> torch.Tensor:
    return blend(first, second, coefficients, torch.zeros_like(first), 1.0, **how)


@pytest.mark.parametrize("key", [key for key in wb.open(QUANTUM / "expected.safetensors") if "weight" in key])
def test_blend_gives_what_the_original_gave(key):
    """Within one fp16 unit in the last place of the largest of first, second, blended and result."""
    a, b, given, expected = (wb.open(QUANTUM / f"{name}.safetensors") for name in ("a", "b", "conditioning", "expected"))
    mask, coefficients, strength = given[f"mask.{key}"], given["hyper_out"], float(given.metadata["entanglement_strength"])
    result = blend(a[key], b[key], coefficients, mask, strength)
    blended = blend(a[key], b[key], coefficients, mask, 1.0)
    largest = torch.stack([tensor.float().abs() for tensor in (a[key], b[key], blended, result)]).amax(0)
    unit = torch.exp2(largest.clamp_min(2**-14).log2().floor() - 10)
    assert bool(((result.half().float() - expected[key].float()).abs() <= unit).all())


def test_what_is_no_weight_is_averaged_as_in_the_original():
    a, b, expected = (wb.open(QUANTUM / f"{name}.safetensors") for name in ("a", "b", "expected"))
    key = "model.diffusion_model.out.0.bias"
    merge = fft_blend(a, b, coefficients={"seed": 0})
    assert set(merge) == set(expected)
    torch.testing.assert_close(merge[key], expected[key], rtol=2**-10, atol=0)


def test_two_by_two_by_hand():
    """Rows of two have a mean and a difference: both are real, and weighed sigmoid(0) = 1/2 and sigmoid(5 * 0.2) = 0.73106."""
    first, second = torch.tensor([[4.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [2.0, -2.0]])
    weight = 1 / (1 + math.exp(-1))
    expected = torch.tensor([[1.5 + weight, 1.5 - weight], [2 * (1 - weight), -2 * (1 - weight)]])
    torch.testing.assert_close(unmasked(first, second, torch.tensor([0.0, 0.2])), expected)


def test_what_is_transformed_over_one_element_has_a_mean_alone():
    first, second = torch.full((3, 2, 1, 1), 4.0), torch.full((3, 2, 1, 1), 2.0)
    weight = 1 / (1 + math.exp(-1))
    for over in ("dim", "kernel"):
        expected = torch.full_like(first, 2 + 2 * weight)
        torch.testing.assert_close(unmasked(first, second, torch.tensor([0.2]), over=over), expected)


def test_real_and_imaginary_parts_have_weights_of_their_own():
    """Of an impulse at 1 of 4, frequency 1 is -i: at c = 1/3 its weight is sigmoid(0) = 1/2, the real parts' sigmoid(5/3)."""
    impulse, weight = torch.tensor([[0.0, 1.0, 0.0, 0.0]]), 1 / (1 + math.exp(-5 / 3))
    expected = torch.tensor([[0.0, weight / 2 + 0.25, 0.0, weight / 2 - 0.25]])
    torch.testing.assert_close(unmasked(impulse, torch.zeros(1, 4), torch.tensor([1 / 3])), expected)


def test_a_vector_is_repeated_or_cut_to_the_number_of_frequencies():
    first, second = pair(3, 16)  # 9 frequencies
    short, long = torch.tensor([1.0, -1.0]), torch.linspace(-1, 1, 30)
    assert torch.equal(unmasked(first, second, short), unmasked(first, second, short.repeat(5)[:9]))
    assert torch.equal(unmasked(first, second, long), unmasked(first, second, long[:9]))


def test_a_smooth_vector_is_stretched_over_the_frequencies():
    first, second = pair(3, 16)
    smooth = unmasked(first, second, torch.tensor([1.0, -1.0]), smooth=True)
    assert torch.equal(smooth, unmasked(first, second, torch.linspace(1, -1, 9)))


def test_a_curve_is_linear_between_its_points_and_level_outside():
    first, second = pair(3, 16)
    values = torch.tensor([0.5, 0.5, 0.5, 0.0, -0.5, -1.0, -1.0, -1.0, -1.0])
    assert torch.allclose(unmasked(first, second, [(0.25, 0.5), (0.625, -1.0)]), unmasked(first, second, values))


@pytest.mark.parametrize("over", ["dim", "row", "matrix", "kernel"])
def test_low_frequencies_of_one_and_high_ones_of_the_other(over):
    first, second = pair(8, 6, 5, 5)
    shape, dims = {"dim": ((8, 6, 5, 5), (3,)), "row": ((8, 150), (1,)), "matrix": ((8, 150), (0, 1)), "kernel": ((8, 6, 5, 5), (2, 3))}[
        over
    ]
    result = unmasked(first, second, torch.zeros(1), over=over, band=(0.5, 0.5))
    spectra = [torch.fft.rfftn(tensor.reshape(shape), dim=dims) for tensor in (first, second, result)]
    from_first, from_second = ((spectra[2] - one).abs() < 1e-9 for one in spectra[:2])
    assert bool((from_first ^ from_second).all())
    assert bool(from_first[(0,) * len(shape)])
    assert not bool(from_first[..., -1].any())  # the highest along the last dimension


def test_only_where_the_mask_is_zero_is_anything_blended():
    first, second = pair(6, 9)
    mask = torch.rand(6, 9, generator=torch.Generator().manual_seed(1)) < 0.5
    result, whole = blend(first, second, torch.ones(1), mask, 1.0), unmasked(first, second, torch.ones(1))
    assert torch.equal(result[mask], ((first + second) / 2)[mask])
    assert torch.equal(result[~mask], whole[~mask])


@given(overs, mixes, st.sampled_from([(), (1,), (3,), (4, 6), (5, 7), (4, 3, 3, 3), (2, 3, 1, 1)]), st.integers(-4, 3))
def test_a_model_blended_with_itself_stays_and_a_certain_coefficient_gives_the_first(over, mix, shape, dim):
    first, second = pair(*shape)
    how = {"over": over, "mix": mix, "dim": dim}
    torch.testing.assert_close(unmasked(first, first, torch.tensor([0.3, -0.4]), **how), first)
    torch.testing.assert_close(unmasked(first, second, torch.tensor([CERTAIN]), **how), first)
    torch.testing.assert_close(unmasked(first, second, torch.tensor([-CERTAIN]), **how), second)


def test_polar_turns_the_phase_the_shorter_way_and_keeps_the_magnitude():
    wave = torch.arange(8, dtype=torch.float64) * math.pi / 4
    result = unmasked(torch.cos(wave - 0.5), torch.cos(wave + 0.5), torch.tensor([1 / 3], dtype=torch.float64), mix="polar")
    torch.testing.assert_close(result, torch.cos(wave))  # at c = 1/3 the phase's weight is 1/2


@given(overs, st.integers(-4, 3), st.integers(0, 5), st.integers(1, 6))
def test_rows_of_the_result_are_the_result_of_those_rows_whatever_is_transformed(over, dim, first, count):
    merge = fft_blend(*held(6, 4, 3, 3), coefficients={"seed": 1}, over=over, dim=dim)
    rows = Rows(first, min(first + count, 6))
    assert torch.equal(merge.read("x.weight", rows), merge["x.weight"][rows.start : rows.stop])


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({}, Rows(1, 2)),
        ({"dim": 1}, Rows(1, 2)),
        ({"dim": -2}, None),
        ({"dim": 0}, None),
        ({"over": "row", "dim": 0}, Rows(1, 2)),
        ({"over": "matrix"}, None),
        ({"over": "kernel"}, Rows(1, 2)),
        ({"over": "kernel", "dim": 0}, None),
    ],
)
def test_rows_are_enough_where_dimension_0_is_not_transformed(options, part):
    first, second = held(6, 4)
    fft_blend(first, second, coefficients=[0.1], **options).read("x.weight", Flat(5, 7))
    assert first.reads == second.reads == [("x.weight", part)]


@pytest.mark.parametrize("chunk_size", [1, 4, 100])
@pytest.mark.parametrize("over", ["dim", "row", "matrix", "kernel"])
def test_the_chunks_do_not_change_a_bit(chunk_size, over):
    options = {"coefficients": {"seed": 2}, "over": over}
    assert torch.equal(
        fft_blend(*held(9, 4, 3, 3), **options, chunk_size=chunk_size)["x.weight"], fft_blend(*held(9, 4, 3, 3), **options)["x.weight"]
    )


def test_the_share_that_is_averaged_is_drawn_by_element_from_the_recipes_seed():
    first, second = held(40, 50)
    merge = fft_blend(first, second, coefficients=[CERTAIN], entanglement_strength=1, decoherence_factor=0.3, seed=7)
    averaged = torch.isclose(merge["x.weight"], (first["x.weight"] + second["x.weight"]) / 2)
    drawn = Random(7, "x.weight").uniform(averaged) < 0.3
    assert torch.equal(averaged, drawn)
    assert drawn.float().mean().item() == pytest.approx(0.3, abs=0.04)


def test_strength_and_decoherence_may_differ_by_block():
    keys = ["model.diffusion_model.input_blocks.1.0.in_layers.2.weight", "model.diffusion_model.output_blocks.3.0.in_layers.2.weight"]
    first, second = (Held({key: tensor.float() for key in keys}) for tensor in pair(4, 4))
    options = {"coefficients": {"blocks": {"IN*": {"constant": CERTAIN}, "default": [-CERTAIN]}}}
    options |= {"entanglement_strength": {"blocks": {"IN*": 1.0, "default": 0.0}}, "decoherence_factor": {"ramp": {"start": 0, "end": 1}}}
    merge = fft_blend(first, second, **options)
    torch.testing.assert_close(merge[keys[0]], first[keys[0]])
    torch.testing.assert_close(merge[keys[1]], (first[keys[1]] + second[keys[1]]) / 2)


@pytest.mark.parametrize(
    ("coefficients", "said"),
    [
        ([], "must have one number or more, got an empty vector"),
        (torch.empty(0), "got an empty vector"),
        (torch.zeros(3, dtype=torch.complex64), "finite real numbers only, got 0j"),
        ([1.0, float("nan")], "finite real numbers only, got nan"),
        (torch.zeros(2, 3), "finite real numbers only"),
        (
            "a prompt",
            r"must be a vector of numbers, or one of \{constant: .*\}, \{seed: .*\}, \{curve: .*\}, \{prompt: .*\}, got 'a prompt'",
        ),
        (0.5, "must be a vector of numbers"),
    ],
)
def test_what_is_no_vector_is_refused(coefficients, said):
    with pytest.raises(OptionError, match=rf"^fft_blend: coefficients {said}" if said.startswith("must") else said):
        fft_blend(*held(4, 4), coefficients=coefficients)


def test_coefficients_must_be_given():
    with pytest.raises(OptionError, match=r"^fft_blend: coefficients must be given: a vector of numbers"):
        fft_blend(*held(4, 4))


def test_bands_must_be_in_order():
    with pytest.raises(OptionError, match=r"low must not be above high, got 0\.6 and 0\.4"):
        fft_blend(*held(4, 4), coefficients=[0.0], low=0.6, high=0.4)


def test_a_row_of_a_matrix_and_an_array_are_vectors_too():
    first, second = held(4, 4)
    as_list = fft_blend(first, second, coefficients=[0.5, -0.5])["x.weight"]
    assert torch.equal(fft_blend(first, second, coefficients=torch.tensor([[0.5, -0.5]]))["x.weight"], as_list)
    assert torch.equal(fft_blend(first, second, coefficients=torch.tensor([0.5, -0.5]).numpy())["x.weight"], as_list)
