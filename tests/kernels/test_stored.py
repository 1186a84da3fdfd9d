"""Loops from stored to stored numbers write the bytes that plain torch code gives, or leave it to that."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import workbench
from workbench import kernels
from workbench.operators import own

pytestmark = pytest.mark.skipif(not kernels.available(), reason="numba is not installed")

SHAPE = (301, 1103)  # more than one piece, no whole number of tiles, and no whole steps of random numbers in a row
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
FUSED = [name for name, operator in own().items() if operator.declaration.fused]
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "weighted_average": [{"weights": 1.0}, {"weights": [0.3, -0.5, 0.9]}, {"weights": [0, 1, 0]}, {"weights": [0.2, 0, 0.7]}],
    "add_difference": [{"strength": strength} for strength in (1.0, 0.7, -0.3, 0)],
    "nearest": [{}, {"alpha": 0.7, "beta": 1.3}],
    "farthest": [{}, {"alpha": 0.7, "beta": 1.3}],
    "slerp": [{"t": t} for t in (0, 0.3, 0.5, 0.8, 1.2)] + [{"renormalise": True, "t": t} for t in (0.3, 0.8)],
    "nuslerp": [{"weights": weights} for weights in (1.0, [0.3, 0.9], [2, -1], [0, 1])] + [{"over": over} for over in ("row", "column")],
    "karcher_mean": [{}, {"weights": [0.3, -0.5, 0.9]}, {"weights": [0, 1, 0]}, {"weights": [0.2, 0, 0.7]}, {"iterations": 1}],
    "weighted_similarity": [{"share": share} for share in (0, 0.3, 1)],
    "model_stock": [{}, {"filter_wise": True}],
    "fft_blend": [
        {"coefficients": [0.5, -0.5, 0.25]},
        {"coefficients": [0.5, -0.5, 0.25], "over": "matrix", "smooth": True, "entanglement_strength": 0.3, "decoherence_factor": 0},
        {"coefficients": [0.5], "over": "row", "low": 0.1, "high": 0.7, "decoherence_factor": 0.9},
        {"coefficients": [0.5, 1.0], "dim": 0, "mix": "polar"},
        {"coefficients": [0.5, 1.0], "chunk_size": 7},
    ],
    "task_arithmetic": [{}, {"weights": [1.0, -0.5, 0]}],
    "magnitude_prune": [{}, {"density": 0.2, "weights": [1.0, -0.5, 0]}, {"density": 0}, {"density": 1}],
    **{
        name: [
            {},
            {"density": 0.5, "gamma": 0.2, "weights": [1.0, -0.5, 0], "strength": 0.6},
            {"density": 0.9, "gamma": 0.5},
            {"density": 0},
            {"density": 1},
            {"strength": 0},
        ]
        for name in ("breadcrumbs", "breadcrumbs_ties")
    },
    "dare_linear": [{}, {"density": 0.2, "weights": [1.0, -0.5, 0]}, {"density": 0}, {"density": 1}],
    "dare_ties": [{}, {"density": 0.2, "weights": [1.0, -0.5, 0], "strength": 0.6}, {"normalize": "none"}, {"majority_sign": "frequency"}],
    "ties": [
        {"majority_sign": vote, "normalize": divisor, "weights": [1.0, -0.5, 0.7], "strength": 0.7, "density": density}
        for vote in ("total", "frequency", "frequency, then total")
        for divisor, density in (("number", 0.3), ("weights", 0.5), ("none", 1.0))
    ],
    "delta_merge": [{"prune": prune, "combine": combine} for prune in ("magnitude", "random", "none") for combine in ("sum", "mean")]
    + [{"rescale": True}, {"over": "model"}, {"strength": 0}, {"prune": "random", "rescale": False}],
}


def written(folder, merge, plain: bool, monkeypatch) -> bytes:
    with monkeypatch.context() as patch:
        if plain:
            patch.setattr(kernels, "available", lambda: False)
        out = folder / "out.safetensors"
        workbench.export(merge, out, overwrite=True, progress=False)
        return out.read_bytes()


def models(folder, dtypes: list[str], change=lambda tensors: tensors) -> list[workbench.Checkpoint]:
    """Four: a base, and three with large and small changes to it, ties, and elements and tensors that are as in the base."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"a.weight": SHAPE, "b.weight": (640, 641), "same.weight": SHAPE, "a.bias": (77,)}
    base = {name: torch.randn(shape, generator=generator) * 0.05 for name, shape in shapes.items()}
    found = []
    for number, dtype in enumerate(dtypes):
        noise = {name: torch.randn(shape, generator=generator) * 0.01 for name, shape in shapes.items()}
        tensors = {name: one + noise[name] * (noise[name].abs() > 0.003) * (number > 0) for name, one in base.items()}
        tensors["same.weight"] = base["same.weight"]
        stored = {name: one.to(DTYPES[dtype]).contiguous() for name, one in tensors.items()}
        save_file(change(stored) if number == 1 else stored, folder / f"{number}.safetensors")
        found.append(workbench.open(folder / f"{number}.safetensors"))
    return found


def merges(name: str, given: list[workbench.Checkpoint]) -> list[workbench.Merge]:
    operator = own()[name]
    left, taken = iter(given), 3 if operator.declaration.suits(3) else 2
    inputs = [[next(left) for _ in range(taken)] if slot.many else next(left) for slot in operator.declaration.inputs]
    return [operator(*inputs, rules=[], **options) for options in VARIANTS[name]]


@pytest.mark.parametrize("dtypes", [["float16"] * 4, ["bfloat16"] * 4, ["float32", "float16", "bfloat16", "float16"]], ids="-".join)
@pytest.mark.parametrize("name", FUSED)
def test_a_file_has_the_bytes_that_plain_code_writes(name, dtypes, tmp_path, monkeypatch):
    for merge in merges(name, models(tmp_path, dtypes)):
        assert written(tmp_path, merge, False, monkeypatch) == written(tmp_path, merge, True, monkeypatch), merge.options


@pytest.mark.parametrize("name", FUSED)
def test_the_loop_is_what_writes(name, tmp_path):
    merge = merges(name, models(tmp_path, ["float16"] * 4))[1 if name == "slerp" else 0]
    calculation = workbench.tensors.Calculation()
    part = workbench.tensors.Rows(0, 10) if merge.own_grain == workbench.tensors.Scope.ROW else workbench.tensors.Flat(0, 5000)
    assert merge.fused("a.weight", part, calculation, torch.float16) is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 65504.0], ids=["NaN", "infinity", "largest"])
@pytest.mark.parametrize("name", ["weighted_average", "ties", "dare_ties", "slerp", "nearest", "add_difference", "fft_blend"])
def test_what_is_not_finite_is_told_and_written_as_by_plain_code(name, value, tmp_path, monkeypatch):
    def spoilt(tensors):
        tensors["a.weight"][17, 5] = value
        return tensors

    merge = merges(name, models(tmp_path, ["float16"] * 4, spoilt))[0]
    found = []
    for plain in (False, True):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            found.append((written(tmp_path, merge, plain, monkeypatch), sorted(str(one.message) for one in heard)))
    assert found[0] == found[1]
    assert any("NaN or infinity" in text for text in found[0][1]) is (value != 65504.0)


def test_a_result_that_its_dtype_cannot_hold_is_told(tmp_path):
    save_file({"a": torch.full(SHAPE, 60000.0).half()}, tmp_path / "large.safetensors")
    one = workbench.open(tmp_path / "large.safetensors")
    zeros = {"a": torch.zeros(SHAPE).half()}
    save_file(zeros, tmp_path / "zeros.safetensors")
    merge = workbench.operators.add_difference(one, one, workbench.open(tmp_path / "zeros.safetensors"))
    with pytest.warns(workbench.errors.NonFiniteWarning, match="float32"):
        workbench.export(merge, tmp_path / "out.safetensors", progress=False)


def test_a_model_that_lacks_a_tensor_did_not_change_it(tmp_path, monkeypatch):
    def lacking(tensors):
        return {name: one for name, one in tensors.items() if name != "a.weight"}

    for name in ("ties", "dare_linear", "task_arithmetic", "model_stock"):
        merge = merges(name, models(tmp_path, ["float16"] * 4, lacking))[0]
        assert written(tmp_path, merge, False, monkeypatch) == written(tmp_path, merge, True, monkeypatch), name


def test_merges_of_merges_have_the_same_bytes(tmp_path, monkeypatch):
    base, one, two, three = models(tmp_path, ["float16"] * 4)
    inner = workbench.operators.weighted_average([one, two], weights=[0.3, 0.7])
    for merge in (
        workbench.operators.ties(base, [inner, three]),
        workbench.operators.slerp(inner, three),
        workbench.operators.fft_blend(inner, three, coefficients=[0.5, -0.5]),
        workbench.operators.nearest(base, inner, three),
    ):
        assert written(tmp_path, merge, False, monkeypatch) == written(tmp_path, merge, True, monkeypatch)


@pytest.mark.parametrize("over", ["dim", "row", "matrix", "kernel"])
def test_convolutions_are_blended_to_the_same_bytes(over, tmp_path, monkeypatch):
    shapes = {"three.weight": (300, 98, 3, 3), "one.weight": (600, 450, 1, 1)}
    found = []
    for name, dtype in (("first", torch.float16), ("second", torch.bfloat16)):
        tensors = {key: torch.randn(shape, generator=torch.Generator().manual_seed(len(name))) for key, shape in shapes.items()}
        save_file({key: one.to(dtype) for key, one in tensors.items()}, tmp_path / f"{name}.safetensors")
        found.append(workbench.open(tmp_path / f"{name}.safetensors"))
    merge = workbench.operators.fft_blend(*found, coefficients=[0.5, -0.5, 0.25], over=over)
    assert merge.fused("three.weight", None, workbench.tensors.Calculation(), torch.float16) is not None
    assert written(tmp_path, merge, False, monkeypatch) == written(tmp_path, merge, True, monkeypatch)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_of_16_bits_is_read_and_written_as_torch_does(dtype):
    from workbench.kernels import mixtures

    bits = torch.arange(1 << 16, dtype=torch.int32)
    all_exponents = ((bits << 15) | (bits >> 1)).view(torch.float32)
    every = all_exponents if dtype == "float32" else bits.to(torch.int16).view(DTYPES[dtype])
    finite = every[every.isfinite()].contiguous()
    wide, back = torch.empty(len(finite)), torch.empty_like(finite)
    assert mixtures.weighted_sum(wide, [finite], [1.0])
    assert torch.equal(wide.view(torch.int32), finite.float().view(torch.int32))
    assert mixtures.weighted_sum(back, [wide], [1.0])
    assert torch.equal(back.view(torch.uint8), finite.view(torch.uint8))
    assert not mixtures.weighted_sum(torch.empty(len(every)), [every.contiguous()], [1.0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_numbers_are_rounded_to_the_nearest_and_ties_to_even(dtype):
    from workbench.kernels import mixtures

    generator = torch.Generator().manual_seed(0)
    numbers = torch.randint(-(1 << 31), (1 << 31) - 1, (200_000,), generator=generator, dtype=torch.int64).to(torch.int32)
    numbers = torch.cat([numbers, numbers & ~0xFFF | 0x1000, numbers & ~0xFFFF | 0x8000]).view(torch.float32)  # and halfway between two
    numbers = numbers[numbers.to(DTYPES[dtype]).isfinite()].contiguous()
    out = torch.empty(len(numbers), dtype=DTYPES[dtype])
    assert mixtures.weighted_sum(out, [numbers], [1.0])
    assert torch.equal(out.view(torch.int16), numbers.to(DTYPES[dtype]).view(torch.int16))


def test_random_numbers_of_a_part_are_those_of_the_whole(tmp_path, monkeypatch):
    base, one, *_ = models(tmp_path, ["float16"] * 4)
    merge = workbench.operators.dare_linear(base, [one])
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "available", lambda: False)
        whole = merge.calculate("a.weight", None, workbench.tensors.Calculation()).reshape(-1)
    for start in (0, 3, 2047, 40_001):
        part = merge.fused("a.weight", workbench.tensors.Flat(start, start + 5000), workbench.tensors.Calculation(), torch.float32)
        assert part is not None
        assert torch.equal(part, whole[start : start + 5000])


@pytest.mark.parametrize("spoilt", [None, 0, 5000, 29_999])
def test_what_is_not_finite_counts_nothing(spoilt):
    from workbench.kernels import counting

    generator = torch.Generator().manual_seed(0)
    base, one = (torch.randn(30_000, generator=generator).half() for _ in range(2))
    delta = one.float() - base.float()
    if spoilt is not None:
        one[spoilt] = torch.inf
    counts = torch.ones((2, 1 << counting.LOW), dtype=torch.int64)
    assert counting.deltas(base, [one, None], None, counts) is (spoilt is None)
    expected = torch.ones_like(counts)
    if spoilt is None:
        expected[0] += torch.bincount(delta.abs().view(torch.int32) >> counting.LOW, minlength=1 << counting.LOW)
        expected[1, 0] += 30_000
    assert torch.equal(counts, expected)
