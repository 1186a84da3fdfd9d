"""`workbench doctor` says what there is, tries a merge and a picture, and ends with 1 where something is broken."""

from __future__ import annotations

from typer.testing import CliRunner

from workbench.cli import app
from workbench.doctor import doctor


def test_a_whole_installation_is_well_and_says_what_it_draws():
    found = doctor()
    assert found.ok, str(found)
    told = found.frame().set_index("what")["found"]
    assert "torch 2." in told["libraries"]
    assert "SDXL" in told["drawn at once"]
    assert "Z-Image" in told["drawn with configs"]
    assert "Wan" not in told["drawn at once"] + told["drawn with configs"]
    assert told["a merge"].startswith("written, and read back bit for bit")
    assert told["a picture"].startswith("64x64, drawn on cpu")


def test_what_is_broken_is_one_line_and_the_exit_status(monkeypatch):
    def broken() -> str:
        raise OSError("disk gone")

    monkeypatch.setattr("workbench.doctor._picture", lambda: "not tried")
    monkeypatch.setattr("workbench.doctor._merge", broken)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    (line,) = [line for line in done.output.splitlines() if line.startswith("BAD")]
    assert line.split(maxsplit=3)[1:] == ["a", "merge", "OSError: disk gone"]
