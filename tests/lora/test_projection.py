"""`project`: against whole matrices, its two ends, and what does not meet."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.checkpoint.views.in_memory import InMemory
from workbench.checkpoint.views.low_rank import LowRank
from workbench.errors import InputError, MergeError, OptionError
from workbench.places import DATA

SHAPES = DATA / "shapes-sd"
QUERY, CONV = (f"unet.down_blocks.0.{rest}" for rest in ("attentions.0.transformer_blocks.0.attn1.to_q", "resnets.0.conv1"))
LDM = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"


def lora(name: str, module: str, rank: int, seed: int, rows: int = 9, down: tuple[int, ...] = (12,)) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    up = torch.randn(rows, rank, *[1] * (len(down) - 1), generator=generator)
    tensors = {f"{module}.lora_up.weight": up, f"{module}.lora_down.weight": torch.randn(rank, *down, generator=generator)}
    return LowRank(InMemory(tensors | {f"{module}.alpha": torch.tensor(rank / 2)}, name))


def flat(one: wb.Checkpoint, key: str) -> np.ndarray:
    return one[key].double().flatten(1).numpy()


def by_numpy(subject: np.ndarray, style: np.ndarray, strength: float) -> np.ndarray:
    _, values, right = np.linalg.svd(style, full_matrices=False)
    right = right[values > 1e-5 * values[0]]
    return subject - strength * (subject @ right.T) @ right


@given(st.integers(1, 5), st.integers(1, 5), st.floats(0, 1), st.integers(0, 100))
def test_it_is_the_projection_of_the_whole_matrix(own, others, strength, seed):
    subject, style = lora("subject", QUERY, own, seed), lora("style", QUERY, others, seed + 1)
    found = wb.lora.project(subject, style, strength=strength, progress=False)
    key = f"{QUERY}.weight"
    whole = by_numpy(flat(subject, key), flat(style, key), strength)
    np.testing.assert_allclose(flat(found, key), whole, atol=1e-4)
    assert found.report.frame()["rank"][0] <= own
    taken = np.linalg.norm(flat(subject, key) - whole) / np.linalg.norm(flat(subject, key))
    assert found.report.frame()["relative_error"][0] == pytest.approx(taken, abs=1e-4)


def test_by_hand():
    """The style reads the first input; half of what the subject does with it is taken out."""
    tensors = {f"{QUERY}.lora_up.weight": torch.eye(2), f"{QUERY}.lora_down.weight": torch.tensor([[4.0, 1.0], [2.0, 3.0]])}
    style = {f"{QUERY}.lora_up.weight": torch.tensor([[7.0], [5.0]]), f"{QUERY}.lora_down.weight": torch.tensor([[1.0, 0.0]])}
    found = wb.lora.project(LowRank(InMemory(tensors, "a")), LowRank(InMemory(style, "b")), strength=0.5)
    torch.testing.assert_close(found[f"{QUERY}.weight"], torch.tensor([[2.0, 1.0], [1.0, 3.0]]))
    assert found.report.error == pytest.approx(math.sqrt(5 / 30))


def test_at_1_the_two_act_on_inputs_at_right_angles_and_at_0_nothing_is_done():
    base, style = wb.open(SHAPES / "base.safetensors"), wb.open(SHAPES / "lora" / "stripes.safetensors")
    subject = wb.lora.extract(wb.open(SHAPES / "heart.safetensors"), base, rank=6, progress=False)
    found = wb.lora.project(subject, style, strength=1)
    shared = [key for key in subject if key in found and "attn" in key and found[key].shape == subject[key].shape]
    met = found.report.frame().set_index("layer")["relative_error"]
    assert 0 < (met > 0).sum() < len(met) - 1
    from workbench.checkpoint.views.layouts import like

    viewed = like(style, subject)
    for key in (key for key in shared if key in viewed):
        cross = flat(viewed, key) @ flat(found, key).T
        assert np.abs(cross).max() < 1e-5 * np.abs(flat(viewed, key) @ flat(subject, key).T).max()
    same = wb.lora.project(subject, style, strength=0)
    assert same.report.error == 0
    for key in list(subject)[::20]:
        torch.testing.assert_close(same[key], subject[key], atol=1e-6, rtol=1e-5)


def test_names_of_another_layout_and_convolutions_meet():
    subject = lora("subject", CONV, 2, 1, down=(3, 2, 2))
    style = lora("style", CONV, 1, 2, down=(3, 2, 2))
    key = f"{CONV}.weight"
    found = wb.lora.project(subject, style, strength=0.7)
    assert found[key].shape == subject[key].shape == (9, 3, 2, 2)
    np.testing.assert_allclose(flat(found, key), by_numpy(flat(subject, key), flat(style, key), 0.7), atol=1e-5)
    found = wb.lora.project(lora("subject", QUERY, 2, 1), lora("style", LDM, 1, 2), strength=0.7)
    other = flat(lora("style", QUERY, 1, 2), f"{QUERY}.weight")
    np.testing.assert_allclose(
        flat(found, f"{QUERY}.weight"), by_numpy(flat(lora("s", QUERY, 2, 1), f"{QUERY}.weight"), other, 0.7), atol=1e-5
    )


def test_what_is_whole_is_projected_whole_and_what_has_no_directions_stays():
    generator = torch.Generator().manual_seed(0)
    drawn = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    subject = LowRank(InMemory({f"{QUERY}.diff": drawn(9, 12), f"{QUERY}.diff_b": drawn(9)}, "subject"))
    style = lora("style", QUERY, 2, 1)
    style = LowRank(InMemory({**style.holder, f"{QUERY}.diff_b": drawn(9)}, "style"))
    found = wb.lora.project(subject, style, strength=0.5)
    key = f"{QUERY}.weight"
    np.testing.assert_allclose(flat(found, key), by_numpy(flat(subject, key), flat(style, key), 0.5), atol=1e-5)
    assert torch.equal(found[f"{QUERY}.bias"], subject[f"{QUERY}.bias"])
    assert found.report.frame()["note"].tolist()[:-1] == ["kept whole"] * 2


def test_what_has_nothing_left_is_told_and_all_of_it_refused():
    one, rest = lora("a", QUERY, 2, 1), lora("b", CONV, 1, 2, down=(3, 2, 2))
    both = LowRank(InMemory({**one.holder, **rest.holder}, "both"))
    found = wb.lora.project(both, one, strength=1)
    assert list(found) == [f"{CONV}.weight"]
    assert found.report.frame()["note"].tolist()[:2] == ["nothing is left of it", ""]
    with pytest.raises(MergeError, match="project: nothing is left of a: a has all of its directions; give a strength below 1"):
        wb.lora.project(one, one)
    assert 0 < (wb.lora.project(one, one, strength=0.9)[f"{QUERY}.weight"].norm() / one[f"{QUERY}.weight"].norm()).item() < 0.11


def test_it_can_be_written_and_applied(tmp_path):
    base, style = wb.open(SHAPES / "base.safetensors"), wb.open(SHAPES / "lora" / "stripes.safetensors")
    subject = wb.lora.extract(wb.open(SHAPES / "heart.safetensors"), base, rank=4, progress=False)
    found = wb.lora.project(subject, style, strength=0.8)
    written = wb.open(wb.lora.export(found, tmp_path / "p.safetensors", dtype="float32"))
    one, other = (wb.lora.apply(base, [(which, 1.0), (style, 1.0)]) for which in (found, written))
    for key in list(base)[::40]:
        torch.testing.assert_close(one[key], other[key])


def test_bad_input_is_refused():
    one = lora("a", QUERY, 2, 1)
    for strength in (-0.1, 1.5, True, "much", math.nan):
        with pytest.raises(OptionError, match=r"project: strength must be a number in \[0, 1\], got"):
            wb.lora.project(one, one, strength=strength)
    with pytest.raises(InputError, match="project takes LoRAs"):
        wb.lora.project(one, wb.open(SHAPES / "base.safetensors"))
    with pytest.raises(MergeError, match=r"project: no matrix of a \('unet.down.*is one of b.*there is nothing to keep apart"):
        wb.lora.project(one, lora("b", CONV, 1, 2, down=(3, 2, 2)))
    with pytest.raises(MergeError, match=rf"different models: '{QUERY}.weight' is \[9, 12\] in a, \[9, 5\] in wide"):
        wb.lora.project(one, lora("wide", QUERY, 1, 2, down=(5,)))
    with pytest.raises(MergeError, match="only LoRAs of one architecture can be put together"):
        wb.lora.project(one, lora("flux", "transformer.double_blocks.0.img_mod.lin", 1, 2))
    bad = lora("bad", QUERY, 1, 2)
    bad.holder.entries[f"{QUERY}.lora_up.weight"][0, 0] = math.inf
    for pair in ((one, bad), (bad, one)):
        with pytest.raises(MergeError, match=rf"project: bad: '{QUERY}.weight' holds NaN or infinity"):
            wb.lora.project(*pair)
