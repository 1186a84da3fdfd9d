"""Preflight tells how much of a change is what two formats lost."""

from __future__ import annotations

import re

import pytest
import torch
from held import Held
from safetensors.torch import save_file

import workbench as wb

KEYS = [f"double_blocks.{i}.img_mod.lin.weight" for i in range(3)]
STEM = {"img_in.weight": torch.zeros(8, 8)}


def weights(seed: int) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return {key: torch.randn(64, 256, generator=made) for key in KEYS}


def stored(tensors: dict[str, torch.Tensor], path, kind: str | None):
    if kind is None:
        save_file({key: tensor.to(torch.bfloat16) for key, tensor in tensors.items()}, path)
        return wb.open(path)
    return wb.export(Held(tensors), path, quantise=kind, progress=False).open()


def share(findings) -> float:
    (told,) = [text for text in findings.notes if "stored in two ways" in text]
    return float(re.search(r"about (\S+) % of their squares", told)[1]) / 100


@pytest.mark.parametrize(("strength", "base_kind", "tuned_kind"), [(0.3, "Q4_0", None), (0.05, "Q8_0", None), (0.3, "Q5_0", "Q8_0")])
def test_the_share_is_near_what_rounding_makes_of_a_known_change(strength, base_kind, tuned_kind, tmp_path):
    exact, change = weights(0) | STEM, weights(1)
    moved = exact | {key: exact[key] + strength * change[key] for key in KEYS}
    base = stored(exact, tmp_path / ("base.gguf"), base_kind)
    tuned = stored(moved, tmp_path / (f"tuned.{'gguf' if tuned_kind else 'safetensors'}"), tuned_kind)
    rounding = sum(
        float((tuned.exact(key).float() - moved[key]).square().sum() + (base.exact(key) - exact[key]).square().sum()) for key in KEYS
    )
    difference = sum(float((tuned.exact(key).float() - base.exact(key)).square().sum()) for key in KEYS)
    found = wb.preflight(wb.operators.task_arithmetic(base, [tuned]))
    assert share(found) == pytest.approx(rounding / difference, rel=0.15, abs=0.01)
    assert not found.warnings


def test_a_change_that_is_mostly_rounding_is_told_as_such(tmp_path):
    exact, change = weights(0) | STEM, weights(1)
    base = stored(exact, tmp_path / "base.gguf", "Q4_0")
    tuned = stored(exact | {key: exact[key] + 0.02 * change[key] for key in KEYS}, tmp_path / "tuned.safetensors", None)
    assert share(wb.preflight(wb.operators.task_arithmetic(base, [tuned]))) > 0.9


def test_models_that_are_stored_alike_are_not_spoken_of(tmp_path):
    base, tuned = (stored(weights(i) | STEM, tmp_path / f"{i}.gguf", "Q4_0") for i in range(2))
    found = wb.preflight(wb.operators.task_arithmetic(base, [tuned]))
    assert not any("stored" in text for text in (*found.notes, *found.warnings))
    assert not any("stored" in text for text in wb.preflight(wb.operators.weighted_average([base, tuned])).notes)


def test_a_scale_that_is_none_is_an_error_before_anything_is_written(tmp_path):
    base = stored(weights(0) | STEM, tmp_path / "base.safetensors", None)
    path = wb.export(Held(weights(1) | STEM), tmp_path / "tuned.safetensors", quantise="int8_tensorwise", progress=False).path
    from safetensors.torch import load_file

    damaged = load_file(path)
    damaged[f"{KEYS[0]}_scale"][:] = float("nan")
    save_file(damaged, path)
    found = wb.preflight(wb.operators.task_arithmetic(base, [wb.open(path)]))
    assert any("a scale is positive" in text for text in found.errors)


def test_what_is_merged_is_neither_stored_nor_calculated_to_be_judged(tmp_path, monkeypatch):
    base = stored(weights(0) | STEM, tmp_path / "base.gguf", "Q4_0")
    inner = wb.operators.weighted_average([stored(weights(i) | STEM, tmp_path / f"{i}.safetensors", None) for i in (1, 2)])
    monkeypatch.setattr(type(inner), "calculate", lambda *given: pytest.fail("it was calculated"))
    found = wb.preflight(wb.operators.task_arithmetic(base, [inner]))
    assert not any("stored in two ways" in text for text in found.notes)
