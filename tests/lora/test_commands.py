"""`workbench lora extract`, `merge` and `resize`: what they write and print, and errors of one message."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import workbench as wb
from workbench import cli
from workbench.checkpoint.views.layouts import like
from workbench.places import DATA

SHAPES = DATA / "shapes-sd"
BASE, STRIPES, LORA = (str(SHAPES / name) for name in ("base.safetensors", "stripes.safetensors", "lora/stripes.safetensors"))


@pytest.fixture
def command(tmp_path: Path, monkeypatch, capsys):
    """Runs the command in an empty folder: `code, out, err = command("extract", ...)`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command sets its own

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["workbench", "lora", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


def test_extract_writes_what_the_function_gives_and_says_how_good_it_is(command):
    code, out, err = command("extract", STRIPES, BASE, "--rank", "4", "--include", "*attn*", "--out", "x.safetensors", "--dtype", "float32")
    assert (code, err) == (0, "")
    expected = wb.lora.extract(wb.open(STRIPES), wb.open(BASE), rank=4, include="*attn*", dtype="float32")
    size = Path("x.safetensors").stat().st_size
    assert out == f"x.safetensors: {size / 1e6:.3g} MB; {expected.report.headline}\n"
    assert f"relative error {expected.report.error:.3g}" in out
    found = like(wb.open("x.safetensors"), expected)
    for key in list(expected)[::10]:
        torch.testing.assert_close(found[key], expected[key])


def test_extract_takes_a_size_and_diffusers_names(command):
    code, out, _ = command("extract", STRIPES, BASE, "--max-bytes", "150000", "--out", "x.safetensors", "--format", "peft")
    assert code == 0
    assert Path("x.safetensors").stat().st_size <= 150_000
    assert all(key.endswith((".lora_A.weight", ".lora_B.weight")) for key in load_file("x.safetensors"))
    assert "more tensors differ and are left out" in out


def test_merge_adds_files_with_their_strengths(command):
    command("extract", STRIPES, BASE, "--rank", "2", "--out", "a.safetensors")
    code, out, _ = command("merge", "a.safetensors", LORA, "--strengths", "1,0.5", "--out", "m.safetensors", "--dtype", "float32")
    assert code == 0
    assert out.startswith("m.safetensors: ")
    other = wb.open(LORA)
    one, found = (like(wb.open(name), other) for name in ("a.safetensors", "m.safetensors"))
    key = next(iter(other))
    torch.testing.assert_close(found[key], one[key] + 0.5 * other[key], atol=1e-6, rtol=1e-5)
    assert command("merge", "a.safetensors", LORA, "--rank", "1", "--out", "n.safetensors")[0] == 0
    assert "of rank 1," in command("merge", "a.safetensors", LORA, "--rank", "1", "--out", "n.safetensors", "--overwrite")[1]


def test_merge_takes_a_method_its_options_and_a_limit(command):
    command("extract", STRIPES, BASE, "--rank", "2", "--out", "a.safetensors")
    asked = ("merge", "a.safetensors", LORA, "--method", "ties", "--option", "density=0.3", "--dtype", "float32")
    code, out, err = command(*asked, "--target-error", "0.4", "--out", "m.safetensors")
    assert (code, err) == (0, "")
    assert "merged by ties (density=0.3) in the core space" in out
    loras = [wb.open(name) for name in ("a.safetensors", LORA)]
    expected = wb.lora.merge(loras, method="ties", density=0.3, target_error=0.4, dtype="float32")
    found = like(wb.open("m.safetensors"), expected)
    for key in list(expected)[::10]:
        torch.testing.assert_close(found[key], expected[key])
    for option, said in (
        ("density", "must be a name and a value"),
        ("density=[", "is no value"),
        ("density=3", "must be in [0, 1], got 3"),
    ):
        code, _, err = command("merge", "a.safetensors", "--method", "ties", "--option", option, "--out", "x.safetensors")
        assert code == 1
        assert said in err
        assert err.count("\n") == 1


def test_resize_makes_a_file_smaller(command):
    code, out, _ = command("resize", LORA, "--target-error", "0.5", "--out", "r.safetensors")
    assert code == 0
    assert Path("r.safetensors").stat().st_size < Path(LORA).stat().st_size
    assert f"relative error {wb.lora.resize(wb.open(LORA), target_error=0.5).report.error:.3g}" in out


def test_what_cannot_be_done_is_said_in_one_line_and_leaves_nothing(command):
    Path("there.safetensors").write_bytes(b"x")
    for arguments, said in (
        (("extract", STRIPES, BASE, "--out", "x.safetensors"), "give one of rank, target_error and max_bytes, got none"),
        (
            ("extract", STRIPES, BASE, "--rank", "4", "--out", "there.safetensors"),
            "there.safetensors: is there already; choose another name or",
        ),
        (("extract", STRIPES, BASE, "--rank", "4", "--out", "x.pt"), "x.pt: a LoRA's name ends in .safetensors"),
        (("extract", BASE, BASE, "--rank", "4", "--out", "x.safetensors"), "do not differ in any tensor"),
        (("merge", LORA, BASE, "--out", "x.safetensors"), "base.safetensors: is a model and no LoRA; `workbench lora extract` makes one"),
        (("merge", LORA, "--strengths", "1;2", "--out", "x.safetensors"), "--strengths must be numbers with commas between them"),
        (("merge", LORA, "--strengths", "1,2", "--out", "x.safetensors"), "strengths needs one number or 1, one per LoRA, got 2"),
        (("resize", LORA, "--rank", "0", "--out", "x.safetensors"), "rank must be a whole number from 1, got 0"),
    ):
        code, out, err = command(*arguments)
        assert (code, out) == (1, "")
        assert err.startswith("error: ")
        assert said in err
        assert err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["there.safetensors"]
    assert command("extract", STRIPES, BASE, "--rank", "4", "--out", "x.safetensors", "--format", "a1111")[0] == 2


def test_inspect_tells_of_a_lora_what_it_changes(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["workbench", "inspect", LORA])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with pytest.raises(SystemExit):
        cli.main()
    out, err = capsys.readouterr()
    assert err == ""
    for line in str(wb.lora.inspect(LORA)).splitlines():
        assert f"  {line}\n" in out
