"""`.ckpt`, `.pt` and `.bin` files: their tensors, in any wrapping; never their code."""

from __future__ import annotations

import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import workbench as wb
from workbench.errors import CheckpointError, MissingTensorError
from workbench.tensors import DTYPE_CODES, TensorInfo

DTYPES = [TensorInfo((), code).dtype for code in DTYPE_CODES]


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path):
    target = tmp_path / "ran"
    torch.save({"state_dict": {"x": torch.zeros(2), "y": Evil(target)}}, tmp_path / "zip.ckpt")
    torch.save({"x": Evil(target)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.bin").write_bytes(pickle.dumps(Evil(target), protocol=2))
    for name in ("zip.ckpt", "old.pt", "plain.bin"):
        with pytest.raises(CheckpointError, match=rf"{name}: refused.*would run code.*asks for posix\.mkdir.*use a safetensors version"):
            wb.open(tmp_path / name)
    assert not target.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_pickle_protocol_runs_code(tmp_path, protocol):
    (tmp_path / "a.pt").write_bytes(pickle.dumps({"x": Evil(tmp_path / "ran")}, protocol=protocol))
    with pytest.raises(CheckpointError, match=r"a\.pt"):
        wb.open(tmp_path / "a.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin", ".CKPT"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_checkpoint_opens_as_its_tensors(tmp_path, suffix, zipped):
    tensors = {"model.diffusion_model.out.0.weight": torch.arange(6.0).reshape(2, 3), "logvar": torch.tensor(3)}
    parameter = {"extra": torch.nn.Parameter(torch.ones(2))}
    saved = {"global_step": 7, "state_dict": {**tensors, **parameter, "epoch": 3, "lr": [0.1]}, "optimizer_states": [{}]}
    torch.save(saved, tmp_path / f"a{suffix}", _use_new_zipfile_serialization=zipped)
    checkpoint = wb.open(tmp_path / f"a{suffix}")
    assert list(checkpoint) == [*tensors, "extra"]
    assert (checkpoint.name, len(checkpoint), checkpoint.metadata) == ("a", 3, {})
    for key, tensor in tensors.items():
        assert checkpoint.info(key) == TensorInfo(tuple(tensor.shape), {"torch.float32": "F32", "torch.int64": "I64"}[str(tensor.dtype)])
        assert torch.equal(checkpoint[key], tensor)
    assert not checkpoint["extra"].requires_grad
    with pytest.raises(MissingTensorError, match=r"a\.[a-zA-Z]+.*'epoch'"):
        checkpoint["epoch"]


def written_by_a_trainer(names: dict[str, type], saved: dict[str, object], path: Path, monkeypatch) -> None:
    """Save what holds classes of modules that are gone again afterwards."""
    for place, kind in names.items():
        module = types.ModuleType(place)
        setattr(module, kind.__name__, kind)
        kind.__module__ = place
        packages = [place.rsplit(".", cut)[0] for cut in range(1, place.count(".") + 1)]
        for package in packages:
            monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        monkeypatch.setitem(sys.modules, place, module)
    torch.save(saved, path)
    for place in names:
        monkeypatch.delitem(sys.modules, place)


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_a_trainers_checkpoint_opens_weights_only_and_its_classes_are_not_imported(tmp_path, monkeypatch, package):
    callback, settings_kind = type("ModelCheckpoint", (), {}), type("AttributeDict", (dict,), {})
    place = f"{package}.callbacks.model_checkpoint"
    saved = {
        "epoch": np.int64(3),
        "loss": np.float32(0.5),
        "seen": np.arange(3),
        "callbacks": {callback: {"best_model_score": torch.tensor(0.1), "state": callback()}},
        "hyper_parameters": settings_kind(lr=0.1),
        "state_dict": {"x": torch.arange(3.0)},
    }
    kinds = {place: callback, f"{package}.utilities.parsing": settings_kind}
    written_by_a_trainer(kinds, saved, tmp_path / "a.ckpt", monkeypatch)
    opened = wb.open(tmp_path / "a.ckpt")
    assert list(opened) == ["x"]
    assert opened["x"].tolist() == [0, 1, 2]
    assert place not in sys.modules


def test_a_class_that_no_trainer_of_models_pickles_is_refused_as_ever(tmp_path, monkeypatch):
    kind, before = type("ModelCheckpoint", (), {}), set(torch.serialization.get_safe_globals())
    written_by_a_trainer({"somebody.callbacks": kind}, {"x": torch.zeros(1), "callbacks": {kind: 1}}, tmp_path / "a.ckpt", monkeypatch)
    with pytest.raises(CheckpointError, match=r"refused.*asks for somebody\.callbacks\.ModelCheckpoint"):
        wb.open(tmp_path / "a.ckpt")
    assert set(torch.serialization.get_safe_globals()) == before


@given(shape=st.lists(st.integers(0, 4), max_size=3).map(tuple), dtype=st.sampled_from(DTYPES), data=st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_part_of_a_tensor_is_that_part_of_the_whole(tmp_path, shape, dtype, data):
    tensor = torch.zeros(shape).copy_(torch.arange(torch.zeros(shape).numel()).reshape(shape) % 2).to(dtype)
    torch.save({"x": tensor}, tmp_path / "a.pt")
    checkpoint = wb.open(tmp_path / "a.pt")
    first, last = sorted(data.draw(st.tuples(st.integers(0, tensor.numel()), st.integers(0, tensor.numel()))))
    parts = {None: tensor, wb.Flat(first, last): tensor.reshape(-1)[first:last]}
    if shape:
        first, last = sorted(data.draw(st.tuples(st.integers(0, shape[0]), st.integers(0, shape[0]))))
        parts[wb.Rows(first, last)] = tensor[first:last]
    for part, expected in parts.items():
        found = checkpoint.read("x", part)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert torch.equal(found.float(), expected.float()) if not dtype.is_complex else torch.equal(found, expected)


def test_tensors_that_share_storage_or_lie_across_it_read_as_they_look(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    torch.save({"whole": whole, "row": whole[1], "across": whole.t()}, tmp_path / "a.pt")
    checkpoint = wb.open(tmp_path / "a.pt")
    assert torch.equal(checkpoint["row"], whole[1])
    assert torch.equal(checkpoint["across"], whole.t())
    assert checkpoint["across"].is_contiguous()
    assert torch.equal(checkpoint.read("across", wb.Flat(1, 5)), whole.t().reshape(-1)[1:5])
    checkpoint["whole"].zero_()
    assert torch.equal(checkpoint["row"], whole[1])


def legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [torch.save, legacy])
@given(share=st.floats(0, 1, exclude_max=True))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_truncated_anywhere_is_refused(tmp_path, save, share):
    save({"x": torch.zeros(300)}, tmp_path / "a.ckpt")
    whole = (tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "b.ckpt").write_bytes(whole[: int(share * len(whole))])
    # cut inside the name of a function, it seems to ask for another function
    with pytest.raises(CheckpointError, match=r"b\.ckpt: (cannot be read.*truncated|refused.*torch)"):
        wb.open(tmp_path / "b.ckpt")


@pytest.mark.parametrize("content", [b"<html>login first</html>", b"hello world", b"PK\x03\x04 a zip", b"\x80\x02]q\x00.", b"\x80\x04N."])
def test_what_is_no_checkpoint_is_not_blamed_for_running_code(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.ckpt: cannot be read as a PyTorch file") as caught:
        wb.open(tmp_path / "a.ckpt")
    assert "weights_only" not in str(caught.value)  # torch's advice, which would run code


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        ([torch.zeros(1)], "holds a list, not a state dict"),
        (torch.zeros(1), "holds a Tensor, not a state dict"),
        ({"epoch": 3, "loss": 0.1}, "no tensors; its entries are epoch, loss"),
        ({}, "no tensors; its entries are none"),
        ({"state_dict": {}}, "no tensors"),
        ({"x": torch.zeros(2, dtype=torch.complex128)}, r"'x' has dtype torch\.complex128; known are"),
        ({"x": torch.zeros(2, 2).to_sparse()}, "'x' is a torch.sparse_coo tensor"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value)[:20],
)
def test_what_holds_no_ordinary_tensors_says_what_it_holds(tmp_path, saved, said):
    torch.save(saved, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=rf"a\.pt: {said}|a\.pt: holds {said}"):
        wb.open(tmp_path / "a.pt")


def test_an_open_checkpoint_keeps_its_tensors_when_the_file_is_replaced(tmp_path):
    torch.save({"x": torch.zeros(4)}, tmp_path / "a.pt")
    checkpoint = wb.open(tmp_path / "a.pt")
    torch.save({"x": torch.ones(4)}, tmp_path / "b.pt")
    (tmp_path / "b.pt").replace(tmp_path / "a.pt")
    assert torch.equal(checkpoint["x"], torch.zeros(4))


@pytest.mark.parametrize("save", [torch.save, legacy])
def test_a_file_cut_short_after_opening_is_an_error_and_no_crash(tmp_path, save):
    save({"x": torch.zeros(1 << 16)}, tmp_path / "a.ckpt")
    checkpoint = wb.open(tmp_path / "a.ckpt")
    os.truncate(tmp_path / "a.ckpt", 2000)
    with pytest.raises(CheckpointError, match=r"a\.ckpt.*changed after it was opened.*'x'"):
        checkpoint.read("x", wb.Flat(1 << 15, 1 << 16))
