"""Hashes of files: right, remembered, and never those of what the file was before."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from workbench.checkpoint.files import hashing
from workbench.errors import CheckpointError


def old(path: Path, content: bytes, seconds: float = 60) -> Path:
    """A file that was last written a while ago."""
    path.write_bytes(content)
    os.utime(path, (time.time() - seconds,) * 2)
    return path


@pytest.fixture
def opened(monkeypatch):
    """The names of the files whose content was read."""
    names: list[str] = []
    plain = Path.open

    def spy(self, *args, **kwargs):
        names.append(self.name)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", spy)
    return names


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1])
def test_it_is_the_sha256_of_the_file(tmp_path, size):
    content = os.urandom(size)
    path = old(tmp_path / "a", content)
    assert [hashing.sha256(path) for _ in range(2)] == [hashlib.sha256(content).hexdigest()] * 2


def test_a_file_is_read_once(tmp_path, opened):
    path = old(tmp_path / "a", b"one")
    opened.clear()
    first = hashing.sha256(path)
    assert opened.count("a") == 1
    assert hashing.sha256(path) == first
    assert opened.count("a") == 1


def test_a_link_to_a_file_is_that_file(tmp_path, opened):
    path = old(tmp_path / "a", b"one")
    (tmp_path / "link").symlink_to(path)
    assert hashing.sha256(path) == hashing.sha256(tmp_path / "link")
    assert "link" not in opened


def test_a_file_overwritten_with_the_same_size_is_read_again(tmp_path):
    path = old(tmp_path / "a", b"one")
    assert hashing.sha256(path) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"two")
    assert hashing.sha256(path) == hashlib.sha256(b"two").hexdigest()


def test_a_file_written_just_now_is_not_remembered_since_one_tick_of_the_clock_may_see_it_written_again(tmp_path, cache):
    path = tmp_path / "a"
    for number in range(20):
        path.write_bytes(b"%03d" % number)
        assert hashing.sha256(path) == hashlib.sha256(b"%03d" % number).hexdigest()
    assert not list(cache.rglob("*"))


def test_a_file_overwritten_with_its_time_kept_is_read_again(tmp_path):
    path = old(tmp_path / "a", b"one")
    before = path.stat()
    hashing.sha256(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert hashing.sha256(path) == hashlib.sha256(b"two").hexdigest()


def test_a_file_replaced_by_another_of_the_same_size_and_time_is_read_again(tmp_path):
    path = old(tmp_path / "a", b"one")
    times = path.stat().st_mtime_ns
    hashing.sha256(path)
    (tmp_path / "b").write_bytes(b"two")
    os.utime(tmp_path / "b", ns=(times, times))
    (tmp_path / "b").replace(path)
    assert hashing.sha256(path) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("damage", [b"", b"abc", b"\xff\xfe", b"0" * 63, b"G" * 64])
def test_a_damaged_cache_is_not_believed(tmp_path, cache, damage):
    path = old(tmp_path / "a", b"one")
    hashing.sha256(path)
    (remembered,) = (file for file in cache.rglob("*") if file.is_file())
    remembered.write_bytes(damage)
    assert hashing.sha256(path) == hashlib.sha256(b"one").hexdigest()
    assert remembered.read_text() == hashlib.sha256(b"one").hexdigest()


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path, cache):
    (cache / "workbench").write_text("a file where the folder should be")
    path = old(tmp_path / "a", b"one")
    assert [hashing.sha256(path) for _ in range(2)] == [hashlib.sha256(b"one").hexdigest()] * 2


def test_many_threads_agree_and_leave_nothing_but_the_hash(tmp_path, cache):
    paths = [old(tmp_path / str(number), bytes([number]) * 5000) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(hashing.sha256, paths * 20))
    assert found == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] * 20
    assert len([file for file in cache.rglob("*") if file.is_file()]) == len(paths)


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path, monkeypatch):
    path = old(tmp_path / "a", b"one")
    plain = Path.open

    def change(self, *args, **kwargs):
        file = plain(self, *args, **kwargs)
        if self == path:
            os.utime(path)
        return file

    monkeypatch.setattr(Path, "open", change)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        hashing.sha256(path)


def test_a_file_that_gets_another_name_while_it_is_read_is_the_same_and_not_remembered_for_it(tmp_path, cache, monkeypatch):
    path = old(tmp_path / "a", b"content")
    plain = hashing._recall

    def recall(place: Path) -> str | None:
        os.link(path, tmp_path / "another name")  # as an export gives a part that it does not merge
        return plain(place)

    monkeypatch.setattr(hashing, "_recall", recall)
    assert hashing.sha256(path) == hashlib.sha256(b"content").hexdigest()
    assert not [file for file in cache.rglob("*") if file.is_file()]


def test_hashing_stops_when_asked(tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(CheckpointError, match="stopped"):
        hashing.sha256(old(tmp_path / "a", b"one"), stop)


def test_the_legacy_hash_is_of_64_kib_at_1_mib(tmp_path):
    content = os.urandom((1 << 20) + (1 << 17))
    (tmp_path / "a").write_bytes(content)
    assert hashing.legacy_hash(tmp_path / "a") == hashlib.sha256(content[1 << 20 : (1 << 20) + (1 << 16)]).hexdigest()[:8]
