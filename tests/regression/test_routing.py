"""`regmean` of LoRAs (SSR): the solution by hand, LoRAs that do not meet, and what is said of the rest."""

from __future__ import annotations

import pytest
import torch
from regression_inputs import PROMPTS

import workbench as wb
from workbench.errors import InputError, MergeError
from workbench.operators import add_delta
from workbench.regression.routing import _Change

KEY = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
MODULE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def merged(models, loras, drawn):
    return wb.regmean(models["base"], loras, PROMPTS, **drawn)


def inputs(renderer, model, prompt: str) -> torch.Tensor:
    renderer.load(model, progress=False)
    layer = dict(renderer._pipeline.unet.named_modules())[MODULE]
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda layer, given: seen.append(given[0].double().flatten(0, -2)))
    renderer.images([prompt], [0], steps=2, progress=False)
    handle.remove()
    return torch.cat(seen)


def test_a_layer_answers_each_loras_inputs_as_that_lora_does_as_far_as_least_squares_can(models, loras, drawn, merged):
    given = [inputs(drawn["renderer"], add_delta(models["base"], [lora]), prompt) for lora, (prompt,) in zip(loras, PROMPTS, strict=True)]
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    factors = [lora.factors(key) for lora in loras]
    lower = torch.cat([down for _, down in factors]).double()
    signals = torch.cat([x @ lower.T for x in given])  # places x ranks
    wanted = torch.cat(
        [
            torch.cat(
                [x @ down.double().T if own == other else x.new_zeros(len(x), len(down)) for other, (_, down) in enumerate(factors)], 1
            )
            for own, x in enumerate(given)
        ]
    )
    ridge = torch.diag(1e-2 * signals.norm(dim=0))  # 1e-4 of the diagonal, as rows of its own
    router = torch.linalg.lstsq(torch.cat([signals, ridge]), torch.cat([wanted, ridge])).solution.T
    upper = torch.cat([up for up, _ in factors], 1).double()
    torch.testing.assert_close(merged[KEY].double(), upper @ router @ lower, atol=1e-6, rtol=1e-3)


def test_loras_that_hear_different_inputs_are_added_up():
    change = _Change((2, 4))
    for place in range(2):
        lower = torch.zeros(1, 4)
        lower[0, place] = 100.0
        change.factors[place] = torch.tensor([[1.0], [place + 2.0]]), lower
    change.begin()
    for place in range(2):
        given = torch.zeros(4, 3)
        given[place] = torch.tensor([1.0, 2.0, 3.0])
        change.add(place, change.lower, given)
    change.route()
    upper, lower = change.joined()
    torch.testing.assert_close(upper @ lower, torch.tensor([[100.0, 100.0, 0, 0], [200.0, 300.0, 0, 0]]), atol=1e-3, rtol=0)


def test_two_loras_that_are_one_change_as_much_as_one_does_where_prompts_excite_them(models, loras, drawn):
    twice = wb.regmean(models["base"], [loras[0], loras[0]], PROMPTS[0], **drawn)
    once = wb.regmean(models["base"], loras[:1], PROMPTS[0], **drawn)
    assert float((twice[KEY] - once[KEY]).norm()) < 1e-3 * float(once[KEY].norm())


def test_what_no_prompt_excites_is_added_up():
    change = _Change((2, 4))
    for place in range(2):
        change.factors[place] = torch.ones(2, 2), torch.eye(4)[2 * place : 2 * place + 2]
    change.begin()
    for place in range(2):
        change.add(place, change.lower, torch.tensor([[1.0], [0.0], [1.0], [0.0]]))  # the second and the last never come
    change.route()
    upper, lower = change.joined()
    torch.testing.assert_close(upper @ lower, torch.tensor([[0.5, 1.0, 0.5, 1.0]] * 2), atol=1e-3, rtol=0)


def routers(scale: float) -> torch.Tensor:
    """How two LoRAs whose inputs overlap are routed, with lower factors of this size."""
    numbers = torch.Generator().manual_seed(0)
    change = _Change((3, 4))
    for place in range(2):
        change.factors[place] = torch.randn(3, 1, generator=numbers), scale * torch.randn(1, 4, generator=numbers)
    change.begin()
    for place in range(2):
        change.add(place, change.lower, torch.randn(4, 50, generator=numbers))
    change.route()
    return change.router


def test_a_small_change_is_routed_as_a_large_one_is():
    torch.testing.assert_close(routers(1e-6), routers(1.0), atol=1e-6, rtol=1e-4)


def test_one_lora_alone_is_what_it_was(models, loras, drawn):
    alone = wb.regmean(models["base"], loras[:1], PROMPTS[0], **drawn)
    before, after = add_delta(models["base"], loras[:1]), add_delta(models["base"], [alone])
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_result_is_a_lora_of_the_ranks_together_that_is_written_and_read_again(models, merged, tmp_path):
    assert merged.factors(KEY)[0].shape[1] == 8
    assert "115 layers were routed (SSR)" in merged.notes[-1]
    file = wb.open(wb.lora.export(merged, tmp_path / "merged.safetensors", dtype="float32"))
    once, again = add_delta(models["base"], [merged]), add_delta(models["base"], [file])
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    torch.testing.assert_close(once[key], again[key])
    assert not torch.equal(once[key], models["base"][key])


def test_models_and_loras_together_are_refused(models, loras, drawn):
    with pytest.raises(InputError, match="takes models, or LoRAs, and not both"):
        wb.regmean(models["base"], [models["heart"], loras[1]], PROMPTS, **drawn)


def test_a_lora_that_makes_nan_is_refused(models, loras, drawn):
    broken = wb.lora.merge(loras[:1], 1.0, progress=False)
    broken.holder._tensors[next(name for name in broken.holder if name.endswith("lora_up.weight"))].fill_(torch.nan)
    with pytest.raises(MergeError, match="NaN or infinity"):
        wb.regmean(models["base"], [broken, loras[1]], PROMPTS, **drawn)
