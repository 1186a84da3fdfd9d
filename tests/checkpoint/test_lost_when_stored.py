"""What storing lost is estimated from the stored numbers alone; here the originals are known."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from gguf_files import Type, decoded

from workbench.checkpoint.stored.rounding import lost_when_stored

WEIGHTS = torch.randn(64, 512, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 1, 64)[:, None]


def squared(stored: torch.Tensor) -> float:
    return float((stored - WEIGHTS).double().square().sum())


def in_gguf(kind: str) -> tuple[float, torch.Tensor]:
    """Bits of a weight, and what it reads as."""
    packed = gguf.quants.quantize(WEIGHTS.numpy(), Type[kind])
    return 8 * packed.nbytes / WEIGHTS.numel(), torch.from_numpy(decoded(packed, Type[kind]).reshape(WEIGHTS.shape).copy())


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "MXFP4"])
def test_it_is_near_what_ggufs_types_lost(kind):
    bits, stored = in_gguf(kind)
    assert lost_when_stored(kind, bits, stored.reshape(-1)) == pytest.approx(squared(stored), rel=0.15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_it_is_near_what_floats_lost(dtype):
    stored = WEIGHTS.to(dtype).float()
    assert lost_when_stored(str(dtype).removeprefix("torch."), 8, stored.reshape(-1)) == pytest.approx(squared(stored), rel=0.15)


def test_it_is_near_what_a_scale_for_each_row_lost():
    scales = WEIGHTS.abs().amax(1, keepdim=True) / 127
    stored = (WEIGHTS / scales).round() * scales
    assert lost_when_stored("scaled int8", 8.06, stored.reshape(-1)) == pytest.approx(squared(stored), rel=0.15)


def test_nf4_lost_what_its_table_is_known_to():
    table = torch.tensor(  # of QLoRA, appendix E
        [
            *(-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0),
            *(0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0),
        ]
    )
    blocks = WEIGHTS.reshape(-1, 64)
    most = blocks.abs().amax(1, keepdim=True)
    stored = (table[(blocks[..., None] / most[..., None] - table).abs().argmin(-1)] * most).reshape(WEIGHTS.shape)
    assert lost_when_stored("NF4", 4.5, stored.reshape(-1)) == pytest.approx(squared(stored), rel=0.15)


def test_nothing_is_lost_of_wide_floats_and_of_zeros():
    assert lost_when_stored("float32", 32, WEIGHTS.reshape(-1)) == 0
    assert lost_when_stored("Q8_0", 8.5, torch.zeros(64)) == 0
    assert lost_when_stored("bfloat16", 16, torch.zeros(64)) == 0


@pytest.mark.parametrize("kind", ["IQ3_S", "IQ2_XXS", "scaled int8, rotated", "scaled int4, rotated"])
def test_what_hides_its_steps_is_unknown(kind):
    assert lost_when_stored(kind, 3.4, WEIGHTS.reshape(-1)) is None


def test_it_is_of_all_numbers_also_of_those_that_fill_no_group():
    values = torch.from_numpy(np.arange(40, dtype=np.float32))
    assert lost_when_stored("Q8_0", 8.5, values) == pytest.approx(40 / 12)
