"""Compiled loops give what plain torch code gives, bit for bit; what they are for is tested where it is used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench import kernels
from workbench.merge import Random
from workbench.operators import own, sparsify

pytestmark = pytest.mark.skipif(not kernels.available(), reason="numba is not installed")

SPECIAL = [0.0, -0.0, 1e-40, -1e-40, 0.5, -0.5, 0.5, 3e38, -3e38, 1.0]
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "ties": [
        {"majority_sign": vote, "normalize": divisor, "weights": [1.0, -0.5, 0.0], "strength": 0.7}
        for vote in ("total", "frequency", "frequency, then total")
        for divisor in ("number", "weights", "none")
    ],
    "nearest": [{"alpha": 0.7, "beta": 1.3}],
    "dare_ties": [{"density": 0.3, "weights": [1.0, -2.0, 0.5]}],
    "delta_merge": [{"prune": prune, "combine": combine} for prune in ("magnitude", "random", "none") for combine in ("sum", "mean")],
}


@pytest.fixture
def plain(monkeypatch):
    """A call without compiled loops."""

    def called(function, *inputs, **options):
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "available", lambda: False)
            return function(*inputs, **options)

    return called


def strange(shape: tuple[int, ...], seed: int, finite: bool) -> torch.Tensor:
    """Normal numbers, some of them zeros of both signs, tiny, huge or equal; or NaN and infinity."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(shape, generator=generator)
    special = torch.tensor(SPECIAL if finite else [*SPECIAL, torch.inf, -torch.inf, torch.nan])
    chosen = special[torch.randint(len(special), shape, generator=generator)]
    return torch.where(torch.rand(shape, generator=generator) < 0.3, chosen, found)


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal, zeros in their sign too; NaN is NaN."""
    nan = one.isnan() & other.isnan()
    return torch.equal(one.masked_fill(nan, 0).view(torch.int32), other.masked_fill(nan, 0).view(torch.int32))


@pytest.mark.parametrize("name", own())
def test_every_operator_gives_the_same_bits_without_compiled_loops(name, plain):
    required = {key: [0.5, -0.5, 0.25] for key, option in own()[name].declaration.options.items() if option.required}
    inputs = _inputs(name, [torch.randn((70, 51), generator=torch.Generator().manual_seed(i)) for i in range(9)])
    found = own()[name].function(*inputs, **required)
    assert same_bits(found, plain(own()[name].function, *inputs, **required))


@pytest.mark.parametrize("finite", [True, False], ids=["finite", "not finite"])
@pytest.mark.parametrize("name", VARIANTS)
def test_what_is_compiled_gives_the_same_bits_of_zeros_ties_and_what_is_no_number(name, finite, plain):
    for number, options in enumerate(VARIANTS[name]):
        inputs = _inputs(name, [strange((70, 51), 10 * number + i, finite) for i in range(9)])
        found = own()[name].function(*inputs, **options)
        assert same_bits(found, plain(own()[name].function, *inputs, **options)), options


def _inputs(name: str, tensors: list[torch.Tensor]) -> list[Any]:
    """As the operator takes them; three where it takes several models, unless it takes two."""
    operator, left = own()[name], iter(tensors)
    models = 3 if operator.declaration.suits(3) else 2
    return [[next(left) for _ in range(models)] if slot.many else next(left) for slot in operator.declaration.inputs]


@settings(max_examples=30)
@given(st.integers(0, 2**62), st.integers(0, 6000), st.integers(0, 2**64 - 1), st.sampled_from(["", "model.x"]))
def test_numbers_are_those_of_numpys_philox(start, count, seed, name):
    drawn = Random(seed, name, start).uniform(torch.empty(count))
    step, skipped = divmod(start, 8)
    generator = np.random.Generator(np.random.Philox(key=Random(seed, name).key(0), counter=step))
    assert torch.equal(drawn, torch.from_numpy(generator.random(skipped + count, dtype=np.float32)[skipped:]))


@settings(max_examples=30)
@given(st.integers(0, 100), st.integers(0, 5000), st.floats(0, 1), st.floats(-2, 2, width=32))
def test_what_is_kept_by_chance_is_what_has_a_number_below_the_density(at, count, density, scale):
    values, random = strange((count,), at, True), Random(1, "x", 7)
    expected = values * (Random(1, "x", 7 + at).uniform(values) < density) * scale
    assert same_bits(random.kept(values, density, scale, at=at), expected)


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=60), st.floats(0, 1))
def test_what_is_trimmed_is_what_is_below_the_threshold(values, density):
    delta = torch.tensor(values)
    kept = sparsify.largest(delta, density)(delta, slice(0, len(values)), 1)
    count = int(density * len(values))
    least = delta.abs().sort(descending=True).values[count - 1] if count else torch.inf
    assert torch.equal(kept, torch.where(delta.abs() >= least, delta, 0))
