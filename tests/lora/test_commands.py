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


def test_convert_writes_the_same_change_in_other_names(command):
    code, out, _ = command("convert", LORA, "--format", "peft", "--out", "p.safetensors", "--dtype", "float32")
    assert (code, out) == (0, f"p.safetensors: {Path('p.safetensors').stat().st_size / 1e6:.3g} MB; 56 changes in 'peft' names\n")
    assert command("convert", "p.safetensors", "--base", BASE, "--out", "k.safetensors", "--dtype", "float32")[0] == 0
    assert load_file("k.safetensors").keys() == load_file(LORA).keys()
    base = wb.open(BASE)
    one, other = (wb.lora.apply(base, [(wb.open(path), 1.0)]) for path in (LORA, "k.safetensors"))
    assert all(torch.equal(one[key], other[key]) for key in base)


def test_bake_writes_the_model_with_loras_at_their_strengths(command):
    command("extract", STRIPES, BASE, "--rank", "2", "--out", "a:b.safetensors")
    code, out, err = command("bake", BASE, f"{LORA}:0.8", "a:b.safetensors", "a:b.safetensors:-4", "--out", "m.safetensors")
    assert (code, err) == (0, "")
    assert out.startswith("m.safetensors: ")
    base, lora, other = (wb.open(path) for path in (BASE, LORA, "a:b.safetensors"))
    wanted = wb.lora.apply(base, [(lora, 0.8), (other, 1.0), (other, -4.0)])
    found = wb.open("m.safetensors")
    assert set(found) == set(base)
    assert all(torch.equal(found[key], wanted[key]) for key in base)
    assert wb.Recipe.from_file("m.safetensors").data.merge.operator == "add_delta"
    code, _, _ = command("bake", BASE, LORA, "--out", "d.safetensors", "--dtype", "bfloat16", "--layout", "diffusers")
    made = wb.open("d.safetensors")
    assert (code, made.structure.layout, made.info("unet.conv_in.weight").dtype_name) == (0, "diffusers", "bfloat16")


def test_what_cannot_be_baked_is_said_before_anything_is_read(command):
    Path("a").write_bytes(b"x")
    Path("a:1").write_bytes(b"x")
    for loras, said in (
        ([f"{LORA}:0,8"], "a strength is a number after the last colon, such as"),
        ([f"{LORA}:21"], "a strength must be in [-20, 20], got 21"),
        ([f"{LORA}:nan"], "a strength must be in [-20, 20], got nan"),
        (["none.safetensors:0.5"], "none.safetensors: there is no such file"),
        (["a:1"], "there are files 'a:1' and 'a'; write 'a:1:1' for the first"),
        ([BASE], "is a model and no LoRA; the model comes first, then LoRAs"),
    ):
        code, out, err = command("bake", BASE, *loras, "--out", "m.safetensors")
        assert (code, out) == (1, "")
        assert said in err
    assert "is a LoRA; the model comes first" in command("bake", LORA, LORA, "--out", "m.safetensors")[2]
    assert not Path("m.safetensors").exists()


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
