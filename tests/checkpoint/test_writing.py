"""Files and folders take their places whole: nothing of a person's is moved or replaced, and what a kill left is found and removed."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import workbench as wb
from workbench.checkpoint.files import journal, writing
from workbench.checkpoint.files.leftovers import clear, leftovers
from workbench.checkpoint.files.stopping import stoppable
from workbench.checkpoint.files.temporary import create_locked, hidden_beside, is_temporary
from workbench.errors import CheckpointError, ExportError

ROOT = Path(__file__).resolve().parents[2]
NEW = {"model.safetensors.index.json": "new index", "config.json": "new config", "part/a.bin": "new a"}
OLD = {"model.safetensors.index.json": "old index", "config.json": "old config", "part/b.bin": "old b"}
OWN = {"notes.txt": "mine", "part/notes.txt": "mine", "samples/1.png": "mine"}


def put(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def tree(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an older model, and a person's own files."""
    put(tmp_path / "out", OLD | OWN)
    return tmp_path / "out"


def exchanged(folder: Path, overwrite: bool = True) -> None:
    with writing.replacing_folder(folder, lambda: [folder / name for name in OLD], overwrite) as temporary:
        put(temporary, NEW)


def killed(code: str, *arguments: object) -> None:
    """A program that kills itself where it says so."""
    start = "import os, signal, sys\nfrom pathlib import Path\nfrom workbench.checkpoint.files import journal, writing\n"
    start += "path = Path(sys.argv[1])\ndef die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
    done = subprocess.run([sys.executable, "-c", start + code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def half_done(folder: Path, moves: int) -> None:
    """Leave the exchange of a folder as a kill does after so many moves."""
    moving = f"""
import workbench.checkpoint.files.journal as j
seen = [0]
def counted(plain):
    def move(*given):
        plain(*given)
        seen[0] += 1
        if seen[0] == {moves}: die()
    return move
j._put_aside, j.settle = counted(j._put_aside), counted(j.settle)
with writing.replacing_folder(path, lambda: [path / name for name in {list(OLD)}]) as temporary:
    for name in {list(NEW)}:
        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        (temporary / name).write_text("new")
"""
    killed(moving, folder)


# ---------------------------------------------------------------- one file


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path):
    path = tmp_path / "a.txt"

    def write() -> None:
        with writing.replacing(path, overwrite=False) as temporary:
            temporary.write_text("second")
            path.write_text("first")

    with pytest.raises(ExportError, match=r"a\.txt: has appeared while this was written, .*overwrite=True"):
        write()
    assert tree(tmp_path) == {"a.txt": "first"}


@pytest.mark.parametrize("there", [False, True])
def test_where_the_disk_knows_no_links_that_holds_too(tmp_path, monkeypatch, there):
    def fail(*_: object) -> None:
        raise OSError(errno.EPERM, "no links")

    monkeypatch.setattr(os, "link", fail)
    path = tmp_path / "a.txt"
    if there:
        path.write_text("first")
        with pytest.raises(ExportError, match="has appeared"), writing.replacing(path, overwrite=False) as temporary:
            temporary.write_text("second")
    else:
        with writing.replacing(path, overwrite=False) as temporary:
            temporary.write_text("first")
    assert tree(tmp_path) == {"a.txt": "first"}


def test_a_hidden_name_that_cannot_be_removed_is_no_failure_once_the_file_has_its_place(tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch, writing.replacing(tmp_path / "a.txt", overwrite=False) as temporary:
        temporary.write_text("whole")
        patch.setattr(os, "unlink", fail)
    assert (tmp_path / "a.txt").read_text() == "whole"
    clear(tmp_path)
    assert tree(tmp_path) == {"a.txt": "whole"}


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "ß.txt"])
def test_the_longest_names_are_written(tmp_path, name):
    with writing.replacing(tmp_path / name) as temporary:
        assert is_temporary(temporary.name)
        temporary.write_text("x")
    assert tree(tmp_path) == {name: "x"}


def test_what_a_kill_left_goes_with_the_next_write_under_whatever_name(tmp_path):
    code = "with writing.replacing(path) as temporary:\n    temporary.write_text('x' * 1000)\n    die()"
    killed(code, tmp_path / "one.txt")
    (left,) = leftovers(tmp_path)
    assert left.path.name.startswith(".one.txt.")
    assert left.nbytes == 1000
    with writing.replacing(tmp_path / "two.txt") as temporary:
        temporary.write_text("two")
    assert tree(tmp_path) == {"two.txt": "two"}


def test_what_a_living_process_writes_is_never_removed(tmp_path):
    code = "import sys\nfrom pathlib import Path\nfrom workbench.checkpoint.files import writing\n"
    code += "with writing.replacing(Path(sys.argv[1])) as temporary:\n"
    code += "    temporary.write_text('theirs')\n    print('now', flush=True)\n    input()"
    path = tmp_path / "theirs.txt"
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, text=True, **streams) as process:
        assert process.stdout.readline() == "now\n"
        assert leftovers(tmp_path) == []
        with writing.replacing(tmp_path / "ours.txt") as temporary:
            temporary.write_text("ours")
            clear(tmp_path)
        process.communicate("\n", timeout=20)
    assert process.returncode == 0
    assert tree(tmp_path) == {"ours.txt": "ours", "theirs.txt": "theirs"}


def test_files_of_other_programs_and_pipes_by_such_a_name_stay(tmp_path):
    (tmp_path / ".a.12345678.tmp").write_text("another program's")
    os.mkfifo(tmp_path / ".pipe.workbench.tmp")
    (tmp_path / "elsewhere").write_text("mine")
    (tmp_path / ".link.workbench.tmp").symlink_to(tmp_path / "elsewhere")
    before = sorted(path.name for path in tmp_path.iterdir())
    clear(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_cannot_be_removed_is_said(tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def write() -> None:
        with writing.replacing(tmp_path / "a.txt"):
            monkeypatch.setattr(os, "unlink", fail)
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ExportError, match=r"No space left.*could not be removed, or put back: Input/output error; the next export"):
        write()


# ---------------------------------------------------------------- a folder


def test_nothing_but_the_models_files_is_moved(folder):
    inodes = {name: (folder / name).stat().st_ino for name in OWN}
    exchanged(folder)
    assert tree(folder) == NEW | OWN
    assert {name: (folder / name).stat().st_ino for name in OWN} == inodes


@pytest.mark.parametrize("moves", range(1, 7))
def test_a_half_exchanged_folder_is_as_it_was_once_it_is_opened(folder, moves):
    half_done(folder, moves)
    assert {name: tree(folder)[name] for name in OWN} == OWN
    journal.heal(folder)
    assert tree(folder) == OLD | OWN
    exchanged(folder)
    assert tree(folder) == NEW | OWN


@pytest.mark.parametrize("how", [".", "x.safetensors", "part"])
def test_opening_the_folder_or_anything_in_it_heals(folder, how):
    for place in (folder, folder / "part"):
        save_file({"a": torch.ones(1)}, place / "x.safetensors")
    half_done(folder, 2)
    if how == ".":
        with pytest.raises(CheckpointError, match="is not JSON"):  # the older index here is only a word
            wb.open(folder)
    else:
        wb.open(folder / how)
    assert {name: (folder / name).read_text() for name in OLD} == OLD
    assert not [path for path in folder.iterdir() if is_temporary(path.name)]


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_appears_or_is_filled_meanwhile_is_not_replaced(tmp_path, there):
    folder = tmp_path / "out"
    if there:
        folder.mkdir()

    def write() -> None:
        with writing.replacing_folder(folder, list, overwrite=False) as temporary:
            put(temporary, NEW)
            put(folder, OWN)

    with pytest.raises(ExportError, match="out: has appeared"):
        write()
    assert tree(folder) == OWN
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_nothing_is_written_through_a_link_to_elsewhere(folder, tmp_path):
    put(tmp_path / "elsewhere", {"a.bin": "another model's"})
    (folder / "part").rename(tmp_path / "kept")
    (folder / "part").symlink_to(tmp_path / "elsewhere")
    with writing.replacing_folder(folder, list) as temporary:
        put(temporary, NEW)
    assert tree(tmp_path / "elsewhere") == {"a.bin": "another model's"}
    assert not (folder / "part").is_symlink()
    assert (folder / "part" / "a.bin").read_text() == "new a"


def test_where_a_file_cannot_be_moved_everything_is_as_it_was(folder, monkeypatch):
    plain = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == "b.bin":
            raise OSError(errno.EPERM, "Operation not permitted")
        return plain(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    said = "out: could not be written: Operation not permitted; nothing was left behind"
    with pytest.raises(ExportError, match=said), writing.failing(folder):
        exchanged(folder)
    assert tree(folder) == OLD | OWN


@pytest.mark.parametrize("place", ["../victim", "/victim", "part/../../victim", "link/victim"])
@pytest.mark.parametrize("kind", ["new", "old"])
def test_a_journal_that_somebody_made_moves_nothing_outside_the_folder(tmp_path, place, kind):
    (tmp_path / "victim").write_text("mine")
    stage = tmp_path / "out" / ".x.workbench.tmp"
    put(stage, {f"old/{place}" if ".." not in place and place[0] != "/" else "old/x": "theirs"})
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    told = {"new": [], "old": [], "made": []} | {kind: [place.replace("/victim", str(tmp_path / "victim")) if place[0] == "/" else place]}
    (stage / "journal.json").write_text(json.dumps(told))
    with suppress(CheckpointError):
        journal.heal(tmp_path / "out")
    clear(tmp_path / "out")
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.parametrize("text", ["", "[", "[]", '{"new": 1}', "[" * 5000])
def test_a_journal_that_was_not_finished_has_moved_nothing(folder, text):
    put(folder / ".x.workbench.tmp", {"journal.json": text, "new/config.json": "new"})
    journal.heal(folder)
    assert tree(folder) == OLD | OWN


def test_a_folder_that_cannot_be_listed_is_an_error_and_no_file_is_left_out(folder, monkeypatch):
    plain = os.scandir

    def scandir(path: object = ".") -> object:
        if str(path).endswith("new/part"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return plain(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        exchanged(folder)
    monkeypatch.undo()
    assert {name: tree(folder)[name] for name in OLD | OWN} == OLD | OWN


def test_tensors_in_memory_are_the_same_bytes_each_time(tmp_path):
    tensors = {"b": torch.arange(6).reshape(2, 3).T, "a": torch.ones(3, dtype=torch.float16), "c": torch.tensor(2.0), "d": torch.ones(0)}
    metadata = {str(number): "x" for number in range(20)}
    for name in ("one", "two"):
        writing.write_safetensors(tmp_path / name, tensors, metadata)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found = load_file(tmp_path / "one")
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)


# ---------------------------------------------------------------- SIGTERM


@pytest.fixture
def handler() -> Iterator[Callable[[object], None]]:
    before = signal.getsignal(signal.SIGTERM)
    yield lambda own: signal.signal(signal.SIGTERM, own)
    signal.signal(signal.SIGTERM, before)


def terminated(path: Path) -> None:
    with writing.replacing(path) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(5)


def test_sigterm_exits_after_everything_is_clean(tmp_path, handler):
    handler(signal.SIG_DFL)
    with pytest.raises(SystemExit) as exit:
        terminated(tmp_path / "a.txt")
    assert exit.value.code == 128 + signal.SIGTERM
    assert tree(tmp_path) == {}
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_handler_of_the_programs_own_is_called_once_everything_is_clean(tmp_path, handler):
    seen = []
    handler(own := lambda *_: seen.append(tree(tmp_path)))
    with pytest.raises(SystemExit):
        terminated(tmp_path / "a.txt")
    assert seen == [{}]
    assert signal.getsignal(signal.SIGTERM) is own


def test_where_sigterm_is_ignored_it_still_is(tmp_path, handler):
    handler(signal.SIG_IGN)
    with stoppable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_other_threads_write_without_a_handler(tmp_path, handler):
    handler(signal.SIG_DFL)
    seen = []

    def write() -> None:
        with writing.replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


def test_the_lock_is_held_until_it_is_closed(tmp_path):
    path = hidden_beside(tmp_path / "a", tmp_path)
    with create_locked(path):
        assert leftovers(tmp_path) == []
    assert [left.path for left in leftovers(tmp_path)] == [path]
