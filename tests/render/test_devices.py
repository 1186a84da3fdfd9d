"""Renderers on several threads, freed ones, and devices that are too small."""

from __future__ import annotations

import gc
import re
import threading
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pipelines import save

import workbench as wb
from workbench.errors import Cancelled, RenderError
from workbench.render import Renderer
from workbench.render.drawing import Drawing
from workbench.render.silence import quiet

SMALL = {"steps": 1, "width": 64, "height": 32}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    root = tmp_path_factory.mktemp("folders")
    return [save("SDXL", root / "a", 1), save("SDXL", root / "b", 2)]


def pixels(renderer: Renderer) -> np.ndarray:
    return np.asarray(renderer.images(["a red heart"], [0], **SMALL)[0], int)


def test_renderers_are_made_and_loaded_on_several_threads_at_once(folders):
    alone = [pixels(Renderer(folder, device="cpu")) for folder in folders]
    wrong: list[object] = []

    def work(folder: Path, expected: np.ndarray, start: threading.Barrier) -> None:
        try:
            start.wait(timeout=60)
            if np.abs(pixels(Renderer(folder, device="cpu")) - expected).max() > 1:
                wrong.append(f"other pictures of {folder}")
        except Exception as error:
            wrong.append(error)

    for _ in range(3):
        start = threading.Barrier(4)
        threads = [threading.Thread(target=work, args=(folders[i % 2], alone[i % 2], start)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_who_leaves_the_quiet_first_leaves_it_to_the_others():
    before, first, second = list(warnings.filters), quiet(), quiet()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    warnings.warn("an old way", DeprecationWarning, stacklevel=1)  # an error, if it were not silenced
    second.__exit__(None, None, None)
    assert warnings.filters == before
    with pytest.raises(DeprecationWarning):
        warnings.warn("an old way", DeprecationWarning, stacklevel=1)


def test_freed_models_are_gone_and_the_next_load_draws_as_before(folders):
    from diffusers import UNet2DConditionModel

    def unets() -> int:
        return sum(type(one) is UNet2DConditionModel for one in gc.get_objects())

    gc.collect()
    before = unets()
    renderer = Renderer(folders[0], device="cpu")
    first = pixels(renderer)
    assert unets() == before + 1
    renderer.free()
    assert unets() == before
    renderer.load(wb.open(folders[0]))
    assert np.array_equal(pixels(renderer), first)


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_pictures_are_the_same_when_parts_visit_the_device(folders, offload):
    # on the CPU, which moves nothing, but goes the same way
    merge = wb.operators.weighted_average([wb.open(folder) for folder in folders], weights=[0.7, 0.3])
    plain, visited = Renderer(folders[0], device="cpu"), Renderer(folders[0], device="cpu", offload=offload)
    first = pixels(plain)
    assert np.array_equal(pixels(visited), first)
    for model in (merge, wb.open(folders[0])):
        for renderer in (plain, visited):
            renderer.load(model)
        assert np.array_equal(pixels(visited), pixels(plain))
        assert np.array_equal(pixels(plain), first) == (model is not merge)


def test_a_device_without_room_says_what_would_help_before_anything_is_read(folders, monkeypatch):
    renderer = Renderer(folders[0], device="cpu")
    sizes = renderer._stage.parts.sizes()
    monkeypatch.setattr("workbench.render.stage.free_memory", lambda device: max(sizes.values()) + 1)
    with pytest.raises(
        RenderError,
        match=r'the pipeline takes .* GB on cpu, where .* are free \(vae .*, unet .* GB\): .*offload="model" keeps .*, the unet\)',
    ):
        renderer.load(wb.open(folders[0]))
    monkeypatch.setattr("workbench.render.stage.free_memory", lambda device: 1)
    with pytest.raises(RenderError, match=re.escape('Renderer(..., offload="sequential" one layer at a time, which is slow)')):
        renderer.load(wb.open(folders[0]))
    with pytest.raises(RenderError, match="the unet takes"):
        Renderer(folders[0], device="cpu", offload="model").load(wb.open(folders[0]))
    Renderer(folders[0], device="cpu", offload="sequential").load(wb.open(folders[0]))


def test_a_batch_that_does_not_fit_is_drawn_in_smaller_ones(folders, monkeypatch):
    renderer = Renderer(folders[0], device="cpu")
    expected = renderer.images(["a", "b", "c", "d", "e"], [0], **SMALL)
    sizes, run = [], Drawing.run

    def in_little_room(self, batch, *given, **named):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, batch, *given, **named)

    monkeypatch.setattr(Drawing, "run", in_little_room)
    found = renderer.images(["a", "b", "c", "d", "e"], [0], batch_size=5, **SMALL)
    assert sizes == [5, 2, 2, 1]
    assert [np.abs(np.asarray(one, int) - np.asarray(other)).max() <= 1 for one, other in zip(found, expected, strict=True)] == [True] * 5


def test_inputs_that_stay_on_the_device_make_room_for_pictures_first(folders, monkeypatch):
    renderer, tried = Renderer(folders[0], device="cpu"), []
    residents, run = renderer._stage.residents, Drawing.run

    def full(self, batch, *given, **named):
        tried.append(residents.nbytes)
        if residents.nbytes:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, batch, *given, **named)

    monkeypatch.setattr(Drawing, "run", full)
    residents.room = 100
    residents.tensor("one", lambda: torch.zeros(2))
    assert len(renderer.images(["a", "b"], [0], **SMALL)) == 2
    assert tried == [8, 0]


@pytest.mark.parametrize(("offload", "helps"), [(None, r': smaller ones take less; .*offload="model"'), ("sequential", "take less$")])
def test_a_device_that_is_full_while_it_draws_is_our_error(folders, monkeypatch, offload, helps):
    def full(*given: object, **named: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    renderer = Renderer(folders[0], device="cpu", offload=offload)
    renderer.load(wb.open(folders[0]))
    monkeypatch.setattr(Drawing, "run", full)
    with pytest.raises(RenderError, match=rf"cpu has no memory left for pictures of 64x32 \(vae .*, unet .*{helps}"):
        pixels(renderer)
    monkeypatch.setattr("workbench.render.parts.Parts._read", full)
    with pytest.raises(RenderError, match=r"cpu has no memory left for 'b' \(.*: free what else lies there"):
        renderer.load(wb.open(folders[1]))


def test_a_load_holds_few_tensors_beside_those_that_they_replace(folders, monkeypatch):
    monkeypatch.setattr("workbench.render.parts._AT_ONCE", 1)
    renderer = Renderer(folders[0], device="cpu")
    first = pixels(renderer)
    module = renderer._stage.pipeline.unet
    old = [weakref.ref(one) for one in module.parameters()]
    alive: list[int] = []
    renderer.load(
        wb.open(folders[1]), on_tensor=lambda part, done, _: part == "unet" and alive.append(sum(one() is not None for one in old))
    )
    assert alive == list(range(len(old), 0, -1))
    assert np.array_equal(pixels(renderer), pixels(Renderer(folders[1], device="cpu")))
    assert not np.array_equal(pixels(renderer), first)


def test_a_load_that_was_given_up_leaves_nothing_to_draw_with_and_the_next_one_reads_the_rest(folders, monkeypatch):
    monkeypatch.setattr("workbench.render.parts._AT_ONCE", 1)
    renderer, read = Renderer(folders[0], device="cpu"), []
    first = pixels(renderer)
    asked = iter(range(1000))
    with pytest.raises(Cancelled):
        renderer.load(wb.open(folders[1]), cancelled=lambda: next(asked) > 20)
    with pytest.raises(RenderError, match="holds no checkpoint yet"):
        pixels(renderer)
    renderer.load(wb.open(folders[0]), on_tensor=lambda part, done, count: read.append(part))
    assert len(read) == 21
    assert np.array_equal(pixels(renderer), first)


@pytest.mark.parametrize("given", [{"offload": "disk"}, {"device": "gpu"}, {"dtype": "int8"}, {"dtype": "half a float"}])
def test_a_setting_that_there_is_not_is_named(folders, given):
    with pytest.raises(RenderError, match=re.escape(str(next(iter(given.values()))))):
        Renderer(folders[0], **{"device": "cpu"} | given)
