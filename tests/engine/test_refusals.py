"""What `export` refuses, and what goes wrong on the way: a clear error, nothing left behind, an older file as it was."""

from __future__ import annotations

import errno
import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from slow_operator import SLOW
from small_models import UNET, tensors

import workbench as wb
from workbench.checkpoint.files import hashing
from workbench.checkpoint.files.safetensors_file import SafetensorsFile
from workbench.engine import files
from workbench.errors import CheckpointError, ExportError, MergeError, NonFiniteError, NonFiniteWarning

average, add_difference, task_arithmetic = wb.operators.weighted_average, wb.operators.add_difference, wb.operators.task_arithmetic
NORM = f"{UNET}middle_block.1.norm.weight"


@pytest.fixture
def merge(model):
    return average([model("a"), model("b")])


@pytest.fixture(params=["nothing there", "an older file"])
def untouched(request, out: Path):
    """The output's folder must be after the test as it was before: empty, or with an older file."""
    if request.param == "an older file":
        out.write_bytes(b"older")
    yield out
    assert {path.name: path.read_bytes() for path in out.parent.iterdir()} == (
        {out.name: b"older"} if request.param == "an older file" else {}
    )


def export(checkpoint: wb.Checkpoint, path: Path, **options: object) -> None:
    wb.export(checkpoint, path, overwrite=True, progress=False, **options)


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threads": 0}, "threads must be a whole number of 1 or more, got 0"),
        ({"threads": -1}, "got -1"),
        ({"threads": True}, "got True"),
        ({"threads": 2.0}, r"got 2\.0"),
        ({"threads": "2"}, "got '2'"),
        ({"dtype": "fp16"}, "dtype must be one of 'float32', 'float16', 'bfloat16', 'float8_e4m3fn', 'float8_e5m2', got 'fp16'"),
        ({"dtype": torch.int64}, "got 'int64'"),
        ({"dtype": float}, "dtype must be one of"),
        ({"device": "banana"}, "device 'banana' is not to be had here"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not to be had here"),
        ({"device": "meta"}, "device 'meta' is not to be had here"),
    ],
    ids=str,
)
def test_wrong_arguments_say_what_is_allowed(merge, untouched, options, said):
    with pytest.raises(ExportError, match=said):
        export(merge, untouched, **options)


def test_what_is_no_checkpoint_is_refused(untouched):
    with pytest.raises(ExportError, match=r"takes a checkpoint \(see workbench\.open\), got 'a\.safetensors'"):
        export("a.safetensors", untouched)


@pytest.mark.parametrize("name", ["merged", "merged.ckpt", "merged.yaml", "merged.safetensors.tmp"])
def test_a_name_that_is_no_safetensors_files_is_refused(merge, untouched, name):
    with pytest.raises(ExportError, match=r"name ends in \.safetensors"):
        export(merge, untouched.with_name(name))


def test_a_folder_that_is_not_there_is_named(merge, untouched):
    with pytest.raises(ExportError, match=r"no folder .*nowhere; make it first"):
        export(merge, untouched.parent / "nowhere" / "a.safetensors")


def test_an_existing_file_is_only_replaced_when_asked(merge, out):
    out.write_bytes(b"older")
    with pytest.raises(ExportError, match=r"is there already.*overwrite=True"):
        wb.export(merge, out, progress=False)
    assert out.read_bytes() == b"older"
    wb.export(merge, out, progress=False, overwrite=True)
    assert len(wb.open(out)) == len(merge)


def test_a_folder_is_never_replaced(merge, out):
    out.mkdir()
    with pytest.raises(ExportError, match="is a folder"):
        export(merge, out)
    assert out.is_dir()


# ---------------------------------------------------------------- the inputs


@pytest.mark.parametrize("way", ["the same path", "a relative path", "with dots", "a symbolic link", "a hard link", "a link to the folder"])
@pytest.mark.parametrize("nested", [False, True])
def test_an_input_is_never_overwritten_whatever_it_is_called(model, out, monkeypatch, way, nested):
    a, b = model("a"), model("b")
    merge = average([task_arithmetic(b, [a]), b]) if nested else average([a, b])
    path = a.path
    before = path.read_bytes()
    target = out
    if way == "the same path":
        target = path
    elif way == "a relative path":
        monkeypatch.chdir(path.parent.parent)
        target = Path("models/a.safetensors")
    elif way == "with dots":
        target = path.parent / ".." / "models" / "a.safetensors"
    elif way == "a symbolic link":
        out.symlink_to(path)
    elif way == "a hard link":
        os.link(path, out)
    else:
        (out.parent / "link").symlink_to(path.parent)
        target = out.parent / "link" / "a.safetensors"
    with pytest.raises(ExportError, match="is one of the inputs"):
        export(merge, target)
    assert path.read_bytes() == before


def test_a_plain_checkpoint_is_not_written_onto_itself(model):
    with pytest.raises(ExportError, match="is one of the inputs"):
        export(model("a"), model("a").path)


def test_an_input_replaced_after_it_was_opened_is_named_before_anything_is_written(model, untouched):
    a, b = model("a"), model("b")
    merge = average([a, task_arithmetic(a, [b])])
    save_file(tensors(99), b.path.with_name("other.safetensors"))
    b.path.with_name("other.safetensors").replace(b.path)
    with pytest.raises(ExportError, match=r"b\.safetensors was changed or replaced after it was opened; open it again"):
        export(merge, untouched)


@pytest.mark.parametrize("form", ["gone", "a shard", "a pickle"])
def test_every_form_of_input_is_watched(model, untouched, tmp_path, form):
    a = model("a")
    if form == "a pickle":
        torch.save(tensors(3), tmp_path / "b.ckpt")
        b = wb.open(tmp_path / "b.ckpt")
        (changed,) = b.sources()
        os.utime(changed, (1, 1))
    elif form == "a shard":
        save_file(tensors(3), tmp_path / "s.safetensors")
        weight_map = ", ".join(f'"{key}": "s.safetensors"' for key in tensors(3))
        (tmp_path / "m.index.json").write_text(f'{{"weight_map": {{{weight_map}}}}}')
        b = wb.open(tmp_path / "m.index.json")
        (changed,) = b.sources()
        os.utime(changed, (1, 1))
    else:
        b = model("b")
        changed = b.path
        changed.unlink()
    with pytest.raises(ExportError, match=rf"{changed.name} was changed or replaced"):
        export(average([a, b]), untouched)


def test_an_input_replaced_during_the_export_is_an_error(model, untouched, monkeypatch):
    a, b = model("a"), model("b")
    plain = hashing.sha256

    def replace(path, stop=None):
        os.utime(b.path, (1, 1))
        return plain(path, stop)

    monkeypatch.setattr(hashing, "sha256", replace)
    with pytest.raises(ExportError, match=r"b\.safetensors was changed or replaced"):
        export(average([a, b]), untouched)


def test_sdxl_with_sd_1_names_both_and_reads_nothing(model, untouched, monkeypatch):
    sd = model("old", {f"{UNET}input_blocks.1.1.proj_in.weight": torch.zeros(2, 2, 1, 1)})
    xl = model("new", {f"{UNET}label_emb.0.0.weight": torch.zeros(2, 2), f"{UNET}input_blocks.4.1.proj_in.weight": torch.zeros(2, 2)})
    read = []
    monkeypatch.setattr(SafetensorsFile, "read", lambda *given: read.append(given))
    for merge in (average([sd, xl]), task_arithmetic(sd, [sd, average([xl, sd])])):
        with pytest.raises(MergeError, match=r"old is SD 1\.x.*new is SDXL|new is SDXL.*old is SD 1\.x"):
            export(merge, untouched)
    assert not read


def test_different_shapes_are_refused_before_anything_is_read(model, untouched, monkeypatch):
    a, b = model("a", {NORM: torch.zeros(3)}), model("b", {NORM: torch.zeros(4)})
    read = []
    monkeypatch.setattr(SafetensorsFile, "read", lambda *given: read.append(given))
    with pytest.raises(MergeError, match=r"\[3\] in a, \[4\] in b"):
        export(average([a, b]), untouched)
    assert not read


# ---------------------------------------------------------------- the disk


def test_a_disk_without_room_is_known_beforehand(merge, untouched, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1 << 20))
    with pytest.raises(ExportError, match=r"needs 0\.\d MB, and 1\.0 MB of disk are free; nothing was written"):
        export(merge, untouched)


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fsync"])
@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fills_up_or_fails_on_the_way_leaves_nothing_behind(merge, untouched, monkeypatch, call, fault):
    plain, calls = getattr(os, call), []

    def fail(*given):
        calls.append(given)
        if len(calls) > 3 or call != "pwrite":
            raise OSError(fault, os.strerror(fault))
        return plain(*given)

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ExportError, match=f"could not be written: {os.strerror(fault)}; nothing was left behind"):
        export(merge, untouched)


def test_a_disk_that_fails_while_it_writes_behind_is_told(merge, untouched, monkeypatch):
    plain, failed = os.pwrite, threading.Event()

    def fail(handle):
        failed.set()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def late(*given):
        assert failed.wait(60)
        return plain(*given)

    monkeypatch.setattr(files, "_BEHIND", 0.001)
    monkeypatch.setattr(os, "fdatasync" if hasattr(os, "fdatasync") else "fsync", fail)
    monkeypatch.setattr(os, "pwrite", late)
    with pytest.raises(ExportError, match="could not be written: Input/output error; nothing was left behind"):
        export(merge, untouched)


def test_short_writes_are_continued(merge, out, monkeypatch):
    export(merge, out)
    whole, plain = out.read_bytes(), os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, data, offset: plain(handle, data[:5], offset))
    export(merge, out)
    assert out.read_bytes() == whole


def test_short_reads_are_continued(merge, out, monkeypatch):
    export(merge, out)
    whole, plain = out.read_bytes(), os.preadv
    monkeypatch.setattr(os, "preadv", lambda handle, views, offset: plain(handle, [views[0][:5]], offset))
    export(merge, out)
    assert out.read_bytes() == whole


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_an_input_cut_short_on_the_way_leaves_nothing_behind(model, untouched, monkeypatch, threads):
    a, b = model("a"), model("b")
    plain = os.preadv

    def cut(handle, views, offset):
        os.truncate(b.path, b.path.stat().st_size - 100)
        return plain(handle, views, offset)

    monkeypatch.setattr(os, "preadv", cut)
    with pytest.raises(CheckpointError, match=r"b\.safetensors.*(cut short|changed while it was read|truncated)"):
        export(average([a, b]), untouched, threads=threads)


def test_a_disk_that_cannot_read_names_the_input_and_the_tensor(model, untouched, monkeypatch):
    a = model("a", {NORM: torch.zeros(3)})

    def fail(*given):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(CheckpointError, match=rf"a\.safetensors: '{NORM}' could not be read: Input/output error"):
        export(a, untouched)


@pytest.mark.parametrize("threads", [1, 8])
def test_an_error_in_one_thread_stops_them_all(model, untouched, monkeypatch, threads):
    monkeypatch.setattr("workbench.tensors.PIECE", 1)
    a, computed = model("a", {"x": torch.zeros(5000)}), []

    def read(self, key, part=None):
        computed.append(part)
        raise RuntimeError("broken operator")

    monkeypatch.setattr(SafetensorsFile, "read", read)
    with pytest.raises(RuntimeError, match="broken operator"):
        export(a, untouched, threads=threads)
    assert len(computed) <= threads
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPool")]


# ---------------------------------------------------------------- NaN and infinity


def with_value(value: float) -> dict[str, torch.Tensor]:
    return tensors(5) | {NORM: torch.tensor([1.0, value, 2.0] + [0.0] * 16, dtype=torch.float16)}


MERGES = {
    "plain": lambda good, bad: bad,
    "average": lambda good, bad: average([good, bad]),
    "first": lambda good, bad: average([bad, good]),
    "delta": lambda good, bad: task_arithmetic(good, [good, bad]),
    "nested": lambda good, bad: average([good, task_arithmetic(good, [average([good, bad])])]),
    "taken": lambda good, bad: average([good, bad], rules=[{"match": "*", "take": bad}]),
    "taken from a merge": lambda good, bad: average([good, average([bad, good])], rules=[{"match": "*norm*", "take": "models[1]"}]),
    "weightless": lambda good, bad: average([good, bad], weights=[1, 0]),
    "rounded": lambda good, bad: average([good, bad], dtype="bfloat16"),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", MERGES)
def test_nan_and_infinity_are_a_warning_that_names_model_and_tensor_and_strictly_an_error(model, out, name, value):
    merge = MERGES[name](model("good"), model("bad", with_value(value)))
    with pytest.raises(NonFiniteError, match=rf"bad: '{NORM}' holds NaN or infinity; mend the file, or export without strict"):
        export(merge, out, strict=True)
    assert not list(out.parent.iterdir())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export(merge, out)
    told = [str(warning.message) for warning in caught if warning.category is NonFiniteWarning]
    assert sum(text.startswith("bad: ") for text in told) == 1
    assert f"bad: '{NORM}' holds NaN or infinity; mend the file" in told
    assert not any(text.startswith("good") for text in told)
    assert caught[-1].filename == __file__  # it points at the caller's line


def test_opposite_infinities_and_sums_that_overflow_are_told_apart(model, out):
    fine = model("fine", {"x": torch.full((4000,), 3e38), "y": torch.full((4000,), 60000.0, dtype=torch.float16)})
    export(fine, out)  # warnings are errors: of finite numbers there is none, however large their sum
    bad = model("bad", {"x": torch.tensor([float("inf"), float("-inf")])})
    with pytest.warns(NonFiniteWarning, match="bad: 'x' holds NaN or infinity"):
        export(bad, out)


def test_many_bad_tensors_are_one_warning(model, out):
    bad = model("bad", {f"x{i}": torch.tensor([float("nan")]) for i in range(9)})
    with pytest.warns(NonFiniteWarning, match=r"^bad: 'x\d', 'x\d', 'x\d' and 6 more holds? NaN or infinity"):
        export(bad, out)


@pytest.mark.parametrize("make", [lambda big: big, lambda big: average([big, big]), lambda big: average([big, big], rules=[
    {"match": "*", "take": "models[0]"}])], ids=["plain", "calculated", "taken"])  # fmt: skip
def test_values_beyond_float16_are_reported_as_the_results(model, out, make):
    merge = make(model("big", {"x": torch.tensor([1.0, 70000.0])}))
    with pytest.warns(NonFiniteWarning, match=r"the result: 'x' holds values that .* turns into NaN or infinity; choose dtype bfloat16"):
        export(merge, out, dtype="float16")
    assert torch.equal(load_file(out)["x"], torch.tensor([1.0, float("inf")], dtype=torch.float16))
    with pytest.raises(NonFiniteError, match=r"the result: 'x' holds values .*choose dtype bfloat16 or float32, or export without strict"):
        export(merge, out, dtype="float16", strict=True)
    export(merge, out, dtype="bfloat16", strict=True)


def test_what_is_left_out_is_not_judged(model, out):
    bad = model("bad", {"x": torch.tensor([float("nan")]), "y": torch.ones(1)})
    export(average([bad, bad], rules=[{"match": "x", "skip": True}]), out, strict=True)
    assert list(wb.open(out)) == ["y"]


# ---------------------------------------------------------------- Ctrl-C


@contextmanager
def working(source: Path, target: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of an export."""
    command = [sys.executable, "-c", SLOW + "wb.export(slow(wb.open(sys.argv[1])), sys.argv[2], overwrite=True, threads=2)", source, target]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.read(1) == "w"  # the first letter of `working`
            yield process
        finally:
            process.kill()


def test_a_bar_that_cannot_be_shown_any_more_ends_the_export_and_does_not_hang_it(model, untouched):
    a = model("a", {f"x{i}": torch.zeros(4) for i in range(400)})
    with working(a.path, untouched) as process:
        process.stderr.close()  # as when `workbench merge ... 2>&1 | head` has seen enough
        assert process.wait(timeout=30) == 1


def test_ctrl_c_ends_the_export_and_leaves_nothing_behind(model, untouched):
    a = model("a", {f"x{i}": torch.zeros(4) for i in range(400)})
    with working(a.path, untouched) as process:
        assert len(list(untouched.parent.glob(".*.tmp"))) == 1
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in told
    assert process.returncode in (-signal.SIGINT, 130)


@pytest.mark.parametrize("number", range(3))  # one that hashes, one that flushes, one that calculates
def test_ctrl_c_while_a_thread_begins_ends_the_export_and_not_the_thread(merge, untouched, monkeypatch, number):
    """Python's locks do not survive an exception in the middle of `Thread.start`: whoever waits for one then waits for ever."""
    begun, start, handler = itertools.count(), threading.Thread.start, signal.signal(signal.SIGINT, signal.default_int_handler)
    reached = []

    def interrupted(thread: threading.Thread) -> None:
        if next(begun) == number:
            signal.raise_signal(signal.SIGINT)
            reached.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    before = threading.active_count()
    try:
        with pytest.raises(KeyboardInterrupt):
            export(merge, untouched, threads=2)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert reached, "the signal interrupted the beginning of a thread"
    assert threading.active_count() == before


# ---------------------------------------------------------------- SIGTERM, SIGKILL, and who else writes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_script_that_is_asked_to_end_leaves_nothing_behind(model, untouched, number):
    a = model("a", {f"x{i}": torch.zeros(4) for i in range(400)})
    with working(a.path, untouched) as process:
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode in {signal.SIGTERM: (143,), signal.SIGINT: (-signal.SIGINT, 130)}[number]


def test_what_a_killed_export_left_is_removed_by_the_next_under_whatever_name(model, out):
    a = model("a", {f"x{i}": torch.zeros(4) for i in range(400)})
    with working(a.path, out) as process:
        export(model("b"), out.with_name("other.safetensors"))
        assert len(list(out.parent.glob(".*.tmp"))) == 1  # that of the export that goes on
        process.kill()
        process.wait()
    assert len(list(out.parent.glob(".*.tmp"))) == 1
    export(model("b"), out.with_name("third.safetensors"))
    assert sorted(path.name for path in out.parent.iterdir()) == ["other.safetensors", "third.safetensors"]


@pytest.mark.parametrize("kind", ["file", "folder", "LoRA"])
def test_what_appears_while_it_is_written_is_not_replaced(model, out, monkeypatch, kind):
    target = out if kind != "folder" else out.with_suffix("")
    plain = os.fsync

    def appear(handle: int) -> None:
        monkeypatch.setattr(os, "fsync", plain)
        plain(handle)
        if kind == "folder":
            target.mkdir()
            (target / "config.json").write_text("another's")
        else:
            target.write_text("another's")

    monkeypatch.setattr(os, "fsync", appear)
    module = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    write = {
        "file": lambda: wb.export(model("a"), target, progress=False),
        "folder": lambda: wb.export(model("a"), target, progress=False, max_shard_size="1KB"),
        "LoRA": lambda: wb.lora.export(
            model("l", {f"{module}.lora_up.weight": torch.ones(8, 2), f"{module}.lora_down.weight": torch.ones(2, 8)}), target
        ),
    }[kind]
    with pytest.raises(ExportError, match=rf"{target.name}: has appeared while this was written, and is not replaced"):
        write()
    written = target / "config.json" if kind == "folder" else target
    assert written.read_text() == "another's"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_link_that_leads_nowhere_is_there_already(merge, out):
    out.symlink_to(out.with_name("nowhere"))
    with pytest.raises(ExportError, match="is there already"):
        wb.export(merge, out, progress=False)


def test_a_name_that_is_too_long_is_known_beforehand(merge, out):
    with pytest.raises(ExportError, match="could not be written: File name too long"):
        export(merge, out.with_name("x" * 300 + ".safetensors"))


def test_the_free_space_is_that_of_the_disk_that_is_written(merge, out, monkeypatch):
    folder = out.with_suffix("")
    folder.mkdir()  # may be a disk of its own
    sizes = {folder: 1 << 20}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, sizes.get(Path(path), 10**9)))
    with pytest.raises(ExportError, match=r"and 1\.0 MB of disk are free"):
        export(merge, folder, max_shard_size="1KB")
    export(merge, out.with_name("beside"), max_shard_size="1KB")


def test_a_nan_in_an_input_is_told_as_the_inputs_and_not_as_the_dtypes(model, out):
    a, b = model("a", {"x": torch.ones(2).half()}), model("b", {"x": torch.tensor([1.0, math.nan]).half()})
    for dtype in (None, "bfloat16", "float8_e4m3fn"):
        with pytest.warns(NonFiniteWarning) as told:
            export(average([a, b]), out, dtype=dtype)
        assert [str(one.message) for one in told] == ["b: 'x' holds NaN or infinity; mend the file"]


def test_infinity_that_the_calculation_makes_is_told_as_its_own(model, out):
    a, b = model("a", {"x": torch.tensor([3e38])}), model("b", {"x": torch.tensor([-3e38])})
    with pytest.warns(NonFiniteWarning, match=r"the result: 'x' holds NaN or infinity that no input holds; choose smaller weights"):
        export(wb.operators.task_arithmetic(a, [b]), out)
