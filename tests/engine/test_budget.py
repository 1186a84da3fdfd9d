"""A type for each tensor: the least error that so many bytes allow, beside what each type alone costs."""

from __future__ import annotations

import itertools

import pytest
import torch
from held import Held
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.engine.quantising.allotting import WritingOffer, allotted
from workbench.engine.quantising.quantiser import Plain
from workbench.errors import ExportError
from workbench.tensors import Space, TensorInfo

PLAIN = Plain.of(TensorInfo((1,), "F32"))
KEYS = [f"double_blocks.{i}.img_mod.lin.weight" for i in range(4)]
SPREADS = (0.01, 0.1, 1.0, 10.0)


def model(seed: int = 0) -> Held:
    made = torch.Generator().manual_seed(seed)
    tensors = {key: (torch.randn(64, 256, generator=made) * spread).bfloat16() for key, spread in zip(KEYS, SPREADS, strict=True)}
    return Held({"img_in.weight": torch.randn(64, 64, generator=made).bfloat16(), **tensors}, "flux")


def offers(*pairs: tuple[int, float]) -> list[WritingOffer]:
    return [WritingOffer(PLAIN, nbytes, wrong) for nbytes, wrong in pairs]


def picked(found) -> dict[str, tuple[int, float]]:
    return {key: (one.nbytes, one.wrong) for key, one in found.items()}


def test_bytes_go_where_they_take_most_error_away():
    given_two = {"a": offers((1, 10.0), (2, 1.0)), "b": offers((1, 5.0), (2, 4.0), (4, 0.0))}
    assert picked(allotted(given_two, 2)) == {"a": (1, 10.0), "b": (1, 5.0)}
    assert picked(allotted(given_two, 3)) == {"a": (2, 1.0), "b": (1, 5.0)}
    assert picked(allotted(given_two, 6)) == {"a": (2, 1.0), "b": (4, 0.0)}
    assert allotted(given_two, 1) is None


def test_a_type_that_is_dearer_and_no_better_is_never_chosen():
    assert picked(allotted({"a": offers((1, 3.0), (2, 3.0), (3, 4.0), (4, 1.0))}, 3)) == {"a": (1, 3.0)}


pairs = st.lists(st.tuples(st.integers(1, 9), st.floats(0, 100)), min_size=1, max_size=4)


@given(st.lists(pairs, min_size=1, max_size=4), st.integers(0, 40))
def test_it_fits_and_is_no_worse_than_the_best_by_more_than_one_step(found, allowed):
    named = {str(i): offers(*one) for i, one in enumerate(found)}
    chosen = allotted(named, allowed)
    fitting = [
        sum(one.wrong for one in choice) for choice in itertools.product(*named.values()) if sum(one.nbytes for one in choice) <= allowed
    ]
    assert (chosen is None) == (not fitting)
    if chosen is not None:
        assert sum(one.nbytes for one in chosen.values()) <= allowed
        step = max(max(one.wrong for one in each) - min(one.wrong for one in each) for each in named.values())
        assert sum(one.wrong for one in chosen.values()) <= min(fitting) + step + 1e-6


@pytest.mark.parametrize(("end", "types"), [("gguf", ("Q4_0", "Q8_0")), ("safetensors", ("nvfp4", "int8_tensorwise"))])
def test_a_file_is_no_larger_than_allowed_and_better_than_a_type_that_takes_as_much(end, types, tmp_path):
    small, large = (wb.export(model(), tmp_path / f"{kind}.{end}", quantise=kind, progress=False) for kind in types)
    sizes = [one.path.stat().st_size for one in (small, large)]
    allowed = sum(sizes) // 2
    made = wb.export(model(), tmp_path / f"made.{end}", max_bytes=allowed, progress=False)
    assert sizes[0] < made.path.stat().st_size <= allowed
    table = made.choices_frame().set_index("types")
    assert made.nbytes / 1e6 == pytest.approx(table.loc["this choice", "MB"])
    assert table.loc["this choice", "error"] < table[table["MB"] * 1e6 <= allowed].drop("this choice")["error"].min()
    for one, kind in ((small, types[0]), (large, types[1])):  # what is estimated beforehand is what comes out
        square = sum(cost.loss.square for cost in one.costs)
        wrong = sum(cost.loss.wrong for cost in one.costs)
        assert table.loc[kind, "error"] == pytest.approx((wrong / square) ** 0.5, rel=1e-6)
    assert made.open().storage(KEYS[3]).nbytes > made.open().storage(KEYS[0]).nbytes
    assert "this choice" in made._repr_html_()


def test_what_is_left_of_a_change_is_told_of_each_choice(tmp_path):
    change = Held({key: 0.1 * model(1)[key].float() for key in KEYS}, "lora", Space.DELTA)
    merge = wb.operators.add_delta(model(), [change])
    made = wb.export(merge, tmp_path / "x.gguf", max_bytes=60_000, progress=False)
    table = made.choices_frame().set_index("types")
    assert table.loc["Q8_0", "change error"] < table.loc["Q5_0", "change error"] < table.loc["Q4_0", "change error"]
    assert made.kept == pytest.approx(table.loc["this choice", "kept"], rel=1e-6)
    assert "of what this merge changed, " in made.note


def test_blocks_and_what_is_kept_are_not_the_budgets(tmp_path):
    asked = {"blocks": {"double_blocks.0": "Q8_0"}, "keep": ["double_blocks.1.*"]}
    made = wb.export(model(), tmp_path / "x.gguf", quantise=asked, max_bytes="0.1MB", progress=False).open()
    assert made.storage(KEYS[0]).kind == "Q8_0"
    assert made.storage(KEYS[1]).kind == "bfloat16"


def test_with_room_for_all_nothing_is_quantised(tmp_path):
    made = wb.export(model(), tmp_path / "x.gguf", max_bytes="1MB", progress=False)
    assert "quantised 0 of 5" in made.note
    assert all(made.open()[key].equal(model()[key]) for key in KEYS)


def test_the_sample_of_a_large_tensor_stands_for_all_of_it(tmp_path, monkeypatch):
    whole = wb.export(model(), tmp_path / "a.gguf", max_bytes=60_000, progress=False).choices_frame()
    monkeypatch.setattr("workbench.tensors.PIECE", 1024)
    sampled = wb.export(model(), tmp_path / "b.gguf", max_bytes=60_000, progress=False).choices_frame()
    assert sampled["error"].tolist() != whole["error"].tolist()
    assert sampled["error"].tolist() == pytest.approx(whole["error"].tolist(), rel=0.05)


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("x.gguf", {"max_bytes": 1000}, r"x\.gguf: max_bytes=1000 is too little: with the smallest types it takes .* kB"),
        ("x.gguf", {"max_bytes": "much"}, "max_bytes must be bytes, or text like '6.5GB'"),
        ("x.gguf", {"max_bytes": 9, "quantise": "Q8_0"}, "names 'Q8_0' for all; leave one out"),
        ("x.gguf", {"max_bytes": 9, "dtype": "float8_e4m3fn", "scaled": True}, "scaled=True is for dtype alone"),
        ("x", {"max_bytes": 9, "max_shard_size": "5GB"}, "no folder with scales"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(name, options, told, tmp_path):
    with pytest.raises(ExportError, match=told):
        wb.export(model(), tmp_path / name, progress=False, **options)
    assert list(tmp_path.iterdir()) == []
