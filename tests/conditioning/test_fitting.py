"""Fitting: the gradient is right, the loss falls, a stopped fit goes on as if it had not been, bad input is told."""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import pytest
import torch
from held import Held

import workbench as wb
from workbench.conditioning import fitting
from workbench.conditioning.lessons import choose_teachers
from workbench.conditioning.steered import Steered
from workbench.errors import HypernetworkError, NonFiniteWarning, RenderError
from workbench.operators import fft_blend
from workbench.places import DATA
from workbench.tensors import Calculation

Objective, Hypernetwork, fit = wb.conditioning.Objective, wb.conditioning.Hypernetwork, wb.conditioning.fit
FAMILY = DATA / "shapes-sd"
HEART, MOON, OTHER = (f"a {colour} background" for colour in ("red heart on a white", "blue moon on a black", "green heart on a gray"))
TEACHERS = {HEART: "first", MOON: "second", OTHER: "first"}
QUICK = Objective(teachers=TEACHERS, pictures=1, lessons=4, steps=2, guidance=2.0)
IN, OUT, ELSE = (f"model.diffusion_model.{name}.weight" for name in ("input_blocks.1.0.x", "output_blocks.1.0.x", "out.2"))


@pytest.fixture(scope="module")
def pair():
    return wb.open(FAMILY / "heart.safetensors"), wb.open(FAMILY / "moon.safetensors")


@pytest.fixture(scope="module")
def renderer():
    return wb.Renderer(FAMILY / "config")


def run(pair, renderer, steps=2, **changed):
    return fit(*pair, [HEART, MOON], **{"renderer": renderer, "objective": QUICK, "steps": steps, "every": 2, "progress": False, **changed})


@pytest.fixture(scope="module")
def fitted(pair, renderer):
    """A fit of two steps."""
    return run(pair, renderer)


@pytest.fixture
def small():
    draws = torch.Generator().manual_seed(0)
    models = [Held({key: torch.randn(3, 10, generator=draws) for key in (IN, OUT, ELSE)}, name) for name in ("a", "b")]
    return fft_blend(*models, coefficients=[0.0], smooth=True, entanglement_strength=0.9, decoherence_factor=0.3, seed=5)


def test_a_steered_merge_is_the_merge_of_those_numbers(small):
    rows = torch.tensor([[0.5, -0.2], [0.1, 0.9], [-1.0, 0.3]])
    steered = Steered(small, rows, ["IN01", "OUT01"])
    numbers = {"blocks": dict(zip(("IN01", "OUT01", "default"), rows.double().tolist(), strict=True))}
    wanted = fft_blend(*small.call.inputs, **{**small.options, "coefficients": numbers}, seed=5)
    for key in small:
        assert torch.equal(steered.read(key), wanted.calculate(key, None, Calculation("float32")))


def test_gradients_are_those_of_finite_differences(small):
    target = torch.randn(3, 10, generator=torch.Generator().manual_seed(1))

    def loss(rows):
        return sum((Steered(small, rows, ["IN01", "OUT01"]).read(key).double() - target).square().sum() for key in small)

    rows = torch.tensor([[0.5, -0.2], [0.1, 0.9], [-1.0, 0.3]], dtype=torch.float64, requires_grad=True)
    loss(rows).backward()
    for place in np.ndindex(3, 2):
        step = torch.zeros(3, 2, dtype=torch.float64)
        step[place] = 1e-2
        with torch.no_grad():
            slope = float(loss(rows + step) - loss(rows - step)) / 2e-2
        assert float(rows.grad[place]) == pytest.approx(slope, rel=2e-3, abs=1e-3)


def test_the_loss_falls_and_both_parents_stay_as_they_are(pair, renderer):
    before = [path.read_bytes() for path in (FAMILY / "heart.safetensors", FAMILY / "moon.safetensors")]
    settings = {"renderer": renderer, "objective": QUICK, "steps": 8, "every": 4, "learning_rate": 0.01, "progress": False}
    found = fit(*pair, [HEART], held_out=[OTHER], **settings)
    frame = found.frame()
    assert list(frame["step"]) == [4, 8]
    assert frame["held_out"].iloc[1] < frame["held_out"].iloc[0]
    assert found.teachers == {HEART: "first", OTHER: "first"}
    assert [step for step, _ in found.pictures] == [4, 8]
    assert found.headline.startswith("8 steps: held-out loss from ")
    assert before == [path.read_bytes() for path in (FAMILY / "heart.safetensors", FAMILY / "moon.safetensors")]


def test_what_was_fitted_merges_by_prompt_and_is_kept_by_a_recipe(fitted, tmp_path):
    key = "model.diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_k.weight"
    one, other = fitted.merge(HEART), fitted.merge(MOON)
    assert not torch.equal(one.read(key), other.read(key))
    fitted.hypernetwork.save(tmp_path / "n.safetensors")
    fitted.merge(HEART).recipe.save(tmp_path / "r.yaml")
    assert "hypernetwork: {path: n.safetensors" in (tmp_path / "r.yaml").read_text()
    assert torch.equal(wb.Recipe.load(tmp_path / "r.yaml").build().read(key), one.read(key))


def test_fitted_together_there_is_one_merge_for_all_prompts(pair, renderer):
    found = run(pair, renderer, together=True)
    assert found.merge().options == found.merge([HEART, MOON]).options
    assert found.merge().options != found.merge(HEART).options


def test_a_fit_that_was_stopped_goes_on_as_if_it_had_not_been(pair, renderer, tmp_path):
    whole = run(pair, renderer, steps=4)
    run(pair, renderer, steps=2, state=tmp_path / "fit.pt")
    resumed = run(pair, renderer, steps=4, state=tmp_path / "fit.pt")
    assert resumed.hypernetwork.identity == whole.hypernetwork.identity
    assert resumed.frame().equals(whole.frame())
    assert [np.array(picture).tolist() for _, picture in resumed.pictures] == [np.array(picture).tolist() for _, picture in whole.pictures]


def test_an_interrupt_keeps_what_there_is(pair, renderer, fitted, monkeypatch, tmp_path):
    calls, step = count(), fitting._step

    def interrupted(*given):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(fitting, "_step", interrupted)
    found = run(pair, renderer, steps=8, state=tmp_path / "fit.pt")
    monkeypatch.undo()
    assert found.stopped == "interrupted; the network of step 2 was kept"
    assert found.hypernetwork.identity == fitted.hypernetwork.identity
    assert run(pair, renderer, steps=4, state=tmp_path / "fit.pt").frame()["step"].tolist() == [2, 4]


def test_a_loss_that_is_no_number_stops_and_the_last_good_network_is_kept(pair, renderer, fitted, monkeypatch):
    calls, step = count(), fitting._step
    monkeypatch.setattr(fitting, "_step", lambda *given: math.nan if next(calls) == 3 else step(*given))
    with pytest.warns(NonFiniteWarning, match="the loss was nan after step 2; the network of that step was kept; try a lower"):
        found = run(pair, renderer, steps=8)
    assert found.hypernetwork.identity == fitted.hypernetwork.identity
    assert "the loss was nan" in found.headline


def test_the_state_of_another_fit_is_refused_and_left_alone(pair, renderer, tmp_path):
    run(pair, renderer, state=tmp_path / "fit.pt")
    before = (tmp_path / "fit.pt").read_bytes()
    with pytest.raises(HypernetworkError, match="is the state of another fit"):
        run(pair, renderer, state=tmp_path / "fit.pt", learning_rate=0.5)
    assert (tmp_path / "fit.pt").read_bytes() == before
    (tmp_path / "text").write_text("nothing")
    with pytest.raises(HypernetworkError, match="is no state of a fit"):
        run(pair, renderer, state=tmp_path / "text")


def test_the_parent_that_scores_higher_teaches_unless_the_user_says(pair, renderer):
    def red(pictures, prompts):
        return [float(np.asarray(picture)[..., 0].mean()) for picture in pictures]

    parents, objective = pair, Objective(scorer=red, pictures=2, steps=2, guidance=2.0)
    found = choose_teachers(parents, [HEART, MOON], renderer, objective, progress=False)
    for prompt, name in found.items():
        means = []
        for parent in parents:
            renderer.load(parent, progress=False)
            pictures = renderer.images([prompt], [0, 1], steps=2, guidance=2.0, progress=False)
            means.append(np.mean(red(pictures, None)))
        assert name == ("second" if means[1] > means[0] else "first")
    turned = {HEART: {"first": "second", "second": "first"}[found[HEART]]}
    given = Objective(scorer=red, teachers=turned, pictures=2, steps=2, guidance=2.0)
    assert choose_teachers(parents, [HEART, MOON], renderer, given, progress=False) == {**found, **turned}


def test_near_average_pulls_towards_the_average(pair, renderer):
    objective = Objective(teachers=TEACHERS, pictures=1, lessons=4, steps=2, guidance=2.0, near_average=100.0)
    network = Hypernetwork(64, count=4, seed=1)
    with torch.no_grad():
        network.layers[2].bias += 0.5
    pulled, plain = (run(pair, renderer, objective=one, hypernetwork=network, learning_rate=1e-3) for one in (objective, QUICK))
    sizes = [np.abs(one.hypernetwork.coefficients(one.hypernetwork.embed(HEART, one.encoder))).mean() for one in (pulled, plain)]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"prompts": []}, "needs one prompt or more"),
        ({"prompts": "a heart"}, "prompts must be a list of prompts"),
        ({"held_out": [HEART]}, "cannot be learnt from and held out"),
        ({"steps": 0}, "steps must be a whole number of 1 or more, got 0"),
        ({"every": 1.5}, "every must be a whole number of 1 or more, got 1.5"),
        ({"objective": Objective()}, "no teacher is named for .*, and there is no scorer"),
        ({"objective": Objective(scorer=lambda pictures, prompts: [math.nan] * len(pictures), pictures=1, steps=1)}, "has no score for"),
        ({"hypernetwork": Hypernetwork()}, "embeddings of width 768"),
    ],
)
def test_what_cannot_be_fitted_is_told(changed, told, pair, renderer):
    settings = {"prompts": [HEART, MOON], "renderer": renderer, "objective": QUICK, "steps": 1, "progress": False, **changed}
    with pytest.raises(HypernetworkError, match=told):
        fit(*pair, settings.pop("prompts"), **settings)


def test_models_that_the_renderer_cannot_hold_are_told_before_anything_is_drawn(renderer, small):
    with pytest.raises(RenderError):
        fit(
            *small.call.inputs,
            [HEART],
            renderer=renderer,
            objective=QUICK,
            steps=1,
            encoder=wb.conditioning.TextEncoder(FAMILY / "base.safetensors"),
        )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"pictures": 0}, "pictures must be a whole number"),
        ({"near_average": -1.0}, "near_average must be 0 or more"),
        ({"teachers": {"x": "third"}}, "a teacher is 'first' or 'second', got 'third'"),
    ],
)
def test_an_objective_that_cannot_be_is_told(settings, told):
    with pytest.raises(HypernetworkError, match=told):
        Objective(**settings)
