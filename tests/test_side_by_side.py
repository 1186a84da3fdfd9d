"""The benchmark of all operators and peers: what it merges and calls wrong, its tables, and that it goes on where it stopped."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import workbench as wb
from benchmarks import __main__ as bench
from benchmarks.side_by_side import floor, ours, references, store, tables, tools
from benchmarks.side_by_side.cases import WANTED, cases
from benchmarks.side_by_side.files import MODELS, SIZES, Files, thinned
from benchmarks.side_by_side.kernel import Kernel
from benchmarks.side_by_side.references import Wrong, differences
from benchmarks.side_by_side.store import Job, Store
from workbench.operators import own
from workbench.tensors import Scope, TensorInfo

GOLDEN = Path(__file__).resolve().parent / "golden"
CASES = cases()
SIX = {
    "floor": 2.0,
    "seconds": 6.0,
    "peak": 180.0,
    "wrong": {"lost": 0, "added": 0, "reshaped": 0, "dtypes": {}, "off": 0.0, "furthest": 1},
}


def test_every_operator_is_measured_and_over_the_whole_model_where_it_can_be():
    assert [case.operator for case in CASES if case.name == case.operator] == list(own())
    whole = {case.operator for case in CASES if own()[case.operator].declaration.scope_for(case.options) is Scope.MODEL}
    assert whole == {"delta_merge", "magnitude_prune", "ties"}
    assert set(WANTED) <= {case.name for case in CASES}


def test_only_what_is_made_of_singular_vectors_is_measured_on_light_files():
    light = {case.name for case in CASES if case.files == "light"}
    assert light == {"tsv_merge", "iso_c", "iso_cts", "svc", "truncate_rank"}
    assert {case.name for case in CASES if case.files == "large"} == set(WANTED)
    infos = SIZES["sd15"].infos("light")
    assert max(info.numel for info in infos.values()) <= 1 << 20


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_recipe_is_built_and_gives_something_else_than_any_of_its_models(case, tmp_path):
    where = Files(tmp_path, SIZES["sd15"])
    for model, golden in zip(MODELS, ("base", "a", "b"), strict=True):
        shutil.copy(GOLDEN / f"{golden}.safetensors", where.path("small", model))
    merge = wb.Recipe.load(case.recipe(where, "small")).build()
    models = [wb.open(path) for path in case.paths(where, "small")]
    assert any(not any(torch.equal(merge[key], model[key]) for model in models) for key in merge)


def test_fewer_tensors_are_the_same_mixture_of_shapes():
    infos = {f"{shape}-{n}": TensorInfo((shape,), "F16") for shape, count in ((2, 5), (3, 1), (4, 3)) for n in range(count)}
    assert list(thinned(infos, 2)) == ["2-0", "2-2", "2-4", "3-0", "4-0", "4-2"]
    assert thinned(infos, 1) == infos


def test_files_are_not_begun_where_there_is_no_room(tmp_path, monkeypatch):
    infos = {"x": TensorInfo((1 << 20,), "F16")}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 1 << 20))
    size = SIZES["flux"].__class__("a model", lambda: infos, 1, 1)
    with pytest.raises(SystemExit, match=r"a model needs 0 GB of free disk.*--folder, or --quick"):
        Files(tmp_path, size).make()
    assert not list(tmp_path.iterdir())


def test_the_floor_reads_all_and_leaves_nothing(tmp_path):
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_bytes(b"x" * 600_000)
    assert floor.floor(paths[:1], paths[1:], tmp_path / "out") > 0
    assert sorted(tmp_path.iterdir()) == paths


def test_a_floor_is_that_of_the_next_measurement_of_the_same_files_for_half_a_minute(tmp_path, monkeypatch):
    goes, now = iter([5.0, 3.0, 4.0, 6.0, 2.0, 2.5]), 100.0
    monkeypatch.setattr(floor, "_go", lambda *files: next(goes))
    monkeypatch.setattr(floor, "time", SimpleNamespace(monotonic=lambda: now))
    first, second, out = (tmp_path / name for name in ("a", "b", "out"))
    assert floor.floor([first], [second], out) == 3.0
    now = 129.0
    assert floor.floor([first], [second], out) == 3.0
    assert floor.floor([second], [first], out) == 4.0
    now = 131.0
    assert floor.floor([first], [second], out) == 2.0


def test_a_kernel_keeps_no_name_and_says_what_went_wrong(tmp_path):
    with Kernel(tmp_path / "log") as kernel:
        assert kernel.seconds("import time; print('not an answer')", "time.sleep(0.01)") >= 0.01
        with pytest.raises(SystemExit, match="NameError: name 'time' is not defined"):
            kernel.seconds("", "time.sleep(1)")
        assert kernel.seconds("", "pass") < 1


def _jobs(done: list[str], by: str = "1", **more: float) -> list[Job]:
    return [Job(key, by, 2, lambda key=key: done.append(key) or {"seconds": 20.0}, **more) for key in ("a", "b")]


def test_rounds_go_in_turn_and_a_run_goes_on_where_it_stopped(tmp_path):
    def stopped() -> dict[str, float]:
        raise KeyboardInterrupt

    done: list[str] = []
    first, second = _jobs(done)
    with pytest.raises(KeyboardInterrupt):
        store.run([first, Job(second.key, second.by, 2, stopped)], Store(tmp_path / "kept.json"), print)
    assert done == ["a"]
    store.run([first, second], Store(tmp_path / "kept.json"), print)
    assert done == ["a", "b", "a", "b"]
    store.run([first, second], Store(tmp_path / "kept.json"), print)
    assert len(done) == 4


def test_what_another_version_gave_is_measured_anew(tmp_path):
    done: list[str] = []
    kept = Store(tmp_path / "kept.json")
    store.run(_jobs(done), kept, print)
    (job, _) = _jobs(done, by="2")
    assert kept.rounds(job) == []
    store.run([job], kept, print)
    assert done == ["a", "b", "a", "b", "a", "a"]


def test_what_takes_long_is_not_measured_again(tmp_path):
    done: list[str] = []
    store.run(_jobs(done, enough=20), Store(tmp_path / "kept.json"), print)
    assert done == ["a", "b"]


def test_versions_tell_files_apart(tmp_path):
    (tmp_path / "a.py").write_text("1")
    before = store.version_of([tmp_path])
    (tmp_path / "b.py").write_text("")
    assert before != store.version_of([tmp_path]) == store.version_of([tmp_path])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> list[Path]:
    """A base and two models tuned from it, in float16, with something that is no float."""
    folder = tmp_path_factory.mktemp("inputs")
    draws, paths = torch.Generator().manual_seed(0), [folder / f"{model}.safetensors" for model in MODELS]
    base = {name: torch.randn(shape, generator=draws) for name, shape in (("x", (64, 32)), ("y", (4, 8, 3, 3)), ("z", (1,)))}
    for number, path in enumerate(paths):
        moved = {key: (value + 0.1 * number * torch.randn(value.shape, generator=draws)).half() for key, value in base.items()}
        save_file({**moved, "ids": torch.arange(7)}, path)
    return paths


@pytest.mark.parametrize("operation", ours.OPERATIONS, ids=lambda one: one.name)
def test_our_merges_are_right_by_formulas_in_float64(operation, inputs, tmp_path):
    of_model = dict(zip(MODELS, inputs, strict=True))
    (case,) = (case for case in CASES if case.name == operation.operator)
    taken = {slot: wb.open(of_model[given]) if isinstance(given, str) else [wb.open(of_model[one]) for one in given]
             for slot, given in case.inputs.items()}  # fmt: skip
    wb.export(wb.operators.find(case.operator)(**taken, **case.options, rules=[]), tmp_path / "out.safetensors", progress=False)
    found = differences([tmp_path / "out.safetensors"], [of_model[model] for model in operation.inputs], operation.right)
    assert (found.lost, found.added, found.reshaped, found.dtypes, found.off) == (0, 0, 0, {}, 0)
    assert found.furthest <= 1


def test_what_a_tool_loses_changes_and_miscalculates_is_found(inputs, tmp_path):
    first, second = (load_file(path) for path in inputs[1:])
    right = {key: torch.lerp(first[key].double(), second[key].double(), 0.7).half() for key in ("x", "y", "z")}
    right["x"].view(-1)[: 64 * 32 // 4] += 1
    save_file({"x": right["x"], "y": right["y"].reshape(-1), "ids": first["ids"].half(), "more": right["z"]}, tmp_path / "out.safetensors")
    found = differences([tmp_path / "out.safetensors"], inputs[1:], references.average)
    assert (found.lost, found.added, found.reshaped, found.dtypes) == (1, 1, 1, {"I64 became F16": 1})
    assert found.off == pytest.approx(0.25, abs=0.01)
    assert found.furthest > 1


def test_a_dare_that_sums_what_agrees_is_off(inputs, tmp_path):
    base, first, second = (load_file(path) for path in inputs)
    summed = {
        key: (base[key].double() + 2 * (first[key].double() - base[key]) + 2 * (second[key].double() - base[key])).half() for key in "xyz"
    }
    save_file({**summed, "ids": base["ids"]}, tmp_path / "out.safetensors")
    assert differences([tmp_path / "out.safetensors"], inputs, references.dare_ties).off > 0.9


def test_what_float32_loses_where_inputs_cancel_out_is_not_wrong(tmp_path):
    first = torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    second = (first.double() * -3 / 7).bfloat16()
    paths = [tmp_path / name for name in ("first", "second")]
    for path, tensor in zip(paths, (first, second), strict=True):
        save_file({"x": tensor}, path)
    merged = (0.3 * first.float() + 0.7 * second.float()).bfloat16()
    save_file({"x": merged}, tmp_path / "good")
    save_file({"x": merged + 1e-3 * first}, tmp_path / "bad")
    assert differences([tmp_path / "good"], paths, references.average).off == 0
    assert differences([tmp_path / "bad"], paths, references.average).off > 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_distances_are_counted_in_numbers_of_the_dtype(dtype):
    ones = torch.tensor([1.0, -1.0, 0.0, float("nan")]).to(dtype)
    above = torch.stack([ones[0].nextafter(torch.tensor(2, dtype=dtype)), ones[1], -ones[2], ones[3]])
    assert references.units(ones, above).tolist() == [1, 0, 0, 1 << 16]


def test_multiples_are_of_the_floor_of_their_own_round():
    assert tables.over_floor([{"floor": 1, "seconds": 3}, {"floor": 2, "seconds": 4}, {"floor": 4, "seconds": 4}]) == 2


def test_a_peer_stands_below_ours_with_what_it_did_wrong():
    bad = {**SIX, "seconds": 18.0, "peak": 3000.0, "wrong": {**SIX["wrong"], "lost": 2, "dtypes": {"I64 became F16": 1}, "off": 0.019}}
    found = tables.peers({"ties": [SIX]}, {("ties", "one"): [bad], ("ties", "two"): [{"failed": "no wheel"}], ("slerp", "one"): [bad]})
    assert found.splitlines()[2:] == [
        "| ties | Workbench | 6.0 | 3.0 | 1.0 | 180 | - |",
        "|  | one | 18.0 | 9.0 | 3.0 | 3000 | 2 tensors lost, I64 became F16: 1, 1.9 % of values off, by up to 1 units |",
        "|  | two |  |  |  |  | failed: no wheel |",
    ]


def test_operators_stand_beside_what_is_wanted_of_them():
    found = tables.wanted({"ties": [SIX], "other": [SIX]}, {"ties": 3.5}, {"ties": [SIX]})
    assert found.splitlines()[2:] == ["| `ties` | 3.0 | 3.0 to 3.0 | 3.5 | 2.00 | 6.00 | 6.0 | 180 |"]
    found = tables.operators({"clamp": [SIX], "svc": [SIX]}, {"clamp": [SIX]}, 152, lambda name: name == "clamp")
    assert found.splitlines()[2:] == ["| `clamp` | 3.0 | 180 | 200 |", "| `svc` | 3.0 |  | 504 |"]


def test_tables_take_the_place_of_those_before_and_of_nothing_else(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("above\n<!-- a: begin -->\nold \\1\n<!-- a: end -->\nbelow\n<!-- b: begin -->\n<!-- b: end -->\n", encoding="utf-8")
    tables.written(path, "a", "new \\1")
    assert path.read_text(encoding="utf-8") == (
        "above\n<!-- a: begin -->\nnew \\1\n<!-- a: end -->\nbelow\n<!-- b: begin -->\n<!-- b: end -->\n"
    )
    with pytest.raises(SystemExit, match="has no <!-- c: begin -->"):
        tables.written(path, "c", "new")


def test_the_readme_has_a_place_for_the_tables_of_every_size(tmp_path):
    shutil.copy(bench.README, tmp_path / "README.md")
    for name in SIZES:
        tables.written(tmp_path / "README.md", name, f"| of {name} |")
    assert all(f"| of {name} |" in (tmp_path / "README.md").read_text(encoding="utf-8") for name in SIZES)


def test_a_peer_that_fails_or_cannot_be_installed_is_said_with_its_last_line(tmp_path):
    tool = tools.Tool("a peer", "by_peft.py", "a-peer==1", ("ties",))
    found = tools.run_tool(tool, "no such operation", tmp_path / "out", [], sys.executable)
    assert "no such operation" in found["failed"] or "TypeError" in found["failed"]
    (job,) = tools.jobs(Files(tmp_path, SIZES["sd15"]), tools.Environment(tmp_path), [tool], {"a-peer==1": "no wheel"}, 1)
    assert job.run() == {"failed": "cannot be installed here: no wheel"}


def test_what_is_wrong_with_nothing_is_nothing():
    assert tables.told_wrong({"wrong": vars(Wrong(dtypes={}))}) == "-"
