"""The `workbench` command: what it prints, what it writes, and errors of one message."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from gguf_files import Type, blocks, write_gguf
from safetensors.torch import load_file, save_file
from slow_operator import SLOW

import workbench as wb
from workbench import cli

UNET, TEXT = "model.diffusion_model.", "cond_stage_model.transformer.text_model."


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    """Two small SD 1.x models and a recipe that averages them; also the current folder."""
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command sets its own
    for number, name in enumerate("ab"):
        tensors = {f"{UNET}input_blocks.1.1.proj_in.weight": torch.full((2, 2, 1, 1), float(number)), f"{TEXT}x": torch.ones(3)}
        save_file({key: tensor.half() for key, tensor in tensors.items()}, tmp_path / f"{name}.safetensors")
    recipe(tmp_path)
    return tmp_path


def recipe(folder: Path, **changes: object) -> Path:
    """Writes `recipe.yaml`, with changes to its merge."""
    merge = {"operator": "weighted_average", "inputs": {"models": ["a", "b"]}} | changes
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"workbench": 1, "models": {"a": "a.safetensors", "b": "b.safetensors"}, "merge": merge}))
    return path


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """Runs the command: `code, out, err = command("merge", ...)`."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["workbench", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


def started(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "workbench", *arguments], capture_output=True, text=True, timeout=120)


def test_inspect_goes_on_with_the_other_files_and_escapes_what_does_not_show(command, folder):
    (folder / "bad\x1b[2J\n.safetensors").write_bytes(b"")
    code, out, err = command("inspect", "bad\x1b[2J\n.safetensors", "a.safetensors")
    assert code == 1
    assert out.startswith("a.safetensors\n")
    assert "bad\\x1b[2J\\n.safetensors" in err
    assert "\x1b" not in out + err
    assert err.count("\n") == 1


def test_merge_writes_what_the_recipe_says(command, folder):
    code, out, err = command("merge", "recipe.yaml", "--out", "m.safetensors")
    assert (code, err) == (0, "")
    assert out.startswith("m.safetensors: 0.0 MB in ")
    made = wb.Recipe.load("recipe.yaml").build()
    found = load_file("m.safetensors")
    assert set(found) == set(made)
    assert all(torch.equal(found[key], made[key]) for key in made)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_merge_writes_the_asked_dtype(command, dtype):
    assert command("merge", "recipe.yaml", "--out", "m.safetensors", "--dtype", dtype)[0] == 0
    assert {str(tensor.dtype) for tensor in load_file("m.safetensors").values()} == {f"torch.{dtype}"}
    assert wb.Recipe.from_file("m.safetensors").data.output.dtype == dtype


def test_an_existing_file_is_only_replaced_with_overwrite(command):
    arguments = ("merge", "recipe.yaml", "--out", "m.safetensors")
    Path("m.safetensors").write_bytes(b"older")
    code, out, err = command(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("error: m.safetensors: is there already")
    assert "--overwrite" in err
    assert Path("m.safetensors").read_bytes() == b"older"
    assert command(*arguments, "--overwrite")[0] == 0
    assert len(wb.open("m.safetensors")) == 2


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(command, folder):
    before = sorted(folder.iterdir())
    code, out, err = command("merge", "recipe.yaml", "--out", "m.safetensors", "--dry-run", "--dtype", "float32")
    assert (code, err) == (0, "")
    assert "model: a, architecture: SD 1.x, layout: LDM" in out
    assert out.endswith("would write 2 tensors, 0.0 MB, to m.safetensors\n")
    assert sorted(folder.iterdir()) == before


def test_a_dry_run_counts_the_bytes_of_the_asked_dtype(command, folder):
    for name in "ab":
        save_file({"x": torch.zeros(1_000_000, dtype=torch.float16)}, folder / f"{name}.safetensors")
    for dtype, size in (("float16", 2.0), ("float32", 4.0)):
        assert f"1 tensors, {size} MB" in command("merge", "recipe.yaml", "--out", "m.safetensors", "--dry-run", "--dtype", dtype)[1]


def test_a_dry_run_of_what_cannot_be_made_fails(command, folder):
    save_file({f"{UNET}label_emb.0.0.weight": torch.ones(2)}, folder / "b.safetensors")
    code, out, err = command("merge", "recipe.yaml", "--out", "m.safetensors", "--dry-run")
    assert code == 1
    assert "a is SD 1.x, b is SDXL" in err
    assert "would write" not in out


def test_notes_are_said_and_verbose_says_what_the_inputs_are_too(command, folder):
    save_file({f"{TEXT}x": torch.ones(3).half()}, folder / "b.safetensors")
    said = f"note: weighted_average: '{UNET}input_blocks.1.1.proj_in.weight' is not in b and is merged from the others"
    _, out, err = command("merge", "recipe.yaml", "--out", "m.safetensors")
    assert err.count(said) == 1
    assert "model: a" not in out
    _, out, err = command("merge", "recipe.yaml", "--out", "n.safetensors", "-v")
    assert out.count(said) == 1
    assert "model: a" in out
    assert err == ""


def test_strict_refuses_nan(command, folder):
    save_file({f"{TEXT}x": torch.full((3,), torch.nan).half()}, folder / "b.safetensors")
    code, _, err = command("merge", "recipe.yaml", "--out", "m.safetensors", "--strict")
    assert code == 1
    assert err.endswith(f"error: b: '{TEXT}x' holds NaN or infinity; mend the file, or export without strict\n")
    assert not Path("m.safetensors").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"operator": "weighted_avrage"}, "there is no operator 'weighted_avrage'; did you mean 'weighted_average'?"),
        ({"options": {"wieghts": 1}}, "weighted_average: there is no option 'wieghts'; did you mean 'weights'?"),
        ({"options": {"weights": [1, 2, 3]}}, "weighted_average: weights needs one value or 2, one per model, got 3"),
        ({"options": {"weights": "much"}}, "weighted_average: weights must be a number in [-10, 10], got 'much'"),
        ({"options": {"weights": 11}}, "weighted_average: weights must be in [-10, 10], got 11"),
        ({"options": {"weights": [1, -1]}}, "weighted_average: weights must not sum to 0"),
        ({"inputs": {"models": ["a", "c"]}}, "weighted_average: there is no model 'c'"),
        ({"extra": 1}, "recipe.yaml: is no recipe: merge.extra"),
        ({"rules": [{"component": "head", "skip": True}]}, "a rule's component must be one of unet"),
    ],
)
def test_a_wrong_recipe_is_one_message(command, folder, change, said):
    recipe(folder, **change)
    code, out, err = command("merge", "recipe.yaml", "--out", "m.safetensors")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1
    assert not Path("m.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("merge", "none.yaml", "--out", "m.safetensors"), "none.yaml: cannot be read: No such file"),
        (("merge", ".", "--out", "m.safetensors"), "cannot be read: Is a directory"),
        (("merge", "a.safetensors", "--out", "m.safetensors"), "a.safetensors: carries no Workbench recipe, nor one of another program"),
        (("merge", "recipe.yaml", "--out", "m.ckpt"), "m.ckpt: an exported file's name ends in .safetensors"),
        (("merge", "recipe.yaml", "--out", "no/m.safetensors"), "there is no folder no; make it first"),
        (("merge", "recipe.yaml", "--out", "a.safetensors", "--overwrite"), "a.safetensors: is one of the inputs"),
        (("merge", "recipe.yaml", "--out", "m.safetensors", "--threads", "0"), "threads must be a whole number of 1 or more, got 0"),
        (("merge", "recipe.yaml", "--out", "m.safetensors", "--device", "cuda:77"), "device 'cuda:77' is not to be had here"),
        (("inspect", "none.safetensors"), "none.safetensors: there is no such file; the current folder is"),
        (("inspect", "recipe.yaml"), "recipe.yaml: .yaml is not known; allowed are .safetensors"),
        (("inspect", "."), "holds 2 models, name one: a.safetensors, b.safetensors"),
    ],
)
def test_what_goes_wrong_is_one_message_on_stderr(command, arguments, said):
    code, out, err = command(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err
    assert not Path("m.safetensors").exists()


def test_a_missing_model_names_the_model_and_its_path(command, folder):
    (folder / "b.safetensors").unlink()
    code, _, err = command("merge", "recipe.yaml", "--out", "m.safetensors")
    assert code == 1
    assert err.startswith(f"error: model 'b': {folder}/b.safetensors: there is no such file")


@pytest.mark.parametrize(
    "arguments",
    [
        ("merge", "recipe.yaml", "--out", "m.safetensors", "--fast"),
        ("merge", "recipe.yaml"),
        ("merge", "recipe.yaml", "--out", "m.safetensors", "--dtype", "fp16"),
        ("merge", "recipe.yaml", "--out", "m.safetensors", "--threads", "two"),
        ("merge",),
        ("inspect",),
        ("marge",),
    ],
)
def test_a_command_that_cannot_be_understood_shows_its_usage(command, arguments):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert "Usage" in err
    assert "Traceback" not in err


def test_inspect_says_what_a_file_is(command):
    command("merge", "recipe.yaml", "--out", "m.safetensors")
    code, out, err = command("inspect", "m.safetensors")
    assert (code, err) == (0, "")
    for line in ("model: m", "architecture: SD 1.x", "layout: LDM", "components: text_encoder, unet", "prediction: epsilon",
                 "dtypes: float16 2", "tensors: 2", "blocks: IN01"):  # fmt: skip
        assert f"  {line}\n" in out
    assert "carries a recipe" in out
    assert "carries a recipe" not in command("inspect", "a.safetensors")[1]


def test_inspect_says_what_a_quantised_file_is_stored_as_by_component(command, folder):
    prefix, block = "model.diffusion_model.", blocks(Type.Q4_K, (4, 256))
    tensors = {f"{prefix}input_blocks.1.1.proj_in.weight": (block, Type.Q4_K), f"{prefix}out.2.bias": np.ones(1024, np.float32)}
    write_gguf(folder / "q.gguf", {**tensors, "first_stage_model.decoder.conv_in.bias": np.ones(8, np.float16)}, "sd1")
    code, out, err = command("inspect", "q.gguf")
    assert (code, err) == (0, "")
    assert "  stored as: unet, 18.25 bits per weight, 0.0 MB: Q4_K 1, float32 1\n" in out  # as many at 4.5 bits as at 32
    assert "  stored as: vae, 16.00 bits per weight, 0.0 MB: float16 1\n" in out
    assert "  dtypes: bfloat16 1, float32 1, float16 1\n" in out
    assert "stored as" not in command("inspect", "a.safetensors")[1]


def test_inspect_takes_folders_and_several_at_once(command, folder):
    (folder / "unet").mkdir()
    save_file({"down_blocks.1.resnets.0.conv1.weight": torch.ones(1)}, folder / "unet" / "diffusion_pytorch_model.safetensors")
    code, out, _ = command("inspect", "a.safetensors", "unet")
    assert code == 0
    assert [line for line in out.splitlines() if not line.startswith(" ")][:2] == ["a.safetensors", "unet"]
    assert "  layout: diffusers\n" in out
    assert "  blocks: IN04\n" in out


def test_inspect_of_two_files_says_how_they_differ(command):
    command("merge", "recipe.yaml", "--out", "m.safetensors")
    code, out, err = command("inspect", "a.safetensors", "m.safetensors")
    assert (code, err) == (0, "")
    # three ones in both, and four zeros that the average makes halves: the root of 4 / 4 over that of 3
    assert "\n\na and m: 1 of 2 tensors changed, by 58 % of a's norm" in out
    assert "weighted_average of a and b" in out
    said = command("inspect", "a.safetensors", "m.safetensors", "b.safetensors")[1]
    assert "changed" not in said  # of three nobody knows which two are meant
    assert "a and a-2 are identical: the same 2 tensors" in command("inspect", "a.safetensors", "a.safetensors")[1]


def test_inspect_says_what_is_wrong_with_a_file_and_goes_on(command):
    code, out, err = command("inspect", "none.safetensors", "a.safetensors", "recipe.yaml")
    assert code == 1
    assert [line.startswith("error: ") for line in err.splitlines()] == [True, True]
    assert "none.safetensors: there is no such file" in err
    assert "recipe.yaml: .yaml is not known" in err
    assert [line for line in out.splitlines() if not line.startswith(" ")] == ["a.safetensors"]
    code, out, err = command("inspect", "none.safetensors", "a.safetensors")
    assert (code, err.count("\n")) == (1, 1)
    assert "differ" not in out + err


def test_inspect_of_two_kinds_of_model_says_so(command, folder):
    save_file({"double_blocks.0.img_mod.lin.x": torch.ones(1)}, folder / "flux.safetensors")
    code, out, _ = command("inspect", "a.safetensors", "flux.safetensors")
    assert code == 0
    assert "a and flux: SD 1.x against Flux; no tensor that could be compared; 2 only in a; 1 only in flux" in out


def test_without_arguments_it_shows_its_commands(command):
    _, out, err = command()
    assert all(name in out + err for name in ("merge", "inspect", "demo", "lab"))


def test_it_runs_as_a_module_and_warnings_are_one_line(folder):
    save_file(load_file(folder / "b.safetensors") | {"v_pred": torch.zeros(0)}, folder / "b.safetensors")
    done = started("merge", "recipe.yaml", "--out", "m.safetensors")
    assert done.returncode == 0
    (warning,) = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert warning.startswith("warning: weighted_average: a predicts epsilon, b predicts v")
    failed = started("inspect", "none.safetensors")
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)
    assert failed.stderr.startswith("error: ")


def test_help_is_quick_since_no_heavy_library_is_loaded():
    code = "import sys, workbench.cli; print([n for n in ('torch', 'diffusers', 'transformers', 'pandas', 'plotly') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_ctrl_c_says_so_in_one_line_and_leaves_nothing_behind(folder):
    save_file({f"x{i}": torch.zeros(4) for i in range(400)}, folder / "a.safetensors")
    recipe(folder, operator="slow", inputs={"base": "a"})
    before = {path.name for path in folder.iterdir()}
    with subprocess.Popen(
        [sys.executable, "-c", SLOW + "cli.main()", "merge", "recipe.yaml", "--out", "m.safetensors"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
    ) as process:  # fmt: skip
        assert process.stdout.read(1) == "w"  # the first word of `working`
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=15)
    assert process.returncode == 130
    assert "Traceback" not in told
    assert {path.name for path in folder.iterdir()} - {"cache"} == before - {"cache"}


def test_lineage_prints_the_family_tree(command, folder):
    command("merge", "recipe.yaml", "--out", "m.safetensors")
    (folder / "b.safetensors").rename(folder / "other name.safetensors")
    code, out, err = command("lineage", "m.safetensors", "--among", ".")
    assert (code, err) == (0, "")
    first, *parents = out.splitlines()
    assert first.startswith("m.safetensors: weighted_average(), says Workbench's sd_merge_recipe")
    assert parents[0].startswith("├─ models[0]: a.safetensors [")
    assert "is other name.safetensors (by sha256)" in parents[1]
    assert "parents unknown" in command("lineage", "a.safetensors")[1]
    code, out, err = command("lineage", "none.safetensors")
    assert (code, out) == (1, "")
    assert err.startswith("error: ")


def test_verify_says_same_differs_or_cannot_by_its_status(command, folder):
    command("merge", "recipe.yaml", "--out", "m.safetensors")
    code, out, err = command("verify", "m.safetensors")
    assert (code, err) == (0, "")
    assert "m.safetensors: same: its recipe makes it again, byte for byte" in out
    data = bytearray(Path("m.safetensors").read_bytes())
    data[-1] ^= 1
    Path("n.safetensors").write_bytes(data)
    code, out, _ = command("verify", "n.safetensors")
    assert code == 1
    assert "differs: 1 of 2 tensors differ, first " in out
    (folder / "kept").mkdir()
    (folder / "b.safetensors").rename(folder / "kept" / "x.safetensors")
    code, out, _ = command("verify", "m.safetensors")
    assert code == 2
    assert "cannot: a parent is not where the recipe says" in out
    assert command("verify", "m.safetensors", "--among", "kept")[0] == 0
    code, out, err = command("verify", "none.safetensors")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")


def test_sigterm_ends_it_as_ctrl_c_does(folder):
    save_file({f"x{i}": torch.zeros(4) for i in range(400)}, folder / "a.safetensors")
    recipe(folder, operator="slow", inputs={"base": "a"})
    before = {path.name for path in folder.iterdir()}
    command = [sys.executable, "-c", SLOW + "cli.main()", "merge", "recipe.yaml", "--out", "m.safetensors"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout.read(1) == "w"
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=15)
    assert process.returncode == 143
    assert "Traceback" not in told
    assert {path.name for path in folder.iterdir()} - {"cache"} == before - {"cache"}


def test_inspect_of_a_folder_names_what_a_killed_export_left_in_it(command, folder):
    (folder / ".m.safetensors.0123abcd.workbench.tmp").write_bytes(bytes(3_000_000))
    code, out, err = command("inspect", str(folder))
    assert code == 1
    assert "holds" in err
    assert ".m.safetensors.0123abcd.workbench.tmp, 3.0 MB" in out
    assert "the next export into this folder removes it" in out
