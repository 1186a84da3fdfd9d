"""Machine code that is kept on the disk is that of these sources."""

from __future__ import annotations

from workbench.kernels.compiling import _forget_others

forget_others = _forget_others.__wrapped__


def test_what_was_compiled_from_other_sources_is_removed_and_what_was_from_these_stays(tmp_path):
    kept, other = [tmp_path / "stored._load-1.py311.nbi", tmp_path / "stored._load-1.py311.1.nbc"], tmp_path / "stored.cpython-311.pyc"
    for path in (*kept, other):
        path.write_bytes(b"x")
    forget_others(tmp_path)
    assert [path.exists() for path in (*kept, other)] == [False, False, True]
    kept[0].write_bytes(b"x")
    forget_others(tmp_path)
    assert kept[0].exists()
    (tmp_path / "sources.sha256").write_text("of another version")
    forget_others(tmp_path)
    assert not kept[0].exists()


def test_where_nothing_can_be_written_nothing_is_raised(tmp_path):
    forget_others(tmp_path / "there is none")
    assert not (tmp_path / "there is none").exists()
