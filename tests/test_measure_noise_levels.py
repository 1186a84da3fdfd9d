"""The command that measures merges by noise level: what is tried, and that it goes on where it stopped."""

from __future__ import annotations

import json

from benchmarks import noise_levels
from benchmarks.noise_levels import Levels, levels


def test_a_model_leads_at_one_level_and_follows_at_the_other():
    at = Levels(early=("moon",), leading=1.5, following=0.5, boundary=0.25)
    assert at.weights(("heart", "moon", "stripes"), high=True) == [0.5, 1.5, 0.5]
    assert at.weights(("heart", "moon", "stripes"), high=False) == [1.5, 0.5, 1.5]
    assert str(at) == "moon at high noise, 1.5 to 0.5, boundary 0.25"


def test_every_division_into_early_and_late_models_is_tried_once_and_none_has_all_models_at_one_level():
    for models, divisions in ((("a", "b"), 2), (("a", "b", "c"), 6)):
        tried = list(levels(models))
        assert len(tried) == len(set(tried)) == divisions * len(noise_levels.LEADS) * len(noise_levels.BOUNDARIES)
        assert {at.early for at in tried} <= {("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")}
        assert ("a", "b") not in {at.early for at in tried} or divisions == 6


def test_the_command_measures_what_is_not_there_yet_and_writes_a_row_of_the_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(noise_levels, "METHODS", ("weighted_average",))
    noise_levels.main(["--quick", "--folder", str(tmp_path)])
    kept = tmp_path / "two concepts" / "weighted_average.json"
    rows = json.loads(kept.read_text(encoding="utf-8"))
    assert list(rows) == ["one merge", "one merge, weights chosen", "by noise level", "one file of the two"]
    assert max(rows["by noise level"]["tried"], key=rows["by noise level"]["tried"].get) == rows["by noise level"]["chosen"]
    capsys.readouterr()
    rows["one merge"] |= {"score": 0.4167, "spread": 0.0962}
    rows["by noise level"]["seeds"], rows["one merge, weights chosen"]["seeds"] = [0.5, 0.75, 0.25], [0.25, 0.5, 0.5]
    kept.write_text(json.dumps(rows), encoding="utf-8")
    noise_levels.main(["--quick", "--folder", str(tmp_path)])
    row = capsys.readouterr().out.strip().splitlines()[-1]
    assert row.startswith("| two concepts | `weighted_average` | 42 ± 10 |")
    assert row.endswith("| 2, 1 of 3 |")
