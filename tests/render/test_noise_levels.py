"""Two models by noise level: which of them takes which step, what they are refused for, and that nothing of it stays behind."""

from __future__ import annotations

import re
import warnings
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from held import Held
from tiny_pipelines import save

import workbench as wb
from workbench.errors import Cancelled, RenderError
from workbench.render import Renderer
from workbench.render.noise_levels import Second, taking_turns
from workbench.render.silence import quiet

PROMPT, QUICK = "a red heart on a white background", {"steps": 4, "guidance": 3.0}
SMALL = {"width": 64, "height": 32}
# PNDM (a timestep twice), DDIM, flows; Z-Image is given its times turned around, Qwen-Image is called twice a step
KINDS = ("SD 1", "SD 2", "SDXL", "SD 3", "Flux", "Z-Image", "Qwen-Image", "Sana")
SCALE = {"Qwen-Image": "true_cfg_scale"}

ops = wb.operators


@pytest.fixture(scope="module")
def moon(family) -> wb.Checkpoint:
    return wb.open(family / "moon.safetensors")


@pytest.fixture(scope="module")
def shared(family) -> Renderer:
    """One for several tests: what it drew before must not matter."""
    return Renderer(family / "config", device="cpu")


def drawn(renderer: Renderer, model: wb.Checkpoint, **asked: Any) -> np.ndarray:
    renderer.load(model)
    return np.asarray(renderer.images([PROMPT], [3], **QUICK | asked)[0], int)


def counted(checkpoint: wb.Checkpoint) -> Held:
    return Held({key: checkpoint.read(key) for key in checkpoint}, checkpoint.name)


class _Settings(dict):
    """As diffusers has configs."""

    __getattr__ = dict.__getitem__


class FakeScheduler:
    """Four steps from much noise to little."""

    def __init__(self) -> None:
        self.timesteps, self.config = torch.tensor([900.0, 600.0, 400.0, 100.0]), _Settings(num_train_timesteps=1000)

    def step(self, change: str, eta: float = 0.0) -> str:
        return change


class Named(torch.nn.Module):
    """A denoiser that says who it is."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, latents: torch.Tensor, *, timestep: float) -> str:
        return self.name


@pytest.mark.parametrize(
    ("boundary", "expected"),
    [(0.95, "llll"), (0.9, "hlll"), (0.5, "hhll"), (0.4, "hhhl"), (0.4001, "hhll"), (0.05, "hhhh")],
)
def test_steps_from_the_boundary_on_are_taken_by_high_and_the_others_by_low(boundary, expected):
    pipeline = SimpleNamespace(components={"unet": (unet := Named("h"))}, scheduler=FakeScheduler())
    taken = ""
    with taking_turns(pipeline, "unet", Second(Named("l"), boundary)):
        for time in pipeline.scheduler.timesteps:
            answers = {unet(torch.zeros(1), timestep=1 - time / 1000) for _ in range(2)}  # guided: two calls in one step
            taken += pipeline.scheduler.step(answers.pop(), eta=0.0)
            assert not answers
    assert taken == expected
    assert unet(torch.zeros(1), timestep=0.0) == "h"
    assert "forward" not in vars(unet)
    assert "step" not in vars(pipeline.scheduler)


def test_a_scheduler_that_does_not_count_in_timesteps_is_refused():
    scheduler = FakeScheduler()
    scheduler.config = _Settings(num_train_timesteps=1000, sigma_data=0.5)
    pipeline = SimpleNamespace(components={"unet": Named("h")}, scheduler=scheduler)
    with (
        pytest.raises(RenderError, match="FakeScheduler does not count noise levels in timesteps of training"),
        taking_turns(pipeline, "unet", Second(Named("l"), 0.5)),
    ):
        pass


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    made: dict[str, Any] = {}

    def find(kind: str) -> Any:
        if kind not in made:
            place = tmp_path_factory.mktemp("levels")
            made[kind] = save(kind, place / "a", 1), save(kind, place / "b", 2)
        return made[kind]

    return find


def by_hand(kind: str, first: Any, second: Any, boundary: float, **settings: Any) -> np.ndarray:
    """What diffusers draws where, after a step, another denoiser is put into its pipeline by hand."""
    with quiet(), warnings.catch_warnings(action="ignore"):
        pipeline, other = (
            diffusers.DiffusionPipeline.from_pretrained(one, dtype=torch.float32, local_files_only=True) for one in (first, second)
        )
        pipeline.set_progress_bar_config(disable=True)
        name = "unet" if "unet" in pipeline.components else "transformer"
        levels: list[float] = []

        def after(pipeline: Any, step: int, time: torch.Tensor, values: dict[str, Any]) -> dict[str, Any]:
            levels.append(float(time) / 1000)
            times = pipeline.scheduler.timesteps
            if step + 1 < len(times) and float(times[step + 1]) < boundary * 1000:
                setattr(pipeline, name, getattr(other, name))
            return values

        scale = SCALE.get(kind, "guidance_scale")
        told = {"prompt": PROMPT, scale: 3.0, "generator": [torch.Generator().manual_seed(3)], "callback_on_step_end": after}
        with torch.inference_mode():
            picture = pipeline(num_inference_steps=4, **told, **settings).images[0]
    assert levels[0] >= boundary > levels[-1]  # or the second would never act, or the first
    return np.asarray(picture, int)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_those_of_diffusers_with_the_denoiser_changed_by_hand_at_the_boundary(folders, kind):
    first, second = folders(kind)
    high, low = wb.open(first), wb.open(second)
    renderer = Renderer(first, device="cpu")
    with warnings.catch_warnings(action="ignore"):  # of guidance that does nothing without a negative prompt
        picture = drawn(renderer, wb.NoiseLevels(high, low, boundary=0.6), **SMALL)
        alone = drawn(renderer, high, **SMALL)
    off, changed = (np.abs(picture - other) for other in (by_hand(kind, first, second, 0.6, **SMALL), alone))
    assert off.max() <= 1
    assert changed.max() > 4
    assert changed.mean() > 0.1 + 10 * off.mean()


def test_two_equal_halves_draw_what_one_of_them_draws(shared, heart):
    assert np.array_equal(drawn(shared, wb.NoiseLevels(heart, heart)), drawn(shared, heart))


def test_where_one_half_never_acts_the_other_draws_alone_with_all_else_of_high(shared, heart, moon):
    last_above_0 = {"sampler": "DPM++ 2M"}  # of the model's own sampler, the last timestep is 0, which no boundary is below
    assert np.array_equal(drawn(shared, wb.NoiseLevels(heart, moon, 0.0001), **last_above_0), drawn(shared, heart, **last_above_0))
    parts = [{"component": part, "take": "models[1]"} for part in ("vae", "text_encoder")]
    unet = ops.weighted_average([moon, heart], weights=[1, 0], rules=parts)
    assert np.array_equal(drawn(shared, wb.NoiseLevels(heart, moon, 0.9999)), drawn(shared, unet))


def test_merges_take_turns_and_the_order_of_the_halves_matters(shared, base, heart, moon):
    both = ops.task_arithmetic(base, [heart, moon])
    one, other = (drawn(shared, wb.NoiseLevels(*pair)) for pair in ((both, moon), (moon, both)))
    assert np.abs(one - other).max() > 8


def test_halves_may_be_in_different_layouts(shared, heart, moon):
    picture = drawn(shared, wb.NoiseLevels(heart, moon))
    assert np.array_equal(drawn(shared, wb.NoiseLevels(heart, wb.in_layout(moon, "diffusers"))), picture)


def test_what_is_drawn_next_is_drawn_by_itself_and_the_second_denoiser_is_let_go(renderer, heart, moon):
    alone = drawn(renderer, heart)
    held = renderer._stage.parts.bytes_on(torch.device("cpu"))
    drawn(renderer, wb.NoiseLevels(heart, moon))
    assert renderer._stage.parts.bytes_on(torch.device("cpu")) > held
    assert np.array_equal(drawn(renderer, heart), alone)
    assert renderer._stage.parts.bytes_on(torch.device("cpu")) == held


def test_neither_half_is_read_again_for_another_boundary(renderer, heart, moon):
    high, low = counted(heart), counted(moon)
    drawn(renderer, wb.NoiseLevels(high, low, 0.3))
    reads = len(high.reads), len(low.reads)
    second = drawn(renderer, wb.NoiseLevels(high, low, 0.7))
    assert (len(high.reads), len(low.reads)) == reads
    assert len({key for key, _ in low.reads}) < len(low)  # of the second half, the denoiser alone
    assert np.array_equal(second, drawn(Renderer(renderer.config, device="cpu"), wb.NoiseLevels(heart, moon, 0.7)))


def test_a_load_that_is_given_up_between_the_halves_leaves_nothing_to_draw_with(renderer, heart, moon):
    drawn(renderer, heart)
    low = counted(moon)
    with pytest.raises(Cancelled):
        renderer.load(wb.NoiseLevels(heart, low), cancelled=lambda: len(low.reads) > 3)
    with pytest.raises(RenderError, match="holds no checkpoint yet"):
        renderer.images([PROMPT], **QUICK)
    expected = drawn(Renderer(renderer.config, device="cpu"), wb.NoiseLevels(heart, moon))
    assert np.array_equal(drawn(renderer, wb.NoiseLevels(heart, moon)), expected)


def test_drawing_that_is_given_up_leaves_the_denoiser_as_it_was(renderer, heart, moon):
    renderer.load(wb.NoiseLevels(heart, moon))
    with pytest.raises(Cancelled):
        renderer.images([PROMPT], cancelled=lambda: True, **QUICK)
    assert "forward" not in vars(renderer._stage.pipeline.unet)
    assert np.array_equal(drawn(renderer, heart), drawn(Renderer(renderer.config, device="cpu"), heart))


def test_a_grid_draws_it_beside_others_and_says_whose_parts_it_has(shared, tmp_path, base, heart, moon):
    levels = wb.NoiseLevels(heart, moon)
    grid = wb.ab_grid({"base": base, "by noise": levels, "heart": heart}, [PROMPT], [3], renderer=shared, scorers=[], **QUICK)
    assert np.array_equal(np.asarray(grid.image("by noise", PROMPT, 3), int), drawn(shared, levels))
    saved = wb.open_grid(grid.save(tmp_path / "grid.png"))
    assert [path.name for path in saved.files["by noise"]] == ["heart.safetensors", "moon.safetensors"]
    shared.load(levels)
    assert shared.loaded.note == "'heart then moon' with vae of 'heart' and text_encoder of 'heart'"


def test_a_renderer_may_be_made_of_it_and_a_grid_finds_one(shared, heart, moon):
    levels = wb.NoiseLevels(heart, moon)
    expected = drawn(shared, levels)
    assert np.array_equal(np.asarray(Renderer(levels, device="cpu").images([PROMPT], [3], **QUICK)[0], int), expected)
    grid = wb.ab_grid({"levels": levels}, [PROMPT], [3], scorers=[], **QUICK)
    assert np.abs(np.asarray(grid.images[0], int) - expected).max() <= 3  # on the best device there is


def test_a_denoiser_alone_may_be_the_second_half(shared, heart, moon):
    unet = Held({key: moon.read(key) for key in moon if moon.structure.component(key) == "unet"}, "unet alone")
    assert np.array_equal(drawn(shared, wb.NoiseLevels(heart, unet)), drawn(shared, wb.NoiseLevels(heart, moon)))


def test_what_is_no_one_file_is_not_read_merged_or_exported_as_one(tmp_path, base, heart, moon):
    levels = wb.NoiseLevels(heart, moon)
    path, key = tmp_path / "out.safetensors", next(key for key in base if base.structure.component(key) == "unet")
    for attempt in (
        lambda: wb.export(levels, path),
        lambda: wb.export(levels.with_dtype("float16"), path),
        lambda: wb.export(wb.in_layout(levels, "diffusers"), path),
        lambda: ops.weighted_average([levels, base]).read(key),
    ):
        with pytest.raises(RenderError, match=r"has two values, one for high noise and one for low.*weighted_average\(\[high, low\]\)"):
            attempt()
    assert list(tmp_path.iterdir()) == []


def test_what_is_beside_the_denoiser_is_read_from_high(heart, moon):
    levels = wb.NoiseLevels(heart, moon)
    assert list(levels) == list(heart)
    key = next(key for key in heart if heart.structure.component(key) == "vae")
    assert torch.equal(levels.read(key), heart.read(key))
    assert levels.fingerprint(key) == heart.fingerprint(key)


def test_models_are_told_apart_by_both_halves_and_the_boundary(base, heart, moon):
    kinds = [(heart, moon, 0.5), (heart, moon, 0.4), (heart, base, 0.5), (moon, heart, 0.5)]
    assert len({wb.NoiseLevels(*kind).content for kind in kinds}) == 4
    assert wb.NoiseLevels(heart, moon).content == wb.NoiseLevels(heart, moon).content


@pytest.mark.parametrize("boundary", [0, 1, -0.5, 1.5, float("nan"), "0.5", True, None])
def test_a_boundary_is_a_share_between_0_and_1(heart, moon, boundary):
    with pytest.raises(RenderError, match=re.escape(f"boundary must be between 0 and 1, a share of the noise levels, got {boundary!r}")):
        wb.NoiseLevels(heart, moon, boundary)


def test_halves_that_cannot_take_turns_are_refused_before_anything_is_read(family, heart, moon):
    sdxl = [wb.open(family.parent / "shapes-sdxl" / f"{name}.safetensors") for name in ("base", "base-v")]
    lora = wb.open(next((family / "lora").glob("*.safetensors")))
    wide = counted(moon)
    key = next(key for key in wide if key.endswith("input_blocks.0.0.weight"))
    wide.tensors[key] = torch.zeros(*wide.tensors[key].shape[:1], 9, 3, 3)
    narrow = Held({name: wide.tensors[name] for name in wide if name != key}, "narrow")
    encoder = Held({name: moon.read(name) for name in moon if moon.structure.component(name) == "text_encoder"}, "encoder")
    for high, low, said in [
        (heart, sdxl[0], "high, 'heart', is SD 1.x, and low, 'base', is SDXL"),
        (*sdxl, "high, 'base', predicts epsilon, and low, 'base-v', v"),
        (heart, wide, f"{key} is .* in high, 'heart', and .*9, 3, 3.* in low, 'moon'"),
        (heart, narrow, f"{key} is .* in high, 'heart', and absent in low, 'narrow'"),
        (encoder, heart, "high, 'encoder', has no unet, only text_encoder"),
        (heart, lora, "low, .* holds changes of a model .*add_delta"),
        (wb.NoiseLevels(heart, moon), heart, "high is of two noise levels itself"),
        ("heart", moon, r"high must be a checkpoint, got str: open a file with workbench\.open\(path\)"),
    ]:
        with pytest.raises(RenderError, match=said):
            wb.NoiseLevels(high, low)
    assert wide.reads == []


def test_a_half_whose_prediction_nothing_tells_may_take_turns_with_one_that_says_it(folders):
    first, second = folders("SD 2")
    silent, told = wb.open(first), counted(wb.open(second))
    told.metadata = {"modelspec.prediction_type": "v"}
    assert (silent.structure.prediction, told.structure.prediction) == ("unknown", "v")
    assert wb.NoiseLevels(silent, told).components == silent.components


def test_two_denoisers_are_refused_where_parts_only_visit_the_device(family, heart, moon):
    renderer = Renderer(family / "config", device="cpu", offload="model")
    for attempt in (renderer.load, renderer.check):
        with pytest.raises(RenderError, match=r"two denoisers, .* make a Renderer without offload='model'"):
            attempt(wb.NoiseLevels(heart, moon))


def test_a_device_has_room_for_both_denoisers_or_says_so_first(renderer, monkeypatch, heart, moon):
    before = drawn(renderer, heart)
    sizes = renderer._stage.parts.sizes()
    held = renderer._stage.parts.bytes_on(torch.device("cpu"))
    monkeypatch.setattr("workbench.render.stage.free_memory", lambda device: sum(sizes.values()) - held + sizes["unet"] // 2)
    with pytest.raises(RenderError, match="denoiser for low noise"):
        renderer.load(wb.NoiseLevels(heart, moon))
    assert np.array_equal(np.asarray(renderer.images([PROMPT], [3], **QUICK)[0], int), before)  # what it held, it holds
